/*
 * RAM tier: granules that a pooled vDisk holds in memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/vdisk/ram.h"
#include <sys/mman.h>

#define NONE                UINT32_MAX
/* A neighbour goes along if it is among the colder part of the granules */
#define COLD_PART           4

struct VdiskRamSlot {
    uint64_t granule;
    uint64_t used_at;           /* clock of the last use */
    uint32_t next;              /* in its bucket, or in the list of free ones */
    uint32_t newer, older;      /* resident slots only */
    bool moving;
    bool written;               /* since it began to move */
    bool dropped;               /* since it began to move */
};

static void *reserve(size_t bytes, int advice)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        return NULL;
    }
    madvise(p, bytes, advice);
    return p;
}

static void release(void *p, size_t bytes)
{
    if (p) {
        munmap(p, bytes);
    }
}

static size_t bucket_bytes(const VdiskRam *r)
{
    return (r->bucket_mask + (size_t)1) * sizeof(*r->buckets);
}

bool vdisk_ram_init(VdiskRam *r, uint64_t bytes)
{
    uint64_t buckets = 1;

    assert(bytes >= VDISK_GRANULE && bytes <= VDISK_RAM_MAX);
    *r = (VdiskRam) {
        .size = bytes / VDISK_GRANULE,
        .free = NONE,
        .newest = NONE,
        .oldest = NONE,
    };
    while (buckets < r->size) {
        buckets *= 2;
    }
    r->bucket_mask = buckets - 1;
    /*
     * Slots are used from the first on, so huge pages waste less than one, and
     * spare a page fault for each slot. Buckets are used here and there.
     */
    r->memory = reserve((size_t)r->size * VDISK_GRANULE, MADV_HUGEPAGE);
    r->slots = reserve(r->size * sizeof(*r->slots), MADV_HUGEPAGE);
    r->buckets = reserve(bucket_bytes(r), MADV_NOHUGEPAGE);
    if (!r->memory || !r->slots || !r->buckets) {
        vdisk_ram_destroy(r);
        return false;
    }
    return true;
}

void vdisk_ram_destroy(VdiskRam *r)
{
    release(r->memory, (size_t)r->size * VDISK_GRANULE);
    release(r->slots, r->size * sizeof(*r->slots));
    release(r->buckets, bucket_bytes(r));
    *r = (VdiskRam) {};
}

void vdisk_ram_clear(VdiskRam *r)
{
    memset(r->buckets, 0, bucket_bytes(r));
    assert(r->moving == 0);
    r->used = 0;
    r->fresh = 0;
    r->free = NONE;
    r->newest = NONE;
    r->oldest = NONE;
}

static uint32_t *bucket(const VdiskRam *r, uint64_t g)
{
    /* Fibonacci hashing: neighbours must not share a bucket, nor strides */
    uint64_t hash = g * UINT64_C(0x9e3779b97f4a7c15);

    return &r->buckets[(hash >> 32) & r->bucket_mask];
}

static uint32_t lookup(const VdiskRam *r, uint64_t g)
{
    uint32_t i = *bucket(r, g) - 1;

    while (i != NONE && r->slots[i].granule != g) {
        i = r->slots[i].next;
    }
    return i;
}

static void *memory_of(const VdiskRam *r, uint32_t i)
{
    return r->memory + (size_t)i * VDISK_GRANULE;
}

/* The list of resident slots */

static void list_remove(VdiskRam *r, uint32_t i)
{
    VdiskRamSlot *s = &r->slots[i];

    *(s->newer == NONE ? &r->newest : &r->slots[s->newer].older) = s->older;
    *(s->older == NONE ? &r->oldest : &r->slots[s->older].newer) = s->newer;
}

static void list_add_newest(VdiskRam *r, uint32_t i)
{
    VdiskRamSlot *s = &r->slots[i];

    s->newer = NONE;
    s->older = r->newest;
    *(r->newest == NONE ? &r->oldest : &r->slots[r->newest].newer) = i;
    r->newest = i;
}

static void list_add_oldest(VdiskRam *r, uint32_t i)
{
    VdiskRamSlot *s = &r->slots[i];

    s->older = NONE;
    s->newer = r->oldest;
    *(r->oldest == NONE ? &r->newest : &r->slots[r->oldest].older) = i;
    r->oldest = i;
}

static void use(VdiskRam *r, uint32_t i)
{
    r->slots[i].used_at = ++r->clock;
    if (!r->slots[i].moving && r->newest != i) {
        list_remove(r, i);
        list_add_newest(r, i);
    }
}

static void slot_free(VdiskRam *r, uint32_t i)
{
    uint32_t *b = bucket(r, r->slots[i].granule);
    uint32_t before = *b - 1;

    if (before == i) {
        *b = r->slots[i].next + 1;
    } else {
        while (r->slots[before].next != i) {
            before = r->slots[before].next;
        }
        r->slots[before].next = r->slots[i].next;
    }
    r->slots[i].next = r->free;
    r->free = i;
    r->used--;
}

static uint32_t slot_new(VdiskRam *r, uint64_t g)
{
    uint32_t *b = bucket(r, g);
    uint32_t i = r->free;

    if (i != NONE) {
        r->free = r->slots[i].next;
    } else if (r->fresh < r->size) {
        i = r->fresh++;
        r->touched = MAX(r->touched, r->fresh);
    } else {
        return NONE;
    }
    r->slots[i] = (VdiskRamSlot) { .granule = g, .next = *b - 1 };
    *b = i + 1;
    r->used++;
    list_add_newest(r, i);
    return i;
}

void *vdisk_ram_find(VdiskRam *r, uint64_t g)
{
    uint32_t i = lookup(r, g);

    if (i == NONE || r->slots[i].dropped) {
        return NULL;
    }
    use(r, i);
    return memory_of(r, i);
}

void *vdisk_ram_change(VdiskRam *r, uint64_t g)
{
    uint32_t i = lookup(r, g);

    if (i == NONE || r->slots[i].dropped) {
        return NULL;
    }
    r->slots[i].written = true;
    use(r, i);
    return memory_of(r, i);
}

void *vdisk_ram_add(VdiskRam *r, uint64_t g, bool more)
{
    uint32_t i = lookup(r, g);

    if (i == NONE && more) {
        i = slot_new(r, g);
    }
    if (i == NONE) {
        return NULL;
    }
    r->slots[i].written = true;
    r->slots[i].dropped = false;
    use(r, i);
    return memory_of(r, i);
}

bool vdisk_ram_has(const VdiskRam *r, uint64_t g)
{
    uint32_t i = lookup(r, g);

    return i != NONE && !r->slots[i].dropped;
}

bool vdisk_ram_has_slot(const VdiskRam *r, uint64_t g)
{
    return lookup(r, g) != NONE;
}

void vdisk_ram_drop(VdiskRam *r, uint64_t g)
{
    uint32_t i = lookup(r, g);

    if (i == NONE) {
        return;
    }
    if (r->slots[i].moving) {
        r->slots[i].dropped = true;
    } else {
        list_remove(r, i);
        slot_free(r, i);
    }
}

static bool is_cold(const VdiskRam *r, uint64_t g, uint64_t limit)
{
    uint32_t i = lookup(r, g);

    return i != NONE && !r->slots[i].moving && r->slots[i].used_at <= limit;
}

bool vdisk_ram_take(VdiskRam *r, VdiskRamRun *run)
{
    unsigned max = MAX(1, MIN(VDISK_RAM_RUN, r->size / VDISK_RAM_RUN_PART));
    uint64_t first, limit;

    if (r->oldest == NONE) {
        return false;
    }
    first = r->slots[r->oldest].granule;
    limit = r->slots[r->oldest].used_at + r->used / COLD_PART;
    run->n = 1;
    while (run->n < max && first > 0 &&
           is_cold(r, first - 1, limit)) {
        first--;
        run->n++;
    }
    while (run->n < max && is_cold(r, first + run->n, limit)) {
        run->n++;
    }
    run->first = first;
    r->moving += run->n;
    for (unsigned k = 0; k < run->n; k++) {
        uint32_t i = lookup(r, first + k);

        list_remove(r, i);
        r->slots[i].moving = true;
        r->slots[i].written = false;
        run->memory[k] = memory_of(r, i);
    }
    return true;
}

void vdisk_ram_moved(VdiskRam *r, const VdiskRamRun *run, bool failed)
{
    r->moving -= run->n;
    for (unsigned k = 0; k < run->n; k++) {
        uint32_t i = lookup(r, run->first + k);
        VdiskRamSlot *s = &r->slots[i];

        assert(i != NONE && s->moving);
        s->moving = false;
        if (s->dropped || (!s->written && !failed)) {
            slot_free(r, i);
        } else if (s->written) {
            list_add_newest(r, i);
        } else {
            list_add_oldest(r, i);
        }
    }
}

uint64_t vdisk_ram_memory(const VdiskRam *r)
{
    return (uint64_t)r->touched * (VDISK_GRANULE + sizeof(*r->slots)) +
           bucket_bytes(r);
}

bool vdisk_ram_trim(VdiskRam *r, uint64_t bytes)
{
    uint32_t end = r->touched;
    uint32_t n = MIN(end - r->fresh, bytes / VDISK_GRANULE);

    if (n == 0) {
        return false;
    }
    r->touched = end - n;
    madvise(memory_of(r, r->touched), (size_t)n * VDISK_GRANULE,
            MADV_DONTNEED);
    return true;
}

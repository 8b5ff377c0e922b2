/*
 * Boot trace: which parts of a version were read first, and in which order
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/pvs/boot-trace.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define TRACE_MAGIC     "DSKTRACE"
#define TRACE_VERSION   1

/* As in the file, little-endian */
typedef struct QEMU_PACKED DiskTrace {
    char magic[8];
    uint64_t checksum;          /* XXH3 of all that is behind it */
    uint32_t version;
    uint32_t granule_bits;
    uint64_t image_bytes;
    uint8_t root[BOOT_TRACE_ROOT_BYTES];
    uint32_t runs;
    uint32_t reserved;
} DiskTrace;

typedef struct QEMU_PACKED DiskRun {
    uint64_t first;
    uint32_t n;
} DiskRun;

QEMU_BUILD_BUG_ON(sizeof(DiskTrace) != 72);
QEMU_BUILD_BUG_ON(sizeof(DiskRun) != 12);

struct BootTrace {
    BootTraceId id;
    GArray *runs;
    uint64_t granules;
};

BootTrace *boot_trace_new(const BootTraceId *id)
{
    BootTrace *t = g_new0(BootTrace, 1);

    t->id = *id;
    t->runs = g_array_new(false, false, sizeof(BootTraceRun));
    return t;
}

void boot_trace_free(BootTrace *t)
{
    if (t) {
        g_array_unref(t->runs);
        g_free(t);
    }
}

bool boot_trace_add(BootTrace *t, uint64_t first, uint32_t n)
{
    BootTraceRun run = { .first = first, .n = n };
    BootTraceRun *last = NULL;

    if (n > BOOT_TRACE_GRANULES_MAX - t->granules) {
        return false;
    }
    if (t->runs->len) {
        last = &g_array_index(t->runs, BootTraceRun, t->runs->len - 1);
    }
    if (last && last->first + last->n == first) {
        last->n += n;
    } else if (t->runs->len == BOOT_TRACE_RUNS_MAX) {
        return false;
    } else {
        g_array_append_val(t->runs, run);
    }
    t->granules += n;
    return true;
}

const BootTraceRun *boot_trace_runs(const BootTrace *t, size_t *n)
{
    *n = t->runs->len;
    return (const BootTraceRun *)t->runs->data;
}

uint64_t boot_trace_granules(const BootTrace *t)
{
    return t->granules;
}

static uint64_t checksum(const uint8_t *buf, size_t bytes)
{
    size_t skip = offsetof(DiskTrace, checksum) + sizeof(uint64_t);
    XXH3_state_t *state = XXH3_createState();
    uint64_t sum;

    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, buf + skip, bytes - skip);
    sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return sum;
}

uint8_t *boot_trace_encode(const BootTrace *t, size_t *bytes)
{
    DiskTrace d = {
        .version = GUINT32_TO_LE(TRACE_VERSION),
        .granule_bits = GUINT32_TO_LE(VDISK_GRANULE_BITS),
        .image_bytes = GUINT64_TO_LE(t->id.image_bytes),
        .runs = GUINT32_TO_LE(t->runs->len),
    };
    uint8_t *buf;

    *bytes = sizeof(d) + t->runs->len * sizeof(DiskRun);
    buf = g_malloc(*bytes);
    memcpy(d.magic, TRACE_MAGIC, sizeof(d.magic));
    memcpy(d.root, t->id.root, sizeof(d.root));
    for (guint i = 0; i < t->runs->len; i++) {
        const BootTraceRun *run = &g_array_index(t->runs, BootTraceRun, i);
        DiskRun disk = {
            .first = GUINT64_TO_LE(run->first),
            .n = GUINT32_TO_LE(run->n),
        };

        memcpy(buf + sizeof(d) + i * sizeof(disk), &disk, sizeof(disk));
    }
    memcpy(buf, &d, sizeof(d));
    d.checksum = GUINT64_TO_LE(checksum(buf, *bytes));
    memcpy(buf, &d, sizeof(d));
    return buf;
}

size_t boot_trace_length(const uint8_t *buf, size_t bytes)
{
    uint32_t runs;
    DiskTrace d;

    if (bytes < sizeof(d)) {
        return 0;
    }
    memcpy(&d, buf, sizeof(d));
    runs = GUINT32_FROM_LE(d.runs);
    if (memcmp(d.magic, TRACE_MAGIC, sizeof(d.magic)) != 0 ||
        runs > BOOT_TRACE_RUNS_MAX) {
        return 0;
    }
    return sizeof(d) + runs * sizeof(DiskRun);
}

uint64_t boot_trace_sum(const uint8_t *buf)
{
    DiskTrace d;

    memcpy(&d, buf, sizeof(d));
    return GUINT64_FROM_LE(d.checksum);
}

static const char *bad_head(const DiskTrace *d, const uint8_t *buf,
                            size_t bytes, const BootTraceId *id)
{
    uint32_t runs = GUINT32_FROM_LE(d->runs);

    if (memcmp(d->magic, TRACE_MAGIC, sizeof(d->magic)) != 0) {
        return "it does not begin like one";
    }
    if (GUINT32_FROM_LE(d->version) != TRACE_VERSION ||
        GUINT32_FROM_LE(d->granule_bits) != VDISK_GRANULE_BITS) {
        return "its format is of a version that is not known";
    }
    if (runs > BOOT_TRACE_RUNS_MAX || bytes != sizeof(*d) +
                                               runs * sizeof(DiskRun)) {
        return "its length is not what it says";
    }
    if (GUINT64_FROM_LE(d->checksum) != checksum(buf, bytes)) {
        return "its checksum does not match";
    }
    if (GUINT64_FROM_LE(d->image_bytes) != id->image_bytes ||
        memcmp(d->root, id->root, sizeof(id->root)) != 0) {
        return "it is of another version";
    }
    return NULL;
}

/* Runs, which lie inside of the image */
static bool decode_runs(BootTrace *t, const uint8_t *buf, uint32_t n)
{
    uint64_t granules = DIV_ROUND_UP(t->id.image_bytes, VDISK_GRANULE);

    for (uint32_t i = 0; i < n; i++) {
        uint64_t first;
        uint32_t count;
        DiskRun disk;

        memcpy(&disk, buf + i * sizeof(disk), sizeof(disk));
        first = GUINT64_FROM_LE(disk.first);
        count = GUINT32_FROM_LE(disk.n);
        if (count == 0 || first >= granules || count > granules - first ||
            !boot_trace_add(t, first, count)) {
            return false;
        }
    }
    return true;
}

BootTrace *boot_trace_decode(const uint8_t *buf, size_t bytes,
                             const BootTraceId *id, char **why)
{
    const char *bad = "it is too short";
    BootTrace *t;
    DiskTrace d;

    if (bytes >= sizeof(d)) {
        memcpy(&d, buf, sizeof(d));
        bad = bad_head(&d, buf, bytes, id);
    }
    if (bad) {
        *why = g_strdup(bad);
        return NULL;
    }
    t = boot_trace_new(id);
    if (!decode_runs(t, buf + sizeof(d), GUINT32_FROM_LE(d.runs))) {
        *why = g_strdup("a run in it is outside of the version, or it has more "
                        "of them than a boot");
        boot_trace_free(t);
        return NULL;
    }
    return t;
}

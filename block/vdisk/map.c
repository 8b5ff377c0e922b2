/*
 * Granule map: where each granule of a vDisk is read from
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/vdisk/map.h"
#include <sys/mman.h>

#define GRANULES_PER_WORD   32
#define WORDS_PER_PAGE      (VDISK_MAP_PAGE / sizeof(uint64_t))

/* A word of granules that are all in @state */
static inline uint64_t pattern(VdiskState state)
{
    return state * UINT64_C(0x5555555555555555);
}

/* Bits of granules @from up to but not including @to of a word */
static inline uint64_t word_mask(unsigned from, unsigned to)
{
    uint64_t high = to == GRANULES_PER_WORD ? 0 : UINT64_MAX << (2 * to);

    return (UINT64_MAX << (2 * from)) & ~high;
}

/* The word as the host counts it; on disk granule 0 is in the lowest bits */
static inline uint64_t word_read(const VdiskMap *m, uint64_t index)
{
    return qatomic_read(&m->words[index]);
}

/*
 * Address space only: the kernel gives memory page by page when it is first
 * written. Huge pages would give 2 MiB for the first bit.
 */
static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        return NULL;
    }
    madvise(p, bytes, MADV_NOHUGEPAGE);
    return p;
}

bool vdisk_map_init(VdiskMap *m, uint64_t granules, uint64_t capacity)
{
    uint64_t bytes, pages;

    assert(granules <= capacity);
    *m = (VdiskMap) { .granules = granules };
    if (capacity > (SIZE_MAX >> 1)) {
        return false;
    }
    bytes = VDISK_MAP_BYTES(capacity ? capacity : 1);
    pages = bytes / VDISK_MAP_PAGE;
    m->words_bytes = bytes;
    m->dirty_bytes = DIV_ROUND_UP(pages, 64) * sizeof(uint64_t);
    m->words = reserve(m->words_bytes);
    m->dirty = reserve(m->dirty_bytes);
    if (!m->words || !m->dirty) {
        vdisk_map_destroy(m);
        return false;
    }
    return true;
}

void vdisk_map_destroy(VdiskMap *m)
{
    if (m->words) {
        munmap(m->words, m->words_bytes);
    }
    if (m->dirty) {
        munmap(m->dirty, m->dirty_bytes);
    }
    *m = (VdiskMap) {};
}

uint64_t vdisk_map_capacity(const VdiskMap *m)
{
    return (uint64_t)m->words_bytes * 4;
}

void vdisk_map_grow(VdiskMap *m, uint64_t granules)
{
    assert(granules >= m->granules && granules <= vdisk_map_capacity(m));
    m->granules = granules;
}

uint64_t vdisk_map_run(const VdiskMap *m, uint64_t g, uint64_t max,
                       VdiskState *state)
{
    uint64_t index = g / GRANULES_PER_WORD;
    unsigned from = g % GRANULES_PER_WORD;
    uint64_t done = 0;
    uint64_t other;

    assert(max > 0 && g < m->granules && max <= m->granules - g);
    *state = (word_read(m, index) >> (2 * from)) & 3;
    while (done < max) {
        other = (word_read(m, index) ^ pattern(*state)) >> (2 * from);
        if (other) {
            done += __builtin_ctzll(other) / 2;
            break;
        }
        done += GRANULES_PER_WORD - from;
        from = 0;
        index++;
    }
    /*
     * Another thread may change even the first granule between the two looks
     * at its word: then the first look counts.
     */
    return done ? MIN(done, max) : 1;
}

bool vdisk_map_all(const VdiskMap *m, uint64_t g, uint64_t n, VdiskState state)
{
    VdiskState found;

    while (n > 0) {
        uint64_t run = vdisk_map_run(m, g, n, &found);

        if (found != state) {
            return false;
        }
        g += run;
        n -= run;
    }
    return true;
}

void vdisk_map_set(VdiskMap *m, uint64_t g, uint64_t n, VdiskState state)
{
    uint64_t end = g + n;

    assert(state != VDISK_STATE_BAD);
    assert(g <= m->granules && n <= m->granules - g);
    while (g < end) {
        uint64_t index = g / GRANULES_PER_WORD;
        unsigned from = g % GRANULES_PER_WORD;
        unsigned to = MIN(GRANULES_PER_WORD, from + (end - g));
        uint64_t change = (word_read(m, index) ^ pattern(state)) &
                          word_mask(from, to);

        if (change) {
            qatomic_fetch_xor(&m->words[index], change);
            /* After the state: vdisk_map_take() cleans first, then copies */
            vdisk_map_mark_dirty(m, index / WORDS_PER_PAGE);
        }
        g += to - from;
    }
}

static void forget(void *p, size_t bytes)
{
    /* On private anonymous memory this also reads as zeros afterwards */
    if (madvise(p, bytes, MADV_DONTNEED) != 0) {
        memset(p, 0, bytes);
    }
}

void vdisk_map_clear(VdiskMap *m)
{
    forget(m->words, m->words_bytes);
    forget(m->dirty, m->dirty_bytes);
}

uint64_t vdisk_map_pages(const VdiskMap *m)
{
    return DIV_ROUND_UP(m->granules, VDISK_MAP_PAGE_GRANULES);
}

uint64_t vdisk_map_next_dirty(const VdiskMap *m, uint64_t page)
{
    uint64_t pages = vdisk_map_pages(m);

    while (page < pages) {
        uint64_t bits = qatomic_read(&m->dirty[page / 64]) >> (page % 64);

        if (bits) {
            return MIN(page + __builtin_ctzll(bits), pages);
        }
        page = ROUND_UP(page + 1, 64);
    }
    return pages;
}

void vdisk_map_mark_dirty(VdiskMap *m, uint64_t page)
{
    uint64_t bit = UINT64_C(1) << (page % 64);

    qatomic_fetch_or(&m->dirty[page / 64], bit);
}

void vdisk_map_take(VdiskMap *m, uint64_t page, uint8_t *buf)
{
    uint64_t bit = UINT64_C(1) << (page % 64);
    uint64_t word;

    qatomic_fetch_and(&m->dirty[page / 64], ~bit);
    for (size_t i = 0; i < WORDS_PER_PAGE; i++) {
        word = GUINT64_TO_LE(word_read(m, page * WORDS_PER_PAGE + i));
        memcpy(buf + i * sizeof(word), &word, sizeof(word));
    }
}

bool vdisk_map_load(VdiskMap *m, uint64_t page, const uint8_t *buf)
{
    uint64_t bad = 0;
    uint64_t word;

    for (size_t i = 0; i < WORDS_PER_PAGE; i++) {
        uint64_t *to = &m->words[page * WORDS_PER_PAGE + i];

        memcpy(&word, buf + i * sizeof(word), sizeof(word));
        word = GUINT64_FROM_LE(word);
        /* Writing the same zero would take memory for an empty page */
        if (word != qatomic_read(to)) {
            qatomic_set(to, word);
        }
        /* Both bits of a granule set */
        bad |= word & (word >> 1) & pattern(VDISK_STATE_DATA);
    }
    return !bad;
}

uint64_t vdisk_map_next_bad(const VdiskMap *m, uint64_t g)
{
    VdiskState state;

    while (g < m->granules) {
        uint64_t run = vdisk_map_run(m, g, m->granules - g, &state);

        if (state == VDISK_STATE_BAD) {
            return g;
        }
        g += run;
    }
    return m->granules;
}

void vdisk_map_count(const VdiskMap *m, uint64_t count[4])
{
    VdiskState state;
    uint64_t run;

    memset(count, 0, 4 * sizeof(*count));
    for (uint64_t g = 0; g < m->granules; g += run) {
        run = vdisk_map_run(m, g, m->granules - g, &state);
        count[state] += run;
    }
}

uint64_t vdisk_map_trim(VdiskMap *m, bool fix)
{
    uint64_t end = vdisk_map_pages(m) * VDISK_MAP_PAGE_GRANULES;
    uint64_t found = 0;

    for (uint64_t g = m->granules; g < end; g++) {
        uint64_t index = g / GRANULES_PER_WORD;
        unsigned from = g % GRANULES_PER_WORD;
        uint64_t bits = word_read(m, index) & word_mask(from, from + 1);

        if (bits) {
            found++;
            if (fix) {
                qatomic_fetch_xor(&m->words[index], bits);
                vdisk_map_mark_dirty(m, index / WORDS_PER_PAGE);
            }
        }
    }
    return found;
}

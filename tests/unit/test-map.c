/*
 * The granule map against a plain array
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/map.h"
#include "suite.h"
#include <pthread.h>

#define GRANULES    (3 * VDISK_MAP_PAGE_GRANULES + 77)

static uint32_t rng = 1;

static uint32_t rnd(uint32_t below)
{
    rng = rng * 1664525 + 1013904223;
    return (uint64_t)rng * below >> 32;
}

static void test_empty(void)
{
    VdiskMap m;
    VdiskState state;

    CU_ASSERT_FATAL(vdisk_map_init(&m, GRANULES, 4 * GRANULES));
    CU_ASSERT_EQUAL(vdisk_map_run(&m, 0, GRANULES, &state), GRANULES);
    CU_ASSERT_EQUAL(state, VDISK_STATE_BASE);
    CU_ASSERT_EQUAL(vdisk_map_pages(&m), 4);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 4);
    CU_ASSERT(vdisk_map_capacity(&m) >= 4 * GRANULES);
    vdisk_map_destroy(&m);
}

/* A map for no granules at all is a disk of no bytes, and nothing else */
static void test_no_granules(void)
{
    VdiskMap m;
    uint64_t count[4];

    CU_ASSERT_FATAL(vdisk_map_init(&m, 0, 0));
    CU_ASSERT_EQUAL(vdisk_map_pages(&m), 0);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 0);
    CU_ASSERT_EQUAL(vdisk_map_next_bad(&m, 0), 0);
    vdisk_map_count(&m, count);
    CU_ASSERT_EQUAL(count[VDISK_STATE_BASE], 0);
    vdisk_map_destroy(&m);
}

static void test_too_large(void)
{
    VdiskMap m;

    CU_ASSERT_FALSE(vdisk_map_init(&m, 1, UINT64_MAX));
    CU_ASSERT_FALSE(vdisk_map_init(&m, 1, (uint64_t)SIZE_MAX / 2));
}

static bool same_as(const VdiskMap *m, const uint8_t *ref)
{
    uint64_t g = 0;

    while (g < m->granules) {
        VdiskState state;
        uint64_t run = vdisk_map_run(m, g, m->granules - g, &state);

        for (uint64_t i = g; i < g + run; i++) {
            if (ref[i] != state) {
                return false;
            }
        }
        /* A run ends where the state changes, not before */
        if (g + run < m->granules && ref[g + run] == state) {
            return false;
        }
        g += run;
    }
    return true;
}

static void test_random(void)
{
    VdiskMap m;
    uint8_t *ref = g_malloc0(GRANULES);
    uint64_t count[4], expected[4] = {};

    CU_ASSERT_FATAL(vdisk_map_init(&m, GRANULES, GRANULES));
    for (int i = 0; i < 5000; i++) {
        uint32_t g = rnd(GRANULES);
        uint32_t n = rnd(MIN(GRANULES - g, i % 3 ? 100 : GRANULES)) + 1;
        VdiskState state = rnd(3);

        vdisk_map_set(&m, g, n, state);
        memset(ref + g, state, n);
        CU_ASSERT_FATAL(vdisk_map_all(&m, g, n, state));
        if (i % 100 == 0) {
            CU_ASSERT_FATAL(same_as(&m, ref));
        }
    }
    for (int g = 0; g < GRANULES; g++) {
        expected[ref[g]]++;
    }
    vdisk_map_count(&m, count);
    CU_ASSERT_EQUAL(memcmp(count, expected, sizeof(count)), 0);
    vdisk_map_clear(&m);
    memset(ref, 0, GRANULES);
    CU_ASSERT(same_as(&m, ref));
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), vdisk_map_pages(&m));
    g_free(ref);
    vdisk_map_destroy(&m);
}

static void test_dirty(void)
{
    VdiskMap m;
    uint8_t page[VDISK_MAP_PAGE];
    uint8_t expected[4] = { 0x04, 0x80, 0, 0 };

    CU_ASSERT_FATAL(vdisk_map_init(&m, GRANULES, GRANULES));
    vdisk_map_set(&m, VDISK_MAP_PAGE_GRANULES + 1, 1, VDISK_STATE_DATA);
    vdisk_map_set(&m, VDISK_MAP_PAGE_GRANULES + 7, 1, VDISK_STATE_ZERO);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 1);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 2), 4);
    vdisk_map_take(&m, 1, page);
    CU_ASSERT_EQUAL(memcmp(page, expected, sizeof(expected)), 0);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 4);

    /* The same state again is no change, and costs no flush (L2) */
    vdisk_map_set(&m, VDISK_MAP_PAGE_GRANULES + 1, 1, VDISK_STATE_DATA);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 4);
    vdisk_map_set(&m, GRANULES - 1, 1, VDISK_STATE_DATA);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 3);
    vdisk_map_destroy(&m);
}

static void test_load(void)
{
    VdiskMap m;
    uint8_t page[VDISK_MAP_PAGE] = { 0x04, 0x80, 0x0c };
    uint8_t copy[VDISK_MAP_PAGE];

    CU_ASSERT_FATAL(vdisk_map_init(&m, GRANULES, GRANULES));
    vdisk_map_load(&m, 2, page);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 4);
    CU_ASSERT_EQUAL(vdisk_map_next_bad(&m, 0),
                    2 * VDISK_MAP_PAGE_GRANULES + 9);
    vdisk_map_take(&m, 2, copy);
    CU_ASSERT_EQUAL(memcmp(page, copy, sizeof(page)), 0);
    vdisk_map_destroy(&m);
}

static void test_grow(void)
{
    VdiskMap m;
    uint8_t page[VDISK_MAP_PAGE];

    memset(page, 0x55, sizeof(page));
    CU_ASSERT_FATAL(vdisk_map_init(&m, 100, 1000000));
    vdisk_map_load(&m, 0, page);
    CU_ASSERT_EQUAL(vdisk_map_trim(&m, false), VDISK_MAP_PAGE_GRANULES - 100);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 1);
    CU_ASSERT_EQUAL(vdisk_map_trim(&m, true), VDISK_MAP_PAGE_GRANULES - 100);
    CU_ASSERT_EQUAL(vdisk_map_next_dirty(&m, 0), 0);
    CU_ASSERT_EQUAL(vdisk_map_trim(&m, true), 0);
    vdisk_map_grow(&m, 1000000);
    CU_ASSERT(vdisk_map_all(&m, 0, 100, VDISK_STATE_DATA));
    CU_ASSERT(vdisk_map_all(&m, 100, 999900, VDISK_STATE_BASE));
    vdisk_map_destroy(&m);
}

typedef struct Setter {
    VdiskMap *m;
    unsigned lane;
} Setter;

/* Each thread owns every fourth granule, so all of them share all words */
static void *setter_run(void *opaque)
{
    Setter *s = opaque;

    for (int round = 0; round < 20; round++) {
        for (uint64_t g = s->lane; g < 40000; g += 4) {
            vdisk_map_set(s->m, g, 1, (round + s->lane) % 3);
        }
    }
    return NULL;
}

/* Reading needs no lock: a run is never empty, and ends in the map */
static void *reader_run(void *opaque)
{
    const VdiskMap *m = opaque;
    uint64_t run, wrong = 0;
    VdiskState state;

    for (int round = 0; round < 5; round++) {
        for (uint64_t g = 0; g < m->granules; g += run) {
            run = vdisk_map_run(m, g, m->granules - g, &state);
            wrong += run == 0 || run > m->granules - g ||
                     state == VDISK_STATE_BAD;
        }
    }
    return (void *)(uintptr_t)wrong;
}

static void test_threads(void)
{
    VdiskMap m;
    pthread_t threads[4], reader;
    Setter setters[4];
    void *wrong;
    uint8_t page[VDISK_MAP_PAGE];
    bool right = true;

    CU_ASSERT_FATAL(vdisk_map_init(&m, 40000, 40000));
    for (unsigned i = 0; i < 4; i++) {
        setters[i] = (Setter) { &m, i };
        pthread_create(&threads[i], NULL, setter_run, &setters[i]);
    }
    pthread_create(&reader, NULL, reader_run, &m);
    for (int i = 0; i < 2000; i++) {
        vdisk_map_take(&m, i % 3, page);
    }
    pthread_join(reader, &wrong);
    CU_ASSERT_PTR_NULL(wrong);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    for (uint64_t g = 0; g < 40000; g++) {
        right = right && vdisk_map_all(&m, g, 1, (19 + g % 4) % 3);
    }
    CU_ASSERT(right);
    vdisk_map_destroy(&m);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "an empty map is all base", test_empty },
        { "a map of no granules", test_no_granules },
        { "a map that no memory can hold", test_too_large },
        { "random states against an array", test_random },
        { "pages are dirty when a state changed", test_dirty },
        { "a loaded page is clean", test_load },
        { "what lies past the end does not come alive", test_grow },
        { "neighbours in a word from four threads", test_threads },
        CU_TEST_INFO_NULL,
    };

    return run_suite("map", tests);
}

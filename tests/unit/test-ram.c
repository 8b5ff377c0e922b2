/*
 * The RAM tier's slots against a plain array
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/ram.h"
#include "suite.h"

#define SLOTS       ((unsigned)(VDISK_RAM_MIN / VDISK_GRANULE))
#define GRANULES    (2 * SLOTS)
#define MOVES       8

static uint32_t rng = 1;

static uint32_t rnd(uint32_t below)
{
    rng = rng * 1664525 + 1013904223;
    return (uint64_t)rng * below >> 32;
}

static void fill(void *memory, uint32_t value)
{
    uint32_t *p = memory;

    for (unsigned i = 0; i < VDISK_GRANULE / sizeof(*p); i++) {
        p[i] = value;
    }
}

static bool is_filled(const void *memory, uint32_t value)
{
    const uint32_t *p = memory;

    for (unsigned i = 0; i < VDISK_GRANULE / sizeof(*p); i++) {
        if (p[i] != value) {
            return false;
        }
    }
    return true;
}

static void fill_tier(VdiskRam *r)
{
    for (unsigned g = 0; g < SLOTS; g++) {
        void *memory = vdisk_ram_add(r, g, true);

        CU_ASSERT_PTR_NOT_NULL_FATAL(memory);
        fill(memory, g);
    }
}

static void test_limit(void)
{
    VdiskRam r;
    uint64_t idle;

    CU_ASSERT_FATAL(vdisk_ram_init(&r, VDISK_RAM_MIN));
    idle = vdisk_ram_memory(&r);
    CU_ASSERT(idle < VDISK_RAM_MIN / 100);
    fill_tier(&r);
    CU_ASSERT_EQUAL(r.used, SLOTS);
    CU_ASSERT_PTR_NULL(vdisk_ram_add(&r, SLOTS, true));
    CU_ASSERT_PTR_NOT_NULL(vdisk_ram_add(&r, 5, true));
    vdisk_ram_drop(&r, 5);
    CU_ASSERT_PTR_NULL(vdisk_ram_add(&r, 5, false));
    CU_ASSERT_PTR_NOT_NULL(vdisk_ram_add(&r, 5, true));
    CU_ASSERT_EQUAL(r.used, SLOTS);
    /* The promise of at most 5 % more than the limit */
    CU_ASSERT(vdisk_ram_memory(&r) <= VDISK_RAM_MIN + VDISK_RAM_MIN / 20);
    vdisk_ram_destroy(&r);
}

static void test_clear_and_trim(void)
{
    VdiskRam r;
    uint64_t idle;

    CU_ASSERT_FATAL(vdisk_ram_init(&r, VDISK_RAM_MIN));
    idle = vdisk_ram_memory(&r);
    fill_tier(&r);
    vdisk_ram_clear(&r);
    CU_ASSERT_EQUAL(r.used, 0);
    for (unsigned g = 0; g < SLOTS; g++) {
        CU_ASSERT_PTR_NULL(vdisk_ram_find(&r, g));
    }
    fill(vdisk_ram_add(&r, 7, true), 77);
    while (vdisk_ram_trim(&r, 10 * VDISK_GRANULE)) {
        CU_ASSERT(is_filled(vdisk_ram_find(&r, 7), 77));
    }
    CU_ASSERT(vdisk_ram_memory(&r) < idle + 2 * VDISK_GRANULE);
    fill_tier(&r);
    CU_ASSERT(is_filled(vdisk_ram_find(&r, 7), 7));
    vdisk_ram_destroy(&r);
}

/* The oldest goes first; in a large tier with neighbours that are as cold, not with hot ones */
static void test_coldest(void)
{
    VdiskRam r;
    VdiskRamRun run;

    CU_ASSERT_FATAL(vdisk_ram_init(&r, VDISK_RAM_MIN));
    CU_ASSERT_FALSE(vdisk_ram_take(&r, &run));
    fill_tier(&r);
    for (unsigned g = 0; g < SLOTS; g++) {
        if (g != 100 && g != 101) {
            CU_ASSERT_PTR_NOT_NULL(vdisk_ram_find(&r, g));
        }
    }
    CU_ASSERT_FATAL(vdisk_ram_take(&r, &run));
    /* A small tier: one at a time, the oldest first */
    CU_ASSERT_EQUAL(run.first, 100);
    CU_ASSERT_EQUAL(run.n, 1);
    for (unsigned k = 0; k < run.n; k++) {
        CU_ASSERT(is_filled(run.memory[k], run.first + k));
    }
    vdisk_ram_moved(&r, &run, false);
    CU_ASSERT_FALSE(vdisk_ram_has(&r, 100));
    CU_ASSERT_EQUAL(r.used, SLOTS - run.n);
    vdisk_ram_destroy(&r);
}

static void test_neighbours(void)
{
    const unsigned slots = VDISK_RAM_RUN * VDISK_RAM_RUN_PART;
    VdiskRam r;
    VdiskRamRun run;
    uint64_t moved = 0;

    CU_ASSERT_FATAL(vdisk_ram_init(&r, (uint64_t)slots * VDISK_GRANULE));
    for (unsigned g = 0; g < slots; g++) {
        *(uint32_t *)vdisk_ram_add(&r, g, true) = g;
    }
    CU_ASSERT_FATAL(vdisk_ram_take(&r, &run));
    CU_ASSERT_EQUAL(run.first, 0);
    CU_ASSERT_EQUAL(run.n, VDISK_RAM_RUN);
    for (unsigned k = 0; k < run.n; k++) {
        CU_ASSERT_EQUAL(*(const uint32_t *)run.memory[k], run.first + k);
    }
    vdisk_ram_moved(&r, &run, false);
    /* Hot ones stay: 100 was used just now */
    CU_ASSERT_PTR_NOT_NULL(vdisk_ram_find(&r, 100));
    while (moved < 3 * VDISK_RAM_RUN && vdisk_ram_take(&r, &run)) {
        CU_ASSERT(run.first > 100 || run.first + run.n <= 100);
        moved += run.n;
        vdisk_ram_moved(&r, &run, false);
    }
    CU_ASSERT(vdisk_ram_has(&r, 100));
    vdisk_ram_destroy(&r);
}

static void test_while_moving(void)
{
    VdiskRam r;
    VdiskRamRun run;

    CU_ASSERT_FATAL(vdisk_ram_init(&r, VDISK_RAM_MIN));
    for (unsigned g = 0; g < 5; g++) {
        fill(vdisk_ram_add(&r, g, true), g);
    }
    CU_ASSERT_FATAL(vdisk_ram_take(&r, &run));
    fill(vdisk_ram_change(&r, run.first), 1000);
    vdisk_ram_moved(&r, &run, false);
    /* Written while it moved: what is in the file is old */
    CU_ASSERT(is_filled(vdisk_ram_find(&r, run.first), 1000));

    while (vdisk_ram_take(&r, &run)) {
        vdisk_ram_drop(&r, run.first);
        CU_ASSERT_PTR_NULL(vdisk_ram_find(&r, run.first));
        CU_ASSERT_PTR_NULL(vdisk_ram_change(&r, run.first));
        CU_ASSERT_FALSE(vdisk_ram_has(&r, run.first));
        vdisk_ram_moved(&r, &run, true);
        CU_ASSERT_FALSE(vdisk_ram_has(&r, run.first));
    }
    CU_ASSERT_EQUAL(r.used, 0);

    /* Dropped, then written anew while the old content moves */
    fill(vdisk_ram_add(&r, 9, true), 9);
    CU_ASSERT_FATAL(vdisk_ram_take(&r, &run));
    vdisk_ram_drop(&r, 9);
    CU_ASSERT(vdisk_ram_has_slot(&r, 9));
    CU_ASSERT_PTR_NULL(vdisk_ram_change(&r, 9));
    fill(vdisk_ram_add(&r, 9, false), 99);
    CU_ASSERT_EQUAL(r.used, 1);
    vdisk_ram_moved(&r, &run, false);
    CU_ASSERT(is_filled(vdisk_ram_find(&r, 9), 99));
    vdisk_ram_destroy(&r);
}

/* The granules as they must read: from the tier, else from the "file" */
typedef struct Model {
    VdiskRam r;
    uint32_t value[GRANULES];       /* 0: nothing was written */
    uint32_t file[GRANULES];
    VdiskRamRun moves[MOVES];
    uint32_t sent[MOVES][VDISK_RAM_RUN];
    bool busy[MOVES];
} Model;

static void model_write(Model *m, uint32_t g, uint32_t value)
{
    void *memory = vdisk_ram_add(&m->r, g, true);

    if (memory) {
        fill(memory, value);
    } else {
        /* As the driver does when the tier is full */
        CU_ASSERT_EQUAL(m->r.used, SLOTS);
        m->file[g] = value;
    }
    m->value[g] = value;
}

static void model_move(Model *m, unsigned k)
{
    VdiskRamRun *run = &m->moves[k];

    if (m->busy[k]) {
        bool failed = rnd(4) == 0;

        for (unsigned i = 0; i < run->n && !failed; i++) {
            m->file[run->first + i] = m->sent[k][i];
        }
        vdisk_ram_moved(&m->r, run, failed);
        m->busy[k] = false;
    } else if (vdisk_ram_take(&m->r, run)) {
        for (unsigned i = 0; i < run->n; i++) {
            m->sent[k][i] = *(const uint32_t *)run->memory[i];
        }
        m->busy[k] = true;
    }
}

static void model_check(Model *m, uint32_t g)
{
    void *memory = vdisk_ram_find(&m->r, g);

    if (memory) {
        CU_ASSERT_FATAL(is_filled(memory, m->value[g]));
    } else if (m->value[g]) {
        CU_ASSERT_EQUAL_FATAL(m->file[g], m->value[g]);
    }
}

static void test_against_model(void)
{
    Model *m = g_new0(Model, 1);

    CU_ASSERT_FATAL(vdisk_ram_init(&m->r, VDISK_RAM_MIN));
    for (uint32_t step = 1; step < 400000; step++) {
        uint32_t g = rnd(rnd(2) ? GRANULES : 40);

        switch (rnd(8)) {
        case 0:
            vdisk_ram_drop(&m->r, g);
            m->value[g] = 0;
            break;
        case 1:
        case 2:
            model_move(m, rnd(MOVES));
            break;
        case 3:
        case 4:
            model_check(m, g);
            break;
        default:
            model_write(m, g, step);
        }
        CU_ASSERT_FATAL(m->r.used <= SLOTS);
    }
    vdisk_ram_destroy(&m->r);
    g_free(m);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "limit", test_limit },
        { "clear and trim", test_clear_and_trim },
        { "coldest first", test_coldest },
        { "neighbours", test_neighbours },
        { "written and dropped while moving", test_while_moving },
        { "against a model", test_against_model },
        CU_TEST_INFO_NULL,
    };

    return run_suite("ram", tests);
}

/*
 * Room in a host's cache
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/serve/plan.h"
#include "suite.h"

#include <glib.h>

#define M   (UINT64_C(1) << 20)

static void test_all_fit(void)
{
    PlanItem v[] = {
        { .need = 100 * M, .wanted = true },
        { .need = 50 * M, .wanted = true },
        { .need = 7 * M, .wanted = false },
    };

    plan_room(v, 3, 150 * M);
    CU_ASSERT_EQUAL(v[0].grant, 100 * M);
    CU_ASSERT_EQUAL(v[1].grant, 50 * M);
    CU_ASSERT_EQUAL(v[2].grant, 0);
}

/* The important one first; what is left is used, if it is worth it */
static void test_too_small(void)
{
    PlanItem v[] = {
        { .need = 100 * M, .wanted = true },
        { .need = 50 * M, .wanted = true },
        { .need = 60 * M, .wanted = true },
    };

    plan_room(v, 3, 120 * M);
    CU_ASSERT_EQUAL(v[0].grant, 100 * M);
    CU_ASSERT_EQUAL(v[1].grant, 20 * M);
    CU_ASSERT_EQUAL(v[2].grant, 0);
    plan_room(v, 3, 110 * M);
    CU_ASSERT_EQUAL(v[1].grant, 0);
    plan_room(v, 3, 0);
    CU_ASSERT_EQUAL(v[0].grant, 0);
}

/* A new version comes, and the old one holds all: it gives way first */
static void test_gives_way(void)
{
    PlanItem v[] = {
        { .need = 100 * M, .wanted = true },
        { .need = 100 * M, .held = 100 * M, .wanted = true },
    };

    plan_room(v, 2, 130 * M);
    CU_ASSERT_EQUAL(v[0].grant, 30 * M);
    CU_ASSERT_EQUAL(v[1].grant, 0);
    /* Now it has been closed */
    v[1].held = 0;
    v[0].held = 30 * M;
    plan_room(v, 2, 130 * M);
    CU_ASSERT_EQUAL(v[0].grant, 100 * M);
    CU_ASSERT_EQUAL(v[1].grant, 30 * M);
}

/* One that is not wanted keeps its room while it is used */
static void test_retired_in_use(void)
{
    PlanItem v[] = {
        { .need = 100 * M, .wanted = true },
        { .need = 90 * M, .held = 90 * M, .wanted = false },
    };

    plan_room(v, 2, 100 * M);
    CU_ASSERT_EQUAL(v[0].grant, 0);
    v[1].held = 0;
    plan_room(v, 2, 100 * M);
    CU_ASSERT_EQUAL(v[0].grant, 100 * M);
}

/* What is settled is not moved about */
static void test_stable(void)
{
    PlanItem v[] = {
        { .need = 100 * M, .wanted = true },
        { .need = 50 * M, .wanted = true },
    };

    for (int i = 0; i < 4; i++) {
        plan_room(v, 2, 130 * M);
        CU_ASSERT_EQUAL(v[0].grant, 100 * M);
        CU_ASSERT_EQUAL(v[1].grant, 30 * M);
        v[0].held = v[0].grant;
        v[1].held = v[1].grant;
    }
}

/* Whatever is held: never more than there is, and an end comes */
static void test_random(void)
{
    GRand *rng = g_rand_new_with_seed(6);

    for (int round = 0; round < 20000; round++) {
        PlanItem v[6] = {};
        unsigned n = g_rand_int_range(rng, 1, 7);
        uint64_t size = g_rand_int_range(rng, 0, 400) * M;
        bool moved = true;

        for (unsigned i = 0; i < n; i++) {
            v[i].need = g_rand_int_range(rng, 1, 200) * M;
            v[i].wanted = g_rand_int_range(rng, 0, 4) > 0;
        }
        for (int step = 0; moved && step < 50; step++) {
            uint64_t sum = 0;

            moved = false;
            plan_room(v, n, size);
            for (unsigned i = 0; i < n; i++) {
                sum += MAX(v[i].held, v[i].grant);
                CU_ASSERT(v[i].wanted || !v[i].grant);
                CU_ASSERT(v[i].grant <= v[i].need);
            }
            CU_ASSERT(sum <= size);
            for (unsigned i = 0; i < n; i++) {
                /* Some are in use, and not closed yet */
                if (g_rand_boolean(rng) || step > 20) {
                    moved |= v[i].held != v[i].grant;
                    v[i].held = v[i].grant;
                } else {
                    moved = true;
                }
                if (step < 10) {
                    v[i].wanted ^= g_rand_int_range(rng, 0, 10) == 0;
                    moved = true;
                }
            }
        }
        CU_ASSERT(!moved);
        CU_ASSERT(!v[0].wanted || v[0].held == v[0].need ||
                  v[0].need > size);
    }
    g_rand_free(rng);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "all fit", test_all_fit },
        { "not all fit", test_too_small },
        { "an old one gives way", test_gives_way },
        { "retired and in use", test_retired_in_use },
        { "nothing moves for nothing", test_stable },
        { "at random", test_random },
        CU_TEST_INFO_NULL,
    };

    return run_suite("plan", tests);
}

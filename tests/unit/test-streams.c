/*
 * Unit tests: readers in sequence
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/streams.h"
#include "suite.h"

#define KIB     INT64_C(1024)
#define MIB     (1024 * KIB)
#define END     (1024 * MIB)

static int64_t from, to;

static bool reads(Streams *s, int64_t offset, int64_t bytes)
{
    return streams_advance(s, offset, bytes, END, &from, &to);
}

/* The third read in sequence, and then as far ahead as there are reads */
static void test_sequence(void)
{
    Streams s = {};
    int64_t fetched = 0, most = 0;

    CU_ASSERT_FALSE(reads(&s, 0, 64 * KIB));
    CU_ASSERT_FALSE(reads(&s, 64 * KIB, 64 * KIB));
    CU_ASSERT(reads(&s, 128 * KIB, 64 * KIB));
    CU_ASSERT_EQUAL(from, 192 * KIB);
    CU_ASSERT_EQUAL(to, 192 * KIB + STREAM_MIN);
    fetched = to;
    for (int64_t at = 192 * KIB; at < 64 * MIB; at += 64 * KIB) {
        if (reads(&s, at, 64 * KIB)) {
            CU_ASSERT_EQUAL(from, fetched);
            fetched = to;
        }
        CU_ASSERT(fetched > at + 64 * KIB);
        most = MAX(most, fetched - at - 64 * KIB);
    }
    CU_ASSERT(most > STREAM_MAX / 2 && most <= STREAM_MAX);
}

/* Of eight desktops in the same places none reads in sequence */
static void test_together(void)
{
    Streams s = {};

    for (int64_t place = 0; place < 100; place++) {
        for (int desktop = 0; desktop < 8; desktop++) {
            CU_ASSERT_FALSE(reads(&s, place * 3 * MIB, 128 * KIB));
        }
    }
}

/* And when they do, it is fetched ahead once */
static void test_together_in_sequence(void)
{
    Streams s = {};
    int64_t fetched = 0, asked = 0;

    for (int64_t at = 0; at < 8 * MIB; at += 64 * KIB) {
        for (int desktop = 0; desktop < 8; desktop++) {
            if (reads(&s, at, 64 * KIB)) {
                CU_ASSERT(from >= fetched);
                asked += to - from;
                fetched = to;
            }
        }
    }
    CU_ASSERT(fetched > 8 * MIB && asked < fetched);
}

/* Requests that are in flight together may come in another order */
static void test_overtaking(void)
{
    static const int64_t order[] = { 0, 2, 1, 4, 3, 5, 7, 6, 8, 9 };
    Streams s = {};
    bool ahead = false;

    for (size_t i = 0; i < G_N_ELEMENTS(order); i++) {
        ahead |= reads(&s, order[i] * 64 * KIB, 64 * KIB);
    }
    CU_ASSERT(ahead);
}

static void test_random(void)
{
    Streams s = {};
    GRand *rand = g_rand_new_with_seed(7);

    for (unsigned i = 0; i < 1000; i++) {
        int64_t place = g_rand_int_range(rand, 0, 1 << 20) * MIB;

        CU_ASSERT_FALSE(reads(&s, place, 4 * KIB));
    }
    g_rand_free(rand);
}

/* As many as are told apart, by turns; one more pushes the oldest out */
static void test_many(void)
{
    Streams s = {};
    unsigned ahead = 0;

    for (int64_t n = 0; n < 3; n++) {
        for (int64_t i = 0; i < STREAMS; i++) {
            ahead += reads(&s, i * 16 * MIB + n * 4 * KIB, 4 * KIB);
        }
    }
    CU_ASSERT_EQUAL(ahead, STREAMS);
    CU_ASSERT_FALSE(reads(&s, 512 * MIB, 4 * KIB));
    CU_ASSERT_FALSE(reads(&s, 12 * KIB, 4 * KIB));
    CU_ASSERT(reads(&s, 2 * 16 * MIB + 12 * KIB, 128 * KIB));
}

/* Whole granules, and nothing behind the end */
static void test_bounds(void)
{
    Streams s = {};

    reads(&s, END - 300 * KIB, 512);
    reads(&s, END - 300 * KIB + 512, 512);
    CU_ASSERT(reads(&s, END - 299 * KIB, 512));
    CU_ASSERT_EQUAL(from % VDISK_GRANULE, 0);
    CU_ASSERT_EQUAL(to % VDISK_GRANULE, 0);
    CU_ASSERT(reads(&s, END - 299 * KIB + 512, 200 * KIB));
    CU_ASSERT_EQUAL(to, END);
    CU_ASSERT_FALSE(reads(&s, END - 99 * KIB + 512, 90 * KIB));
}

static const CU_TestInfo tests[] = {
    { "one in sequence", test_sequence },
    { "many in the same places", test_together },
    { "many in the same sequence", test_together_in_sequence },
    { "requests that overtake each other", test_overtaking },
    { "none in sequence", test_random },
    { "as many as are told apart", test_many },
    { "the end", test_bounds },
    CU_TEST_INFO_NULL
};

int main(void)
{
    return run_suite("streams", tests);
}

/*
 * Boot traces: what is in them, forged and damaged ones
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/boot-trace.h"
#include "suite.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define HEAD_BYTES      72
#define RUN_BYTES       12
#define GRANULES        1000

static BootTraceId sample_id(void)
{
    BootTraceId id = { .image_bytes = GRANULES * VDISK_GRANULE - 512 };

    memset(id.root, 0x5a, sizeof(id.root));
    return id;
}

static uint8_t *sample(size_t *bytes)
{
    BootTraceId id = sample_id();
    BootTrace *t = boot_trace_new(&id);
    uint8_t *buf;

    boot_trace_add(t, 10, 2);
    boot_trace_add(t, 12, 3);       /* goes on where the last one ended */
    boot_trace_add(t, 999, 1);
    boot_trace_add(t, 0, 1);
    buf = boot_trace_encode(t, bytes);
    boot_trace_free(t);
    return buf;
}

static bool decodes(const uint8_t *buf, size_t bytes)
{
    BootTraceId id = sample_id();
    g_autofree char *why = NULL;
    BootTrace *t = boot_trace_decode(buf, bytes, &id, &why);

    CU_ASSERT_EQUAL(t != NULL, why == NULL);
    boot_trace_free(t);
    return t;
}

static void test_round_trip(void)
{
    static const BootTraceRun wanted[] = { { 10, 5 }, { 999, 1 }, { 0, 1 } };
    BootTraceId id = sample_id();
    g_autofree char *why = NULL;
    const BootTraceRun *runs;
    size_t bytes, n;
    g_autofree uint8_t *buf = sample(&bytes);
    BootTrace *t = boot_trace_decode(buf, bytes, &id, &why);

    CU_ASSERT_EQUAL(bytes, HEAD_BYTES + 3 * RUN_BYTES);
    CU_ASSERT_PTR_NOT_NULL_FATAL(t);
    runs = boot_trace_runs(t, &n);
    CU_ASSERT_EQUAL_FATAL(n, G_N_ELEMENTS(wanted));
    for (size_t i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(runs[i].first, wanted[i].first);
        CU_ASSERT_EQUAL(runs[i].n, wanted[i].n);
    }
    CU_ASSERT_EQUAL(boot_trace_granules(t), 7);
    boot_trace_free(t);
}

static void test_other_version(void)
{
    size_t bytes;
    g_autofree uint8_t *buf = sample(&bytes);
    BootTraceId id = sample_id();
    char *why = NULL;

    id.image_bytes += 512;
    CU_ASSERT_PTR_NULL(boot_trace_decode(buf, bytes, &id, &why));
    g_clear_pointer(&why, g_free);
    id = sample_id();
    id.root[31] ^= 1;
    CU_ASSERT_PTR_NULL(boot_trace_decode(buf, bytes, &id, &why));
    g_free(why);
}

static void test_damage(void)
{
    size_t bytes;
    g_autofree uint8_t *buf = sample(&bytes);

    for (size_t bit = 0; bit < bytes * 8; bit++) {
        buf[bit / 8] ^= 1 << bit % 8;
        CU_ASSERT(!decodes(buf, bytes));
        buf[bit / 8] ^= 1 << bit % 8;
    }
    for (size_t n = 0; n < bytes; n++) {
        CU_ASSERT(!decodes(buf, n));
    }
    CU_ASSERT(decodes(buf, bytes));
}

/* As somebody would who can compute checksums */
static bool forged(size_t offset, uint64_t value, size_t size)
{
    size_t bytes;
    g_autofree uint8_t *buf = sample(&bytes);
    uint64_t sum;

    value = GUINT64_TO_LE(value);
    memcpy(buf + offset, &value, size);
    sum = GUINT64_TO_LE(XXH3_64bits(buf + 16, bytes - 16));
    memcpy(buf + 8, &sum, sizeof(sum));
    return decodes(buf, bytes);
}

static void test_bounds(void)
{
    CU_ASSERT(forged(HEAD_BYTES, 990, 8));          /* the first run */
    CU_ASSERT(!forged(HEAD_BYTES, 996, 8));
    CU_ASSERT(!forged(HEAD_BYTES, 1000, 8));
    CU_ASSERT(!forged(HEAD_BYTES, UINT64_MAX, 8));
    CU_ASSERT(!forged(HEAD_BYTES, UINT64_MAX - 4, 8));
    CU_ASSERT(forged(HEAD_BYTES + 8, 990, 4));
    CU_ASSERT(!forged(HEAD_BYTES + 8, 991, 4));
    CU_ASSERT(!forged(HEAD_BYTES + 8, 0, 4));
    CU_ASSERT(!forged(HEAD_BYTES + 8, UINT32_MAX, 4));
    CU_ASSERT(!forged(64, 2, 4));                   /* how many there are */
    CU_ASSERT(!forged(64, 4, 4));
    CU_ASSERT(!forged(64, UINT32_MAX, 4));
    CU_ASSERT(!forged(16, 2, 4));                   /* version */
    CU_ASSERT(!forged(20, 13, 4));                  /* granules */
}

static void test_full(void)
{
    BootTraceId id = sample_id();
    BootTrace *t = boot_trace_new(&id);

    for (uint64_t i = 0; i < BOOT_TRACE_RUNS_MAX; i++) {
        CU_ASSERT_FATAL(boot_trace_add(t, 2 * i, 1));
    }
    CU_ASSERT(!boot_trace_add(t, 0, 1));
    CU_ASSERT_EQUAL(boot_trace_granules(t), BOOT_TRACE_RUNS_MAX);
    boot_trace_free(t);
}

static void test_length(void)
{
    size_t bytes;
    g_autofree uint8_t *buf = sample(&bytes);

    CU_ASSERT_EQUAL(boot_trace_length(buf, bytes), bytes);
    CU_ASSERT_EQUAL(boot_trace_length(buf, HEAD_BYTES), bytes);
    CU_ASSERT_EQUAL(boot_trace_length(buf, HEAD_BYTES - 1), 0);
    CU_ASSERT_EQUAL(boot_trace_sum(buf), XXH3_64bits(buf + 16, bytes - 16));
    buf[66] = 0x10;                                 /* 2^20 + 3 runs */
    CU_ASSERT_EQUAL(boot_trace_length(buf, bytes), 0);
    buf[66] = 0;
    buf[0] ^= 1;
    CU_ASSERT_EQUAL(boot_trace_length(buf, bytes), 0);
}

/* The whole image again and again would be a lot of work for who replays it */
static void test_too_many_granules(void)
{
    BootTraceId id = { .image_bytes = UINT64_C(1) << 40 };
    BootTrace *t = boot_trace_new(&id);
    uint64_t sum, first;
    uint32_t half = GUINT32_TO_LE(BOOT_TRACE_GRANULES_MAX / 2 + 1);
    g_autofree uint8_t *buf = NULL;
    g_autofree char *why = NULL;
    size_t bytes;

    CU_ASSERT(boot_trace_add(t, 1, 1));
    CU_ASSERT(!boot_trace_add(t, 3, BOOT_TRACE_GRANULES_MAX));
    CU_ASSERT(!boot_trace_add(t, 3, UINT32_MAX));
    CU_ASSERT(boot_trace_add(t, 3, BOOT_TRACE_GRANULES_MAX / 2 + 1));
    CU_ASSERT(!boot_trace_add(t, 1, BOOT_TRACE_GRANULES_MAX / 2 + 1));
    buf = boot_trace_encode(t, &bytes);
    boot_trace_free(t);
    t = boot_trace_decode(buf, bytes, &id, &why);
    CU_ASSERT_PTR_NOT_NULL(t);
    boot_trace_free(t);
    first = 0;
    memcpy(buf + HEAD_BYTES, &first, sizeof(first));
    memcpy(buf + HEAD_BYTES + 8, &half, sizeof(half));
    sum = GUINT64_TO_LE(XXH3_64bits(buf + 16, bytes - 16));
    memcpy(buf + 8, &sum, sizeof(sum));
    CU_ASSERT_PTR_NULL(boot_trace_decode(buf, bytes, &id, &why));
    CU_ASSERT_PTR_NOT_NULL(why);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "what is encoded is decoded", test_round_trip },
        { "a trace of another version", test_other_version },
        { "damage, of each bit, and cut off anywhere", test_damage },
        { "every field is bounded", test_bounds },
        { "no room for more", test_full },
        { "how long it is", test_length },
        { "no more granules than a boot has", test_too_many_granules },
        CU_TEST_INFO_NULL,
    };

    return run_suite("boot-trace", tests);
}

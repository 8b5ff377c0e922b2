/*
 * The live map's codec: what is in it, forged and damaged ones
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/live-map.h"
#include "block/vdisk/map.h"
#include "suite.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FIXED_BYTES     144

static LiveMap sample(void)
{
    LiveMap m = {
        .dev = 0x0102030405060708,
        .ino = 0x1112131415161718,
        .image_bytes = 40 * 1024 * 1024 + 512,
        .tree_bytes = 96 * VDISK_GRANULE,
        .data_offset = 68 * 1024 * 1024,
    };

    memset(m.boot, 0xb0, sizeof(m.boot));
    memset(m.root, 0x40, sizeof(m.root));
    memset(m.file_id, 0xf1, sizeof(m.file_id));
    return m;
}

static bool decodes(const uint8_t *buf, uint64_t bytes)
{
    g_autofree char *why = NULL;
    LiveMap m;
    bool ok = live_map_decode(&m, buf, bytes, &why);

    CU_ASSERT_EQUAL(ok, why == NULL);
    return ok;
}

static void test_round_trip(void)
{
    LiveMap m = sample(), out = {};
    uint8_t buf[LIVE_MAP_HEADER_BYTES];
    char *why = NULL;

    live_map_encode(&m, buf);
    CU_ASSERT_FATAL(live_map_decode(&out, buf, live_map_file_bytes(&m), &why));
    CU_ASSERT_PTR_NULL(why);
    CU_ASSERT_EQUAL(memcmp(&m, &out, sizeof(m)), 0);
    CU_ASSERT(live_map_matches(&out, &m, &why));
    CU_ASSERT_PTR_NULL(why);
}

static uint64_t number(const uint8_t *buf, size_t offset)
{
    uint64_t value;

    memcpy(&value, buf + offset, sizeof(value));
    return GUINT64_FROM_LE(value);
}

/* As docs/interop/host-cache.rst has it */
static void test_layout(void)
{
    LiveMap m = sample();
    uint8_t buf[LIVE_MAP_HEADER_BYTES];

    memset(buf, 0xee, sizeof(buf));
    live_map_encode(&m, buf);
    CU_ASSERT_EQUAL(memcmp(buf, "DSKLIVEM", 8), 0);
    CU_ASSERT_EQUAL(number(buf, 8),
                    XXH3_64bits(buf + 16, FIXED_BYTES - 16));
    CU_ASSERT_EQUAL(number(buf, 16), 1 | UINT64_C(12) << 32);
    CU_ASSERT(buf[24] == 0xb0 && buf[39] == 0xb0);
    CU_ASSERT(buf[40] == 0x40 && buf[71] == 0x40);
    CU_ASSERT_EQUAL(number(buf, 72), m.dev);
    CU_ASSERT_EQUAL(number(buf, 80), m.ino);
    CU_ASSERT_EQUAL(number(buf, 88), m.image_bytes);
    CU_ASSERT_EQUAL(number(buf, 96), m.tree_bytes);
    CU_ASSERT_EQUAL(number(buf, 104), m.data_offset);
    CU_ASSERT(buf[112] == 0xf1 && buf[127] == 0xf1);
    for (size_t i = 128; i < sizeof(buf); i++) {
        CU_ASSERT_EQUAL_FATAL(buf[i], 0);
    }
    CU_ASSERT_EQUAL(LIVE_MAP_DEAD, 2048);
    CU_ASSERT_EQUAL(LIVE_MAP_SCANNING, 2052);
    CU_ASSERT_EQUAL(LIVE_MAP_SYNCING, 2056);
}

/* Whole pages, and a part of a granule counts as one */
static void test_sizes(void)
{
    static const struct {
        uint64_t image, tree, granules, unsynced, end;
    } cases[] = {
        { 512, 0, 1, 4096 + 4096, 4096 * 3 },
        { 64 << 20, 0, 16384, 4096 * 2, 4096 * 3 },
        { (64 << 20) + 512, 0, 16385, 4096 * 3, 4096 * 4 },
        { 64 << 20, 4096, 16385, 4096 * 3, 4096 * 4 },
        { 128 << 20, 4096, 32769, 4096 * 4, 4096 * 6 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        LiveMap m = sample();

        m.image_bytes = cases[i].image;
        m.tree_bytes = cases[i].tree;
        CU_ASSERT_EQUAL(live_map_granules(&m), cases[i].granules);
        CU_ASSERT_EQUAL(live_map_unsynced_offset(&m), cases[i].unsynced);
        CU_ASSERT_EQUAL(live_map_file_bytes(&m), cases[i].end);
        CU_ASSERT(live_map_unsynced_bytes(&m) * 8 >= cases[i].granules);
    }
}

/* With a checksum that is right, so that the field itself is judged */
static bool forged(size_t offset, uint64_t value, uint64_t file_bytes)
{
    LiveMap m = sample();
    uint8_t buf[LIVE_MAP_HEADER_BYTES];
    uint64_t le = GUINT64_TO_LE(value);

    live_map_encode(&m, buf);
    memcpy(buf + offset, &le, sizeof(le));
    le = GUINT64_TO_LE(XXH3_64bits(buf + 16, FIXED_BYTES - 16));
    memcpy(buf + 8, &le, sizeof(le));
    return decodes(buf, file_bytes ?: UINT64_MAX);
}

static void test_bounds(void)
{
    static const uint64_t huge = UINT64_C(1) << 61;
    LiveMap m = sample();
    uint64_t bytes = live_map_file_bytes(&m);

    CU_ASSERT(forged(88, m.image_bytes, bytes));
    CU_ASSERT(!forged(88, m.image_bytes, bytes - 1));
    CU_ASSERT(!forged(16, 2 | UINT64_C(12) << 32, 0));
    CU_ASSERT(!forged(16, 1 | UINT64_C(13) << 32, 0));
    CU_ASSERT(!forged(88, 0, 0));
    CU_ASSERT(!forged(88, 513, 0));
    CU_ASSERT(forged(88, huge, 0));
    CU_ASSERT(!forged(88, huge + 512, 0));
    CU_ASSERT(!forged(88, UINT64_MAX - 511, 0));
    CU_ASSERT(forged(96, 0, 0));
    CU_ASSERT(!forged(96, 512, 0));
    CU_ASSERT(forged(96, huge, 0));
    CU_ASSERT(!forged(96, huge + 4096, 0));
    CU_ASSERT(!forged(96, UINT64_MAX - 4095, 0));
    CU_ASSERT(!forged(104, 512, 0));
    CU_ASSERT(!forged(104, huge + 4096, 0));
    /* More than the file can have bits for */
    CU_ASSERT(!forged(88, huge, bytes));
    CU_ASSERT(!forged(96, huge, bytes));
}

static void test_damage(void)
{
    LiveMap m = sample();
    uint8_t buf[LIVE_MAP_HEADER_BYTES];
    uint64_t bytes = live_map_file_bytes(&m);

    live_map_encode(&m, buf);
    for (size_t bit = 0; bit < FIXED_BYTES * 8; bit++) {
        buf[bit / 8] ^= 1 << (bit % 8);
        CU_ASSERT_FALSE_FATAL(decodes(buf, bytes));
        buf[bit / 8] ^= 1 << (bit % 8);
    }
    /* Flags change while others look */
    for (size_t i = LIVE_MAP_DEAD; i < LIVE_MAP_SYNCING + 4; i++) {
        buf[i] = 0xff;
    }
    CU_ASSERT(decodes(buf, bytes));
    CU_ASSERT(live_map_probe(buf, 8));
    CU_ASSERT(!live_map_probe(buf, 7));
    buf[7] = 'N';
    CU_ASSERT(!live_map_probe(buf, sizeof(buf)));
}

static bool matches(LiveMap found)
{
    LiveMap wanted = sample();
    g_autofree char *why = NULL;
    bool ok = live_map_matches(&found, &wanted, &why);

    CU_ASSERT_EQUAL(ok, why == NULL);
    return ok;
}

/* Each of these alone makes it another one */
static void test_matches(void)
{
    LiveMap m = sample();

    CU_ASSERT(matches(m));
    m.boot[15] ^= 1;
    CU_ASSERT(!matches(m));
    m = sample();
    m.root[31] ^= 1;
    CU_ASSERT(!matches(m));
    m = sample();
    memset(m.root, 0, sizeof(m.root));
    CU_ASSERT(!matches(m));
    m = sample();
    m.file_id[15] ^= 1;
    CU_ASSERT(!matches(m));
    m = sample();
    m.dev++;
    CU_ASSERT(!matches(m));
    m = sample();
    m.ino++;
    CU_ASSERT(!matches(m));
    m = sample();
    m.image_bytes += 512;
    CU_ASSERT(!matches(m));
    m = sample();
    m.tree_bytes += VDISK_GRANULE;
    CU_ASSERT(!matches(m));
    m = sample();
    m.data_offset += VDISK_GRANULE;
    CU_ASSERT(!matches(m));
}

static bool is_bounded(const LiveMap *m, uint64_t file_bytes)
{
    return m->image_bytes && m->image_bytes % 512 == 0 &&
           m->tree_bytes % VDISK_GRANULE == 0 &&
           m->data_offset % VDISK_GRANULE == 0 &&
           live_map_file_bytes(m) <= file_bytes &&
           m->data_offset + live_map_granules(m) * VDISK_GRANULE <= INT64_MAX;
}

/* Any bytes under a checksum that is right */
static void test_random(void)
{
    unsigned rounds = getenv("UNIT_SHORT") ? 2000 : 200000;
    unsigned taken = 0, unbounded = 0;
    GRand *rand = g_rand_new_with_seed(1);

    for (unsigned i = 0; i < rounds; i++) {
        LiveMap m = sample(), out;
        uint64_t file_bytes = UINT64_MAX >> g_rand_int_range(rand, 0, 60);
        uint8_t buf[LIVE_MAP_HEADER_BYTES];
        char *why = NULL;
        uint64_t sum;

        live_map_encode(&m, buf);
        for (int n = g_rand_int_range(rand, 1, 4); n > 0; n--) {
            size_t offset = g_rand_int_range(rand, 3, FIXED_BYTES / 8) * 8;
            uint64_t value = (uint64_t)g_rand_int(rand) << 32 |
                             g_rand_int(rand);

            value = GUINT64_TO_LE(value >> g_rand_int_range(rand, 0, 64)
                                  << g_rand_int_range(rand, 0, 40));
            memcpy(buf + offset, &value, sizeof(value));
        }
        sum = GUINT64_TO_LE(XXH3_64bits(buf + 16, FIXED_BYTES - 16));
        memcpy(buf + 8, &sum, sizeof(sum));
        if (live_map_decode(&out, buf, file_bytes, &why)) {
            taken++;
            unbounded += !is_bounded(&out, file_bytes);
        }
        g_free(why);
    }
    CU_ASSERT_EQUAL(unbounded, 0);
    CU_ASSERT(taken > rounds / 30);
    g_rand_free(rand);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "what is encoded is decoded", test_round_trip },
        { "fields are where the specification says", test_layout },
        { "sizes", test_sizes },
        { "every field is bounded", test_bounds },
        { "damage, of each bit", test_damage },
        { "what belongs together", test_matches },
        { "damaged fields under a good checksum", test_random },
        CU_TEST_INFO_NULL,
    };

    return run_suite("live-map", tests);
}

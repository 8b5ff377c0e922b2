/*
 * dm-verity trees against a model of them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "verity-model.h"
#include "suite.h"

#define THREADS     4

/* Full counts take minutes under valgrind */
static unsigned times(unsigned n)
{
    return getenv("UNIT_SHORT") ? n / 50 : n;
}

static void check_super(const uint8_t *buf, const char *expected)
{
    VeritySuper s;
    char *why = NULL;
    bool ok = verity_super_decode(&s, buf, &why);

    if (!expected) {
        CU_ASSERT(ok);
    } else {
        CU_ASSERT_FATAL(!ok && why);
        CU_ASSERT_PTR_NOT_NULL(strstr(why, expected));
    }
    g_free(why);
}

static const struct {
    unsigned at, bytes;
    uint64_t value;
    const char *why;
} bad_fields[] = {
    { 0, 1, 'V', "does not begin" },
    { 6, 1, 1, "does not begin" },
    { 7, 1, 1, "does not begin" },
    { 8, 4, 0, "version 0" },
    { 8, 4, 2, "version 2" },
    { 12, 4, 0, "hash type 0" },
    { 12, 4, UINT32_MAX, "hash type 4294967295" },
    { 35, 4, 0x323135, "not sha256" },
    { 32, 1, 'S', "not sha256" },
    { 38, 1, 'x', "not sha256" },
    { 63, 1, 1, "not sha256" },
    { 64, 4, 512, "data blocks of 512" },
    { 64, 4, 0, "data blocks of 0" },
    { 68, 4, 8192, "hash blocks of 8192" },
    { 68, 4, UINT32_MAX, "hash blocks of 4294967295" },
    { 72, 8, 0, "number of data blocks" },
    { 72, 8, (UINT64_C(1) << 50) + 1, "number of data blocks" },
    { 72, 8, UINT64_MAX, "number of data blocks" },
    { 80, 2, 257, "salt is longer" },
    { 80, 2, 65535, "salt is longer" },
    { 80, 2, 31, "unused" },
    { 82, 1, 1, "unused" },
    { 87, 1, 1, "unused" },
    { 120, 1, 1, "unused" },
    { 343, 1, 1, "unused" },
    { 344, 1, 1, "unused" },
    { 511, 1, 1, "unused" },
    { 16, 8, UINT64_MAX, NULL },
    { 72, 8, UINT64_C(1) << 50, NULL },
};

static void put(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        to[i] = value >> (8 * i);
    }
}

static void test_super(void)
{
    Model *m = model_new(3 * BLOCK, 32);
    uint8_t buf[VERITY_SUPER_BYTES];
    VeritySuper s;
    char *why = NULL;

    model_seal(m);
    CU_ASSERT_FATAL(verity_super_decode(&s, m->tree, &why));
    CU_ASSERT_EQUAL(s.data_blocks, 3);
    CU_ASSERT_EQUAL(s.salt_bytes, 32);
    CU_ASSERT_EQUAL(memcmp(s.salt, m->salt, 256), 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad_fields); i++) {
        memcpy(buf, m->tree, sizeof(buf));
        put(buf + bad_fields[i].at, bad_fields[i].value, bad_fields[i].bytes);
        check_super(buf, bad_fields[i].why);
    }
    model_free(m);
}

/* A number near one where something could overflow */
static uint64_t extreme(void)
{
    uint64_t n = UINT64_C(1) << rnd(64);

    return rnd(4) ? n + rnd(3) - 1 : -(uint64_t)rnd(3);
}

/* Whatever fields say, what is accepted is within bounds */
static void test_super_fuzz(void)
{
    Model *m = model_new(3 * BLOCK, 32);
    uint8_t buf[VERITY_SUPER_BYTES];
    unsigned accepted = 0;

    model_seal(m);
    for (unsigned i = 0; i < times(100000); i++) {
        uint64_t bytes = extreme() % (UINT64_C(1) << 40), file = extreme();
        char *why = NULL;
        Verity *v;

        memcpy(buf, m->tree, sizeof(buf));
        put(buf + 72, rnd(2) ? extreme() : bytes / BLOCK + rnd(2), 8);
        if (rnd(4) == 0) {
            put(buf + rnd(VERITY_SUPER_BYTES - 8), extreme(), 8);
        }
        v = verity_new(buf, m->root, bytes, file, &why);
        CU_ASSERT_NOT_EQUAL(!v, !why);
        if (v) {
            const VerityGeometry *g = verity_geometry(v);

            accepted++;
            CU_ASSERT_EQUAL(g->data_bytes, bytes);
            CU_ASSERT(g->file_blocks <= file / BLOCK);
            CU_ASSERT_FALSE(verity_is_checked(v, g->file_blocks - 1));
        }
        verity_free(v);
        g_free(why);
    }
    CU_ASSERT(accepted > times(1000));
    model_free(m);
}

static void check_root(const char *hex, const char *expected)
{
    uint8_t root[VERITY_HASH_BYTES];
    char *why = NULL;

    CU_ASSERT_FALSE(verity_root_decode(root, hex, &why));
    CU_ASSERT_FATAL(why != NULL);
    CU_ASSERT_PTR_NOT_NULL(strstr(why, expected));
    g_free(why);
}

static void test_root(void)
{
    static const char good[] =
        "00112233445566778899aAbBcCdDeEfF0123456789abcdefFEDCBA9876543210";
    char hex[sizeof(good) + 1];
    uint8_t root[VERITY_HASH_BYTES];
    char *why = NULL;

    CU_ASSERT_FATAL(verity_root_decode(root, good, &why));
    CU_ASSERT_EQUAL(root[0], 0);
    CU_ASSERT_EQUAL(root[10], 0xaa);
    CU_ASSERT_EQUAL(root[15], 0xff);
    CU_ASSERT_EQUAL(root[31], 0x10);
    check_root("", "0 characters");
    check_root(good + 1, "63 characters");
    g_snprintf(hex, sizeof(hex), "%s0", good);
    check_root(hex, "65 characters");
    for (const char *bad = "g/:@`G x-\n\xff"; *bad; bad++) {
        memcpy(hex, good, sizeof(good));
        hex[63] = *bad;
        check_root(hex, "character 64");
        hex[10] = *bad;
        check_root(hex, "character 11");
    }
    memcpy(hex, good, sizeof(good));
    memcpy(hex, "0x", 2);
    check_root(hex, "character 2");
}

/* Sizes around where a level begins, counted in another way */
static void test_geometry(void)
{
    VerityGeometry g;
    VerityEntry path[VERITY_MAX_LEVELS];
    char *why = NULL;

    for (unsigned i = 0; i < times(100000); i++) {
        uint64_t bytes = (extreme() + rnd(8192)) & (VERITY_MAX_SIZE - 1);
        uint64_t n, at;

        bytes = rnd(100) ? MAX(bytes, 1) : VERITY_MAX_SIZE - rnd(5000);
        CU_ASSERT_FATAL(verity_geometry_init(&g, bytes, &why));
        n = g.data_blocks;
        CU_ASSERT((n - 1) * BLOCK < bytes && bytes <= n * BLOCK);
        at = g.file_blocks;
        for (unsigned k = 0; k < g.levels; k++) {
            CU_ASSERT(n > 1);
            CU_ASSERT(n <= g.level_blocks[k] * 128);
            CU_ASSERT(n > (g.level_blocks[k] - 1) * 128);
            n = g.level_blocks[k];
            CU_ASSERT_EQUAL(g.level_first[k] + n, at);
            at = g.level_first[k];
        }
        CU_ASSERT(n == 1 && at == 1);
        n = i % 2 ? g.data_blocks - 1 : extreme() % g.data_blocks;
        CU_ASSERT_EQUAL(verity_path(&g, n, path), g.levels);
        for (unsigned k = 0; k < g.levels; k++) {
            CU_ASSERT_EQUAL((path[k].block - g.level_first[k]) * 128 +
                            path[k].offset / 32, n);
            CU_ASSERT(path[k].offset % 32 == 0 && path[k].offset < BLOCK);
            n /= 128;
        }
    }
    CU_ASSERT_FALSE(verity_geometry_init(&g, 0, &why));
    g_free(why);
    CU_ASSERT_FALSE(verity_geometry_init(&g, VERITY_MAX_SIZE + 1, &why));
    g_free(why);
    CU_ASSERT_FALSE(verity_geometry_init(&g, UINT64_MAX, &why));
    g_free(why);
}

static void check_accepted(const Model *m)
{
    char *why = NULL;

    if (!model_accepted(m, &why)) {
        CU_FAIL_FATAL("an undamaged image was refused");
    }
    CU_ASSERT_PTR_NULL(why);
}

static const uint64_t sizes[] = {
    1, 512, 4095, 4096, 4097, 5000, 127 * 4096, 128 * 4096, 128 * 4096 + 512,
    129 * 4096, 300 * 4096 - 1, 16384 * 4096, 16384 * 4096 + 1, 16385 * 4096,
};

static void test_accepted(void)
{
    static const unsigned salts[] = { 0, 32, 256 };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        for (unsigned s = 0; s < G_N_ELEMENTS(salts); s++) {
            Model *m;

            if (times(1) == 0 && (i > 10 || s == 1)) {
                continue;
            }
            m = model_new(sizes[i], salts[s]);
            model_seal(m);
            check_accepted(m);
            model_free(m);
        }
    }
}

static void check_refused(const Model *m, const char *root, uint64_t bytes,
                          uint64_t tree_bytes, const char *expected)
{
    char *why = NULL;

    CU_ASSERT_PTR_NULL_FATAL(verity_new(m->tree, root, bytes, tree_bytes,
                                        &why));
    CU_ASSERT_FATAL(why != NULL);
    CU_ASSERT_PTR_NOT_NULL(strstr(why, expected));
    g_free(why);
}

static void check_read_fails(const Model *m, uint64_t n, const char *expected)
{
    char *why = NULL;
    Verity *v = model_open(m, &why);

    CU_ASSERT_FATAL(v != NULL);
    CU_ASSERT_FALSE(model_read(m, v, n, &why));
    CU_ASSERT_FATAL(why != NULL);
    CU_ASSERT_PTR_NOT_NULL(strstr(why, expected));
    g_free(why);
    verity_free(v);
}

static void test_messages(void)
{
    Model *m = model_new(300 * BLOCK - 100, 32);
    Model *other = model_new(300 * BLOCK - 100, 32);

    model_seal(m);
    model_seal(other);
    check_refused(m, "12", m->bytes, m->tree_bytes, "2 characters");
    check_refused(m, m->root, 301 * BLOCK, m->tree_bytes,
                  "image of 300 blocks of 4096 bytes, this one has 301");
    check_refused(m, m->root, 299 * BLOCK, m->tree_bytes, "this one has 299");
    check_refused(m, m->root, 301 * BLOCK - 1, m->tree_bytes, "filled up");
    check_refused(m, m->root, m->bytes, m->tree_bytes - 1, "cut off");
    check_refused(m, m->root, 0, m->tree_bytes, "empty");

    m->data[130 * BLOCK] ^= 1;
    check_read_fails(m, 130, "data block 130");
    m->tree[3 * BLOCK + 100] ^= 1;
    check_read_fails(m, 130, "block 3 of the tree does not have the hash that "
                     "block 1 has");
    memcpy(m->root, other->root, sizeof(m->root));
    check_read_fails(m, 0, "root hash");
    model_free(m);
    model_free(other);
}

/* Bytes past the end of the image do not matter; the last one in it does */
static void test_last_block(void)
{
    Model *m = model_new(128 * BLOCK + 100, 32);
    Model *one = model_new(1000, 0);

    m->data[m->bytes - 1] = 9;
    model_seal(m);
    memset(m->data + m->bytes, 0xff, m->blocks * BLOCK - m->bytes);
    check_accepted(m);
    m->bytes--;
    check_read_fails(m, 128, "data block 128");
    model_seal(one);
    one->data[1] ^= 1;
    check_read_fails(one, 0, "that the root hash has");
    model_free(m);
    model_free(one);
}

static void damage(Model *m, unsigned n)
{
    unsigned done[KINDS] = {}, found[KINDS] = {};
    char *why = NULL;
    Damage d;

    for (unsigned i = 0; i < n; ) {
        Kind kind = rnd(KINDS);

        if (model_damage(m, &d, kind)) {
            done[kind]++;
            found[kind] += model_found(m, &d);
            if (i % 1000 == 0) {
                CU_ASSERT_FALSE(model_accepted(m, &why));
                g_clear_pointer(&why, g_free);
            }
            i++;
        }
        model_undo(m, &d);
        if (i % 1000 == 0) {
            check_accepted(m);
        }
    }
    for (unsigned k = 0; k < KINDS; k++) {
        CU_ASSERT_EQUAL(found[k], done[k]);
        CU_ASSERT(done[k] > 0 || m->levels < 2);
    }
}

/* 100,000 of them */
static void test_damage(void)
{
    static const struct {
        uint64_t bytes;
        unsigned salt, n;
    } runs[] = {
        { BLOCK, 32, 5000 },
        { 5000, 0, 10000 },
        { 128 * BLOCK, 256, 15000 },
        { 129 * BLOCK, 32, 30000 },
        { 300 * BLOCK - 700, 32, 39000 },
        { 16384 * BLOCK + 600, 32, 1000 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(runs); i++) {
        Model *m;

        if (times(1) == 0 && runs[i].bytes > 1024 * BLOCK) {
            continue;
        }
        m = model_new(runs[i].bytes, runs[i].salt);
        model_seal(m);
        damage(m, times(runs[i].n) + 1);
        model_free(m);
    }
}

/* Bits of the state, set by several threads at once */
typedef struct Worker {
    const Model *m;
    Verity *v;
    unsigned first, bad;
} Worker;

static void *work(void *opaque)
{
    Worker *w = opaque;
    char *why = NULL;

    for (uint64_t i = 0; i < w->m->blocks; i++) {
        uint64_t n = (i * 17 + w->first * 100) % w->m->blocks;

        w->bad += !model_read(w->m, w->v, n, &why);
    }
    return NULL;
}

static void test_threads(void)
{
    Model *m = model_new(2000 * BLOCK, 32);
    GThread *threads[THREADS];
    Worker w[THREADS];
    char *why = NULL;
    Verity *v;

    model_seal(m);
    v = model_open(m, &why);
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (Worker) { .m = m, .v = v, .first = i };
        threads[i] = g_thread_new("reader", work, &w[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        g_thread_join(threads[i]);
        CU_ASSERT_EQUAL(w[i].bad, 0);
    }
    for (uint64_t b = 1; b < m->tree_bytes / BLOCK; b++) {
        CU_ASSERT(verity_is_checked(v, b));
        verity_forget(v, b);
        CU_ASSERT_FALSE(verity_is_checked(v, b));
    }
    verity_free(v);
    model_free(m);
}

static const CU_TestInfo tests[] = {
    { "a superblock's fields are bounded", test_super },
    { "random superblocks", test_super_fuzz },
    { "root hash in hexadecimal", test_root },
    { "levels and paths of any size", test_geometry },
    { "what is whole is accepted", test_accepted },
    { "what is wrong is told", test_messages },
    { "a last block that is not whole", test_last_block },
    { "random damage is found", test_damage },
    { "several threads at once", test_threads },
    CU_TEST_INFO_NULL
};

int main(void)
{
    return run_suite("verity", tests);
}

/*
 * Comparing the dm-verity trees of two versions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "verity-model.h"
#include "suite.h"

/* What comparing asks for and tells */
typedef struct Walk {
    const Model *older, *newer;
    unsigned reads;
    unsigned not_held;          /* of 100 blocks of the older tree */
    unsigned stop;              /* reads or calls until this; 0: never */
    uint8_t *differs;           /* a byte for each data block */
    uint64_t last_end;
    unsigned bad;               /* ranges that were not as promised */
} Walk;

static VerityRead walk_read(void *opaque, bool newer, uint64_t block,
                            uint8_t *buf)
{
    Walk *w = opaque;
    const Model *m = newer ? w->newer : w->older;

    CU_ASSERT_FATAL(block > 0 && block < m->tree_bytes / BLOCK);
    w->reads++;
    if (w->stop && --w->stop == 0) {
        return VERITY_READ_STOP;
    }
    if (!newer && rnd(100) < w->not_held) {
        return VERITY_READ_NONE;
    }
    memcpy(buf, m->tree + block * BLOCK, BLOCK);
    return VERITY_READ_DONE;
}

static bool walk_differ(void *opaque, uint64_t first, uint64_t n)
{
    Walk *w = opaque;

    /* In order, apart, and within the image */
    if (n == 0 || first + n > w->newer->blocks ||
        (w->last_end ? first <= w->last_end : false)) {
        w->bad++;
        return false;
    }
    memset(w->differs + first, 1, n);
    w->last_end = first + n;
    return !w->stop || --w->stop > 0;
}

static const VerityDiffOps ops = { walk_read, walk_differ };

static bool compare(Walk *w, char **why)
{
    Verity *older = model_open(w->older, why);
    Verity *newer = model_open(w->newer, why);
    bool ok;

    CU_ASSERT_FATAL(older && newer);
    g_free(w->differs);
    w->differs = g_malloc0(w->newer->blocks);
    w->last_end = 0;
    w->reads = 0;
    ok = verity_diff(older, newer, &ops, w, why);
    CU_ASSERT_EQUAL(w->bad, 0);
    CU_ASSERT_EQUAL(ok, *why == NULL);
    verity_free(older);
    verity_free(newer);
    return ok;
}

/* How many blocks differ but were not told, and the other way round */
static void compare_plain(const Walk *w, uint64_t *missed, uint64_t *extra)
{
    *missed = 0;
    *extra = 0;
    for (uint64_t n = 0; n < w->newer->blocks; n++) {
        bool differs = n >= w->older->blocks ||
                       memcmp(w->older->data + n * BLOCK,
                              w->newer->data + n * BLOCK, BLOCK) != 0;

        *missed += differs && !w->differs[n];
        *extra += !differs && w->differs[n];
    }
}

static void check_exact(Walk *w)
{
    uint64_t missed, extra;
    char *why = NULL;

    CU_ASSERT_FATAL(compare(w, &why));
    compare_plain(w, &missed, &extra);
    CU_ASSERT_EQUAL(missed, 0);
    CU_ASSERT_EQUAL(extra, 0);
}

/* What is not held of the older tree, or damaged, may only add differences */
static void check_safe(Walk *w)
{
    uint64_t missed, extra;
    char *why = NULL;

    CU_ASSERT_FATAL(compare(w, &why));
    compare_plain(w, &missed, &extra);
    CU_ASSERT_EQUAL(missed, 0);
}

static void edit(Model *m)
{
    uint64_t edits = rnd(2) ? rnd(4) : rnd(m->blocks);

    while (edits-- > 0) {
        uint64_t n = rnd(m->blocks);
        uint64_t end = n + 1 + rnd(20);

        for (uint64_t i = n; i < MIN(end, m->blocks); i++) {
            m->data[i * BLOCK] ^= 1 + rnd(255);
        }
    }
}

static const uint64_t sizes[] = {
    700, 4096, 5000, 127 * 4096, 128 * 4096, 129 * 4096, 256 * 4096,
    300 * 4096 - 100, 700 * 4096,
};

static uint64_t any_size(void)
{
    return sizes[rnd(G_N_ELEMENTS(sizes))];
}

static void test_pairs(void)
{
    unsigned n = getenv("UNIT_SHORT") ? 8 : 1000;

    while (n-- > 0) {
        Model *older = model_new(any_size(), 32);
        Model *newer = model_copy(older, rnd(2) ? older->bytes : any_size());
        Walk w = { .older = older, .newer = newer };
        Damage d;

        edit(newer);
        model_seal(older);
        model_seal(newer);
        check_exact(&w);
        w.not_held = 20;
        check_safe(&w);
        w.not_held = 0;
        if (model_damage(older, &d, FLIP_TREE)) {
            check_safe(&w);
        }
        g_free(w.differs);
        model_free(older);
        model_free(newer);
    }
}

/* A damaged newer tree is found, or its damage is in what was not looked at */
static void test_newer_damaged(void)
{
    unsigned n = getenv("UNIT_SHORT") ? 20 : 200, found = 0;

    for (unsigned i = 0; i < n; i++) {
        Model *older = model_new(300 * BLOCK, 32);
        Model *newer = model_copy(older, older->bytes);
        Walk w = { .older = older, .newer = newer };
        uint64_t missed, extra;
        char *why = NULL;
        Damage d;

        newer->data[rnd(300) * BLOCK] ^= 1;
        model_seal(older);
        model_seal(newer);
        model_damage(newer, &d, FLIP_TREE);
        if (compare(&w, &why)) {
            compare_plain(&w, &missed, &extra);
            CU_ASSERT(missed == 0 && extra == 0);
        } else {
            CU_ASSERT_PTR_NOT_NULL(strstr(why, "newer tree is damaged"));
            found++;
        }
        g_free(why);
        g_free(w.differs);
        model_free(older);
        model_free(newer);
    }
    CU_ASSERT(found > n / 10 && found < n);
}

/* Blocks of the newer tree in the older one would hide what differs */
static void test_older_wrong(void)
{
    Model *older = model_new(300 * BLOCK, 32);
    Model *newer = model_copy(older, older->bytes);
    Walk w = { .older = older, .newer = newer };

    newer->data[200 * BLOCK] ^= 1;
    model_seal(older);
    model_seal(newer);
    /* The leaf above the change, then all */
    memcpy(older->tree + 3 * BLOCK, newer->tree + 3 * BLOCK, BLOCK);
    check_safe(&w);
    CU_ASSERT_EQUAL(w.last_end, 256);
    memcpy(older->tree, newer->tree, newer->tree_bytes);
    check_safe(&w);
    CU_ASSERT_EQUAL(w.last_end, 300);
    g_free(w.differs);
    model_free(older);
    model_free(newer);
}

/* How much of the trees is read: three levels, 129 leaves and more */
static void test_reads(void)
{
    uint64_t blocks = 16500;
    Model *older = model_new(blocks * BLOCK, 32);
    Model *newer = model_copy(older, older->bytes);
    Walk w = { .older = older, .newer = newer };
    char *why = NULL;

    model_seal(older);
    model_seal(newer);
    check_exact(&w);
    CU_ASSERT_EQUAL(w.reads, 0);
    newer->data[9000 * BLOCK] ^= 1;
    model_seal(newer);
    check_exact(&w);
    CU_ASSERT_EQUAL(w.reads, 6);
    /* Grown by a level: only its right edge is new */
    model_free(older);
    older = model_copy(newer, 16384 * BLOCK);
    model_seal(older);
    w.older = older;
    check_exact(&w);
    CU_ASSERT_EQUAL(w.reads, 1);
    /* And shrunk again: nothing is new */
    w.older = newer;
    w.newer = older;
    check_exact(&w);
    CU_ASSERT_EQUAL(w.reads, 1);
    for (unsigned stop = 1; stop < 3; stop++) {
        w.older = older;
        w.newer = newer;
        w.stop = stop;
        CU_ASSERT_FALSE(compare(&w, &why));
        g_clear_pointer(&why, g_free);
    }
    g_free(w.differs);
    model_free(older);
    model_free(newer);
}

static void check_salts(unsigned a, unsigned b, uint8_t change)
{
    Model *older = model_new(300 * BLOCK, a);
    Model *newer = model_new(300 * BLOCK, b);
    Walk w = { .older = older, .newer = newer };
    char *why = NULL;

    newer->salt[0] ^= change;
    model_seal(older);
    model_seal(newer);
    CU_ASSERT_FALSE(compare(&w, &why));
    CU_ASSERT_FATAL(why != NULL);
    CU_ASSERT_PTR_NOT_NULL(strstr(why, "different salts"));
    g_free(why);
    g_free(w.differs);
    model_free(older);
    model_free(newer);
}

static void test_salts(void)
{
    check_salts(32, 31, 0);
    check_salts(0, 32, 0);
    check_salts(32, 32, 1);
}

static const CU_TestInfo tests[] = {
    { "pairs of versions", test_pairs },
    { "a damaged newer tree", test_newer_damaged },
    { "a wrong older tree", test_older_wrong },
    { "equal parts are not read", test_reads },
    { "other salts", test_salts },
    CU_TEST_INFO_NULL
};

int main(void)
{
    return run_suite("verity-diff", tests);
}

/*
 * Trees built span by span, in any order: what veritysetup writes, by the byte
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/tree-build.h"
#include "suite.h"
#include <glib/gstdio.h>
#include <unistd.h>

#define SKIPPED     77
#define GIVERS      4
#define UUID        "00112233-4455-6677-8899-aabbccddeeff"

static char *program, *dir, *data_file, *tree_file;

typedef struct Image {
    uint8_t *data;              /* filled up with zeros */
    uint64_t bytes, padded;
    char salt[2 * VERITY_MAX_SALT + 1];
    uint8_t *tree;
    size_t tree_bytes;
    uint8_t root[VERITY_HASH_BYTES];
} Image;

/* Zero blocks, zero spans, and blocks that differ */
static Image *image_new(GRand *r, uint64_t bytes, unsigned salt_bytes)
{
    Image *m = g_new0(Image, 1);

    m->bytes = bytes;
    m->padded = ROUND_UP(bytes, VERITY_BLOCK);
    m->data = g_malloc0(m->padded);
    for (uint64_t at = 0; at < bytes; at += VERITY_BLOCK) {
        bool zero_span = at / TREE_SPAN % 3 == 1;

        if (!zero_span && g_rand_int_range(r, 0, 4)) {
            for (unsigned i = 0; i < VERITY_BLOCK && at + i < bytes; i++) {
                m->data[at + i] = g_rand_int(r);
            }
        }
    }
    for (unsigned i = 0; i < 2 * salt_bytes; i++) {
        m->salt[i] = "0123456789abcdef"[g_rand_int_range(r, 0, 16)];
    }
    return m;
}

static void image_free(Image *m)
{
    g_free(m->data);
    g_free(m->tree);
    g_free(m);
}

static bool is_zero(const uint8_t *p, size_t bytes)
{
    return bytes == 0 || (*p == 0 && memcmp(p, p + 1, bytes - 1) == 0);
}

/* Spans in random order; zeros with and without being looked at */
static void give_spans(GRand *r, Image *m, TreeBuild *t)
{
    uint64_t n = tree_build_spans(t);
    uint64_t step = g_rand_int_range(r, 0, n), at;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t span = n - 1 - (i + step) % n;
        uint64_t start = span * TREE_SPAN;
        size_t bytes = MIN(TREE_SPAN, m->bytes - start);
        bool known = g_rand_boolean(r) && is_zero(m->data + start, bytes);
        uint8_t leaf[VERITY_BLOCK];

        tree_build_span(t, span, known ? NULL : m->data + start, bytes, leaf);
        at = tree_build_leaf_offset(t, span);
        if (at) {
            CU_ASSERT_FATAL(at + VERITY_BLOCK <= m->tree_bytes);
            memcpy(m->tree + at, leaf, VERITY_BLOCK);
        }
    }
}

static void build(GRand *r, Image *m)
{
    static const uint8_t uuid[] = {
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
        0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    };
    char *why = NULL;
    TreeBuild *t = tree_build_new(m->bytes, m->salt, uuid, &why);
    const uint8_t *head;
    size_t head_bytes;

    CU_ASSERT_FATAL(t != NULL);
    m->tree_bytes = tree_build_file_bytes(t);
    m->tree = g_malloc0(m->tree_bytes);
    CU_ASSERT_FALSE(tree_build_finish(t, m->root, &head, &head_bytes));
    give_spans(r, m, t);
    CU_ASSERT_FATAL(tree_build_finish(t, m->root, &head, &head_bytes));
    CU_ASSERT_FATAL(head_bytes <= m->tree_bytes);
    memcpy(m->tree, head, head_bytes);
    tree_build_free(t);
}

/* Ends with NULL. What it printed, or NULL if it failed. */
static char *run(const char *arg, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *err = NULL;
    char *out = NULL;
    int status = -1;
    va_list ap;

    g_ptr_array_add(argv, program);
    va_start(ap, arg);
    for (; arg; arg = va_arg(ap, const char *)) {
        g_ptr_array_add(argv, (char *)arg);
    }
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    if (!g_spawn_sync(NULL, (char **)argv->pdata, NULL, 0, NULL, NULL, &out,
                      &err, &status, NULL) || status != 0) {
        g_clear_pointer(&out, g_free);
    }
    return out;
}

static char *root_text(const Image *m)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < VERITY_HASH_BYTES; i++) {
        g_string_append_printf(s, "%02x", m->root[i]);
    }
    return g_string_free(s, false);
}

/* veritysetup's tree of the same image is the same file */
static void compare(const Image *m)
{
    g_autofree char *out = NULL, *theirs = NULL, *root = root_text(m);
    g_autofree char *checked = NULL;
    gsize bytes = 0;

    CU_ASSERT_FATAL(g_file_set_contents(data_file, (char *)m->data, m->padded,
                                        NULL));
    g_unlink(tree_file);
    out = run("format", "--format=1", "--hash=sha256",
              "--data-block-size=4096", "--hash-block-size=4096", "--uuid",
              UUID, "--salt", m->salt[0] ? m->salt : "-", data_file, tree_file,
              NULL);
    CU_ASSERT_FATAL(out != NULL);
    CU_ASSERT_PTR_NOT_NULL(strstr(out, root));
    CU_ASSERT_FATAL(g_file_get_contents(tree_file, &theirs, &bytes, NULL));
    CU_ASSERT_EQUAL(bytes, m->tree_bytes);
    CU_ASSERT(bytes == m->tree_bytes && !memcmp(theirs, m->tree, bytes));
    CU_ASSERT_FATAL(g_file_set_contents(tree_file, (char *)m->tree,
                                        m->tree_bytes, NULL));
    checked = run("verify", data_file, tree_file, root, NULL);
    CU_ASSERT_PTR_NOT_NULL(checked);
}

static void test_sizes(void)
{
    static const uint64_t sizes[] = {
        1, 512, 4096, 4097, 8192, TREE_SPAN - 512, TREE_SPAN, TREE_SPAN + 1,
        2 * TREE_SPAN, 5 * TREE_SPAN + 12288, 128 * TREE_SPAN - 4096,
        128 * TREE_SPAN, 128 * TREE_SPAN + 4096, 131 * TREE_SPAN + 512,
    };
    static const unsigned salts[] = { 0, 1, 32, 256 };
    unsigned n = getenv("UNIT_SHORT") ? 9 : G_N_ELEMENTS(sizes);
    GRand *r = g_rand_new_with_seed(6);

    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < G_N_ELEMENTS(salts); k++) {
            Image *m = image_new(r, sizes[i], salts[k]);

            build(r, m);
            compare(m);
            image_free(m);
        }
    }
    g_rand_free(r);
}

/* The tree is of these bytes: another bit is another root */
static void test_differs(void)
{
    GRand *r = g_rand_new_with_seed(7);
    Image *m = image_new(r, 3 * TREE_SPAN, 32);
    uint8_t root[VERITY_HASH_BYTES];

    build(r, m);
    memcpy(root, m->root, sizeof(root));
    for (unsigned i = 0; i < 20; i++) {
        uint64_t at = g_rand_int_range(r, 0, m->bytes);

        m->data[at] ^= 1;
        g_clear_pointer(&m->tree, g_free);
        build(r, m);
        CU_ASSERT(memcmp(root, m->root, sizeof(root)) != 0);
        m->data[at] ^= 1;
    }
    image_free(m);
    g_rand_free(r);
}

/* Every fourth span */
typedef struct Giver {
    TreeBuild *t;
    const Image *m;
    uint64_t first;
} Giver;

static void *give_fourth(void *opaque)
{
    const Giver *g = opaque;
    uint8_t leaf[VERITY_BLOCK];

    for (uint64_t n = g->first; n < tree_build_spans(g->t); n += GIVERS) {
        uint64_t start = n * TREE_SPAN;

        tree_build_span(g->t, n, g->m->data + start,
                        MIN(TREE_SPAN, g->m->bytes - start), leaf);
    }
    return NULL;
}

/* As of one thread. The thread sanitizer looks at this one, too. */
static void test_threads(void)
{
    static const uint8_t uuid[TREE_UUID_BYTES];
    GRand *r = g_rand_new_with_seed(8);
    Image *m = image_new(r, 40 * TREE_SPAN + 512, 32);
    TreeBuild *t = tree_build_new(m->bytes, m->salt, uuid, NULL);
    uint8_t root[VERITY_HASH_BYTES];
    GThread *threads[GIVERS];
    Giver givers[GIVERS];
    const uint8_t *head;
    size_t head_bytes;

    build(r, m);
    for (unsigned i = 0; i < GIVERS; i++) {
        givers[i] = (Giver) { t, m, i };
        threads[i] = g_thread_new("giver", give_fourth, &givers[i]);
    }
    for (unsigned i = 0; i < GIVERS; i++) {
        g_thread_join(threads[i]);
    }
    CU_ASSERT_FATAL(tree_build_finish(t, root, &head, &head_bytes));
    CU_ASSERT_EQUAL(memcmp(root, m->root, sizeof(root)), 0);
    tree_build_free(t);
    image_free(m);
    g_rand_free(r);
}

static void check_refused(uint64_t bytes, const char *salt)
{
    static const uint8_t uuid[TREE_UUID_BYTES];
    char *why = NULL;

    CU_ASSERT_PTR_NULL(tree_build_new(bytes, salt, uuid, &why));
    CU_ASSERT_PTR_NOT_NULL(why);
    g_free(why);
}

static void test_refused(void)
{
    g_autofree char *longest = g_strnfill(2 * VERITY_MAX_SALT + 2, 'a');

    check_refused(0, "");
    check_refused(VERITY_MAX_SIZE + 1, "");
    check_refused(4096, "abc");
    check_refused(4096, "xy");
    check_refused(4096, longest);
}

static const CU_TestInfo tests[] = {
    { "the same file as veritysetup's", test_sizes },
    { "another bit is another root", test_differs },
    { "spans from four threads", test_threads },
    { "sizes and salts that there are not", test_refused },
    CU_TEST_INFO_NULL
};

static char *find_program(void)
{
    const char *sbin = "/usr/sbin/veritysetup";
    char *found = g_find_program_in_path("veritysetup");

    return found || access(sbin, X_OK) ? found : g_strdup(sbin);
}

int main(void)
{
    int ret;

    program = find_program();
    if (!program) {
        puts("veritysetup is not installed (package cryptsetup-bin)");
        return SKIPPED;
    }
    dir = g_dir_make_tmp("tree-build-XXXXXX", NULL);
    data_file = g_build_filename(dir, "data", NULL);
    tree_file = g_build_filename(dir, "tree", NULL);
    ret = run_suite("tree-build", tests);
    g_unlink(data_file);
    g_unlink(tree_file);
    g_rmdir(dir);
    g_free(data_file);
    g_free(tree_file);
    g_free(dir);
    g_free(program);
    return ret;
}

/*
 * Trees that veritysetup made, and what it says of damaged ones
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "verity-model.h"
#include "suite.h"
#include <glib/gstdio.h>
#include <unistd.h>

#define SKIPPED     77

static char *program, *dir, *data_file, *tree_file;

/* Ends with NULL. What it printed, or NULL if it failed. */
static char *run(const char *arg, ...)
{
    GPtrArray *argv = g_ptr_array_new();
    char *out = NULL, *err = NULL;
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
    g_free(err);
    g_ptr_array_free(argv, true);
    return out;
}

static bool save(const char *name, const void *p, uint64_t bytes)
{
    return g_file_set_contents(name, p, bytes, NULL);
}

/* Have veritysetup make the tree of what is in the data file */
static bool format(Model *m)
{
    char salt[2 * 256 + 1] = "-";
    const char *found;
    gsize bytes = 0;
    char *out;

    for (unsigned i = 0; i < m->salt_bytes; i++) {
        g_snprintf(salt + 2 * i, 3, "%02x", m->salt[i]);
    }
    g_unlink(tree_file);
    out = run("format", "--format=1", "--hash=sha256", "--data-block-size=4096",
              "--hash-block-size=4096", "--salt", salt, data_file, tree_file,
              NULL);
    found = out ? strstr(out, "Root hash:") : NULL;
    if (found) {
        found += strlen("Root hash:");
        found += strspn(found, "\t ");
        g_strlcpy(m->root, found, sizeof(m->root));
    }
    g_free(out);
    g_clear_pointer(&m->tree, g_free);
    if (!found || !g_file_get_contents(tree_file, (char **)&m->tree, &bytes,
                                       NULL)) {
        return false;
    }
    m->tree_bytes = bytes;
    return true;
}

static bool agrees(const Model *m, const Model *made)
{
    return strcmp(m->root, made->root) == 0 &&
           m->tree_bytes == made->tree_bytes &&
           memcmp(m->tree, made->tree, 16) == 0 &&
           memcmp(m->tree + 32, made->tree + 32, m->tree_bytes - 32) == 0;
}

static void check_size(uint64_t bytes, unsigned salt_bytes)
{
    Model *m = model_new(bytes, salt_bytes);
    Model *made = model_copy(m, bytes);
    char *why = NULL;

    model_seal(m);
    CU_ASSERT_FATAL(save(data_file, m->data, m->blocks * BLOCK));
    CU_ASSERT_FATAL(format(made));
    CU_ASSERT(agrees(m, made));
    made->levels = m->levels;
    CU_ASSERT(model_accepted(made, &why));
    g_free(why);
    model_free(m);
    model_free(made);
}

static void test_sizes(void)
{
    static const uint64_t sizes[] = {
        1, 4096, 4097, 127 * 4096 + 1, 128 * 4096, 129 * 4096, 300 * 4096 - 1,
        16384 * 4096, 16385 * 4096,
    };
    unsigned n = getenv("UNIT_SHORT") ? 5 : G_N_ELEMENTS(sizes);

    for (unsigned i = 0; i < n; i++) {
        check_size(sizes[i], 0);
        check_size(sizes[i], 32);
        check_size(sizes[i], 256);
    }
}

/* veritysetup leaves the last part of a block out: that is refused */
static void test_not_filled_up(void)
{
    Model *m = model_new(130 * BLOCK - 512, 32);
    char *why = NULL;

    CU_ASSERT_FATAL(save(data_file, m->data, m->bytes));
    CU_ASSERT_FATAL(format(m));
    CU_ASSERT_PTR_NULL(model_open(m, &why));
    CU_ASSERT_FATAL(why != NULL);
    CU_ASSERT_PTR_NOT_NULL(strstr(why, "filled up"));
    g_clear_pointer(&why, g_free);
    m->bytes = 129 * BLOCK;
    m->blocks = 129;
    CU_ASSERT(model_accepted(m, &why));
    g_free(why);
    model_free(m);
}

/* An empty image: neither makes a tree of it */
static void test_empty(void)
{
    Model *m = model_new(BLOCK, 0);
    char *why = NULL;

    CU_ASSERT_FATAL(save(data_file, "", 0));
    CU_ASSERT_FALSE(format(m));
    model_seal(m);
    m->bytes = 0;
    CU_ASSERT_PTR_NULL(model_open(m, &why));
    g_free(why);
    model_free(m);
}

static bool accepts(const Model *m)
{
    char *out;
    bool ok;

    if (!save(data_file, m->data, MIN(m->bytes, m->blocks * BLOCK)) ||
        !save(tree_file, m->tree, m->tree_bytes)) {
        return false;
    }
    out = run("verify", data_file, tree_file, m->root, NULL);
    ok = out != NULL;
    g_free(out);
    return ok;
}

/* Is the damage in bytes that veritysetup has no use for? */
static bool is_unused(const Model *m, const Damage *d)
{
    unsigned at = 0;

    if (d->kind == CUT_TREE) {
        /* The rest of the superblock's block */
        return m->levels == 0 && m->tree_bytes >= VERITY_SUPER_BYTES;
    }
    if (d->kind != FLIP_SUPER) {
        return false;
    }
    while (d->was[0][at] == m->tree[at]) {
        at++;
    }
    return (at > 32 + strlen("sha256") && at < 64) ||
           (at >= 82 && at < 88) || at >= 88 + m->salt_bytes;
}

/* All damage is refused here; veritysetup does not mind unused bytes */
static void check_damage(Model *m, Kind kind)
{
    char *why = NULL;
    Damage d;

    if (model_damage(m, &d, kind)) {
        CU_ASSERT_FALSE(model_accepted(m, &why));
        CU_ASSERT_EQUAL(accepts(m), is_unused(m, &d));
        g_free(why);
    }
    model_undo(m, &d);
}

static void test_damage(void)
{
    static const uint64_t blocks[] = { 1, 2, 128, 129, 300 };
    unsigned n = getenv("UNIT_SHORT") ? 1 : 5;

    for (unsigned i = 0; i < G_N_ELEMENTS(blocks); i++) {
        Model *m = model_new(blocks[i] * BLOCK, 32);

        model_seal(m);
        CU_ASSERT(accepts(m));
        for (unsigned k = 0; k < n * KINDS; k++) {
            check_damage(m, k % KINDS);
        }
        CU_ASSERT(accepts(m));
        model_free(m);
    }
}

static const CU_TestInfo tests[] = {
    { "trees that it made", test_sizes },
    { "an image that was not filled up", test_not_filled_up },
    { "an empty image", test_empty },
    { "what it says of damage", test_damage },
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
    dir = g_dir_make_tmp("veritysetup-XXXXXX", NULL);
    data_file = g_build_filename(dir, "data", NULL);
    tree_file = g_build_filename(dir, "tree", NULL);
    ret = run_suite("veritysetup", tests);
    g_unlink(data_file);
    g_unlink(tree_file);
    g_rmdir(dir);
    g_free(data_file);
    g_free(tree_file);
    g_free(dir);
    g_free(program);
    return ret;
}

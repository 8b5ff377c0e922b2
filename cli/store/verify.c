/*
 * Is a sealed version what was sealed?
 *
 * Its content is read and a tree made of it. Where that is not what the stored
 * tree says, the blame goes by the root hash: hashes that lead up to it are
 * right, so the data is wrong; others are damage of the tree.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "verify.h"
#include "cli/json-member.h"
#include "cli/json-read.h"
#include "cli/program.h"
#include "cli/store/content.h"
#include "cli/store/tree-file.h"

#include <string.h>

#define MAPPED_RANGES   64      /* for more nobody is told the file */

typedef struct Check {
    TreeBuild *built;
    TreeFile *stored;           /* NULL: cannot be used at all */
    uint64_t size;
    const Version *v;

    GMutex lock;                /* protects the ranges in there */
    Verification *result;
} Check;

static void clear_range(gpointer p)
{
    g_free(((VerifyRange *)p)->file);
}

static GArray *new_ranges(void)
{
    GArray *ranges = g_array_new(false, false, sizeof(VerifyRange));

    g_array_set_clear_func(ranges, clear_range);
    return ranges;
}

static void add_range(Check *c, GArray *to, uint64_t offset, uint64_t bytes,
                      const char *file)
{
    VerifyRange range = { offset, bytes, g_strdup(file) };

    g_mutex_lock(&c->lock);
    g_array_append_val(to, range);
    g_mutex_unlock(&c->lock);
}

/* Hashes of the span that are right, and others of what is there */
static void add_bad_data(Check *c, uint64_t n, const uint8_t *right,
                         const uint8_t *found)
{
    for (unsigned i = 0; i < VERITY_FANOUT; i++) {
        unsigned at = i * VERITY_HASH_BYTES;
        uint64_t offset = n * TREE_SPAN + (uint64_t)i * VERITY_BLOCK;

        if (memcmp(right + at, found + at, VERITY_HASH_BYTES) != 0) {
            add_range(c, c->result->bad, offset,
                      MIN(VERITY_BLOCK, c->size - offset), NULL);
        }
    }
}

static void check_span(Check *c, uint64_t n, const uint8_t *data, size_t bytes)
{
    uint8_t found[VERITY_BLOCK], right[VERITY_BLOCK];
    uint64_t at = tree_build_leaf_offset(c->built, n);

    tree_build_span(c->built, n, data, bytes, found);
    if (!c->stored || at == 0) {
        return;                 /* the root hash alone will tell */
    }
    if (tree_file_leaf(c->stored, n, right)) {
        if (memcmp(found, right, VERITY_BLOCK) != 0) {
            add_bad_data(c, n, right, found);
        }
        return;
    }
    add_range(c, c->result->bad_tree, at, VERITY_BLOCK, c->v->tree);
    add_range(c, c->result->unknown, n * TREE_SPAN,
              MIN(TREE_SPAN, c->size - n * TREE_SPAN), NULL);
}

static bool take(void *opaque, unsigned thread, uint64_t offset,
                 uint64_t bytes, const uint8_t *data, GError **error)
{
    for (uint64_t at = 0; at < bytes; at += TREE_SPAN) {
        check_span(opaque, (offset + at) / TREE_SPAN, data ? data + at : NULL,
                   MIN(TREE_SPAN, bytes - at));
    }
    return true;
}

static int by_offset(gconstpointer a, gconstpointer b)
{
    const VerifyRange *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void join_neighbours(GArray *ranges)
{
    unsigned kept = 0;

    g_array_sort(ranges, by_offset);
    for (unsigned i = 0; i < ranges->len; i++) {
        VerifyRange *r = &g_array_index(ranges, VerifyRange, i);
        VerifyRange *last = &g_array_index(ranges, VerifyRange, kept - !!kept);

        if (kept && last->offset + last->bytes == r->offset) {
            last->bytes += r->bytes;
            g_clear_pointer(&r->file, g_free);
        } else {
            VerifyRange moved = *r;

            r->file = NULL;
            g_array_index(ranges, VerifyRange, kept++) = moved;
        }
    }
    g_array_set_size(ranges, kept);
}

/* Blocks of the upper levels that are not what the root hash says */
static void add_bad_head(Check *c)
{
    const VerityGeometry *g = verity_geometry(c->stored->verity);

    for (uint64_t i = 1; g->levels && i < g->level_first[0]; i++) {
        if (!c->stored->good[i]) {
            add_range(c, c->result->bad_tree, i * VERITY_BLOCK, VERITY_BLOCK,
                      c->v->tree);
        }
    }
}

static void append_text(void *opaque, const char *text)
{
    g_string_append(opaque, text);
}

/* Which of the images that are below one another has it: 0 is the top one */
static int64_t mapped_depth(const char *text)
{
    g_autoptr(JsonNode) root = json_read(text, strlen(text), NULL);
    JsonArray *array = root && JSON_NODE_HOLDS_ARRAY(root)
                       ? json_node_get_array(root) : NULL;
    int64_t depth = -1;

    member_int(element_object(array, 0), "depth", &depth);
    return depth;
}

static void find_file(const Store *s, const Manifest *m, const Version *v,
                      VerifyRange *range)
{
    g_autoptr(JsonObject) chain = store_chain(s, m, v, 0);
    g_autofree char *text = content_node_text(chain);
    g_autofree char *name = g_strconcat("json:", text, NULL);
    g_autofree char *program = program_qemu_img();
    g_autofree char *start = g_strdup_printf("%" PRIu64, range->offset);
    g_autofree char *complaint = NULL;
    g_autoptr(GString) out = g_string_new(NULL);
    const char *argv[] = { program, "map", "-U", "--output=json", "-s", start,
                           "-l", "4096", name, NULL };
    int64_t depth = 0;

    if (v->parent) {
        program_run(argv, append_text, out, &complaint, NULL);
        depth = mapped_depth(out->str);
    }
    while (depth > 0 && v && v->parent) {
        v = manifest_version(m, v->parent);
        depth--;
    }
    range->file = depth == 0 && v ? g_strdup(v->image) : NULL;
}

static void find_files(const Store *s, const Manifest *m, const Version *v,
                       GArray *ranges)
{
    for (unsigned i = 0; i < ranges->len && i < MAPPED_RANGES; i++) {
        find_file(s, m, v, &g_array_index(ranges, VerifyRange, i));
    }
}

/* After all was read */
static bool judge(Check *c, const Store *s, const Manifest *m, GError **error)
{
    Verification *result = c->result;
    uint8_t root[VERITY_HASH_BYTES];
    const uint8_t *head;
    size_t bytes;

    if (!tree_build_finish(c->built, root, &head, &bytes)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "not all of version %" PRIu64 " was read", c->v->number);
        return false;
    }
    if (c->stored) {
        add_bad_head(c);
    }
    result->content = memcmp(root, c->v->root, sizeof(root)) == 0;
    result->tree = c->stored && result->bad_tree->len == 0;
    if (result->content) {
        g_array_set_size(result->unknown, 0);   /* it is known after all */
    } else if (result->bad->len == 0 && result->unknown->len == 0) {
        add_range(c, result->unknown, 0, c->size, NULL);
    }
    join_neighbours(result->bad);
    join_neighbours(result->unknown);
    join_neighbours(result->bad_tree);
    find_files(s, m, c->v, result->bad);
    return true;
}

static bool check(Check *c, const Store *s, const Manifest *m,
                  Progress *progress, GError **error)
{
    g_autoptr(JsonObject) chain = store_chain(s, m, c->v, STORE_CHAIN_DIRECT);
    g_autoptr(Content) content = content_open(chain, error);

    return content &&
           content_read(content, c->size, take, c, progress, error) &&
           judge(c, s, m, error);
}

Verification *store_verify(const Store *s, const Manifest *m, const Version *v,
                           Progress *progress, GError **error)
{
    g_autoptr(Verification) result = g_new0(Verification, 1);
    g_autoptr(GError) tree_error = NULL;
    g_autoptr(TreeFile) stored = tree_file_of(s, m, v, &tree_error);
    g_autoptr(TreeBuild) built = content_tree_new(v->size, m->salt, m->uuid,
                                                  error);
    Check c = { .built = built, .stored = stored, .size = v->size, .v = v,
                .result = result };
    bool ok;

    result->bad = new_ranges();
    result->unknown = new_ranges();
    result->bad_tree = new_ranges();
    if (tree_error) {
        result->tree_why = g_strdup(tree_error->message);
    }
    g_mutex_init(&c.lock);
    ok = built && check(&c, s, m, progress, error);
    g_mutex_clear(&c.lock);
    return ok ? g_steal_pointer(&result) : NULL;
}

void verification_free(Verification *v)
{
    if (v) {
        g_array_unref(v->bad);
        g_array_unref(v->unknown);
        g_array_unref(v->bad_tree);
        g_free(v->tree_why);
        g_free(v);
    }
}

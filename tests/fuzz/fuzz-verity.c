/*
 * Fuzz a tree's superblock, root hash and sizes: what is taken keeps the limits,
 * and every block that a reader is sent to lies in the file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/verity.h"
#include "fuzz.h"

#define PATHS   8       /* data blocks that are looked up */

static bool decode_super(VeritySuper *s, const uint8_t *buf)
{
    g_autofree char *why = NULL;
    bool valid = verity_super_decode(s, buf, &why);

    assert(valid == !why);
    return valid;
}

static void check_super(const uint8_t *buf)
{
    uint8_t other[VERITY_SUPER_BYTES];
    VeritySuper s, again;

    if (!decode_super(&s, buf)) {
        return;
    }
    assert(s.data_blocks > 0 && s.data_blocks <= UINT64_C(1) << 50);
    assert(s.salt_bytes <= VERITY_MAX_SALT);
    /* Only the UUID means nothing */
    memcpy(other, buf, sizeof(other));
    memset(other + 16, 0xa5, 16);
    assert(decode_super(&again, other) && !memcmp(&s, &again, sizeof(s)));
    for (unsigned i = s.salt_bytes; i < VERITY_MAX_SALT; i++) {
        assert(!s.salt[i]);
    }
}

static void check_root(const char *hex)
{
    uint8_t root[VERITY_HASH_BYTES];
    g_autofree char *why = NULL, *lower = g_ascii_strdown(hex, -1);
    char again[2 * VERITY_HASH_BYTES + 1];

    if (!verity_root_decode(root, hex, &why)) {
        assert(why);
        return;
    }
    for (unsigned i = 0; i < VERITY_HASH_BYTES; i++) {
        g_snprintf(again + 2 * i, 3, "%02x", root[i]);
    }
    assert(!why && !strcmp(again, lower));
}

/* Levels follow each other from the top, without a gap, to the end */
static void check_geometry(const VerityGeometry *g)
{
    uint64_t below = g->data_blocks, next = 1;

    assert(g->data_blocks == DIV_ROUND_UP(g->data_bytes, 4096));
    assert(g->levels <= VERITY_MAX_LEVELS);
    for (unsigned k = 0; k < g->levels; k++) {
        assert(g->level_blocks[k] == DIV_ROUND_UP(below, VERITY_FANOUT));
        below = g->level_blocks[k];
    }
    assert(below == 1);
    for (unsigned k = g->levels; k-- > 0; ) {
        assert(g->level_first[k] == next);
        next += g->level_blocks[k];
    }
    assert(g->file_blocks == next);
}

static void check_path(const VerityGeometry *g, uint64_t n)
{
    VerityEntry path[VERITY_MAX_LEVELS];
    unsigned levels = verity_path(g, n, path);

    assert(levels == g->levels);
    for (unsigned k = 0; k < levels; k++) {
        uint64_t at = path[k].block - g->level_first[k];

        assert(at < g->level_blocks[k]);
        assert(path[k].offset % VERITY_HASH_BYTES == 0);
        assert(path[k].offset < VERITY_BLOCK);
        /* The entry is that of the block below it */
        assert(at * VERITY_FANOUT + path[k].offset / VERITY_HASH_BYTES == n);
        n = at;
    }
}

static void check_tree(const uint8_t *super, const char *root,
                       uint64_t data_bytes, uint64_t file_bytes, Input *in)
{
    g_autofree char *why = NULL;
    Verity *v = verity_new(super, root, data_bytes, file_bytes, &why);
    const VerityGeometry *g;
    VeritySuper s;

    assert(!v == (why != NULL));
    if (!v) {
        return;
    }
    g = verity_geometry(v);
    check_geometry(g);
    assert(g->data_bytes == data_bytes && data_bytes <= VERITY_MAX_SIZE);
    assert(g->file_blocks <= file_bytes / VERITY_BLOCK);
    assert(decode_super(&s, super) && s.data_blocks == g->data_blocks);
    check_path(g, 0);
    check_path(g, g->data_blocks - 1);
    for (int i = 0; i < PATHS; i++) {
        uint64_t n = input_take(in, 8);

        check_path(g, n % g->data_blocks);
        assert(!verity_is_checked(v, n % g->file_blocks));
        verity_mark_checked(v, n % g->file_blocks);
        assert(verity_is_checked(v, n % g->file_blocks));
        verity_forget(v, n % g->file_blocks);
    }
    verity_free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char any_root[] = "0123456789abcdef0123456789ABCDEF"
                                   "0123456789abcdef0123456789abcdef";
    uint8_t super[VERITY_SUPER_BYTES];
    Input in = { data, size };
    uint64_t data_bytes = input_take(&in, 8), file_bytes = input_take(&in, 8);
    g_autofree char *hex = NULL;
    uint64_t blocks;

    input_copy(&in, super, sizeof(super));
    hex = g_strndup((const char *)in.data, MIN(in.size, 80));
    check_super(super);
    check_root(hex);
    check_root(any_root);
    check_tree(super, hex, data_bytes, file_bytes, &in);
    check_tree(super, any_root, data_bytes, file_bytes, &in);
    /* Sizes as they have to be, but for what the input takes away */
    memcpy(&blocks, super + 72, sizeof(blocks));
    data_bytes = GUINT64_FROM_LE(blocks) * VERITY_BLOCK - data_bytes % 4097;
    check_tree(super, any_root, data_bytes, INT64_MAX, &in);
    return 0;
}

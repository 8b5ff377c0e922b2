/*
 * A version on its way into a store: its tree
 *
 * Level by level from the top, so that what a block must hash to is known
 * before it is wanted. It comes from an earlier try, from the tree of another
 * version, from nowhere if all below it is zeros, or else from the origin.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "staging.h"
#include "durable.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define WINDOW      16384       /* blocks of the lowest level in memory */

typedef struct Fetch {
    Staging *st;
    const TreeFile *base;       /* or NULL */
    Verity *verity;
    const uint8_t *root;
    uint8_t *above;             /* blocks of the level above, all right */
    unsigned k;                 /* the level */
    uint8_t *level;             /* its blocks from @first on, @n of them: all,
                                   but of the lowest a window only */
    uint64_t first, n;
    uint8_t zero_block[VERITY_BLOCK];   /* of this level, of zeros only */
} Fetch;

static bool write_error(const Staging *st, GError **error)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                "cannot write %s: %s", st->tree_path, g_strerror(saved));
    return false;
}

static const uint8_t *expected(const Fetch *f, uint64_t n)
{
    return f->above ? f->above + n * VERITY_HASH_BYTES : f->root;
}

static bool is_right(const Fetch *f, uint64_t n, const uint8_t *block)
{
    uint8_t hash[VERITY_HASH_BYTES];

    verity_hash(f->verity, block, hash);
    return memcmp(hash, expected(f, n), sizeof(hash)) == 0;
}

/* Put it into @block if it is to be had here */
static bool find_here(const Fetch *f, uint64_t n, uint8_t *block)
{
    const VerityGeometry *g = verity_geometry(f->verity);
    const VerityGeometry *old = f->base ? verity_geometry(f->base->verity)
                                        : NULL;
    off_t at = (g->level_first[f->k] + n) * VERITY_BLOCK;

    if (pread(f->st->tree_fd, block, VERITY_BLOCK, at) == VERITY_BLOCK &&
        is_right(f, n, block)) {
        return true;
    }
    if (old && f->k < old->levels && n < old->level_blocks[f->k]) {
        at = (old->level_first[f->k] + n) * VERITY_BLOCK;
        if (pread(f->base->fd, block, VERITY_BLOCK, at) == VERITY_BLOCK &&
            is_right(f, n, block)) {
            return true;
        }
    }
    memcpy(block, f->zero_block, VERITY_BLOCK);
    return is_right(f, n, block);
}

static bool take(void *opaque, unsigned thread, uint64_t offset,
                 uint64_t bytes, const uint8_t *data, GError **error)
{
    Fetch *f = opaque;
    uint64_t first = verity_geometry(f->verity)->level_first[f->k];

    for (uint64_t at = 0; at < bytes; at += VERITY_BLOCK) {
        uint64_t n = (offset + at) / VERITY_BLOCK - first;

        if (!is_right(f, n, data + at)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                        "the tree that came does not lead up to the root hash "
                        "of the manifest: verify the store it came from");
            return false;
        }
        memcpy(f->level + (n - f->first) * VERITY_BLOCK, data + at,
               VERITY_BLOCK);
    }
    return true;
}

static void add_wanted(GArray *ranges, uint64_t block)
{
    ContentRange *last = ranges->len ?
        &g_array_index(ranges, ContentRange, ranges->len - 1) : NULL;
    ContentRange one = { block * VERITY_BLOCK, VERITY_BLOCK };

    if (last && last->offset + last->bytes == one.offset) {
        last->bytes += VERITY_BLOCK;
    } else {
        g_array_append_val(ranges, one);
    }
}

static bool write_window(const Fetch *f, GError **error)
{
    const VerityGeometry *g = verity_geometry(f->verity);
    off_t at = (g->level_first[f->k] + f->first) * VERITY_BLOCK;

    return durable_pwrite(f->st->tree_fd, f->level, f->n * VERITY_BLOCK, at) ||
           write_error(f->st, error);
}

/* What f->level is to hold, into it */
static bool fetch_window(Fetch *f, Content *c, Progress *progress,
                         GError **error)
{
    const VerityGeometry *g = verity_geometry(f->verity);
    g_autoptr(GArray) ranges = g_array_new(false, false, sizeof(ContentRange));
    uint64_t wanted = 0;
    bool ok;

    for (uint64_t i = 0; i < f->n; i++) {
        if (!find_here(f, f->first + i, f->level + i * VERITY_BLOCK)) {
            add_wanted(ranges, g->level_first[f->k] + f->first + i);
            wanted += VERITY_BLOCK;
        }
    }
    ok = content_read_ranges(c, (ContentRange *)ranges->data, ranges->len,
                             take, f, progress, error) &&
         write_window(f, error);
    f->st->moved += ok ? wanted : 0;
    return ok;
}

static bool fetch_level(Fetch *f, Content *c, Progress *progress,
                        GError **error)
{
    uint64_t blocks = verity_geometry(f->verity)->level_blocks[f->k];
    uint64_t window = f->k ? blocks : WINDOW;

    f->level = g_try_malloc_n(MIN(window, blocks), VERITY_BLOCK);
    if (!f->level) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
                    "no memory for the tree");
        return false;
    }
    for (f->first = 0; f->first < blocks; f->first += window) {
        f->n = MIN(window, blocks - f->first);
        if (!fetch_window(f, c, progress, error)) {
            return false;
        }
    }
    return true;
}

/* What a block of level @k holds if all the data below it is zeros */
static void fill_zero_block(Fetch *f, unsigned k)
{
    uint8_t hash[VERITY_HASH_BYTES];

    memset(f->zero_block, 0, VERITY_BLOCK);
    for (unsigned level = 0; level <= k; level++) {
        verity_hash(f->verity, f->zero_block, hash);
        for (unsigned i = 0; i < VERITY_FANOUT; i++) {
            memcpy(f->zero_block + i * VERITY_HASH_BYTES, hash, sizeof(hash));
        }
    }
}

static bool fetch_levels(Fetch *f, Content *c, Progress *progress,
                         GError **error)
{
    const VerityGeometry *g = verity_geometry(f->verity);
    bool ok = true;

    for (unsigned k = g->levels; ok && k-- > 0; ) {
        f->k = k;
        fill_zero_block(f, k);
        ok = fetch_level(f, c, progress, error);
        g_free(f->above);
        f->above = g_steal_pointer(&f->level);
    }
    return ok;
}

static bool is_salt(const VeritySuper *super, const char *hex)
{
    char text[2 * VERITY_MAX_SALT + 1] = "";

    for (unsigned i = 0; i < super->salt_bytes; i++) {
        g_snprintf(text + 2 * i, 3, "%02x", super->salt[i]);
    }
    return g_ascii_strcasecmp(text, hex) == 0;
}

/* The superblock: small, and taken anew each time */
static bool fetch_super(Fetch *f, Content *c, const Manifest *m,
                        const Version *v, GError **error)
{
    g_autofree char *root = version_root_text(v);
    g_autofree char *why = NULL;
    uint8_t block[VERITY_BLOCK];
    VeritySuper super;

    if (!content_pread(c, 0, sizeof(block), block, error)) {
        return false;
    }
    f->st->moved += sizeof(block);
    if (verity_super_decode(&super, block, &why) && !is_salt(&super, m->salt)) {
        why = g_strdup("the tree has another salt than the manifest");
    }
    f->verity = why ? NULL : verity_new(block, root, v->size, content_size(c),
                                        &why);
    if (!f->verity) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the tree that came: %s", why);
        return false;
    }
    return pwrite(f->st->tree_fd, block, sizeof(block), 0) == sizeof(block) ||
           write_error(f->st, error);
}

static bool settle(Staging *st, const Verity *verity, GError **error)
{
    uint64_t bytes = verity_geometry(verity)->file_blocks * VERITY_BLOCK;

    return (ftruncate(st->tree_fd, bytes) == 0 && fsync(st->tree_fd) == 0) ||
           write_error(st, error);
}

bool staging_fetch_tree(Staging *st, Origin *o, const Manifest *m,
                        const Version *v, const TreeFile *base,
                        Progress *progress, GError **error)
{
    g_autoptr(Content) c = origin_tree(o, m, v, error);
    Fetch f = { .st = st, .base = base, .root = v->root };
    bool ok;

    ok = c && fetch_super(&f, c, m, v, error) &&
         fetch_levels(&f, c, progress, error) &&
         settle(st, f.verity, error);
    g_free(f.above);
    g_free(f.level);
    if (f.verity) {
        verity_free(f.verity);
    }
    st->tree = ok ? tree_file_open(st->tree_path, v->root, v->size, error)
                  : NULL;
    return st->tree != NULL;
}

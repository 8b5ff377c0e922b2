/*
 * A version on its way into a store: its files, and its data
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "staging.h"
#include "durable.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool lock_file(int fd, const char *path, GError **error)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                "%s: somebody else is bringing this version at the moment",
                path);
    return false;
}

static int open_file(const char *path, GError **error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

    if (fd < 0) {
        durable_errno(error, "make", path);
    }
    return fd;
}

Staging *staging_open(const Store *s, const Manifest *m, const Version *v,
                      GError **error)
{
    g_autoptr(Staging) st = g_new0(Staging, 1);
    g_autofree char *folder = g_build_filename(store_folder(s), "staging",
                                               NULL);

    st->tree_fd = st->data_fd = -1;
    st->tree_path = g_strdup_printf("%s/%s.%" PRIu64 ".tree", folder, m->vdisk,
                                    v->number);
    st->data_path = g_strdup_printf("%s/%s.%" PRIu64 ".raw", folder, m->vdisk,
                                    v->number);
    if (g_mkdir(folder, 0755) < 0 && errno != EEXIST) {
        durable_errno(error, "make", folder);
        return NULL;
    }
    st->tree_fd = open_file(st->tree_path, error);
    if (st->tree_fd < 0 || !lock_file(st->tree_fd, st->tree_path, error)) {
        return NULL;
    }
    st->data_fd = open_file(st->data_path, error);
    if (st->data_fd < 0) {
        return NULL;
    }
    if (ftruncate(st->data_fd, v->size) < 0) {
        durable_errno(error, "make", st->data_path);
        return NULL;
    }
    return g_steal_pointer(&st);
}

void staging_close(Staging *st)
{
    if (st) {
        if (st->tree_fd >= 0) {
            close(st->tree_fd);
        }
        if (st->data_fd >= 0) {
            close(st->data_fd);
        }
        g_clear_pointer(&st->tree, tree_file_close);
        g_clear_pointer(&st->ranges, g_array_unref);
        g_free(st->tree_path);
        g_free(st->data_path);
        g_free(st);
    }
}

void staging_remove(const Staging *st)
{
    g_unlink(st->data_path);
    g_unlink(st->tree_path);
}

/* Hashes of one span after the other */
typedef struct Leaves {
    const TreeFile *tree;
    uint64_t span;
    bool have;
    uint8_t leaf[VERITY_BLOCK];
} Leaves;

/* The hash of the block at @offset; the tree was checked: it is there */
static const uint8_t *expected_hash(Leaves *l, uint64_t offset)
{
    uint64_t span = offset / TREE_SPAN;

    if (verity_geometry(l->tree->verity)->levels == 0) {
        return l->tree->root;
    }
    if (!l->have || l->span != span) {
        l->span = span;
        l->have = tree_file_leaf(l->tree, span, l->leaf);
    }
    return l->have ? l->leaf + offset % TREE_SPAN / VERITY_BLOCK *
                               VERITY_HASH_BYTES : NULL;
}

static bool block_is(Leaves *l, uint64_t offset, const uint8_t *block)
{
    const uint8_t *expected = expected_hash(l, offset);
    uint8_t hash[VERITY_HASH_BYTES];

    verity_hash(l->tree->verity, block, hash);
    return expected && memcmp(hash, expected, sizeof(hash)) == 0;
}

static void add_block(GArray *ranges, uint64_t offset)
{
    ContentRange *last = ranges->len ?
        &g_array_index(ranges, ContentRange, ranges->len - 1) : NULL;
    ContentRange one = { offset, VERITY_BLOCK };

    if (last && last->offset + last->bytes == offset) {
        last->bytes += VERITY_BLOCK;
    } else {
        g_array_append_val(ranges, one);
    }
}

typedef struct Want {
    Staging *st;
    Leaves leaves;
    uint8_t zero_hash[VERITY_HASH_BYTES];
    GArray *ranges;             /* to be read from the origin */
    uint64_t bytes;
    off_t data;                 /* of the file: the next that is no hole */
} Want;

/* Is there anything in the file, from an earlier try? */
static bool has_data(Want *w, uint64_t offset)
{
    if (w->data >= 0 && w->data + VERITY_BLOCK <= (off_t)offset) {
        w->data = lseek(w->st->data_fd, offset, SEEK_DATA);
    }
    return w->data >= 0 && w->data < (off_t)(offset + VERITY_BLOCK);
}

static bool is_kept(Want *w, uint64_t offset)
{
    uint8_t block[VERITY_BLOCK];

    return has_data(w, offset) &&
           pread(w->st->data_fd, block, sizeof(block), offset) ==
           sizeof(block) &&
           block_is(&w->leaves, offset, block);
}

static bool want_block(Want *w, uint64_t offset, GError **error)
{
    static const uint8_t zeros[VERITY_BLOCK];
    const uint8_t *hash = expected_hash(&w->leaves, offset);
    bool zero = hash && memcmp(hash, w->zero_hash, VERITY_HASH_BYTES) == 0;

    if (zero) {
        /* They need not come from afar */
        return !has_data(w, offset) || is_kept(w, offset) ||
               pwrite(w->st->data_fd, zeros, sizeof(zeros), offset) ==
               sizeof(zeros) ||
               durable_errno(error, "write", w->st->data_path);
    }
    if (is_kept(w, offset)) {
        w->st->kept += VERITY_BLOCK;
    } else {
        add_block(w->ranges, offset);
        w->bytes += VERITY_BLOCK;
    }
    return true;
}

static bool find_wanted(Want *w, GError **error)
{
    static const uint8_t zeros[VERITY_BLOCK];
    Staging *st = w->st;

    verity_hash(st->tree->verity, zeros, w->zero_hash);
    w->leaves.tree = st->tree;
    w->data = lseek(st->data_fd, 0, SEEK_DATA);
    for (unsigned i = 0; i < st->ranges->len; i++) {
        const ContentRange *r = &g_array_index(st->ranges, ContentRange, i);

        for (uint64_t at = 0; at < r->bytes; at += VERITY_BLOCK) {
            if (!want_block(w, r->offset + at, error)) {
                return false;
            }
        }
    }
    return true;
}

typedef struct Arrival {
    Staging *st;
    Leaves leaves[CONTENT_THREADS];
} Arrival;

static bool take(void *opaque, unsigned thread, uint64_t offset,
                 uint64_t bytes, const uint8_t *data, GError **error)
{
    Arrival *a = opaque;

    for (uint64_t at = 0; at < bytes; at += VERITY_BLOCK) {
        if (!block_is(&a->leaves[thread], offset + at, data + at)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                        "the block at %" PRIu64 " that came is not what was "
                        "sealed: verify the store it came from", offset + at);
            return false;
        }
    }
    return durable_pwrite(a->st->data_fd, data, bytes, offset) ||
           durable_errno(error, "write", a->st->data_path);
}

bool staging_fetch_data(Staging *st, Origin *o, const Manifest *m,
                        const Version *v, const char *what, bool quiet,
                        GError **error)
{
    g_autoptr(GArray) ranges = g_array_new(false, false, sizeof(ContentRange));
    g_autoptr(Content) c = NULL;
    g_autoptr(Progress) progress = NULL;
    g_autofree Arrival *arrival = g_new0(Arrival, 1);
    Want want = { .st = st, .ranges = ranges };

    if (!find_wanted(&want, error)) {
        return false;
    }
    arrival->st = st;
    for (unsigned i = 0; i < CONTENT_THREADS; i++) {
        arrival->leaves[i].tree = st->tree;
    }
    if (ranges->len == 0) {
        return true;
    }
    c = origin_version(o, m, v, error);
    progress = progress_new(what, want.bytes, true, quiet);
    if (!c || !content_read_ranges(c, (ContentRange *)ranges->data,
                                   ranges->len, take, arrival, progress,
                                   error)) {
        return false;
    }
    st->moved += want.bytes;
    progress_done(progress);
    return fdatasync(st->data_fd) == 0 ||
           durable_errno(error, "make durable", st->data_path);
}

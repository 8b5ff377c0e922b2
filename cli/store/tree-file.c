/*
 * The file of a version's tree, read and checked against the root hash
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "tree-file.h"
#include "cli/store/content.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool read_all(int fd, void *buf, size_t bytes, uint64_t offset)
{
    uint8_t *p = buf;

    while (bytes) {
        ssize_t n = pread(fd, p, bytes, offset);

        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            return false;
        }
        if (n > 0) {
            p += n;
            bytes -= n;
            offset += n;
        }
    }
    return true;
}

static uint64_t head_blocks(const VerityGeometry *g)
{
    return g->levels ? g->level_first[0] : 1;
}

static uint8_t *head_block(const TreeFile *t, uint64_t block)
{
    return t->head + block * VERITY_BLOCK;
}

/* Is block @n of @level, in @buf, what the block above says it is? */
static bool check_block(const TreeFile *t, unsigned level, uint64_t n,
                        const uint8_t *buf)
{
    const VerityGeometry *g = verity_geometry(t->verity);
    g_autofree char *why = NULL;
    uint64_t parent = 0;

    if (level + 1 < g->levels) {
        parent = g->level_first[level + 1] + n / VERITY_FANOUT;
        if (!t->good[parent]) {
            return false;
        }
    }
    return verity_check_tree(t->verity, g->level_first[level] + n, buf,
                             head_block(t, parent), &why);
}

/* From the top, so that the block above is known already */
static void check_head(TreeFile *t)
{
    const VerityGeometry *g = verity_geometry(t->verity);

    t->good[0] = true;
    for (unsigned k = g->levels; k-- > 1; ) {
        for (uint64_t n = 0; n < g->level_blocks[k]; n++) {
            uint64_t block = g->level_first[k] + n;

            t->good[block] = check_block(t, k, n, head_block(t, block));
        }
    }
}

static bool load(TreeFile *t, const char *path, const uint8_t *root,
                 uint64_t bytes, GError **error)
{
    uint8_t super[VERITY_SUPER_BYTES];
    char hex[2 * VERITY_HASH_BYTES + 1];
    g_autofree char *why = NULL;
    struct stat st;
    uint64_t blocks;

    for (unsigned i = 0; i < VERITY_HASH_BYTES; i++) {
        g_snprintf(hex + 2 * i, 3, "%02x", root[i]);
    }
    memcpy(t->root, root, VERITY_HASH_BYTES);
    t->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (t->fd < 0 || fstat(t->fd, &st) < 0 ||
        !read_all(t->fd, super, sizeof(super), 0)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "cannot read the tree %s: %s", path,
                    t->fd < 0 ? g_strerror(errno) : "too short, or an I/O error");
        return false;
    }
    t->verity = verity_new(super, hex, bytes, st.st_size, &why);
    if (!t->verity) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s: %s", path,
                    why);
        return false;
    }
    blocks = head_blocks(verity_geometry(t->verity));
    t->head = g_malloc0(blocks * VERITY_BLOCK);
    t->good = g_new0(bool, blocks);
    if (!read_all(t->fd, t->head, MIN(blocks * VERITY_BLOCK,
                                      (uint64_t)st.st_size), 0)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "cannot read %s",
                    path);
        return false;
    }
    check_head(t);
    return true;
}

TreeFile *tree_file_open(const char *path, const uint8_t *root, uint64_t bytes,
                         GError **error)
{
    g_autoptr(TreeFile) t = g_new0(TreeFile, 1);

    t->fd = -1;
    return load(t, path, root, bytes, error) ? g_steal_pointer(&t) : NULL;
}

TreeFile *tree_file_of(const Store *s, const Manifest *m, const Version *v,
                       GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, v->tree);

    return tree_file_open(path, v->root, v->size, error);
}

void tree_file_close(TreeFile *t)
{
    if (t) {
        if (t->fd >= 0) {
            close(t->fd);
        }
        if (t->verity) {
            verity_free(t->verity);
        }
        g_free(t->head);
        g_free(t->good);
        g_free(t);
    }
}

bool tree_file_leaf(const TreeFile *t, uint64_t n, uint8_t *leaf)
{
    const VerityGeometry *g = verity_geometry(t->verity);

    return g->levels && n < g->level_blocks[0] &&
           read_all(t->fd, leaf, VERITY_BLOCK,
                    (g->level_first[0] + n) * VERITY_BLOCK) &&
           check_block(t, 0, n, leaf);
}

bool tree_file_hash(const TreeFile *t, uint64_t n, uint8_t *hash)
{
    uint8_t leaf[VERITY_BLOCK];

    if (verity_geometry(t->verity)->levels == 0) {
        memcpy(hash, t->root, VERITY_HASH_BYTES);
        return n == 0;
    }
    if (!tree_file_leaf(t, n / VERITY_FANOUT, leaf)) {
        return false;
    }
    memcpy(hash, leaf + n % VERITY_FANOUT * VERITY_HASH_BYTES,
           VERITY_HASH_BYTES);
    return true;
}

typedef struct Diff {
    const TreeFile *older, *newer;
    GArray *ranges;
} Diff;

static VerityRead diff_read(void *opaque, bool newer, uint64_t block,
                            uint8_t *buf)
{
    Diff *d = opaque;
    const TreeFile *t = newer ? d->newer : d->older;

    if (read_all(t->fd, buf, VERITY_BLOCK, block * VERITY_BLOCK)) {
        return VERITY_READ_DONE;
    }
    return newer ? VERITY_READ_STOP : VERITY_READ_NONE;
}

static bool diff_differ(void *opaque, uint64_t first, uint64_t n)
{
    Diff *d = opaque;
    ContentRange range = { first * VERITY_BLOCK, n * VERITY_BLOCK };

    g_array_append_val(d->ranges, range);
    return true;
}

GArray *tree_file_diff(const TreeFile *older, const TreeFile *newer,
                       GError **error)
{
    static const VerityDiffOps ops = { diff_read, diff_differ };
    g_autoptr(GArray) ranges = g_array_new(false, false, sizeof(ContentRange));
    Diff d = { older, newer, ranges };
    g_autofree char *why = NULL;

    if (!older) {
        ContentRange all = { 0, verity_geometry(newer->verity)->data_bytes };

        g_array_append_val(ranges, all);
    } else if (!verity_diff(older->verity, newer->verity, &ops, &d, &why)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s", why);
        return NULL;
    }
    return g_steal_pointer(&ranges);
}

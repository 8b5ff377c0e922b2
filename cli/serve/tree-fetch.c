/*
 * A version's hash tree, fetched from far stores to a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "tree-fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#define RUN     64      /* blocks that are asked for at once */

typedef struct Work {
    const TreeFetch *t;
    int fd;                     /* the tree's file, or what there is of it */
    int older_fd;               /* or -1 */
    VerityGeometry older;
    Content *content;           /* of the store; NULL: only local blocks */
    Verity *verity;
    uint64_t parent;            /* block that is in @parent_buf; 0: none */
    uint8_t parent_buf[VERITY_BLOCK];
} Work;

static bool fail(GError **error, const char *path, const char *why)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", path, why);
    return false;
}

static bool read_block(int fd, uint64_t block, void *buf)
{
    return pread(fd, buf, VERITY_BLOCK, block * VERITY_BLOCK) == VERITY_BLOCK;
}

static bool write_block(Work *w, uint64_t block, const void *buf,
                        GError **error)
{
    ssize_t n = pwrite(w->fd, buf, VERITY_BLOCK, block * VERITY_BLOCK);

    return n == VERITY_BLOCK ||
        fail(error, w->t->path, g_strerror(n < 0 ? errno : ENOSPC));
}

/* Is @buf block @n of @level? The level above is in the file. */
static bool is_right(Work *w, unsigned level, uint64_t n, const uint8_t *buf)
{
    const VerityGeometry *g = verity_geometry(w->verity);
    g_autofree char *why = NULL;

    if (level + 1 < g->levels) {
        uint64_t parent = g->level_first[level + 1] + n / VERITY_FANOUT;

        if (parent != w->parent) {
            w->parent = 0;
            if (!read_block(w->fd, parent, w->parent_buf)) {
                return false;
            }
            w->parent = parent;
        }
    }
    return verity_check_tree(w->verity, g->level_first[level] + n, buf,
                             w->parent_buf, &why);
}

/* Is the block there, or in the older tree? Then it is in the file after it. */
static bool have_block(Work *w, unsigned level, uint64_t n, bool *failed,
                       GError **error)
{
    uint64_t block = verity_geometry(w->verity)->level_first[level] + n;
    uint8_t buf[VERITY_BLOCK];

    if (read_block(w->fd, block, buf) && is_right(w, level, n, buf)) {
        return true;
    }
    if (w->older_fd < 0 || level >= w->older.levels ||
        n >= w->older.level_blocks[level] ||
        !read_block(w->older_fd, w->older.level_first[level] + n, buf) ||
        !is_right(w, level, n, buf)) {
        return false;
    }
    *failed = !write_block(w, block, buf, error);
    return true;
}

/* So that it takes no more of the link than it may */
static void slow_down(const Work *w, uint64_t bytes)
{
    if (w->t->bandwidth) {
        g_usleep(bytes * G_USEC_PER_SEC / w->t->bandwidth);
    }
}

static bool fetch_blocks(Work *w, unsigned level, uint64_t n, uint64_t end,
                         GError **error)
{
    uint64_t first = verity_geometry(w->verity)->level_first[level];
    size_t bytes = (end - n) * VERITY_BLOCK;
    g_autofree uint8_t *buf = g_malloc(bytes);

    if (!w->content) {
        return fail(error, w->t->path, "it is incomplete, or damaged");
    }
    if (!content_pread(w->content, (first + n) * VERITY_BLOCK, bytes, buf,
                       error)) {
        return false;
    }
    for (uint64_t i = n; i < end; i++) {
        const uint8_t *block = buf + (i - n) * VERITY_BLOCK;

        if (!is_right(w, level, i, block)) {
            return fail(error, w->t->export, "what the store sent is not what "
                        "was sealed");
        }
        if (!write_block(w, first + i, block, error)) {
            return false;
        }
    }
    slow_down(w, bytes);
    return true;
}

static bool do_level(Work *w, unsigned level, GError **error)
{
    uint64_t blocks = verity_geometry(w->verity)->level_blocks[level];
    uint64_t n = 0, end;
    bool failed = false;

    while (n < blocks) {
        if (have_block(w, level, n, &failed, error)) {
            n++;
        } else {
            for (end = n + 1; end < blocks && end - n < RUN && !failed &&
                 !have_block(w, level, end, &failed, error); end++) {
                continue;
            }
            if (!failed && !fetch_blocks(w, level, n, end, error)) {
                return false;
            }
            n = end;
        }
        if (failed) {
            return false;
        }
    }
    return true;
}

/* The superblock, from the store or as it is there */
static bool do_super(Work *w, GError **error)
{
    g_autofree char *why = NULL;
    uint8_t super[VERITY_BLOCK];
    uint64_t bytes = tree_file_bytes(w->t->size);

    if (w->content) {
        bytes = content_size(w->content);
        if (!content_pread(w->content, 0, sizeof(super), super, error)) {
            return false;
        }
    } else if (!read_block(w->fd, 0, super)) {
        return fail(error, w->t->path, "it is incomplete, or damaged");
    }
    w->verity = verity_new(super, w->t->root, w->t->size, bytes, &why);
    if (!w->verity) {
        return fail(error, w->t->export, why);
    }
    return !w->content || write_block(w, 0, super, error);
}

static bool do_levels(Work *w, GError **error)
{
    for (unsigned level = verity_geometry(w->verity)->levels; level-- > 0;) {
        if (!do_level(w, level, error)) {
            return false;
        }
    }
    return true;
}

/* How many data blocks are not zero: the hash of a zero block is known */
static bool count_data(Work *w, uint64_t *data_bytes, GError **error)
{
    const VerityGeometry *g = verity_geometry(w->verity);
    static const uint8_t zeros[VERITY_BLOCK];
    uint8_t buf[VERITY_BLOCK], zero[VERITY_HASH_BYTES];
    uint64_t left = g->data_blocks, count = 0;

    verity_hash(w->verity, zeros, zero);
    for (uint64_t n = 0; g->levels && n < g->level_blocks[0]; n++) {
        if (!read_block(w->fd, g->level_first[0] + n, buf)) {
            return fail(error, w->t->path, g_strerror(errno));
        }
        for (unsigned i = 0; i < VERITY_FANOUT && left; i++, left--) {
            count += memcmp(buf + i * VERITY_HASH_BYTES, zero,
                            sizeof(zero)) != 0;
        }
    }
    *data_bytes = (g->levels ? count : 1) * VERITY_BLOCK;
    return true;
}

/* Everything, from one store or from what is there */
static bool do_all(Work *w, uint64_t *data_bytes, GError **error)
{
    bool ok = do_super(w, error) && do_levels(w, error) &&
        count_data(w, data_bytes, error);

    g_clear_pointer(&w->verity, verity_free);
    w->parent = 0;
    return ok;
}

static bool from_stores(Work *w, uint64_t *data_bytes, GError **error)
{
    for (guint i = 0; i < w->t->stores->len; i++) {
        const Far *far = w->t->stores->pdata[i];
        g_autoptr(GError) why = NULL;
        bool ok;

        w->content = content_connect(&far->server, w->t->export, &why);
        ok = w->content && do_all(w, data_bytes, &why);
        g_clear_pointer(&w->content, content_close);
        if (ok) {
            return true;
        }
        g_clear_error(error);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", far->uri,
                    why->message);
    }
    return false;
}

/* The name comes when the content is durable */
static bool publish(Work *w, const char *unfinished, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(w->t->path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fchmod(w->fd, 0444) == 0 && fsync(w->fd) == 0 &&
        rename(unfinished, w->t->path) == 0 && fsync(fd) == 0;

    if (!ok) {
        fail(error, w->t->path, g_strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static bool fetch_anew(Work *w, uint64_t *data_bytes, GError **error)
{
    g_autofree char *unfinished = g_strconcat(w->t->path, ".new", NULL);
    g_autofree char *why = NULL;

    w->fd = open(unfinished, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (w->fd < 0) {
        return fail(error, unfinished, g_strerror(errno));
    }
    if (w->t->older) {
        w->older_fd = open(w->t->older, O_RDONLY | O_CLOEXEC);
        if (!verity_geometry_init(&w->older, w->t->older_size, &why)) {
            w->older.levels = 0;
        }
    }
    if (ftruncate(w->fd, tree_file_bytes(w->t->size)) < 0) {
        return fail(error, unfinished, g_strerror(errno));
    }
    return from_stores(w, data_bytes, error) && publish(w, unfinished, error);
}

/* One that is there: is it whole? Rot shows, and it is fetched again. */
static bool check_present(Work *w, uint64_t *data_bytes)
{
    g_autofree char *unfinished = g_strconcat(w->t->path, ".new", NULL);
    bool ok;

    w->fd = open(w->t->path, O_RDONLY | O_CLOEXEC);
    if (w->fd < 0) {
        return false;
    }
    ok = do_all(w, data_bytes, NULL);
    if (!ok) {
        rename(w->t->path, unfinished);
        close(w->fd);
        w->fd = -1;
    }
    return ok;
}

bool tree_fetch(const TreeFetch *t, uint64_t *data_bytes, GError **error)
{
    Work w = { .t = t, .fd = -1, .older_fd = -1 };
    bool ok = check_present(&w, data_bytes) ||
        fetch_anew(&w, data_bytes, error);

    if (w.fd >= 0) {
        close(w.fd);
    }
    if (w.older_fd >= 0) {
        close(w.older_fd);
    }
    return ok;
}

uint64_t tree_file_bytes(uint64_t size)
{
    VerityGeometry g;
    g_autofree char *why = NULL;

    return verity_geometry_init(&g, size, &why) ? g.file_blocks * VERITY_BLOCK
                                                : 0;
}

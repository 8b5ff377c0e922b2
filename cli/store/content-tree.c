/*
 * The tree of what an image holds
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "content-int.h"
#include "durable.h"

#include <errno.h>
#include <unistd.h>

typedef struct Job {
    TreeBuild *tree;
    int fd;                     /* of the tree file, or -1 */
} Job;

static bool write_all(int fd, const uint8_t *p, size_t bytes, uint64_t offset,
                      GError **error)
{
    int saved;

    if (durable_pwrite(fd, p, bytes, offset)) {
        return true;
    }
    saved = errno;
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                "cannot write the tree: %s", g_strerror(saved));
    return false;
}

static bool add_span(Job *job, uint64_t n, const uint8_t *data, size_t bytes,
                     GError **error)
{
    uint64_t at = tree_build_leaf_offset(job->tree, n);
    uint8_t leaf[VERITY_BLOCK];

    tree_build_span(job->tree, n, data, bytes, leaf);
    return job->fd < 0 || at == 0 ||
           write_all(job->fd, leaf, sizeof(leaf), at, error);
}

static bool add(void *opaque, unsigned thread, uint64_t offset,
                uint64_t bytes, const uint8_t *data, GError **error)
{
    for (uint64_t at = 0; at < bytes; at += TREE_SPAN) {
        if (!add_span(opaque, (offset + at) / TREE_SPAN,
                      data ? data + at : NULL, MIN(TREE_SPAN, bytes - at),
                      error)) {
            return false;
        }
    }
    return true;
}

static bool finish(Job *job, uint8_t root[VERITY_HASH_BYTES], GError **error)
{
    const uint8_t *head;
    size_t bytes;

    if (!tree_build_finish(job->tree, root, &head, &bytes)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "not all of the image was read");
        return false;
    }
    if (job->fd < 0) {
        return true;
    }
    if (!write_all(job->fd, head, bytes, 0, error)) {
        return false;
    }
    if (ftruncate(job->fd, tree_build_file_bytes(job->tree)) < 0 ||
        fsync(job->fd) < 0) {
        int saved = errno;

        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                    "cannot make the tree durable: %s", g_strerror(saved));
        return false;
    }
    return true;
}

bool content_build(Content *c, uint64_t size, TreeBuild *tree, int tree_fd,
                   uint8_t root[VERITY_HASH_BYTES], Progress *progress,
                   GError **error)
{
    Job job = { tree, tree_fd };

    return content_read(c, size, add, &job, progress, error) &&
           finish(&job, root, error);
}

bool content_tree_compared(Content *c, uint64_t size, Content *other,
                           uint64_t other_size, TreeBuild *tree, int tree_fd,
                           uint8_t root[VERITY_HASH_BYTES], Progress *progress,
                           GError **error)
{
    Job job = { tree, tree_fd };

    return content_compare(c, size, other, other_size, add, &job, progress,
                           error) &&
           finish(&job, root, error);
}

static bool decode_uuid(const char *text, uint8_t uuid[TREE_UUID_BYTES])
{
    unsigned n = 0;

    for (const char *p = text; *p && n < 2 * TREE_UUID_BYTES; p++) {
        int digit = g_ascii_xdigit_value(*p);

        if (digit >= 0) {
            uuid[n / 2] = n % 2 ? uuid[n / 2] | digit : digit << 4;
            n++;
        }
    }
    return n == 2 * TREE_UUID_BYTES;
}

TreeBuild *content_tree_new(uint64_t size, const char *salt, const char *uuid,
                            GError **error)
{
    uint8_t bytes[TREE_UUID_BYTES] = {};
    g_autofree char *why = NULL;
    TreeBuild *tree;

    if (uuid && !decode_uuid(uuid, bytes)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "'%s' is no UUID", uuid);
        return NULL;
    }
    tree = tree_build_new(size, salt, bytes, &why);
    if (!tree) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s", why);
    }
    return tree;
}

bool content_tree(Content *c, uint64_t size, const char *salt,
                  const char *uuid, int tree_fd,
                  uint8_t root[VERITY_HASH_BYTES], Progress *progress,
                  GError **error)
{
    g_autoptr(TreeBuild) tree = content_tree_new(size, salt, uuid, error);

    return tree && content_build(c, size, tree, tree_fd, root, progress,
                                 error);
}

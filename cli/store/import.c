/*
 * Bring an image into the store as a new vDisk, and prove it identical
 *
 * qemu-img converts; the source is read a second time by other means; and what
 * was written is read back from the medium.
 *
 * A file is read the second time while it is converted, and hashed; it must not
 * have been changed from before until after. Other sources do not tell
 * that. They are read after the conversion, and compared: if each block is the
 * same both times, the target is what the source held at the moment between.
 * So is a file whose hash is not the target's, to tell where.
 *
 * Either way the target is read after the converter has ended, and a converter
 * that is wrong and a source that somebody writes to are found.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "import.h"
#include "cli/store/content.h"
#include "cli/store/convert.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool compare(Content *target, const Version *v, Content *source,
                    TreeBuild *tree, int tree_fd, uint8_t *root, bool quiet,
                    GError **error)
{
    g_autoptr(Progress) progress = progress_new("comparing with the source",
                                                v->size, true, quiet);

    if (!content_tree_compared(target, v->size, source, content_size(source),
                               tree, tree_fd, root, progress, error)) {
        if (error && g_error_matches(*error, G_IO_ERROR,
                                     G_IO_ERROR_INVALID_DATA)) {
            g_prefix_error(error, "what was written is not what the source "
                           "holds now, so nothing was imported; is somebody "
                           "writing to the source? If not, disks or memory of "
                           "this host are in doubt: ");
        }
        return false;
    }
    progress_done(progress);
    return true;
}

/* The version's tree, from the target, if it is the same as the source */
static bool prove(const Store *s, const Manifest *m, Version *v,
                  const Source *source, int tree_fd, bool quiet,
                  GError **error)
{
    g_autoptr(JsonObject) from = source_node(source);
    g_autoptr(JsonObject) to = store_chain(s, m, v, STORE_CHAIN_DIRECT);
    g_autoptr(TreeBuild) tree = content_tree_new(v->size, m->salt, m->uuid,
                                                 error);
    g_autoptr(Content) a = tree ? content_open(from, error) : NULL;
    g_autoptr(Content) b = a ? content_open(to, error) : NULL;

    if (b && ROUND_UP(content_size(a), VERITY_BLOCK) != v->size) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s has another size than before", source->name);
        return false;
    }
    return b && compare(b, v, a, tree, tree_fd, v->root, quiet, error);
}

static bool convert(const Store *s, const Manifest *m, const Version *v,
                    const Source *source, bool quiet, GError **error)
{
    g_autoptr(JsonObject) from = source_node(source);
    /* Past the page cache: it is read back from the medium anyway */
    g_autoptr(JsonObject) to = store_chain(s, m, v, STORE_CHAIN_WRITABLE |
                                           STORE_CHAIN_DIRECT);
    g_autoptr(Progress) progress = progress_new("converting", 100, false,
                                                quiet);

    if (!convert_into(from, to, progress, error)) {
        return false;
    }
    progress_done(progress);
    return true;
}

/* Reading the source while it is converted */
typedef struct Second {
    const Source *source;
    struct stat before;
    uint64_t size;
    TreeBuild *tree;
    GThread *thread;
    uint8_t root[VERITY_HASH_BYTES];
    GError *error;
} Second;

static gpointer read_second(gpointer opaque)
{
    Second *second = opaque;
    g_autoptr(JsonObject) node = source_node(second->source);
    g_autoptr(Content) c = content_open(node, &second->error);

    if (c) {
        content_build(c, second->size, second->tree, -1, second->root, NULL,
                      &second->error);
    }
    return NULL;
}

/* The data of a VMDK may be in other files, whose times are not looked at */
static bool tells_changes(const Source *source)
{
    return !source->url && !source->device &&
           !g_str_equal(source->format, "vmdk");
}

static bool start_second(Second *second, const Manifest *m,
                         const Source *source, uint64_t size, GError **error)
{
    *second = (Second) { .source = source, .size = size };
    if (stat(source->name, &second->before) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s: %s",
                    source->name, g_strerror(errno));
        return false;
    }
    second->tree = content_tree_new(size, m->salt, NULL, error);
    if (!second->tree) {
        return false;
    }
    second->thread = g_thread_new("source", read_second, second);
    return true;
}

static bool join_second(Second *second, GError **error)
{
    g_thread_join(second->thread);
    tree_build_free(second->tree);
    if (second->error) {
        g_propagate_error(error, second->error);
        return false;
    }
    return true;
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool check_unchanged(const Second *second, GError **error)
{
    const struct stat *a = &second->before;
    struct stat b;

    if (stat(second->source->name, &b) == 0 && a->st_dev == b.st_dev &&
        a->st_ino == b.st_ino && a->st_size == b.st_size &&
        is_same_time(&a->st_mtim, &b.st_mtim) &&
        is_same_time(&a->st_ctim, &b.st_ctim)) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                "%s was changed while it was read, so nothing was imported; "
                "stop who writes to it", second->source->name);
    return false;
}

/* The version's tree, read back */
static bool read_back(const Store *s, const Manifest *m, Version *v,
                      int tree_fd, bool quiet, GError **error)
{
    g_autoptr(JsonObject) node = store_chain(s, m, v, STORE_CHAIN_DIRECT);
    g_autoptr(Content) c = content_open(node, error);
    g_autoptr(Progress) progress = progress_new("reading it back", v->size,
                                                true, quiet);

    if (!c || !content_tree(c, v->size, m->salt, m->uuid, tree_fd, v->root,
                            progress, error)) {
        return false;
    }
    progress_done(progress);
    return true;
}

static bool convert_while_reading(const Store *s, const Manifest *m, Version *v,
                                  const Source *source, uint64_t size,
                                  int tree_fd, bool quiet, GError **error)
{
    Second second;
    bool ok;

    if (!start_second(&second, m, source, size, error)) {
        return false;
    }
    ok = convert(s, m, v, source, quiet, error);
    if (!join_second(&second, ok ? error : NULL) || !ok ||
        !read_back(s, m, v, tree_fd, quiet, error)) {
        return false;
    }
    if (memcmp(second.root, v->root, VERITY_HASH_BYTES) != 0 &&
        !prove(s, m, v, source, tree_fd, quiet, error)) {
        return false;
    }
    return check_unchanged(&second, error);
}

static bool fill(Store *s, Manifest *m, Version *v, const Source *source,
                 uint64_t size, bool quiet, GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, v->tree);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool ok;

    if (fd < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "cannot make %s: %s", path, g_strerror(errno));
        return false;
    }
    if (tells_changes(source)) {
        ok = convert_while_reading(s, m, v, source, size, fd, quiet, error);
    } else {
        ok = convert(s, m, v, source, quiet, error) &&
             prove(s, m, v, source, fd, quiet, error);
    }
    close(fd);
    return ok;
}

static bool find_size(const Source *source, uint64_t *bytes, GError **error)
{
    g_autoptr(JsonObject) node = source_node(source);
    g_autoptr(Content) c = content_open(node, error);

    *bytes = c ? content_size(c) : 0;
    if (c && (*bytes == 0 || *bytes > MANIFEST_MAX_SIZE - VERITY_BLOCK)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s: a disk of %" PRIu64 " bytes cannot be a vDisk",
                    source->name, *bytes);
        return false;
    }
    return c != NULL;
}

static bool import(Store *s, Manifest *m, const Source *source,
                   const char *comment, bool quiet, GError **error)
{
    g_autoptr(Version) v = version_new(0);
    uint64_t bytes;

    if (!source_check(source, error) || !find_size(source, &bytes, error)) {
        return false;
    }
    v->access = ACCESS_TEST;
    v->size = ROUND_UP(bytes, VERITY_BLOCK);
    v->comment = g_strdup(comment);
    if (!store_draft(s, m, v, error)) {
        return false;
    }
    v->created = v->sealed = g_get_real_time() / G_USEC_PER_SEC;
    if (!fill(s, m, v, source, bytes, quiet, error) ||
        !store_publish(s, m, v, error)) {
        store_discard(s, m, v);
        return false;
    }
    v = NULL;
    return true;
}

Manifest *store_import(Store *s, const Source *source, const char *name,
                       const char *comment, bool quiet, GError **error)
{
    g_autoptr(GError) missing = NULL;
    g_autoptr(Manifest) m = store_manifest(s, name, &missing);

    if (m) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "there is a vDisk "
                    "'%s' already; a changed image is a new version of it "
                    "('deskcast version new')", name);
        return NULL;
    }
    if (!g_error_matches(missing, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&missing));
        return NULL;
    }
    m = manifest_new(name);
    return import(s, m, source, comment, quiet, error) ? g_steal_pointer(&m)
                                                       : NULL;
}

/*
 * Bring an image into the store as a new vDisk, and prove it identical
 *
 * What the source holds is written into the version's image; the source is read
 * a second time, by another process; and what was written is read back from the
 * medium, compared with that, and its tree made of it.
 *
 *   source --> copy --> image on the medium --> compare <-- source
 *                                                  |
 *                                                  `--> tree
 *
 * Of a file both go on at the same time, the comparison behind what is durable;
 * its times tell whether it was changed from before until after. Other sources
 * do not tell. They are converted by qemu-img, and compared after that: if each
 * block is the same both times, the target is what the source held at the
 * moment between. So are images that go to Ceph.
 *
 * Either way a copy that is wrong, a source that somebody writes to, and a
 * medium that does not keep what is written are found.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "import.h"
#include "cli/store/content.h"
#include "cli/store/convert.h"
#include "cli/store/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static bool compare(Content *target, const Version *v, Content *source,
                    TreeBuild *tree, int tree_fd, uint8_t *root,
                    const char *what, bool quiet, GError **error)
{
    g_autoptr(Progress) progress = progress_new(what, v->size, true, quiet);

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

static bool wait_for_copy(void *opaque, uint64_t end, GError **error)
{
    return copy_wait(opaque, end, error);
}

/* The version's tree, from the target, if it is the same as the source. @copy:
 * that still goes on, or NULL. */
static bool prove(const Store *s, const Manifest *m, Version *v,
                  const Source *source, int tree_fd, Copy *copy, bool quiet,
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
    if (b && copy) {
        content_wait_for(b, wait_for_copy, copy);
    }
    return b && compare(b, v, a, tree, tree_fd, v->root,
                        copy ? "importing" : "comparing with the source",
                        quiet, error);
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

/* What goes wrong with the copy is why the comparison did not end well */
static bool copy_and_prove(const Store *s, const Manifest *m, Version *v,
                           const Source *source, uint64_t bytes, int tree_fd,
                           bool quiet, GError **error)
{
    g_autoptr(JsonObject) from = source_node(source);
    g_autofree char *path = store_path(s, m->vdisk, v->image);
    g_autoptr(GError) unproven = NULL;
    Copy *copy = copy_start(from, path, bytes);
    bool proven = prove(s, m, v, source, tree_fd, copy, quiet, &unproven);

    if (!copy_end(copy, !proven, error)) {
        return false;
    }
    if (!proven) {
        g_propagate_error(error, g_steal_pointer(&unproven));
    }
    return proven;
}

static bool convert_and_prove(const Store *s, const Manifest *m, Version *v,
                              const Source *source, int tree_fd, bool quiet,
                              GError **error)
{
    return convert(s, m, v, source, quiet, error) &&
           prove(s, m, v, source, tree_fd, NULL, quiet, error);
}

/* The data of a VMDK may be in other files, whose times are not looked at */
static bool tells_changes(const Source *source)
{
    return !source->url && !source->device &&
           !g_str_equal(source->format, "vmdk");
}

static bool look_at(const Source *source, struct stat *st, GError **error)
{
    if (stat(source->name, st) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s: %s",
                    source->name, g_strerror(errno));
        return false;
    }
    return true;
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool check_unchanged(const Source *source, const struct stat *a,
                            GError **error)
{
    struct stat b;

    if (stat(source->name, &b) == 0 && a->st_dev == b.st_dev &&
        a->st_ino == b.st_ino && a->st_size == b.st_size &&
        is_same_time(&a->st_mtim, &b.st_mtim) &&
        is_same_time(&a->st_ctim, &b.st_ctim)) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                "%s was changed while it was read, so nothing was imported; "
                "stop who writes to it", source->name);
    return false;
}

static bool fill_unchanged(const Store *s, const Manifest *m, Version *v,
                           const Source *source, uint64_t bytes, int tree_fd,
                           bool quiet, GError **error)
{
    struct stat before;

    if (!look_at(source, &before, error)) {
        return false;
    }
    return (store_on_rbd(s)
            ? convert_and_prove(s, m, v, source, tree_fd, quiet, error)
            : copy_and_prove(s, m, v, source, bytes, tree_fd, quiet, error)) &&
           check_unchanged(source, &before, error);
}

static bool fill(Store *s, Manifest *m, Version *v, const Source *source,
                 uint64_t bytes, bool quiet, GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, v->tree);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool ok;

    if (fd < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "cannot make %s: %s", path, g_strerror(errno));
        return false;
    }
    ok = tells_changes(source)
        ? fill_unchanged(s, m, v, source, bytes, fd, quiet, error)
        : convert_and_prove(s, m, v, source, fd, quiet, error);
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

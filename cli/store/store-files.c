/*
 * Images that are files in the vDisk's folder
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/program.h"
#include "cli/store/content.h"
#include "cli/store/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define QCOW2_EXTERNAL_DATA     4   /* an incompatible feature */

static char *path_of(const Store *s, const Manifest *m, const Version *v)
{
    return store_path(s, m->vdisk, v->image);
}

static char *file_name(const Manifest *m, const Version *v,
                       const char **format)
{
    (void)m;
    *format = v->parent ? "qcow2" : "raw";
    return g_strdup_printf("%" PRIu64 ".%s", v->number, *format);
}

static bool file_check(const Version *v, GError **error)
{
    if (v->parent && strcmp(v->format, "qcow2")) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "version %" PRIu64 " has a parent, and is not qcow2",
                    v->number);
        return false;
    }
    return true;
}

static bool create_raw(const char *path, uint64_t bytes, GError **error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool ok;

    if (fd < 0) {
        return durable_errno(error, "make", path);
    }
    ok = ftruncate(fd, bytes) == 0 || durable_errno(error, "make", path);
    close(fd);
    return ok;
}

/*
 * The header names the parent for those who open the image by its name; it is
 * not opened here.
 */
static bool create_overlay(const char *path, const Version *parent,
                           uint64_t bytes, GError **error)
{
    g_autofree char *program = program_qemu_img();
    g_autofree char *size = g_strdup_printf("%" PRIu64, bytes);
    g_autofree char *name = g_strconcat("file:", path, NULL);
    const char *argv[] = {
        program, "create", "-q", "-u", "-f", "qcow2", "-b", parent->image,
        "-F", parent->format, name, size, NULL
    };

    return spawn_run(argv, NULL, error);
}

static bool set_writable(int fd, bool writable)
{
    struct stat st;
    mode_t mode;

    if (fstat(fd, &st) < 0) {
        return false;
    }
    mode = st.st_mode & 07777;
    mode = writable ? mode | 0200 : mode & ~0222;
    return mode == (st.st_mode & 07777) || fchmod(fd, mode) == 0;
}

static bool file_settle(const Store *s, const Manifest *m, const Version *v,
                        bool sealed, GError **error)
{
    int folder = store_vdisk_folder(s, m->vdisk, error);
    bool ok = false;
    int fd;

    if (folder < 0) {
        return false;
    }
    fd = openat(folder, v->image, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || !set_writable(fd, !sealed) || fsync(fd) < 0) {
        durable_errno(error, "make durable", v->image);
    } else {
        ok = durable_sync_folder(folder, v->image, error);
    }
    if (fd >= 0) {
        close(fd);
    }
    close(folder);
    return ok;
}

static bool file_create(const Store *s, const Manifest *m, const Version *v,
                        GError **error)
{
    g_autofree char *path = path_of(s, m, v);
    uint64_t bytes = version_image_bytes(v);
    bool made = v->parent
        ? create_overlay(path, manifest_version(m, v->parent), bytes, error)
        : create_raw(path, bytes, error);

    return made && file_settle(s, m, v, false, error);
}

static bool qcow2_refuse(const char *path, const char *why, GError **error)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s %s", path, why);
    return false;
}

/*
 * Where a qcow2 header of version 2 or 3 has what: docs/interop/qcow2. An image
 * whose data are elsewhere would be sealed without them, and QEMU would open
 * whatever file it names.
 */
static bool qcow2_size(int fd, const char *path, uint64_t *bytes,
                       GError **error)
{
    uint8_t h[80] = { 0 };
    uint64_t size, features;
    uint32_t version, crypt;

    if (pread(fd, h, sizeof(h), 0) != sizeof(h) || memcmp(h, "QFI\xfb", 4)) {
        return qcow2_refuse(path, "is no qcow2 image", error);
    }
    memcpy(&version, h + 4, sizeof(version));
    memcpy(&size, h + 24, sizeof(size));
    memcpy(&crypt, h + 32, sizeof(crypt));
    memcpy(&features, h + 72, sizeof(features));
    *bytes = GUINT64_FROM_BE(size);
    version = GUINT32_FROM_BE(version);
    if (version != 2 && version != 3) {
        return qcow2_refuse(path, "is qcow2 of an unknown version", error);
    }
    if (crypt) {
        return qcow2_refuse(path, "is encrypted", error);
    }
    return version == 2 || !(GUINT64_FROM_BE(features) & QCOW2_EXTERNAL_DATA) ||
           qcow2_refuse(path, "has its data in another file", error);
}

bool store_file_size(const char *path, const char *format, uint64_t *bytes,
                     GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    bool ok = true;

    if (fd < 0) {
        return durable_errno(error, "open", path);
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s is no regular file", path);
        ok = false;
    } else if (!strcmp(format, "qcow2")) {
        ok = qcow2_size(fd, path, bytes, error);
    } else {
        *bytes = st.st_size;
    }
    close(fd);
    return ok;
}

static bool file_size(const Store *s, const Manifest *m, const Version *v,
                      uint64_t *bytes, GError **error)
{
    g_autofree char *path = path_of(s, m, v);

    return store_file_size(path, v->format, bytes, error);
}

/* The definition of @v over @backing, which it takes over */
static JsonObject *node_of(const Store *s, const Manifest *m, const Version *v,
                           unsigned flags, JsonObject *backing)
{
    g_autofree char *path = path_of(s, m, v);

    return content_format_node(v->format, content_file_node(
        path, flags & STORE_CHAIN_DIRECT), backing);
}

static JsonObject *file_chain(const Store *s, const Manifest *m,
                              const Version *v, unsigned flags)
{
    g_autoptr(GPtrArray) up = g_ptr_array_new();
    JsonObject *node = NULL;

    /* Parents have lower numbers: the walk ends */
    for (; v; v = v->parent ? manifest_version(m, v->parent) : NULL) {
        g_ptr_array_add(up, (gpointer)v);
    }
    for (guint i = up->len; i-- > 0;) {
        node = node_of(s, m, g_ptr_array_index(up, i), flags, node);
    }
    json_object_set_boolean_member(node, "read-only",
                                   !(flags & STORE_CHAIN_WRITABLE));
    return node;
}

static char *json_name(JsonObject *definition)
{
    g_autoptr(JsonObject) node = definition;
    g_autofree char *text = content_node_text(node);

    return g_strconcat("json:", text, NULL);
}

static bool file_cut(const Store *s, const Manifest *m, const Version *v,
                     uint64_t bytes, GError **error)
{
    g_autofree char *program = program_qemu_img();
    g_autofree char *size = g_strdup_printf("%" PRIu64, bytes);
    /* Alone: what is cut off is looked up in no parent */
    g_autofree char *name = json_name(node_of(s, m, v, 0, NULL));
    const char *argv[] = {
        program, "resize", "-q", "--shrink", name, size, NULL
    };

    return spawn_run(argv, NULL, error) && file_settle(s, m, v, false, error);
}

static bool file_hold(const Store *s, const Manifest *m, const Version *v,
                      int *hold, GError **error)
{
    g_autofree char *path = path_of(s, m, v);

    *hold = image_lock_writers_out(path, error);
    return *hold >= 0;
}

static bool file_remove(const Store *s, const char *vdisk, const char *image,
                        GError **error)
{
    int folder = store_vdisk_folder(s, vdisk, error);
    bool ok = folder >= 0 && durable_remove(folder, image, error);

    if (folder >= 0) {
        close(folder);
    }
    return ok;
}

/*
 * A rebase copies what the parents have and @v has not, except for zeros: the
 * result reads the same with the parents below it or without, which a crash
 * between the rename and the manifest counts on.
 */
static bool flatten_to(const Store *s, const Manifest *m, const Version *v,
                       const char *path, GError **error)
{
    g_autofree char *program = program_qemu_img();
    g_autofree char *from = path_of(s, m, v);
    g_autofree char *name = json_name(content_format_node(
        v->format, content_file_node(path, false),
        file_chain(s, m, manifest_version(m, v->parent), 0)));
    const char *copy[] = {
        "cp", "--reflink=auto", "--sparse=always", "--", from, path, NULL
    };
    const char *rebase[] = { program, "rebase", "-q", "-b", "", name, NULL };

    return spawn_run(copy, NULL, error) &&
           (chmod(path, 0644) == 0 || durable_errno(error, "make", path)) &&
           spawn_run(rebase, NULL, error);
}

static bool file_flatten(const Store *s, const Manifest *m, const Version *v,
                         GError **error)
{
    g_autofree char *new = g_strconcat(".new-", v->image, NULL);
    g_autofree char *path = store_path(s, m->vdisk, new);
    Version as_new = { .image = new };

    if (!flatten_to(s, m, v, path, error) ||
        !file_settle(s, m, &as_new, true, error)) {
        unlink(path);
        return false;
    }
    return true;
}

const ImageOps store_files = {
    .name = file_name,
    .check = file_check,
    .create = file_create,
    .size = file_size,
    .cut = file_cut,
    .hold = file_hold,
    .settle = file_settle,
    .remove = file_remove,
    .chain = file_chain,
    .flatten = file_flatten,
};

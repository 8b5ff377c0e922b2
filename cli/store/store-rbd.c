/*
 * Images that are RBD images on Ceph, sealed by a snapshot
 *
 * All by rbd(8), which waits ten seconds for a cluster that does not answer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/program.h"
#include "cli/store/content.h"
#include "cli/store/rbd-answer.h"
#include "block/vdisk/pure.h"

#include <string.h>

#define SNAPSHOT    "sealed"

/*
 * rbd WORDS…, ending in NULL. G_IO_ERROR_NOT_FOUND if the image, the snapshot
 * or the pool is not there.
 */
static bool rbd(const Store *s, char **out, GError **error, ...)
    G_GNUC_NULL_TERMINATED;

static bool rbd(const Store *s, char **out, GError **error, ...)
{
    g_autofree char *program = program_path("DESKCAST_RBD", "rbd");
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autoptr(GError) local = NULL;
    const char *word;
    va_list ap;

    g_ptr_array_add(argv, program);
    if (s->conf) {
        g_ptr_array_add(argv, (char *)"--conf");
        g_ptr_array_add(argv, s->conf);
    }
    if (s->user) {
        g_ptr_array_add(argv, (char *)"--id");
        g_ptr_array_add(argv, s->user);
    }
    g_ptr_array_add(argv, (char *)"--rados-mon-op-timeout=10");
    g_ptr_array_add(argv, (char *)"--client-mount-timeout=10");
    g_ptr_array_add(argv, (char *)"--rados-osd-op-timeout=60");
    va_start(ap, error);
    while ((word = va_arg(ap, const char *))) {
        g_ptr_array_add(argv, (char *)word);
    }
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    if (spawn_run((const char *const *)argv->pdata, out, &local)) {
        return true;
    }
    if (strstr(local->message, "(2) No such file or directory")) {
        local->code = G_IO_ERROR_NOT_FOUND;
    }
    g_propagate_prefixed_error(error, g_steal_pointer(&local), "Ceph: ");
    return false;
}

static char *spec(const Store *s, const char *image)
{
    return g_strdup_printf("%s/%s", s->pool, image);
}

static char *sealed_spec(const Store *s, const char *image)
{
    return g_strdup_printf("%s/%s@" SNAPSHOT, s->pool, image);
}

static char *rbd_name(const Manifest *m, const Version *v, const char **format)
{
    *format = "raw";
    return g_strdup_printf("%s.%" PRIu64, m->vdisk, v->number);
}

static bool rbd_check(const Version *v, GError **error)
{
    if (strcmp(v->format, "raw")) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "version %" PRIu64 " is not raw, on Ceph", v->number);
        return false;
    }
    return true;
}

static char *bytes_text(uint64_t bytes)
{
    return g_strdup_printf("%" PRIu64 "B", bytes);
}

static bool rbd_create(const Store *s, const Manifest *m, const Version *v,
                       GError **error)
{
    const Version *parent = v->parent ? manifest_version(m, v->parent) : NULL;
    g_autofree char *image = spec(s, v->image);
    g_autofree char *size = bytes_text(version_image_bytes(v));
    g_autofree char *from = parent ? sealed_spec(s, parent->image) : NULL;

    if (!parent) {
        return rbd(s, NULL, error, "create", "--size", size, image, NULL);
    }
    if (!rbd(s, NULL, error, "clone", "--rbd-default-clone-format=2", from,
             image, NULL)) {
        return false;
    }
    return version_image_bytes(v) == parent->size ||
           rbd(s, NULL, error, "resize", "--no-progress", "--size", size,
               image, NULL);
}

/* What it prints in JSON, to be freed */
static char *ask(const Store *s, GError **error, const char *verb,
                 const char *of)
{
    char *text = NULL;

    return rbd(s, &text, error, verb, "--format", "json", of, NULL) ? text
                                                                    : NULL;
}

/* A draft has no snapshot yet, though it is to be sealed */
static bool has_snapshot(const Manifest *m, const Version *v)
{
    return version_sealed(v) && manifest_version(m, v->number);
}

static bool rbd_size(const Store *s, const Manifest *m, const Version *v,
                     uint64_t *bytes, GError **error)
{
    g_autofree char *of = has_snapshot(m, v) ? sealed_spec(s, v->image)
                                             : spec(s, v->image);
    g_autofree char *info = ask(s, error, "info", of);

    return info && rbd_answer_size(info, bytes, error);
}

static bool rbd_cut(const Store *s, const Manifest *m, const Version *v,
                    uint64_t bytes, GError **error)
{
    g_autofree char *image = spec(s, v->image);
    g_autofree char *size = bytes_text(bytes);

    (void)m;
    return rbd(s, NULL, error, "resize", "--no-progress", "--allow-shrink",
               "--size", size, image, NULL);
}

/* Who has the image open watches it */
static bool check_watchers(const Store *s, const Version *v, GError **error)
{
    g_autofree char *image = spec(s, v->image);
    g_autofree char *status = ask(s, error, "status", image);
    unsigned watchers;

    if (!status || !rbd_answer_watchers(status, &watchers, error)) {
        return false;
    }
    if (watchers) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY, "the RBD image %s is "
                    "open; shut down who has it open, or wait half a minute "
                    "if it was killed", image);
        return false;
    }
    return true;
}

static bool drop_snapshot(const Store *s, const Version *v, GError **error)
{
    g_autofree char *of = sealed_spec(s, v->image);
    g_autoptr(GError) local = NULL;

    if (rbd(s, NULL, &local, "snap", "rm", "--no-progress", of, NULL) ||
        g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
        return true;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return false;
}

static bool make_snapshot(const Store *s, const Version *v, GError **error)
{
    g_autofree char *of = sealed_spec(s, v->image);

    return rbd(s, NULL, error, "snap", "create", "--no-progress", of, NULL);
}

/* What is read as sealed from here on is a snapshot, which nobody writes to */
static bool rbd_hold(const Store *s, const Manifest *m, const Version *v,
                     int *hold, GError **error)
{
    (void)m;
    *hold = -1;
    return check_watchers(s, v, error) && drop_snapshot(s, v, error) &&
           make_snapshot(s, v, error);
}

static bool rbd_settle(const Store *s, const Manifest *m, const Version *v,
                       bool sealed, GError **error)
{
    g_autofree char *of = sealed_spec(s, v->image);
    g_autoptr(GError) local = NULL;
    g_autofree char *there = NULL;

    (void)m;
    if (!sealed || (there = ask(s, &local, "info", of))) {
        return true;
    }
    if (!g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    return make_snapshot(s, v, error);
}

/* A snapshot that goes is gone for its readers, too */
static bool check_readers(const Store *s, const char *image, GError **error)
{
    const Version v = { .image = (char *)image };
    g_autofree char *of = sealed_spec(s, image);
    g_autofree char *sealed = ask(s, NULL, "info", of);

    return !sealed || check_watchers(s, &v, error);
}

static bool rbd_remove(const Store *s, const char *vdisk, const char *image,
                       GError **error)
{
    g_autofree char *of = spec(s, image);
    g_autoptr(GError) local = NULL;

    (void)vdisk;
    if (!check_readers(s, image, error)) {
        return false;
    }
    if ((rbd(s, NULL, &local, "snap", "purge", "--no-progress", of, NULL) &&
         rbd(s, NULL, &local, "rm", "--no-progress", of, NULL)) ||
        g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
        return true;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return false;
}

static JsonObject *rbd_chain(const Store *s, const Manifest *m,
                             const Version *v, unsigned flags)
{
    JsonObject *node = json_object_new();

    json_object_set_string_member(node, "driver", "rbd");
    json_object_set_string_member(node, "pool", s->pool);
    json_object_set_string_member(node, "image", v->image);
    if (has_snapshot(m, v) && !(flags & STORE_CHAIN_WRITABLE)) {
        json_object_set_string_member(node, "snapshot", SNAPSHOT);
    }
    if (s->conf) {
        json_object_set_string_member(node, "conf", s->conf);
    }
    if (s->user) {
        json_object_set_string_member(node, "user", s->user);
    }
    node = content_format_node("raw", node, NULL);
    json_object_set_boolean_member(node, "read-only",
                                   !(flags & STORE_CHAIN_WRITABLE));
    return node;
}

/* A copy of a snapshot has all of its data, and no parent */
static bool rbd_copy_whole(const Store *s, const Version *v, const char *name,
                           GError **error)
{
    const Version copy = { .image = (char *)name };
    g_autofree char *from = sealed_spec(s, v->image), *to = spec(s, name);

    return rbd(s, NULL, error, "cp", "--no-progress", from, to, NULL) &&
           make_snapshot(s, &copy, error);
}

const ImageOps store_rbd = {
    .name = rbd_name,
    .check = rbd_check,
    .create = rbd_create,
    .size = rbd_size,
    .cut = rbd_cut,
    .hold = rbd_hold,
    .settle = rbd_settle,
    .remove = rbd_remove,
    .chain = rbd_chain,
    .copy_whole = rbd_copy_whole,
};

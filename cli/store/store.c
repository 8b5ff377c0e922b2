/*
 * A store of vDisks: made, opened, closed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/json-strict.h"
#include "cli/store/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DESCRIPTION     "store.json"
#define DESCRIPTION_MAX 65536
#define TEXT_MAX        1024

const char *store_default_folder(void)
{
    const char *given = g_getenv("DESKCAST_STORE");

    return given && *given ? given : "/srv/deskcast";
}

const char *store_folder(const Store *s)
{
    return s->folder;
}

const char *store_uuid(const Store *s)
{
    return s->uuid;
}

bool store_on_rbd(const Store *s)
{
    return s->images == &store_rbd;
}

void store_close(Store *s)
{
    int *fds[] = { &s->lock, &s->vdisks, &s->fd };

    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        if (*fds[i] >= 0) {
            close(*fds[i]);
        }
    }
    g_free(s->folder);
    g_free(s->uuid);
    g_free(s->pool);
    g_free(s->conf);
    g_free(s->user);
    g_free(s);
}

/* What store.json says */

/* Part of an option of rbd(8) and of a URI: nothing that means more */
static bool ceph_name_valid(const char *what, const char *name, GError **error)
{
    for (const char *p = name; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("._-", *p)) {
            name = "";
            break;
        }
    }
    if (!*name || *name == '-' || strlen(name) > 128) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "the %s of Ceph may have letters, digits, '.', '_' and "
                    "'-', and 128 of them at most", what);
        return false;
    }
    return true;
}

static bool images_valid(const char *pool, const char *conf, const char *user,
                         GError **error)
{
    if (!ceph_name_valid("pool", pool, error) ||
        (user && !ceph_name_valid("user", user, error))) {
        return false;
    }
    if (conf && *conf != '/') {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "ceph.conf is wanted with its whole path, not '%s'", conf);
        return false;
    }
    return true;
}

static bool may_string(JsonObject *o, const char *name, char **to,
                       GError **error)
{
    const char *text;

    if (!json_strict_has(o, name)) {
        return true;
    }
    if (!json_strict_string(o, name, TEXT_MAX, &text, error)) {
        return false;
    }
    *to = g_strdup(text);
    return true;
}

static bool decode_images(Store *s, JsonObject *o, GError **error)
{
    static const char *const file_names[] = { "type", NULL };
    static const char *const rbd_names[] = { "type", "pool", "conf", "user",
                                             NULL };
    const char *type, *pool;

    if (!json_strict_string(o, "type", TEXT_MAX, &type, error)) {
        return false;
    }
    if (!strcmp(type, "file")) {
        s->images = &store_files;
        return json_strict_only(o, file_names, error);
    }
    if (strcmp(type, "rbd")) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                            "'type' of 'images' is neither file nor rbd");
        return false;
    }
    s->images = &store_rbd;
    if (!json_strict_only(o, rbd_names, error) ||
        !json_strict_string(o, "pool", TEXT_MAX, &pool, error) ||
        !may_string(o, "conf", &s->conf, error) ||
        !may_string(o, "user", &s->user, error)) {
        return false;
    }
    s->pool = g_strdup(pool);
    return images_valid(s->pool, s->conf, s->user, error);
}

static bool decode_store(Store *s, JsonObject *o, GError **error)
{
    static const char *const names[] = { "deskcast-store", "uuid", "images",
                                         NULL };
    JsonObject *images;
    const char *uuid;
    uint64_t format;

    if (!json_strict_number(o, "deskcast-store", JSON_STRICT_MAX_NUMBER,
                            &format, error)) {
        return false;
    }
    if (format != STORE_FORMAT) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED, "it is of "
                    "format %" PRIu64 ", and this deskcast knows format %d%s",
                    format, STORE_FORMAT, format > STORE_FORMAT
                    ? ": a newer one is needed" : "");
        return false;
    }
    if (!json_strict_only(o, names, error) ||
        !json_strict_string(o, "uuid", TEXT_MAX, &uuid, error) ||
        !json_strict_object(o, "images", &images, error)) {
        return false;
    }
    if (!g_uuid_string_is_valid(uuid)) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                            "'uuid' is not a UUID");
        return false;
    }
    s->uuid = g_strdup(uuid);
    return decode_images(s, images, error);
}

static bool read_description(Store *s, GError **error)
{
    g_autoptr(JsonObject) o = NULL;
    g_autofree char *text = NULL;
    gsize length;

    if (faccessat(s->fd, DESCRIPTION, F_OK, 0) < 0 && errno == ENOENT) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "%s is no store: it has no " DESCRIPTION "; 'deskcast store "
                    "create' makes one, --store names another", s->folder);
        return false;
    }
    text = durable_read(s->fd, DESCRIPTION, DESCRIPTION_MAX, &length, error);
    if (!text || !(o = json_strict_parse(text, length, error)) ||
        !decode_store(s, o, error)) {
        g_prefix_error(error, "%s/" DESCRIPTION ": ", s->folder);
        return false;
    }
    return true;
}

/* Opening */

static Store *new_store(const char *folder)
{
    Store *s = g_new0(Store, 1);

    s->folder = g_canonicalize_filename(folder, NULL);
    s->fd = s->vdisks = s->lock = -1;
    return s;
}

Store *store_open(const char *folder, StoreUse use, GError **error)
{
    g_autoptr(Store) s = new_store(folder);

    s->fd = durable_open_folder(AT_FDCWD, s->folder, error);
    if (s->fd < 0 || !read_description(s, error)) {
        return NULL;
    }
    if (use == STORE_CHANGE) {
        s->lock = store_lock(s->fd, s->folder, error);
        if (s->lock < 0) {
            return NULL;
        }
    }
    s->vdisks = durable_open_folder(s->fd, "vdisks", error);
    if (s->vdisks < 0) {
        g_prefix_error(error, "%s: ", s->folder);
        return NULL;
    }
    if (use == STORE_CHANGE) {
        store_tidy(s);
    }
    return g_steal_pointer(&s);
}

/* Making */

static char *describe(const StoreImages *images)
{
    g_autoptr(JsonObject) o = json_object_new();
    g_autofree char *uuid = g_uuid_string_random();
    JsonObject *i = json_object_new();

    json_object_set_string_member(i, "type", images->pool ? "rbd" : "file");
    if (images->pool) {
        json_object_set_string_member(i, "pool", images->pool);
    }
    if (images->pool && images->conf) {
        json_object_set_string_member(i, "conf", images->conf);
    }
    if (images->pool && images->user) {
        json_object_set_string_member(i, "user", images->user);
    }
    json_object_set_int_member(o, "deskcast-store", STORE_FORMAT);
    json_object_set_string_member(o, "uuid", uuid);
    json_object_set_object_member(o, "images", i);
    return json_strict_text(o);
}

/* What an interrupted try leaves; "lost+found" is that of a new file system */
static bool check_stranger(void *opaque, const char *name, GError **error)
{
    static const char *const ours[] = {
        /* One name of two parts: NOLINTNEXTLINE(bugprone-*-missing-comma) */
        "lock", "vdisks", ".new-" DESCRIPTION, "lost+found", NULL
    };

    if (g_strv_contains(ours, name)) {
        return true;
    }
    if (!strcmp(name, DESCRIPTION)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                    "%s is a store already", (const char *)opaque);
    } else {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_EMPTY, "%s is not empty: "
                    "it has '%s'; a store wants a folder of its own",
                    (const char *)opaque, name);
    }
    return false;
}

static bool make_in(Store *s, const StoreImages *images, GError **error)
{
    g_autofree char *text = describe(images);

    if (mkdirat(s->fd, "vdisks", 0755) < 0 && errno != EEXIST) {
        return durable_errno(error, "make a folder in", s->folder);
    }
    /* Last, and it makes the folders durable as well: now it is a store */
    return durable_replace(s->fd, DESCRIPTION, text, error);
}

/* The folder's own entry has to be durable in the one above */
static bool sync_parent(const char *folder, GError **error)
{
    g_autofree char *parent = g_path_get_dirname(folder);
    int fd = durable_open_folder(AT_FDCWD, parent, error);
    bool ok = fd >= 0 && durable_sync_folder(fd, folder, error);

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

bool store_create(const char *folder, const StoreImages *images,
                  GError **error)
{
    g_autoptr(Store) s = new_store(folder);

    if (images->pool && !images_valid(images->pool, images->conf, images->user,
                                      error)) {
        return false;
    }
    umask(022);
    if (mkdir(s->folder, 0755) < 0 && errno != EEXIST) {
        return durable_errno(error, "make the folder", s->folder);
    }
    s->fd = durable_open_folder(AT_FDCWD, s->folder, error);
    if (s->fd < 0 ||
        !durable_list(s->fd, check_stranger, s->folder, error)) {
        return false;
    }
    s->lock = store_lock(s->fd, s->folder, error);
    /* Again: somebody may have made one before we had the lock */
    return s->lock >= 0 &&
           durable_list(s->fd, check_stranger, s->folder, error) &&
           sync_parent(s->folder, error) && make_in(s, images, error);
}

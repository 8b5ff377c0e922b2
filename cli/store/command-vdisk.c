/*
 * deskcast store create, vdisk list, vdisk show, vdisk rm
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/command-util.h"
#include "cli/store/describe.h"
#include "cli/store/version-int.h"
#include "cli/audit.h"
#include "cli/units.h"

#include <stdio.h>

static int usage(const GError *error)
{
    fprintf(stderr, "deskcast: %s\n'%s --help' tells how to use it.\n",
            error->message, g_get_prgname());
    return COMMAND_USAGE;
}

static int say_usage(const char *what)
{
    g_autoptr(GError) error = g_error_new_literal(
        G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, what);

    return usage(error);
}

/* store create */

static void created(const StoreOptions *o, const Store *s)
{
    audit("store create", NULL, 0, "%s", store_folder(s));
    if (o->json) {
        JsonObject *answer = json_object_new();

        json_object_set_string_member(answer, "store", store_folder(s));
        json_object_set_string_member(answer, "uuid", store_uuid(s));
        json_object_set_string_member(answer, "images",
                                      store_on_rbd(s) ? "rbd" : "file");
        command_answer(answer);
        return;
    }
    printf("%s is a store now; 'deskcast vdisk import' brings in an image\n",
           store_folder(s));
}

int command_store_create(int argc, char **argv)
{
    g_auto(StoreOptions) o = {};
    g_autofree char *pool = NULL, *conf = NULL, *user = NULL;
    const GOptionEntry entries[] = {
        { "rbd-pool", 0, 0, G_OPTION_ARG_STRING, &pool,
          "Keep images in this pool of Ceph, not in files", "POOL" },
        { "rbd-conf", 0, 0, G_OPTION_ARG_FILENAME, &conf,
          "Whole path of its ceph.conf (default: Ceph's own)", "FILE" },
        { "rbd-user", 0, 0, G_OPTION_ARG_STRING, &user,
          "User of Ceph, without 'client.'", "USER" },
        JSON_OPTION(o),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) s = NULL;
    StoreImages images;

    if (!command_parse("DIR - make a store of vDisks", entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2) {
        return say_usage("give the one folder that is to be a store");
    }
    if (!pool && (conf || user)) {
        return say_usage("--rbd-conf and --rbd-user want an --rbd-pool");
    }
    images = (StoreImages) { pool, conf, user };
    if (!store_create(argv[1], &images, &error) ||
        !(s = store_open(argv[1], STORE_READ, &error))) {
        return command_error(&o, error);
    }
    created(&o, s);
    return COMMAND_DONE;
}

/* vdisk list */

/* A line, or an element of @list if that is not NULL. False if it is damaged. */
static bool list_one(const Store *s, const char *vdisk, JsonArray *list)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Manifest) m = store_manifest(s, vdisk, &error);
    g_autoptr(JsonObject) d = NULL;
    g_autofree char *size = NULL, *disk = NULL;

    if (!m) {
        command_fail(false, error);
        if (list) {
            JsonObject *o = json_object_new();

            json_object_set_string_member(o, "vdisk", vdisk);
            json_object_set_string_member(o, "error", error->message);
            json_array_add_object_element(list, o);
        }
        return false;
    }
    if (!m->versions->len) {
        return true;
    }
    d = describe_vdisk(s, m, store_now(), false);
    if (list) {
        json_array_add_object_element(list, g_steal_pointer(&d));
        return true;
    }
    size = units_format_size(json_object_get_int_member(d, "size"));
    disk = units_format_size(json_object_get_int_member(d, "allocated"));
    printf("%-24s %10s %10s %8u %8" PRId64 "\n", vdisk, size,
           store_on_rbd(s) ? "-" : disk, m->versions->len,
           json_object_get_int_member(d, "current"));
    return true;
}

static int list_all(const Store *s, const StoreOptions *o, GError **error)
{
    g_auto(GStrv) names = store_vdisks(s, error);
    JsonArray *list = o->json ? json_array_new() : NULL;
    bool ok = names;

    if (names && !list) {
        printf("%-24s %10s %10s %8s %8s\n", "VDISK", "SIZE", "ON DISK",
               "VERSIONS", "CURRENT");
    }
    for (char **name = names; name && *name; name++) {
        ok = list_one(s, *name, list) && ok;
    }
    if (list) {
        JsonObject *answer = json_object_new();

        json_object_set_array_member(answer, "vdisks", list);
        command_answer(answer);
    }
    return ok ? COMMAND_DONE : COMMAND_FAILED;
}

int command_vdisk_list(int argc, char **argv)
{
    g_auto(StoreOptions) o = {};
    const GOptionEntry entries[] = { STORE_OPTION(o), JSON_OPTION(o), { NULL } };
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) s = NULL;
    int status;

    if (!command_parse("- list the vDisks of a store", entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 1) {
        return say_usage("there is nothing to name; 'deskcast vdisk show' "
                         "shows one vDisk");
    }
    s = store_from(&o, STORE_READ, &error);
    status = s ? list_all(s, &o, &error) : COMMAND_FAILED;
    return error ? command_error(&o, error) : status;
}

/* vdisk show */

static void show_text(const Store *s, const Manifest *m)
{
    printf("vDisk     %s\nuuid      %s\nmanifest  revision %" PRIu64 "\n\n",
           m->vdisk, m->uuid, m->revision);
    describe_print(s, m, store_now());
}

static void show_version(const Store *s, const Manifest *m, const Version *v)
{
    g_autofree char *access = describe_access(m, v, store_now());
    g_autofree char *root = version_root_text(v);
    g_autofree char *size = units_format_size(v->size);
    g_autofree char *image = store_path(s, m->vdisk, v->image);

    printf("version   %s@%" PRIu64 "\naccess    %s\nsize      %s (%" PRIu64
           " bytes)\nparent    %" PRIu64 "\nimage     %s (%s)\n", m->vdisk,
           v->number, access, size, v->size, v->parent,
           store_on_rbd(s) ? v->image : image, v->format);
    if (v->tree) {
        printf("root hash %s\n", root);
    }
    if (v->trace) {
        printf("trace     %s\n", v->trace);
    }
    if (v->comment) {
        printf("comment   %s\n", v->comment);
    }
}

static bool show(const Store *s, const StoreOptions *o, const char *vdisk,
                 uint64_t number, GError **error)
{
    g_autoptr(Manifest) m = store_manifest(s, vdisk, error);
    const Version *v = m && number ? version_find(m, number, error) : NULL;

    if (!m || (number && !v)) {
        return false;
    }
    if (o->json) {
        command_answer(v ? describe_version(m, v, store_now())
                        : describe_vdisk(s, m, store_now(), true));
    } else if (v) {
        show_version(s, m, v);
    } else {
        show_text(s, m);
    }
    return true;
}

int command_vdisk_show(int argc, char **argv)
{
    g_auto(StoreOptions) o = {};
    const GOptionEntry entries[] = { STORE_OPTION(o), JSON_OPTION(o), { NULL } };
    g_autoptr(GError) error = NULL;
    g_autofree char *vdisk = NULL;
    g_autoptr(Store) s = NULL;
    uint64_t number;

    if (!command_parse("NAME [VERSION] - show a vDisk's versions, or one of "
                       "them", entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (!version_arguments(argc, argv, &vdisk, &number, &error)) {
        return usage(error);
    }
    s = store_from(&o, STORE_READ, &error);
    return s && show(s, &o, vdisk, number, &error) ? COMMAND_DONE
                                                   : command_error(&o, error);
}

/* vdisk rm */

static bool can_remove(const Store *s, const Manifest *m, bool force,
                       GError **error)
{
    const Version *current = manifest_current(m, store_now());
    const Version *writing = manifest_maintenance(m);

    if (current && !force) {
        return version_refuse(error, m, current->number, "is in production: "
                              "desktops that take it at their next start would "
                              "not find it; --force deletes '%s' all the same",
                              m->vdisk);
    }
    for (guint i = 0; !force && i < m->versions->len; i++) {
        const Version *v = g_ptr_array_index(m->versions, i);

        if (version_sealed(v) && !version_unread(s, m, v, error)) {
            return false;
        }
    }
    return !writing || version_no_writer(s, m, writing, error);
}

static bool remove_vdisk(Store *s, const StoreOptions *o, const char *vdisk,
                         bool force, GError **error)
{
    g_autoptr(Manifest) m = store_manifest(s, vdisk, error);

    if (!m || !can_remove(s, m, force, error) ||
        !store_remove_vdisk(s, vdisk, error)) {
        return false;
    }
    audit("vdisk rm", vdisk, 0, "%s with %u versions", vdisk,
          m->versions->len);
    if (o->json) {
        JsonObject *answer = json_object_new();

        json_object_set_string_member(answer, "removed", vdisk);
        command_answer(answer);
    } else {
        printf("%s and its %u versions are deleted\n", vdisk,
               m->versions->len);
    }
    return true;
}

int command_vdisk_rm(int argc, char **argv)
{
    g_auto(StoreOptions) o = {};
    gboolean force = FALSE;
    const GOptionEntry entries[] = {
        STORE_OPTION(o),
        { "force", 0, 0, G_OPTION_ARG_NONE, &force,
          "Even if a version is in production, or read", NULL },
        JSON_OPTION(o),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    g_autofree char *vdisk = NULL;
    g_autoptr(Store) s = NULL;
    uint64_t number;

    if (!command_parse("NAME - delete a vDisk with all its versions", entries,
                       &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (!version_arguments(argc, argv, &vdisk, &number, &error)) {
        return usage(error);
    }
    if (number) {
        return say_usage("all versions would go; 'deskcast version rm' deletes "
                         "one");
    }
    s = store_from(&o, STORE_CHANGE, &error);
    return s && remove_vdisk(s, &o, vdisk, force, &error)
        ? COMMAND_DONE : command_error(&o, error);
}

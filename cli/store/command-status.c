/*
 * deskcast store status: what is in a store, who reads it, what is wrong
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/command-util.h"
#include "cli/store/describe.h"
#include "cli/store/origin.h"
#include "cli/store/store-int.h"
#include "cli/store/version-int.h"
#include "cli/store/version-status.h"
#include "cli/host/table.h"
#include "cli/units.h"

#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

typedef struct Status {
    StoreOptions o;
    char *server;               /* whose exports are looked at, or NULL */
    OriginTls tls;
    Store *s;
    char **exports;             /* of the server */
    int64_t now;
    Table *table;               /* for people, or */
    JsonArray *vdisks;          /* for programs */
    GPtrArray *waiting;         /* char *, for people */
    uint64_t allocated;
    unsigned troubles;
} Status;

static void status_clear(Status *st)
{
    store_options_clear(&st->o);
    g_free(st->server);
    origin_tls_clear(&st->tls);
    g_strfreev(st->exports);
    g_clear_pointer(&st->table, table_free);
    g_clear_pointer(&st->waiting, g_ptr_array_unref);
    g_clear_pointer(&st->s, store_close);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Status, status_clear)

static bool is_served(const Status *st, const Manifest *m, const Version *v)
{
    g_autofree char *name = g_strdup_printf("%s@%" PRIu64, m->vdisk,
                                            v->number);

    return g_strv_contains((const char *const *)st->exports, name);
}

static JsonObject *to_json(const Status *st, const Manifest *m,
                           const Version *v, const VersionStatus *status)
{
    JsonObject *o = describe_version(m, v, st->now);

    json_object_set_int_member(o, "allocated", status->image_bytes);
    json_object_set_int_member(o, "tree-allocated", status->tree_bytes);
    json_object_set_string_member(o, "tree-state",
                                  version_status_tree(status));
    json_object_set_int_member(o, "children", status->children);
    json_object_set_boolean_member(o, "waits", status->waits);
    if (!store_on_rbd(st->s)) {
        json_object_set_int_member(o, "readers", status->readers);
        json_object_set_boolean_member(o, "written", status->written);
    }
    if (st->exports) {
        json_object_set_boolean_member(o, "served", is_served(st, m, v));
    }
    if (status->trouble) {
        json_object_set_string_member(o, "trouble", status->trouble);
    }
    return o;
}

static char *readers_text(const Status *st, const VersionStatus *status)
{
    if (store_on_rbd(st->s)) {
        return g_strdup("-");
    }
    return g_strdup_printf("%u%s", status->readers,
                           status->written ? ", written" : "");
}

static void to_table(Status *st, const Manifest *m, const Version *v,
                     const VersionStatus *status)
{
    uint64_t bytes = status->image_bytes + status->tree_bytes;

    table_add(st->table, g_strdup_printf("%s@%" PRIu64, m->vdisk, v->number),
              describe_access(m, v, st->now), units_format_size(v->size),
              units_format_size(bytes),
              g_strdup(version_status_tree(status)), readers_text(st, status),
              g_strdup(!st->exports ? "?" : is_served(st, m, v) ? "yes" : "no"),
              g_strdup(status->trouble ? status->trouble :
                       v->comment ? v->comment : ""));
    if (status->waits) {
        g_autofree char *when = units_format_local(v->released);

        g_ptr_array_add(st->waiting, g_strdup_printf(
            "%s@%" PRIu64 " waits for its release date, %s", m->vdisk,
            v->number, when));
    }
}

static void add_version(Status *st, const Manifest *m, const Version *v,
                        JsonArray *list)
{
    VersionStatus status;

    version_status_find(&status, st->s, m, v, st->now);
    st->allocated += status.image_bytes + status.tree_bytes;
    st->troubles += status.trouble != NULL;
    if (list) {
        json_array_add_object_element(list, to_json(st, m, v, &status));
    } else {
        to_table(st, m, v, &status);
    }
    version_status_clear(&status);
}

static void add_damaged(Status *st, const char *vdisk, const GError *error)
{
    st->troubles++;
    if (st->vdisks) {
        JsonObject *o = json_object_new();

        json_object_set_string_member(o, "vdisk", vdisk);
        json_object_set_string_member(o, "error", error->message);
        json_array_add_object_element(st->vdisks, o);
    } else {
        table_add(st->table, g_strdup(vdisk), g_strdup("-"), g_strdup("-"),
                  g_strdup("-"), g_strdup("-"), g_strdup("-"), g_strdup("-"),
                  g_strdup(error->message));
    }
}

static void add_vdisk(Status *st, const char *vdisk)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Manifest) m = store_manifest(st->s, vdisk, &error);
    JsonArray *list = st->vdisks ? json_array_new() : NULL;

    for (guint i = 0; m && i < m->versions->len; i++) {
        add_version(st, m, m->versions->pdata[i], list);
    }
    if (!m) {
        add_damaged(st, vdisk, error);
        g_clear_pointer(&list, json_array_unref);
    } else if (list) {
        JsonObject *o = describe_vdisk(st->s, m, st->now, false);

        json_object_set_array_member(o, "versions", list);
        json_array_add_object_element(st->vdisks, o);
    }
}

/* Of versions that are still on their way here; 0 if there are none */
static uint64_t staging_bytes(const Store *s)
{
    g_autofree char *path = g_build_filename(store_folder(s), "staging", NULL);
    g_autoptr(GFile) folder = g_file_new_for_path(path);
    guint64 bytes = 0;

    return g_file_measure_disk_usage(folder, G_FILE_MEASURE_NONE, NULL, NULL,
                                     NULL, &bytes, NULL, NULL, NULL)
        ? bytes : 0;
}

static uint64_t free_bytes(const Store *s)
{
    struct statvfs fs;

    return statvfs(store_folder(s), &fs) == 0
        ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
}

static void answer_json(Status *st)
{
    g_autofree char *holder = store_lock_holder(st->s);
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "store", store_folder(st->s));
    json_object_set_string_member(o, "uuid", store_uuid(st->s));
    json_object_set_string_member(o, "images",
                                  store_on_rbd(st->s) ? "rbd" : "file");
    json_object_set_int_member(o, "allocated", st->allocated);
    json_object_set_int_member(o, "staging", staging_bytes(st->s));
    json_object_set_int_member(o, "free", free_bytes(st->s));
    if (holder) {
        json_object_set_string_member(o, "changed-by", holder);
    }
    json_object_set_int_member(o, "troubles", st->troubles);
    json_object_set_array_member(o, "vdisks", g_steal_pointer(&st->vdisks));
    command_answer(o);
}

static void print_store(const Status *st)
{
    g_autofree char *used = units_format_size(st->allocated);
    g_autofree char *left = units_format_size(free_bytes(st->s));
    g_autofree char *coming = units_format_size(staging_bytes(st->s));
    g_autofree char *holder = store_lock_holder(st->s);

    printf("store     %s, images %s\non disk   %s, and %s free\n",
           store_folder(st->s), store_on_rbd(st->s) ? "on Ceph" : "in files",
           used, left);
    if (staging_bytes(st->s)) {
        printf("staging   %s of versions that are not whole yet\n", coming);
    }
    if (holder) {
        printf("locked    it is being changed by %s\n", holder);
    }
    printf("\n");
}

static void print_all(const Status *st)
{
    print_store(st);
    table_print(st->table);
    for (guint i = 0; i < st->waiting->len; i++) {
        printf("%s%s\n", i ? "" : "\n", (char *)st->waiting->pdata[i]);
    }
}

static bool look(Status *st, GError **error)
{
    static const char *const titles[] = {
        "VERSION", "ACCESS", "SIZE", "ON DISK", "TREE", "READERS", "SERVED",
        "", NULL
    };
    g_autoptr(Origin) server = NULL;
    g_auto(GStrv) names = NULL;

    st->s = store_from(&st->o, STORE_READ, error);
    names = st->s ? store_vdisks(st->s, error) : NULL;
    server = names && st->server ? origin_new(st->server, &st->tls, error)
                                 : NULL;
    st->exports = server ? origin_exports(server, error) : NULL;
    if (!names || (st->server && !st->exports)) {
        return false;
    }
    st->now = store_now();
    st->waiting = g_ptr_array_new_with_free_func(g_free);
    if (st->o.json) {
        st->vdisks = json_array_new();
    } else {
        st->table = table_new(titles);
    }
    for (char **name = names; *name; name++) {
        add_vdisk(st, *name);
    }
    return true;
}

int command_store_status(int argc, char **argv)
{
    g_auto(Status) st = {};
    const GOptionEntry entries[] = {
        STORE_OPTION(st.o),
        { "server", 0, 0, G_OPTION_ARG_STRING, &st.server,
          "Tell what its server exports: nbd[s]://HOST[:PORT] and the like",
          "URI" },
        ORIGIN_TLS_OPTIONS(st.tls),
        JSON_OPTION(st.o),
        { NULL }
    };
    g_autoptr(GError) error = NULL;

    if (!command_parse("- what is in a store, who reads it, what is wrong",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 1) {
        fprintf(stderr, "deskcast: there is nothing to name; --store tells "
                "which store\n");
        return COMMAND_USAGE;
    }
    if (!look(&st, &error)) {
        return command_error(&st.o, error);
    }
    if (st.o.json) {
        answer_json(&st);
    } else {
        print_all(&st);
    }
    return st.troubles ? COMMAND_FAILED : COMMAND_DONE;
}

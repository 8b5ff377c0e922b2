/*
 * deskcast store replicate
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/audit.h"
#include "cli/store/command-util.h"
#include "cli/store/content-commands.h"
#include "cli/store/replicate.h"
#include "cli/units.h"

#include <stdio.h>

typedef struct Options {
    char *from;
    StoreOptions to;
    char **vdisks;
    gboolean as_test;
    OriginTls tls;
} Options;

static void options_clear(Options *o)
{
    g_free(o->from);
    store_options_clear(&o->to);
    g_strfreev(o->vdisks);
    origin_tls_clear(&o->tls);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Options, options_clear)

static void add_result(JsonBuilder *b, const char *vdisk, const Replication *r,
                       const GError *error)
{
    json_builder_begin_object(b);
    json_builder_set_member_name(b, "vdisk");
    json_builder_add_string_value(b, vdisk);
    json_builder_set_member_name(b, "versions");
    json_builder_add_int_value(b, r->versions);
    json_builder_set_member_name(b, "changes");
    json_builder_add_int_value(b, r->changes);
    json_builder_set_member_name(b, "traces");
    json_builder_add_int_value(b, r->traces);
    json_builder_set_member_name(b, "bytes");
    json_builder_add_int_value(b, r->bytes);
    json_builder_set_member_name(b, "moved");
    json_builder_add_int_value(b, r->moved);
    json_builder_set_member_name(b, "kept");
    json_builder_add_int_value(b, r->kept);
    if (error) {
        json_builder_set_member_name(b, "error");
        json_builder_add_string_value(b, error->message);
    }
    json_builder_end_object(b);
}

static void print_result(const char *vdisk, const Replication *r)
{
    g_autofree char *moved = units_format_size(r->moved);
    g_autofree char *bytes = units_format_size(r->bytes);
    g_autofree char *kept = units_format_size(r->kept);

    if (r->versions == 0) {
        printf("%s: no new versions, %u changes of access\n", vdisk,
               r->changes);
        return;
    }
    printf("%s: %u versions of %s; %s moved%s%s%s\n", vdisk, r->versions,
           bytes, moved, r->kept ? ", and " : "", r->kept ? kept : "",
           r->kept ? " kept from an earlier try" : "");
}

static bool replicate(const Options *o, Origin *origin, const char *vdisk,
                      JsonBuilder *b)
{
    const char *folder = o->to.store ? o->to.store : store_default_folder();
    g_autoptr(GError) error = NULL;
    Replication r = {};
    bool ok = store_replicate(folder, origin, vdisk, o->as_test, b != NULL, &r,
                              &error);

    if (r.versions || r.changes || r.traces) {
        audit("store replicate", vdisk, r.newest,
              "%u versions, %u changes, from %s", r.versions,
              r.changes + r.traces, o->from);
    }
    if (b) {
        add_result(b, vdisk, &r, error);
    } else if (ok) {
        print_result(vdisk, &r);
    }
    if (!ok) {
        command_fail(false, error);
    }
    return ok;
}

static bool replicate_all(const Options *o, Origin *origin, char **vdisks)
{
    g_autoptr(JsonBuilder) b = o->to.json ? json_builder_new() : NULL;
    bool ok = true;

    if (b) {
        json_builder_begin_object(b);
        json_builder_set_member_name(b, "vdisks");
        json_builder_begin_array(b);
    }
    /* Given, or found in the store: NOLINTNEXTLINE(*.NullDereference) */
    for (char **name = vdisks; *name; name++) {
        ok = replicate(o, origin, *name, b) && ok;
    }
    if (b) {
        json_builder_end_array(b);
        json_builder_end_object(b);
        content_print_json(b);
    }
    return ok;
}

int command_store_replicate(int argc, char **argv)
{
    g_auto(Options) o = {};
    const GOptionEntry entries[] = {
        { "from", 0, 0, G_OPTION_ARG_FILENAME, &o.from,
          "A store's folder, or nbd[s]://HOST[:PORT] of its server", "STORE" },
        { "to", 0, 0, G_OPTION_ARG_FILENAME, &o.to.store,
          "The folder of the store that gets the versions", "DIR" },
        { "vdisk", 0, 0, G_OPTION_ARG_STRING_ARRAY, &o.vdisks,
          "This vDisk; can be given again (default: all)", "NAME" },
        { "as-test", 0, 0, G_OPTION_ARG_NONE, &o.as_test,
          "Versions come into test; promotions are not taken over", NULL },
        ORIGIN_TLS_OPTIONS(o.tls),
        JSON_OPTION(o.to),
        {}
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(Origin) origin = NULL;
    g_auto(GStrv) all = NULL;

    if (!command_parse("- bring versions from another store", entries, &argc,
                       &argv)) {
        return COMMAND_USAGE;
    }
    if (argc > 1 || !o.from) {
        return content_usage(o.from ? "too many arguments"
                                    : "--from is missing");
    }
    origin = origin_new(o.from, &o.tls, &error);
    all = origin && !o.vdisks ? origin_vdisks(origin, &error) : NULL;
    if (error) {
        return command_error(&o.to, error);
    }
    return replicate_all(&o, origin, all ? all : o.vdisks) ? COMMAND_DONE
                                                           : COMMAND_FAILED;
}

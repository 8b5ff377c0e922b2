/*
 * deskcast version new, seal, promote, revert, retire, rm, merge, trace
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/command-util.h"
#include "cli/store/describe.h"
#include "cli/store/trace-file.h"
#include "cli/store/version-int.h"
#include "cli/audit.h"
#include "cli/units.h"
#include "block/vdisk/header.h"

#include <stdio.h>
#include <unistd.h>

/* Seconds that a writer has to let go of a version that is being sealed */
#define SEAL_WAIT   15

/* What all of these commands share */
typedef struct Call {
    const char *action;         /* "version seal" */
    StoreOptions options;
    Store *store;
    char *vdisk;
    uint64_t number;            /* 0: not given */
    bool takes_file;            /* as its last argument */
    const char *file;
    Manifest *manifest;
} Call;

static void call_clear(Call *c)
{
    store_options_clear(&c->options);
    g_clear_pointer(&c->store, store_close);
    g_clear_pointer(&c->vdisk, g_free);
    g_clear_pointer(&c->manifest, manifest_free);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Call, call_clear)

typedef enum Number {
    NUMBER_NONE,
    NUMBER_MAY,
    NUMBER_MUST,
} Number;

static int usage(const char *what)
{
    fprintf(stderr, "deskcast: %s\n'%s --help' tells how to use it.\n", what,
            g_get_prgname());
    return COMMAND_USAGE;
}

/* Options and arguments; COMMAND_DONE if they are right */
static int call_parse(Call *c, const char *summary, Number number,
                      const GOptionEntry *entries, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;

    if (!command_parse(summary, entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (c->takes_file && argc < 3) {
        return usage("give a version, and the name of a file");
    }
    if (c->takes_file) {
        c->file = argv[--argc];
    }
    if (!version_arguments(argc, argv, &c->vdisk, &c->number, &error)) {
        return usage(error->message);
    }
    if (number == NUMBER_MUST && !c->number) {
        return usage("which version? give its number after the vDisk's name");
    }
    if (number == NUMBER_NONE && c->number) {
        return usage("a version's number is not wanted here");
    }
    return COMMAND_DONE;
}

static bool call_open(Call *c, GError **error)
{
    c->store = store_from(&c->options, STORE_CHANGE, error);
    if (!c->store) {
        return false;
    }
    c->manifest = store_manifest(c->store, c->vdisk, error);
    return c->manifest;
}

/* Tell of @v what became of it, here and in the journal */
static int call_done(const Call *c, const Version *v, const char *what)
{
    audit(c->action, c->vdisk, v->number, "%s@%" PRIu64 " %s", c->vdisk,
          v->number, what);
    if (c->options.json) {
        command_answer(describe_version(c->manifest, v, store_now()));
    } else {
        printf("%s@%" PRIu64 " %s\n", c->vdisk, v->number, what);
    }
    return COMMAND_DONE;
}

/* new */

static bool parse_purpose(const char *purpose, bool *label)
{
    *label = g_strcmp0(purpose, "pvs") == 0;
    return !purpose || *label || !strcmp(purpose, "mcs");
}

static bool begin(Call *c, const VersionPlan *plan, Version **v, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (!call_open(c, &local)) {
        /* A size says that a new vDisk is meant, and no slip of the pen */
        if (!c->store || !plan->size ||
            !g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return false;
        }
        c->manifest = manifest_new(c->vdisk);
    }
    *v = store_version_begin(c->store, c->manifest, plan, error);
    return *v;
}

static int tell_new(const Call *c, const Version *v)
{
    g_autofree char *path = store_path(c->store, c->vdisk, v->image);
    g_autofree char *what = v->parent
        ? g_strdup_printf("is in maintenance, over version %" PRIu64 ": %s",
                          v->parent, store_on_rbd(c->store) ? v->image : path)
        : g_strdup_printf("is in maintenance, empty: %s",
                          store_on_rbd(c->store) ? v->image : path);

    return call_done(c, v, what);
}

int command_version_new(int argc, char **argv)
{
    g_auto(Call) c = { .action = "version new" };
    g_autofree char *size = NULL, *purpose = NULL, *comment = NULL;
    gint64 from = 0;
    const GOptionEntry entries[] = {
        STORE_OPTION(c.options),
        { "size", 0, 0, G_OPTION_ARG_STRING, &size,
          "Size: of a vDisk that is new and empty, or larger than its parent",
          "SIZE" },
        { "for", 0, 0, G_OPTION_ARG_STRING, &purpose,
          "pvs: written in private image mode, with a label; mcs (default): "
          "written as a file", "mcs|pvs" },
        { "from", 0, 0, G_OPTION_ARG_INT64, &from,
          "Begin with this version (default: the newest sealed)", "N" },
        { "comment", 0, 0, G_OPTION_ARG_STRING, &comment,
          "What it is made for", "TEXT" },
        JSON_OPTION(c.options),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    VersionPlan plan = {};
    Version *v;

    if (call_parse(&c, "NAME - make a version to write to", NUMBER_NONE,
                   entries, argc, argv) != COMMAND_DONE) {
        return COMMAND_USAGE;
    }
    if (!parse_purpose(purpose, &plan.label)) {
        return usage("--for is mcs or pvs");
    }
    if (from < 0 || from > MANIFEST_MAX_NUMBER) {
        return usage("--from is not the number of a version");
    }
    if (size && (!units_parse_size(size, &plan.size, &error) || !plan.size)) {
        return usage(error ? error->message : "a vDisk of no bytes is none");
    }
    plan.from = from;
    plan.comment = comment;
    if (!begin(&c, &plan, &v, &error)) {
        return command_error(&c.options, error);
    }
    return tell_new(&c, v);
}

/* seal */

int command_version_seal(int argc, char **argv)
{
    g_auto(Call) c = { .action = "version seal" };
    gint wait = SEAL_WAIT;
    const GOptionEntry entries[] = {
        STORE_OPTION(c.options),
        { "wait", 0, 0, G_OPTION_ARG_INT, &wait,
          "Time for a writer to let go of it (default: 15)", "SECONDS" },
        JSON_OPTION(c.options),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    uint64_t number;

    if (call_parse(&c, "NAME - seal the version in maintenance", NUMBER_MAY,
                   entries, argc, argv) != COMMAND_DONE) {
        return COMMAND_USAGE;
    }
    if (wait < 0 || wait > 3600) {
        return usage("--wait takes 0 to 3600 seconds");
    }
    if (!call_open(&c, &error)) {
        return command_error(&c.options, error);
    }
    number = manifest_maintenance(c.manifest)
        ? manifest_maintenance(c.manifest)->number : 0;
    if (c.number && c.number != number) {
        const Version *v = version_find(c.manifest, c.number, &error);

        if (v) {
            version_refuse(&error, c.manifest, c.number, "is sealed already");
        }
        return command_error(&c.options, error);
    }
    if (!store_version_seal(c.store, c.manifest, wait * 1000, c.options.json,
                            &error)) {
        return command_error(&c.options, error);
    }
    return call_done(&c, manifest_version(c.manifest, number),
                     "is sealed, and in test");
}

/* promote, revert, retire */

int command_version_promote(int argc, char **argv)
{
    g_auto(Call) c = { .action = "version promote" };
    g_autofree char *date = NULL, *what = NULL;
    const GOptionEntry entries[] = {
        STORE_OPTION(c.options),
        { "release", 0, 0, G_OPTION_ARG_STRING, &date,
          "When desktops take it: 2026-12-01T06:00 in local time (default: at "
          "once)", "DATE" },
        JSON_OPTION(c.options),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    int64_t release = 0;
    Version *v;

    if (call_parse(&c, "NAME [VERSION] - from test to production", NUMBER_MAY,
                   entries, argc, argv) != COMMAND_DONE) {
        return COMMAND_USAGE;
    }
    if (date && !units_parse_time(date, &release, &error)) {
        return usage(error->message);
    }
    if (!call_open(&c, &error) ||
        !(v = store_version_promote(c.store, c.manifest, c.number, release,
                                    &error))) {
        return command_error(&c.options, error);
    }
    if (release > store_now()) {
        g_autofree char *when = units_format_local(release);

        what = g_strdup_printf("is in production from %s on", when);
    }
    return call_done(&c, v, what ? what : "is in production");
}

int command_version_revert(int argc, char **argv)
{
    g_auto(Call) c = { .action = "version revert" };
    gboolean force = FALSE;
    const GOptionEntry entries[] = {
        STORE_OPTION(c.options),
        { "force", 0, 0, G_OPTION_ARG_NONE, &force,
          "Even if no other version is in production", NULL },
        JSON_OPTION(c.options),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    g_autofree char *what = NULL;
    const Version *current;
    Version *v;

    if (call_parse(&c, "NAME - take the newest version out of production",
                   NUMBER_NONE, entries, argc, argv) != COMMAND_DONE) {
        return COMMAND_USAGE;
    }
    if (!call_open(&c, &error) ||
        !(v = store_version_revert(c.store, c.manifest, force, &error))) {
        return command_error(&c.options, error);
    }
    current = manifest_current(c.manifest, store_now());
    what = current
        ? g_strdup_printf("is back in test; version %" PRIu64 " is current",
                          current->number)
        : g_strdup("is back in test; no version is current");
    return call_done(&c, v, what);
}

int command_version_retire(int argc, char **argv)
{
    g_auto(Call) c = { .action = "version retire" };
    const GOptionEntry entries[] = {
        STORE_OPTION(c.options), JSON_OPTION(c.options), { NULL }
    };
    g_autoptr(GError) error = NULL;
    Version *v;

    if (call_parse(&c, "NAME VERSION - serve a version no more", NUMBER_MUST,
                   entries, argc, argv) != COMMAND_DONE) {
        return COMMAND_USAGE;
    }
    if (!call_open(&c, &error) ||
        !(v = store_version_retire(c.store, c.manifest, c.number, &error))) {
        return command_error(&c.options, error);
    }
    return call_done(&c, v, "is retired");
}

/* rm and merge */

int command_version_rm(int argc, char **argv)
{
    g_auto(Call) c = { .action = "version rm" };
    const GOptionEntry entries[] = {
        STORE_OPTION(c.options), JSON_OPTION(c.options), { NULL }
    };
    g_autoptr(GError) error = NULL;

    if (call_parse(&c, "NAME VERSION - delete a version that is in maintenance "
                   "or retired", NUMBER_MUST, entries, argc, argv) !=
        COMMAND_DONE) {
        return COMMAND_USAGE;
    }
    if (!call_open(&c, &error) ||
        !store_version_remove(c.store, c.manifest, c.number, &error)) {
        return command_error(&c.options, error);
    }
    audit(c.action, c.vdisk, c.number, "%s@%" PRIu64, c.vdisk, c.number);
    if (c.options.json) {
        JsonObject *answer = json_object_new();

        json_object_set_string_member(answer, "vdisk", c.vdisk);
        json_object_set_int_member(answer, "removed", c.number);
        command_answer(answer);
    } else {
        printf("%s@%" PRIu64 " is deleted\n", c.vdisk, c.number);
    }
    return COMMAND_DONE;
}

int command_version_merge(int argc, char **argv)
{
    g_auto(Call) c = { .action = "version merge" };
    const GOptionEntry entries[] = {
        STORE_OPTION(c.options), JSON_OPTION(c.options), { NULL }
    };
    g_autoptr(GError) error = NULL;
    Version *v;

    if (call_parse(&c, "NAME VERSION - give a version an image without parents",
                   NUMBER_MUST, entries, argc, argv) != COMMAND_DONE) {
        return COMMAND_USAGE;
    }
    if (!call_open(&c, &error) ||
        !(v = store_version_merge(c.store, c.manifest, c.number,
                                  c.options.json, &error))) {
        return command_error(&c.options, error);
    }
    return call_done(&c, v, "has an image without parents");
}

/* trace */

static Version *set_trace(Call *c, GError **error)
{
    const Version *v = version_find(c->manifest, c->number, error);
    g_autoptr(GBytes) trace = NULL;

    if (!v) {
        return NULL;
    }
    if (!version_sealed(v)) {
        version_refuse(error, c->manifest, c->number, "is in maintenance: seal "
                       "it first");
        return NULL;
    }
    trace = trace_file_read(c->file, v->size, v->root, error);
    return trace ? store_version_set_trace(c->store, c->manifest, c->number,
                                           trace, error) : NULL;
}

int command_version_trace(int argc, char **argv)
{
    g_auto(Call) c = { .action = "version trace", .takes_file = true };
    const GOptionEntry entries[] = {
        STORE_OPTION(c.options), JSON_OPTION(c.options), { NULL }
    };
    g_autoptr(GError) error = NULL;
    Version *v;

    if (call_parse(&c, "NAME VERSION FILE - give a version the boot trace that "
                   "a relay recorded", NUMBER_MUST, entries, argc, argv) !=
        COMMAND_DONE) {
        return COMMAND_USAGE;
    }
    if (!call_open(&c, &error) || !(v = set_trace(&c, &error))) {
        return command_error(&c.options, error);
    }
    return call_done(&c, v, "has a boot trace");
}

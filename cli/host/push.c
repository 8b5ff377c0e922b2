/*
 * deskcast push, rollback and follow
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "domain-job.h"
#include "host-commands.h"
#include "plan.h"
#include "push-audit.h"
#include "push-report.h"
#include "push-run.h"
#include "target.h"

#include "cli/commands.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef enum PushKind {
    KIND_PUSH,
    KIND_ROLLBACK,
    KIND_FOLLOW,
} PushKind;

typedef struct PushOptions {
    HostOptions hosts;
    char *when;
    char **pilots;
    int batch, stop_after, come_up;
    gboolean json;
    /* from them */
    PushKind kind;
    bool now;
    uint64_t version;           /* 0: the current one */
    JsonArray *list;            /* answers of all catalogs; NULL: one answer */
} PushOptions;

#define COME_UP_S   300

static void push_options_clear(PushOptions *o)
{
    host_options_clear(&o->hosts);
    g_free(o->when);
    g_strfreev(o->pilots);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PushOptions, push_options_clear)

static bool check_options(PushOptions *o)
{
    if (o->when && strcmp(o->when, "now") && strcmp(o->when, "reset")) {
        fprintf(stderr, "deskcast: --when is 'reset' or 'now'\n");
        return false;
    }
    o->now = !g_strcmp0(o->when, "now");
    if (o->batch < 0 || o->stop_after < 0 || o->come_up < 1) {
        fprintf(stderr, "deskcast: --batch and --stop-after-failures are "
                "numbers from 0 on, --come-up from 1\n");
        return false;
    }
    return true;
}

static bool parse_options(PushOptions *o, const char *summary, int *argc,
                          char ***argv)
{
    GOptionEntry entries[] = {
        { "when", 'w', 0, G_OPTION_ARG_STRING, &o->when,
          "Take it at the next reset (default), or reset desktops now",
          "reset|now" },
        { "batch", 'b', 0, G_OPTION_ARG_INT, &o->batch,
          "Desktops at once; those of one are up before the next begins "
          "(default: all)", "N" },
        { "pilot", 'p', 0, G_OPTION_ARG_STRING_ARRAY, &o->pilots,
          "Only this desktop, may be given often; it may get a version in "
          "test", "NAME" },
        { "stop-after-failures", 0, 0, G_OPTION_ARG_INT, &o->stop_after,
          "Go back after so many (default: 1; 0: never)", "N" },
        { "come-up", 0, 0, G_OPTION_ARG_INT, &o->come_up,
          "Seconds a desktop may take to come up (default: 300)", "S" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &o->json, "Answer in JSON", NULL },
        HOST_OPTION_ENTRIES(&o->hosts),
        { NULL }
    };

    o->stop_after = 1;
    o->come_up = COME_UP_S;
    return command_parse(summary, entries, argc, argv) && check_options(o);
}

static bool is_selected(const PushOptions *o, const Found *f,
                        const char *catalog)
{
    return f->desktop && !strcmp(f->desktop->catalog, catalog) &&
           (!o->pilots ||
            g_strv_contains((const char *const *)o->pilots, f->name));
}

/* All pilots must be there: a name misspelt must not look like success */
static bool check_pilots(const PushOptions *o, const Survey *s,
                         const char *catalog, GError **error)
{
    for (char **p = o->pilots; p && *p; p++) {
        bool found = false;

        for (guint i = 0; i < s->found->len && !found; i++) {
            Found *f = g_ptr_array_index(s->found, i);

            found = !strcmp(f->name, *p) && is_selected(o, f, catalog);
        }
        if (!found) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                        "the catalog '%s' has no desktop '%s'%s", catalog, *p,
                        survey_silent(s) ? " on the hosts that answer" : "");
            return false;
        }
    }
    return true;
}

/* Desktops that cannot be pushed to: the push is refused as a whole */
static bool check_fits(const PushOptions *o, const Survey *s,
                       const CatalogMetadata *catalog, GError **error)
{
    g_autoptr(GError) first = NULL;
    const char *name = NULL;
    guint bad = 0;

    for (guint i = 0; i < s->found->len; i++) {
        Found *f = g_ptr_array_index(s->found, i);

        if (is_selected(o, f, catalog->catalog) &&
            !plan_fits(catalog, f->desktop, first ? NULL : &first)) {
            name = name ? name : f->name;
            bad++;
        }
    }
    if (bad) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "%u desktops of '%s' cannot be pushed to; '%s' %s. "
                    "Nothing was done", bad, catalog->catalog, name,
                    first->message);
    }
    return !bad;
}

/* For each host what its desktops are to want */
static WantedVersion *get_targets(const Survey *s,
                                  const CatalogMetadata *catalog,
                                  const Version *v, const bool *used,
                                  GError **error)
{
    WantedVersion *w = g_new0(WantedVersion, s->hosts->len + 1);

    for (guint i = 0; i < s->hosts->len; i++) {
        if (used[i] && !target_wanted(catalog, v, survey_host(s, i), &w[i],
                                      error)) {
            for (guint k = 0; k <= i; k++) {
                wanted_clear(&w[k]);
            }
            g_free(w);
            return NULL;
        }
    }
    return w;
}

/* One that wants it already, and is off, has nothing to be told */
static void add_desktop(Push *push, Found *f, const WantedVersion *w,
                        PushKind kind)
{
    g_autofree char *text = desktop_metadata_text(f->desktop);
    DesktopMetadata *after = desktop_metadata_parse(text, NULL);
    bool changed = kind == KIND_ROLLBACK ? plan_rollback(after)
                                         : plan_push(after, w);

    if (!changed && !f->running) {
        push->already++;
        desktop_metadata_free(after);
        return;
    }
    push_add(push, f, after);
}

static bool is_wanted_by(PushKind kind, const Found *f, uint64_t number)
{
    return kind != KIND_FOLLOW || plan_follows(f->desktop, number);
}

static void add_desktops(Push *push, const PushOptions *o,
                         const char *catalog, const WantedVersion *targets,
                         uint64_t number)
{
    for (guint i = 0; i < push->survey->found->len; i++) {
        Found *f = g_ptr_array_index(push->survey->found, i);

        if (is_selected(o, f, catalog) && is_wanted_by(o->kind, f, number)) {
            add_desktop(push, f, targets ? &targets[f->host] : NULL, o->kind);
        }
    }
}

static void use_hosts(const PushOptions *o, const Survey *s,
                      const char *catalog, bool *used)
{
    for (guint i = 0; i < s->found->len; i++) {
        Found *f = g_ptr_array_index(s->found, i);

        used[f->host] |= is_selected(o, f, catalog);
    }
}

/* The desktops, and what they are to want, by the store */
static bool plan_version(Push *push, const PushOptions *o,
                         const CatalogMetadata *catalog, GError **error)
{
    gint64 now = g_get_real_time() / G_USEC_PER_SEC;
    g_autofree bool *used = g_new0(bool, push->survey->hosts->len + 1);
    g_autoptr(Manifest) m = target_manifest(catalog->store, catalog->vdisk,
                                            error);
    const Version *v = m ? target_version(m, o->version, o->pilots, now,
                                          error) : NULL;
    WantedVersion *targets;

    use_hosts(o, push->survey, catalog->catalog, used);
    targets = v ? get_targets(push->survey, catalog, v, used, error) : NULL;
    if (!targets) {
        return false;
    }
    push->version = v->number;
    push->released = v->released;
    push->held = o->kind == KIND_FOLLOW &&
                 plan_held(catalog, v->number, v->released);
    if (!push->held) {
        add_desktops(push, o, catalog->catalog, targets, v->number);
    }
    for (guint i = 0; i < push->survey->hosts->len; i++) {
        wanted_clear(&targets[i]);
    }
    g_free(targets);
    return true;
}

static bool plan(Push *push, const PushOptions *o,
                 const CatalogMetadata *catalog, GError **error)
{
    if (!check_pilots(o, push->survey, catalog->catalog, error)) {
        return false;
    }
    if (o->kind != KIND_ROLLBACK) {
        return check_fits(o, push->survey, catalog, error) &&
               plan_version(push, o, catalog, error);
    }
    /* Each goes back by what its own metadata says, whatever it is */
    add_desktops(push, o, catalog->catalog, NULL, 0);
    return true;
}

static void set_options(Push *push, const PushOptions *o)
{
    push->now = o->now;
    push->quiet = o->json;
    push->options = (RolloutOptions) {
        .batch = o->batch,
        /* A rollback brings what was there: it goes on as far as it can */
        .stop_after = o->kind == KIND_ROLLBACK ? 0 : o->stop_after,
        .come_up = o->come_up * (gint64)G_USEC_PER_SEC,
        .look_every = G_USEC_PER_SEC,
    };
}

static const char *kind_text(PushKind kind)
{
    return kind == KIND_ROLLBACK ? "rollback"
         : kind == KIND_FOLLOW ? "follow" : "push";
}

static int fail(const PushOptions *o, const char *catalog, const GError *error)
{
    JsonObject *failed;

    if (o->list) {
        failed = json_object_new();
        json_object_set_string_member(failed, "catalog", catalog);
        json_object_set_string_member(failed, "error", error->message);
        json_array_add_object_element(o->list, failed);
    }
    return command_fail(o->json && !o->list, error);
}

static void change_back(CatalogMetadata *to, const CatalogMetadata *from)
{
    to->back = from->back;
    to->back_released = from->back_released;
}

/* So that follow does not bring what went back every few minutes. A push to
 * pilots says nothing of all. */
static int note_back(Push *push, const PushOptions *o, const Found *master)
{
    g_autoptr(GError) error = NULL;
    DomainJob *job;

    if (o->kind == KIND_ROLLBACK || o->pilots || push->held ||
        !plan_note_back(master->catalog, push->version, push->released,
                        rollout_went_back(push->rollout),
                        o->kind == KIND_FOLLOW)) {
        return COMMAND_DONE;
    }
    job = domain_job_of(master);
    job->metadata = catalog_metadata_text(master->catalog);
    job->change = change_back;
    if (domain_job_run(push->survey->fleet, master->host,
                       domain_job_set_metadata, job, &error)) {
        return COMMAND_DONE;
    }
    g_prefix_error(&error, "it cannot be noted whether the version went back, "
                   "and follow may bring it again: ");
    return command_fail(false, error);
}

static int report(Push *push, const PushOptions *o, const Found *master)
{
    const char *catalog = master->catalog->catalog;
    int noted = note_back(push, o, master), status;

    if (push->held && !o->json) {
        printf("%s: version %" G_GUINT64_FORMAT " went back and is left until "
               "it is pushed or released again\n", catalog, push->version);
        return noted;
    }
    if (o->kind == KIND_FOLLOW && !push->desktops->len && !o->json) {
        return noted;           /* a timer asks every few minutes */
    }
    status = push_report(push, kind_text(o->kind), catalog, o->json, o->list);
    return MAX(noted, status);
}

/* With the catalog locked */
static int carry_out(Survey *s, const PushOptions *o, const char *name)
{
    g_autoptr(GError) error = NULL;
    g_auto(Push) push = { 0 };
    const Found *master = survey_catalog(s, name, &error);
    const CatalogMetadata *catalog = master ? master->catalog : NULL;

    push_init(&push, s);
    set_options(&push, o);
    if (!master || !plan(&push, o, catalog, &error)) {
        return fail(o, name, error);
    }
    push_audit(&push, kind_text(o->kind), catalog);
    push_run(&push);
    push_audit_back(&push, kind_text(o->kind), catalog);
    return report(&push, o, master);
}

/* All that a rollback needs is in metadata: it goes back when the store is
 * gone, too */
static bool may_do_without(const PushOptions *o, const GError *why)
{
    if (o->kind != KIND_ROLLBACK ||
        g_error_matches(why, G_IO_ERROR, G_IO_ERROR_BUSY)) {
        return false;
    }
    fprintf(stderr, "deskcast: %s; going back all the same, see that nobody "
            "pushes meanwhile\n", why->message);
    return true;
}

/* Desktops are looked at once the lock is held: the last push may have ended
 * just now. */
static int push_locked(const PushOptions *o, const CatalogMetadata *catalog)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Survey) s = NULL;
    int lock = target_lock(catalog, &error);
    int status;

    if (lock < 0 && may_do_without(o, error)) {
        g_clear_error(&error);
    }
    s = error ? NULL : survey_hosts(&o->hosts, SURVEY_DISKS,
                                       catalog->catalog, &error);
    if (s) {
        survey_print_silent(s);
    }
    status = s ? carry_out(s, o, catalog->catalog)
               : fail(o, catalog->catalog, error);
    if (lock >= 0) {
        close(lock);
    }
    return status;
}

static bool parse_version(const char *text, uint64_t *number)
{
    return g_ascii_string_to_unsigned(text, 10, 1, G_MAXINT64, number, NULL);
}

static int push_catalog(const PushOptions *o, const char *catalog)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Survey) s = survey_hosts(&o->hosts, SURVEY_METADATA, catalog,
                                       &error);
    Found *master = s ? survey_catalog(s, catalog, &error) : NULL;

    if (!master) {
        if (s) {
            survey_print_silent(s);
        }
        return command_fail(o->json, error);
    }
    return push_locked(o, master->catalog);
}

int command_push(int argc, char **argv)
{
    g_auto(PushOptions) o = { .kind = KIND_PUSH };

    if (!parse_options(&o, "CATALOG [VERSION] - have its desktops take a "
                       "version", &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "deskcast: give a catalog, and a version or none\n");
        return COMMAND_USAGE;
    }
    if (argc == 3 && !parse_version(argv[2], &o.version)) {
        fprintf(stderr, "deskcast: '%s' is no number of a version\n", argv[2]);
        return COMMAND_USAGE;
    }
    return push_catalog(&o, argv[1]);
}

int command_rollback(int argc, char **argv)
{
    g_auto(PushOptions) o = { .kind = KIND_ROLLBACK };

    if (!parse_options(&o, "CATALOG - have its desktops take the version "
                       "before the last push", &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2) {
        fprintf(stderr, "deskcast: give one catalog\n");
        return COMMAND_USAGE;
    }
    return push_catalog(&o, argv[1]);
}

/* All catalogs that are known, or those named */
static int follow_all(PushOptions *o, Survey *s, char **names)
{
    int status = survey_silent(s) ? COMMAND_FAILED : COMMAND_DONE;

    for (guint i = 0; i < s->found->len; i++) {
        Found *f = g_ptr_array_index(s->found, i);

        if (f->catalog &&
            (!names[0] || g_strv_contains((const char *const *)names,
                                          f->catalog->catalog))) {
            int its = push_locked(o, f->catalog);

            status = MAX(status, its);      /* which names it twice */
        }
    }
    if (o->list) {
        JsonObject *all = json_object_new();

        json_object_set_array_member(all, "catalogs",
                                     g_steal_pointer(&o->list));
        command_answer(all);
    }
    return status;
}

int command_follow(int argc, char **argv)
{
    g_auto(PushOptions) o = { .kind = KIND_FOLLOW };
    g_autoptr(GError) error = NULL;
    g_autoptr(Survey) s = NULL;

    if (!parse_options(&o, "[CATALOG…] - push what has become current", &argc,
                       &argv)) {
        return COMMAND_USAGE;
    }
    if (o.pilots) {
        fprintf(stderr, "deskcast: follow is for all desktops; use push with "
                "--pilot\n");
        return COMMAND_USAGE;
    }
    s = survey_hosts(&o.hosts, SURVEY_METADATA, NULL, &error);
    if (!s) {
        return command_fail(o.json, error);
    }
    survey_print_silent(s);
    for (char **name = argv + 1; *name; name++) {
        if (!survey_catalog(s, *name, &error)) {
            return command_fail(o.json, error);
        }
    }
    o.list = o.json ? json_array_new() : NULL;
    return follow_all(&o, s, argv + 1);
}

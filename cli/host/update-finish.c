/*
 * deskcast update finish and abort
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-commands.h"
#include "update.h"

#include "cli/commands.h"
#include "cli/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SEAL_WAIT_S     30      /* for a server to let go of the image */
#define POLL_US         500000

typedef struct Finish {
    Update u;
    gboolean shutdown, promote, force;
    char *release;
    int wait;
    int64_t released;
} Finish;

static void finish_clear(Finish *f)
{
    update_clear(&f->u);
    g_free(f->release);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Finish, finish_clear)

static bool fail(GError **error, const char *what)
{
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, what);
    return false;
}

/*
 * What the guest wrote goes to the store: with the window, or without one.
 * While the store is away this waits, and the guest goes on.
 */
static bool ship(Finish *f, GError **error)
{
    g_autofree char *command = NULL, *answer = NULL;
    bool window;
    int64_t lag;

    if (!update_buffer(&f->u, &window, &lag, error)) {
        return false;
    }
    command = g_strdup_printf("{\"execute\":\"%s\",\"arguments\":"
                              "{\"node-name\":\"" UPDATE_NODE "\"}}",
                              window ? "vdisk-window-close" : "vdisk-drain");
    answer = update_qmp(&f->u, command, error);
    f->u.changed |= answer != NULL;
    return answer && update_wait_job(&f->u, "shipping to the store", error);
}

/* Somebody in the guest may have been faster */
static bool ask_to_shut_down(Finish *f, GError **error)
{
    bool asked = domain_job_run(f->u.survey->fleet, f->u.master->host,
                                domain_job_shutdown,
                                domain_job_of(f->u.master), error);
    bool runs;

    f->u.changed |= asked;
    if (!asked && update_runs(&f->u, &runs, NULL) && !runs) {
        g_clear_error(error);
        return true;
    }
    return asked;
}

static bool wait_until_off(Finish *f, GError **error)
{
    gint64 end = g_get_monotonic_time() + f->wait * (gint64)G_USEC_PER_SEC;
    bool runs = true;

    while (update_runs(&f->u, &runs, error) && runs) {
        if (g_get_monotonic_time() >= end) {
            return fail(error, "the master VM does not shut down: do it in the "
                        "guest, and give the command again");
        }
        g_usleep(POLL_US);
    }
    return !runs && !*error;
}

static bool switch_off(Finish *f, GError **error)
{
    bool runs;

    if (!update_runs(&f->u, &runs, error)) {
        return false;
    }
    if (!runs) {
        return true;
    }
    if (!f->shutdown) {
        return fail(error, "the master VM runs: shut it down in the guest, or "
                    "give --shutdown");
    }
    if (f->u.catalog->model == MODEL_PVS && !ship(f, error)) {
        return false;
    }
    return ask_to_shut_down(f, error) && wait_until_off(f, error);
}

/* Sealed already: an earlier finish came that far */
static bool seal(Finish *f, uint64_t number, GError **error)
{
    Update *u = &f->u;
    Version *v;

    if (!update_open(u, error)) {
        return false;
    }
    v = manifest_version(u->manifest, number);
    if (!v) {
        return fail(error, "the version that is written is not in the store "
                    "any more: 'deskcast update abort'");
    }
    if (v->access == ACCESS_MAINTENANCE) {
        if (!store_version_seal(u->store, u->manifest, SEAL_WAIT_S * 1000,
                                u->json, error)) {
            return false;
        }
        u->changed = true;
    }
    v = manifest_version(u->manifest, number);
    if (!f->promote || v->access != ACCESS_TEST) {
        return true;
    }
    if (!store_version_promote(u->store, u->manifest, number, f->released,
                               error)) {
        return false;
    }
    u->changed = true;
    return true;
}

static bool finish(Finish *f, uint64_t *number, GError **error)
{
    *number = f->u.catalog->update;
    if (!*number) {
        return fail(error, "no update of this catalog is going on");
    }
    return switch_off(f, error) && seal(f, *number, error) &&
           update_note(&f->u, 0, error);
}

static bool check_options(Finish *f, GError **error)
{
    if (f->release && !f->promote) {
        return fail(error, "--release goes with --promote");
    }
    if (f->wait < 1) {
        return fail(error, "--wait takes seconds, from 1 on");
    }
    return !f->release || units_parse_time(f->release, &f->released, error);
}

int command_update_finish(int argc, char **argv)
{
    g_auto(Finish) f = { .wait = 300 };
    GOptionEntry entries[] = {
        { "shutdown", 0, 0, G_OPTION_ARG_NONE, &f.shutdown,
          "Shut the master VM down; pvs: when all is shipped", NULL },
        { "wait", 0, 0, G_OPTION_ARG_INT, &f.wait,
          "Seconds that may take (default: 300)", "S" },
        { "promote", 0, 0, G_OPTION_ARG_NONE, &f.promote,
          "Into production, and not into test", NULL },
        { "release", 0, 0, G_OPTION_ARG_STRING, &f.release,
          "Production from then on: ISO 8601", "DATE" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &f.u.json, "Answer in JSON", NULL },
        HOST_OPTION_ENTRIES(&f.u.hosts),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    uint64_t number = 0;

    if (!command_parse("CATALOG - seal what its master VM wrote", entries,
                       &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2 || !check_options(&f, &error)) {
        fprintf(stderr, "deskcast: %s\n", error ? error->message
                                                : "give one catalog");
        return COMMAND_USAGE;
    }
    if (update_find(&f.u, argv[1], &error)) {
        finish(&f, &number, &error);
    }
    return update_end(&f.u, "update finish", number,
                      f.promote ? "is sealed, and in production"
                                : "is sealed, and in test", error);
}

static bool destroy_master(Finish *f, GError **error)
{
    DomainJob *job = domain_job_of(f->u.master);

    job->patience_ms = FLEET_LONG_MS;
    f->u.changed = domain_job_run(f->u.survey->fleet, f->u.master->host,
                                  domain_job_destroy, job, error);
    return f->u.changed;
}

static bool stop_master(Finish *f, GError **error)
{
    bool runs;

    if (!update_runs(&f->u, &runs, error)) {
        return false;
    }
    if (runs && !f->force) {
        return fail(error, "the master VM runs: shut it down, or give --force "
                    "to switch it off");
    }
    return !runs || destroy_master(f, error);
}

/* A server has the image open for as long as the manifest says that it has a
 * label */
static bool set_label(Update *u, Version *v, bool label, GError **error)
{
    bool before = v->label;

    v->label = label;
    if (!store_set_manifest(u->store, u->manifest, error)) {
        v->label = before;
        return false;
    }
    return true;
}

static bool remove_when_closed(Update *u, Version *v, GError **error)
{
    gint64 end = g_get_monotonic_time() + SEAL_WAIT_S * G_USEC_PER_SEC;
    bool had_label = v->label;

    if (had_label && !set_label(u, v, false, error)) {
        return false;
    }
    while (!store_version_remove(u->store, u->manifest, v->number, error)) {
        if (!had_label || g_get_monotonic_time() >= end) {
            if (had_label) {
                set_label(u, v, true, NULL);
            }
            return false;
        }
        g_clear_error(error);
        g_usleep(POLL_US);
    }
    return true;
}

static bool remove_version(Finish *f, uint64_t number, GError **error)
{
    Update *u = &f->u;
    Version *v;

    if (!update_open(u, error)) {
        return false;
    }
    v = manifest_version(u->manifest, number);
    if (v && v->access != ACCESS_MAINTENANCE) {
        return fail(error, "the version is sealed already: 'deskcast update "
                    "finish' ends the update");
    }
    if (v && !remove_when_closed(u, v, error)) {
        return false;
    }
    u->changed |= v != NULL;
    return true;
}

static bool abort_update(Finish *f, uint64_t *number, GError **error)
{
    *number = f->u.catalog->update;
    if (!*number) {
        return fail(error, "no update of this catalog is going on");
    }
    return stop_master(f, error) && remove_version(f, *number, error) &&
           update_note(&f->u, 0, error);
}

int command_update_abort(int argc, char **argv)
{
    g_auto(Finish) f = { .wait = 1 };
    GOptionEntry entries[] = {
        { "force", 0, 0, G_OPTION_ARG_NONE, &f.force,
          "Switch the master VM off if it runs", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &f.u.json, "Answer in JSON", NULL },
        HOST_OPTION_ENTRIES(&f.u.hosts),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    uint64_t number = 0;

    if (!command_parse("CATALOG - throw away what its master VM wrote",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2) {
        fprintf(stderr, "deskcast: give one catalog\n");
        return COMMAND_USAGE;
    }
    if (update_find(&f.u, argv[1], &error)) {
        abort_update(&f, &number, &error);
    }
    return update_end(&f.u, "update abort", number, "is gone", error);
}

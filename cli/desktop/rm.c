/*
 * deskcast desktop rm: desktops that are switched off, with their disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "desktop-commands.h"

#include "cli/audit.h"
#include "cli/commands.h"
#include "cli/host/survey.h"
#include "host-file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct RemoveJob {
    char uuid[VIR_UUID_STRING_BUFLEN];
    DesktopMetadata *d;
    bool local;
} RemoveJob;

static void remove_job_free(void *opaque)
{
    RemoveJob *job = opaque;

    desktop_metadata_free(job->d);
    g_free(job);
}

static bool remove_file(virConnectPtr conn, const RemoveJob *job,
                        const char *path, GError **error)
{
    if (!path) {
        return true;
    }
    if (!job->local) {
        return host_file_remove(conn, path, error);
    }
    if (unlink(path) < 0 && errno != ENOENT) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "cannot remove '%s': %s", path, g_strerror(errno));
        return false;
    }
    return true;
}

/* The domain first: a file that is left over harms nobody, a domain without
 * its disk would be made a new one. */
static bool remove_job_run(virConnectPtr conn, void *opaque, GError **error)
{
    RemoveJob *job = opaque;
    g_autoptr(virDomain) domain = fleet_domain(conn, job->uuid, error);

    if (!domain) {
        return false;
    }
    if (virDomainIsActive(domain) != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                    "it runs: shut it down first");
        return false;
    }
    if (virDomainUndefineFlags(domain, VIR_DOMAIN_UNDEFINE_MANAGED_SAVE |
                               VIR_DOMAIN_UNDEFINE_NVRAM |
                               VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA) < 0) {
        return fleet_set_error(error, "libvirt does not undefine it");
    }
    /* Started between the question and the answer, it goes on without a name */
    if (virDomainIsActive(domain) == 1) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                    "it was started just now, and runs on until it is shut "
                    "down; its disk is left in '%s'", job->d->disk);
        return false;
    }
    return remove_file(conn, job, job->d->disk, error) &&
           remove_file(conn, job, job->d->journal, error) &&
           remove_file(conn, job, job->d->identity, error);
}

/* What is to go is all that is known of what it wrote: unless it is pooled */
static const char *refusal(const Found *f, bool yes)
{
    if (!f) {
        return "there is no such desktop";
    }
    if (!f->desktop) {
        return f->trouble ?: "it is no desktop";
    }
    if (f->running) {
        return "it runs: shut it down first";
    }
    if (f->desktop->lifetime != LIFETIME_POOLED && !yes) {
        return "it keeps what was written to it, which would be lost: say "
               "--yes";
    }
    return NULL;
}

static Found *find(const Survey *s, const char *name)
{
    for (guint i = 0; i < s->found->len; i++) {
        Found *f = g_ptr_array_index(s->found, i);

        if (!strcmp(f->name, name) && !f->catalog) {
            return f;
        }
    }
    return NULL;
}

static unsigned post_all(Survey *s, char **names, bool yes,
                         DesktopReport *report)
{
    unsigned failed = 0;

    for (guint i = 0; names[i]; i++) {
        Found *f = find(s, names[i]);
        const char *why = refusal(f, yes);
        RemoveJob *job;

        if (why) {
            g_autoptr(GError) error = g_error_new_literal(
                G_IO_ERROR, G_IO_ERROR_FAILED, why);

            desktop_report(report, names[i],
                           f ? survey_host(s, f->host)->name : "any host",
                           error);
            failed++;
            continue;
        }
        job = g_new0(RemoveJob, 1);
        g_strlcpy(job->uuid, f->uuid, sizeof(job->uuid));
        job->d = g_steal_pointer(&f->desktop);
        job->local = host_is_local(survey_host(s, f->host));
        fleet_post(s->fleet, f->host, i, remove_job_run, job, remove_job_free,
                   FLEET_LONG_MS);
    }
    return failed;
}

static unsigned take_answers(Survey *s, char **names, DesktopReport *report)
{
    unsigned failed = 0;
    FleetAnswer a;

    while (fleet_next(s->fleet, &a, -1)) {
        RemoveJob *job = a.job;
        const char *host = survey_host(s, a.host)->name;

        desktop_report(report, names[a.tag], host, a.error);
        if (a.error) {
            failed++;
        } else {
            audit("desktop rm", job->d->vdisk, job->d->wanted.number,
                  "desktop %s of catalog %s on host %s", names[a.tag],
                  job->d->catalog, host);
        }
        g_clear_error(&a.error);
        g_clear_pointer(&a.job, remove_job_free);
    }
    return failed;
}

int command_desktop_rm(int argc, char **argv)
{
    g_auto(HostOptions) where = { 0 };
    gboolean json = FALSE, yes = FALSE;
    const GOptionEntry entries[] = {
        HOST_OPTION_ENTRIES(&where),
        { "yes", 'y', 0, G_OPTION_ARG_NONE, &yes,
          "Also desktops that keep what was written to them", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Answer in JSON", NULL },
        { NULL }
    };
    DesktopReport report = { .done = "removed" };
    g_autoptr(GError) error = NULL;
    g_autoptr(Survey) s = NULL;
    unsigned failed;

    if (!command_parse("NAME… - remove desktops that are switched off",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc < 2) {
        fprintf(stderr, "deskcast: give the names of desktops\n");
        return COMMAND_USAGE;
    }
    s = survey_hosts(&where, SURVEY_METADATA, NULL, &error);
    if (!s) {
        return command_fail(json, error);
    }
    report.json = json;
    failed = post_all(s, argv + 1, yes, &report);
    failed += take_answers(s, argv + 1, &report);
    desktop_report_end(&report);
    survey_print_silent(s);
    return failed ? COMMAND_FAILED : COMMAND_DONE;
}

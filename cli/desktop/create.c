/*
 * deskcast desktop create: desktops of a catalog
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "desktop-commands.h"

#include "cli/audit.h"
#include "cli/commands.h"
#include "cli/host/domain-job.h"
#include "cli/host/plan.h"
#include "cli/host/target.h"
#include "create-plan.h"
#include "limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* libvirt asks an emulator that it has not seen before what it can do: seconds */
#define DEFINE_TIMEOUT  60

/* What all desktops of one call have in common */
typedef struct Create {
    CreateOptions o;
    int lock;                   /* of the hosts' caps */
    Survey *survey;
    Found *master;
    const CatalogMetadata *catalog;
    guint host;                 /* they come there */
    char *master_xml;
    WantedVersion wanted;
    char *user_data, *network_config, *answer, *answer_name;
} Create;

static void create_clear(Create *c)
{
    host_options_clear(&c->o.where);
    g_free(c->o.host);
    g_free(c->o.emulator);
    g_free(c->o.disk);
    g_free(c->o.identity_bus);
    g_free(c->o.user_data);
    g_free(c->o.network_config);
    g_free(c->o.answer_file);
    g_clear_pointer(&c->survey, survey_free);
    g_free(c->master_xml);
    wanted_clear(&c->wanted);
    g_free(c->user_data);
    g_free(c->network_config);
    g_free(c->answer);
    g_free(c->answer_name);
    hosts_unlock(&c->lock);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Create, create_clear)

static bool names_valid(char **names, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (; *names; names++) {
        if (!desktop_name_valid(*names, error)) {
            return false;
        }
        if (!g_hash_table_add(seen, *names)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                        "'%s' is named twice", *names);
            return false;
        }
    }
    return true;
}

static bool read_text(const char *path, char **text, GError **error)
{
    struct stat st;
    gsize length;

    if (!path) {
        return true;
    }
    if (stat(path, &st) == 0 && st.st_size > IDENTITY_MAX_BYTES) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "'%s' has more than %d bytes", path, IDENTITY_MAX_BYTES);
        return false;
    }
    if (!g_file_get_contents(path, text, &length, error)) {
        return false;
    }
    if (strlen(*text) != length) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "'%s' is no text", path);
        return false;
    }
    return true;
}

static bool read_texts(Create *c, GError **error)
{
    if (c->o.answer_file) {
        c->answer_name = g_path_get_basename(c->o.answer_file);
        if (!identity_answer_name_valid(c->answer_name, error)) {
            return false;
        }
    }
    return read_text(c->o.user_data, &c->user_data, error) &&
           read_text(c->o.network_config, &c->network_config, error) &&
           read_text(c->o.answer_file, &c->answer, error);
}

static bool bus_valid(const char *bus, GError **error)
{
    if (bus && strcmp(bus, "sata") && strcmp(bus, "ide") &&
        strcmp(bus, "scsi")) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "'%s' is no bus for a CD: sata, ide or scsi", bus);
        return false;
    }
    return true;
}

static bool choose_host(Create *c, GError **error)
{
    c->host = c->master->host;
    for (guint i = 0; c->o.host && i < c->survey->hosts->len; i++) {
        if (!strcmp(survey_host(c->survey, i)->name, c->o.host)) {
            c->host = i;
        }
    }
    if (c->o.host && !hosts_find(c->survey->hosts, c->o.host, error)) {
        return false;
    }
    if (c->survey->silent[c->host]) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_CONNECTED,
                    "host '%s': %s", survey_host(c->survey, c->host)->name,
                    c->survey->silent[c->host]);
        return false;
    }
    return true;
}

/* A private desktop writes a version, which has no hash yet */
static bool find_maintenance(Create *c, const Manifest *m, GError **error)
{
    const Version *v = manifest_maintenance(m);

    if (!v || !v->label) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "'%s' has no version in maintenance that a private "
                    "desktop could write: 'deskcast version new %s --for pvs'",
                    m->vdisk, m->vdisk);
        return false;
    }
    c->wanted = (WantedVersion) { .number = v->number, .size = v->size };
    return true;
}

static bool find_version(Create *c, GError **error)
{
    g_autoptr(Manifest) m = target_manifest(c->catalog->store,
                                            c->catalog->vdisk, error);
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;
    const Version *v;

    if (m && c->catalog->lifetime == LIFETIME_PRIVATE) {
        return find_maintenance(c, m, error);
    }
    v = m ? target_version(m, c->o.version, c->o.version != 0,
                                          now, error) : NULL;

    return v && target_wanted(c->catalog, v, survey_host(c->survey, c->host),
                              &c->wanted, error);
}

static bool fetch_master(Create *c, GError **error)
{
    g_autoptr(DomainJob) job = domain_job_do(c->survey->fleet, c->master->host,
                                             domain_job_get_xml,
                                             domain_job_of(c->master), error);

    c->master_xml = job ? g_strdup(job->xml) : NULL;
    return job;
}

static char *file_of(const Create *c, const char *name, const char *suffix)
{
    g_autofree char *file = g_strconcat(name, suffix, NULL);

    return g_build_filename(c->catalog->folder, file, NULL);
}

static DesktopMetadata *metadata_of(const Create *c, const char *name)
{
    const CatalogMetadata *k = c->catalog;
    DesktopMetadata *d = g_new0(DesktopMetadata, 1);

    d->catalog = g_strdup(k->catalog);
    d->vdisk = g_strdup(k->vdisk);
    d->model = k->model;
    d->lifetime = k->lifetime;
    d->run = k->run;
    d->disk = file_of(c, name, k->model == MODEL_MCS ? ".mcs" : ".pvs");
    if (k->lifetime == LIFETIME_PRIVATE) {
        d->journal = file_of(c, name, ".journal");
    }
    d->node = g_strdup("disk0");
    d->monitor = desktop_monitor_path(name);
    d->identity = c->o.no_identity ? NULL : file_of(c, name, ".cidata");
    d->stores = g_strdupv(k->stores);
    d->host_cache = g_strdup(k->host_cache);
    d->write_cache = k->write_cache;
    d->ram = k->ram;
    d->bandwidth = k->bandwidth;
    wanted_set(&d->wanted, &c->wanted);
    return d;
}

static bool check_limits(Create *c, char **names, GError **error)
{
    g_autoptr(DesktopMetadata) like = metadata_of(c, *names);
    HostLoad load = { 0 };

    for (guint i = 0; i < c->survey->found->len; i++) {
        Found *f = g_ptr_array_index(c->survey->found, i);

        if (f->desktop && f->host == c->host) {
            limits_add(&load, f->desktop);
        }
    }
    return limits_allow(survey_host(c->survey, c->host), &load, like,
                        g_strv_length(names), error);
}

static CreateJob *job_of(const Create *c, const char *name)
{
    CreateJob *job = g_new0(CreateJob, 1);

    job->name = g_strdup(name);
    job->uuid = g_uuid_string_random();
    job->local = host_is_local(survey_host(c->survey, c->host));
    job->master = g_strdup(c->master_xml);
    job->emulator = g_strdup(c->o.emulator ?: g_getenv("DESKCAST_EMULATOR")
                             ?: DESKTOP_EMULATOR);
    job->disk = g_strdup(c->o.disk);
    job->identity_bus = g_strdup(c->o.identity_bus);
    job->nvram = file_of(c, name, ".nvram");
    job->metadata = metadata_of(c, name);
    job->host_keys = c->o.host_keys;
    job->identity.user_data = g_strdup(c->user_data);
    job->identity.network_config = g_strdup(c->network_config);
    job->identity.answer = g_strdup(c->answer);
    job->identity.answer_name = g_strdup(c->answer_name);
    return job;
}

static unsigned run_jobs(Create *c, char **names, DesktopReport *report)
{
    const char *host = survey_host(c->survey, c->host)->name;
    unsigned failed = 0;
    FleetAnswer a;

    for (guint i = 0; names[i]; i++) {
        fleet_post(c->survey->fleet, c->host, i, create_job_run,
                   job_of(c, names[i]), create_job_free, FLEET_LONG_MS);
    }
    while (fleet_next(c->survey->fleet, &a, -1)) {
        desktop_report(report, names[a.tag], host, a.error);
        if (a.error) {
            failed++;
        } else {
            audit("desktop create", c->catalog->vdisk, c->wanted.number,
                  "desktop %s of catalog %s on host %s", names[a.tag],
                  c->catalog->catalog, host);
        }
        g_clear_error(&a.error);
        g_clear_pointer(&a.job, create_job_free);
    }
    return failed;
}

/* What is promised of the host is counted under the lock, and until the
 * desktops are there */
static bool prepare(Create *c, const char *catalog, char **names,
                    GError **error)
{
    if (!names_valid(names, error) || !bus_valid(c->o.identity_bus, error) ||
        !read_texts(c, error) || !hosts_lock(&c->o.where, &c->lock, error)) {
        return false;
    }
    c->survey = survey_hosts(&c->o.where, SURVEY_METADATA, NULL, error);
    c->master = c->survey ? survey_catalog(c->survey, catalog, error) : NULL;
    if (!c->master) {
        return false;
    }
    c->catalog = c->master->catalog;
    return choose_host(c, error) && find_version(c, error) &&
           check_limits(c, names, error) && fetch_master(c, error);
}

#define ENTRIES(c) { \
    HOST_OPTION_ENTRIES(&(c)->o.where), \
    { "host", 0, 0, G_OPTION_ARG_STRING, &(c)->o.host, \
      "The host they come to (default: that of the master VM)", "NAME" }, \
    { "version", 0, 0, G_OPTION_ARG_INT64, &(c)->o.version, \
      "The version they begin on (default: the current one)", "N" }, \
    { "disk", 0, 0, G_OPTION_ARG_STRING, &(c)->o.disk, \
      "The master's system disk (default: its only one)", "TARGET" }, \
    { "emulator", 0, 0, G_OPTION_ARG_FILENAME, &(c)->o.emulator, \
      "QEMU with the drivers, on the host (default: " DESKTOP_EMULATOR ")", \
      "FILE" }, \
    { "user-data", 0, 0, G_OPTION_ARG_FILENAME, &(c)->o.user_data, \
      "For cloud-init or cloudbase-init", "FILE" }, \
    { "network-config", 0, 0, G_OPTION_ARG_FILENAME, \
      &(c)->o.network_config, "The same, for the network", "FILE" }, \
    { "answer-file", 0, 0, G_OPTION_ARG_FILENAME, &(c)->o.answer_file, \
      "Put beside it by its own name, as Unattend.xml", "FILE" }, \
    { "ssh-host-keys", 0, 0, G_OPTION_ARG_NONE, &(c)->o.host_keys, \
      "Make SSH host keys, which stay the same over resets", NULL }, \
    { "identity-bus", 0, 0, G_OPTION_ARG_STRING, &(c)->o.identity_bus, \
      "Bus of the identity disk: sata, ide or scsi", "BUS" }, \
    { "no-identity", 0, 0, G_OPTION_ARG_NONE, &(c)->o.no_identity, \
      "Without an identity disk", NULL }, \
    { "json", 0, 0, G_OPTION_ARG_NONE, &(c)->o.json, "Answer in JSON", \
      NULL }, \
    { NULL } }

int command_desktop_create(int argc, char **argv)
{
    g_auto(Create) c = { .lock = -1 };
    const GOptionEntry entries[] = ENTRIES(&c);
    g_autoptr(GError) error = NULL;
    DesktopReport report = { .done = "made" };
    unsigned failed;

    if (!command_parse("CATALOG NAME… - make desktops of a catalog", entries,
                       &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc < 3 || c.o.version < 0) {
        fprintf(stderr, "deskcast: give a catalog and names for desktops\n");
        return COMMAND_USAGE;
    }
    report.json = c.o.json;
    if (!c.o.where.timeout) {
        c.o.where.timeout = DEFINE_TIMEOUT;
    }
    if (!prepare(&c, argv[1], argv + 2, &error)) {
        return command_fail(c.o.json, error);
    }
    failed = run_jobs(&c, argv + 2, &report);
    desktop_report_end(&report);
    return failed ? COMMAND_FAILED : COMMAND_DONE;
}

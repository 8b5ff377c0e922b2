/*
 * An update: what its commands have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "update.h"

#include "cli/audit.h"
#include "cli/commands.h"
#include "cli/json-member.h"
#include "cli/json-read.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define POLL_US     200000

void update_close(Update *u)
{
    g_clear_pointer(&u->manifest, manifest_free);
    g_clear_pointer(&u->store, store_close);
}

void update_clear(Update *u)
{
    update_close(u);
    g_clear_pointer(&u->survey, survey_free);
    host_options_clear(&u->hosts);
}

bool update_find(Update *u, const char *catalog, GError **error)
{
    u->survey = survey_hosts(&u->hosts, SURVEY_METADATA, catalog, error);
    if (!u->survey) {
        return false;
    }
    survey_print_silent(u->survey);
    u->master = survey_catalog(u->survey, catalog, error);
    u->catalog = u->master ? u->master->catalog : NULL;
    return u->master;
}

bool update_open(Update *u, GError **error)
{
    u->store = store_open(u->catalog->store, STORE_CHANGE, error);
    u->manifest = u->store ? store_manifest(u->store, u->catalog->vdisk, error)
                           : NULL;
    return u->manifest;
}

static void change_update(CatalogMetadata *to, const CatalogMetadata *from)
{
    to->update = from->update;
}

bool update_note(Update *u, uint64_t version, GError **error)
{
    DomainJob *job = domain_job_of(u->master);

    u->catalog->update = version;
    job->metadata = catalog_metadata_text(u->catalog);
    job->change = change_update;
    return domain_job_run(u->survey->fleet, u->master->host,
                          domain_job_set_metadata, job, error);
}

bool update_runs(Update *u, bool *runs, GError **error)
{
    g_autoptr(DomainJob) job = domain_job_do(u->survey->fleet, u->master->host,
                                             domain_job_state,
                                             domain_job_of(u->master),
                                             error);

    *runs = job && job->running;
    return job;
}

char *update_qmp(Update *u, const char *command, GError **error)
{
    DomainJob *job = domain_job_of(u->master);
    g_autoptr(DomainJob) done = NULL;

    job->command = g_strdup(command);
    done = domain_job_do(u->survey->fleet, u->master->host, domain_job_qmp,
                         job, error);
    return done ? g_steal_pointer(&done->answer) : NULL;
}

/* The list that a command returns, to be unreferenced */
static JsonArray *ask_list(Update *u, const char *command, GError **error)
{
    g_autofree char *text = g_strdup_printf("{\"execute\":\"%s\"}", command);
    g_autofree char *answer = update_qmp(u, text, error);
    g_autoptr(JsonObject) o = NULL;
    JsonArray *list;

    o = answer ? json_read_object(answer, strlen(answer), error) : NULL;
    if (!o) {
        return NULL;
    }
    list = member_array(o, "return");
    if (!list) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "QEMU did not answer to %s", command);
    }
    return list ? json_array_ref(list) : NULL;
}

static JsonObject *find(JsonArray *list, const char *member)
{
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonObject *o = element_object(list, i);

        if (!g_strcmp0(member_string(o, member), UPDATE_NODE)) {
            return o;
        }
    }
    return NULL;
}

bool update_wait_job(Update *u, const char *what, GError **error)
{
    g_autoptr(Progress) progress = progress_new(what, 0, true, u->json);

    for (;;) {
        g_autoptr(JsonArray) jobs = ask_list(u, "query-block-jobs", error);
        JsonObject *job = jobs ? find(jobs, "device") : NULL;
        int64_t offset = 0, length = 0;

        if (!jobs) {
            return false;
        }
        if (!job) {
            progress_done(progress);
            return true;
        }
        member_int(job, "offset", &offset);
        member_int(job, "len", &length);
        progress_set(progress, MAX(offset, 0), MAX(length, 0));
        g_usleep(POLL_US);
    }
}

bool update_buffer(Update *u, bool *window, int64_t *lag, GError **error)
{
    g_autoptr(JsonArray) disks = ask_list(u, "query-vdisks", error);
    JsonObject *disk = disks ? find(disks, "node-name") : NULL;
    JsonObject *buffer = member_object(member_object(disk, "pvs"), "buffer");

    if (disks && (!member_bool(buffer, "window", window) ||
                  !member_int(buffer, "lag-bytes", lag))) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the master does not run on a private vDisk");
        return false;
    }
    return disks;
}

static void print_json(const Update *u, const char *action, uint64_t version)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "command", action);
    json_object_set_string_member(o, "catalog", u->catalog->catalog);
    json_object_set_string_member(o, "vdisk", u->catalog->vdisk);
    json_object_set_int_member(o, "version", version);
    json_object_set_string_member(o, "master", u->master->name);
    command_answer(o);
}

int update_end(const Update *u, const char *action, uint64_t version,
               const char *what, const GError *error)
{
    if (error && u->changed) {
        audit(action, u->catalog->vdisk, version, "catalog %s, master %s: not "
              "to its end: %s", u->catalog->catalog, u->master->name,
              error->message);
    }
    if (error) {
        return command_fail(u->json, error);
    }
    audit(action, u->catalog->vdisk, version, "catalog %s, master %s: %s",
          u->catalog->catalog, u->master->name, what);
    if (u->json) {
        print_json(u, action, version);
    } else {
        printf("%s: version %" PRIu64 " of %s %s\n", u->catalog->catalog,
               version, u->catalog->vdisk, what);
    }
    return COMMAND_DONE;
}

/*
 * What is done to one desktop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "disk-job.h"
#include "domain-job.h"

#include "cli/qmp.h"
#include "cli/json-member.h"
#include "cli/json-read.h"

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <string.h>

#define QMP_TIMEOUT_MS      3000
#define AGENT_TIMEOUT_S     2
/* QEMU resets its machine after it has said that it will; in ms */
#define RESET_TIMEOUT       1000
#define RESET_POLL          10

static DesktopMetadata *copy(const DesktopMetadata *d)
{
    g_autofree char *text = desktop_metadata_text(d);
    DesktopMetadata *to = desktop_metadata_parse(text, NULL);

    g_assert(to);
    return to;
}

DiskJob *disk_job_new(const char *uuid, const DesktopMetadata *d,
                      const DesktopMetadata *before, const Host *host)
{
    DiskJob *job = g_new0(DiskJob, 1);

    g_strlcpy(job->uuid, uuid, sizeof(job->uuid));
    job->desktop = copy(d);
    job->before = copy(before);
    job->local = host_is_local(host);
    return job;
}

void disk_job_free(void *data)
{
    DiskJob *job = data;

    desktop_metadata_free(job->desktop);
    desktop_metadata_free(job->before);
    actual_clear(&job->actual);
    g_free(job);
}

/* Find the domain on this thread's connection, and do it */
static bool with_domain(virConnectPtr conn, DiskJob *job,
                        bool (*run)(DiskJob *job, GError **error),
                        GError **error)
{
    g_autoptr(virDomain) domain = fleet_domain(conn, job->uuid, error);
    bool done;

    job->domain = domain;
    done = domain && run(job, error);
    job->domain = NULL;
    return done;
}

static bool is_in_process(const DiskJob *job)
{
    return job->desktop->run == RUN_IN_PROCESS;
}

/* The answer to a QMP command, as its text; errors of QMP are errors */
static char *ask_qemu(const DiskJob *job, const char *command, GError **error)
{
    char *answer = NULL;

    if (virDomainQemuMonitorCommand(job->domain, command, &answer, 0) < 0) {
        fleet_set_error(error, "QMP");
        return NULL;
    }
    if (!domain_qmp_taken(answer, error)) {
        free(answer);
        return NULL;
    }
    return answer;
}

/* What a storage daemon on this host says, as QMP has it. Takes @arguments. */
static char *ask_daemon(const DiskJob *job, const char *command,
                        JsonObject *arguments, GError **error)
{
    g_autoptr(Qmp) qmp = qmp_connect(job->desktop->monitor, QMP_TIMEOUT_MS,
                                     error);
    g_autoptr(JsonNode) answer = NULL;
    g_autofree char *text = NULL;

    if (!qmp) {
        g_clear_pointer(&arguments, json_object_unref);
        return NULL;
    }
    answer = qmp_command(qmp, command, arguments, QMP_TIMEOUT_MS, error);
    if (!answer) {
        return NULL;
    }
    text = json_to_string(answer, FALSE);
    return g_strdup_printf("{\"return\":%s}", text);
}

static bool get_actual(DiskJob *job, GError **error)
{
    char *answer;
    bool ok;

    if (is_in_process(job)) {
        answer = ask_qemu(job, "{\"execute\":\"query-vdisks\"}", error);
    } else if (job->local && job->desktop->monitor) {
        answer = ask_daemon(job, "query-vdisks", NULL, error);
    } else {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "its storage daemon can be asked on its host only");
        return false;
    }
    ok = answer && actual_from_qmp(&job->actual, answer, job->desktop, error);
    free(answer);
    return ok;
}

static bool get_state(DiskJob *job, GError **error)
{
    int state, reason;

    if (virDomainGetState(job->domain, &state, &reason, 0) < 0) {
        return fleet_set_error(error, "its state");
    }
    job->state = state;
    job->running = state != VIR_DOMAIN_SHUTOFF && state != VIR_DOMAIN_CRASHED;
    return true;
}

static bool look(DiskJob *job, GError **error)
{
    return get_state(job, error) && (!job->running || get_actual(job, error));
}

bool disk_job_look(virConnectPtr conn, void *data, GError **error)
{
    return with_domain(conn, data, look, error);
}

static char *assign_command(const DesktopMetadata *d)
{
    const WantedVersion *w = &d->wanted;
    g_autoptr(JsonBuilder) b = json_builder_new();
    g_autoptr(JsonNode) root = NULL;

    json_builder_begin_object(b);
    json_builder_set_member_name(b, "execute");
    json_builder_add_string_value(b, "vdisk-assign");
    json_builder_set_member_name(b, "arguments");
    json_builder_begin_object(b);
    json_builder_set_member_name(b, "node-name");
    json_builder_add_string_value(b, d->node);
    if (d->model == MODEL_MCS) {
        json_builder_set_member_name(b, "filename");
        json_builder_add_string_value(b, w->image);
        json_builder_set_member_name(b, "format");
        json_builder_add_string_value(b, w->format);
    } else {
        json_builder_set_member_name(b, "version");
        json_builder_add_int_value(b, w->number);
        json_builder_set_member_name(b, "size");
        json_builder_add_int_value(b, w->size);
        if (w->root) {
            json_builder_set_member_name(b, "verity-root");
            json_builder_add_string_value(b, w->root);
        }
    }
    json_builder_end_object(b);
    json_builder_end_object(b);
    root = json_builder_get_root(b);
    return json_to_string(root, FALSE);
}

static char *unassign_command(const DiskJob *job)
{
    return g_strdup_printf("{\"execute\":\"vdisk-unassign\",\"arguments\":"
                           "{\"node-name\":\"%s\"}}", job->desktop->node);
}

/* One that runs on it needs no other: what was assigned is taken back */
static char *take_command(const DiskJob *job)
{
    return actual_is(&job->actual, job->desktop, &job->desktop->wanted)
           ? unassign_command(job) : assign_command(job->desktop);
}

/*
 * In a storage daemon a version is taken at power-on, by the hook, from what
 * libvirt's metadata says.
 */
static bool assign(DiskJob *job, GError **error)
{
    g_autofree char *command = NULL;
    char *answer;

    if (!is_in_process(job)) {
        return true;
    }
    if (!get_actual(job, error)) {
        return false;
    }
    command = take_command(job);
    answer = ask_qemu(job, command, error);
    free(answer);
    return answer != NULL;
}

static bool put_metadata(const DiskJob *job, const DesktopMetadata *d,
                         unsigned flags)
{
    g_autofree char *text = desktop_metadata_text(d);

    return virDomainSetMetadata(job->domain, VIR_DOMAIN_METADATA_ELEMENT, text,
                                METADATA_PREFIX, METADATA_NAMESPACE,
                                flags) == 0;
}

/* What cannot be written is not left in libvirt's memory either, where it would
 * be until libvirt starts anew */
static bool set_metadata(DiskJob *job, GError **error)
{
    unsigned live = job->running ? VIR_DOMAIN_AFFECT_LIVE : 0;
    unsigned all = live | VIR_DOMAIN_AFFECT_CONFIG;

    if (put_metadata(job, job->desktop, all)) {
        return true;
    }
    fleet_set_error(error, "its metadata");
    if (live && virDomainIsPersistent(job->domain) == 0 &&
        put_metadata(job, job->desktop, live)) {
        g_clear_error(error);   /* it has no definition */
        return true;
    }
    put_metadata(job, job->before, all);
    return false;
}

/* A version that libvirt could not note is not taken */
static void unassign(DiskJob *job)
{
    g_autofree char *command = unassign_command(job);

    if (is_in_process(job)) {
        free(ask_qemu(job, command, NULL));
    }
}

static bool assign_and_note(DiskJob *job, GError **error)
{
    if (job->running && !assign(job, error)) {
        return false;
    }
    if (!set_metadata(job, error)) {
        if (job->running) {
            unassign(job);
        }
        return false;
    }
    return true;
}

static bool is_active(DiskJob *job, GError **error)
{
    int active = virDomainIsActive(job->domain);

    job->running = active > 0;
    return active >= 0 || fleet_set_error(error, "its state");
}

static bool reset(DiskJob *job, GError **error)
{
    if (is_in_process(job)) {
        return virDomainReset(job->domain, 0) == 0 ||
               fleet_set_error(error, "its reset");
    }
    return (virDomainDestroy(job->domain) == 0 &&
            virDomainCreate(job->domain) == 0) ||
           fleet_set_error(error, "switching it off and on");
}

/* One that is off was on before: its start failed, or its QEMU ended */
static bool reset_or_start(DiskJob *job, GError **error)
{
    if (job->running) {
        return reset(job, error);
    }
    return virDomainCreate(job->domain) == 0 ||
           fleet_set_error(error, "it is off, and switching it on");
}

static bool take(DiskJob *job, GError **error)
{
    bool was;

    if (!is_active(job, error) || !assign_and_note(job, error)) {
        return false;
    }
    was = job->running;
    /* Started just now, it may have read what was wanted before */
    if (!was && (!is_active(job, error) ||
                 (job->running && !assign_and_note(job, error)))) {
        return false;
    }
    return !job->reset_too || reset_or_start(job, error);
}

bool disk_job_take(virConnectPtr conn, void *data, GError **error)
{
    return with_domain(conn, data, take, error);
}

/* Write requests of all of its disks since QEMU was started */
static bool get_writes(const DiskJob *job, uint64_t *writes, GError **error)
{
    g_autofree char *answer = ask_qemu(job, "{\"execute\":"
                                       "\"query-blockstats\"}", error);
    g_autoptr(JsonObject) o = NULL;
    JsonArray *disks;

    o = answer ? json_read_object(answer, strlen(answer), error) : NULL;
    if (!o) {
        return false;
    }
    *writes = 0;
    disks = member_array(o, "return");
    for (guint i = 0; disks && i < json_array_get_length(disks); i++) {
        JsonObject *disk = element_object(disks, i);
        int64_t n_writes = 0;

        if (member_int(member_object(disk, "stats"), "wr_operations",
                       &n_writes)) {
            *writes += n_writes;
        }
    }
    return true;
}

/* Where the guest has written, in the life of its storage daemon: that is one
 * power-on. What the export does is counted at its node. */
static bool find_written(const DiskJob *job, const char *answer, bool *written,
                         GError **error)
{
    g_autoptr(JsonObject) o = json_read_object(answer, strlen(answer), error);
    JsonArray *nodes;

    if (!o) {
        return false;
    }
    *written = false;
    nodes = member_array(o, "return");
    for (guint i = 0; nodes && i < json_array_get_length(nodes); i++) {
        JsonObject *node = element_object(nodes, i);
        int64_t end = 0;

        if (!g_strcmp0(member_string(node, "node-name"), job->desktop->node) &&
            member_int(member_object(node, "stats"), "wr_highest_offset",
                       &end)) {
            *written = end > 0;
        }
    }
    return true;
}

static bool has_written(const DiskJob *job, bool *written, GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autofree char *answer = NULL;

    json_object_set_boolean_member(arguments, "query-nodes", true);
    answer = ask_daemon(job, "query-blockstats", arguments, error);
    return answer && find_written(job, answer, written, error);
}

/* Does its guest agent hold its channel open now? */
static bool has_agent(const DiskJob *job)
{
    char *xml = virDomainGetXMLDesc(job->domain, 0);
    const char *name = xml ? strstr(xml, "'org.qemu.guest_agent.0'") : NULL;
    const char *end = name ? strchr(name, '>') : NULL;
    const char *state = name ? strstr(name, "state='connected'") : NULL;
    bool has = state && end && state < end;

    free(xml);
    return has;
}

static bool agent_answers(const DiskJob *job)
{
    char *answer = has_agent(job)
        ? virDomainQemuAgentCommand(job->domain,
                                    "{\"execute\":\"guest-ping\"}",
                                    AGENT_TIMEOUT_S, 0) : NULL;
    bool answers = answer != NULL;

    free(answer);
    return answers;
}

/*
 * How much had been written when it was reset: the guest before may write until
 * then. The new one, still in its firmware, has written nothing.
 */
static bool count_writes(DiskJob *job, GError **error)
{
    job->counted = get_actual(job, error) &&
                   job->actual.resets > job->resets &&
                   get_writes(job, &job->writes, error);
    return job->counted;
}

/* If it takes longer, the first look does it */
static void wait_for_reset(DiskJob *job)
{
    gint64 end = g_get_monotonic_time() + RESET_TIMEOUT * 1000;

    while (!count_writes(job, NULL) && g_get_monotonic_time() < end) {
        g_usleep(RESET_POLL * 1000);
    }
}

static bool reset_watched(DiskJob *job, GError **error)
{
    job->watch_agent = has_agent(job);
    if (!is_in_process(job)) {
        job->watch_daemon = get_actual(job, NULL);
        return reset(job, error);
    }
    if (!get_actual(job, error)) {
        return false;
    }
    job->resets = job->actual.resets;
    if (!reset(job, error)) {
        return false;
    }
    wait_for_reset(job);
    return true;
}

bool disk_job_reset(virConnectPtr conn, void *data, GError **error)
{
    return with_domain(conn, data, reset_watched, error);
}

/* In a storage daemon: which may be out of reach, on another host. Then there
 * is nothing but the agent to go by, if it has one. */
static bool watch_behind(DiskJob *job, GError **error)
{
    if (job->watch_daemon && !get_actual(job, error)) {
        return false;
    }
    if (job->watch_daemon &&
        !actual_is(&job->actual, job->desktop, &job->desktop->wanted)) {
        return true;
    }
    if (job->watch_agent) {
        job->up = agent_answers(job);
        return true;
    }
    job->up = !job->watch_daemon;
    return job->up || has_written(job, &job->up, error);
}

static bool watch(DiskJob *job, GError **error)
{
    uint64_t writes;

    job->up = false;
    if (!get_state(job, error)) {
        return false;
    }
    if (job->state != VIR_DOMAIN_RUNNING) {
        return true;
    }
    if (!is_in_process(job)) {
        return watch_behind(job, error);
    }
    if (!get_actual(job, error)) {
        return false;
    }
    if (job->actual.resets <= job->resets ||
        !actual_is(&job->actual, job->desktop, &job->desktop->wanted)) {
        return true;
    }
    if (job->watch_agent) {
        job->up = agent_answers(job);
        return true;
    }
    if (!job->counted) {
        return count_writes(job, error);
    }
    if (!get_writes(job, &writes, error)) {
        return false;
    }
    job->up = writes > job->writes;
    return true;
}

bool disk_job_watch(virConnectPtr conn, void *data, GError **error)
{
    return with_domain(conn, data, watch, error);
}

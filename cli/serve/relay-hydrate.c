/*
 * A relay makes one version after the other local, before desktops ask for it
 *
 * The most important one first, one at a time: so the speed of a job is what
 * all this takes of the link. Reads of desktops come first in any case.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "relay.h"
#include "report.h"

#include "cli/json-member.h"

#include <string.h>

#define AGAIN_US        (10 * G_USEC_PER_SEC)

static RelayVersion *of_root(const Relay *r, const char *root)
{
    for (guint i = 0; i < r->order->len; i++) {
        RelayVersion *v = r->order->pdata[i];

        if (!strcmp(v->root, root) && v->fits) {
            return v;
        }
    }
    return NULL;
}

bool relay_is_here(const Relay *r, const RelayVersion *v)
{
    const RelayVersion *first = of_root(r, v->root);

    return v->hydrated || (v->grant && first && first->hydrated);
}

static char *job_id(const Relay *r)
{
    return g_strdup_printf("hydrate%u", r->jobs);
}

/* The cache of another version of it, of the nearest number; NULL if none */
static const RelayVersion *nearest_cache(const Relay *r, const RelayVersion *v)
{
    const RelayVersion *best = NULL;

    for (guint i = 0; i < r->order->len; i++) {
        const RelayVersion *o = r->order->pdata[i];

        if (o != v && o->grant && o->hydrated && !strcmp(o->vdisk, v->vdisk) &&
            strcmp(o->root, v->root) &&
            (!best || ABS((int64_t)(o->number - v->number)) <
                      ABS((int64_t)(best->number - v->number)))) {
            best = o;
        }
    }
    return best;
}

static JsonObject *delta(const Relay *r, const RelayVersion *from)
{
    g_autofree char *cache = relay_path(r, from, "cache");
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "host-cache", cache);
    json_object_set_int_member(o, "version", from->number);
    json_object_set_int_member(o, "size", from->size);
    json_object_set_string_member(o, "verity-root", from->root);
    if (r->map_folder) {
        g_autofree char *map = g_strdup_printf("%s/%s.cache.map",
                                               r->map_folder, from->root);

        json_object_set_string_member(o, "host-cache-map", map);
    }
    return o;
}

static bool start(Relay *r, const RelayVersion *v, const RelayVersion *from,
                  GError **error)
{
    g_autofree char *key = relay_node_key(v);
    g_autofree char *id = NULL;
    g_autoptr(JsonNode) value = NULL;
    JsonObject *o = json_object_new();

    r->jobs++;
    id = job_id(r);
    json_object_set_string_member(o, "job-id", id);
    json_object_set_string_member(o, "node-name",
                                  board_node_name(r->board, key));
    json_object_set_int_member(o, "speed", r->bandwidth);
    if (from) {
        json_object_set_object_member(o, "from", delta(r, from));
    }
    value = daemon_command(r->daemon, "vdisk-hydrate", o, error);
    return value != NULL;
}

static bool can_start(const Relay *r, const RelayVersion *v)
{
    g_autofree char *key = relay_node_key(v);

    return v->wanted && v->fits && !v->hydrated &&
        v->hydrate_again <= g_get_monotonic_time() &&
        board_node_name(r->board, key);
}

void relay_hydrate_speed(Relay *r)
{
    g_autofree char *id = job_id(r);
    g_autoptr(JsonNode) value = NULL;
    JsonObject *o;

    if (r->job && daemon_qmp(r->daemon)) {
        o = json_object_new();
        json_object_set_string_member(o, "device", id);
        json_object_set_int_member(o, "speed", r->bandwidth);
        /* One that has just ended is not there: none is slowed */
        value = daemon_command(r->daemon, "block-job-set-speed", o, NULL);
    }
}

/* The version of the running job is not to be filled any more */
static void cancel(Relay *r)
{
    g_autofree char *id = job_id(r);
    JsonObject *o = json_object_new();
    g_autoptr(JsonNode) value = NULL;

    json_object_set_string_member(o, "device", id);
    value = daemon_command(r->daemon, "block-job-cancel", o, NULL);
}

static void begin(Relay *r, RelayVersion *v)
{
    const RelayVersion *from = nearest_cache(r, v);
    g_autoptr(GError) error = NULL;

    /* Before it starts: with nothing to do it ends before that is answered */
    r->job = g_strdup(v->root);
    /* The other cache may be of another kind by now: it is a help only */
    if ((from && start(r, v, from, NULL)) || start(r, v, NULL, &error)) {
        return;
    }
    g_clear_pointer(&r->job, g_free);
    v->hydrate_again = g_get_monotonic_time() + AGAIN_US;
    report_state(v->export, error->message);
}

void relay_hydrate(Relay *r)
{
    if (!daemon_qmp(r->daemon)) {
        return;
    }
    if (r->job) {
        const RelayVersion *v = of_root(r, r->job);

        if (!v || !v->wanted) {
            cancel(r);
        }
        return;
    }
    for (guint i = 0; i < r->order->len; i++) {
        if (can_start(r, r->order->pdata[i])) {
            begin(r, r->order->pdata[i]);
            return;
        }
    }
}

void relay_hydrate_event(Relay *r, JsonObject *event)
{
    const char *name = member_string(event, "event");
    JsonObject *data = member_object(event, "data");
    const char *id = member_string(data, "device");
    const char *error = member_string(data, "error");
    g_autofree char *ours = job_id(r);
    RelayVersion *v;

    if (!r->job || g_strcmp0(id, ours) ||
        (g_strcmp0(name, "BLOCK_JOB_COMPLETED") &&
         g_strcmp0(name, "BLOCK_JOB_CANCELLED"))) {
        return;
    }
    v = of_root(r, r->job);
    g_clear_pointer(&r->job, g_free);
    if (v && !strcmp(name, "BLOCK_JOB_COMPLETED") && !error) {
        v->hydrated = true;
        report("%s is here", v->export);
        report_forget(v->export);
    } else if (v) {
        v->hydrate_again = g_get_monotonic_time() + AGAIN_US;
        report_state(v->export, error);
    }
}

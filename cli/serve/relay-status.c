/*
 * What a relay has: for systemd, and as a file for programs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "relay.h"
#include "report.h"

#include "cli/json-member.h"
#include "cli/units.h"

#include <inttypes.h>

static JsonObject *version_status(const Relay *r, const RelayVersion *v)
{
    static const char *const trees[] = { "missing", "coming", "here" };
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "export", v->export);
    json_object_set_string_member(o, "root", v->root);
    json_object_set_int_member(o, "size", v->size);
    json_object_set_int_member(o, "data", v->data_bytes);
    json_object_set_string_member(o, "tree", trees[v->tree]);
    json_object_set_boolean_member(o, "boot-trace", v->trace_here &&
                                   !g_strcmp0(v->trace, v->trace_here));
    json_object_set_boolean_member(o, "served", board_export_key(
        r->board, v->export) != NULL);
    json_object_set_boolean_member(o, "retired", !v->wanted);
    json_object_set_int_member(o, "cache-limit", v->grant);
    json_object_set_boolean_member(o, "hydrated", relay_is_here(r, v));
    return o;
}

static char *status_text(const Relay *r, uint64_t used)
{
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
    JsonArray *versions = json_array_new(), *stores = json_array_new();
    JsonObject *o = json_object_new();
    g_autofree char *text = NULL;

    for (guint i = 0; i < r->order->len; i++) {
        json_array_add_object_element(
            versions, version_status(r, r->order->pdata[i]));
    }
    for (guint i = 0; r->stores->pdata[i]; i++) {
        JsonObject *store = json_object_new();

        json_object_set_string_member(store, "uri",
                                      ((Far *)r->stores->pdata[i])->uri);
        json_object_set_boolean_member(store, "reachable", r->reachable[i]);
        json_array_add_object_element(stores, store);
    }
    json_object_set_int_member(o, "size", r->size);
    json_object_set_int_member(o, "used", used);
    json_object_set_int_member(o, "bandwidth", r->bandwidth);
    json_object_set_array_member(o, "versions", versions);
    json_object_set_array_member(o, "stores", stores);
    json_node_take_object(root, o);
    text = json_to_string(root, TRUE);
    return g_strconcat(text, "\n", NULL);
}

static void write_status(const Relay *r, uint64_t used)
{
    static char *before;
    char *text = status_text(r, used);
    g_autoptr(GError) error = NULL;

    if (!g_strcmp0(text, before)) {
        g_free(text);
        return;
    }
    report_state("--status", g_file_set_contents_full(
        r->status_file, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0644, &error)
        ? NULL : error->message);
    g_free(before);
    before = text;
}

void relay_tell(Relay *r)
{
    uint64_t used = relay_used(r);
    g_autofree char *used_text = units_format_size(used);
    g_autofree char *size_text = units_format_size(r->size);
    unsigned here = 0, troubles = report_troubles();

    for (guint i = 0; i < r->order->len; i++) {
        here += relay_is_here(r, r->order->pdata[i]);
    }
    report_status("%u versions, %u of them all here; %s of %s; %u troubles",
                  r->order->len, here, used_text, size_text, troubles);
    if (r->status_file) {
        write_status(r, used);
    }
}

/* What the storage daemon tells that an administrator has to know */
void relay_tell_event(JsonObject *event)
{
    const char *name = member_string(event, "event");
    JsonObject *data = member_object(event, "data");
    const char *store = member_string(data, "store");
    const char *file = member_string(data, "filename");
    bool full = false;

    if (!g_strcmp0(name, "VDISK_CORRUPT") && store) {
        g_autofree char *subject = g_strdup_printf("content of %s", store);

        report_state(subject, "it sent what was not sealed; that was thrown "
                     "away, and is fetched elsewhere: 'deskcast vdisk verify' "
                     "at the store tells more");
    } else if (!g_strcmp0(name, "VDISK_HOST_CACHE") && file &&
               member_bool(data, "full", &full)) {
        report_state(file, full ? "it takes no more: the file system is full"
                                : NULL);
    }
}

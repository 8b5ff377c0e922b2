/*
 * What is known of a host, in JSON
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-json.h"

#include "cli/json-member.h"
#include "cli/json-read.h"

#include <gio/gio.h>
#include <math.h>
#include <string.h>

#define DESKTOPS_MAX    4096
#define VALUE_MAX       0x1p63      /* QEMU's own counters end before it */
#define VALUE_LEAST     1e-6        /* a microsecond */

static const char *key_of(const Metric *m)
{
    return m->name + strlen("deskcast_");
}

/*
 * Whole numbers are written as such: of 1e18 json-glib makes "1e+18.0", which is
 * not JSON, and takes the rest of the line with it.
 */
static void set_number(JsonObject *o, const char *name, double value)
{
    if (value == trunc(value) && fabs(value) < VALUE_MAX) {
        json_object_set_int_member(o, name, value);
    } else {
        json_object_set_double_member(o, name, value);
    }
}

static JsonObject *store_json(const StoreSample *store)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "store", store->name);
    json_object_set_boolean_member(o, "tree", store->tree);
    json_object_set_string_member(o, "state", store_healths[store->health]);
    for (unsigned i = 0; i < STORE_VALUES; i++) {
        set_number(o, key_of(&store_metrics[i]), store->value[i]);
    }
    return o;
}

static void add_disk(JsonObject *o, const VdiskSample *s)
{
    JsonArray *stores = json_array_new();

    json_object_set_boolean_member(o, "streamed", s->is_streamed);
    for (unsigned i = 0; i < VDISK_VALUES; i++) {
        if (s->has[i]) {
            set_number(o, key_of(&vdisk_metrics[i]), s->value[i]);
        }
    }
    for (guint i = 0; i < s->stores->len; i++) {
        json_array_add_object_element(
            stores, store_json(g_ptr_array_index(s->stores, i)));
    }
    json_object_set_array_member(o, "stores", stores);
}

static JsonObject *desktop_json(const DesktopSample *d)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "desktop", d->name);
    json_object_set_string_member(o, "vdisk", d->vdisk);
    json_object_set_boolean_member(o, "running", d->running);
    json_object_set_boolean_member(o, "up", d->up);
    if (d->agent != AGENT_UNKNOWN) {
        json_object_set_boolean_member(o, "guest_agent_connected",
                                       d->agent == AGENT_CONNECTED);
    }
    if (d->version) {
        json_object_set_int_member(o, "version", d->version);
    }
    if (d->assigned) {
        json_object_set_int_member(o, "assigned", d->assigned);
    }
    if (d->trouble) {
        json_object_set_string_member(o, "trouble", d->trouble);
    }
    if (d->disk) {
        add_disk(o, d->disk);
    }
    return o;
}

JsonObject *host_sample_json(const HostSample *s)
{
    JsonObject *o = json_object_new();
    JsonArray *desktops = json_array_new();

    set_number(o, "time", s->time / 1e6);
    json_object_set_boolean_member(o, "libvirt_up", s->libvirt_up);
    for (guint i = 0; i < s->desktops->len; i++) {
        json_array_add_object_element(
            desktops, desktop_json(g_ptr_array_index(s->desktops, i)));
    }
    json_object_set_array_member(o, "desktops", desktops);
    return o;
}

/*
 * A number, whichever of JSON's kinds it has, that a host may have counted or
 * measured: sums of them are finite.
 */
static bool get_number(JsonObject *o, const char *name, double *value)
{
    JsonNode *node = json_object_get_member(o, name);
    double number;

    if (!node || !JSON_NODE_HOLDS_VALUE(node) ||
        (json_node_get_value_type(node) != G_TYPE_INT64 &&
         json_node_get_value_type(node) != G_TYPE_DOUBLE)) {
        return false;
    }
    number = json_node_get_double(node);
    if (!(number >= 0 && number < VALUE_MAX)) {
        return false;
    }
    *value = number < VALUE_LEAST ? 0 : number;
    return true;
}

static void read_values(VdiskSample *s, JsonObject *o)
{
    for (unsigned i = 0; i < VDISK_VALUES; i++) {
        s->has[i] = get_number(o, key_of(&vdisk_metrics[i]), &s->value[i]);
    }
}

static void read_store(VdiskSample *s, JsonObject *o)
{
    const char *name = member_string(o, "store");
    const char *state = member_string(o, "state");
    StoreSample *store = vdisk_sample_add_store(s, name ? name : "");

    member_bool(o, "tree", &store->tree);
    store->health = store_health_parse(state);
    for (unsigned i = 0; i < STORE_VALUES; i++) {
        get_number(o, key_of(&store_metrics[i]), &store->value[i]);
    }
}

static VdiskSample *read_disk(JsonObject *o)
{
    VdiskSample *s = vdisk_sample_new();
    JsonArray *stores = member_array(o, "stores");
    guint n = stores ? json_array_get_length(stores) : 0;

    member_bool(o, "streamed", &s->is_streamed);
    read_values(s, o);
    for (guint i = 0; i < MIN(n, VDISK_STORES_MAX); i++) {
        JsonObject *store = element_object(stores, i);

        if (store) {
            read_store(s, store);
        }
    }
    return s;
}

static void read_desktop(HostSample *s, JsonObject *o)
{
    const char *name = member_string(o, "desktop");
    const char *vdisk = member_string(o, "vdisk");
    DesktopSample *d;
    int64_t version = 0;
    bool agent;

    /* A host has it once: whoever adds up has one value for each moment */
    if (!name || host_sample_find(s, name)) {
        return;
    }
    d = desktop_sample_new(name, NULL, false);
    g_free(d->vdisk);
    d->vdisk = metric_label_cut(vdisk ? vdisk : "", METRIC_LABEL_MAX);
    member_bool(o, "running", &d->running);
    member_bool(o, "up", &d->up);
    if (member_bool(o, "guest_agent_connected", &agent)) {
        d->agent = agent ? AGENT_CONNECTED : AGENT_AWAY;
    }
    member_int(o, "version", &version);
    d->version = MAX(version, 0);
    d->disk = d->up ? read_disk(o) : NULL;
    g_ptr_array_add(s->desktops, d);
}

static HostSample *read_host(JsonObject *o, double time)
{
    JsonArray *desktops = member_array(o, "desktops");
    guint n = desktops ? json_array_get_length(desktops) : 0;
    HostSample *s = host_sample_new();

    s->time = time * 1e6;
    for (guint i = 0; i < MIN(n, DESKTOPS_MAX); i++) {
        JsonObject *desktop = element_object(desktops, i);

        if (desktop) {
            read_desktop(s, desktop);
        }
    }
    return s;
}

HostSample *host_sample_from_json(const char *text, gsize length,
                                  GError **error)
{
    g_autoptr(JsonObject) o = json_read_object(text, length, error);
    double time;

    if (!o) {
        return NULL;
    }
    if (!get_number(o, "time", &time) || time < 0 ||
        time > UINT32_MAX * 2.0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "no sample of 'deskcast report --record'");
        return NULL;
    }
    return read_host(o, time);
}

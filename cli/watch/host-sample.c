/*
 * What is known of a host's desktops and its relay at one moment
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-sample.h"

#include "cli/host/actual.h"
#include "cli/json-member.h"
#include "cli/json-read.h"

#include <string.h>

HostSample *host_sample_new(void)
{
    HostSample *s = g_new0(HostSample, 1);

    s->time = g_get_real_time();
    s->desktops = g_ptr_array_new_with_free_func(desktop_sample_free);
    return s;
}

void host_sample_free(HostSample *s)
{
    if (s) {
        g_free(s->libvirt_trouble);
        g_ptr_array_unref(s->desktops);
        relay_sample_free(s->relay);
        g_free(s);
    }
}

const DesktopSample *host_sample_find(const HostSample *s, const char *name)
{
    for (guint i = 0; s && i < s->desktops->len; i++) {
        const DesktopSample *d = g_ptr_array_index(s->desktops, i);

        if (!strcmp(d->name, name)) {
            return d;
        }
    }
    return NULL;
}

/* <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/> */
GuestAgent guest_agent_of_xml(const char *xml)
{
    const char *name = strstr(xml, "name='org.qemu.guest_agent.0'");
    const char *end = name ? strchr(name, '>') : NULL;
    const char *state = end ? strstr(name, "state='connected'") : NULL;

    return !end ? AGENT_UNKNOWN
           : state && state < end ? AGENT_CONNECTED : AGENT_AWAY;
}

DesktopSample *desktop_sample_new(const char *name, DesktopMetadata *metadata,
                                  bool running)
{
    DesktopSample *d = g_new0(DesktopSample, 1);

    d->name = g_strdup(name);
    d->vdisk = g_strdup(metadata ? metadata->vdisk : "");
    d->metadata = metadata;
    d->running = running;
    return d;
}

void desktop_sample_free(void *data)
{
    DesktopSample *d = data;

    g_free(d->name);
    g_free(d->vdisk);
    desktop_metadata_free(d->metadata);
    vdisk_sample_free(d->disk);
    g_free(d->trouble);
    g_free(d);
}

bool desktop_sample_take(DesktopSample *d, JsonNode *answer)
{
    VdiskSample *disk = vdisk_sample_parse(answer, d->metadata->node);

    if (!disk) {
        d->trouble = g_strdup_printf("its process has no vDisk '%s'",
                                     d->metadata->node);
        return false;
    }
    d->up = true;
    d->disk = disk;
    d->version = disk->is_streamed ? disk->version
                 : actual_number_of(disk->image, d->metadata);
    d->assigned = disk->is_streamed ? disk->assigned
                  : actual_number_of(disk->assigned_image, d->metadata);
    return true;
}

static void relay_version_free(void *data)
{
    RelayVersion *v = data;

    g_free(v->export);
    g_free(v);
}

static void relay_store_free(void *data)
{
    RelayStore *store = data;

    g_free(store->name);
    g_free(store);
}

void relay_sample_free(RelaySample *r)
{
    if (r) {
        g_ptr_array_unref(r->versions);
        g_ptr_array_unref(r->stores);
        g_free(r);
    }
}

static double bytes(JsonObject *o, const char *name)
{
    int64_t n = 0;

    member_int(o, name, &n);
    return MAX(n, 0);
}

static char *label_in(JsonObject *o, const char *name)
{
    const char *text = member_string(o, name);

    return metric_label_cut(text ? text : "", METRIC_LABEL_MAX);
}

static void take_version(RelaySample *r, JsonObject *o)
{
    RelayVersion *v = g_new0(RelayVersion, 1);

    v->export = label_in(o, "export");
    v->size = bytes(o, "size");
    v->data = bytes(o, "data");
    member_bool(o, "served", &v->served);
    member_bool(o, "hydrated", &v->hydrated);
    g_ptr_array_add(r->versions, v);
}

static void take_store(RelaySample *r, JsonObject *o)
{
    RelayStore *store = g_new0(RelayStore, 1);

    store->name = label_in(o, "uri");
    member_bool(o, "reachable", &store->reachable);
    g_ptr_array_add(r->stores, store);
}

static void take_all(RelaySample *r, JsonArray *list, guint most,
                     void (*take)(RelaySample *r, JsonObject *o))
{
    guint n = list ? json_array_get_length(list) : 0;

    for (guint i = 0; i < MIN(n, most); i++) {
        JsonObject *o = element_object(list, i);

        if (o) {
            take(r, o);
        }
    }
}

RelaySample *relay_sample_parse(const char *json, gsize length)
{
    g_autoptr(JsonObject) o = json_read_object(json, length, NULL);
    RelaySample *r;

    if (!o) {
        return NULL;
    }
    r = g_new0(RelaySample, 1);
    r->versions = g_ptr_array_new_with_free_func(relay_version_free);
    r->stores = g_ptr_array_new_with_free_func(relay_store_free);
    r->size = bytes(o, "size");
    r->used = bytes(o, "used");
    take_all(r, member_array(o, "versions"), RELAY_VERSIONS_MAX, take_version);
    take_all(r, member_array(o, "stores"), VDISK_STORES_MAX, take_store);
    return r;
}

/*
 * What is known of a host, as metrics
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-sample.h"

#define G_(name, help)  { "deskcast_" name, help, false }

/* Those that are no value of a vDisk or of a store */
enum {
    M_LIBVIRT_UP, M_SCRAPE,
    M_INFO, M_RUNNING, M_AGENT, M_UP, M_ANSWER,
    M_VERSION, M_WANTED, M_ASSIGNED, M_STATE,
    M_RELAY_SIZE, M_RELAY_USED, M_RELAY_SERVED, M_RELAY_HYDRATED,
    M_RELAY_VERSION_SIZE, M_RELAY_REACHABLE,
    N_METRICS
};

static const Metric metrics[N_METRICS] = {
    [M_LIBVIRT_UP] = G_("libvirt_up",
        "Whether libvirt listed the desktops; 0: they are those of before."),
    [M_SCRAPE] = G_("scrape_seconds", "How long it took to ask all desktops."),
    [M_INFO] = G_("desktop_info", "1, and what a desktop is in its labels."),
    [M_RUNNING] = G_("desktop_running", "Whether libvirt has it running."),
    [M_AGENT] = G_("guest_agent_connected",
        "Whether the guest's agent is there, so that the guest has come up."),
    [M_UP] = G_("desktop_up",
        "Whether the process with the disk of a running desktop answered."),
    [M_ANSWER] = G_("desktop_answer_seconds", "How long the answer took."),
    [M_VERSION] = G_("vdisk_version", "The version that the disk runs on."),
    [M_WANTED] = G_("vdisk_wanted_version",
        "The version that it is to take at its next reset, in libvirt."),
    [M_ASSIGNED] = G_("vdisk_assigned_version",
        "The version that the disk says it takes at its next reset; 0: none."),
    [M_STATE] = G_("store_state",
        "1 for the state that a store of the disk is in, 0 for others."),
    [M_RELAY_SIZE] = G_("relay_cache_size_bytes",
        "What the relay's caches may take."),
    [M_RELAY_USED] = G_("relay_cache_used_bytes", "What they take."),
    [M_RELAY_SERVED] = G_("relay_version_served",
        "Whether the relay serves the version."),
    [M_RELAY_HYDRATED] = G_("relay_version_hydrated",
        "Whether the relay has all of the version."),
    [M_RELAY_VERSION_SIZE] = G_("relay_version_size_bytes",
        "Size of the version's disk."),
    [M_RELAY_REACHABLE] = G_("relay_store_reachable",
        "Whether the relay reaches the store."),
};

const Metric *host_metric(guint i)
{
    if (i < N_METRICS) {
        return &metrics[i];
    }
    i -= N_METRICS;
    if (i < VDISK_VALUES) {
        return &vdisk_metrics[i];
    }
    i -= VDISK_VALUES;
    return i < STORE_VALUES ? &store_metrics[i] : NULL;
}

static void add(MetricPage *p, unsigned metric, double value,
                const char *const *labels)
{
    metric_add(p, &metrics[metric], value, labels);
}

static void add_store(MetricPage *p, const DesktopSample *d,
                      const StoreSample *store)
{
    const char *const labels[] = {
        "desktop", d->name, "vdisk", d->vdisk, "store", store->name,
        "content", store->tree ? "tree" : "data", NULL
    };

    for (unsigned i = 0; i < STORE_VALUES; i++) {
        metric_add(p, &store_metrics[i], store->value[i], labels);
    }
    for (unsigned i = 0; i < STORE_HEALTHS; i++) {
        const char *const with_state[] = {
            labels[0], labels[1], labels[2], labels[3], labels[4], labels[5],
            labels[6], labels[7], "state", store_healths[i], NULL
        };

        add(p, M_STATE, store->health == i, with_state);
    }
}

static void add_disk(MetricPage *p, const DesktopSample *d, const char *version)
{
    const char *const labels[] = {
        "desktop", d->name, "vdisk", d->vdisk, NULL
    };
    const char *const of_version[] = {
        "desktop", d->name, "vdisk", d->vdisk, "version", version,
        NULL
    };
    const VdiskSample *s = d->disk;

    add(p, M_ANSWER, d->answer, labels);
    add(p, M_ASSIGNED, d->assigned, labels);
    if (d->version) {
        add(p, M_VERSION, d->version, labels);
    }
    for (unsigned i = 0; i < VDISK_VALUES; i++) {
        if (s->has[i]) {
            metric_add(p, &vdisk_metrics[i], s->value[i],
                       vdisk_value_is_of_version(i) ? of_version : labels);
        }
    }
    for (guint i = 0; i < s->stores->len; i++) {
        add_store(p, d, g_ptr_array_index(s->stores, i));
    }
}

static void add_info(MetricPage *p, const DesktopSample *d, const char *version)
{
    static const char *const models[] = { "", "mcs", "pvs" };
    static const char *const lifetimes[] = { "", "pooled", "dedicated",
                                             "private" };
    static const char *const runs[] = { "", "in-process", "vhost-user" };
    const DesktopMetadata *m = d->metadata;
    const char *const info[] = {
        "desktop", d->name, "vdisk", d->vdisk, "version", version,
        "catalog", m->catalog, "model", models[m->model],
        "lifetime", lifetimes[m->lifetime], "run", runs[m->run], NULL
    };

    add(p, M_INFO, 1, info);
}

static void add_desktop(MetricPage *p, const DesktopSample *d)
{
    const DesktopMetadata *m = d->metadata;
    const char *const labels[] = {
        "desktop", d->name, "vdisk", d->vdisk, NULL
    };
    g_autofree char *version = d->version ? g_strdup_printf(
        "%" G_GUINT64_FORMAT, d->version) : g_strdup("");

    add(p, M_RUNNING, d->running, labels);
    if (d->running) {
        add(p, M_UP, d->up, labels);
    }
    if (d->agent != AGENT_UNKNOWN) {
        add(p, M_AGENT, d->agent == AGENT_CONNECTED, labels);
    }
    if (!m) {
        return;
    }
    add_info(p, d, version);
    if (m->wanted.number) {
        add(p, M_WANTED, m->wanted.number, labels);
    }
    if (d->up) {
        add_disk(p, d, version);
    }
}

static void add_relay(MetricPage *p, const RelaySample *r)
{
    add(p, M_RELAY_SIZE, r->size, NULL);
    add(p, M_RELAY_USED, r->used, NULL);
    for (guint i = 0; i < r->versions->len; i++) {
        const RelayVersion *v = g_ptr_array_index(r->versions, i);
        const char *const labels[] = { "export", v->export, NULL };

        add(p, M_RELAY_SERVED, v->served, labels);
        add(p, M_RELAY_HYDRATED, v->hydrated, labels);
        add(p, M_RELAY_VERSION_SIZE, v->size, labels);
    }
    for (guint i = 0; i < r->stores->len; i++) {
        const RelayStore *store = g_ptr_array_index(r->stores, i);
        const char *const labels[] = { "store", store->name, NULL };

        add(p, M_RELAY_REACHABLE, store->reachable, labels);
    }
}

char *host_sample_metrics(const HostSample *s)
{
    g_autoptr(MetricPage) p = metric_page_new();

    add(p, M_LIBVIRT_UP, s->libvirt_up, NULL);
    add(p, M_SCRAPE, s->seconds, NULL);
    for (guint i = 0; i < s->desktops->len; i++) {
        add_desktop(p, g_ptr_array_index(s->desktops, i));
    }
    if (s->relay) {
        add_relay(p, s->relay);
    }
    return metric_page_text(p);
}

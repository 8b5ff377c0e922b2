/*
 * What a relay may fetch ahead in a second: as its option says, and at most as
 * the list of hosts says of its host
 *
 * The list may change while the relay runs: it is looked at as often as
 * manifests are. One that cannot be read leaves the cap as it was.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "relay.h"
#include "report.h"

#include "cli/host/hosts.h"

/* 0 is no limit */
static uint64_t lower(uint64_t a, uint64_t b)
{
    return a && b ? MIN(a, b) : a + b;
}

bool relay_read_cap(Relay *r, GError **error)
{
    const HostOptions options = { .file = r->hosts_file };
    g_autoptr(GPtrArray) hosts = NULL;
    const Host *host;

    r->cap_again = g_get_monotonic_time() + (gint64)r->interval * G_USEC_PER_SEC;
    if (!r->host) {
        r->bandwidth = r->given;
        return true;
    }
    hosts = hosts_load(&options, error);
    host = hosts ? hosts_find(hosts, r->host, error) : NULL;
    if (host) {
        r->bandwidth = lower(r->given, host->relay_bandwidth);
    }
    return host;
}

void relay_watch_cap(Relay *r)
{
    g_autoptr(GError) error = NULL;
    uint64_t before = r->bandwidth;

    if (!r->host || g_get_monotonic_time() < r->cap_again) {
        return;
    }
    report_state("relay-bandwidth", relay_read_cap(r, &error)
                 ? NULL : error->message);
    if (r->bandwidth != before) {
        report("fetches ahead %" G_GUINT64_FORMAT " bytes a second at most "
               "(0: no limit)", r->bandwidth);
        relay_hydrate_speed(r);
    }
}

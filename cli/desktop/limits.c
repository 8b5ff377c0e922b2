/*
 * What a host gives to its desktops, and whether one more fits
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "limits.h"
#include "cli/units.h"

/* A sum that is too large stays at the largest number */
static uint64_t sum(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t product(uint64_t a, unsigned n)
{
    return n && a > UINT64_MAX / n ? UINT64_MAX : a * n;
}

void limits_add(HostLoad *load, const DesktopMetadata *d)
{
    load->write_cache = sum(load->write_cache, d->write_cache);
    load->ram = sum(load->ram, d->ram);
    load->bandwidth = sum(load->bandwidth, d->bandwidth);
    load->unbounded += !d->write_cache;
}

static bool fits(const Host *host, const char *what, uint64_t cap,
                 uint64_t taken, uint64_t each, unsigned count, GError **error)
{
    g_autofree char *has = units_format_size(cap);
    g_autofree char *used = units_format_size(taken);
    g_autofree char *more = units_format_size(product(each, count));

    if (!cap || sum(taken, product(each, count)) <= cap) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
                "host '%s' has %s of %s for its desktops, %s of it is taken, "
                "and these take %s: name another host, or raise its cap",
                host->name, has, what, used, more);
    return false;
}

/* A cap means nothing where a desktop may take any part of it */
static bool bounded(const Host *host, const DesktopMetadata *d, GError **error)
{
    /* A private desktop reads from its store, and not through the relay */
    bool relayed = d->model == MODEL_PVS && d->lifetime != LIFETIME_PRIVATE;
    const char *lacks = host->write_cache && !d->write_cache
                        ? "write cache (--write-cache)"
                        : host->relay_bandwidth && relayed && !d->bandwidth
                        ? "part of the relay's bandwidth (--bandwidth)" : NULL;

    if (lacks) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "host '%s' has a cap, and the catalog does not say how "
                    "much of it a desktop takes: set its %s", host->name,
                    lacks);
    }
    return !lacks;
}

bool limits_allow(const Host *host, const HostLoad *load,
                  const DesktopMetadata *d, unsigned count, GError **error)
{
    if (host->drained) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                    "host '%s' is drained and takes no new desktops: name "
                    "another one, or 'deskcast host undrain %s'", host->name,
                    host->name);
        return false;
    }
    return bounded(host, d, error) &&
           fits(host, "disk for write caches", host->write_cache,
                load->write_cache, d->write_cache, count, error) &&
           fits(host, "memory for write caches", host->ram, load->ram, d->ram,
                count, error) &&
           fits(host, "relay bandwidth a second", host->relay_bandwidth,
                load->bandwidth, d->bandwidth, count, error);
}

/*
 * What a desktop did between two looks at it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rates.h"

#include "cli/units.h"

#include <string.h>

double counter_growth(double before, double now)
{
    return now >= before ? now - before : now;
}

const StoreSample *store_sample_find(const VdiskSample *s,
                                     const StoreSample *like)
{
    for (guint i = 0; s && i < s->stores->len; i++) {
        const StoreSample *store = g_ptr_array_index(s->stores, i);

        if (store->tree == like->tree && !strcmp(store->name, like->name)) {
            return store;
        }
    }
    return NULL;
}

static double growth(const VdiskSample *before, const VdiskSample *now,
                     VdiskValue value)
{
    return counter_growth(vdisk_sample_get(before, value),
                          vdisk_sample_get(now, value));
}

static double read_growth(const VdiskSample *before, const VdiskSample *now)
{
    double bytes = 0;

    for (guint i = 0; i < now->stores->len; i++) {
        const StoreSample *is = g_ptr_array_index(now->stores, i);
        const StoreSample *was = store_sample_find(before, is);

        bytes += counter_growth(was ? was->value[STORE_BYTES] : 0,
                                is->value[STORE_BYTES]);
    }
    return bytes;
}

Rates rates_of(const DesktopSample *before, const DesktopSample *now,
               double seconds)
{
    const VdiskSample *was = before ? before->disk : NULL, *is = now->disk;
    Rates r = { -1, -1, -1 };
    double hit, miss;

    if (!was || !is || seconds <= 0) {
        return r;
    }
    if (is->is_streamed) {
        r.read = read_growth(was, is) / seconds;
    }
    if (is->has[VALUE_SHIPPED]) {
        r.shipped = growth(was, is, VALUE_SHIPPED) / seconds;
    }
    hit = growth(was, is, VALUE_CACHE_HIT);
    miss = growth(was, is, VALUE_CACHE_MISS);
    if (hit + miss > 0) {
        r.hit = hit / (hit + miss);
    }
    return r;
}

static bool has_store_down(const VdiskSample *s)
{
    for (guint i = 0; i < s->stores->len; i++) {
        const StoreSample *store = g_ptr_array_index(s->stores, i);

        if (store->health == HEALTH_DOWN) {
            return true;
        }
    }
    return false;
}

char *desktop_state(const DesktopSample *d, unsigned *badness)
{
    const VdiskSample *s = d->disk;
    double outage = vdisk_sample_get(s, VALUE_OUTAGE);
    double denied = vdisk_sample_get(s, VALUE_DENIED);

    *badness = 0;
    if (!d->running) {
        return g_strdup("off");
    }
    *badness = 9;
    if (!d->up) {
        return g_strdup("silent");
    }
    if (vdisk_sample_get(s, VALUE_BROKEN)) {
        return g_strdup("buffer broken");
    }
    if (vdisk_sample_get(s, VALUE_FENCED)) {
        return g_strdup("fenced");
    }
    if (outage > 0) {
        g_autofree char *span = units_format_span(outage * 1000);

        *badness = 8;
        return g_strdup_printf("no store, %s", span);
    }
    if (denied > 0) {
        g_autofree char *span = units_format_span(denied * 1000);

        *badness = 8;
        return g_strdup_printf("denied, %s", span);
    }
    *badness = 5;
    if (vdisk_sample_get(s, VALUE_STUCK)) {
        return g_strdup("buffer stuck");
    }
    if (has_store_down(s)) {
        return g_strdup("a store is down");
    }
    *badness = 0;
    return g_strdup(vdisk_sample_get(s, VALUE_WINDOW) ? "window open" : "well");
}

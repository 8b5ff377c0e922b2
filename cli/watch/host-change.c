/*
 * What has changed on a host since it was looked at last
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-change.h"
#include "rates.h"

#include "cli/message-id.h"
#include "cli/units.h"

#include <string.h>
#include <syslog.h>

typedef struct Teller {
    HostChangeFunc *func;
    void *opaque;
    const DesktopSample *before, *now;  /* before: NULL if it was not there */
} Teller;

static void tell_of(const Teller *t, const char *id, int priority,
                    const char *store, const char *format, va_list args)
{
    g_autofree char *what = g_strdup_vprintf(format, args);
    g_autofree char *text = g_strdup_printf("desktop '%s': %s", t->now->name,
                                            what);
    HostChange change = {
        .id = id, .priority = priority, .desktop = t->now->name,
        .vdisk = t->now->vdisk,
        .store = store, .text = text,
    };

    t->func(t->opaque, &change);
}

static void G_GNUC_PRINTF(4, 5) tell(const Teller *t, const char *id,
                                     int priority, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    tell_of(t, id, priority, NULL, format, args);
    va_end(args);
}

static void G_GNUC_PRINTF(5, 6) tell_store(const Teller *t, const char *id,
                                           int priority, const char *store,
                                           const char *format, ...)
{
    va_list args;

    va_start(args, format);
    tell_of(t, id, priority, store, format, args);
    va_end(args);
}

/* @before: 0 if it is not known */
static void look_at_value(const Teller *t, VdiskValue value, const char *id,
                          int priority, const char *text)
{
    double before = t->before ? vdisk_sample_get(t->before->disk, value) : 0;

    if (vdisk_sample_get(t->now->disk, value) > before) {
        tell(t, id, priority, "%s", text);
    }
}

/* Seconds without a store, or, behind a relay, with one that has none */
static double outage_of(const VdiskSample *s)
{
    return MAX(vdisk_sample_get(s, VALUE_OUTAGE),
               vdisk_sample_get(s, VALUE_DENIED));
}

static void look_at_outage(const Teller *t)
{
    double was = t->before ? outage_of(t->before->disk) : 0;
    double is = outage_of(t->now->disk);

    if (is > 0 && was <= 0) {
        tell(t, MESSAGE_OUTAGE, LOG_ERR, "%s; what is local is read as ever",
             vdisk_sample_get(t->now->disk, VALUE_OUTAGE) > 0
             ? "no store is up" : "no store has what it reads");
    } else if (is <= 0 && was > 0) {
        g_autofree char *span = units_format_span(was * 1000);

        tell(t, MESSAGE_OUTAGE_OVER, LOG_NOTICE,
             "it is read from a store again, after %s or more", span);
    }
}

/* Suspect is what a store is for a moment: neither up nor down */
static void look_at_store(const Teller *t, const StoreSample *now)
{
    const StoreSample *before = t->before
        ? store_sample_find(t->before->disk, now) : NULL;
    StoreHealth was = before ? before->health : HEALTH_UP;
    const char *what = now->tree ? "the store of its tree" : "store";

    if (now->health == HEALTH_DOWN && was != HEALTH_DOWN) {
        tell_store(t, MESSAGE_STORE_DOWN, LOG_WARNING, now->name,
                   "%s %s is down", what, now->name);
    } else if (now->health == HEALTH_UP && was == HEALTH_DOWN) {
        tell_store(t, MESSAGE_STORE_UP, LOG_NOTICE, now->name,
                   "%s %s is up again", what, now->name);
    }
}

static void look_at_version(const Teller *t)
{
    uint64_t was = t->before ? t->before->version : 0;

    if (was && t->now->version && was != t->now->version) {
        tell(t, MESSAGE_VERSION, LOG_INFO,
             "runs on version %" G_GUINT64_FORMAT ", before on %"
             G_GUINT64_FORMAT, t->now->version, was);
    }
}

static void look_at_disk(const Teller *t)
{
    look_at_outage(t);
    for (guint i = 0; i < t->now->disk->stores->len; i++) {
        look_at_store(t, g_ptr_array_index(t->now->disk->stores, i));
    }
    look_at_value(t, VALUE_CORRUPT, MESSAGE_CORRUPT, LOG_CRIT,
                  "a store sent what was not sealed; it was thrown away");
    look_at_value(t, VALUE_BROKEN, MESSAGE_BROKEN, LOG_CRIT,
                  "its reconnect buffer is broken; nothing is written any more");
    look_at_value(t, VALUE_FENCED, MESSAGE_FENCED, LOG_CRIT,
                  "somebody else has written to its vDisk; nothing is sent to "
                  "the store any more");
    look_at_version(t);
}

static bool is_silent(const DesktopSample *d)
{
    return d && d->running && !d->up;
}

static void look_at(const Teller *t)
{
    const DesktopSample *now = t->now;

    if (is_silent(now) && !is_silent(t->before)) {
        tell(t, MESSAGE_SILENT, LOG_ERR, "does not answer: %s",
             now->trouble ? now->trouble : "no reason is known");
    } else if (now->up && is_silent(t->before)) {
        tell(t, MESSAGE_ANSWERS, LOG_NOTICE, "answers again");
    }
    if (now->up) {
        look_at_disk(t);
    }
}

void host_changes(const HostSample *before, const HostSample *now,
                  HostChangeFunc *func, void *opaque)
{
    guint old = 0, n = before ? before->desktops->len : 0;

    /* Both are sorted by name */
    for (guint i = 0; i < now->desktops->len; i++) {
        Teller t = { .func = func, .opaque = opaque,
                     .now = g_ptr_array_index(now->desktops, i) };

        for (; old < n && !t.before; old++) {
            const DesktopSample *d = g_ptr_array_index(before->desktops, old);
            int order = strcmp(d->name, t.now->name);

            if (order > 0) {
                break;
            }
            t.before = order == 0 ? d : NULL;
        }
        look_at(&t);
    }
}

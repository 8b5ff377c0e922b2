/*
 * Manifests of far stores, read again and again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "watch.h"

typedef struct Watch {
    const Far *far;
    unsigned store;
    char **vdisks;
    unsigned interval_ms;
    WatchFunc *func;
    void *opaque;
} Watch;

typedef struct Finding {
    const Watch *watch;
    const char *vdisk;
    Manifest *manifest;
    GError *error;
} Finding;

static gboolean tell(gpointer opaque)
{
    Finding *f = opaque;
    const Watch *w = f->watch;

    w->func(w->opaque, w->store, f->vdisk, f->manifest, f->error);
    g_clear_error(&f->error);
    g_free(f);
    return G_SOURCE_REMOVE;
}

static gpointer watch_main(gpointer opaque)
{
    const Watch *w = opaque;

    for (;;) {
        for (char **vdisk = w->vdisks; *vdisk; vdisk++) {
            Finding *f = g_new0(Finding, 1);

            f->watch = w;
            f->vdisk = *vdisk;
            f->manifest = far_manifest(w->far, *vdisk, &f->error);
            g_idle_add(tell, f);
        }
        g_usleep(w->interval_ms * 1000ul);
    }
    return NULL;
}

void watch_begin(Far *const *stores, char **vdisks, unsigned interval_ms,
                 WatchFunc *func, void *opaque)
{
    for (unsigned i = 0; stores[i]; i++) {
        Watch *w = g_new0(Watch, 1);

        w->far = stores[i];
        w->store = i;
        w->vdisks = vdisks;
        w->interval_ms = interval_ms;
        w->func = func;
        w->opaque = opaque;
        g_thread_unref(g_thread_new("watch", watch_main, w));
    }
}

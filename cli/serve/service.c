/*
 * What store serve and relay have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "service.h"
#include "report.h"

#include <errno.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <sys/resource.h>

static struct {
    GMainLoop *loop;
    void (*tick)(void *opaque);
    void (*again)(void *opaque);
    void *opaque;
    guint soon;
} service;

char *service_folder(GError **error)
{
    g_autofree char *pattern = g_build_filename(g_get_tmp_dir(),
                                                "deskcast-XXXXXX", NULL);

    if (!g_mkdtemp(pattern)) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "cannot make %s: %s", pattern, g_strerror(errno));
        return NULL;
    }
    return g_steal_pointer(&pattern);
}

/* It has files only */
void service_remove_folder(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);

        g_unlink(path);
    }
    g_rmdir(folder);
}

void service_make_absolute(char **path)
{
    char *whole = *path ? g_canonicalize_filename(*path, NULL) : NULL;

    g_free(*path);
    *path = whole;
}

void service_raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static gboolean tick(gpointer unused)
{
    (void)unused;
    service.tick(service.opaque);
    report_alive();
    return G_SOURCE_CONTINUE;
}

static gboolean tick_once(gpointer unused)
{
    service.soon = 0;
    tick(unused);
    return G_SOURCE_REMOVE;
}

void service_tick_soon(void)
{
    if (!service.soon) {
        service.soon = g_idle_add(tick_once, NULL);
    }
}

static gboolean end(gpointer unused)
{
    (void)unused;
    report_stopping();
    g_main_loop_quit(service.loop);
    return G_SOURCE_CONTINUE;
}

static gboolean hang_up(gpointer unused)
{
    (void)unused;
    service.again(service.opaque);
    return G_SOURCE_CONTINUE;
}

void service_run(void (*tick_func)(void *opaque), void (*again)(void *opaque),
                 void *opaque)
{
    service.loop = g_main_loop_new(NULL, FALSE);
    service.tick = tick_func;
    service.again = again;
    service.opaque = opaque;
    g_unix_signal_add(SIGTERM, end, NULL);
    g_unix_signal_add(SIGINT, end, NULL);
    g_unix_signal_add(SIGHUP, hang_up, NULL);
    g_timeout_add(SERVICE_TICK_MS, tick, NULL);
    service_tick_soon();
    g_main_loop_run(service.loop);
}

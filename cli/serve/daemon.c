/*
 * The storage daemon that serves, as a child
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "daemon.h"
#include "report.h"

#include "cli/program.h"

#include <errno.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Descriptors in the daemon */
#define FD_LISTEN       3
#define FD_MONITOR      4

#define START_MS        30000
#define STOP_MS         60000           /* it may have a host cache to sync */
/* Between a death and a new start; doubled each time */
#define PAUSE_MIN_MS    100
#define PAUSE_MAX_MS    5000
#define GOOD_US         (60 * G_USEC_PER_SEC)   /* lived as long: no longer
                                                   pauses */

struct Daemon {
    char **arguments;
    char *nbd;
    int listen_fd;
    DaemonEvents events;
    GPid pid;                   /* 0 while it does not run */
    Qmp *qmp;
    guint watch_child, watch_qmp, timer;
    unsigned pause;             /* ms, before the next start */
    gint64 started;
};

Daemon *daemon_new(const char *const *arguments, const char *nbd, int listen_fd,
                   const DaemonEvents *events)
{
    Daemon *d = g_new0(Daemon, 1);

    d->arguments = g_strdupv((char **)arguments);
    d->nbd = g_strdup(nbd);
    d->listen_fd = listen_fd;
    d->events = *events;
    d->pause = PAUSE_MIN_MS;
    return d;
}

static void clear_source(guint *id)
{
    if (*id) {
        g_source_remove(*id);
        *id = 0;
    }
}

Qmp *daemon_qmp(Daemon *d)
{
    return d->qmp;
}

/* @trial: without the NBD server */
static char **command_line(const Daemon *d, bool trial)
{
    GPtrArray *a = g_ptr_array_new();

    g_ptr_array_add(a, program_qsd());
    g_ptr_array_add(a, g_strdup("--chardev"));
    g_ptr_array_add(a, g_strdup_printf("socket,id=qmp,fd=%d", FD_MONITOR));
    g_ptr_array_add(a, g_strdup("--monitor"));
    g_ptr_array_add(a, g_strdup("chardev=qmp"));
    for (char **arg = d->arguments; *arg; arg++) {
        g_ptr_array_add(a, g_strdup(*arg));
    }
    if (!trial) {
        g_ptr_array_add(a, g_strdup("--nbd-server"));
        g_ptr_array_add(a, g_strdup_printf("addr.type=fd,addr.str=%d%s",
                                           FD_LISTEN, d->nbd));
    }
    g_ptr_array_add(a, NULL);
    return (char **)g_ptr_array_free(a, FALSE);
}

/* With its monitor in *@fd; false with @error */
static bool spawn(Daemon *d, bool trial, GPid *pid, int *fd, GError **error)
{
    g_auto(GStrv) argv = command_line(d, trial);
    const int targets[] = { FD_LISTEN, FD_MONITOR };
    int sources[] = { d->listen_fd, -1 };
    int pair[2];
    bool done;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "no socket for the storage daemon: %s", g_strerror(errno));
        return false;
    }
    sources[1] = pair[1];
    done = g_spawn_async_with_pipes_and_fds(
        "/", (const char *const *)argv, NULL,
        G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_SEARCH_PATH,
        program_end_with_parent, NULL, -1, -1, -1,
        sources, targets, G_N_ELEMENTS(targets), pid, NULL, NULL, NULL,
        error);
    close(pair[1]);
    if (!done) {
        close(pair[0]);
        *pid = 0;
        return false;
    }
    *fd = pair[0];
    return true;
}

/* Ends and reaps it; how it ended in *@status. False if it has to be killed. */
static bool reap(GPid pid, int signal_first, int *status)
{
    gint64 end = g_get_monotonic_time() + STOP_MS * (gint64)1000;
    bool in_time = true;

    if (signal_first) {
        kill(pid, signal_first);
    }
    while (waitpid(pid, status, WNOHANG) == 0) {
        if (g_get_monotonic_time() > end && in_time) {
            kill(pid, SIGKILL);
            in_time = false;
        }
        g_usleep(5000);
    }
    g_spawn_close_pid(pid);
    return in_time;
}

static void forget_connection(Daemon *d)
{
    clear_source(&d->watch_qmp);
    g_clear_pointer(&d->qmp, qmp_free);
}

static char *how_ended(int status)
{
    if (WIFSIGNALED(status)) {
        return g_strdup_printf("was killed by signal %d (%s)",
                               WTERMSIG(status), g_strsignal(WTERMSIG(status)));
    }
    return g_strdup_printf("ended with status %d", WEXITSTATUS(status));
}

static gboolean start_again(gpointer opaque);

/* It is gone: tell, and start it after a while */
static void died(Daemon *d, int status)
{
    g_autofree char *how = how_ended(status);

    forget_connection(d);
    if (g_get_monotonic_time() - d->started > GOOD_US) {
        d->pause = PAUSE_MIN_MS;
    }
    report("the storage daemon %s; it is started again in %u ms", how,
           d->pause);
    d->timer = g_timeout_add(d->pause, start_again, d);
    d->pause = MIN(2 * d->pause, PAUSE_MAX_MS);
    d->events.down(d->events.opaque);
}

static void child_ended(GPid pid, int status, gpointer opaque)
{
    Daemon *d = opaque;

    d->watch_child = 0;
    g_spawn_close_pid(pid);
    d->pid = 0;
    died(d, status);
}

/* Nobody can talk to it any more; child_ended() does the rest */
static void give_up(Daemon *d, const char *why)
{
    report("%s; the storage daemon is killed", why);
    kill(d->pid, SIGKILL);
    forget_connection(d);
}

static gboolean qmp_readable(int fd, GIOCondition condition, gpointer opaque)
{
    Daemon *d = opaque;
    g_autoptr(GError) error = NULL;

    (void)fd, (void)condition;
    if (qmp_poll(d->qmp, &error)) {
        return G_SOURCE_CONTINUE;
    }
    /* It is about to end, or it will be ended */
    d->watch_qmp = 0;
    if (!g_error_matches(error, QMP_ERROR, QMP_ERROR_CLOSED)) {
        give_up(d, error->message);
    }
    return G_SOURCE_REMOVE;
}

/* Its monitor, when it is up; NULL with @error: then it is gone */
static Qmp *come_up(Daemon *d, bool trial, GPid *pid, GError **error)
{
    g_autofree char *how = NULL;
    g_autoptr(GError) why = NULL;
    int fd, status = 0;
    bool closed;
    Qmp *qmp;

    if (!spawn(d, trial, pid, &fd, error)) {
        return NULL;
    }
    qmp = qmp_new_fd(fd, "storage daemon", START_MS, &why);
    if (!qmp) {
        closed = g_error_matches(why, QMP_ERROR, QMP_ERROR_CLOSED);
        reap(*pid, closed ? 0 : SIGKILL, &status);
        *pid = 0;
        how = how_ended(status);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "the storage daemon does not start: it %s (%s)", how,
                    closed ? "it has said why" : why->message);
    }
    return qmp;
}

bool daemon_start(Daemon *d, GError **error)
{
    d->started = g_get_monotonic_time();
    d->qmp = come_up(d, false, &d->pid, error);
    if (!d->qmp) {
        return false;
    }
    qmp_set_handler(d->qmp, d->events.event, d->events.opaque);
    d->watch_child = g_child_watch_add(d->pid, child_ended, d);
    d->watch_qmp = g_unix_fd_add(qmp_fd(d->qmp), G_IO_IN | G_IO_HUP,
                                 qmp_readable, d);
    d->events.up(d->events.opaque);
    return true;
}

static gboolean start_again(gpointer opaque)
{
    Daemon *d = opaque;
    g_autoptr(GError) error = NULL;

    d->timer = 0;
    if (!daemon_start(d, &error)) {
        report("%s; it is tried again in %u ms", error->message, d->pause);
        d->timer = g_timeout_add(d->pause, start_again, d);
        d->pause = MIN(2 * d->pause, PAUSE_MAX_MS);
    }
    return G_SOURCE_REMOVE;
}

void daemon_stop(Daemon *d)
{
    int status;

    clear_source(&d->timer);
    clear_source(&d->watch_child);
    forget_connection(d);
    if (d->pid && !reap(d->pid, SIGTERM, &status)) {
        report("the storage daemon did not end within %d s and was killed",
               STOP_MS / 1000);
    }
    d->pid = 0;
}

bool daemon_restart(Daemon *d, GError **error)
{
    GPid pid;
    int status;
    Qmp *qmp = come_up(d, true, &pid, error);

    if (!qmp) {
        return false;
    }
    qmp_free(qmp);
    reap(pid, SIGTERM, &status);
    daemon_stop(d);
    d->events.down(d->events.opaque);
    d->pause = PAUSE_MIN_MS;
    start_again(d);
    return true;
}

void daemon_free(Daemon *d)
{
    if (d) {
        daemon_stop(d);
        g_strfreev(d->arguments);
        g_free(d->nbd);
        g_free(d);
    }
}

JsonNode *daemon_command(Daemon *d, const char *command, JsonObject *arguments,
                         GError **error)
{
    g_autoptr(GError) why = NULL;
    JsonNode *value;

    if (!d->qmp) {
        g_clear_pointer(&arguments, json_object_unref);
        g_set_error(error, QMP_ERROR, QMP_ERROR_CLOSED,
                    "the storage daemon does not run");
        return NULL;
    }
    value = qmp_command(d->qmp, command, arguments, DAEMON_DEADLINE_MS, &why);
    if (!value) {
        if (!g_error_matches(why, QMP_ERROR, QMP_ERROR_COMMAND)) {
            give_up(d, why->message);
        }
        g_propagate_error(error, g_steal_pointer(&why));
    }
    return value;
}

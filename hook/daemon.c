/*
 * The storage daemon of a desktop whose disk comes by vhost-user
 *
 * It runs from prepare to release, as QEMU's user, and is spoken to on the
 * monitor socket that the metadata names.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hook.h"
#include "cli/desktop/blockdev.h"
#include "cli/json-member.h"
#include "cli/program.h"
#include "cli/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#define ANSWER_MS       2000    /* of a daemon that has to be asked */
#define QUIT_MS         2000    /* of one that is in the way of a start */

static char *pid_path(const Hook *h)
{
    g_autofree char *folder = g_path_get_dirname(h->d->monitor);

    return g_build_filename(folder, "daemon.pid", NULL);
}

static bool is_gone(const char *monitor)
{
    return access(monitor, F_OK) < 0 && errno == ENOENT;
}

static char *chardev_option(const Hook *h)
{
    return g_strdup_printf("socket,id=qmp,path=%s,server=on,wait=off",
                           h->d->monitor);
}

/* The file is QEMU's user's, and could name anybody: is it this daemon? */
static bool is_daemon(const Hook *h, pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", (int)pid);
    g_autofree char *option = chardev_option(h);
    g_autofree char *line = NULL;
    gsize length;

    if (!g_file_get_contents(path, &line, &length, NULL)) {
        return false;
    }
    for (char *word = line; word < line + length; word += strlen(word) + 1) {
        if (!strcmp(word, option)) {
            return true;
        }
    }
    return false;
}

/* To its process; -1 if there is none */
static int open_daemon(const Hook *h, const char *path)
{
    g_autofree char *text = NULL;
    pid_t pid = 0;
    int fd = -1;

    if (g_file_get_contents(path, &text, NULL, NULL)) {
        pid = atoi(text);
        fd = pid > 1 ? syscall(SYS_pidfd_open, pid, 0) : -1;
    }
    if (fd >= 0 && !is_daemon(h, pid)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int ms_until(gint64 until)
{
    gint64 left = (until - g_get_monotonic_time()) / 1000;

    return CLAMP(left, 0, deadline_left());
}

/*
 * Until its process has ended: only then has nobody the disk. @fd is of its
 * process, or -1 where that is not known: then its pid file tells, which it
 * removes shortly before it ends.
 */
static bool wait_gone(const char *pid, int fd, gint64 until, GError **error)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    bool gone = fd >= 0 ? poll(&p, 1, ms_until(until)) == 1 : is_gone(pid);

    while (!gone && fd < 0 && g_get_monotonic_time() < until) {
        g_usleep(2000);
        gone = is_gone(pid);
    }
    if (!gone) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
                    "it was told to quit and has not: see what keeps it");
    }
    return gone;
}

/* Have it quit before the monotonic time @until */
static bool quit(const Hook *h, gint64 until, GError **error)
{
    g_autofree char *pid = pid_path(h);
    g_autoptr(GError) why = NULL;
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(Qmp) qmp = NULL;
    bool done;
    int fd;

    if (is_gone(h->d->monitor)) {
        return true;
    }
    qmp = qmp_connect(h->d->monitor, MIN(ANSWER_MS, ms_until(until)), &why);
    if (g_error_matches(why, QMP_ERROR, QMP_ERROR_CONNECT)) {
        unlink(h->d->monitor);          /* left over by one that was killed */
        unlink(pid);
        return true;
    }
    if (!qmp) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    fd = open_daemon(h, pid);
    answer = qmp_execute(qmp, ms_until(until), error, "quit", NULL);
    done = answer && wait_gone(pid, fd, until, error);
    if (fd >= 0) {
        close(fd);
    }
    return done;
}

bool daemon_stop(const Hook *h, GError **error)
{
    return quit(h, deadline_time(), error);
}

/*
 * One that does not quit has the disk, and keeps the desktop from starting. What
 * it was to have flushed is as after a loss of power.
 */
static bool end(const Hook *h, GError **error)
{
    g_autofree char *path = pid_path(h);
    int fd = open_daemon(h, path);
    struct pollfd p = { .fd = fd, .events = POLLIN };
    bool done;

    done = fd >= 0 &&
           syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0 &&
           poll(&p, 1, deadline_left() / 2) == 1;
    if (fd >= 0) {
        close(fd);
    }
    if (done) {
        say(LOG_WARNING, MESSAGE_DAEMON,
            "a storage daemon of an earlier start did not quit "
            "(%s); it was killed", (*error)->message);
        g_clear_error(error);
        unlink(h->d->monitor);
        unlink(path);
    }
    return done;
}

static bool spawn(const Hook *h, GError **error)
{
    const DesktopMetadata *d = h->d;
    g_autofree char *program = program_qsd();
    g_autofree char *disk = desktop_blockdev(d, error);
    g_autofree char *tls = desktop_tls_object(d);
    g_autofree char *pid = pid_path(h);
    g_autofree char *chardev = chardev_option(h);
    g_autofree char *export = NULL;

    if (!disk) {
        return false;
    }
    export = g_strdup_printf("vhost-user-blk,id=%s,node-name=%s,writable=on,"
                             "addr.type=unix,addr.path=%s", d->node, d->node,
                             h->vhost);
    unlink(h->vhost);
    return run_program((const char *[]) {
        program, "--daemonize", "--pidfile", pid, "--blockdev", disk,
        "--export", export, "--chardev", chardev, "--monitor", "chardev=qmp",
        tls ? "--object" : NULL, tls, NULL }, h, error);
}

/* The power-on of a pooled disk; it also takes the version that is assigned */
static bool power_on(const Hook *h, GError **error)
{
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(Qmp) qmp = qmp_connect(h->d->monitor, deadline_left(), error);

    if (!qmp) {
        return false;
    }
    if (h->d->lifetime != LIFETIME_POOLED) {
        return true;
    }
    answer = qmp_execute(qmp, deadline_left(), error, "vdisk-reset",
                         "node-name", h->d->node, NULL);
    return answer != NULL;
}

bool daemon_start(const Hook *h, GError **error)
{
    if (!h->vhost) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the domain has no vhost-user disk, and its metadata says "
                    "it has: make the desktop anew");
        return false;
    }
    if (!quit(h, g_get_monotonic_time() + QUIT_MS * 1000, error) &&
        !end(h, error)) {
        g_prefix_error(error, "one is there already: ");
        return false;
    }
    return spawn(h, error) && power_on(h, error);
}

/* What a disk runs on, by query-vdisks */
static JsonObject *find_disk(JsonNode *answer, const char *node)
{
    JsonArray *disks = answer && JSON_NODE_HOLDS_ARRAY(answer)
                       ? json_node_get_array(answer) : NULL;

    for (guint i = 0; disks && i < json_array_get_length(disks); i++) {
        JsonObject *o = element_object(disks, i);

        if (!g_strcmp0(member_string(o, "node-name"), node)) {
            return o;
        }
    }
    return NULL;
}

static bool runs_on_wanted(const DesktopMetadata *d, JsonObject *disk)
{
    int64_t version = 0;

    if (d->model == MODEL_MCS) {
        return !g_strcmp0(member_string(member_object(disk, "image"),
                                        "filename"), d->wanted.image);
    }
    return member_int(member_object(disk, "pvs"), "version", &version) &&
           (uint64_t)version == d->wanted.number;
}

void started(const Hook *h)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(Qmp) qmp = NULL;
    JsonObject *disk;

    if (h->d->lifetime != LIFETIME_POOLED || !h->d->wanted.number) {
        return;
    }
    qmp = qmp_connect(h->d->monitor, deadline_left(), &error);
    answer = qmp ? qmp_execute(qmp, deadline_left(), &error, "query-vdisks",
                               NULL) : NULL;
    disk = find_disk(answer, h->d->node);
    if (!disk) {
        say(LOG_WARNING, MESSAGE_UNPREPARED, "what it runs on is not known: %s",
            error ? error->message : "it has no such disk");
    } else if (!runs_on_wanted(h->d, disk)) {
        say(LOG_WARNING, MESSAGE_STAYS,
            "it could not take version %" PRIu64 " and runs on "
            "what it had before; 'deskcast status' shows what that is, and "
            "the log of QEMU why", h->d->wanted.number);
    }
}

/*
 * What the hook has to say, and the programs that it runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hook.h"
#include "cli/desktop/xml.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#define KILL_MS     200     /* of what deadline_left() leaves when it is 0 */

static const char *guest;
static int log_fd = -1;

void say_begin(const char *name, bool anew)
{
    g_autofree char *file = g_strconcat(name, ".log", NULL);
    g_autofree char *path = g_build_filename(DESKTOP_RUN_DIR, file, NULL);

    guest = name;
    if (strchr(name, '/')) {
        return;
    }
    mkdir(DESKTOP_RUN_DIR, 0755);
    log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC |
                  O_NOFOLLOW | (anew ? O_TRUNC : 0), 0644);
}

void say(int priority, const char *id, const char *format, ...)
{
    g_autofree char *text = NULL, *line = NULL, *field = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    line = g_strdup_printf("desktop '%s': %s\n", guest, text);
    if (priority <= LOG_WARNING) {
        fputs(line, stderr);
    }
    field = g_strdup_printf("MESSAGE_ID=%s", id ? id : "");
    sd_journal_send("MESSAGE=desktop '%s': %s", guest, text, "PRIORITY=%i",
                    priority, "SYSLOG_IDENTIFIER=deskcast-hook",
                    "DESKCAST_DESKTOP=%s", guest,
                    id ? "%s" : NULL, field, NULL);
    if (log_fd >= 0 && write(log_fd, line, strlen(line)) < 0) {
        return;                         /* it was said elsewhere */
    }
}

/* Not to the journal, which may be what hangs */
void say_gave_up(void)
{
    static const char text[] = "deskcast-hook: gave up after 5 s: something "
                               "that it needs does not answer\n";

    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ||
        (log_fd >= 0 && write(log_fd, text, sizeof(text) - 1) < 0)) {
        return;
    }
}

bool hook_errno(GError **error, const char *what, const char *path)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                "cannot %s '%s': %s", what, path, g_strerror(saved));
    return false;
}

bool hook_give(const Hook *h, const char *path, GError **error)
{
    return h->uid == (uid_t)-1 ||
           lchown(path, h->uid, h->gid) == 0 ||
           hook_errno(error, "give QEMU's user", path);
}

/* In the child; what fails there ends it */
static void become(gpointer opaque)
{
    const Hook *h = opaque;

    setsid();
    if (h && h->uid != (uid_t)-1 && geteuid() == 0 &&
        (setgroups(1, &h->gid) < 0 || setgid(h->gid) < 0 ||
         setuid(h->uid) < 0)) {
        _exit(126);
    }
    umask(077);
}

/* What it says until it ends, or the time is up; false then */
static bool listen_to(int fd, GString *said)
{
    char buf[1024];
    ssize_t n = 1;

    while (n > 0 && said->len < 65536) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int ready = poll(&p, 1, deadline_left());

        if (ready == 0) {
            return false;
        }
        n = ready > 0 ? read(fd, buf, sizeof(buf)) : errno == EINTR;
        if (ready > 0 && n > 0) {
            g_string_append_len(said, buf, n);
        }
    }
    return true;
}

/*
 * False if it does not end: one that waits for a disk cannot be killed before
 * the disk has answered. Then it is init's.
 */
static bool reap(GPid pid, int *status, gint64 until)
{
    pid_t done;

    while ((done = waitpid(pid, status, until ? WNOHANG : 0)) != pid) {
        if (done < 0 && errno != EINTR) {
            return false;
        }
        if (done == 0) {
            if (g_get_monotonic_time() >= until) {
                return false;
            }
            g_usleep(2000);
        }
    }
    return true;
}

bool run_program(const char *const *argv, const Hook *h, GError **error)
{
    g_autoptr(GString) said = g_string_new(NULL);
    bool in_time, ended;
    GPid pid;
    int fd, status;

    if (!g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                  G_SPAWN_DO_NOT_REAP_CHILD |
                                  G_SPAWN_SEARCH_PATH |
                                  G_SPAWN_STDOUT_TO_DEV_NULL,
                                  become, (gpointer)h, &pid, NULL, NULL, &fd,
                                  error)) {
        return false;
    }
    in_time = listen_to(fd, said);
    close(fd);
    if (!in_time) {
        kill(pid, SIGKILL);
    }
    ended = reap(pid, &status, in_time ? 0
                 : g_get_monotonic_time() + KILL_MS * 1000);
    if (in_time && ended && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, in_time ? G_IO_ERROR_FAILED
                                           : G_IO_ERROR_TIMED_OUT,
                "%s%s", in_time ? "" : "took too long: ",
                said->len ? g_strstrip(said->str) : argv[0]);
    return false;
}

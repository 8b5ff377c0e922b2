/*
 * Kill test: a storage daemon that forgets what was not flushed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include "block/pvs/label.h"
#include "kill.h"

#define START_MS        60000
#define LOOK_MS         1

void server_make(Server *s)
{
    int fd = open(s->image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok;

    assert(!s->pid && fd >= 0);
    s->content = s->content ?: g_malloc(DISK_BYTES);
    stamp_fill(s->content, 0, SECTORS, STAMP_BASE);
    ok = pwrite(fd, s->content, DISK_BYTES, 0) == DISK_BYTES &&
         ftruncate(fd, label_offset(DISK_BYTES) + LABEL_BYTES) == 0;
    assert(ok);
    close(fd);
}

static G_NORETURN void run_daemon(const Server *s, unsigned evict)
{
    g_autofree char *percent = g_strdup_printf("%u", evict);
    g_autofree char *disk = g_strdup_printf(
        "{\"driver\":\"raw\",\"node-name\":\"disk\",\"discard\":\"unmap\","
        "\"file\":{\"driver\":\"file\",\"filename\":\"%s\",\"aio\":\"threads\","
        "\"discard\":\"unmap\",\"locking\":\"on\"}}", s->image);
    g_autofree char *server = g_strdup_printf(
        "addr.type=unix,addr.path=%s,max-connections=0", s->socket);
    int log = open(s->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Whoever leaves a group with a process that is stopped has it hung up */
    setsid();
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    setenv("LD_PRELOAD", s->module, 1);
    setenv("VOLATILE_IMAGE", s->image, 1);
    setenv("VOLATILE_EVICT", percent, 1);
    execl(s->daemon, s->daemon, "--blockdev", disk, "--nbd-server", server,
          "--export", "{\"type\":\"nbd\",\"id\":\"e\",\"node-name\":\"disk\","
          "\"name\":\"" VDISK "\",\"writable\":true,\"exclusive\":true}",
          NULL);
    _exit(127);
}

static bool answers(const Server *s)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok;

    g_strlcpy(address.sun_path, s->socket, sizeof(address.sun_path));
    ok = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return ok;
}

bool server_start(Server *s, unsigned evict)
{
    unlink(s->socket);
    s->pid = fork();
    if (s->pid == 0) {
        run_daemon(s, evict);
    }
    for (int ms = 0; s->pid > 0 && ms < START_MS; ms += LOOK_MS) {
        if (answers(s)) {
            return true;
        }
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
            s->pid = 0;
        }
        g_usleep(LOOK_MS * 1000);
    }
    note("the store does not run; see %s", s->log);
    return false;
}

void server_kill(Server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    s->pid = 0;
}

/* False: it has ended by itself. All of its threads are between calls then. */
static bool server_stop(Server *s)
{
    int status;

    kill(s->pid, SIGSTOP);
    if (waitpid(s->pid, &status, WUNTRACED) == s->pid && WIFSTOPPED(status)) {
        return true;
    }
    note("the store ended by itself, with status 0x%x; see %s", status, s->log);
    s->pid = 0;
    return false;
}

const uint8_t *server_read(Server *s)
{
    int fd = open(s->image, O_RDONLY | O_CLOEXEC);
    bool runs = s->pid > 0;
    bool ok = !runs || server_stop(s);

    ok = pread(fd, s->content, DISK_BYTES, 0) == DISK_BYTES && ok;
    if (ok && runs) {
        kill(s->pid, SIGCONT);
    }
    close(fd);
    return ok ? s->content : NULL;
}

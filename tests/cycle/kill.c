/*
 * Cycle test: what kills the process, and what goes on outside of it
 *
 * The page cache survives a process, so that only what it has written, and in
 * which order, makes a difference. The system calls that write are taken over,
 * to die right before or after any of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "qemu/error-report.h"
#include "qemu/thread.h"
#include "monitor/monitor.h"
#include "system/runstate.h"
#include "desk.h"

static int points_left;     /* atomic */

void kill_now(void)
{
    kill(getpid(), SIGKILL);
    abort();
}

void kill_at_write(unsigned n)
{
    qatomic_set(&points_left, n);
}

static void *killer(void *opaque)
{
    g_usleep((uintptr_t)opaque);
    kill_now();
}

void kill_after(unsigned us)
{
    QemuThread thread;

    qemu_thread_create(&thread, "killer", killer, (void *)(uintptr_t)us,
                       QEMU_THREAD_DETACHED);
}

static void point(void)
{
    if (qatomic_read(&points_left) > 0 &&
        qatomic_dec_fetch(&points_left) == 0) {
        kill_now();
    }
}

static long with_points(long ret)
{
    point();
    return ret;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    point();
    return with_points(syscall(SYS_pwrite64, fd, buf, n, offset));
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    point();
    /* On a 64-bit host all of the offset is in the fourth argument */
    return with_points(syscall(SYS_pwritev, fd, iov, n, offset, 0));
}

int fdatasync(int fd)
{
    point();
    return with_points(syscall(SYS_fdatasync, fd));
}

int ftruncate(int fd, off_t length)
{
    point();
    return with_points(syscall(SYS_ftruncate, fd, length));
}

/* In place of QEMU's stubs: a machine that resumes a saved state */

bool machine_incoming;
bool machine_quiet;
const uint8_t *machine_token;

bool runstate_check(RunState state)
{
    return state == (machine_incoming ? RUN_STATE_INMIGRATE :
                                        RUN_STATE_PRELAUNCH);
}

int error_vprintf(const char *fmt, va_list ap)
{
    return machine_quiet ? 0 : vfprintf(stderr, fmt, ap);
}

int error_vprintf_unless_qmp(const char *fmt, va_list ap)
{
    return error_vprintf(fmt, ap);
}

void vdisk_reset_register(void)
{
}

bool vdisk_saved_received(const uint8_t *token)
{
    return machine_token && !memcmp(machine_token, token, VDISK_TOKEN_BYTES);
}

bool vdisk_is_migrating(void)
{
    return false;
}

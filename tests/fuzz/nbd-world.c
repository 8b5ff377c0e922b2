/*
 * The world of fuzz-nbd: clock, threads and connections
 *
 * Each function that begins with __wrap_ takes the place of one of QEMU's or of
 * the C library's, by the linker.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-sockets.h"
#include "block/block.h"
#include "block/aio.h"
#include "exec/replay-core.h"
#include "monitor/monitor.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/sockets.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "nbd-world.h"

/* Where the clock begins; any time but 0, which is "never" to some */
#define BEGIN       (1000 * NANOSECONDS_PER_SECOND)
/* That polling takes */
#define STEP        (10 * SCALE_US)

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __real_qemu_poll_ns(GPollFD *fds, guint n, int64_t timeout);
void __real_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*start)(void *), void *arg, int mode);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_qemu_poll_ns(GPollFD *fds, guint n, int64_t timeout);
void __wrap_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*start)(void *), void *arg, int mode);
AioContext *__wrap_iohandler_get_aio_context(void);
int __wrap_socket_connect_timeout(SocketAddress *addr, uint32_t timeout_ms,
                                  Error **errp);

static bool ours;               /* the clock is */
static int64_t now = BEGIN;
static unsigned connecting;     /* threads that would be */

/* Clock */

int64_t world_now(void)
{
    return now - BEGIN;
}

/* libFuzzer's own clock is the other one */
int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    if (!ours || id != CLOCK_MONOTONIC) {
        return __real_clock_gettime(id, ts);
    }
    ts->tv_sec = now / NANOSECONDS_PER_SECOND;
    ts->tv_nsec = now % NANOSECONDS_PER_SECOND;
    return 0;
}

int __wrap_qemu_poll_ns(GPollFD *fds, guint n, int64_t timeout)
{
    int ret;

    if (!ours) {
        return __real_qemu_poll_ns(fds, n, timeout);
    }
    now += STEP;
    ret = __real_qemu_poll_ns(fds, n, 0);
    if (ret == 0) {
        /* Who waits without a timer now waits for ever */
        assert(timeout >= 0);
        now += timeout;
    }
    return ret;
}

/* Threads */

typedef struct Thread {
    void *(*start)(void *);
    void *arg;
} Thread;

static void coroutine_fn thread_entry(void *opaque)
{
    g_autofree Thread *t = opaque;

    t->start(t->arg);
    connecting--;
}

void __wrap_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*start)(void *), void *arg, int mode)
{
    Thread *t;

    if (strcmp(name, "nbd-connect")) {
        __real_qemu_thread_create(thread, name, start, arg, mode);
        return;
    }
    t = g_new(Thread, 1);
    *t = (Thread) { .start = start, .arg = arg };
    connecting++;
    aio_co_schedule(qemu_get_aio_context(),
                    qemu_coroutine_create(thread_entry, t));
}

/* What it waits for in real life may come sooner: not seen here */
static bool timedwait(QemuCond *cond, QemuMutex *mutex, int ms,
                      const char *file, int line)
{
    if (!qemu_in_coroutine()) {
        return qemu_cond_timedwait_impl(cond, mutex, ms, file, line);
    }
    qemu_mutex_unlock(mutex);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, ms * (int64_t)SCALE_MS);
    qemu_mutex_lock(mutex);
    return false;
}

/* What a coroutine reads from runs where the nodes do, which is polled */
AioContext *__wrap_iohandler_get_aio_context(void)
{
    return qemu_get_aio_context();
}

/* Connections */

int __wrap_socket_connect_timeout(SocketAddress *addr, uint32_t timeout_ms,
                                  Error **errp)
{
    int fds[2];

    assert(addr->type == SOCKET_ADDRESS_TYPE_UNIX);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                   fds) < 0) {
        error_setg_errno(errp, errno, "socketpair");
        return -1;
    }
    world_connected(addr->u.q_unix.path, fds[1]);
    return fds[0];
}

/* Nobody reads what is said of each connection */
int error_vprintf(const char *fmt, va_list ap)
{
    return 0;
}

int error_vprintf_unless_qmp(const char *fmt, va_list ap)
{
    return 0;
}

/* Without a system emulator QEMU has no stubs of these */
int replay_read_random(void *buf, size_t len)
{
    return 0;
}

void replay_save_random(int ret, void *buf, size_t len)
{
}

void world_init(void)
{
    sigset_t alarm;

    signal(SIGPIPE, SIG_IGN);
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    qemu_cond_timedwait_func = timedwait;
    /* libFuzzer's, which QEMU would read from a descriptor */
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
}

void world_begin(void)
{
    g_random_set_seed(1);
    now = BEGIN;
    ours = true;
}

void world_end(void)
{
    while (connecting) {
        aio_poll(qemu_get_aio_context(), true);
    }
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* What is due */
    }
    assert(!bdrv_next_all_states(NULL));
    ours = false;
}

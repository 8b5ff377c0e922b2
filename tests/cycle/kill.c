/*
 * Cycle test: what kills the process, and what goes on outside of it
 *
 * The page cache survives a process, so that only what it has written, and in
 * which order, makes a difference: tests/kill/points.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/thread.h"
#include "monitor/monitor.h"
#include "system/runstate.h"
#include "../kill/points.h"
#include "desk.h"

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

void vdisk_report_inactivate(Error *err)
{
    error_report_err(err);
}

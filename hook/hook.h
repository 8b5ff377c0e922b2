/*
 * deskcast-hook: what libvirt runs before a desktop starts and after it ends
 *
 *   prepare/begin  one writer of a private vDisk; the identity disk is there
 *   start/begin    the disk is there and takes the wanted version; with
 *                  vhost-user, a daemon that has it
 *   started/begin  says if the desktop does not run on what is wanted
 *   release/end    ends the daemon; says what a private vDisk has not shipped
 *
 * It never calls libvirt, which waits for it. All of a run has one deadline.
 * What goes wrong is told, and does not keep a desktop from starting, but for
 * three cases: a second writer of a private vDisk; no disk, and none could be
 * made; no daemon, and none could be started. In the last two QEMU could not
 * start either, and would not know why.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HOOK_HOOK_H
#define HOOK_HOOK_H

#include "cli/desktop/metadata.h"
#include "cli/message-id.h"

#include <sys/types.h>

/* Of all that one call does; journal_make_ms() more, once, where a reconnect
 * buffer is made */
#define HOOK_DEADLINE_MS    5000

/* The desktop that it is called for */
typedef struct Hook {
    const char *guest;          /* libvirt's name of it */
    char *uuid;
    char *vhost;                /* socket of the daemon, or NULL */
    uid_t uid;                  /* QEMU's; -1: as we are */
    gid_t gid;
    DesktopMetadata *d;
} Hook;

/* Milliseconds until the deadline; 0 when it has come */
void deadline_start(int ms);
int deadline_left(void);
void deadline_extend(int ms);
int deadline_limit(void);               /* ms from its start, in all */
gint64 deadline_time(void);             /* of g_get_monotonic_time() */

/*
 * To the journal, to standard error, which libvirt shows if we fail, and to
 * /run/deskcast/GUEST.log, which has what the last start and end said. @id: of
 * message-id.h, or NULL.
 */
void say_begin(const char *guest, bool anew);
void say(int priority, const char *id, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
void say_gave_up(void);         /* from any thread */

/* Run @argv, as QEMU's user if @h is not NULL; what it says is @error */
bool run_program(const char *const *argv, const Hook *h, GError **error);

/* Each returns false with @error */
bool place_prepare(const Hook *h, GError **error);      /* for its files */
bool disk_prepare(const Hook *h, GError **error);       /* it is there */
bool disk_take_version(const Hook *h, GError **error);
bool identity_prepare(const Hook *h, GError **error);
bool folder_prepare(const Hook *h, GError **error);     /* of its sockets */
bool daemon_start(const Hook *h, GError **error);
bool daemon_stop(const Hook *h, GError **error);
/* G_IO_ERROR_BUSY: there is another one; its text says who */
bool writer_enter(const Hook *h, GError **error);
void writer_leave(const Hook *h);
void started(const Hook *h);
void report_buffer(const Hook *h);

/* Sets @error from errno; false */
bool hook_errno(GError **error, const char *what, const char *path);
/* Give it to QEMU; nothing if that is who we are */
bool hook_give(const Hook *h, const char *path, GError **error);

#endif /* HOOK_HOOK_H */

/*
 * The storage daemon that serves, as a child
 *
 *   stopped --start--> running --it died--> waiting --a while--> running
 *                         |
 *                         +--daemon_stop()--> stopped
 *
 * It inherits the socket that it accepts clients on, so those who come while
 * it is started anew wait instead of being turned away, and it ends with us.
 * What it has to say goes to our standard error. It runs in the main loop of
 * the default context, and all calls are for that thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_DAEMON_H
#define CLI_SERVE_DAEMON_H

#include "cli/qmp.h"

/* A command that takes longer tells of a daemon that hangs: it is killed */
#define DAEMON_DEADLINE_MS      60000

typedef struct Daemon Daemon;

typedef struct DaemonEvents {
    /* It runs, and has nothing: no nodes, no exports */
    void (*up)(void *opaque);
    /* It is gone; daemon_qmp() is NULL */
    void (*down)(void *opaque);
    QmpEventHandler *event;
    void *opaque;
} DaemonEvents;

/*
 * @arguments: what it gets besides its monitor and the NBD server;
 * @nbd: options of that server after its address, "" if none. Both are copied.
 * @listen_fd: a socket that listens; stays the caller's.
 */
Daemon *daemon_new(const char *const *arguments, const char *nbd, int listen_fd,
                   const DaemonEvents *events);

/* Ends it first. */
void daemon_free(Daemon *d);

/* Start it, for the first time: false with @error if it does not come up. */
bool daemon_start(Daemon *d, GError **error);

/* End it in order: what it keeps is written. Killed after some time. */
void daemon_stop(Daemon *d);

/*
 * End it, and start it again, so that it reads its files anew. If it would not
 * start with them, it stays as it is: false with @error.
 */
bool daemon_restart(Daemon *d, GError **error);

/* NULL while it does not run */
Qmp *daemon_qmp(Daemon *d);

/*
 * Execute a command; @arguments is taken. If the connection breaks or the
 * daemon hangs, it is killed and started anew. NULL with @error.
 */
JsonNode *daemon_command(Daemon *d, const char *command, JsonObject *arguments,
                         GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Daemon, daemon_free)

#endif /* CLI_SERVE_DAEMON_H */

/*
 * QMP over a Unix socket, as a client that never waits for ever
 *
 * Every call has a deadline, in milliseconds from now. One thread at a time
 * uses a connection. What the peer says is bounded in length and in depth
 * (json-read.h); errors name the socket and the reason.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_QMP_H
#define CLI_QMP_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

#define QMP_MAX_LINE        (32 << 20)  /* of one answer or event, in bytes */
#define QMP_MAX_EVENTS      4096        /* kept; then the oldest are dropped */

#define QMP_ERROR (qmp_error_quark())
GQuark qmp_error_quark(void);

typedef enum QmpError {
    QMP_ERROR_CONNECT,      /* nobody listens there */
    QMP_ERROR_TIMEOUT,      /* no answer until the deadline */
    QMP_ERROR_CLOSED,       /* the peer has gone away */
    QMP_ERROR_PROTOCOL,     /* what it said is no QMP, or too much */
    QMP_ERROR_COMMAND,      /* it refused the command; its text is in message */
} QmpError;

typedef struct Qmp Qmp;

/*
 * Connect and negotiate. A monitor serves one client: that another one has it
 * shows as QMP_ERROR_TIMEOUT, and the message says so.
 */
Qmp *qmp_connect(const char *path, int timeout_ms, GError **error);

/* The same on a connected socket, which is closed in any case; @name is for
 * messages. */
Qmp *qmp_new_fd(int fd, const char *name, int timeout_ms, GError **error);
void qmp_free(Qmp *qmp);

/*
 * Execute @command; @arguments is taken, and may be NULL. What it returned, or
 * NULL. After QMP_ERROR_COMMAND, and after a QMP_ERROR_TIMEOUT in which the
 * command was sent whole, the connection can be used; an answer that comes too
 * late is thrown away. After another error qmp_broken() is true.
 */
JsonNode *qmp_command(Qmp *qmp, const char *command, JsonObject *arguments,
                      int timeout_ms, GError **error);

/* The same with arguments that are strings: name, value, ..., NULL */
JsonNode *qmp_execute(Qmp *qmp, int timeout_ms, GError **error,
                      const char *command, ...) G_GNUC_NULL_TERMINATED;

/* Was an error so bad that all later calls will fail? */
bool qmp_broken(const Qmp *qmp);

/*
 * Events are kept, in order, until they are taken. An event is the object
 * that came: "event", "timestamp" and maybe "data".
 *
 * A handler gets them instead of qmp_take_event() and qmp_wait_event(), from
 * within the calls of this file: it must not call them itself.
 */
typedef void QmpEventHandler(JsonObject *event, void *opaque);
void qmp_set_handler(Qmp *qmp, QmpEventHandler *handler, void *opaque);

/* The oldest that was kept; NULL if there is none. Does not wait. */
JsonObject *qmp_take_event(Qmp *qmp);

/*
 * Wait for an event @name (NULL: any) that @match (NULL: all) agrees to, and
 * take it; others stay. Events that were kept before count.
 */
typedef bool QmpEventMatch(JsonObject *data, const void *opaque);
JsonObject *qmp_wait_event(Qmp *qmp, const char *name, QmpEventMatch *match,
                           const void *opaque, int timeout_ms, GError **error);

/*
 * For a main loop: when qmp_fd() is readable, qmp_poll() takes in what is
 * there without waiting. False, with @error, if the connection is broken.
 */
int qmp_fd(const Qmp *qmp);
bool qmp_poll(Qmp *qmp, GError **error);

/* How many events were dropped because nobody took them */
unsigned qmp_dropped_events(const Qmp *qmp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Qmp, qmp_free)

#endif /* CLI_QMP_H */

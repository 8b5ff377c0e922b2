/*
 * QMP over a Unix socket
 *
 *   connect -> greeting -> qmp_capabilities -> commands, one at a time
 *
 * The peer sends lines; one is an answer to the command of its id, or an
 * event. An answer of another id belongs to a command that was given up.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qmp.h"

#include "json-member.h"
#include "json-read.h"

#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/un.h>

#define CHUNK           65536
#define CONNECT_RETRY   10      /* ms, while the queue of a listener is full */

struct Qmp {
    GSocket *socket;
    char *name;             /* for messages */
    GByteArray *in;         /* what was read and is no whole line yet */
    gsize scanned;          /* bytes of it that are known to have no line feed */
    GQueue events;          /* JsonObject */
    unsigned dropped;
    QmpEventHandler *handler;
    void *opaque;
    gint64 id;              /* of the last command */
    bool broken;
};

G_DEFINE_QUARK(deskcast-qmp-error, qmp_error)

static gint64 deadline_in(int timeout_ms)
{
    return g_get_monotonic_time() + timeout_ms * (gint64)1000;
}

/* Ends the connection for all later calls */
static bool fail(Qmp *qmp, GError **error, QmpError code, const char *why)
{
    qmp->broken = true;
    g_set_error(error, QMP_ERROR, code, "%s: %s", qmp->name, why);
    return false;
}

/* False with @error when the deadline has come or the wait itself failed */
static bool wait_for(Qmp *qmp, GIOCondition condition, gint64 deadline,
                     const char *what, GError **error)
{
    gint64 left = deadline - g_get_monotonic_time();
    g_autoptr(GError) why = NULL;

    /* A peer that never stops talking is late, too */
    if (left > 0 && g_socket_condition_timed_wait(qmp->socket, condition, left,
                                                  NULL, &why)) {
        return true;
    }
    if (left <= 0 || g_error_matches(why, G_IO_ERROR, G_IO_ERROR_TIMED_OUT)) {
        g_set_error(error, QMP_ERROR, QMP_ERROR_TIMEOUT, "%s: %s", qmp->name,
                    what);
        return false;
    }
    return fail(qmp, error, QMP_ERROR_CLOSED, why->message);
}

static void keep_event(Qmp *qmp, JsonObject *event)
{
    if (qmp->handler) {
        qmp->handler(event, qmp->opaque);
        json_object_unref(event);
        return;
    }
    if (g_queue_get_length(&qmp->events) >= QMP_MAX_EVENTS) {
        json_object_unref(g_queue_pop_head(&qmp->events));
        qmp->dropped++;
    }
    g_queue_push_tail(&qmp->events, event);
}

/* The next whole line of what was read; NULL if there is none */
static GString *next_line(Qmp *qmp)
{
    const char *text = (const char *)qmp->in->data;
    const char *end = NULL;
    GString *line;

    if (qmp->in->len > qmp->scanned) {
        end = memchr(text + qmp->scanned, '\n', qmp->in->len - qmp->scanned);
    }
    if (!end) {
        qmp->scanned = qmp->in->len;
        return NULL;
    }
    line = g_string_new_len(text, end - text);
    g_byte_array_remove_range(qmp->in, 0, line->len + 1);
    qmp->scanned = 0;
    return line;
}

/*
 * Take in what is there. False with @error if that is nothing and never will
 * be: the peer has gone.
 */
static bool receive(Qmp *qmp, GError **error)
{
    char chunk[CHUNK];
    g_autoptr(GError) why = NULL;
    gssize n = g_socket_receive_with_blocking(qmp->socket, chunk, sizeof(chunk),
                                              FALSE, NULL, &why);

    if (n > 0) {
        if (qmp->in->len + n > QMP_MAX_LINE &&
            !memchr(chunk, '\n', n)) {
            return fail(qmp, error, QMP_ERROR_PROTOCOL,
                        "an answer is too long to be taken");
        }
        g_byte_array_append(qmp->in, (guint8 *)chunk, n);
        return true;
    }
    if (n < 0 && g_error_matches(why, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
        return true;
    }
    return fail(qmp, error, QMP_ERROR_CLOSED,
                n < 0 ? why->message : "the peer closed the connection");
}

/*
 * The next object that is no event, of what was read already. NULL if there
 * is none; then @error is set if there never will be.
 */
static JsonObject *next_answer(Qmp *qmp, GError **error)
{
    GString *next;

    while ((next = next_line(qmp))) {
        g_autoptr(GString) line = next;
        JsonObject *object;

        if (strspn(line->str, " \t\r") == line->len) {
            continue;
        }
        object = json_read_object(line->str, line->len, NULL);
        if (!object) {
            fail(qmp, error, QMP_ERROR_PROTOCOL,
                 "the peer does not speak QMP: is this the right socket?");
            return NULL;
        }
        if (!json_object_has_member(object, "event")) {
            return object;
        }
        keep_event(qmp, object);
    }
    return NULL;
}

/* Wait for an object that is no event */
static JsonObject *wait_answer(Qmp *qmp, gint64 deadline, const char *what,
                               GError **error)
{
    for (;;) {
        g_autoptr(GError) why = NULL;
        JsonObject *object = next_answer(qmp, &why);

        if (object) {
            return object;
        }
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
            return NULL;
        }
        if (!wait_for(qmp, G_IO_IN, deadline, what, error) ||
            !receive(qmp, error)) {
            return NULL;
        }
    }
}

static bool send_all(Qmp *qmp, const char *text, gint64 deadline,
                     GError **error)
{
    gsize length = strlen(text);
    gsize sent = 0;

    while (sent < length) {
        g_autoptr(GError) why = NULL;
        gssize n;

        if (!wait_for(qmp, G_IO_OUT, deadline, "the peer takes no commands",
                      error)) {
            /* Half a command would spoil the next one */
            qmp->broken |= sent > 0;
            return false;
        }
        n = g_socket_send_with_blocking(qmp->socket, text + sent, length - sent,
                                        FALSE, NULL, &why);
        if (n >= 0) {
            sent += n;
        } else if (!g_error_matches(why, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
            return fail(qmp, error, QMP_ERROR_CLOSED, why->message);
        }
    }
    return true;
}

static char *command_text(gint64 id, const char *command, JsonObject *arguments)
{
    g_autoptr(JsonObject) object = json_object_new();
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *text = NULL;

    json_object_set_string_member(object, "execute", command);
    json_object_set_int_member(object, "id", id);
    if (arguments) {
        json_object_set_object_member(object, "arguments", arguments);
    }
    json_node_set_object(node, object);
    text = json_to_string(node, FALSE);
    return g_strconcat(text, "\n", NULL);
}

static bool has_id(JsonObject *object, int64_t id)
{
    int64_t value;

    return member_int(object, "id", &value) && value == id;
}

/* What an answer says: its "return", or NULL with @error */
static JsonNode *answer_value(Qmp *qmp, const char *command, JsonObject *answer,
                              GError **error)
{
    JsonNode *value = json_object_get_member(answer, "return");
    JsonObject *refused = member_object(answer, "error");
    const char *why = refused ? member_string(refused, "desc") : NULL;

    if (value) {
        return json_node_copy(value);
    }
    if (why) {
        g_set_error(error, QMP_ERROR, QMP_ERROR_COMMAND, "%s: %s: %s",
                    qmp->name, command, why);
        return NULL;
    }
    fail(qmp, error, QMP_ERROR_PROTOCOL, "an answer that is no answer");
    return NULL;
}

JsonNode *qmp_command(Qmp *qmp, const char *command, JsonObject *arguments,
                      int timeout_ms, GError **error)
{
    g_autofree char *text = command_text(++qmp->id, command, arguments);
    g_autofree char *late = g_strdup_printf(
        "no answer to '%s' within %d ms", command, timeout_ms);
    gint64 deadline = deadline_in(timeout_ms);

    if (qmp->broken) {
        fail(qmp, error, QMP_ERROR_CLOSED, "the connection is broken");
        return NULL;
    }
    if (!send_all(qmp, text, deadline, error)) {
        return NULL;
    }
    for (;;) {
        g_autoptr(JsonObject) answer = wait_answer(qmp, deadline, late, error);

        if (!answer) {
            return NULL;
        }
        /* What cannot be parsed by the peer is answered without an id */
        if (has_id(answer, qmp->id) || !json_object_has_member(answer, "id")) {
            return answer_value(qmp, command, answer, error);
        }
    }
}

JsonNode *qmp_execute(Qmp *qmp, int timeout_ms, GError **error,
                      const char *command, ...)
{
    JsonObject *arguments = json_object_new();
    const char *name;
    va_list ap;

    va_start(ap, command);
    while ((name = va_arg(ap, const char *))) {
        json_object_set_string_member(arguments, name,
                                      va_arg(ap, const char *));
    }
    va_end(ap);
    return qmp_command(qmp, command, arguments, timeout_ms, error);
}

/* The greeting, and the end of negotiation */
static bool negotiate(Qmp *qmp, int timeout_ms, GError **error)
{
    gint64 deadline = deadline_in(timeout_ms);
    g_autoptr(JsonNode) done = NULL;
    g_autoptr(JsonObject) greeting = wait_answer(
        qmp, deadline, "no QMP greeting: the process hangs, or another client "
        "has this monitor", error);

    if (!greeting) {
        return false;
    }
    if (!member_object(greeting, "QMP")) {
        return fail(qmp, error, QMP_ERROR_PROTOCOL,
                    "the peer does not speak QMP: is this the right socket?");
    }
    timeout_ms = MAX((deadline - g_get_monotonic_time()) / 1000, 0);
    done = qmp_command(qmp, "qmp_capabilities", NULL, timeout_ms, error);
    return done != NULL;
}

/* Takes @socket */
static Qmp *qmp_new(GSocket *socket, const char *name, int timeout_ms,
                    GError **error)
{
    Qmp *qmp = g_new0(Qmp, 1);

    qmp->socket = socket;
    qmp->name = g_strdup(name);
    qmp->in = g_byte_array_new();
    g_queue_init(&qmp->events);
    g_socket_set_blocking(socket, FALSE);
    if (!negotiate(qmp, timeout_ms, error)) {
        qmp_free(qmp);
        return NULL;
    }
    return qmp;
}

Qmp *qmp_new_fd(int fd, const char *name, int timeout_ms, GError **error)
{
    g_autoptr(GError) why = NULL;
    GSocket *socket = g_socket_new_from_fd(fd, &why);

    if (!socket) {
        g_close(fd, NULL);
        g_set_error(error, QMP_ERROR, QMP_ERROR_CONNECT, "%s: %s", name,
                    why->message);
        return NULL;
    }
    return qmp_new(socket, name, timeout_ms, error);
}

/* A Unix socket is there at once, or its listener's queue is full */
static bool connect_until(GSocket *socket, GSocketAddress *address,
                          gint64 deadline, GError **error)
{
    g_socket_set_blocking(socket, FALSE);
    for (;;) {
        g_autoptr(GError) why = NULL;

        if (g_socket_connect(socket, address, NULL, &why)) {
            return true;
        }
        if (!g_error_matches(why, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK) &&
            !g_error_matches(why, G_IO_ERROR, G_IO_ERROR_PENDING)) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        if (g_get_monotonic_time() >= deadline) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
                        "too many clients wait for this socket");
            return false;
        }
        g_usleep(CONNECT_RETRY * 1000);
    }
}

Qmp *qmp_connect(const char *path, int timeout_ms, GError **error)
{
    gint64 deadline = deadline_in(timeout_ms);
    g_autoptr(GSocketAddress) address = NULL;
    g_autoptr(GSocket) socket = NULL;
    g_autoptr(GError) why = NULL;

    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        g_set_error(error, QMP_ERROR, QMP_ERROR_CONNECT,
                    "%s: the name is too long for a socket", path);
        return NULL;
    }
    address = g_unix_socket_address_new(path);
    socket = g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, 0, &why);
    if (!socket || !connect_until(socket, address, deadline, &why)) {
        bool late = g_error_matches(why, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);

        g_set_error(error, QMP_ERROR,
                    late ? QMP_ERROR_TIMEOUT : QMP_ERROR_CONNECT, "%s: %s", path,
                    why->message);
        return NULL;
    }
    timeout_ms = MAX((deadline - g_get_monotonic_time()) / 1000, 0);
    return qmp_new(g_steal_pointer(&socket), path, timeout_ms, error);
}

void qmp_free(Qmp *qmp)
{
    if (!qmp) {
        return;
    }
    g_queue_clear_full(&qmp->events, (GDestroyNotify)json_object_unref);
    g_byte_array_unref(qmp->in);
    g_object_unref(qmp->socket);
    g_free(qmp->name);
    g_free(qmp);
}

bool qmp_broken(const Qmp *qmp)
{
    return qmp->broken;
}

void qmp_set_handler(Qmp *qmp, QmpEventHandler *handler, void *opaque)
{
    JsonObject *event;

    qmp->handler = handler;
    qmp->opaque = opaque;
    while (handler && (event = qmp_take_event(qmp))) {
        keep_event(qmp, event);
    }
}

/* Keep the events of what was read, and forget answers that came too late */
static bool take_lines(Qmp *qmp, GError **error)
{
    g_autoptr(GError) why = NULL;
    JsonObject *stale;

    while ((stale = next_answer(qmp, &why))) {
        json_object_unref(stale);
    }
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    return true;
}

JsonObject *qmp_take_event(Qmp *qmp)
{
    take_lines(qmp, NULL);
    return g_queue_pop_head(&qmp->events);
}

/* Takes one that fits out of those that were kept */
static JsonObject *find_event(Qmp *qmp, const char *name, QmpEventMatch *match,
                              const void *opaque)
{
    for (GList *l = qmp->events.head; l; l = l->next) {
        JsonObject *event = l->data;
        const char *is = member_string(event, "event");

        if ((!name || !g_strcmp0(is, name)) &&
            (!match || match(member_object(event, "data"), opaque))) {
            g_queue_delete_link(&qmp->events, l);
            return event;
        }
    }
    return NULL;
}

JsonObject *qmp_wait_event(Qmp *qmp, const char *name, QmpEventMatch *match,
                           const void *opaque, int timeout_ms, GError **error)
{
    gint64 deadline = deadline_in(timeout_ms);
    g_autofree char *late = g_strdup_printf("no event %s within %d ms",
                                            name ?: "at all", timeout_ms);
    JsonObject *event;

    take_lines(qmp, NULL);
    while (!(event = find_event(qmp, name, match, opaque))) {
        if (qmp->broken) {
            fail(qmp, error, QMP_ERROR_CLOSED, "the connection is broken");
            return NULL;
        }
        if (!wait_for(qmp, G_IO_IN, deadline, late, error) ||
            !receive(qmp, error) || !take_lines(qmp, error)) {
            return NULL;
        }
    }
    return event;
}

int qmp_fd(const Qmp *qmp)
{
    return g_socket_get_fd(qmp->socket);
}

bool qmp_poll(Qmp *qmp, GError **error)
{
    if (qmp->broken) {
        return fail(qmp, error, QMP_ERROR_CLOSED, "the connection is broken");
    }
    return take_lines(qmp, error) && receive(qmp, error) &&
        take_lines(qmp, error);
}

unsigned qmp_dropped_events(const Qmp *qmp)
{
    return qmp->dropped;
}

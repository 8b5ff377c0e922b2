/*
 * Exports of an NBD server elsewhere, which may be slow, or gone
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "content-int.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define DEADLINE_MS     30000   /* of a connection, and of a request */
#define MAX_EXPORTS     65536   /* of a server: more is no store */

/* Notice in bounded time that the server's host is gone */
static void set_keepalive(int fd)
{
    int on = 1, idle = 10, interval = 5, count = 4;
    unsigned ms = DEADLINE_MS;

    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
    }
}

static bool set_tls(struct nbd_handle *nbd, const ContentServer *s)
{
    if (!s->tls) {
        return true;
    }
    return nbd_set_tls(nbd, LIBNBD_TLS_REQUIRE) == 0 &&
           nbd_set_tls_verify_peer(nbd, true) == 0 &&
           (!s->certificates ||
            nbd_set_tls_certificates(nbd, s->certificates) == 0) &&
           (!s->psk_file || nbd_set_tls_psk_file(nbd, s->psk_file) == 0) &&
           (!s->user || nbd_set_tls_username(nbd, s->user) == 0);
}

/* Until it is connected, and has negotiated; or until the deadline */
static bool await(struct nbd_handle *nbd)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_MS * INT64_C(1000);

    while (nbd_aio_is_connecting(nbd) > 0) {
        if (g_get_monotonic_time() > end || nbd_poll(nbd, 500) < 0) {
            return false;
        }
    }
    return nbd_aio_is_ready(nbd) > 0 || nbd_aio_is_negotiating(nbd) > 0;
}

static bool connect_handle(struct nbd_handle *nbd, const ContentServer *s)
{
    int ret;

    if (!set_tls(nbd, s)) {
        return false;
    }
    ret = s->socket ? nbd_aio_connect_unix(nbd, s->socket)
                    : nbd_aio_connect_tcp(nbd, s->host, s->port);
    if (ret < 0 || !await(nbd)) {
        return false;
    }
    if (!s->socket) {
        set_keepalive(nbd_aio_get_fd(nbd));
    }
    return true;
}

static bool connect_one(Content *c, unsigned i, GError **error)
{
    c->nbd[i] = content_handle(c->export);
    return (c->nbd[i] && connect_handle(c->nbd[i], c->server)) ||
           content_nbd_error(c, "cannot be reached", error);
}

Content *content_connect(const ContentServer *server, const char *export,
                         GError **error)
{
    g_autoptr(Content) c = g_new0(Content, 1);

    c->fd = c->complaints = -1;
    c->deadline = DEADLINE_MS;
    c->server = server;
    c->export = g_strdup(export);
    c->name = g_strdup_printf("export '%s' of %s", export,
                              server->socket ? server->socket : server->host);
    return connect_one(c, 0, error) && content_learn(c, error) ?
           g_steal_pointer(&c) : NULL;
}

bool content_widen(Content *c, GError **error)
{
    for (unsigned i = 1; c->server && i < CONTENT_CONNECTIONS; i++) {
        if (!c->nbd[i] && !connect_one(c, i, error)) {
            return false;
        }
    }
    return true;
}

static int add_name(void *opaque, const char *name, const char *description)
{
    GPtrArray *names = opaque;

    if (names->len < MAX_EXPORTS) {
        g_ptr_array_add(names, g_strdup(name));
    }
    return 0;
}

static int note_listed(void *opaque, int *error)
{
    *(bool *)opaque = *error == 0;
    return 1;
}

/* Like await(), which nbd_opt_list() has no deadline of its own for */
static bool list(struct nbd_handle *nbd, GPtrArray *names)
{
    bool listed = false;
    nbd_list_callback each = { .callback = add_name, .user_data = names };
    nbd_completion_callback done = { .callback = note_listed,
                                     .user_data = &listed };

    return nbd_aio_opt_list(nbd, each, done) == 0 && await(nbd) && listed &&
           names->len < MAX_EXPORTS;
}

char **content_exports(const ContentServer *server, GError **error)
{
    g_autoptr(Content) c = g_new0(Content, 1);
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    c->fd = c->complaints = -1;
    c->name = g_strdup(server->socket ? server->socket : server->host);
    c->nbd[0] = content_handle("");
    if (!c->nbd[0] || nbd_set_opt_mode(c->nbd[0], true) < 0 ||
        !connect_handle(c->nbd[0], server) ||
        !list(c->nbd[0], names)) {
        content_nbd_error(c, "does not tell what it exports", error);
        g_ptr_array_unref(names);
        return NULL;
    }
    nbd_aio_opt_abort(c->nbd[0]);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, false);
}

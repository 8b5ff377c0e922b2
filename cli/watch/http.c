/*
 * One page over HTTP, made anew for whoever asks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "http.h"
#include "metric-text.h"

#include <microhttpd.h>
#include <string.h>
#include <unistd.h>

#define CONNECTION_BYTES    (16 << 10)      /* of headers, and for the answer */

struct Http {
    struct MHD_Daemon *daemon;
    HttpPage *page;
    void *opaque;

    GMutex lock;                /* held while a page is made */
    GBytes *last;
    gint64 begun;               /* when it was, of g_get_monotonic_time() */
};

/* A page that was begun after we were called; to be unreferenced */
static GBytes *get_page(Http *h)
{
    gint64 called = g_get_monotonic_time();
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&h->lock);

    if (!h->last || h->begun < called) {
        char *text;

        h->begun = g_get_monotonic_time();
        text = h->page(h->opaque);
        g_clear_pointer(&h->last, g_bytes_unref);
        h->last = g_bytes_new_take(text, strlen(text));
    }
    return g_bytes_ref(h->last);
}

static enum MHD_Result answer(struct MHD_Connection *connection,
                              unsigned status, GBytes *body,
                              const char *type)
{
    gsize length;
    void *data = (void *)g_bytes_get_data(body, &length);
    struct MHD_Response *response = MHD_create_response_from_buffer(
        length, data, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result done;

    if (!response) {
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, "Allow", "GET, HEAD");
    }
    done = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return done;
}

static enum MHD_Result say(struct MHD_Connection *connection, unsigned status,
                           const char *text)
{
    g_autoptr(GBytes) body = g_bytes_new_static(text, strlen(text));

    return answer(connection, status, body, "text/plain; charset=utf-8");
}

static enum MHD_Result handle(void *opaque, struct MHD_Connection *connection,
                              const char *url, const char *method,
                              const char *version, const char *data,
                              size_t *size, void **context)
{
    g_autoptr(GBytes) page = NULL;

    (void)version;
    (void)data;
    /* What is sent along is read, and not looked at */
    if (!*context) {
        *context = opaque;
        return MHD_YES;
    }
    if (*size) {
        *size = 0;
        return MHD_YES;
    }
    if (strcmp(method, "GET") && strcmp(method, "HEAD")) {
        return say(connection, MHD_HTTP_METHOD_NOT_ALLOWED,
                   "There is nothing but GET /metrics.\n");
    }
    if (!strcmp(url, "/")) {
        return say(connection, MHD_HTTP_OK, "deskcast exporter: /metrics\n");
    }
    if (strcmp(url, "/metrics")) {
        return say(connection, MHD_HTTP_NOT_FOUND, "There is only /metrics.\n");
    }
    page = get_page(opaque);
    return answer(connection, MHD_HTTP_OK, page, METRIC_CONTENT_TYPE);
}

Http *http_new(int fd, HttpPage *page, void *opaque, GError **error)
{
    Http *h = g_new0(Http, 1);

    h->page = page;
    h->opaque = opaque;
    g_mutex_init(&h->lock);
    h->daemon = MHD_start_daemon(
        MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
        MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, handle, h,
        MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, HTTP_IDLE,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_END);
    if (!h->daemon) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "libmicrohttpd does not start");
        close(fd);
        http_free(h);
        return NULL;
    }
    return h;
}

void http_free(Http *h)
{
    if (h->daemon) {
        MHD_stop_daemon(h->daemon);
    }
    g_clear_pointer(&h->last, g_bytes_unref);
    g_mutex_clear(&h->lock);
    g_free(h);
}

/*
 * One page over HTTP, made anew for whoever asks
 *
 * libmicrohttpd does the protocol, with bounds on connections, on their memory
 * and on how long they may be idle.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_HTTP_H
#define CLI_WATCH_HTTP_H

#include <gio/gio.h>

#define HTTP_CONNECTIONS    16
#define HTTP_IDLE           10      /* s */

typedef struct Http Http;

/* The page, to be freed; called from several threads, one at a time */
typedef char *HttpPage(void *opaque);

/*
 * Serve /metrics on @fd, a socket that listens, which is taken. Clients that
 * come while a page is made get the next one together. NULL with @error.
 */
Http *http_new(int fd, HttpPage *page, void *opaque, GError **error);

/* Waits for those that are served */
void http_free(Http *h);

#endif /* CLI_WATCH_HTTP_H */

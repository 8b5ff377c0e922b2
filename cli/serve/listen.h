/*
 * Sockets that a service accepts its clients on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_LISTEN_H
#define CLI_SERVE_LISTEN_H

#include <gio/gio.h>

#define LISTEN_PORT     10809       /* of NBD */

/*
 * "HOST:PORT", "HOST", ":PORT", "[::1]:PORT"; without a host all addresses of
 * the machine, without a port @usual. A socket that listens, or -1 with @error.
 */
int listen_tcp(const char *address, int usual, GError **error);

/*
 * A Unix socket, for its owner, and for @group too unless that is NULL. One
 * that nobody accepts on any more is replaced.
 */
int listen_unix(const char *path, const char *group, GError **error);

#endif /* CLI_SERVE_LISTEN_H */

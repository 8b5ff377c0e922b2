/*
 * A far store: another host's `store serve`, or another relay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_FAR_H
#define CLI_SERVE_FAR_H

#include "tls.h"

#include "cli/store/content.h"
#include "cli/store/manifest.h"

typedef struct Far {
    char *uri;                  /* as it was given */
    ContentServer server;
    JsonObject *address;        /* the same as SocketAddress */
} Far;

/*
 * "nbds://HOST:PORT", "nbd://HOST:PORT", "nbd+unix:///?socket=PATH". NULL with
 * @error. @tls, with what nbds needs, stays the caller's.
 */
Far *far_new(const char *uri, const TlsClient *tls, GError **error);
void far_free(Far *f);

/* A node that reads its @export, for the options of pvs */
JsonObject *far_node(const Far *f, const char *export);

/* Its manifest of @vdisk, by asking it; NULL with @error. Can take a minute. */
Manifest *far_manifest(const Far *f, const char *vdisk, GError **error);

/* @text as it has to stand in options of pvs, where % means something */
char *far_escape(const char *text);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Far, far_free)

#endif /* CLI_SERVE_FAR_H */

/*
 * Inside of content-*.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_CONTENT_INT_H
#define CLI_STORE_CONTENT_INT_H

#include "content.h"

#include <libnbd.h>

#define CONTENT_CONNECTIONS     4
#define CONTENT_RUN             (4 * TREE_SPAN)     /* bytes of a request */

struct Content {
    GSubprocess *daemon;        /* NULL: a server that is not ours */
    int complaints;             /* what the daemon writes to standard error */
    struct nbd_handle *nbd[CONTENT_CONNECTIONS];
    uint64_t size;
    bool has_status;            /* the server tells what is zero */
    int deadline;               /* of a request, in ms; 0: none */
    char *name;                 /* for messages */
};

/* Read @bytes, at most CONTENT_RUN, over connection @n */
bool content_request(Content *c, unsigned n, uint64_t offset, size_t bytes,
                     uint8_t *buf, GError **error);

/* Set @error to what libnbd says; false */
bool content_nbd_error(const Content *c, const char *what, GError **error);

#endif /* CLI_STORE_CONTENT_INT_H */

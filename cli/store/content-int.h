/*
 * Inside of content-*.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_CONTENT_INT_H
#define CLI_STORE_CONTENT_INT_H

#include "content.h"

#include <libnbd.h>

#define CONTENT_CONNECTIONS     (CONTENT_THREADS + 1)  /* one for status */
#define CONTENT_STATUS          CONTENT_THREADS

struct Content {
    int fd;                     /* of a raw image; -1: by NBD */
    bool direct;                /* that is open with O_DIRECT */
    GSubprocess *daemon;        /* NULL: a server that is not ours */
    int complaints;             /* what the daemon writes to standard error */
    struct nbd_handle *nbd[CONTENT_CONNECTIONS];    /* later ones of a far
                                   server are NULL until content_widen() */
    const ContentServer *server;    /* far away, or NULL */
    char *export;               /* of that */
    uint64_t size;
    bool has_status;            /* the server tells what is zero */
    int deadline;               /* of a request, in ms; 0: none */
    ContentWait *wait;          /* before it is read, or NULL */
    void *waiting;
    char *name;                 /* for messages */
};

/* A handle for @export that is not connected; NULL if there is no memory */
struct nbd_handle *content_handle(const char *export);

/* After the first connection was made: what it leads to */
bool content_learn(Content *c, GError **error);

/* All connections are there; false with @error */
bool content_widen(Content *c, GError **error);

/* content-raw.c: is it a raw image that we read ourselves? */
bool content_is_plain(JsonObject *definition);
bool content_open_plain(Content *c, JsonObject *definition, GError **error);
bool content_read_plain(Content *c, uint64_t offset, size_t bytes,
                        uint8_t *buf, GError **error);

/*
 * content-compare.c: give all of @c's first @size bytes to @add; false with
 * @error if they are not those of @other, @size less part of a block.
 */
bool content_compare(Content *c, uint64_t size, Content *other,
                     uint64_t other_size, ContentSink add, void *opaque,
                     Progress *progress, GError **error);

/* Set @error to what libnbd says; false */
bool content_nbd_error(const Content *c, const char *what, GError **error);

#endif /* CLI_STORE_CONTENT_INT_H */

/*
 * Readers in sequence, told apart from others by where they read, and how far
 * to fetch ahead of each
 *
 * Nothing here does I/O. Offsets and sizes are in bytes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_STREAMS_H
#define BLOCK_PVS_STREAMS_H

#include "block/vdisk/pure.h"

/* Readers in sequence that are told apart */
#define STREAMS         8
/* After this many reads in sequence, and so far ahead at first and at most */
#define STREAM_READS    2
#define STREAM_MIN      (256 * 1024)
#define STREAM_MAX      (8 * 1024 * 1024)

typedef struct Stream {
    int64_t next;               /* where the next read would be */
    int64_t ahead;              /* up to where it was fetched */
    int64_t window;
    unsigned reads;
    uint64_t used_at;           /* of Streams.reads */
} Stream;

/* Begins as zeros */
typedef struct Streams {
    Stream streams[STREAMS];
    uint64_t reads;
} Streams;

/*
 * [@offset, @offset + @bytes) is read, and what lies before @end can be fetched
 * ahead.  True if something is to be fetched now, in *@from and *@to: whole
 * granules.
 *
 * Desktops that boot at once read the same places at the same time. A read that
 * gets no further than others did is no sequence, or a third desktop in a place
 * would be one, wherever it is, and many times what they want be fetched.
 */
bool streams_advance(Streams *s, int64_t offset, int64_t bytes, int64_t end,
                     int64_t *from, int64_t *to);

#endif /* BLOCK_PVS_STREAMS_H */

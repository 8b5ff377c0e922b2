/*
 * Readers in sequence
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/streams.h"

static int64_t granule_of(int64_t offset)
{
    return offset / VDISK_GRANULE * VDISK_GRANULE;
}

/* The one that a read at @offset belongs to, or one to begin anew */
static Stream *find_stream(Streams *all, int64_t offset)
{
    Stream *oldest = &all->streams[0];

    for (int i = 0; i < STREAMS; i++) {
        Stream *s = &all->streams[i];

        /* Requests of one reader may overtake each other */
        if (s->reads && offset <= s->next && offset + STREAM_MIN > s->next) {
            return s;
        }
        if (s->used_at < oldest->used_at) {
            oldest = s;
        }
    }
    *oldest = (Stream) { .next = offset, .window = STREAM_MIN };
    return oldest;
}

bool streams_advance(Streams *all, int64_t offset, int64_t bytes, int64_t end,
                     int64_t *from, int64_t *to)
{
    Stream *s = find_stream(all, offset);

    s->used_at = ++all->reads;
    if (offset + bytes <= s->next) {
        return false;
    }
    s->next = offset + bytes;
    s->ahead = MAX(s->ahead, s->next);
    if (++s->reads <= STREAM_READS || s->ahead - s->next > s->window / 2) {
        return false;
    }
    *from = granule_of(s->ahead);
    *to = MIN(granule_of(s->next + s->window), end);
    s->ahead = MAX(s->ahead, *to);
    s->window = MIN(s->window * 2, STREAM_MAX);
    return *from < *to;
}

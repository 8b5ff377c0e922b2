/*
 * Fetching ahead into a cache that the node owns: what a boot will read, as a
 * trace tells, and what a reader in sequence will read next
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_AHEAD_H
#define BLOCK_PVS_AHEAD_H

#include "block/pvs/image.h"

typedef struct PvsAhead PvsAhead;

/*
 * Begin, for an image that owns its cache. @trace is the name of the boot
 * trace, or NULL. Main loop.
 */
PvsAhead *pvs_ahead_start(PvsImage *img, const char *trace);

/*
 * End, and write the trace if one is still recorded. Main loop; polls.
 */
void pvs_ahead_stop(PvsAhead *a);

/* [@offset, @offset + @bytes) is read */
void coroutine_fn pvs_ahead_note(PvsAhead *a, int64_t offset, int64_t bytes);

/*
 * It, or what was read ahead with it, has to be fetched: the trace has both,
 * since desktops read what is in the cache without asking. Called with the
 * image's lock held.
 */
void pvs_ahead_missed(PvsAhead *a, int64_t offset, int64_t bytes);

/* For query-vdisks: granules in the boot trace, and how many are cached */
bool pvs_ahead_boot(PvsAhead *a, uint64_t *granules, uint64_t *cached);

#endif /* BLOCK_PVS_AHEAD_H */

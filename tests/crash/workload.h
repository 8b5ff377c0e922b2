/*
 * Crash test: a desktop at work, and what it was promised
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_CRASH_WORKLOAD_H
#define TESTS_CRASH_WORKLOAD_H

#include "fixture.h"

#define MAX_WINDOWS     3

/* The parts of the disk that the workload uses, and the replay looks at */
typedef struct Window {
    uint64_t sector, sectors;
    uint64_t slot;              /* index of its first sector in the history */
} Window;

/* From begin to end something made durable what had completed before begin */
typedef struct Flush {
    uint64_t begin, end;
} Flush;

/* A header that was durable at end; before begin it was not written */
typedef struct HeaderUpdate {
    uint64_t begin, end;
    int64_t size;               /* of the disk, bytes */
    unsigned name;              /* of the base: see workload_base_name() */
} HeaderUpdate;

/* What the base holds in the windows, from a time on */
typedef struct BaseContent {
    uint64_t since;
    uint8_t *data;
} BaseContent;

typedef struct Workload {
    Rng rng;
    uint64_t clock;

    RamDisk *file;              /* under the layer; events are recorded */
    RamDisk *log;               /* of blklogwrites */
    RamDisk *base;
    RamDisk *start;             /* copy of file before the first event */
    BlockBackend *blk;

    bool has_base;
    int64_t size, max_size, base_size;
    int64_t data_offset;        /* in the layer file */
    Window windows[MAX_WINDOWS];
    unsigned n_windows;
    uint64_t slots;

    /* What happened, in the order of time */
    GPtrArray **history;        /* for each slot: Change * */
    GPtrArray *changes;         /* owns them */
    GArray *flushes, *headers, *bases;

    /* Of the running phase */
    unsigned to_start, running;
    bool growing;               /* in this phase */
    bool header_busy;
} Workload;

/* Record a random workload. All of it follows from @seed. */
Workload *workload_record(uint64_t seed);
void workload_free(Workload *w);

char *workload_base_name(unsigned number);
/* Copy @data, as of BaseContent, into the base */
void workload_show_base(Workload *w, const uint8_t *data);

#endif /* TESTS_CRASH_WORKLOAD_H */

/*
 * Power-cut test: what random lives come to too rarely
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_POWER_DIRECTED_H
#define TESTS_POWER_DIRECTED_H

#include "block/pvs/journal-scan.h"
#include "life.h"

/* Lives of one kind, one after the other */
typedef struct Row {
    Rng rng;
    Start *start;
    Life *l;
    uint64_t requests, wrong;
} Row;

/* A life on a vDisk of @size bytes at least; it is to be opened */
void row_begin(Row *r, int64_t size);
void row_end(Row *r);
void row_wrong(Row *r, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* The journal as the device has it */
typedef struct Tail {
    JournalScan scan;
    JournalHeader h;
    JournalRecord last;         /* pads aside */
    uint64_t start_epoch;       /* of the last start, 0: there is none */
    uint64_t before_start;      /* epoch of what was written before it */
    uint64_t epoch_space;       /* bytes of the ring that the largest has */
} Tail;

void read_tail(Tail *t, const Device *d);

/* The process dies as things are: what would be found? */
typedef struct Copy {
    Device *device[DEVICES];
} Copy;

void copy_begin(Copy *c, const Life *l);
void copy_end(Copy *c);
/* NULL, which is wrong, if it cannot be opened */
BlockBackend *open_copy(Row *r);

/* directed-space.c: a ring that is full, and what is read of it */

void one_of_full(Row *r);
void one_of_broken(Row *r);
void one_of_read(Row *r);
void one_of_unflushed(Row *r);
void one_of_ahead(Row *r);
void one_of_overtaken(Row *r);
void one_of_changed(Row *r);
void one_of_heard(Row *r);
void one_of_retired(Row *r);

/* directed-failures.c: a journal that fails, and what is there of it */

void one_of_failures(Row *r);
void one_of_silent(Row *r);
void one_of_unreadable(Row *r);

/* directed-cuts.c: cuts that are chosen, and what is left after them */

void one_of_rewrites(Row *r);
void one_of_adoptions(Row *r);

/* Each kind (or @row alone, from 1) @lives times; true if nothing is wrong */
bool run_directed(uint64_t lives, uint64_t seed, uint64_t row);

#endif /* TESTS_POWER_DIRECTED_H */

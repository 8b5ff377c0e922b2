/*
 * What a desktop did between two looks at it
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_RATES_H
#define CLI_WATCH_RATES_H

#include "host-sample.h"

typedef struct Rates {
    /* -1 where it is not known */
    double read;                /* bytes a second from its stores */
    double hit;                 /* share of reads that the host cache had */
    double shipped;             /* bytes a second to the store */
} Rates;

/* @before may be NULL; a counter that is smaller than it was began anew */
Rates rates_of(const DesktopSample *before, const DesktopSample *now,
               double seconds);

/* How much a counter grew */
double counter_growth(double before, double now);

/* The store that @like is, in another sample of its disk; NULL if not there */
const StoreSample *store_sample_find(const VdiskSample *s,
                                     const StoreSample *like);

/*
 * How a desktop is, in a word or two, for people; to be freed. *@badness: 0 for
 * well, more the sooner somebody should look.
 */
char *desktop_state(const DesktopSample *d, unsigned *badness);

#endif /* CLI_WATCH_RATES_H */

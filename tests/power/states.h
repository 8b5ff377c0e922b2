/*
 * Power-cut test: what a power cut may leave on the three devices
 *
 * A cut keeps what a completed flush of the device covers: requests that had
 * ended when that flush began. Of all others each sector may be there or not,
 * in any order. A device that keeps its power has all that had ended, and any
 * part of what was under way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_POWER_STATES_H
#define TESTS_POWER_STATES_H

#include "life.h"

typedef enum StateKind {
    STATE_PREFIX,       /* all that had ended, and nothing else */
    STATE_NOTHING,      /* only what is durable */
    STATE_SUBSET,       /* whole requests */
    STATE_TORN,         /* any sectors */
    STATE_MIXED,        /* some whole, some torn */
    STATE_ALL_BUT_ONE,
    STATE_ONLY_ONE,
    STATE_ALIVE,        /* it did not lose its power */
    STATE_KINDS
} StateKind;

/* One device as the cut leaves it, and what the cuts before left for good */
typedef struct StateDevice {
    Device *d;                  /* to open; it notes what is written to it */
    uint8_t *settled;
    GPtrArray *events;          /* LogEvent * of this device, without flushes */
    GArray *flushes;            /* LogEvent */
    guint n_settled, n_flushes; /* those before now */
    uint64_t covered;           /* requests that ended until then are durable */
    uint64_t settled_hash;
} StateDevice;

typedef struct States {
    Rng rng;
    StateDevice device[DEVICES];
    uint64_t now;               /* of the cut */
    uint64_t hash;              /* of the state */
} States;

States *states_new(const Life *l, uint64_t seed);
void states_free(States *s);

/* Go on to a cut at @now, which is not before the last one */
void states_settle(States *s, uint64_t now);

/* Make the devices what the cut leaves */
void states_make(States *s, const StateKind kind[DEVICES]);

/* A bit of the byte at @offset of a device is not as it was */
void states_rot(States *s, int device, int64_t offset);

/*
 * What a life begins with after this cut of @l. Its content is that of before
 * @l: the caller tells what was written.
 */
Start *states_keep(const States *s, const Life *l);

/* Take back what made it, and what was written since */
void states_take_back(States *s);

extern const char *const state_names[DEVICES];

#endif /* TESTS_POWER_STATES_H */

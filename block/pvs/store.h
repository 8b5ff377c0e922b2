/*
 * Stores of a pvs vDisk: their health, and which one a read is sent to
 *
 *          lost, timed out                  probe failed
 *     up -----------------> suspect --------------------------> down
 *      ^                       |                                  |
 *      |      good probe       |            good probe            |
 *      +-----------------------+----------------------------------+
 *
 *  up       is read from.
 *  suspect  broke its connection, or did not answer for request-timeout. It is
 *           probed, at once if it did not do so lately, and read from only
 *           while no store is up.
 *  down     failed a probe too. Gets probes only.
 *
 * One good probe brings a store back. A store that is up is brisk while it
 * answers within hedge-after, and lagging otherwise. A preferred store that
 * lags competes with the others; so a slow relay costs no more than a dead one.
 *
 * Outage: no store is up; a suspect one does not end or prevent it.
 *
 * All times are nanoseconds of one monotonic clock, which the caller reads.
 * Nothing here does I/O, waits or locks; the caller sees to it that calls do
 * not overlap. The caller's part is:
 *
 *   A read:    store_read_begin; then do as store_read_next says, again at its
 *              time, when an ask came back and when a store's state changed;
 *              store_read_end when it has its data or is told to fail.
 *   A request: has its own buffer and a StoreAsk, from store_ask_begin or
 *              store_probe_begin until store_ask_end says whose it is; and
 *              store_ask_arrived before that, if its answer is looked at first.
 *   After any of these: store_event_next until it says no, and a timer at
 *              store_wakeup. The timer calls store_tick and drains the events,
 *              then sends probes while store_probe_next names stores.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_STORE_H
#define BLOCK_PVS_STORE_H

#include "block/vdisk/pure.h"

/* Sets of stores are 64-bit masks */
#define STORE_MAX               64

/*
 * Nothing is read from a store with so many detached requests: as many as
 * QEMU's NBD client has in flight (MAX_NBD_REQUESTS). What was in flight then
 * can still become detached, so there are fewer than this and a guest's queue.
 */
#define STORE_DETACHED_MAX      16

/* Probes without an answer: request-timeout / probe-interval is 8 by default */
#define STORE_PROBES_MAX        16

/*
 * Reads in a suspect store at a time. They may all be detached when it comes
 * back, and must leave room for more.
 */
#define STORE_SUSPECT_READS     (STORE_DETACHED_MAX / 2)

/* Stores that work on one read at a time */
#define STORE_READ_ASKS         4

/*
 * A second store is asked on account of a straggler for 5 % of the reads, as
 * in "The Tail at Scale" (Dean, Barroso; CACM 56(2), 2013), where that share
 * took most of the tail away; and for BURST more, after a quiet time. Not
 * counted are reads that hang in a store that lags, or for three times
 * hedge-after, if they go to one that takes at most a third of what they
 * waited: when all stores are slow there is hardly one.
 */
#define STORE_HEDGE_PERCENT     5
#define STORE_HEDGE_BURST       16

typedef enum StoreOutageAction {
    STORE_OUTAGE_WAIT,
    STORE_OUTAGE_PAUSE,
    STORE_OUTAGE_ERROR,
} StoreOutageAction;

/* As the user gives them; store_options_default() has the defaults */
typedef struct StoreOptions {
    int64_t request_timeout;    /* ms, 100 to 600000 */
    int64_t hedge_after;        /* ms, 10 to below request_timeout */
    int64_t probe_interval;     /* ms, 50 to 60000 */
    int64_t outage_wait;        /* s, 0 to 86400 */
    StoreOutageAction outage_action;
} StoreOptions;

typedef enum StoreState {
    STORE_UP,
    STORE_SUSPECT,
    STORE_DOWN,
} StoreState;

typedef struct StoreRead StoreRead;

/* One request to one store, in the caller's own request */
typedef struct StoreAsk {
    StoreRead *read;            /* who waits for it; NULL: nobody */
    int64_t at;                 /* when it was sent */
    unsigned store;
    bool probe;
    bool late;                  /* took request-timeout; not in Store.asks */
    bool arrived;               /* returned; not in Store.asks either */
    bool straggler;             /* was counted as one */
    GList link;
} StoreAsk;

/* What may be read are the members up to probes; the rest is store.c's */
typedef struct Store {
    bool preferred;             /* never changed after init */

    StoreState state;
    int64_t since;              /* time of the last change of state */
    int error;                  /* the last one, -errno; 0: none so far */
    int64_t latency;            /* smoothed, ns; 0: not known */
    uint64_t reads;             /* good answers to reads, detached ones too */
    uint64_t bytes;             /* in them */
    uint64_t errors;            /* answers that were none */
    unsigned in_flight;         /* requests that did not return, all kinds */
    unsigned detached;          /* of these: reads nobody waits for */
    unsigned probes;            /* of these: probes */

    StoreState told;            /* in the last event */
    bool to_break;              /* an event is due */
    uint64_t risen;             /* StoreSet.rises when it came up; 0: not yet */
    int64_t sampled_at;         /* last change of latency */
    int64_t busy_since;         /* last answer, or first request after idling */
    int64_t asked_at;           /* last request of any kind */
    int64_t probed_at;          /* last probe */
    int64_t probe_wait;         /* probe-interval with jitter */
    unsigned idle_probes;       /* since the last read */
    unsigned flaps;             /* times it left up too soon, in a row */
    GQueue asks;                /* neither late nor arrived, oldest first */
} Store;

typedef struct StoreSet {
    /* Never changed after init; times in ns */
    int64_t request_timeout, hedge_after, probe_interval, outage_wait;
    StoreOutageAction outage_action;
    unsigned n;

    Store stores[STORE_MAX];
    unsigned up;                /* stores that are */
    unsigned turn;              /* the store chosen last */
    uint64_t rises;             /* times that a store came up */
    unsigned hedge_percents;    /* hundredths of reads that may be hedged */
    uint64_t hedges;            /* reads sent to one more store, total */
    uint32_t random;
    int64_t wanted_until;       /* a read hangs, and nobody better is up */

    bool outage;
    bool outage_told;
    int64_t outage_since;       /* of this one, else of the last one */
    int64_t outage_ended;       /* end of the last one */
} StoreSet;

struct StoreRead {
    int64_t start;
    int64_t lost_at;            /* when an ask first got no answer; 0: never */
    int64_t asked_at;           /* the last of the asks */
    uint64_t tried;             /* stores not to be asked again */
    uint64_t bad;               /* of these: answered, with an error */
    uint64_t seen;              /* StoreSet.rises that tried knows of */
    StoreAsk *asks[STORE_READ_ASKS];    /* that it waits for, oldest first */
    unsigned n_asks;
};

typedef enum StoreAction {
    STORE_SEND,         /* store_ask_begin and send, to .store; look again */
    STORE_WAIT,         /* for an answer; look again at .when */
    STORE_WAIT_STORE,   /* nobody can be asked; look again at .when */
    STORE_FAIL,         /* -EIO: by outage-action, or no store has good data */
} StoreAction;

typedef struct StoreStep {
    StoreAction action;
    unsigned store;
    int64_t when;
} StoreStep;

typedef enum StoreAnswer {
    STORE_OK,
    STORE_BAD,          /* the store works, but this data cannot be had */
    STORE_LOST,         /* no connection, or it broke */
} StoreAnswer;

typedef enum StoreFate {
    STORE_TAKE,         /* the data is the read's; end the read */
    STORE_GO_ON,        /* the read must look again; free the request */
    STORE_DROP,         /* nobody waits for it; free the request */
} StoreFate;

typedef enum StoreEventType {
    STORE_EVENT_STATE,          /* .store is in another state now */
    /* Break the connection to .store, so that its requests return; redial */
    STORE_EVENT_BREAK,
    STORE_EVENT_OUTAGE_BEGIN,
    STORE_EVENT_OUTAGE_END,
} StoreEventType;

typedef struct StoreEvent {
    StoreEventType type;
    unsigned store;
    StoreState state;           /* of it */
} StoreEvent;

void store_options_default(StoreOptions *o);

/* False, and in *@why what is wrong (to be freed), if it is out of range */
bool store_options_check(const StoreOptions *o, char **why);

/*
 * @n stores, 1 to STORE_MAX. Masks: which are @preferred, which are @up (the
 * others are down and get a probe at once). @seed makes the jitter of probes,
 * so it should differ among desktops that lose a store together. @o was
 * checked. Nothing is to be freed.
 */
void store_set_init(StoreSet *set, const StoreOptions *o, unsigned n,
                    uint64_t preferred, uint64_t up, uint32_t seed,
                    int64_t now);

/*
 * Number of the store a read should go to that may not go to those in mask
 * @exclude; -1 if there is none.
 */
int store_choose(StoreSet *set, uint64_t exclude, int64_t now);

void store_read_begin(StoreSet *set, StoreRead *read, int64_t now);

/* What @read is to do now */
StoreStep store_read_next(StoreSet *set, StoreRead *read, int64_t now);

/* @read is over; what it still waits for becomes detached */
void store_read_end(StoreSet *set, StoreRead *read);

/* @read goes to @store as store_read_next said */
void store_ask_begin(StoreSet *set, StoreRead *read, StoreAsk *ask,
                     unsigned store, int64_t now);

/* May @store be probed now? Names one after the other until all have been. */
bool store_probe_next(StoreSet *set, unsigned *store, int64_t now);

/* A probe, which is a small read that says whether the store works */
void store_probe_begin(StoreSet *set, StoreAsk *ask, unsigned store,
                       int64_t now);

/*
 * @ask, which is no probe, has an answer of its store, and its read looks at it
 * before it asks store_read_next again. However long that takes, the store has
 * done its part. Nothing else may happen to it but store_ask_end.
 */
void store_ask_arrived(StoreSet *set, StoreAsk *ask, int64_t now);

/* @ask returned @ret bytes, or -errno if @answer is not STORE_OK */
StoreFate store_ask_end(StoreSet *set, StoreAsk *ask, StoreAnswer answer,
                        int64_t ret, int64_t now);

/* Notice requests that took too long */
void store_tick(StoreSet *set, int64_t now);

/* When to call store_tick and store_probe_next; INT64_MAX: no need */
int64_t store_wakeup(const StoreSet *set, int64_t now);

/* What changed since it was last told; false if nothing did */
bool store_event_next(StoreSet *set, StoreEvent *event);

/* Is it an outage, and did it last for outage-wait? */
bool store_outage_over(const StoreSet *set, int64_t now);

#endif /* BLOCK_PVS_STORE_H */

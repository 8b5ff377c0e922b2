/*
 * Power-cut test: a desktop at work, and what it was promised
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_POWER_LIFE_H
#define TESTS_POWER_LIFE_H

#include "device.h"

/* The order is that of their numbers in the log */
enum { JOURNAL, COPY, STORE, DEVICES };

/* What a life begins with */
typedef struct Start {
    int64_t size;               /* of the vDisk, bytes */
    uint64_t next_id;
    uint8_t *device[DEVICES];
    int64_t length[DEVICES];
    uint64_t *content;          /* ids, as a reader sees the sectors */
} Start;

/* What is under test: private mode, or a stock client of the store */
typedef struct Subject {
    const char *name;
    /* Make all but the vDisk on the store: lengths, memory and content */
    void (*make)(Start *s, Rng *rng);
    /* Open it over the devices of these names */
    BlockBackend *(*open)(const char *const name[DEVICES], int64_t size,
                          Error **errp);
    /* Is all that was written on the store, and the label ours? */
    bool (*drained)(BlockBackend *blk);
    /* After that and a close: is its label right? NULL: it has none */
    bool (*label_ok)(const uint8_t *store, int64_t size, char **why);
    /* Does the label say that the store has all that was written? */
    bool (*label_closed)(const uint8_t *store, int64_t size);
    /* Do writes wait for space now? NULL: they never do */
    bool (*full)(BlockBackend *blk);
    /* Write less at once than it would: it has to divide it. Or NULL. */
    void (*limit_batches)(BlockBackend *blk, uint64_t bytes, unsigned records);
    /* A flush waits for the store, as long as that does not fail */
    bool durable_store;
    /* A discard makes zeros */
    bool discards;
    /* Repeat what failed, as a client does that merely reconnects */
    bool retries;
} Subject;

extern const Subject subject_private;
extern const Subject subject_store;     /* durability=store */
extern const Subject subject_stock;

/* From begin to end the guest flushed */
typedef struct Flush {
    uint64_t begin, end;
} Flush;

typedef struct Life {
    Rng rng;
    const Subject *subject;
    Start *start;
    int64_t size;
    uint64_t sectors;
    Log *log;
    Device *device[DEVICES];
    BlockBackend *blk;

    /* What kind of life it is */
    unsigned phases, phase_requests, min_workers, max_workers;
    unsigned flush_percent, fault_percent, read_percent;
    int64_t max_bytes;
    bool slow;                  /* the store */
    bool no_discards;           /* some of which do nothing */
    uint64_t batch_bytes;       /* 0: as it is */
    unsigned batch_records;

    /* What happened, in the order of time */
    GPtrArray **history;        /* for each sector: Change * */
    GPtrArray *changes;         /* owns them; ids of writes from first_id on */
    uint64_t first_id;
    GArray *flushes;
    uint64_t reads, wrong;      /* sectors */
    uint64_t requests;
    uint64_t full;              /* of these came while the journal was full */
    uint64_t refused;           /* because the journal had failed */
    uint64_t inactive;          /* times that the node was */
    uint64_t opened;            /* when it was, first */

    /* Of the running phase */
    unsigned to_start, running;
} Life;

/* A new vDisk, of which all follows from @rng */
Start *start_new(const Subject *subject, Rng *rng);
void start_free(Start *s);

/* Record a random life. With @faults, the store fails and crashes. */
Life *life_record(const Subject *subject, Start *start, uint64_t seed,
                  bool faults);

/* Or in parts: what kind of life it is may be changed before it is opened */
Life *life_new(const Subject *subject, Start *start, uint64_t seed,
               bool faults);
/* False, which counts as wrong, if it cannot be opened */
bool life_open(Life *l);
void life_requests(Life *l);
void life_flush(Life *l);
void life_end(Life *l);

/* All requests have ended: does the store have what they wrote? */
void life_judge_store(Life *l, const char *when);
void life_free(Life *l);

/* The change that gave a sector the content @id in this life, or NULL */
const Change *life_change(const Life *l, uint64_t id);

/* Wait until all of it is on the store. False if that takes too long. */
bool wait_drained(const Subject *subject, BlockBackend *blk);
void pause_ms(unsigned ms);

/* alarm(), or a failed assertion, says that the test fails, and ends it */
void watch_for_ends(void);

#endif /* TESTS_POWER_LIFE_H */

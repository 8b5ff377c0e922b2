/*
 * What the model check, the race test and the crash test have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_CRASH_FIXTURE_H
#define TESTS_CRASH_FIXTURE_H

#include "block/block_int.h"
#include "qapi/qapi-types-block-core.h"
#include "system/block-backend.h"

#define SECTOR      512
#define GRANULE     4096

/* Random numbers that are the same on every machine (splitmix64) */
typedef struct Rng {
    uint64_t state;
} Rng;

uint64_t rng_next(Rng *r);
uint64_t rng_below(Rng *r, uint64_t n);         /* 0 if @n is 0 */
bool rng_chance(Rng *r, unsigned percent);

/* TAP: one line of result. Returns @ok. */
bool report(bool ok, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* TAP: diagnostics */
void note(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* Value of option @name in @argv ("--seed"), or @preset */
uint64_t option_number(char **argv, const char *name, uint64_t preset);

/* The same in every program: the block layer's main loop, in this thread */
void block_layer_init(void);

/*
 * Content by which a sector tells who wrote it, and where it belongs. Ids from
 * 1 up to STAMP_BASE are the requests'.
 */
#define STAMP_ZERO      UINT64_C(0)
#define STAMP_BASE      (UINT64_C(1) << 62)     /* the base image */
#define STAMP_STALE     (STAMP_BASE + 1)        /* of an earlier session */
#define STAMP_TORN      UINT64_MAX              /* nothing that was written */

void stamp_fill(uint8_t *buf, uint64_t sector, uint64_t sectors, uint64_t id);
uint64_t stamp_read(const uint8_t *buf, uint64_t sector);

/*
 * What happened to sectors: a request that gave them the content @id, begun and
 * completed at these times. One clock counts both; no two are the same.
 */
typedef struct Change {
    uint64_t begin;
    uint64_t end;               /* CHANGE_UNDER_WAY: not completed */
    uint64_t id;
} Change;

#define CHANGE_UNDER_WAY    UINT64_MAX

/*
 * May a sector with the changes @history (of type Change *) have the content
 * @id at time @now? Yes if one with that content had begun, and none that
 * completed before @settled began after it had completed.
 */
bool history_allows(const GPtrArray *history, uint64_t id, uint64_t settled,
                    uint64_t now);

/* A disk in memory. Requests are applied when they complete, as a whole. */
typedef enum RamRequest {
    RAM_WRITE,
    RAM_ZERO,
    RAM_DISCARD,
    RAM_FLUSH,
    RAM_TRUNCATE,       /* offset is the new length */
} RamRequest;

typedef struct RamEvent {
    RamRequest request;
    int64_t offset;
    int64_t bytes;
    uint64_t begin;
    uint64_t end;
    uint8_t *data;      /* of a write, if the disk keeps it */
} RamEvent;

typedef struct RamDisk {
    BlockDriverState *bs;
    uint8_t *data;
    int64_t length;
    int64_t capacity;
    bool fixed_length;          /* like a device: not truncated */

    /* A request lets others run up to so often, and waits up to so long */
    unsigned max_yields;
    unsigned max_wait_us;

    GArray *events;             /* RamEvent as they completed; NULL: none */
    uint64_t *clock;            /* if there are events */
    bool keep_data;             /* in the events; theirs to be freed */

    QemuMutex lock;             /* for the data and for what follows */
    Rng rng;
} RamDisk;

RamDisk *ram_disk_new(const char *node_name, int64_t length, int64_t capacity,
                      uint64_t seed);
void ram_disk_set_length(RamDisk *d, int64_t length);
/* All of @from's content, what is zero costing nothing */
void ram_disk_copy(RamDisk *d, const RamDisk *from);
void ram_disk_free(RamDisk *d);

/* Make node @node an mcs layer file. @base is only a name. */
void mcs_make(const char *node, int64_t size, McsLifetime lifetime,
              const char *base);
/*
 * Open the layer file in node @node, with the node @base as its base or, if
 * NULL, none.
 */
BlockBackend *mcs_open(const char *node, const char *base, int flags,
                       Error **errp);

#endif /* TESTS_CRASH_FIXTURE_H */

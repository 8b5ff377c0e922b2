/*
 * Test of the host cache: what its parts share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_CACHE_CACHE_H
#define TESTS_CACHE_CACHE_H

#include "block/pvs/cache.h"
#include "block/pvs/live-map.h"
#include "block/vdisk/header.h"
#include "../crash/fixture.h"

/* A version that ends within a granule, and its tree */
#define IMAGE_BYTES     (12 * 1024 * 1024 + 512)
#define IMAGE_GRANULES  (12 * 256 + 1)
#define TREE_GRANULES   32
#define GRANULES        (IMAGE_GRANULES + TREE_GRANULES)
#define MAX_RUN         64

typedef struct Place {
    char *dir;                  /* on a disk */
    char *data, *map;
    uint8_t root[VDISK_ROOT_BYTES];
    PvsCacheId id;
    uint64_t verified;          /* granules that were asked about */
    bool trusting;              /* says yes to anything */
    unsigned full, room;        /* how often it was told so */
    PvsCacheOps ops;
} Place;

/* Names in @dir for the data and in @shm for the map */
void place_init(Place *p, const char *dir, const char *shm);
void place_clear(Place *p);             /* no files */
PvsCache *place_own(Place *p);          /* must succeed */
PvsCache *place_attach(Place *p);       /* must succeed */

/* Granule @g as it was sealed; every seventh is zero */
void content(uint64_t g, uint8_t *buf);
bool is_zero(uint64_t g);

/* What a coroutine returns; polls */
typedef int coroutine_fn CoFunc(void *opaque);
int run_co(CoFunc *func, void *opaque);
void poll_ms(int64_t ms);

int fill(PvsCache *c, uint64_t first, uint64_t n);
int sync_cache(PvsCache *c);
VdiskState state_of(PvsCache *c, uint64_t g);
/* 0: read, and as sealed; -EILSEQ: read, and something else; -errno */
int read_granule(PvsCache *c, uint64_t g);
int coroutine_fn co_fill_granules(PvsCache *c, uint64_t g, uint64_t n);
int coroutine_fn co_read_granules(PvsCache *c, uint64_t g, uint64_t n);

typedef struct Survey {
    uint64_t data, zero, missing;
    uint64_t failed;            /* state data, but cannot be read: misses */
    uint64_t wrong;
} Survey;

/* Look at every granule */
Survey survey(PvsCache *c);

/* faults.c: system calls that fail, in this process */

/* This many calls of fdatasync from now on fail with EIO */
extern int fail_syncs;
/* The first fdatasync that is entered waits for this many to be there, ms */
extern int hold_syncs_ms;
/* The process is killed when the kernel has told that a sync has failed */
extern bool die_in_sync;
/* Writes of at least a granule fail with this */
extern int fail_writes;
extern uint64_t syncs;

/* kill.c */
int kill_child(char **argv);            /* the other side of these */
void test_kill(Place *p, Rng *rng, unsigned rounds);
void test_rivals(Place *p, unsigned rounds);
void test_kill_in_sync(Place *p);

/* threads.c */
void test_threads(Place *p, Rng *rng, unsigned seconds);
void test_speed(Place *p, unsigned rounds);

/* hydrate.c */
void test_hydrate(Place *p);

/* open.c */
void test_open(Place *p, Rng *rng);

#endif /* TESTS_CACHE_CACHE_H */

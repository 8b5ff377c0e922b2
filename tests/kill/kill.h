/*
 * Kill test: a private vDisk whose process is killed, again and again
 *
 * The killer has no block layer. It starts one victim after the other: a
 * process that opens the vDisk, reads all of it, and writes until it is dead.
 * What a victim does it notes before it does it, in memory that outlives it;
 * the killer judges by that what the next one reads, and what the store holds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_KILL_KILL_H
#define TESTS_KILL_KILL_H

#include "qemu/units.h"
#include "../crash/fixture.h"

#define DISK_BYTES      (4 * MiB)
#define SECTORS         (DISK_BYTES / SECTOR)
#define MAX_ENTRIES     8192    /* requests of a victim */
#define VDISK           "disk"

/* How far a victim has come */
typedef enum Phase {
    PHASE_OPENING,
    PHASE_RECOVERING,   /* from the first write to a file on */
    PHASE_READING,      /* all of it, while what was found is shipped */
    PHASE_WRITING,
    PHASE_DRAINING,     /* no more requests: until the store has it all */
    PHASE_IDLE,
    PHASE_CLOSING,
    PHASE__MAX,
} Phase;

/* What a victim is to do, and how it dies */
typedef struct Plan {
    uint64_t seed;              /* of its requests */
    unsigned requests;          /* then it drains */
    unsigned workers, flush_percent;
    bool durability_store;
    bool closes;                /* in the end, and is not killed */

    Phase phase;                /* when it is here it is killed, */
    unsigned delay_us;          /* so much later; or, */
    unsigned points;            /* if not 0, at that system call */
    bool kills_store;           /* before that */
    unsigned store_delay_us;
    bool store_returns;         /* before the victim dies */
} Plan;

/* A request that changes sectors */
typedef struct Entry {
    uint64_t id;                /* of the content; STAMP_ZERO */
    uint64_t begin, end;        /* end: CHANGE_UNDER_WAY until answered */
    uint32_t first, n;          /* sectors */
    bool fua;
} Entry;

/* A flush that was answered */
typedef struct Span {
    uint64_t begin, end;
} Span;

/* All of the disk, as it was read */
typedef struct Content {
    uint64_t at;                /* the time; 0: it was not */
    uint64_t ids[SECTORS];
} Content;

/* Written by the victim, but for the plan; read when it is dead */
typedef struct Shared {
    uint64_t clock, next_id;    /* go on */

    /* This victim */
    Plan plan;
    int phase;                  /* atomic */
    unsigned flushing;          /* requests */
    Content opened, drained;
    unsigned n_entries, n_flushes;
    Entry entries[MAX_ENTRIES];
    Span flushes[MAX_ENTRIES];
    uint64_t errors;            /* that the guest saw */
    char failed[512];           /* why it gave up, or "" */
} Shared;

/* The files of a desktop, and the socket of its store */
typedef struct Files {
    char *copy, *journal, *socket;
} Files;

/* victim.c */

/* @out: each phase is written there, as a byte */
void victim_run(Shared *sh, const Files *f, int out) G_NORETURN;
/* Make copy and journal. A process of its own, too. */
void victim_make(const Files *f, uint64_t journal_bytes) G_NORETURN;

/* model.c: what the disk and the store may hold */

typedef struct Model Model;

Model *model_new(void);
/* A new disk, full of STAMP_BASE */
void model_reset(Model *m);
/*
 * All was read as @c: is everything there that was flushed, and nothing else?
 * What was found counts from then on. False with *@why set (to be freed).
 */
bool model_found(Model *m, const Content *c, char **why);
/* A victim has begun these */
void model_add(Model *m, const Shared *sh);
/*
 * The store alone, whose content is @image: all up to some flush, and some of
 * what came until the next one?
 */
bool model_store(Model *m, const uint8_t *image, char **why);
/* It has all that was read last, and what came before is forgotten */
bool model_drained(Model *m, const uint8_t *image, char **why);
/* Changes to sectors that are remembered */
uint64_t model_size(const Model *m);

/* server.c: a storage daemon that forgets what was not flushed */

typedef struct Server {
    const char *daemon;         /* program */
    const char *module;         /* tests/stores/volatile.c */
    char *image, *socket, *log;
    pid_t pid;                  /* 0: it does not run */
    uint8_t *content;           /* server_read() */
} Server;

/* Of a vDisk that is full of STAMP_BASE and that nobody has claimed */
void server_make(Server *s);
/* @evict: of so many percent of what is written, nothing is forgotten */
bool server_start(Server *s, unsigned evict);
void server_kill(Server *s);
/* What is left of the vDisk if it dies now. NULL: it has, by itself. */
const uint8_t *server_read(Server *s);

#endif /* TESTS_KILL_KILL_H */

/*
 * Cycle test: one desktop's disk, and the record of what it should hold
 *
 * The record is in memory that outlives the process that writes it. It says
 * what is about to be done before it is done, so that whoever comes after a
 * process that was killed can judge what it left.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_CYCLE_DESK_H
#define TESTS_CYCLE_DESK_H

#include "block/vdisk/layer.h"
#include "../crash/fixture.h"

#define MAX_SECTORS         8192        /* of a disk: 4 MiB */
#define MAX_REQUEST         512         /* sectors */
#define GRANULE_SECTORS     (GRANULE / SECTOR)
#define LOG_ENTRIES         512
#define NONE                (-1)

/* What a process can be killed in */
typedef enum Doing {
    DOING_NOTHING,
    DOING_REQUEST,
    DOING_CLOSE,
    DOING_OPEN,
    DOING_ASSIGN,
    DOING_UNASSIGN,
    DOING_RESET,
    DOING_SAVE,
    DOING__MAX,
} Doing;

/* What the header says; images by number */
typedef struct Names {
    int base;
    int assigned;
    uint32_t sectors;       /* of the disk */
} Names;

/* Does the saved state still fit the disk? */
typedef enum Saved {
    SAVED_NO,
    SAVED_MAYBE,            /* something that makes it void has begun */
    SAVED_YES,
} Saved;

typedef struct LogEntry {
    uint32_t first, n;
    uint64_t id;
} LogEntry;

typedef struct Counts {
    uint64_t reset, switched, stayed, assigned, refused, unassigned, reopened;
    uint64_t saved, resumed, not_resumed, crashed, requests, overflowed;
    uint64_t killed_in[DOING__MAX];
    uint64_t found_old, found_new;      /* header after a kill in a change */
    uint64_t sectors;                   /* compared */
} Counts;

typedef struct Record {
    Rng rng;
    uint64_t seed;
    uint64_t cycle, cycles;
    uint64_t next_id;
    uint64_t session;       /* first id of this session of the desktop */
    Counts counts;

    /* Whatever kills the process, one of these is what the disk has */
    Names names[2];
    unsigned now;           /* the one that it has had for sure */
    Doing doing;            /* if the other one is possible */
    bool killing;           /* the process may be killed */
    bool killed;            /* the last one was, and is not judged yet */
    bool failed;            /* has been told */

    /* This life: one disk */
    unsigned left;          /* cycles; 0: none has begun */
    bool pooled;
    int hidden;             /* image that is away, or NONE */
    uint64_t ref[MAX_SECTORS];          /* id of each sector's content */

    /* Pooled */
    Saved saved;
    bool resume_next;       /* by the next process */
    bool has_token;
    uint8_t token[VDISK_TOKEN_BYTES];
    uint64_t saved_ref[MAX_SECTORS];

    /* Dedicated: content at the last flush, and all that came after it */
    uint64_t flushed[MAX_SECTORS];
    unsigned log_n;
    LogEntry log[LOG_ENTRIES];
} Record;

typedef struct Desk {
    Record *r;
    const char *dir;
    char *path;
    uint8_t *buf;           /* MAX_REQUEST sectors */
    BlockBackend *blk;
    VdiskLayer *l;
    bool unmap;             /* discards are done, not ignored */
} Desk;

static inline const Names *desk_names(const Desk *d)
{
    return &d->r->names[d->r->now];
}

void desk_fail(Desk *d, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3) G_NORETURN;
void desk_check(Desk *d, int ret, const char *what);

/* images.c */

#define IMAGES              7

typedef struct Image {
    const char *name, *format;
    uint32_t sectors;
} Image;

extern const Image images[IMAGES];

void images_make(Desk *d);
char *image_path(const char *dir, int image);
int image_find(Desk *d, const char *path);
/* What sector @s of a disk on @image holds at first */
uint64_t image_content(int image, uint32_t s);
/* Away with @image, until it is shown again */
void image_hide(Record *r, const char *dir, int image);
void image_show(Record *r, const char *dir);

/* desk.c: the disk is opened and closed */

/* A new disk. What it will hold is full of stale blocks beforehand. */
void desk_make(Desk *d);
/*
 * Open it with random options, and see that the header is one that the last
 * process can have left. With @resume, activate it as the saved state.
 */
bool desk_open(Desk *d, bool resume, Error **errp);
void desk_close(Desk *d);
/* Does the header say what it should? */
void desk_check_names(Desk *d);
/* The disk shows its base image, and nothing else */
void desk_forget(Desk *d);

/* Around a change of the header to what @names says: first note, then do it */
void desk_begin(Desk *d, Doing doing, Names names);
void desk_end(Desk *d);

/* requests.c: what the guest does */

void desk_random_requests(Desk *d, unsigned n);
void desk_flush(Desk *d);
/* All of it, by reading. After a @fresh start nothing is its own. */
void desk_compare(Desk *d, bool fresh);
/* A dedicated disk after a crash: what is found is what it has from now on */
void desk_accept(Desk *d);
/* The saved state is about to become void, or has */
void desk_changes(Desk *d);
void desk_changed(Desk *d);

/* kill.c */

/* Kill it when @us microseconds have passed */
void kill_after(unsigned us);

/* Of the machine, for the driver: see kill.c */
extern bool machine_incoming;
extern bool machine_quiet;      /* a warning is expected */
extern const uint8_t *machine_token;

/* Assign the image, or none if @path is NULL, and wait for it */
bool desk_assign(Desk *d, const char *path, const char *format, Error **errp);
/* Wait until what a reset left to be written in the background is */
void desk_wait_header(Desk *d);

#endif /* TESTS_CYCLE_DESK_H */

/*
 * pvs, private image mode: one desktop writes a vDisk that is on a store
 *
 *   write --> reconnect buffer --> (replay) --> store, local copy
 *   read  --> reconnect buffer, else local copy, else store
 *
 * All in the background runs in the main loop, as coroutines that stop for
 * drains. A read that needs the store while it is away, and a write while the
 * buffer is full, let go of the graph lock and wait as wait.h says.
 *
 * Lock: waits.lock, for all that is not said to be something else's. Lock
 * order: the layer's granule holds, the journal's locks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_PRIVATE_H
#define BLOCK_PVS_PRIVATE_H

#include "qemu/job.h"
#include "block/vdisk/layer.h"
#include "block/pvs/journal.h"
#include "block/pvs/label.h"
#include "block/pvs/store.h"

typedef struct PvsInfo PvsInfo;
typedef struct PvsShipment PvsShipment;

typedef enum PrivateState {
    PRIVATE_AWAY,               /* the store is not there, or not known yet */
    PRIVATE_READY,              /* it is, and its label is ours */
    PRIVATE_FENCED,             /* somebody else's: for good */
} PrivateState;

typedef struct PvsPrivate {
    /* Never changed after open */
    BlockDriverState *bs;
    VdiskLayer *layer;          /* the local copy */
    int64_t virtual_size;       /* bytes */
    bool store_durability;
    bool take_over;
    bool nbd;
    char *store_name;
    BdrvChild *store;
    BdrvChild *label;           /* where it is looked at first, or NULL */
    int64_t request_timeout, probe_interval;    /* ms */
    int64_t outage_wait;        /* ns */
    StoreOutageAction outage_action;

    PvsWaits waits;
    PvsJournal journal;

    PrivateState state;
    uint64_t session;           /* counts how often it became ready */
    uint64_t connection;        /* of the NBD client, of this session */
    unsigned store_users;       /* requests between store_begin and store_end */
    bool adopted;               /* the label is ours since this opening */
    bool closed_label;          /* the label says that the store has it all */
    bool was_empty;             /* the journal, when it was opened */
    int64_t away_since;         /* ns */
    char *reason;               /* why it is away or fenced; or NULL */
    bool refused;               /* it is there, and is not what it has to be */
    bool doubted;               /* it is away until the next look, untold */
    char *stuck;                /* why nothing is shipped to it; or NULL */
    bool lagging;               /* flushes may end before the store has all */
    uint64_t catch_up;          /* until the tail is at this position */
    uint64_t ended_early;       /* a flush did, of all up to this position */
    bool gave_up;               /* atomic; a request failed for want of it */
    unsigned reads;             /* atomic; of the guest, that wait for it */
    int64_t read_at;            /* atomic; when the last of them was done; ns */
    uint64_t epochs_shipped, bytes_shipped;     /* since it was opened */
    bool copy_changed;          /* atomic; what the copy had, not durably */
    bool copy_new;              /* atomic; what it did not have, not durably */

    /* Main loop only */
    bool running;               /* the background */
    bool suspended;             /* until it is known whether we are inactive */
    bool closing;
    unsigned coroutines;
    /* Of the replay: its own, in the order of the epochs; or NULL */
    PvsShipment *sent;          /* the store has it, the journal not yet past */
    PvsShipment *now, *next;    /* is sent; is read ahead */
    int64_t kept_bytes;         /* of the content of these, in memory */
    bool unsettled;             /* copy or header could not be written */
    int64_t patience;           /* ms that a request to the store may take */
    unsigned breaks;            /* of the session, while the epoch was sent */
    unsigned send_tasks;        /* requests to the store at once; 0: the most */
    int64_t pause;              /* ns, after the store refused something */
    int64_t paused_until;       /* ns */
    uint64_t paused_session;    /* which did that */
    QemuCoSleep store_sleep, replay_sleep;
    int64_t look_after;         /* ns, until the store is looked for again */
    QEMUTimer *break_timer;
    QEMUBH *bh;                 /* tells what has changed */
    Job *job;                   /* of window.c, or NULL */
    bool outage_told;
    PrivateState told_state;
    bool told_reason;           /* why it is away, of this time */
    bool told_refused;
    unsigned told_level;        /* percent */
    bool told_durable;          /* that flushes wait for the store */
    bool told_stuck;
    bool lag_grows;             /* at the last look, of this session */
    uint64_t lag_then, lag_session;
    int64_t lag_looked;         /* ns */
    Error *blocker;             /* of migration, while there is a lag */
    QLIST_ENTRY(PvsPrivate) all;
} PvsPrivate;

/* private.c */

/* Options of private mode out of @options. @bs has its layer open. */
PvsPrivate *GRAPH_UNLOCKED
pvs_private_open(BlockDriverState *bs, VdiskLayer *layer, QDict *options,
                 int flags, Error **errp);
void GRAPH_UNLOCKED pvs_private_close(PvsPrivate *p);

/*
 * Standard image mode, with the 'journal' in @options that the vDisk had in
 * private mode: refuse unless the store has all of it
 */
bool GRAPH_UNLOCKED pvs_private_check_drained(BlockDriverState *bs,
                                              QDict *options, Error **errp);

/* Recover the journal and begin to work; the node is active from now on */
int coroutine_fn GRAPH_RDLOCK pvs_private_co_activate(PvsPrivate *p,
                                                      Error **errp);
/* The node is about to be inactive. -EBUSY while there is a lag (J12). */
int GRAPH_RDLOCK pvs_private_inactivate(PvsPrivate *p);

void pvs_private_drain_begin(PvsPrivate *p);
void pvs_private_drain_end(PvsPrivate *p);

/*
 * Work in the background: false if there is none to do any more. Begin waits
 * until the node is not drained; a drain waits for the end.
 */
bool coroutine_fn pvs_private_co_begin(PvsPrivate *p, QemuCoSleep *sleep);
void pvs_private_end(PvsPrivate *p);

/* Would a request that fails now fail for want of the store again? */
bool pvs_private_must_wait(PvsPrivate *p);

/* private-io.c */

int coroutine_fn GRAPH_RDLOCK
pvs_private_co_preadv(PvsPrivate *p, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset);
int coroutine_fn GRAPH_RDLOCK
pvs_private_co_pwritev(PvsPrivate *p, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset);
int coroutine_fn GRAPH_RDLOCK
pvs_private_co_zero(PvsPrivate *p, int64_t offset, int64_t bytes, bool unmap);
int coroutine_fn GRAPH_RDLOCK pvs_private_co_flush(PvsPrivate *p);

/* The layer's base: the store, and what is read of it is kept */
int coroutine_fn GRAPH_RDLOCK
pvs_private_co_read_base(PvsPrivate *p, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset);

/*
 * Make granules from @offset on local, at most @bytes. Returns how many bytes
 * are now, or -errno: -ENOTCONN while the store is away, which is not waited
 * for, -EAGAIN if it could not be read, or the local copy's error.
 */
int64_t coroutine_fn GRAPH_RDLOCK
pvs_private_co_localize(PvsPrivate *p, int64_t offset, int64_t bytes);

/* private-store.c */

bool GRAPH_UNLOCKED pvs_private_open_store(PvsPrivate *p, QDict *options,
                                           Error **errp);

/*
 * Of an active node: can a flush be relied on, of the journal, the copy and the
 * store, and is nobody else let write to a local store (J1, J3, J9)?
 */
bool GRAPH_RDLOCK pvs_private_check_promises(PvsPrivate *p, Error **errp);

/* The coroutine that keeps the connection, and looks at its label (J8) */
void coroutine_fn pvs_private_store_entry(void *opaque);

/* The session, or 0 if the store is not ready. Any thread. */
uint64_t pvs_private_session(PvsPrivate *p);

/*
 * A request of @session goes to the store; false if the session is over. The
 * next connection is made after the end of all of them: so none can go out on
 * it, whatever has kept them, and whoever owns the store by then (J8, J9).
 * End returns @ret, or 0, of the request.
 */
bool pvs_private_store_begin(PvsPrivate *p, uint64_t session);
int pvs_private_store_end(PvsPrivate *p, uint64_t session, int ret);

/*
 * A request of @session failed. Unless that was the store's own answer, its
 * connection is gone, and what was not flushed may be forgotten (J3).
 */
void pvs_private_store_failed(PvsPrivate *p, uint64_t session, int error);

/* Is the connection still the one whose label was read? */
bool pvs_private_store_same(PvsPrivate *p, uint64_t session);

/* Note in the label whether the store has everything. 0 or -errno. */
int coroutine_fn GRAPH_RDLOCK
pvs_private_co_set_closed(PvsPrivate *p, uint64_t session, bool closed);

/* replay.c */

void coroutine_fn pvs_private_replay_entry(void *opaque);

/* Do flushes of the guest wait until the store has everything? Lock held. */
bool pvs_private_store_durable(const PvsPrivate *p);

/* Bytes of the vDisk that the store does not have durably; lock held */
uint64_t pvs_private_lag_bytes(PvsPrivate *p);

/* How long the oldest of them has been waiting; ms; lock held */
uint64_t pvs_private_lag_ms(PvsPrivate *p);

/* private-tell.c: what others are told. Main loop. */

void pvs_private_tell(void *opaque);
void pvs_private_unblock(PvsPrivate *p);
void GRAPH_RDLOCK pvs_private_query(PvsPrivate *p, PvsInfo *info);

/* pvs.c: the private vDisk of a node, or NULL. Main loop. */
PvsPrivate *GRAPH_RDLOCK pvs_private_of(BlockDriverState *bs);

#endif /* BLOCK_PVS_PRIVATE_H */

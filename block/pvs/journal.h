/*
 * The reconnect buffer: appending, flushing and reading
 *
 * Writes are gathered into batches: while MAX_BATCHES of them are being
 * written, those that come meanwhile go into the next one. A write is done when
 * its batch is written; a flush when all batches up to it are written and the
 * file was flushed after that. The format and the crash argument are in
 * docs/interop/reconnect-buffer.rst.
 *
 * Locks: header_mutex, flush_gate, waits->lock, in this order. waits->lock is a
 * leaf; all that is not said to be something else's is under it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_JOURNAL_H
#define BLOCK_PVS_JOURNAL_H

#include "block/block_int.h"
#include "block/pvs/journal-format.h"
#include "block/pvs/journal-index.h"
#include "block/pvs/journal-scan.h"
#include "block/pvs/wait.h"

typedef struct JournalBatch JournalBatch;

/* What an epoch holds of one record; commits and pads are not noted */
typedef struct JournalEntry {
    uint64_t seq, offset, length;
    uint64_t pos;               /* of the payload; JOURNAL_POS_ZERO */
    bool unmap;
} JournalEntry;

typedef struct JournalEpoch {
    uint64_t number;
    GArray *entries;            /* JournalEntry, by sequence */
    uint64_t space;             /* bytes of the ring */
    uint64_t bytes;             /* of the vDisk */
    int64_t begun;              /* ns, pvs_now() */
    bool closed;
    JournalTail end;            /* once closed: what comes behind it */
    QSIMPLEQ_ENTRY(JournalEpoch) next;
} JournalEpoch;

/* Somebody reads the ring from here on: it is not written over */
typedef struct JournalPin {
    uint64_t pos;
    QLIST_ENTRY(JournalPin) next;
} JournalPin;

typedef struct PvsJournal {
    /* Never changed while it is open */
    BlockDriverState *bs;       /* the driver's */
    BdrvChild *child;
    PvsWaits *waits;
    uint32_t unit;
    uint64_t ring_size;
    uint64_t batch_bytes;       /* what is written at once at most */
    unsigned batch_records;

    CoMutex header_mutex;
    JournalHeader header;       /* as it is on disk; under header_mutex too */
    int header_copy;

    bool open;                  /* recovered: the rest is there */
    bool broken;
    bool fenced;                /* somebody else's vDisk: never shipped */
    bool marking;               /* that is being written into the header */
    JournalTail head;           /* where the next record goes */
    uint64_t written;           /* sequence: all up to it are in the file */
    uint64_t durable;           /* and these are durable */
    uint64_t start;             /* this opening's start, and pads behind it */
    uint64_t tail_pos;          /* durable */
    int64_t changed_at;         /* ns; of the last append */
    bool uncommitted;           /* something, since the last commit */
    JournalIndex *index;
    QSIMPLEQ_HEAD(, JournalEpoch) epochs;   /* with something in them */
    uint64_t lag;               /* bytes of the vDisk in them */
    uint64_t retired;           /* counts those that have left */
    uint64_t closed_pos;        /* where the last one that is closed ends */
    QLIST_HEAD(, JournalPin) pins;
    unsigned space_waiters;

    QSIMPLEQ_HEAD(, JournalBatch) batches;  /* in the order of the ring */
    JournalBatch *gathering;    /* not begun to write; or NULL */
    unsigned writing;
    CoQueue turn;               /* batches that wait to be written */
    CoQueue written_queue;

    CoMutex flush_gate;
    uint64_t syncs;             /* twice those ended, odd during one; atomic */

    /* Called with the lock held when an epoch begins or ends, and so on */
    void (*changed)(void *opaque);
    void *opaque;
} PvsJournal;

/* journal-open.c */

/*
 * Read the header of the file at @child; nothing is changed. Main loop, not in
 * a coroutine.
 */
bool GRAPH_UNLOCKED
pvs_journal_open(PvsJournal *j, BlockDriverState *bs, BdrvChild *child,
                 PvsWaits *waits, Error **errp);
void pvs_journal_close(PvsJournal *j);

/*
 * Recover it, for a vDisk of @virtual_size bytes, and begin a generation. The
 * header is read again.
 */
int coroutine_fn GRAPH_RDLOCK
pvs_journal_co_recover(PvsJournal *j, uint64_t virtual_size, Error **errp);

/* Say that it is broken, and what to do. -EIO */
int pvs_journal_report_broken(Error **errp);

/*
 * Bytes of the vDisk in it that were not shipped; it is not recovered, and
 * nothing is changed. -errno if it cannot be read, or is damaged.
 */
int64_t coroutine_fn GRAPH_RDLOCK pvs_journal_co_lag(PvsJournal *j,
                                                     Error **errp);

typedef void JournalHeaderChange(JournalHeader *h, const void *opaque);

/*
 * Change the header, durably; with it all that was written before the call. A
 * failure breaks the journal.
 */
int coroutine_fn GRAPH_RDLOCK
pvs_journal_co_change_header(PvsJournal *j, JournalHeaderChange *change,
                             const void *opaque);

/* Make the file at @blk, which has its length, a journal. 0 or -errno. */
int coroutine_fn GRAPH_UNLOCKED
pvs_journal_co_format(BlockBackend *blk, JournalHeader *h, Error **errp);

/* journal.c */

/*
 * Append a write (@qiov has the content) or a zero, and wait until it is in the
 * file. -EIO: the journal is broken; or, while it is full, the node is drained.
 * Lets go of the graph lock while it waits for space.
 */
int coroutine_fn GRAPH_RDLOCK
pvs_journal_co_append(PvsJournal *j, JournalType type, int64_t offset,
                      int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
                      bool unmap);

/* End the epoch and make all of it durable: the guest flushes */
int coroutine_fn GRAPH_RDLOCK pvs_journal_co_flush(PvsJournal *j);

/* Make everything up to @seq durable */
int coroutine_fn GRAPH_RDLOCK
pvs_journal_co_make_durable(PvsJournal *j, uint64_t seq);

/*
 * Close the epoch that is open. False if there is none: nothing is in it.
 * Caller holds the lock.
 */
bool pvs_journal_close_epoch(PvsJournal *j);

/* Read @e, an extent that is pinned, at @at bytes in it */
int coroutine_fn GRAPH_RDLOCK
pvs_journal_co_read(PvsJournal *j, uint64_t pos, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset);

/* Caller holds the lock */
void pvs_journal_pin(PvsJournal *j, JournalPin *pin, uint64_t pos);
void pvs_journal_unpin(PvsJournal *j, JournalPin *pin);

/*
 * Take the oldest epoch, which was shipped, out of the index, after the tail
 * has passed it durably
 */
void coroutine_fn pvs_journal_co_retire(PvsJournal *j, JournalEpoch *e);

/* For long loops over an epoch: let others run now and then; @i counts up */
void coroutine_fn pvs_journal_co_breathe(unsigned i);

/* Nothing is tried again after a failed write or flush */
void coroutine_fn GRAPH_RDLOCK pvs_journal_co_break(PvsJournal *j, int error);

/* Bytes of the ring in use. Caller holds the lock. */
static inline uint64_t pvs_journal_used(const PvsJournal *j)
{
    return j->head.pos - j->tail_pos;
}

/* Make all that is written durable, the header too */
int coroutine_fn GRAPH_RDLOCK pvs_journal_co_sync(PvsJournal *j);

/*
 * For journal-open.c: @r, a write or a zero, belongs to the epoch that is open,
 * or begins one; a write's content is at position @payload. Lock held, if
 * others know of @j.
 */
void pvs_journal_note(PvsJournal *j, const JournalRecord *r, uint64_t payload);

/* It is not open any more; what is in the file stays there */
void pvs_journal_forget(PvsJournal *j);

/* For journal.c: note that in the header, if that can still be done */
void coroutine_fn GRAPH_RDLOCK pvs_journal_co_mark_broken(PvsJournal *j);

#endif /* BLOCK_PVS_JOURNAL_H */

/*
 * The reconnect buffer: its header, and recovery
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/guest-random.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/block-io.h"
#include "block/pvs/journal.h"
#include "system/block-backend.h"
#include "trace.h"

/* Read at once in a recovery; at least journal_scan_window() */
#define SCAN_BYTES      (4 * MiB)
/* Written at once; a vector has a limit too */
#define BATCH_BYTES     (2 * MiB)
#define BATCH_RECORDS   256

/* Header */

/* The one that is not in use */
static int other_copy(const PvsJournal *j)
{
    return (j->header_copy + 1) % JOURNAL_HEADER_COPIES;
}

/* Into the other copy, as what comes next; header_mutex is held */
static int coroutine_fn GRAPH_RDLOCK put_header(PvsJournal *j, JournalHeader *h)
{
    uint8_t *buf = qemu_blockalign(j->child->bs, JOURNAL_HEADER_BYTES);
    int ret;

    h->generation = j->header.generation + 1;
    journal_header_encode(h, buf);
    ret = bdrv_co_pwrite(j->child, other_copy(j) * JOURNAL_HEADER_BYTES,
                         JOURNAL_HEADER_BYTES, buf, 0);
    qemu_vfree(buf);
    return MIN(ret, 0);
}

/*
 * It is durable, and only now in use: until then the next one goes over it, not
 * over the other one. Of two torn copies none would be left.
 */
static void use_header(PvsJournal *j, const JournalHeader *h)
{
    j->header_copy = other_copy(j);
    j->header = *h;
}

int coroutine_fn pvs_journal_co_change_header(PvsJournal *j,
                                              JournalHeaderChange *change,
                                              const void *opaque)
{
    JournalHeader h;
    int ret;

    qemu_co_mutex_lock(&j->header_mutex);
    h = j->header;
    WITH_QEMU_LOCK_GUARD(&j->waits->lock) {
        /* A start that nothing followed may be written over, and torn then */
        if (j->durable > j->start) {
            h.durable = MAX(h.durable, j->durable);
        }
    }
    change(&h, opaque);
    ret = qatomic_read(&j->broken) ? -EIO : put_header(j, &h);
    if (ret >= 0) {
        ret = pvs_journal_co_sync(j);
    }
    if (ret >= 0) {
        use_header(j, &h);
    }
    qemu_co_mutex_unlock(&j->header_mutex);
    if (ret < 0) {
        pvs_journal_co_break(j, ret);
    }
    return ret;
}

static void coroutine_fn mark_broken_entry(void *opaque)
{
    PvsJournal *j = opaque;
    BlockDriverState *bs = j->bs;

    WITH_GRAPH_RDLOCK_GUARD() {
        JournalHeader h;

        qemu_co_mutex_lock(&j->header_mutex);
        h = j->header;
        h.broken = true;
        /* It may fail too: then it is as if the power had failed */
        if (put_header(j, &h) >= 0 && bdrv_co_flush(j->child->bs) >= 0) {
            use_header(j, &h);
        }
        qemu_co_mutex_unlock(&j->header_mutex);
    }
    j->marking = false;
    bdrv_dec_in_flight(bs);
}

/* Not at once: the caller may hold what this needs */
void coroutine_fn pvs_journal_co_mark_broken(PvsJournal *j)
{
    Coroutine *co = qemu_coroutine_create(mark_broken_entry, j);

    bdrv_inc_in_flight(j->bs);
    j->marking = true;
    aio_co_schedule(qemu_get_current_aio_context(), co);
}

static void report_unreadable(int ret, Error **errp)
{
    ERRP_GUARD();

    error_setg_errno(errp, -ret, "Could not read the reconnect buffer");
    error_append_hint(errp, "Keep the file; 'deskcast journal rescue' gets out "
                      "what of it can be read.\n");
}

static int coroutine_fn GRAPH_RDLOCK read_header(PvsJournal *j, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *why = NULL;
    size_t bytes = JOURNAL_HEADER_COPIES * JOURNAL_HEADER_BYTES;
    uint8_t *buf = qemu_blockalign(j->child->bs, bytes);
    int64_t length = bdrv_co_getlength(j->child->bs);
    int ret = length < (int64_t)bytes
              ? MIN(length, 0) : bdrv_co_pread(j->child, 0, bytes, buf, 0);

    if (ret < 0) {
        report_unreadable(ret, errp);
    } else if (length < (int64_t)bytes) {
        error_setg(errp, "The file is too short for a reconnect buffer");
        ret = -EINVAL;
    } else {
        j->header_copy = journal_header_choose(&j->header, buf, &why);
        if (j->header_copy < 0) {
            error_setg(errp, "Cannot use the reconnect buffer: %s", why);
            ret = -EINVAL;
        }
    }
    qemu_vfree(buf);
    if (ret >= 0 && j->header.incompatible_features) {
        error_setg(errp, "The reconnect buffer uses features that this version "
                   "does not know (0x%" PRIx64 ")",
                   j->header.incompatible_features);
        error_append_hint(errp, "Use a newer version of Deskcast.\n");
        return -ENOTSUP;
    }
    if (ret >= 0 &&
        length < JOURNAL_RING_OFFSET + (int64_t)j->header.ring_size) {
        error_setg(errp, "The reconnect buffer was cut off: it has %" PRId64
                   " bytes instead of %" PRIu64, length,
                   JOURNAL_RING_OFFSET + j->header.ring_size);
        error_append_hint(errp, "Bring the file back as it was, or get out "
                          "what is left of it by 'deskcast journal rescue'. If "
                          "the store has everything, make a new one with "
                          "'qemu-img create -f pvs -o role=journal,...'.\n");
        return -EINVAL;
    }
    return MIN(ret, 0);
}

/* Recovery */

typedef struct Recovery {
    PvsJournal *j;
    JournalScan scan;
    uint8_t *buf;
    size_t bytes;               /* of buf */
} Recovery;

/* It goes where it came from, as if it had been appended just now */
static void recover_record(void *opaque, const JournalRecord *r,
                           uint64_t payload)
{
    Recovery *rc = opaque;
    PvsJournal *j = rc->j;
    bool zero = r->type == JOURNAL_ZERO;
    JournalExtent x = {
        .offset = r->offset,
        .length = r->length,
        .pos = zero ? JOURNAL_POS_ZERO : payload,
        .seq = r->seq,
        .unmap = r->flags & JOURNAL_FLAG_UNMAP,
    };

    j->head = rc->scan.next;
    if (r->epoch > j->head.epoch) {
        j->head.epoch = r->epoch - 1;
        pvs_journal_close_epoch(j);
        j->head.epoch = r->epoch;
    }
    if (!zero && r->type != JOURNAL_WRITE) {
        return;
    }
    journal_index_insert(j->index, x);
    pvs_journal_note(j, r, payload);
}

/* As much from @pos on as can be read at once, or up to @end */
static int64_t coroutine_fn GRAPH_RDLOCK
read_ring(Recovery *rc, uint64_t pos, uint64_t end)
{
    PvsJournal *j = rc->j;
    uint64_t at = pos % j->ring_size;
    int64_t n = MIN(MIN(rc->bytes, j->ring_size - at), end - pos);
    int ret = bdrv_co_pread(j->child, JOURNAL_RING_OFFSET + at, n, rc->buf, 0);

    return ret < 0 ? ret : n;
}

static int coroutine_fn GRAPH_RDLOCK scan_ring(Recovery *rc)
{
    JournalScan *s = &rc->scan;
    uint64_t end = journal_scan_end(s);
    uint64_t pos, from;
    int64_t n;
    bool more;

    do {
        from = s->next.pos;
        n = from < end ? read_ring(rc, from, end) : 0;
        if (n < 0) {
            return n;
        }
        more = journal_scan_records(s, rc->buf, n, recover_record, rc) &&
               s->next.pos > from;
    } while (more);
    /* What was read and holds no more records is looked at for proof */
    for (pos = s->next.pos; pos < end; pos += n) {
        n = read_ring(rc, pos, end);
        if (n < 0) {
            return n;
        }
        journal_scan_proof(s, pos, rc->buf, n);
    }
    journal_scan_proof(s, end, rc->buf, 0);
    return 0;
}

static int report_damage(PvsJournal *j, const JournalScan *s, Error **errp)
{
    ERRP_GUARD();

    if (s->proof_pos == UINT64_MAX) {
        error_setg(errp, "The reconnect buffer is damaged: record %" PRIu64
                   " cannot be read, and %" PRIu64 " were flushed",
                   s->next.seq, s->proof_durable);
    } else {
        error_setg(errp, "The reconnect buffer is damaged: record %" PRIu64
                   " at byte %" PRIu64 " cannot be read, but the one at byte %"
                   PRIu64 " says that %" PRIu64 " were flushed", s->next.seq,
                   JOURNAL_RING_OFFSET + s->next.pos % j->ring_size,
                   JOURNAL_RING_OFFSET + s->proof_pos % j->ring_size,
                   s->proof_durable);
    }
    error_append_hint(errp, "Writes are lost that the guest relies on. Keep "
                      "the file; 'deskcast journal rescue' gets out what it "
                      "holds.\n");
    return -EIO;
}

/* The head is behind @r now */
static void pass_record(PvsJournal *j, const JournalRecord *r)
{
    j->head.pos += journal_record_space(r, j->unit);
    j->head.seq++;
    j->head.link = r->checksum;
    if (r->type == JOURNAL_START) {
        memcpy(j->head.nonce, r->next_nonce, sizeof(r->next_nonce));
    }
}

typedef struct Generation {
    uint64_t virtual_size;
    uint8_t nonce[JOURNAL_NONCE_BYTES];
} Generation;

static void header_generation(JournalHeader *h, const void *opaque)
{
    const Generation *g = opaque;

    h->virtual_size = g->virtual_size;
    /* Of a newer release: what they vouch for we do not keep up */
    h->autoclear_features = 0;
    memcpy(h->newest, g->nonce, sizeof(h->newest));
}

/*
 * What was found is durable, and the header says so before another generation
 * begins. And it has the nonce of that, so that its records are proof even if
 * the start is lost that would tell it (J5).
 */
static int coroutine_fn GRAPH_RDLOCK announce_generation(PvsJournal *j,
                                                         const Generation *g)
{
    int ret;

    j->written = j->head.seq - 1;
    j->durable = j->start = 0;
    ret = pvs_journal_co_sync(j);
    return ret < 0 ? ret : pvs_journal_co_change_header(j, header_generation,
                                                        g);
}

/* Write the record that begins a generation; then all is durable (J4, J5) */
static int coroutine_fn GRAPH_RDLOCK write_start(PvsJournal *j,
                                                 const Generation *g)
{
    JournalRecord r = {
        .type = JOURNAL_START,
        .seq = j->head.seq,
        .link = j->head.link,
        .durable = j->durable,
    };
    uint64_t pad = ROUND_UP(j->head.pos + j->unit, JOURNAL_ALIGN) -
                   (j->head.pos + j->unit);
    uint8_t *buf = qemu_blockalign(j->child->bs, JOURNAL_ALIGN);
    JournalEpoch *last = QSIMPLEQ_LAST(&j->epochs, JournalEpoch, next);
    uint64_t at = j->head.pos;
    int ret;

    pvs_journal_close_epoch(j);
    /* Behind an epoch, or the tail would pass what comes now with it */
    r.epoch = j->head.epoch = MAX(j->head.epoch, last ? last->end.epoch : 0);
    memcpy(r.nonce, j->head.nonce, sizeof(r.nonce));
    memcpy(r.next_nonce, g->nonce, sizeof(r.next_nonce));
    memset(buf, 0, JOURNAL_ALIGN);
    journal_record_encode(&r, buf);
    pass_record(j, &r);
    if (pad) {
        JournalRecord p = {
            .type = JOURNAL_PAD, .length = pad, .seq = j->head.seq,
            .epoch = j->head.epoch, .link = j->head.link,
            .durable = r.durable,
        };

        memcpy(p.nonce, j->head.nonce, sizeof(p.nonce));
        journal_record_encode(&p, buf + j->unit);
        pass_record(j, &p);
    }
    ret = bdrv_co_pwrite(j->child, JOURNAL_RING_OFFSET + at % j->ring_size,
                         j->head.pos - at, buf, 0);
    qemu_vfree(buf);
    if (ret < 0) {
        pvs_journal_co_break(j, ret);
        return ret;
    }
    j->written = j->start = j->head.seq - 1;
    return pvs_journal_co_sync(j);
}

static int coroutine_fn GRAPH_RDLOCK
recover_ring(PvsJournal *j, uint64_t virtual_size, Error **errp)
{
    Generation g = { .virtual_size = virtual_size };
    Recovery rc = { .j = j };
    JournalScan *s = &rc.scan;
    int ret;

    journal_scan_init(s, &j->header);
    rc.bytes = MIN(MAX(SCAN_BYTES, journal_scan_window(&j->header)),
                   j->ring_size);
    rc.buf = qemu_blockalign(j->child->bs, rc.bytes);
    j->head = j->header.tail;
    ret = scan_ring(&rc);
    qemu_vfree(rc.buf);
    if (ret < 0) {
        report_unreadable(ret, errp);
        return ret;
    }
    trace_pvs_journal_recovered(j->bs, s->records, s->next.pos, s->damaged);
    if (s->damaged) {
        return report_damage(j, s, errp);
    }
    /* A start that nothing followed is written over */
    j->head = s->ends_with_start ? s->before_start : s->next;
    if (ROUND_UP(j->head.pos + j->unit, JOURNAL_ALIGN) > journal_scan_end(s)) {
        error_setg(errp, "The reconnect buffer has no room for a record that "
                   "begins a session");
        return -ENOSPC;
    }
    qemu_guest_getrandom_nofail(g.nonce, sizeof(g.nonce));
    ret = announce_generation(j, &g);
    if (ret >= 0) {
        ret = write_start(j, &g);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write to the reconnect buffer");
    }
    return ret;
}

int pvs_journal_report_broken(Error **errp)
{
    ERRP_GUARD();

    error_setg(errp, "The reconnect buffer is broken: its disk failed while "
               "writes were under way");
    error_append_hint(errp, "Keep the file; 'deskcast journal rescue' gets out "
                      "what it holds.\n");
    return -EIO;
}

static void no_change(void *opaque)
{
}

int64_t coroutine_fn pvs_journal_co_lag(PvsJournal *j, Error **errp)
{
    Recovery rc = { .j = j, .bytes = MIN(SCAN_BYTES, j->ring_size) };
    int64_t lag;
    int ret;

    j->changed = no_change;
    j->index = journal_index_new();
    j->head = j->header.tail;
    journal_scan_init(&rc.scan, &j->header);
    rc.buf = qemu_blockalign(j->child->bs, rc.bytes);
    ret = scan_ring(&rc);
    qemu_vfree(rc.buf);
    if (ret < 0) {
        report_unreadable(ret, errp);
    } else if (rc.scan.damaged) {
        ret = report_damage(j, &rc.scan, errp);
    }
    lag = j->lag;
    pvs_journal_forget(j);
    return ret < 0 ? ret : lag;
}

int coroutine_fn pvs_journal_co_recover(PvsJournal *j, uint64_t virtual_size,
                                        Error **errp)
{
    int ret = read_header(j, errp);

    if (ret < 0) {
        return ret;
    }
    if (j->header.broken || j->broken) {
        return pvs_journal_report_broken(errp);
    }
    if (j->header.virtual_size && j->header.virtual_size != virtual_size) {
        error_setg(errp, "The reconnect buffer is for a vDisk of %" PRIu64
                   " bytes, and the local copy for one of %" PRIu64,
                   j->header.virtual_size, virtual_size);
        error_append_hint(errp, "Name the two files of the same vDisk.\n");
        return -EINVAL;
    }
    assert(!j->open && !j->index && QSIMPLEQ_EMPTY(&j->epochs));
    j->index = journal_index_new();
    j->tail_pos = j->header.tail.pos;
    j->uncommitted = false;
    ret = recover_ring(j, virtual_size, errp);
    if (ret < 0) {
        pvs_journal_forget(j);
        return ret;
    }
    j->open = true;
    return 0;
}

/* Open and close */

typedef struct OpenCo {
    PvsJournal *j;
    Error **errp;
    int ret;
} OpenCo;

static void coroutine_fn open_entry(void *opaque)
{
    OpenCo *oc = opaque;

    GRAPH_RDLOCK_GUARD();
    oc->ret = read_header(oc->j, oc->errp);
    aio_wait_kick();
}

bool pvs_journal_open(PvsJournal *j, BlockDriverState *bs, BdrvChild *child,
                      PvsWaits *waits, Error **errp)
{
    ERRP_GUARD();
    OpenCo oc = { .j = j, .errp = errp, .ret = -EINPROGRESS };

    j->bs = bs;
    j->child = child;
    j->waits = waits;
    qemu_co_mutex_init(&j->header_mutex);
    qemu_co_mutex_init(&j->flush_gate);
    qemu_co_queue_init(&j->turn);
    qemu_co_queue_init(&j->written_queue);
    QSIMPLEQ_INIT(&j->epochs);
    QSIMPLEQ_INIT(&j->batches);
    QLIST_INIT(&j->pins);
    qemu_coroutine_enter(qemu_coroutine_create(open_entry, &oc));
    BDRV_POLL_WHILE(bs, oc.ret == -EINPROGRESS);
    if (oc.ret < 0) {
        return false;
    }
    j->unit = j->header.unit;
    j->ring_size = j->header.ring_size;
    j->batch_bytes = BATCH_BYTES;
    j->batch_records = BATCH_RECORDS;
    if (j->unit < child->bs->bl.request_alignment) {
        /* A torn write could take its neighbours with it */
        error_setg(errp, "The reconnect buffer was made for sectors of %" PRIu32
                   " bytes; this disk has %" PRIu32, j->unit,
                   child->bs->bl.request_alignment);
        error_append_hint(errp, "Make it anew with 'qemu-img create "
                          "--image-opts' and cache.direct=on.\n");
        return false;
    }
    return true;
}

void pvs_journal_close(PvsJournal *j)
{
    pvs_journal_forget(j);
    BDRV_POLL_WHILE(j->bs, j->marking);
}

int coroutine_fn pvs_journal_co_format(BlockBackend *blk, JournalHeader *h,
                                       Error **errp)
{
    uint8_t *buf = blk_blockalign(blk, JOURNAL_RING_OFFSET);
    int ret;

    memset(buf, 0, JOURNAL_RING_OFFSET);
    for (int i = 0; i < JOURNAL_HEADER_COPIES; i++) {
        h->generation = JOURNAL_HEADER_COPIES - i;
        journal_header_encode(h, buf + i * JOURNAL_HEADER_BYTES);
    }
    ret = blk_co_pwrite(blk, 0, JOURNAL_RING_OFFSET, buf, 0);
    if (ret >= 0) {
        ret = blk_co_flush(blk);
    }
    qemu_vfree(buf);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the reconnect buffer");
    }
    return MIN(ret, 0);
}

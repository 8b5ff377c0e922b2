/*
 * pvs, private image mode: the content of an epoch on its way from the journal
 * to the store, and to the local copy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/aio_task.h"
#include "block/block-io.h"
#include "block/pvs/shipment.h"
#include "block/vdisk/graph.h"

/* Requests to the store at once: the NBD client has room for two reads more */
#define SEND_TASKS      14
/* To the local copy: not so many that a guest's flush has to wait long */
#define COPY_TASKS      4
/* One request at most: a read of the guest may wait behind all of them, */
#define PIECE_BYTES     (512 * KiB)
/* which is so long on a link whose speed is known; ns */
#define BEHIND          (250 * SCALE_MS)
/* An epoch of less does not tell how fast the link is */
#define TELLING_BYTES   (2 * PIECE_BYTES)
/* Who reads one block after the other goes on doing so within this time; ns */
#define READS_ON        (20 * SCALE_MS)
/* What was read to be sent is kept for the copy: so much, of all epochs */
#define KEPT_BYTES      (64 * MiB)
/* Of the next epoch so much is read while one is sent, so many at once */
#define AHEAD_BYTES     (2 * MiB)
#define AHEAD_TASKS     4

/* What was read of a piece; the same pieces are made each time */
typedef struct Kept {
    int64_t offset, bytes;
    uint8_t *buf;               /* of qemu_blockalign */
    PvsPrivate *p;
} Kept;

/* A range of an epoch, with its newest content */
typedef struct Piece {
    AioTask task;
    PvsShipment *of;
    PvsPrivate *p;
    int64_t offset, bytes;
    bool zero, unmap;
    uint64_t session;
} Piece;

typedef int coroutine_fn PieceFunc(Piece *piece);

/* What is done with the pieces of an epoch */
typedef struct Pass {
    PieceFunc *func;
    int tasks;                  /* at once */
    int64_t limit;              /* bytes of content; then it ends */
} Pass;

static void kept_free(void *opaque)
{
    Kept *kept = opaque;

    kept->p->kept_bytes -= kept->bytes;
    qemu_vfree(kept->buf);
    g_free(kept);
}

static void piece_keep(Piece *piece, uint8_t *buf)
{
    Kept *kept = g_new(Kept, 1);

    *kept = (Kept) { piece->offset, piece->bytes, buf, piece->p };
    kept->p->kept_bytes += kept->bytes;
    g_hash_table_replace(piece->of->kept, &kept->offset, kept);
}

/* Out of the journal */
static int coroutine_fn GRAPH_RDLOCK piece_read(Piece *piece, uint8_t *buf)
{
    PvsPrivate *p = piece->p;
    int64_t at = 0;
    int ret = 0;

    while (at < piece->bytes && ret >= 0) {
        QEMUIOVector qiov;
        JournalExtent e;
        int64_t n = journal_index_find(piece->of->parts, piece->offset + at,
                                       piece->bytes - at, &e);

        qemu_iovec_init_buf(&qiov, buf + at, n);
        ret = pvs_journal_co_read(&p->journal, e.pos, n, &qiov, 0);
        at += n;
    }
    if (ret < 0 && ret != -ENOMEM) {
        /* What was acknowledged cannot be read any more */
        pvs_journal_co_break(&p->journal, ret);
    }
    return MIN(ret, 0);
}

/*
 * The content of a piece, NULL if it is zeros. What is not kept is the
 * caller's, to be freed by qemu_vfree.
 */
static int coroutine_fn GRAPH_RDLOCK piece_get(Piece *piece, uint8_t **buf,
                                               bool *kept)
{
    Kept *found = g_hash_table_lookup(piece->of->kept, &piece->offset);
    int ret;

    *buf = found ? found->buf : NULL;
    *kept = found;
    if (found || piece->zero) {
        return 0;
    }
    *buf = qemu_blockalign(piece->p->journal.child->bs, piece->bytes);
    ret = piece_read(piece, *buf);
    if (ret >= 0 && piece->p->kept_bytes + piece->bytes <= KEPT_BYTES) {
        piece_keep(piece, *buf);
        *kept = true;
    }
    return ret;
}

/* Before it is sent */
static int coroutine_fn GRAPH_RDLOCK piece_co_read_ahead(Piece *piece)
{
    uint8_t *buf;
    bool kept;
    int ret = piece_get(piece, &buf, &kept);

    if (!kept) {
        qemu_vfree(buf);
    }
    return ret;
}

/* @buf: NULL for zeros */
static int coroutine_fn GRAPH_RDLOCK piece_write(Piece *piece,
                                                 const uint8_t *buf)
{
    PvsPrivate *p = piece->p;
    int ret;

    /* Reading the journal may have taken longer than the session lasted */
    if (!pvs_private_store_begin(p, piece->session)) {
        return -ENOTCONN;
    }
    if (buf) {
        ret = bdrv_co_pwrite(p->store, piece->offset, piece->bytes, buf, 0);
    } else {
        ret = bdrv_co_pwrite_zeroes(p->store, piece->offset, piece->bytes,
                                    piece->unmap ? BDRV_REQ_MAY_UNMAP : 0);
    }
    return pvs_private_store_end(p, piece->session, ret);
}

/* To the store */
static int coroutine_fn GRAPH_RDLOCK piece_co_send(Piece *piece)
{
    uint8_t *buf;
    bool kept;
    int ret = piece_get(piece, &buf, &kept);

    if (ret >= 0) {
        ret = piece_write(piece, buf);
    }
    if (!kept) {
        qemu_vfree(buf);
    }
    return ret;
}

/* Is it for want of space in the file system of the copy? */
static bool is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

/* Does the copy hold nothing of the granule, so that the store's counts? */
static bool coroutine_fn GRAPH_RDLOCK is_base(VdiskLayer *l, uint64_t granule)
{
    VdiskHold hold;
    bool base;

    /* A fill that read the granule before it was sent has ended by then (J6) */
    vdisk_layer_co_hold(l, &hold, granule, granule + 1);
    base = vdisk_map_all(&l->map, granule, 1, VDISK_STATE_BASE);
    vdisk_layer_co_release(l, &hold);
    return base;
}

static int coroutine_fn GRAPH_RDLOCK copy_write(Piece *piece, int64_t offset,
                                                int64_t bytes, uint8_t *buf)
{
    VdiskLayer *l = piece->p->layer;
    uint8_t zeros[VDISK_GRANULE] = {};
    QEMUIOVector qiov;

    if (!buf) {
        int ret = vdisk_layer_co_zero(l, offset, bytes, piece->unmap);

        if (ret != -ENOTSUP) {
            return ret;
        }
        /* A part of one granule */
        assert(bytes <= sizeof(zeros));
        buf = zeros;
    }
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return vdisk_layer_co_pwritev(l, offset, bytes, &qiov, 0);
}

/* A part of one granule: only if the copy has the granule */
static int coroutine_fn GRAPH_RDLOCK
copy_part(Piece *piece, int64_t offset, int64_t bytes, uint8_t *buf)
{
    if (is_base(piece->p->layer, offset / VDISK_GRANULE)) {
        return 0;
    }
    qatomic_set(&piece->p->copy_changed, true);
    return copy_write(piece, offset, bytes, buf);
}

/*
 * Whole granules, of none of which the copy has anything; 0 if it has, else 1
 * or -errno. They need not be durable there: after a crash it does not have
 * them again, and the store does (J6). So it can do without them, too.
 */
static int coroutine_fn GRAPH_RDLOCK
copy_new(Piece *piece, int64_t offset, int64_t bytes, uint8_t *buf)
{
    PvsPrivate *p = piece->p;
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t end = first + bytes / VDISK_GRANULE;
    VdiskHold hold;
    int ret = 0;
    bool is_new;

    vdisk_layer_co_hold(p->layer, &hold, first, end);
    is_new = vdisk_map_all(&p->layer->map, first, end - first,
                           VDISK_STATE_BASE);
    if (is_new) {
        ret = vdisk_layer_co_put(p->layer, first, end, buf);
    }
    vdisk_layer_co_release(p->layer, &hold);
    if (!is_new) {
        return 0;
    }
    qatomic_set(&p->copy_new, true);
    return ret < 0 && !is_full(ret) ? ret : 1;
}

/* There is no room for all of it: what the copy has is brought up to date */
static int coroutine_fn GRAPH_RDLOCK
copy_runs(Piece *piece, int64_t offset, int64_t bytes, uint8_t *buf)
{
    VdiskMap *map = &piece->p->layer->map;
    int ret = 0;

    while (bytes > 0 && ret >= 0) {
        VdiskState state;
        int64_t n = vdisk_map_run(map, offset / VDISK_GRANULE,
                                  bytes / VDISK_GRANULE, &state) *
                    VDISK_GRANULE;

        ret = state == VDISK_STATE_BASE ? copy_new(piece, offset, n, buf) : 0;
        if (ret == 0) {
            ret = copy_write(piece, offset, n, buf);
        }
        offset += n;
        buf += n;
        bytes -= n;
    }
    return ret;
}

/* Whole granules */
static int coroutine_fn GRAPH_RDLOCK
copy_whole(Piece *piece, int64_t offset, int64_t bytes, uint8_t *buf)
{
    int ret = buf ? copy_new(piece, offset, bytes, buf) : 0;

    if (ret != 0) {
        return MIN(ret, 0);
    }
    qatomic_set(&piece->p->copy_changed, true);
    ret = copy_write(piece, offset, bytes, buf);
    return buf && is_full(ret) ? copy_runs(piece, offset, bytes, buf) : ret;
}

/* To the local copy: whole granules, and the parts of those that it has */
static int coroutine_fn GRAPH_RDLOCK piece_co_copy(Piece *piece)
{
    int64_t end = piece->offset + piece->bytes;
    int64_t from = MIN(ROUND_UP(piece->offset, VDISK_GRANULE), end);
    int64_t to = MAX(QEMU_ALIGN_DOWN(end, VDISK_GRANULE), from);
    uint8_t *buf;
    bool kept;
    int ret = piece_get(piece, &buf, &kept);

    if (ret >= 0 && from > piece->offset) {
        ret = copy_part(piece, piece->offset, from - piece->offset, buf);
    }
    if (ret >= 0 && to > from) {
        ret = copy_whole(piece, from, to - from,
                         buf ? buf + (from - piece->offset) : NULL);
    }
    if (ret >= 0 && end > to) {
        ret = copy_part(piece, to, end - to,
                        buf ? buf + (to - piece->offset) : NULL);
    }
    if (!kept) {
        qemu_vfree(buf);
    } else if (ret >= 0) {
        g_hash_table_remove(piece->of->kept, &piece->offset);
    }
    return MIN(ret, 0);
}

/* All pieces, several at once */

typedef struct Task {
    Piece piece;
    PieceFunc *func;
} Task;

static int coroutine_fn task_entry(AioTask *task)
{
    Piece *piece = container_of(task, Piece, task);
    PieceFunc *func = container_of(piece, Task, piece)->func;
    int ret;

    /* Each has the graph lock for itself, because some wait for holds */
    vdisk_graph_co_retake();
    ret = func(piece);
    vdisk_graph_co_release();
    return ret;
}

/* The next piece from @offset on: of one kind, and not too long */
static bool next_piece(JournalIndex *parts, int64_t offset, int64_t end,
                       Piece *piece)
{
    JournalExtent e;

    do {
        if (offset >= end) {
            return false;
        }
        offset += journal_index_find(parts, offset, end - offset, &e);
    } while (!e.seq);
    piece->offset = e.offset;
    piece->zero = e.pos == JOURNAL_POS_ZERO;
    piece->unmap = e.unmap;
    piece->bytes = e.length;
    while (!piece->zero && piece->bytes < PIECE_BYTES && offset < end) {
        offset += journal_index_find(parts, offset, end - offset, &e);
        if (!e.seq || e.pos == JOURNAL_POS_ZERO) {
            break;
        }
        piece->bytes += e.length;
    }
    piece->bytes = MIN(piece->bytes, piece->zero ? 64 * MiB : PIECE_BYTES);
    return true;
}

static bool guest_reads(PvsPrivate *p)
{
    return qatomic_read(&p->reads) ||
           pvs_now() < qatomic_read(&p->read_at) + READS_ON;
}

/* One at a time while the guest waits for the store itself */
static int coroutine_fn GRAPH_RDLOCK
for_pieces(PvsShipment *of, const Pass *pass, uint64_t session)
{
    PvsPrivate *p = of->p;
    AioTaskPool *pool;
    int64_t offset = 0, left = pass->limit;
    Piece next = {};
    int ret;

    vdisk_graph_co_release();
    pool = aio_task_pool_new(pass->tasks);
    while (aio_task_pool_status(pool) == 0 && !p->waits.drains && left > 0 &&
           next_piece(of->parts, offset, p->virtual_size, &next)) {
        Task *t = g_new0(Task, 1);

        t->piece = next;
        t->piece.task.func = task_entry;
        t->piece.p = p;
        t->piece.of = of;
        t->piece.session = session;
        t->func = pass->func;
        if (session && guest_reads(p)) {
            aio_task_pool_wait_all(pool);
        }
        aio_task_pool_start_task(pool, &t->piece.task);
        offset = next.offset + next.bytes;
        left -= next.zero ? 0 : next.bytes;
    }
    aio_task_pool_wait_all(pool);
    ret = aio_task_pool_status(pool);
    if (ret == 0 && next_piece(of->parts, offset, p->virtual_size, &next)) {
        ret = -EINTR;           /* a drain: the rest comes afterwards */
    }
    aio_task_pool_free(pool);
    vdisk_graph_co_retake();
    return ret;
}

/* Of each byte of the epoch the newest content (J2) */
static JournalIndex *coroutine_fn epoch_parts(const JournalEpoch *e)
{
    JournalIndex *parts = journal_index_new();

    for (guint i = 0; i < e->entries->len; i++) {
        const JournalEntry *n = &g_array_index(e->entries, JournalEntry, i);

        journal_index_insert(parts, (JournalExtent) {
            .offset = n->offset, .length = n->length, .pos = n->pos,
            .seq = n->seq, .unmap = n->unmap,
        });
        pvs_journal_co_breathe(i);
    }
    return parts;
}

PvsShipment *coroutine_fn pvs_shipment_new(PvsPrivate *p, JournalEpoch *e)
{
    PvsShipment *s = g_new(PvsShipment, 1);

    *s = (PvsShipment) {
        .p = p,
        .epoch = e,
        .parts = epoch_parts(e),
        .kept = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL,
                                      kept_free),
    };
    return s;
}

void pvs_shipment_free(PvsShipment *s)
{
    if (s) {
        g_hash_table_unref(s->kept);
        journal_index_free(s->parts);
        g_free(s);
    }
}

int coroutine_fn pvs_shipment_co_read_ahead(PvsShipment *s)
{
    static const Pass ahead = { piece_co_read_ahead, AHEAD_TASKS, AHEAD_BYTES };

    return for_pieces(s, &ahead, 0);
}

int coroutine_fn pvs_shipment_co_send(PvsShipment *s, uint64_t session)
{
    unsigned tasks = s->p->send_tasks ? s->p->send_tasks : SEND_TASKS;
    Pass send = { piece_co_send, tasks, INT64_MAX };

    return for_pieces(s, &send, session);
}

void pvs_shipment_learn(PvsPrivate *p, int64_t bytes, int64_t took)
{
    unsigned tasks = p->send_tasks ? p->send_tasks : SEND_TASKS;

    if (!bytes) {
        p->send_tasks = MAX(tasks / 2, 1);
    } else if (bytes >= TELLING_BYTES) {
        double fit = (double)bytes * BEHIND / MAX(took, 1) / PIECE_BYTES;

        p->send_tasks = fit < 1 ? 1 : MIN(MIN(fit, 2 * tasks), SEND_TASKS);
    }
}

int coroutine_fn pvs_shipment_co_copy(PvsShipment *s)
{
    static const Pass copy = { piece_co_copy, COPY_TASKS, INT64_MAX };

    return for_pieces(s, &copy, 0);
}

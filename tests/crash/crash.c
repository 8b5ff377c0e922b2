/*
 * Crash test: what a power failure may leave of a dedicated disk
 *
 * A workload is recorded: blklogwrites has what was written to the layer file,
 * in the order of completion, and the disk under it when each request began and
 * ended. A crash keeps what a completed flush of the file covers: requests that
 * had completed when that flush began. Of all others each sector may be there
 * or not. For every prefix of the log some such states are made, opened with
 * the real driver and read. A sector that the guest flushed must hold what was
 * flushed or something newer, never what another session left.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "block/mcs/mcs.h"
#include "workload.h"

#define STATES_PER_PREFIX   3
#define MAX_NOTES           10
/* Longer requests than this matter in the windows only */
#define LONG_REQUEST        (1024 * 1024)
/* One state of so many is also written to */
#define LIFE_EVERY          50
#define STAMP_NEXT_LIFE     (STAMP_BASE + 2)
/* No more requests than this are under way at once */
#define LOOKAHEAD           64

/* The log's format, that of Linux drivers/md/dm-log-writes.c */
#define LOG_MAGIC           UINT64_C(0x6a736677736872)
#define LOG_FLUSH           1
#define LOG_DISCARD         4

typedef struct QEMU_PACKED LogSuper {
    uint64_t magic, version, nr_entries;
    uint32_t sectorsize;
} LogSuper;

typedef struct QEMU_PACKED LogEntry {
    uint64_t sector, nr_sectors, flags, data_len;
} LogEntry;

typedef struct Log {
    const RamDisk *disk;
    uint64_t entries, read;
    int64_t at;                 /* of the next entry */
} Log;

/* A request of the file, or a part of it, that a crash may undo */
typedef struct Piece {
    RamRequest request;
    int64_t offset, bytes;
    uint64_t begin, end;
    const uint8_t *data;        /* of a write, in the log */
} Piece;

typedef struct Undo {
    int64_t offset;
    uint8_t old[SECTOR];
} Undo;

typedef struct Replay {
    Rng rng;
    uint64_t seed;
    Workload *w;
    RamDisk *state;             /* the file as a crash leaves it */
    RamDisk *next;              /* a copy, to go on with */
    GArray *pieces;             /* Piece, as they completed */
    guint settled;              /* pieces before it are durable, and in state */
    uint64_t settled_hash;
    int64_t settled_length;
    guint base_shown;           /* index in w->bases */

    /* This state */
    uint64_t now;               /* of the crash */
    uint64_t promised;          /* what the guest had done by then is durable */
    uint64_t hash;
    bool header_torn;
    uint64_t written, written_end;  /* sectors written after the crash */
    GArray *undo;
    uint8_t *buf;

    GHashTable *seen;           /* hashes */
    uint64_t tried, lost, sectors;
} Replay;

/* Reading the log */

static LogEntry log_next(Log *l, const uint8_t **data)
{
    LogEntry e;

    assert(l->read++ < l->entries);
    memcpy(&e, l->disk->data + l->at, sizeof(e));
    e.sector = le64_to_cpu(e.sector);
    e.nr_sectors = le64_to_cpu(e.nr_sectors);
    e.flags = le64_to_cpu(e.flags);
    *data = l->disk->data + l->at + SECTOR;
    l->at += SECTOR;
    if (!(e.flags & LOG_DISCARD)) {
        l->at += e.nr_sectors * SECTOR;
    }
    return e;
}

/*
 * What the log has of @event, which is not a flush. Flushes are skipped: QEMU
 * spares the disk some that are in the log, and adds some that are not. Those
 * that count are the disk's, because they are known to have begun and ended.
 */
static const uint8_t *log_find(Log *l, const RamEvent *event)
{
    const uint8_t *data;
    LogEntry e;

    do {
        e = log_next(l, &data);
    } while (e.flags & LOG_FLUSH);
    assert(e.sector * SECTOR == event->offset);
    assert(e.nr_sectors * SECTOR == event->bytes);
    assert(!(e.flags & LOG_DISCARD) == (event->request != RAM_DISCARD));
    return data;
}

static void add_piece(Replay *r, const RamEvent *e, int64_t from, int64_t to,
                      const uint8_t *data)
{
    Piece p = {
        .request = e->request,
        .offset = from,
        .bytes = to - from,
        .begin = e->begin,
        .end = e->end,
        .data = data + (from - e->offset),
    };

    if (from < to) {
        g_array_append_val(r->pieces, p);
    }
}

static void add_event(Replay *r, const RamEvent *e, const uint8_t *data)
{
    int64_t end = e->offset + e->bytes;

    if (e->bytes <= LONG_REQUEST) {
        add_piece(r, e, e->offset, end, data);
        return;
    }
    for (unsigned i = 0; i < r->w->n_windows; i++) {
        Window *win = &r->w->windows[i];
        int64_t from = r->w->data_offset + win->sector * SECTOR;

        add_piece(r, e, MAX(from, e->offset),
                  MIN(from + win->sectors * SECTOR, end), data);
    }
}

static void read_log(Replay *r)
{
    GArray *events = r->w->file->events;
    const LogSuper *super = (LogSuper *)r->w->log->data;
    Log log = {
        .disk = r->w->log,
        .entries = le64_to_cpu(super->nr_entries),
        .at = SECTOR,
    };

    assert(super->magic == cpu_to_le64(LOG_MAGIC));
    assert(super->sectorsize == cpu_to_le32(SECTOR));
    for (guint i = 0; i < events->len; i++) {
        RamEvent *e = &g_array_index(events, RamEvent, i);

        if (e->request == RAM_TRUNCATE) {
            Piece p = { e->request, e->offset, 0, e->begin, e->end };

            g_array_append_val(r->pieces, p);
        } else if (e->request != RAM_FLUSH) {
            add_event(r, e, log_find(&log, e));
        }
    }
}

/* Making a state */

static void put_sector(Replay *r, guint index, const Piece *p, int64_t i)
{
    uint8_t *to = r->state->data + p->offset + i * SECTOR;
    Rng mix = { index * UINT64_C(0x100000001) ^ (uint64_t)i << 16 };

    r->hash ^= rng_next(&mix);
    r->state->length = MAX(r->state->length, p->offset + (i + 1) * SECTOR);
    switch (p->request) {
    case RAM_WRITE:
        memcpy(to, p->data + i * SECTOR, SECTOR);
        break;
    case RAM_ZERO:
        memset(to, 0, SECTOR);
        break;
    case RAM_DISCARD:
        memset(to, 0xdd, SECTOR);
        break;
    default:
        g_assert_not_reached();
    }
}

static void save_sector(Replay *r, const Piece *p, int64_t i)
{
    Undo u = { .offset = p->offset + i * SECTOR };

    memcpy(u.old, r->state->data + u.offset, SECTOR);
    g_array_append_val(r->undo, u);
}

/* Of the piece's sectors, @percent are in the state */
static void put_piece(Replay *r, guint index, unsigned percent, bool undo)
{
    const Piece *p = &g_array_index(r->pieces, Piece, index);
    int64_t n = p->bytes / SECTOR;
    int64_t done = 0;

    if (p->request == RAM_TRUNCATE) {
        if (rng_chance(&r->rng, percent)) {
            r->state->length = MAX(r->state->length, p->offset);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        if (rng_chance(&r->rng, percent)) {
            if (undo) {
                save_sector(r, p, i);
            }
            put_sector(r, index, p, i);
            done++;
        }
    }
    if (p->offset < VDISK_HEADER_COPIES * VDISK_HEADER_BYTES && done &&
        done < n) {
        r->header_torn = true;
    }
}

static void take_back(Replay *r)
{
    for (guint i = r->undo->len; i > 0; i--) {
        Undo *u = &g_array_index(r->undo, Undo, i - 1);

        memcpy(r->state->data + u->offset, u->old, SECTOR);
    }
    g_array_set_size(r->undo, 0);
    r->state->length = r->settled_length;
    r->header_torn = false;
}

/* What every state has from now on: the file's flushes, the base as it is */
static void settle(Replay *r)
{
    GArray *events = r->w->file->events;
    GArray *bases = r->w->bases;
    uint64_t covered = 0;

    for (guint i = 0; i < events->len; i++) {
        RamEvent *e = &g_array_index(events, RamEvent, i);

        if (e->request == RAM_FLUSH && e->end <= r->now) {
            covered = MAX(covered, e->begin);
        }
    }
    r->hash = r->settled_hash;
    while (r->settled < r->pieces->len &&
           g_array_index(r->pieces, Piece, r->settled).end <= covered) {
        put_piece(r, r->settled++, 100, false);
    }
    r->settled_hash = r->hash;
    r->settled_length = r->state->length;
    while (r->base_shown + 1 < bases->len &&
           g_array_index(bases, BaseContent, r->base_shown + 1).since <=
           r->now) {
        r->base_shown++;
        workload_show_base(r->w, g_array_index(bases, BaseContent,
                                               r->base_shown).data);
    }
}

static void promise(Replay *r)
{
    GArray *flushes = r->w->flushes;

    r->promised = 0;
    for (guint i = 0; i < flushes->len; i++) {
        Flush *f = &g_array_index(flushes, Flush, i);

        if (f->end <= r->now) {
            r->promised = MAX(r->promised, f->begin);
        }
    }
}

typedef enum StateKind {
    STATE_PREFIX,       /* all that completed, and nothing else */
    STATE_NOTHING,      /* only what is durable */
    STATE_SUBSET,       /* whole requests */
    STATE_TORN,         /* any sectors */
    STATE_MIXED,        /* some whole, some torn */
    STATE_ALL_BUT_ONE,
    STATE_ONLY_ONE,
    STATE_KINDS
} StateKind;

/* How much of a request that is not durable is there */
static unsigned choose_percent(Replay *r, StateKind kind, const Piece *p,
                               unsigned density, bool picked)
{
    unsigned torn = rng_chance(&r->rng, 50) ? 50 : 0;

    switch (kind) {
    case STATE_PREFIX:
        return p->end <= r->now ? 100 : 0;
    case STATE_NOTHING:
        return 0;
    case STATE_SUBSET:
        return rng_chance(&r->rng, density) ? 100 : 0;
    case STATE_TORN:
        return density;
    case STATE_MIXED:
        return 50 * rng_below(&r->rng, 3);
    case STATE_ALL_BUT_ONE:
        return picked ? torn : 100;
    case STATE_ONLY_ONE:
        return picked ? 100 - torn : 0;
    default:
        g_assert_not_reached();
    }
}

static void make_state(Replay *r, StateKind kind)
{
    unsigned density = 10 + rng_below(&r->rng, 81);
    guint end = r->settled;
    guint picked;

    while (end < r->pieces->len &&
           g_array_index(r->pieces, Piece, end).end <= r->now) {
        end++;
    }
    end = MIN(end + LOOKAHEAD, r->pieces->len);
    picked = r->settled + rng_below(&r->rng, end - r->settled);
    r->hash = r->settled_hash;
    for (guint i = r->settled; i < end; i++) {
        const Piece *p = &g_array_index(r->pieces, Piece, i);

        if (p->begin <= r->now) {
            put_piece(r, i, choose_percent(r, kind, p, density, i == picked),
                      true);
        }
    }
    ram_disk_set_length(r->state, r->state->length);
}

/* Judging a state */

static bool G_GNUC_PRINTF(2, 3) wrong(Replay *r, const char *fmt, ...)
{
    g_autofree char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (r->lost < MAX_NOTES) {
        note("workload %" PRIu64 ", crash at %" PRIu64 ": %s", r->seed, r->now,
             what);
    }
    return false;
}

/* The last header that was acknowledged, or one under way */
static bool judge_header(Replay *r, BlockDriverState *bs, int64_t size)
{
    BDRVMcsState *s = bs->opaque;
    GArray *headers = r->w->headers;

    for (guint i = headers->len; i > 0; i--) {
        HeaderUpdate *h = &g_array_index(headers, HeaderUpdate, i - 1);
        g_autofree char *name = workload_base_name(h->name);

        if (h->begin > r->now) {
            continue;
        }
        if (h->size == size && g_str_equal(name, s->layer.header.base.name)) {
            return true;
        }
        if (h->end <= r->now) {
            break;
        }
    }
    return wrong(r, "the header has size %" PRId64 " and base %.30s...", size,
                 s->layer.header.base.name);
}

static bool judge_sector(Replay *r, uint64_t sector, const uint8_t *data,
                         const GPtrArray *history)
{
    uint64_t id = stamp_read(data, sector);

    r->sectors++;
    if (sector >= r->written && sector < r->written_end) {
        return id == STAMP_NEXT_LIFE ||
               wrong(r, "sector %" PRIu64 " holds 0x%" PRIx64 " instead of "
                     "what was written after the crash", sector, id);
    }
    if (history_allows(history, id, r->promised, r->now)) {
        return true;
    }
    wrong(r, "sector %" PRIu64 " holds 0x%" PRIx64 "%s; flushed before %"
          PRIu64 ":", sector, id,
          id == STAMP_STALE ? ", another session's" : "", r->promised);
    for (guint i = 0; i < history->len && r->lost < MAX_NOTES; i++) {
        Change *c = g_ptr_array_index(history, i);

        if (c->begin <= r->now) {
            note("  0x%" PRIx64 " from %" PRIu64 " to %" PRIu64, c->id,
                 c->begin, c->end);
        }
    }
    return false;
}

static bool judge_content(Replay *r, BlockBackend *blk, int64_t size)
{
    for (unsigned i = 0; i < r->w->n_windows; i++) {
        Window *win = &r->w->windows[i];
        int64_t offset = win->sector * SECTOR;
        int64_t bytes = MIN(win->sectors * SECTOR, size - offset);

        if (bytes <= 0) {
            continue;
        }
        if (blk_pread(blk, offset, bytes, r->buf, 0) < 0) {
            return wrong(r, "reading fails");
        }
        for (uint64_t n = 0; n < bytes / SECTOR; n++) {
            if (!judge_sector(r, win->sector + n, r->buf + n * SECTOR,
                              r->w->history[win->slot + n])) {
                return false;
            }
        }
    }
    return true;
}

/* A torn copy of the header is reported, and costs nothing: not asked for */
static bool judge_check(Replay *r, BlockBackend *blk)
{
    BdrvCheckResult result = {};

    if (!r->header_torn &&
        (bdrv_check(blk_bs(blk), &result, 0) < 0 || result.corruptions ||
         result.check_errors)) {
        return wrong(r, "check finds %d corruptions", result.corruptions);
    }
    return true;
}

static BlockBackend *open_disk(Replay *r, const char *node, int flags)
{
    Error *err = NULL;
    BlockBackend *blk = mcs_open(node, r->w->has_base ? "base" : NULL, flags,
                                 &err);

    if (!blk) {
        wrong(r, "%s", error_get_pretty(err));
        error_free(err);
    }
    return blk;
}

static bool judge_state(Replay *r)
{
    BlockBackend *blk = open_disk(r, "state", 0);
    int64_t size;
    bool ok;

    if (!blk) {
        return false;
    }
    size = blk_getlength(blk);
    ok = judge_header(r, blk_bs(blk), size) && judge_content(r, blk, size) &&
         judge_check(r, blk);
    blk_unref(blk);
    return ok;
}

/* Write some sectors, durably, and another name of the base */
static bool write_again(Replay *r, BlockBackend *blk, const char *base_name)
{
    Window *win = &r->w->windows[0];
    uint64_t limit = MIN(win->sector + win->sectors,
                         blk_getlength(blk) / SECTOR);
    int64_t bytes;

    r->written = win->sector + rng_below(&r->rng, limit - win->sector);
    r->written_end = MIN(limit, r->written + 1 + rng_below(&r->rng, 20));
    bytes = (r->written_end - r->written) * SECTOR;
    stamp_fill(r->buf, r->written, bytes / SECTOR, STAMP_NEXT_LIFE);
    return blk_pwrite(blk, r->written * SECTOR, bytes, r->buf, 0) >= 0 &&
           blk_flush(blk) >= 0 &&
           bdrv_change_backing_file(blk_bs(blk), base_name, "raw", true) >= 0;
}

/* The next start writes: nothing that the crash left may spoil that */
static bool judge_next_life(Replay *r)
{
    g_autofree char *name = workload_base_name(1000);
    BlockBackend *blk;
    BDRVMcsState *s;
    bool ok;

    ram_disk_copy(r->next, r->state);
    blk = open_disk(r, "next", BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP);
    if (!blk) {
        return false;
    }
    ok = write_again(r, blk, name) || wrong(r, "writing after it fails");
    r->header_torn = false;
    ok = ok && judge_check(r, blk);
    blk_unref(blk);
    blk = open_disk(r, "next", 0);
    if (!blk) {
        return false;
    }
    s = blk_bs(blk)->opaque;
    ok = ok && judge_content(r, blk, blk_getlength(blk)) &&
         judge_check(r, blk) &&
         (g_str_equal(s->layer.header.base.name, name) ||
          wrong(r, "the base's name after it is lost"));
    blk_unref(blk);
    r->written_end = r->written;
    return ok;
}

static void try_state(Replay *r, StateKind kind)
{
    make_state(r, kind);
    r->tried++;
    if (!judge_state(r) ||
        (r->tried % LIFE_EVERY == 0 && !judge_next_life(r))) {
        r->lost++;
    }
    g_hash_table_add(r->seen, g_memdup2(&r->hash, sizeof(r->hash)));
    take_back(r);
}

static guint states_seen(Replay *r)
{
    return g_hash_table_size(r->seen);
}

/* A crash just before each event, and one after the last */
static void replay(Replay *r, uint64_t limit)
{
    GArray *events = r->w->file->events;

    for (guint i = 0; i <= events->len && states_seen(r) < limit; i++) {
        r->now = i < events->len ?
                 g_array_index(events, RamEvent, i).end - 1 : r->w->clock;
        settle(r);
        promise(r);
        try_state(r, STATE_PREFIX);
        for (int n = 1; n < STATES_PER_PREFIX; n++) {
            try_state(r, STATE_PREFIX + 1 +
                      rng_below(&r->rng, STATE_KINDS - 1));
        }
    }
}

static void run_workload(Replay *r, uint64_t limit)
{
    r->w = workload_record(r->seed);
    r->rng.state = ~r->seed;
    r->pieces = g_array_new(false, false, sizeof(Piece));
    r->undo = g_array_new(false, false, sizeof(Undo));
    r->buf = g_malloc(r->w->slots * SECTOR);
    r->settled = 0;
    r->base_shown = 0;
    /* Another workload's pieces have the same numbers */
    r->settled_hash = rng_next(&(Rng) { r->seed });
    read_log(r);
    r->state = ram_disk_new("state", 0, r->w->start->capacity, 0);
    r->next = ram_disk_new("next", 0, r->w->start->capacity, 0);
    ram_disk_copy(r->state, r->w->start);
    workload_show_base(r->w, g_array_index(r->w->bases, BaseContent, 0).data);
    replay(r, limit);
    ram_disk_free(r->state);
    ram_disk_free(r->next);
    g_array_free(r->pieces, true);
    g_array_free(r->undo, true);
    g_free(r->buf);
    workload_free(r->w);
}

int main(int argc, char **argv)
{
    uint64_t limit = option_number(argv, "--states", 10000);
    uint64_t first = option_number(argv, "--seed", 1);
    Replay r = { .seed = first };

    block_layer_init();
    r.seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    while (states_seen(&r) < limit && !r.lost) {
        run_workload(&r, limit);
        r.seed++;
    }
    return !report(!r.lost, "crash: %u states, all distinct, from %" PRIu64
                   " crashes of %" PRIu64 " workloads, %" PRIu64
                   " sectors judged, %" PRIu64 " states lost, --seed %" PRIu64,
                   states_seen(&r), r.tried, r.seed - first, r.sectors, r.lost,
                   first);
}

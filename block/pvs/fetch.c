/*
 * Fetches: what is on its way from a store, once for all who want it
 *
 *   pvs_fetch_begin ---> read from the pool, verified ---> done ---> settled
 *                                                        in the cache, if the
 *                                                        node owns one
 *
 * Requests share a fetch, so a block that many want at once is asked for once;
 * and it goes on when those who wanted it give up. A fetch covers whole
 * granules, of the image or of the tree file behind it, and is found by all
 * until it has settled: who comes later finds it in the cache, or asks anew if
 * it has failed.
 *
 * One that was begun ahead of those who want it covers more than they do. It
 * gives up (-ENODATA) when the stores that are up do not have all of it right,
 * so that one bad block keeps nobody from the good ones beside it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/pvs/ahead.h"
#include "block/pvs/cache.h"
#include "block/pvs/delta.h"
#include "block/pvs/image.h"
#include "block/pvs/tree.h"
#include "trace.h"

struct PvsFetch {
    PvsImage *img;
    int64_t offset;             /* whole granules */
    int64_t bytes;
    bool patient;               /* somebody waits for it, whatever happens */
    PvsUrgency urgency;         /* of the most urgent who want it */

    /* Under the lock */
    unsigned refs;              /* of those who want it, and its coroutine */
    bool done;
    bool settled;               /* not in the list any more */
    int ret;
    uint8_t *buf;
    QLIST_HEAD(, FetchWaiter) waiters;
    QLIST_ENTRY(PvsFetch) next;
};

typedef struct FetchWaiter {
    PvsWaiter w;
    QLIST_ENTRY(FetchWaiter) next;
} FetchWaiter;

/* The fetch that has @offset, or the first one behind it below *@end */
static PvsFetch *find_fetch(PvsImage *img, int64_t offset, int64_t *end)
{
    PvsFetch *f;

    QLIST_FOREACH(f, &img->fetches, next) {
        if (f->offset <= offset && offset < f->offset + f->bytes) {
            return f;
        }
        if (f->offset > offset) {
            *end = MIN(*end, f->offset);
        }
    }
    return NULL;
}

/*
 * Caller holds the lock. Returns one for pvs_wake_finish(), which is mostly the
 * only one, and runs sooner so.
 */
static Coroutine *fetch_wake(PvsFetch *f)
{
    Coroutine *first = NULL;
    FetchWaiter *fw;

    QLIST_FOREACH(fw, &f->waiters, next) {
        Coroutine *co = pvs_wake(&fw->w);

        if (co && first) {
            aio_co_schedule(qemu_coroutine_get_aio_context(co), co);
        }
        first = first ?: co;
    }
    return first;
}

/* Until one of the flags is set, or @until, ns. Caller holds the lock. */
static void coroutine_fn fetch_co_wait_for(PvsFetch *f, const bool *flag,
                                           const bool *stop, int64_t until)
{
    FetchWaiter fw = {};

    QLIST_INSERT_HEAD(&f->waiters, &fw, next);
    while (!*flag && !*stop && (until == INT64_MAX || pvs_now() < until)) {
        pvs_co_wait(&f->img->waits, &fw.w, until);
    }
    QLIST_REMOVE(&fw, next);
}

/* A part of what is fetched, from its stores, into *@buf */
static int coroutine_fn GRAPH_UNLOCKED
read_part(PvsFetch *f, PvsTreeHold *hold, int64_t pos, int64_t bytes,
          uint8_t **buf)
{
    PvsImage *img = f->img;
    int64_t offset = f->offset + pos;
    PvsTreeHold part = *hold;

    if (!img->tree) {
        return pvs_pool_co_read(img->stores, offset,
                                MIN(bytes, img->size - offset), f->patient,
                                NULL, NULL, buf);
    }
    part.offset = offset;
    if (offset >= img->tree_base) {
        return pvs_pool_co_read(pvs_tree_pool(img->tree),
                                offset - img->tree_base, bytes, f->patient,
                                pvs_tree_check, &part, buf);
    }
    return pvs_pool_co_read(img->stores, offset,
                            MIN(bytes, img->size - offset), f->patient,
                            pvs_tree_check, &part, buf);
}

/* What an older version has not, the stores have */
static int coroutine_fn GRAPH_UNLOCKED
read_delta(PvsFetch *f, PvsDelta *d, PvsTreeHold *hold, uint8_t **buf)
{
    unsigned long have[BITS_TO_LONGS(PVS_FETCH_MAX / VDISK_GRANULE)] = {};
    unsigned long n = f->bytes / VDISK_GRANULE, first, end;
    uint8_t *all = qemu_memalign(VDISK_GRANULE, f->bytes);
    int ret = 0;

    pvs_delta_co_read(f->img, d, f->offset, f->bytes, hold, all, have);
    for (first = find_first_zero_bit(have, n); first < n && ret >= 0;
         first = find_next_zero_bit(have, n, end)) {
        uint8_t *part = NULL;

        end = find_next_bit(have, n, first);
        ret = read_part(f, hold, first * VDISK_GRANULE,
                        (end - first) * VDISK_GRANULE, &part);
        if (ret >= 0) {
            memcpy(all + first * VDISK_GRANULE, part,
                   (end - first) * VDISK_GRANULE);
        }
        qemu_vfree(part);
    }
    *buf = all;
    return ret;
}

/*
 * What a fetch is verified by is fetched beside it, and waited for at the end
 */
typedef struct LateHold {
    PvsFetch *f;
    PvsTreeHold hold;
    bool held;
} LateHold;

static int coroutine_fn late_check(void *opaque, int64_t offset, int64_t bytes,
                                   const uint8_t *buf, int64_t *bad)
{
    LateHold *late = opaque;
    PvsFetch *f = late->f;

    if (!late->held) {
        int ret = pvs_tree_co_hold(f->img->tree, f->offset, f->bytes,
                                   f->patient, &late->hold);

        late->held = true;
        if (ret < 0) {
            return ret;
        }
    }
    return pvs_tree_check(&late->hold, offset, bytes, buf, bad);
}

typedef struct TreeAhead {
    PvsImage *img;
    int64_t offset, bytes;
    bool patient;
} TreeAhead;

static void coroutine_fn tree_ahead_entry(void *opaque)
{
    g_autofree TreeAhead *ta = opaque;
    BlockDriverState *bs = ta->img->bs;
    PvsTreeHold hold;

    pvs_tree_co_hold(ta->img->tree, ta->offset, ta->bytes, ta->patient, &hold);
    pvs_tree_release(ta->img->tree, &hold);
    bdrv_dec_in_flight(bs);
}

/* Takes as long as the slower one of the two takes, not both */
static int coroutine_fn GRAPH_UNLOCKED read_beside_tree(PvsFetch *f)
{
    PvsImage *img = f->img;
    TreeAhead *ta = g_new(TreeAhead, 1);
    LateHold late = { .f = f };
    int ret;

    *ta = (TreeAhead) {
        .img = img, .offset = f->offset, .bytes = f->bytes,
        .patient = f->patient,
    };
    bdrv_inc_in_flight(img->bs);
    qemu_coroutine_enter(qemu_coroutine_create(tree_ahead_entry, ta));
    ret = pvs_pool_co_read(img->stores, f->offset,
                           MIN(f->bytes, img->size - f->offset), f->patient,
                           late_check, &late, &f->buf);
    pvs_tree_release(img->tree, &late.hold);
    return ret;
}

static int coroutine_fn GRAPH_UNLOCKED fetch_read(PvsFetch *f)
{
    PvsImage *img = f->img;
    PvsTreeHold hold = {};
    PvsDelta *d = NULL;
    int ret = 0;

    if (!img->tree) {
        return read_part(f, &hold, 0, f->bytes, &f->buf);
    }
    if (qatomic_read(&img->delta)) {
        d = pvs_delta_get(img);
    }
    if (!pvs_tree_try_hold(img->tree, f->offset, f->bytes, &hold)) {
        if (!d && f->offset < img->tree_base) {
            return read_beside_tree(f);
        }
        ret = pvs_tree_co_hold(img->tree, f->offset, f->bytes, f->patient,
                               &hold);
    }
    if (ret >= 0) {
        ret = d ? read_delta(f, d, &hold, &f->buf)
                : read_part(f, &hold, 0, f->bytes, &f->buf);
    }
    pvs_tree_release(img->tree, &hold);
    if (d) {
        pvs_delta_put(img, d);
    }
    return ret;
}

/* Nobody finds it any more. Caller holds the lock. */
static void fetch_leave(PvsFetch *f)
{
    QLIST_REMOVE(f, next);
    f->img->in_flight[f->urgency]--;
    f->settled = true;
}

static void coroutine_fn fetch_entry(void *opaque)
{
    PvsFetch *f = opaque;
    PvsImage *img = f->img;
    BlockDriverState *bs = img->bs;
    Coroutine *co;
    int ret = fetch_read(f);

    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        f->ret = ret;
        f->done = true;
        if (ret < 0) {
            fetch_leave(f);
        }
        co = fetch_wake(f);
    }
    pvs_wake_finish(co);
    if (ret >= 0) {
        if (img->owner && img->cache) {
            /* Failing costs another fetch of the same, no more */
            pvs_cache_co_fill(img->cache, f->offset, f->bytes, f->buf);
        }
        WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
            fetch_leave(f);
            co = fetch_wake(f);
        }
        pvs_wake_finish(co);
    }
    pvs_fetch_unref(img, f);
    bdrv_dec_in_flight(bs);
}

/* Caller holds the lock */
static PvsFetch *fetch_new(PvsImage *img, int64_t offset, int64_t bytes,
                           PvsUrgency urgency)
{
    PvsFetch *f = g_new0(PvsFetch, 1);

    img->in_flight[urgency]++;
    *f = (PvsFetch) {
        .img = img,
        .offset = offset,
        .bytes = bytes,
        .patient = urgency == PVS_DEMAND,
        .urgency = urgency,
        .refs = 2,
    };
    QLIST_INIT(&f->waiters);
    QLIST_INSERT_HEAD(&img->fetches, f, next);
    return f;
}

/*
 * Looked at again under the lock: a fetch leaves the list only after it is in
 * the cache, so it is found in the one or the other.
 */
static bool is_cached(PvsImage *img, int64_t offset, int64_t bytes, int64_t *n)
{
    PvsCache *cache = pvs_image_cache(img);
    VdiskState state = VDISK_STATE_BASE;
    uint64_t run;

    if (!cache) {
        return false;
    }
    run = pvs_cache_run(cache, offset / VDISK_GRANULE,
                        bytes / VDISK_GRANULE, &state);
    *n = run * VDISK_GRANULE;
    return state != VDISK_STATE_BASE;
}

PvsFetch *coroutine_fn pvs_fetch_begin(PvsImage *img, int64_t offset,
                                       int64_t bytes, PvsUrgency urgency,
                                       int64_t *n)
{
    int64_t end = offset + bytes;
    PvsFetch *f;

    assert(QEMU_IS_ALIGNED(offset | bytes, VDISK_GRANULE));
    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        f = find_fetch(img, offset, &end);
        if (f) {
            f->refs++;
            img->in_flight[f->urgency]--;
            f->urgency = MIN(f->urgency, urgency);
            img->in_flight[f->urgency]++;
            *n = MIN(end, f->offset + f->bytes) - offset;
            return f;
        }
        *n = 0;
        if (urgency != PVS_DEMAND && img->waits.drains) {
            return NULL;
        }
        *n = end - offset;
        if (is_cached(img, offset, end - offset, n)) {
            return NULL;
        }
        *n = MIN(*n, PVS_FETCH_MAX);
        f = fetch_new(img, offset, *n, urgency);
        if (img->ahead && urgency != PVS_BACKGROUND) {
            pvs_ahead_missed(img->ahead, offset, *n);
        }
        /* Before the lock is given up: a drain that begins then waits for it */
        bdrv_inc_in_flight(img->bs);
    }
    trace_pvs_fetch(img->bs, offset, *n, urgency);
    qemu_coroutine_enter(qemu_coroutine_create(fetch_entry, f));
    return f;
}

static int coroutine_fn fetch_co_wait(PvsFetch *f, const bool *stop,
                                      int64_t until)
{
    QEMU_LOCK_GUARD(&f->img->waits.lock);
    fetch_co_wait_for(f, &f->done, stop, until);
    return f->done ? f->ret : -ECANCELED;
}

int coroutine_fn pvs_fetch_co_wait(PvsImage *img, PvsFetch *f)
{
    return fetch_co_wait(f, &f->done, INT64_MAX);
}

int coroutine_fn pvs_fetch_co_wait_until(PvsImage *img, PvsFetch *f,
                                         int64_t until)
{
    return fetch_co_wait(f, &f->done, until);
}

int coroutine_fn pvs_fetch_co_wait_unless(PvsImage *img, PvsFetch *f,
                                          const bool *stop, int64_t until)
{
    return fetch_co_wait(f, stop, until);
}

bool pvs_fetch_is_patient(const PvsFetch *f)
{
    return f->patient;
}

bool pvs_fetch_is_done(PvsFetch *f)
{
    QEMU_LOCK_GUARD(&f->img->waits.lock);
    return f->done;
}

int pvs_fetch_result(PvsFetch *f)
{
    QEMU_LOCK_GUARD(&f->img->waits.lock);
    assert(f->done);
    return f->ret;
}

const uint8_t *pvs_fetch_data(const PvsFetch *f, int64_t offset)
{
    assert(offset >= f->offset && offset < f->offset + f->bytes);
    return f->buf + (offset - f->offset);
}

void pvs_fetch_unref(PvsImage *img, PvsFetch *f)
{
    bool last;

    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        last = --f->refs == 0;
    }
    if (last) {
        qemu_vfree(f->buf);
        g_free(f);
    }
}

void coroutine_fn pvs_fetch_co_settle(PvsImage *img, PvsFetch *f)
{
    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        fetch_co_wait_for(f, &f->settled, &f->settled, INT64_MAX);
    }
    pvs_fetch_unref(img, f);
}

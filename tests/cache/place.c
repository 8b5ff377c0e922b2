/*
 * Test of the host cache: a version, and where its cache is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "cache.h"

bool is_zero(uint64_t g)
{
    return g % 7 == 0;
}

void content(uint64_t g, uint8_t *buf)
{
    Rng rng = { .state = g * 31 + 5 };

    if (is_zero(g)) {
        memset(buf, 0, GRANULE);
        return;
    }
    for (size_t i = 0; i < GRANULE; i += 8) {
        uint64_t value = rng_next(&rng);

        memcpy(buf + i, &value, 8);
    }
    if (g == IMAGE_GRANULES - 1) {
        memset(buf + IMAGE_BYTES % GRANULE, 0,
               GRANULE - IMAGE_BYTES % GRANULE);
    }
}

static bool coroutine_fn co_verify(void *opaque, int64_t offset, int64_t bytes,
                                   const uint8_t *buf)
{
    Place *p = opaque;
    g_autofree uint8_t *want = g_malloc(GRANULE);

    g_assert(bytes == GRANULE && offset % GRANULE == 0);
    p->verified++;
    content(offset / GRANULE, want);
    return p->trusting || memcmp(buf, want, GRANULE) == 0;
}

static void full_changed(void *opaque, bool full)
{
    Place *p = opaque;

    *(full ? &p->full : &p->room) += 1;
}

void place_init(Place *p, const char *dir, const char *shm)
{
    *p = (Place) {
        .dir = g_strdup(dir),
        .data = g_build_filename(dir, "cache", NULL),
        .map = g_build_filename(shm, "cache.map", NULL),
        .id = {
            .vdisk = "win11",
            .version = 12,
            .image_bytes = IMAGE_BYTES,
            .tree_bytes = TREE_GRANULES * GRANULE,
        },
        .ops = { .co_verify = co_verify, .full_changed = full_changed },
    };
    memset(p->root, 0x5a, sizeof(p->root));
    p->id.root = p->root;
}

void place_clear(Place *p)
{
    unlink(p->data);
    unlink(p->map);
    p->verified = 0;
    p->full = p->room = 0;
}

PvsCache *place_own(Place *p)
{
    return pvs_cache_own(p->data, p->map, &p->id, 0, &p->ops, p, &error_abort);
}

PvsCache *place_attach(Place *p)
{
    return pvs_cache_attach(p->data, p->map, &p->id, &error_abort);
}

/* Coroutines */

typedef struct Run {
    CoFunc *func;
    void *opaque;
    int ret;
    bool done;
} Run;

static void coroutine_fn run_entry(void *opaque)
{
    Run *r = opaque;

    r->ret = r->func(r->opaque);
    r->done = true;
    aio_wait_kick();
}

int run_co(CoFunc *func, void *opaque)
{
    Run r = { .func = func, .opaque = opaque };

    qemu_coroutine_enter(qemu_coroutine_create(run_entry, &r));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !r.done);
    return r.ret;
}

static int coroutine_fn co_sleep(void *opaque)
{
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, *(int64_t *)opaque * SCALE_MS);
    return 0;
}

void poll_ms(int64_t ms)
{
    run_co(co_sleep, &ms);
}

typedef struct Work {
    PvsCache *c;
    uint64_t first, n;
} Work;

int coroutine_fn co_fill_granules(PvsCache *c, uint64_t g, uint64_t n)
{
    uint8_t *buf = qemu_memalign(GRANULE, n * GRANULE);
    int ret;

    for (uint64_t i = 0; i < n; i++) {
        content(g + i, buf + i * GRANULE);
    }
    ret = pvs_cache_co_fill(c, g * GRANULE, n * GRANULE, buf);
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn co_fill(void *opaque)
{
    Work *w = opaque;

    return co_fill_granules(w->c, w->first, w->n);
}

int fill(PvsCache *c, uint64_t first, uint64_t n)
{
    Work w = { .c = c, .first = first, .n = n };

    return run_co(co_fill, &w);
}

static int coroutine_fn co_sync(void *opaque)
{
    return pvs_cache_co_sync(opaque);
}

int sync_cache(PvsCache *c)
{
    return run_co(co_sync, c);
}

VdiskState state_of(PvsCache *c, uint64_t g)
{
    VdiskState state;

    pvs_cache_run(c, g, 1, &state);
    return state;
}

/* Of granules in state data: what is read must be what was sealed */
int coroutine_fn co_read_granules(PvsCache *c, uint64_t g, uint64_t n)
{
    uint8_t *buf = qemu_memalign(GRANULE, n * GRANULE);
    g_autofree uint8_t *want = g_malloc(GRANULE);
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, n * GRANULE);
    int ret = pvs_cache_co_read(c, g * GRANULE, n * GRANULE, &qiov, 0);

    for (uint64_t i = 0; i < n && ret == 0; i++) {
        content(g + i, want);
        ret = memcmp(buf + i * GRANULE, want, GRANULE) ? -EILSEQ : 0;
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn co_read(void *opaque)
{
    Work *w = opaque;

    return co_read_granules(w->c, w->first, w->n);
}

int read_granule(PvsCache *c, uint64_t g)
{
    Work w = { .c = c, .first = g, .n = 1 };

    return run_co(co_read, &w);
}

typedef struct SurveyWork {
    PvsCache *c;
    Survey s;
} SurveyWork;

static int coroutine_fn co_survey(void *opaque)
{
    SurveyWork *w = opaque;
    Survey *s = &w->s;

    for (uint64_t g = 0; g < GRANULES; g++) {
        VdiskState state = state_of(w->c, g);
        int ret = state == VDISK_STATE_DATA ? co_read_granules(w->c, g, 1) : 0;

        s->missing += state == VDISK_STATE_BASE;
        s->data += state == VDISK_STATE_DATA && ret == 0;
        s->zero += state == VDISK_STATE_ZERO;
        s->failed += ret < 0 && ret != -EILSEQ;
        s->wrong += ret == -EILSEQ || (state == VDISK_STATE_ZERO &&
                                       !is_zero(g));
    }
    return 0;
}

Survey survey(PvsCache *c)
{
    SurveyWork w = { .c = c };

    run_co(co_survey, &w);
    return w.s;
}

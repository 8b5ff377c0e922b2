/*
 * Kill test: the process that is killed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/prctl.h>
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "block/qdict.h"
#include "qobject/qdict.h"
#include "block/pvs/private.h"
#include "kill.h"
#include "points.h"

#define MAX_REQUEST     640     /* sectors */
#define READ_BYTES      (1 * MiB)

typedef struct Victim {
    Shared *sh;
    const Files *files;
    int out;
    Rng rng;
    BlockBackend *blk;
    unsigned left;              /* requests to make */
    unsigned running;           /* workers */
} Victim;

static Victim victim;

/* Phases */

static void enter_from(Victim *v, Phase from, Phase phase)
{
    char c = phase;

    /* A thread that writes to a file may be the one that finds it new */
    if (qatomic_cmpxchg(&v->sh->phase, from, phase) != (int)from) {
        return;
    }
    if (phase == v->sh->plan.phase) {
        points_arm(v->sh->plan.points);
    }
    if (write(v->out, &c, 1) != 1) {
        _exit(2);
    }
}

static void enter(Victim *v, Phase phase)
{
    enter_from(v, qatomic_read(&v->sh->phase), phase);
}

static void writing(void)
{
    if (qatomic_read(&victim.sh->phase) == PHASE_OPENING) {
        enter_from(&victim, PHASE_OPENING, PHASE_RECOVERING);
    }
}

static G_NORETURN G_GNUC_PRINTF(2, 3) void
give_up(Victim *v, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_vsnprintf(v->sh->failed, sizeof(v->sh->failed), fmt, ap);
    va_end(ap);
    _exit(1);
}

/* What it does, noted */

static uint64_t tick(Victim *v)
{
    return ++v->sh->clock;
}

static Entry *note_begin(Victim *v, uint64_t first, uint64_t n, bool stamped,
                         bool fua)
{
    Shared *sh = v->sh;
    Entry *e = &sh->entries[sh->n_entries];

    *e = (Entry) {
        .id = stamped ? sh->next_id++ : STAMP_ZERO,
        .begin = tick(v),
        .end = CHANGE_UNDER_WAY,
        .first = first,
        .n = n,
        .fua = fua,
    };
    qatomic_store_release(&sh->n_entries, sh->n_entries + 1);
    return e;
}

static bool is_answered(Victim *v, int ret, const char *what)
{
    if (ret < 0) {
        v->sh->errors++;
        snprintf(v->sh->failed, sizeof(v->sh->failed), "a %s failed: %s", what,
                 strerror(-ret));
    }
    return ret >= 0;
}

static void note_end(Victim *v, Entry *e, int ret, const char *what)
{
    if (is_answered(v, ret, what)) {
        qatomic_set(&e->end, tick(v));
    }
}

/* Requests */

static void random_range(Victim *v, uint64_t *first, uint64_t *n)
{
    const unsigned per = GRANULE / SECTOR;
    static const unsigned most[] = { 8, 8, 8, 16, 16, 16, 64, 128 };

    *n = 1 + rng_below(&v->rng, rng_chance(&v->rng, 3) ? MAX_REQUEST :
                       most[rng_below(&v->rng, ARRAY_SIZE(most))]);
    *first = rng_below(&v->rng, SECTORS);
    if (rng_chance(&v->rng, 30)) {
        /* Some places are written again and again */
        *first %= 4 * per;
    }
    if (rng_chance(&v->rng, 60)) {
        *first = ROUND_DOWN(*first, per);
        *n = ROUND_UP(*n, per);
    }
    *n = MIN(*n, SECTORS - *first);
}

static void coroutine_fn co_write(Victim *v)
{
    bool fua = rng_chance(&v->rng, 8);
    g_autofree uint8_t *buf = NULL;
    uint64_t first, n;
    Entry *e;

    random_range(v, &first, &n);
    buf = g_malloc(n * SECTOR);
    e = note_begin(v, first, n, true, fua);
    stamp_fill(buf, first, n, e->id);
    note_end(v, e, blk_co_pwrite(v->blk, first * SECTOR, n * SECTOR, buf,
                                 fua ? BDRV_REQ_FUA : 0), "write");
}

static void coroutine_fn co_zero(Victim *v)
{
    BdrvRequestFlags flags = rng_chance(&v->rng, 50) ? BDRV_REQ_MAY_UNMAP : 0;
    uint64_t first, n;
    Entry *e;

    random_range(v, &first, &n);
    e = note_begin(v, first, n, false, false);
    note_end(v, e, blk_co_pwrite_zeroes(v->blk, first * SECTOR, n * SECTOR,
                                        flags), "write of zeroes");
}

/* Of whole granules: whether others are touched is not said */
static void coroutine_fn co_discard(Victim *v)
{
    const unsigned per = GRANULE / SECTOR;
    uint64_t first, n;
    Entry *e;

    random_range(v, &first, &n);
    first = ROUND_DOWN(first, per);
    n = ROUND_UP(n, per);
    n = MIN(n, SECTORS - first);
    e = note_begin(v, first, n, false, false);
    note_end(v, e, blk_co_pdiscard(v->blk, first * SECTOR, n * SECTOR, 0),
             "discard");
}

static void coroutine_fn co_flush(Victim *v)
{
    Shared *sh = v->sh;
    Span f = { .begin = tick(v) };
    int ret;

    sh->flushing++;
    ret = blk_co_flush(v->blk);
    sh->flushing--;
    f.end = tick(v);
    if (is_answered(v, ret, "flush")) {
        sh->flushes[sh->n_flushes] = f;
        qatomic_store_release(&sh->n_flushes, sh->n_flushes + 1);
    }
}

static void coroutine_fn co_request(Victim *v)
{
    unsigned dice = rng_below(&v->rng, 100);

    if (rng_chance(&v->rng, v->sh->plan.flush_percent)) {
        co_flush(v);
    } else if (dice < 8) {
        co_zero(v);
    } else if (dice < 12) {
        co_discard(v);
    } else {
        co_write(v);
    }
}

static void coroutine_fn worker_entry(void *opaque)
{
    Victim *v = opaque;

    while (v->left > 0) {
        v->left--;
        co_request(v);
    }
    v->running--;
    aio_wait_kick();
}

static void work(Victim *v)
{
    /* One is left for the flush in the end */
    v->left = MIN(v->sh->plan.requests, MAX_ENTRIES - 1);
    v->running = v->sh->plan.workers;
    for (unsigned i = v->running; i > 0; i--) {
        aio_co_schedule(qemu_get_aio_context(),
                        qemu_coroutine_create(worker_entry, v));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, v->running > 0);
}

/* All of it, by content */
static void read_all(Victim *v, Content *c)
{
    g_autofree uint8_t *buf = g_malloc(READ_BYTES);

    for (uint64_t at = 0; at < DISK_BYTES; at += READ_BYTES) {
        int ret = blk_pread(v->blk, at, READ_BYTES, buf, 0);

        if (!is_answered(v, ret, "read")) {
            _exit(1);
        }
        for (uint64_t s = 0; s < READ_BYTES / SECTOR; s++) {
            c->ids[at / SECTOR + s] = stamp_read(buf + s * SECTOR,
                                                 at / SECTOR + s);
        }
    }
    qatomic_store_release(&c->at, tick(v));
}

/* Until the store has everything */

static bool coroutine_fn is_drained(BlockBackend *blk)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD();
    p = pvs_private_of(blk_bs(blk));
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->state == PRIVATE_READY && QSIMPLEQ_EMPTY(&p->journal.epochs);
}

static void coroutine_fn drain_entry(void *opaque)
{
    Victim *v = opaque;

    co_flush(v);
    while (!is_drained(v->blk)) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS / 2);
    }
    v->running--;
    aio_wait_kick();
}

static void drain(Victim *v)
{
    v->running = 1;
    qemu_coroutine_enter(qemu_coroutine_create(drain_entry, v));
    AIO_WAIT_WHILE_UNLOCKED(NULL, v->running > 0);
}

/* Its life */

static BlockBackend *open_disk(Victim *v)
{
    QDict *options = qdict_new();
    BlockBackend *blk;
    Error *err = NULL;

    qdict_put_str(options, "driver", "pvs");
    qdict_put_str(options, "mode", "private");
    qdict_put_str(options, "vdisk", VDISK);
    qdict_put_int(options, "version", 1);
    qdict_put_str(options, "durability",
                  v->sh->plan.durability_store ? "store" : "local");
    qdict_put_int(options, "probe-interval", 50);
    qdict_put_str(options, "file.driver", "file");
    qdict_put_str(options, "file.filename", v->files->copy);
    qdict_put_str(options, "journal.driver", "file");
    qdict_put_str(options, "journal.filename", v->files->journal);
    qdict_put_str(options, "stores.0.driver", "nbd");
    qdict_put_str(options, "stores.0.export", VDISK);
    qdict_put_str(options, "stores.0.server.type", "unix");
    qdict_put_str(options, "stores.0.server.path", v->files->socket);
    blk = blk_new_open(NULL, NULL, options, BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    if (!blk) {
        give_up(v, "it does not open: %s", error_get_pretty(err));
    }
    return blk;
}

static void begin(Victim *v, Shared *sh, const Files *f, int out)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    *v = (Victim) {
        .sh = sh, .files = f, .out = out, .rng.state = sh->plan.seed,
    };
    points_writing = writing;
}

void victim_run(Shared *sh, const Files *f, int out)
{
    Victim *v = &victim;

    begin(v, sh, f, out);
    enter(v, PHASE_OPENING);
    module_call_init(MODULE_INIT_QOM);      /* a store has a socket */
    block_layer_init();
    v->blk = open_disk(v);
    enter(v, PHASE_READING);
    read_all(v, &sh->opened);
    enter(v, PHASE_WRITING);
    work(v);
    enter(v, PHASE_DRAINING);
    drain(v);
    read_all(v, &sh->drained);
    enter(v, PHASE_IDLE);
    if (sh->plan.closes) {
        enter(v, PHASE_CLOSING);
        blk_unref(v->blk);
        _exit(0);
    }
    for (;;) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

/* Making the files */

static void make_file(const char *path, const char *role, uint64_t bytes)
{
    g_autofree char *options = g_strdup_printf("role=%s,vdisk=" VDISK
                                               ",version=1", role);

    unlink(path);
    bdrv_img_create(path, "pvs", NULL, NULL, options, bytes, BDRV_O_RDWR, true,
                    &error_abort);
}

void victim_make(const Files *f, uint64_t journal_bytes)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    block_layer_init();
    make_file(f->copy, "copy", DISK_BYTES);
    make_file(f->journal, "journal", journal_bytes);
    _exit(0);
}

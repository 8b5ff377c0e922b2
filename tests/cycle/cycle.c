/*
 * Cycle test: the life of a pooled desktop, over and over, with crashes
 *
 * A worker process opens the disk and does random things to it: requests,
 * resets, assignments, saving and resuming, clean ends. Now and then it is
 * killed, at any moment. What it is about to do, and what it has done, stands
 * in memory that outlives it. The next worker must find a clean disk, on an
 * image and with an assignment that the header could have then: the old one or
 * the new one, never neither. Everything is compared by content, and whatever
 * an older session wrote is content that no other can have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "qobject/qdict.h"
#include "block/mcs/mcs.h"
#include "../crash/fixture.h"

#define DISK_SIZE       (256 * 1024)
#define LARGE_SIZE      (320 * 1024)
#define SMALL_SIZE      (128 * 1024)
#define MAX_SECTORS     (LARGE_SIZE / SECTOR)
#define LIFE_CYCLES     60
#define CYCLE_OPS       10
#define MAX_ALLOWED     4
#define NONE            -1

/* The images; what a sector of one holds tells which it is */
static const struct {
    const char *name, *format;
    int64_t size;
} images[] = {
    { "a.raw",      "raw",   DISK_SIZE },
    { "b.qcow2",    "qcow2", DISK_SIZE },
    { "large.raw",  "raw",   LARGE_SIZE },
    { "small.raw",  "raw",   SMALL_SIZE },
};

/* What a header says */
typedef struct Named {
    int base, assigned;         /* index in images, or NONE */
    int64_t size;               /* of the disk */
} Named;

/* What outlives a worker */
typedef struct Shared {
    Rng rng;
    uint64_t cycles, limit;
    uint64_t crashes, resets, pushes, refused, saves, lives, compared;
    uint64_t next_id;
    bool have_disk;
    int life;                   /* cycles of it */
    Named allowed[MAX_ALLOWED]; /* headers that the file may have */
    int n_allowed;
    bool failed;
    char why[512];
} Shared;

typedef struct Worker {
    Shared *s;
    const char *dir;
    BlockBackend *blk;
    VdiskLayer *layer;
    Named now;
    uint64_t ref[MAX_SECTORS];
    uint8_t buf[LARGE_SIZE];
} Worker;

static void G_GNUC_PRINTF(2, 3) G_NORETURN
fail(Worker *w, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(w->s->why, sizeof(w->s->why), fmt, ap);
    va_end(ap);
    w->s->failed = true;
    _exit(1);
}

static bool chance(Worker *w, unsigned percent)
{
    return rng_chance(&w->s->rng, percent);
}

static char *path(Worker *w, const char *name)
{
    return g_build_filename(w->dir, name, NULL);
}

static bool same(Named a, Named b)
{
    return a.base == b.base && a.assigned == b.assigned && a.size == b.size;
}

/* What the file's header may say, were the process to end now */

static void may_be(Worker *w, Named n)
{
    assert(w->s->n_allowed < MAX_ALLOWED);
    w->s->allowed[w->s->n_allowed] = n;
    qatomic_store_release(&w->s->n_allowed, w->s->n_allowed + 1);
}

static void must_be(Worker *w, Named n)
{
    w->s->allowed[0] = n;
    qatomic_store_release(&w->s->n_allowed, 1);
    w->now = n;
}

static int image_index(Worker *w, const char *name)
{
    for (int i = 0; i < ARRAY_SIZE(images); i++) {
        g_autofree char *full = path(w, images[i].name);

        if (g_str_equal(full, name)) {
            return i;
        }
    }
    return NONE;
}

static Named header_says(Worker *w)
{
    VdiskHeader *h = &w->layer->header;

    return (Named) { image_index(w, h->base.name),
                     image_index(w, h->assigned.name), h->virtual_size };
}

/* Content */

static void show_base(Worker *w)
{
    for (int64_t i = 0; i < w->now.size / SECTOR; i++) {
        w->ref[i] = i < images[w->now.base].size / SECTOR ?
                    STAMP_BASE + 10 + w->now.base : STAMP_ZERO;
    }
}

static void compare(Worker *w, const char *when)
{
    if (blk_getlength(w->blk) != w->now.size) {
        fail(w, "%s: the disk has %" PRId64 " bytes instead of %" PRId64, when,
             blk_getlength(w->blk), w->now.size);
    }
    if (blk_pread(w->blk, 0, w->now.size, w->buf, 0) < 0) {
        fail(w, "%s: reading fails", when);
    }
    for (int64_t i = 0; i < w->now.size / SECTOR; i++) {
        uint64_t id = stamp_read(w->buf + i * SECTOR, i);

        w->s->compared++;
        if (id != w->ref[i]) {
            fail(w, "%s: sector %" PRId64 " holds 0x%" PRIx64
                 " instead of 0x%" PRIx64, when, i, id, w->ref[i]);
        }
    }
}

static void random_op(Worker *w)
{
    Rng *rng = &w->s->rng;
    int64_t sectors = w->now.size / SECTOR;
    int64_t first = rng_below(rng, sectors);
    int64_t n = MIN(1 + rng_below(rng, 40), sectors - first);
    unsigned dice = rng_below(rng, 100);
    uint64_t id = dice < 65 ? ++w->s->next_id : STAMP_ZERO;
    int ret;

    if (chance(w, 40)) {
        first = QEMU_ALIGN_DOWN(first, GRANULE / SECTOR);
        n = MIN(QEMU_ALIGN_UP(n, GRANULE / SECTOR), sectors - first);
    }
    if (dice < 65) {
        stamp_fill(w->buf, first, n, id);
        ret = blk_pwrite(w->blk, first * SECTOR, n * SECTOR, w->buf, 0);
    } else if (dice < 85) {
        ret = blk_pwrite_zeroes(w->blk, first * SECTOR, n * SECTOR,
                                dice < 75 ? BDRV_REQ_MAY_UNMAP : 0);
    } else {
        compare(w, "at work");
        return;
    }
    if (ret < 0) {
        fail(w, "a request failed: %s", strerror(-ret));
    }
    for (int64_t i = first; i < first + n; i++) {
        w->ref[i] = id;
    }
}

/* Making and opening the disk */

static void make_images(Worker *w)
{
    for (int i = 0; i < ARRAY_SIZE(images); i++) {
        g_autofree char *name = path(w, images[i].name);
        QDict *options = qdict_new();
        BlockBackend *blk;

        bdrv_img_create(name, images[i].format, NULL, NULL, NULL,
                        images[i].size, BDRV_O_RDWR, true, &error_abort);
        qdict_put_str(options, "driver", images[i].format);
        blk = blk_new_open(name, NULL, options, BDRV_O_RDWR, &error_abort);
        stamp_fill(w->buf, 0, images[i].size / SECTOR, STAMP_BASE + 10 + i);
        blk_pwrite(blk, 0, images[i].size, w->buf, 0);
        blk_unref(blk);
    }
}

static void make_disk(Worker *w)
{
    int base = rng_below(&w->s->rng, 2);
    g_autofree char *disk = path(w, "disk.mcs");
    g_autofree char *image = path(w, images[base].name);

    unlink(disk);
    bdrv_img_create(disk, "mcs", image, images[base].format,
                    (char *)"lifetime=pooled", -1, BDRV_O_RDWR, true,
                    &error_abort);
    w->s->life = 0;
    w->s->lives++;
    must_be(w, (Named) { base, NONE, DISK_SIZE });
    w->s->have_disk = true;
}

static void open_disk(Worker *w)
{
    g_autofree char *disk = path(w, "disk.mcs");
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "mcs");
    if (chance(w, 30)) {
        qdict_put_str(options, "keep-space", "on");
    }
    w->blk = blk_new_open(disk, NULL, options, BDRV_O_RDWR | BDRV_O_RESIZE |
                          BDRV_O_UNMAP, &error_abort);
    blk_set_force_allow_inactivate(w->blk);
    w->layer = vdisk_node_next(NULL);
    if (chance(w, 60)) {
        vdisk_tier_open(w->layer, (1 + rng_below(&w->s->rng, 20)) * GRANULE,
                        &error_abort);
    }
}

/* As after power-on: whatever happened, the disk is one that can be */
static void begin_session(Worker *w)
{
    Named found;
    bool ok = false;

    open_disk(w);
    found = header_says(w);
    for (int i = 0; i < w->s->n_allowed; i++) {
        ok |= same(found, w->s->allowed[i]);
    }
    if (!ok) {
        fail(w, "the header names image %d, assigned %d, size %" PRId64
             ", which it never did; first of %d allowed: %d, %d, %" PRId64,
             found.base, found.assigned, found.size, w->s->n_allowed,
             w->s->allowed[0].base, w->s->allowed[0].assigned,
             w->s->allowed[0].size);
    }
    must_be(w, found);
    show_base(w);
    compare(w, "opened");
}

/* Events */

typedef struct AssignCo {
    Worker *w;
    int image;
    Error *err;
    bool done, ok;
} AssignCo;

static void coroutine_fn assign_entry(void *opaque)
{
    AssignCo *a = opaque;

    if (a->image == NONE) {
        a->ok = vdisk_co_unassign(a->w->layer, &a->err);
    } else {
        g_autofree char *name = path(a->w, images[a->image].name);

        a->ok = vdisk_co_assign(a->w->layer, name, images[a->image].format,
                                &a->err);
    }
    a->done = true;
    aio_wait_kick();
}

static void assign(Worker *w, int image)
{
    AssignCo a = { .w = w, .image = image };
    Named then = { w->now.base, image, w->now.size };
    bool fits = image == NONE || images[image].size >= w->now.size;

    may_be(w, then);
    qemu_coroutine_enter(qemu_coroutine_create(assign_entry, &a));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !a.done);
    if (a.ok != fits) {
        fail(w, "assigning image %d to a disk of %" PRId64 " bytes: %s", image,
             w->now.size, a.ok ? "accepted" : error_get_pretty(a.err));
    }
    error_free(a.err);
    must_be(w, a.ok ? then : w->now);
    w->s->refused += !a.ok;
}

/* Does the reset take the image? It is not there if @gone. */
static void reset(Worker *w, bool gone)
{
    Named then = { w->now.assigned, NONE, w->now.size };
    Named says;
    bool take = w->now.assigned != NONE && !(gone && !w->layer->assigned_bs);

    if (take) {
        then.size = MAX(then.size, images[then.base].size);
        may_be(w, then);
    }
    vdisk_pooled_reset_all();
    w->s->resets++;
    if (take) {
        /* The file follows in the background: both are possible for now */
        w->now = then;
        w->s->pushes++;
    }
    says = header_says(w);
    if (!same(says, w->now)) {
        fail(w, "after a reset the disk runs on image %d, assigned %d, "
             "instead of %d, %d", says.base, says.assigned, w->now.base,
             w->now.assigned);
    }
    show_base(w);
    compare(w, "reset");
}

static void reset_without_image(Worker *w)
{
    g_autofree char *name = NULL, *away = NULL;

    if (w->now.assigned == NONE || w->now.assigned == w->now.base) {
        reset(w, false);
        return;
    }
    name = path(w, images[w->now.assigned].name);
    away = g_strconcat(name, ".away", NULL);
    g_assert_no_errno(rename(name, away));
    reset(w, true);
    g_assert_no_errno(rename(away, name));
}

static void save_and_resume(Worker *w)
{
    bdrv_inactivate(blk_bs(w->blk), &error_abort);
    bdrv_graph_rdlock_main_loop();
    bdrv_activate(blk_bs(w->blk), &error_abort);
    bdrv_graph_rdunlock_main_loop();
    w->s->saves++;
    compare(w, "resumed");
}

static void end_session(Worker *w)
{
    blk_unref(w->blk);
    w->blk = NULL;
    /* Closing waits for the header */
    must_be(w, w->now);
}

static void event(Worker *w)
{
    unsigned dice = rng_below(&w->s->rng, 100);

    if (dice < 40) {
        reset(w, false);
    } else if (dice < 62) {
        assign(w, rng_below(&w->s->rng, ARRAY_SIZE(images)));
    } else if (dice < 70) {
        assign(w, NONE);
    } else if (dice < 76) {
        reset_without_image(w);
    } else if (dice < 86) {
        save_and_resume(w);
    } else {
        end_session(w);
        begin_session(w);
    }
    if (w->s->n_allowed > 2) {
        /* Too many things are possible to tell anything: be sure again */
        assign(w, NONE);
    }
}

static void cycle(Worker *w)
{
    int ops = rng_below(&w->s->rng, CYCLE_OPS);

    for (int i = 0; i < ops; i++) {
        random_op(w);
    }
    event(w);
    w->s->cycles++;
    w->s->life++;
}

static void *killer(void *opaque)
{
    g_usleep(*(unsigned *)opaque);
    kill(getpid(), SIGKILL);
    return NULL;
}

/* Goes on until it is killed, or all is done */
static void G_NORETURN work(Shared *s, const char *dir)
{
    Worker *w = g_new0(Worker, 1);
    uint64_t crash_at;
    QemuThread thread;
    unsigned us;

    w->s = s;
    w->dir = dir;
    block_layer_init();
    /* What could not be done is told by events and warnings, as it should */
    g_assert_nonnull(freopen("/dev/null", "w", stderr));
    if (!s->lives) {
        make_images(w);
    }
    if (!s->have_disk || s->life >= LIFE_CYCLES) {
        s->have_disk = false;
        make_disk(w);
    }
    begin_session(w);
    crash_at = s->cycles + rng_below(&s->rng, 12);
    while (s->cycles < s->limit) {
        if (s->cycles == crash_at) {
            us = rng_below(&s->rng, 6000);
            qemu_thread_create(&thread, "killer", killer, &us,
                               QEMU_THREAD_DETACHED);
        }
        cycle(w);
    }
    end_session(w);
    _exit(0);
}

static void remove_all(const char *dir)
{
    g_autofree char *disk = g_build_filename(dir, "disk.mcs", NULL);

    for (int i = 0; i < ARRAY_SIZE(images); i++) {
        g_autofree char *name = g_build_filename(dir, images[i].name, NULL);
        g_autofree char *away = g_strconcat(name, ".away", NULL);

        unlink(name);
        unlink(away);
    }
    unlink(disk);
    rmdir(dir);
}

/* A worker that was killed while an image was away did not put it back */
static void put_back(const char *dir)
{
    for (int i = 0; i < ARRAY_SIZE(images); i++) {
        g_autofree char *name = g_build_filename(dir, images[i].name, NULL);
        g_autofree char *away = g_strconcat(name, ".away", NULL);

        if (access(away, F_OK) == 0) {
            g_assert_no_errno(rename(away, name));
        }
    }
}

static void run_workers(Shared *s, const char *dir)
{
    int status = 0;

    while (!s->failed && s->cycles < s->limit) {
        pid_t pid;

        put_back(dir);
        pid = fork();
        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
            work(s, dir);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
            s->crashes++;
            s->cycles++;
        } else if (!s->failed && status) {
            s->failed = true;
            snprintf(s->why, sizeof(s->why), "a worker ended with status 0x%x",
                     status);
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = option_number(argv, "--seed", 1);
    g_autofree char *dir = g_dir_make_tmp("mcs-cycle-XXXXXX", NULL);
    Shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    g_assert_true(dir && s != MAP_FAILED);
    s->rng.state = seed;
    s->limit = option_number(argv, "--cycles", 2000);
    run_workers(s, dir);
    remove_all(dir);
    if (s->failed) {
        return !report(false, "cycle: %s; cycle %" PRIu64 ", crash %" PRIu64
                       ", --seed %" PRIu64, s->why, s->cycles, s->crashes,
                       seed);
    }
    return !report(s->crashes > 0 && s->pushes > 0, "cycle: %" PRIu64
                   " cycles of %" PRIu64 " disks, %" PRIu64 " crashes, %" PRIu64
                   " resets, %" PRIu64 " images taken, %" PRIu64 " refused, %"
                   PRIu64 " saved, %" PRIu64 " sectors compared, --seed %"
                   PRIu64, s->cycles, s->lives, s->crashes, s->resets,
                   s->pushes, s->refused, s->saves, s->compared, seed);
}

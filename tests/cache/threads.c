/*
 * Test of the host cache: desktops' threads, and how fast a hit is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "qobject/qdict.h"
#include "iothread.h"
#include "cache.h"

#define THREADS         2
#define READERS         (THREADS * 4)
#define SPEED_READS     40000

typedef struct Reader {
    PvsCache *c;
    Rng rng;
    bool *stop;
    unsigned *running;
    bool fills;                 /* one of the relay's own */
    uint64_t reads, wrong, failed;
} Reader;

static void coroutine_fn read_for_long(void *opaque)
{
    Reader *r = opaque;

    while (!qatomic_read(r->stop)) {
        uint64_t g = rng_below(&r->rng, GRANULES);
        uint64_t n = 1 + rng_below(&r->rng, MIN(8, GRANULES - g));
        VdiskState state;
        int ret = 0;

        n = pvs_cache_run(r->c, g, n, &state);
        if (state == VDISK_STATE_DATA) {
            ret = co_read_granules(r->c, g, n);
            r->reads++;
        } else if (state == VDISK_STATE_ZERO) {
            r->wrong += !is_zero(g);
        }
        r->wrong += ret == -EILSEQ;
        r->failed += ret < 0 && ret != -EILSEQ;
        if (r->fills) {
            co_fill_granules(r->c, g, n);
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 20000);
    }
    qatomic_dec(r->running);
    aio_wait_kick();
}

/* Reads and fills in all threads, syncs and failing ones in one of them */
void test_threads(Place *p, Rng *rng, unsigned seconds)
{
    int64_t end = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
    Reader r[READERS] = {};
    IOThread *threads[THREADS];
    uint64_t fills = 0, undone = 0;
    unsigned running = ARRAY_SIZE(r);
    bool stop = false;
    PvsCache *c, *desk;

    place_clear(p);
    c = place_own(p);
    desk = place_attach(p);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = iothread_new();
    }
    for (int i = 0; i < ARRAY_SIZE(r); i++) {
        r[i] = (Reader) {
            .c = i < READERS / 2 ? desk : c, .fills = i >= READERS / 2,
            .rng.state = rng_next(rng),
            .stop = &stop, .running = &running,
        };
        aio_co_schedule(iothread_get_aio_context(threads[i % THREADS]),
                        qemu_coroutine_create(read_for_long, &r[i]));
    }
    while (g_get_monotonic_time() < end) {
        uint64_t g = rng_below(rng, GRANULES);
        uint64_t n = 1 + rng_below(rng, MIN(MAX_RUN, GRANULES - g));

        fills += fill(c, g, n) == 0;
        if (rng_chance(rng, 2)) {
            qatomic_set(&fail_syncs, rng_chance(rng, 30));
            undone += sync_cache(c) < 0;
        }
    }
    qatomic_set(&stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&running) > 0);
    for (int i = 1; i < ARRAY_SIZE(r); i++) {
        r[0].reads += r[i].reads;
        r[0].wrong += r[i].wrong;
        r[0].failed += r[i].failed;
    }
    for (int i = 0; i < THREADS; i++) {
        iothread_join(threads[i]);
    }
    fail_syncs = 0;
    report(!r[0].wrong && !r[0].failed && r[0].reads && undone,
           "%d threads read while it is filled %" PRIu64 " times and %" PRIu64
           " syncs fail: %" PRIu64 " reads, %" PRIu64 " wrong", THREADS, fills,
           undone, r[0].reads, r[0].wrong);
    pvs_cache_close(desk);
    pvs_cache_close(c);
}

/* Speed */

typedef struct Speed {
    PvsCache *c;
    BlockBackend *blk;
    uint64_t offset;
    Rng rng;
} Speed;

static uint64_t next_data(Rng *rng)
{
    uint64_t g = rng_below(rng, IMAGE_GRANULES - 1);

    return is_zero(g) ? g + 1 : g;
}

static int coroutine_fn read_cache(void *opaque)
{
    Speed *s = opaque;
    g_autofree uint8_t *buf = g_malloc(GRANULE);
    VdiskState state;

    for (int i = 0; i < SPEED_READS; i++) {
        QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, GRANULE);
        uint64_t g = next_data(&s->rng);

        pvs_cache_run(s->c, g, 1, &state);
        if (state != VDISK_STATE_DATA ||
            pvs_cache_co_read(s->c, g * GRANULE, GRANULE, &qiov, 0) < 0) {
            return -EIO;
        }
    }
    return 0;
}

static int coroutine_fn read_raw(void *opaque)
{
    Speed *s = opaque;
    uint8_t *buf = qemu_memalign(GRANULE, GRANULE);
    int ret = 0;

    for (int i = 0; i < SPEED_READS / 10 && ret >= 0; i++) {
        ret = blk_co_pread(s->blk, s->offset + next_data(&s->rng) * GRANULE,
                           GRANULE, buf, 0);
    }
    qemu_vfree(buf);
    return ret;
}

/* Reads in a second; 0: they failed */
static double speed_of(CoFunc *func, Speed *s, unsigned reads)
{
    int64_t begin = g_get_monotonic_time();

    return run_co(func, s) < 0 ? 0 : reads * 1e6 /
                                     (g_get_monotonic_time() - begin);
}

static BlockBackend *open_raw(const char *name, const char *aio)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "file");
    qdict_put_str(options, "filename", name);
    qdict_put_str(options, "aio", aio);
    qdict_put_str(options, "locking", "off");
    return blk_new_open(NULL, NULL, options, 0, &error_abort);
}

void test_speed(Place *p, unsigned rounds)
{
    static const char *const aios[] = { "threads", "io_uring" };
    double cache = 0, raw[ARRAY_SIZE(aios)] = {};
    const char *skip = "";
    bool fast;
    uint8_t header[VDISK_HEADER_BYTES];
    char *why = NULL;
    VdiskHeader h;
    Speed s = { .rng.state = 1 };
    int fd;

    place_clear(p);
    s.c = place_own(p);
    for (uint64_t g = 0; g < GRANULES; g += MAX_RUN) {
        fill(s.c, g, MIN(MAX_RUN, GRANULES - g));
    }
    sync_cache(s.c);
    fd = open(p->data, O_RDONLY);
    g_assert(pread(fd, header, sizeof(header), 0) == sizeof(header));
    close(fd);
    g_assert(vdisk_header_decode(&h, header, &why));
    s.offset = h.data_offset;
    for (unsigned i = 0; i < rounds; i++) {
        unsigned k = i % ARRAY_SIZE(aios);

        s.blk = open_raw(p->data, aios[k]);
        raw[k] = MAX(raw[k], speed_of(read_raw, &s, SPEED_READS / 10));
        cache = MAX(cache, speed_of(read_cache, &s, SPEED_READS));
        blk_unref(s.blk);
    }
    fast = cache >= 0.9 * MAX(raw[0], raw[1]);
#ifdef QEMU_SANITIZE_ADDRESS
    skip = " # SKIP what sanitizers add is not the same for both";
    fast = true;
#endif
    report(fast && raw[0] > 0 && raw[1] > 0,
           "warm 4 KiB random reads: %.0f a second, which is %.2f of "
           "file-posix with threads, %.2f with io_uring%s", cache,
           cache / raw[0], cache / raw[1], skip);
    pvs_cache_close(s.c);
}

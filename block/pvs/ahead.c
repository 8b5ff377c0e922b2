/*
 * Fetching ahead: boot trace and readahead
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "block/pvs/ahead.h"
#include "block/pvs/boot-trace.h"
#include "block/pvs/cache.h"
#include "block/pvs/streams.h"
#include "block/pvs/tree.h"
#include "trace.h"

/* Fetches of a trace on their way at a time: a link of 20 ms at 1 Gbit/s */
#define REPLAY_FETCHES  32

/* Parts of a trace that are sorted: the first ones are wanted at once */
#define WINDOW_FIRST    (1 * MiB)
#define WINDOW_LAST     (32 * MiB)

/* The tree of a version of 4 GiB */
#define TREE_MOST       (33 * MiB)

/*
 * A boot is over when nothing new was read for QUIET, or after LONGEST; a
 * trace of more than MOST is of no boot
 */
#define RECORD_QUIET    (60LL * NANOSECONDS_PER_SECOND)
#define RECORD_LONGEST  (600LL * NANOSECONDS_PER_SECOND)
#define RECORD_MOST     (2 * GiB / VDISK_GRANULE)

struct PvsAhead {
    PvsImage *img;
    char *name;                 /* of the trace; NULL: none */

    /* Under the image's lock */
    Streams streams;
    BootTrace *trace;           /* what is recorded or replayed */
    bool recording;
    int64_t began_at;           /* ns; the first miss */
    int64_t last_at;
    /* The coroutine that replays, or waits for the end of the boot */
    PvsWaiter waiter;

    /* Main loop */
    unsigned running;
    bool saved;
    bool stopping;              /* atomic */
};

/* Boot trace: recording */

static BootTraceId trace_id(const PvsImage *img)
{
    BootTraceId id = { .image_bytes = img->size };

    if (img->root) {
        memcpy(id.root, img->root_hash, sizeof(id.root));
    }
    return id;
}

/* When what is recorded ends if nothing more is read; ns. The lock is held. */
static int64_t record_end(const PvsAhead *a)
{
    return MIN(a->last_at + RECORD_QUIET, a->began_at + RECORD_LONGEST);
}

void pvs_ahead_missed(PvsAhead *a, int64_t offset, int64_t bytes)
{
    int64_t now;

    if (!a->recording || offset >= a->img->tree_base) {
        return;
    }
    now = pvs_now();
    a->began_at = a->began_at ?: now;
    a->last_at = a->last_at ?: now;
    if (now > record_end(a) || boot_trace_granules(a->trace) > RECORD_MOST ||
        !boot_trace_add(a->trace, offset / VDISK_GRANULE,
                        bytes / VDISK_GRANULE)) {
        a->recording = false;
    }
    a->last_at = now;
}

/* Something else of that name is neither waited for nor replaced */
static bool trace_may_be(const char *name)
{
    struct stat st;

    if (stat(name, &st) < 0 || S_ISREG(st.st_mode)) {
        return true;
    }
    warn_report("'%s' is not used as a boot trace: it is no regular file",
                name);
    return false;
}

/* The trace in the file, or NULL with why it is none in *@why, if there is */
static BootTrace *trace_read(const PvsAhead *a, char **why)
{
    BootTraceId id = trace_id(a->img);
    g_autofree char *buf = NULL;
    struct stat st;
    gsize bytes;

    if (stat(a->name, &st) == 0 && st.st_size > BOOT_TRACE_BYTES_MAX) {
        *why = g_strdup("it is too large to be one");
        return NULL;
    }
    if (!g_file_get_contents(a->name, &buf, &bytes, NULL)) {
        return NULL;
    }
    return boot_trace_decode((uint8_t *)buf, bytes, &id, why);
}

/* One that somebody else put there meanwhile is as good, and stays. */
static bool trace_came(const PvsAhead *a)
{
    g_autofree char *why = NULL;
    BootTrace *t = trace_read(a, &why);

    boot_trace_free(t);
    return t;
}

/* What was recorded, which does not change any more. Any thread. */
static int trace_save(void *opaque)
{
    PvsAhead *a = opaque;
    g_autoptr(GError) err = NULL;
    g_autofree uint8_t *buf = NULL;
    size_t bytes;

    if (boot_trace_granules(a->trace) == 0 || !trace_may_be(a->name) ||
        trace_came(a)) {
        return 0;
    }
    buf = boot_trace_encode(a->trace, &bytes);
    /* By a temporary file and a rename */
    if (!g_file_set_contents(a->name, (char *)buf, bytes, &err)) {
        warn_report("Could not write the boot trace '%s': %s", a->name,
                    err->message);
    }
    return 0;
}

/*
 * Wait for the end of what is recorded. True if something was; false if the
 * node is closed first.
 */
static bool coroutine_fn record_wait(PvsAhead *a)
{
    PvsImage *img = a->img;

    QEMU_LOCK_GUARD(&img->waits.lock);
    while (a->recording && !qatomic_read(&a->stopping)) {
        int64_t now = pvs_now();
        int64_t end = a->began_at ? record_end(a) : now + RECORD_QUIET;

        if (now < end) {
            pvs_co_wait(&img->waits, &a->waiter, end);
        } else {
            a->recording = false;
        }
    }
    return a->began_at && !qatomic_read(&a->stopping);
}

/* Not when the node is closed: a relay may run for months, and be killed */
static void coroutine_fn record_entry(PvsAhead *a)
{
    if (record_wait(a)) {
        thread_pool_submit_co(trace_save, a);
        a->saved = true;
    }
}

/* Boot trace: replaying */

typedef struct Replay {
    PvsFetch *fetches[REPLAY_FETCHES];
    unsigned first, n;
} Replay;

static void coroutine_fn replay_wait_oldest(PvsImage *img, Replay *r)
{
    PvsFetch *f = r->fetches[r->first];

    r->first = (r->first + 1) % REPLAY_FETCHES;
    r->n--;
    pvs_fetch_co_settle(img, f);
}

static void coroutine_fn replay_sleep(PvsAhead *a, int64_t ms)
{
    PvsImage *img = a->img;

    QEMU_LOCK_GUARD(&img->waits.lock);
    if (!qatomic_read(&a->stopping)) {
        pvs_co_wait(&img->waits, &a->waiter, pvs_now() + ms * SCALE_MS);
    }
}

/* Fetch one run. What fails is not tried again: it comes when it is read. */
static void coroutine_fn replay_run(PvsAhead *a, Replay *r, int64_t offset,
                                    int64_t bytes)
{
    PvsImage *img = a->img;

    while (bytes > 0 && !qatomic_read(&a->stopping)) {
        int64_t n;
        PvsFetch *f;

        if (r->n == REPLAY_FETCHES) {
            replay_wait_oldest(img, r);
        }
        f = pvs_fetch_begin(img, offset, bytes, PVS_BACKGROUND, &n);
        if (f) {
            r->fetches[(r->first + r->n++) % REPLAY_FETCHES] = f;
        } else if (n == 0) {
            replay_sleep(a, PVS_BREAK_MS);      /* a drain */
        }
        offset += n;
        bytes -= n;
    }
}

static int compare_runs(const void *a, const void *b)
{
    const BootTraceRun *x = a, *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

/*
 * A boot jumps back and forth, but within a window most of what it reads lies
 * together: sorted, it takes a tenth of the requests.
 */
static void coroutine_fn replay_window(PvsAhead *a, Replay *r, GArray *window)
{
    guint i = 0;

    g_array_sort(window, compare_runs);
    while (i < window->len) {
        BootTraceRun run = g_array_index(window, BootTraceRun, i++);

        while (i < window->len &&
               g_array_index(window, BootTraceRun, i).first ==
               run.first + run.n) {
            run.n += g_array_index(window, BootTraceRun, i++).n;
        }
        replay_run(a, r, run.first * VDISK_GRANULE,
                   (int64_t)run.n * VDISK_GRANULE);
    }
    g_array_set_size(window, 0);
}

static void coroutine_fn replay_trace(PvsAhead *a, Replay *r)
{
    g_autoptr(GArray) window = g_array_new(false, false, sizeof(BootTraceRun));
    uint64_t size = WINDOW_FIRST / VDISK_GRANULE, granules = 0;
    const BootTraceRun *runs;
    size_t n;

    runs = boot_trace_runs(a->trace, &n);
    for (size_t i = 0; i < n && !qatomic_read(&a->stopping); i++) {
        g_array_append_val(window, runs[i]);
        granules += runs[i].n;
        if (granules >= size || i + 1 == n) {
            replay_window(a, r, window);
            granules = 0;
            size = MIN(size * 2, WINDOW_LAST / VDISK_GRANULE);
        }
    }
    trace_pvs_boot_trace(a->img->bs, n);
}

/*
 * A tree that is not large is fetched as a whole: random reads need all of it
 * soon, and the host's desktops find it in the cache.
 */
static void coroutine_fn replay_tree(PvsAhead *a, Replay *r)
{
    PvsImage *img = a->img;
    int64_t end = pvs_image_end(img);
    int64_t pos = img->tree_base;

    if (end - pos > TREE_MOST) {
        return;
    }
    while (pos < end && !qatomic_read(&a->stopping)) {
        int64_t n = pvs_tree_unit(img->tree, pos, end);

        replay_run(a, r, pos, n);
        pos += n;
    }
}

static void coroutine_fn replay_entry(void *opaque)
{
    PvsAhead *a = opaque;
    Replay *r = g_new0(Replay, 1);

    if (a->trace && !a->recording) {
        replay_trace(a, r);
    }
    if (a->img->tree) {
        replay_tree(a, r);
    }
    while (r->n) {
        replay_wait_oldest(a->img, r);
    }
    g_free(r);
    record_entry(a);
    a->running--;
    aio_wait_kick();
}

static BootTrace *trace_load(PvsAhead *a)
{
    g_autofree char *why = NULL;
    BootTrace *t = trace_read(a, &why);

    if (why) {
        warn_report("Boot trace '%s' is recorded anew: %s", a->name, why);
    }
    return t;
}

PvsAhead *pvs_ahead_start(PvsImage *img, const char *trace)
{
    PvsAhead *a = g_new0(PvsAhead, 1);
    BootTraceId id = trace_id(img);

    a->img = img;
    if (trace && trace_may_be(trace)) {
        a->name = g_strdup(trace);
        a->trace = trace_load(a);
        a->recording = !a->trace;
        a->trace = a->trace ?: boot_trace_new(&id);
    }
    a->running++;
    qemu_coroutine_enter(qemu_coroutine_create(replay_entry, a));
    return a;
}

void pvs_ahead_stop(PvsAhead *a)
{
    bool recorded;

    if (!a) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&a->img->waits.lock) {
        Coroutine *co = pvs_wake(&a->waiter);

        qatomic_set(&a->stopping, true);
        recorded = a->began_at;
        if (co) {
            aio_co_schedule(qemu_coroutine_get_aio_context(co), co);
        }
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, a->running);
    if (recorded && !a->saved) {
        trace_save(a);
    }
    boot_trace_free(a->trace);
    g_free(a->name);
    g_free(a);
}

bool pvs_ahead_boot(PvsAhead *a, uint64_t *granules, uint64_t *cached)
{
    const BootTraceRun *runs;
    size_t n;

    if (!a || !a->trace) {
        return false;
    }
    QEMU_LOCK_GUARD(&a->img->waits.lock);
    *granules = boot_trace_granules(a->trace);
    if (!*granules) {
        return false;
    }
    *cached = 0;
    runs = boot_trace_runs(a->trace, &n);
    for (size_t i = 0; i < n; i++) {
        uint64_t g = runs[i].first, end = g + runs[i].n;

        while (g < end) {
            VdiskState state;
            uint64_t run = pvs_cache_run(a->img->cache, g, end - g, &state);

            *cached += state == VDISK_STATE_BASE ? 0 : run;
            g += run;
        }
    }
    return true;
}

/* Readahead */

void coroutine_fn pvs_ahead_note(PvsAhead *a, int64_t offset, int64_t bytes)
{
    int64_t from, to;

    WITH_QEMU_LOCK_GUARD(&a->img->waits.lock) {
        if (!streams_advance(&a->streams, offset, bytes, a->img->tree_base,
                             &from, &to)) {
            return;
        }
    }
    while (from < to) {
        int64_t n;
        PvsFetch *f = pvs_fetch_begin(a->img, from, to - from, PVS_AHEAD, &n);

        if (f) {
            pvs_fetch_unref(a->img, f);
        } else if (n == 0) {
            return;
        }
        from += n;
    }
}

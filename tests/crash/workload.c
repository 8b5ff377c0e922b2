/*
 * Crash test: a desktop at work, and what it was promised
 *
 * The disk is mcs over blklogwrites over a disk in memory. Several requests
 * are under way at once and complete in random order, so that writes complete
 * while a flush is running. One thread does it all: a seed gives one workload.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "block/mcs/mcs.h"
#include "workload.h"

#define PHASES          7
#define PHASE_REQUESTS  45
#define MAX_WORKERS     6
#define MAP_PAGE_SPAN   (64 * 1024 * 1024)      /* of the disk */
#define SPARE           (64 * GRANULE)          /* to grow into */

/* So long that a header which names it can be torn within the name */
char *workload_base_name(unsigned number)
{
    GString *name = g_string_new("/nonexistent");

    while (name->len < 2 * SECTOR - 100) {
        g_string_append_printf(name, "/base-%u", number);
    }
    return g_string_free(name, false);
}

static uint64_t tick(Workload *w)
{
    return ++w->clock;
}

static Change *change_new(Workload *w, uint64_t begin, bool stamped)
{
    Change *c = g_new0(Change, 1);

    c->begin = begin;
    c->end = CHANGE_UNDER_WAY;
    g_ptr_array_add(w->changes, c);
    c->id = stamped ? w->changes->len : STAMP_ZERO;
    return c;
}

/*
 * Note @c for what of the range is in a window; with @forget, what was there
 * before must never be seen again, whatever crashes.
 */
static void change_range(Workload *w, Change *c, uint64_t first, uint64_t end,
                         bool forget)
{
    for (unsigned i = 0; i < w->n_windows; i++) {
        Window *win = &w->windows[i];
        uint64_t from = MAX(first, win->sector);
        uint64_t to = MIN(end, win->sector + win->sectors);

        for (uint64_t s = from; s < to; s++) {
            GPtrArray *history = w->history[win->slot + s - win->sector];

            if (forget) {
                g_ptr_array_set_size(history, 0);
            }
            g_ptr_array_add(history, c);
        }
    }
}

static void add_flush(Workload *w, uint64_t begin)
{
    Flush f = { begin, tick(w) };

    g_array_append_val(w->flushes, f);
}

static HeaderUpdate *last_header(Workload *w)
{
    return &g_array_index(w->headers, HeaderUpdate, w->headers->len - 1);
}

/* Requests of the guest */

static void random_range(Workload *w, int64_t *offset, int64_t *bytes)
{
    Window *win;
    uint64_t sector, n, limit;

    do {
        win = &w->windows[rng_below(&w->rng, w->n_windows)];
        limit = MIN(win->sector + win->sectors, w->size / SECTOR);
    } while (limit <= win->sector);
    sector = win->sector + rng_below(&w->rng, limit - win->sector);
    n = 1 + rng_below(&w->rng, rng_chance(&w->rng, 60) ? 7 : 30);
    if (rng_chance(&w->rng, 40)) {
        sector = ROUND_DOWN(sector, GRANULE / SECTOR);
        n = ROUND_UP(n, GRANULE / SECTOR);
    }
    *offset = sector * SECTOR;
    *bytes = MIN(n, limit - sector) * SECTOR;
}

static void coroutine_fn co_write(Workload *w)
{
    int64_t offset, bytes;
    Change *c = change_new(w, tick(w), true);
    g_autofree uint8_t *buf = NULL;
    int ret;

    random_range(w, &offset, &bytes);
    buf = g_malloc(bytes);
    stamp_fill(buf, offset / SECTOR, bytes / SECTOR, c->id);
    change_range(w, c, offset / SECTOR, (offset + bytes) / SECTOR,
                 false);
    ret = blk_co_pwrite(w->blk, offset, bytes, buf, 0);
    assert(ret >= 0);
    c->end = tick(w);
}

static void coroutine_fn co_zero(Workload *w)
{
    int64_t offset, bytes;
    Change *c = change_new(w, tick(w), false);
    BdrvRequestFlags flags = rng_chance(&w->rng, 60) ? BDRV_REQ_MAY_UNMAP : 0;
    int ret;

    random_range(w, &offset, &bytes);
    change_range(w, c, offset / SECTOR, (offset + bytes) / SECTOR,
                 false);
    ret = blk_co_pwrite_zeroes(w->blk, offset, bytes, flags);
    assert(ret >= 0);
    c->end = tick(w);
}

/*
 * Granules that are not discarded whole stay as they are. What is whole at the
 * end of the disk is not certain while that moves.
 */
static void coroutine_fn co_discard(Workload *w)
{
    int64_t offset, bytes, end;
    Change *c;
    int ret;

    random_range(w, &offset, &bytes);
    end = offset + bytes;
    if (w->growing && end == w->size) {
        return;
    }
    c = change_new(w, tick(w), false);
    end = end == w->size ? end : QEMU_ALIGN_DOWN(end, GRANULE);
    change_range(w, c, QEMU_ALIGN_UP(offset, GRANULE) / SECTOR, end / SECTOR,
                 false);
    ret = blk_co_pdiscard(w->blk, offset, bytes, 0);
    assert(ret >= 0);
    c->end = tick(w);
}

static void coroutine_fn co_flush(Workload *w)
{
    uint64_t begin = tick(w);
    int ret = blk_co_flush(w->blk);

    assert(ret >= 0);
    add_flush(w, begin);
}

/* As rebase -u does, while the guest works */
static void coroutine_fn co_rename_base(Workload *w)
{
    HeaderUpdate h = *last_header(w);
    g_autofree char *name = workload_base_name(++h.name);
    int ret;

    if (w->header_busy) {
        return;
    }
    w->header_busy = true;
    h.begin = tick(w);
    h.end = CHANGE_UNDER_WAY;
    g_array_append_val(w->headers, h);
    WITH_GRAPH_RDLOCK_GUARD() {
        BlockDriverState *bs = blk_bs(w->blk);

        ret = bs->drv->bdrv_co_change_backing_file(bs, name, "raw");
    }
    assert(ret == 0);
    last_header(w)->end = tick(w);
    w->header_busy = false;
}

static void coroutine_fn worker_entry(void *opaque)
{
    Workload *w = opaque;

    while (w->to_start > 0) {
        unsigned dice = rng_below(&w->rng, 100);

        w->to_start--;
        if (dice < 58) {
            co_write(w);
        } else if (dice < 70) {
            co_zero(w);
        } else if (dice < 78) {
            co_discard(w);
        } else if (dice < 95) {
            co_flush(w);
        } else {
            co_rename_base(w);
        }
    }
    w->running--;
    aio_wait_kick();
}

/* As block_resize does, while the guest works on what it has */
static void coroutine_fn co_grow(Workload *w)
{
    int64_t old = w->size;
    int64_t size = old + SECTOR *
                   (1 + rng_below(&w->rng, (w->max_size - old) / SECTOR));
    HeaderUpdate h = *last_header(w);
    Change *c;

    w->header_busy = true;
    h.begin = tick(w);
    h.end = CHANGE_UNDER_WAY;
    h.size = size;
    g_array_append_val(w->headers, h);
    c = change_new(w, h.begin, false);
    /* The disk had no end there, so it must not show the base now */
    change_range(w, c, old / SECTOR, size / SECTOR, true);
    blk_co_truncate(w->blk, size, true, PREALLOC_MODE_OFF, 0, &error_abort);
    c->end = tick(w);
    last_header(w)->end = c->end;
    w->size = size;
    w->header_busy = false;
}

static void coroutine_fn grower_entry(void *opaque)
{
    Workload *w = opaque;

    /* Not before the guest is at work, and nobody else changes the header */
    while (w->to_start > PHASE_REQUESTS / 2 || w->header_busy) {
        aio_co_schedule(qemu_get_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    co_grow(w);
    w->running--;
    aio_wait_kick();
}

static void run_requests(Workload *w, bool growing)
{
    unsigned workers = 1 + rng_below(&w->rng, MAX_WORKERS);

    w->growing = growing && w->size < w->max_size;
    w->to_start = PHASE_REQUESTS;
    w->running = workers + w->growing;
    for (unsigned i = 0; i < workers + w->growing; i++) {
        aio_co_schedule(qemu_get_aio_context(),
                        qemu_coroutine_create(i < workers ? worker_entry :
                                              grower_entry, w));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, w->running > 0);
}

static uint8_t *copy_base(Workload *w)
{
    uint8_t *copy = g_malloc(w->slots * SECTOR);

    for (unsigned i = 0; i < w->n_windows; i++) {
        Window *win = &w->windows[i];

        memcpy(copy + win->slot * SECTOR,
               w->base->data + win->sector * SECTOR, win->sectors * SECTOR);
    }
    return copy;
}

static void read_windows(Workload *w, uint8_t *buf)
{
    for (unsigned i = 0; i < w->n_windows; i++) {
        Window *win = &w->windows[i];
        int64_t offset = win->sector * SECTOR;
        int64_t bytes = MIN(win->sectors * SECTOR, w->size - offset);

        if (bytes > 0) {
            blk_pread(w->blk, offset, bytes, buf + win->slot * SECTOR, 0);
        }
    }
}

/*
 * As qemu-img commit does, while the guest is quiet: everything goes into the
 * base, durably; then the layer is emptied.
 */
static void commit(Workload *w)
{
    BaseContent b = {};

    if (!w->has_base || w->base_size < w->size) {
        return;
    }
    b.data = copy_base(w);
    read_windows(w, b.data);
    b.since = tick(w);
    g_array_append_val(w->bases, b);
    workload_show_base(w, b.data);
    blk_make_empty(w->blk, &error_abort);
    add_flush(w, b.since);
}

/* Making it all */

void workload_show_base(Workload *w, const uint8_t *data)
{
    for (unsigned i = 0; i < w->n_windows; i++) {
        Window *win = &w->windows[i];

        memcpy(w->base->data + win->sector * SECTOR,
               data + win->slot * SECTOR, win->sectors * SECTOR);
    }
}

static void add_window(Workload *w, uint64_t sector, uint64_t end)
{
    Window *win = &w->windows[w->n_windows++];

    *win = (Window) { sector, end - sector, w->slots };
    w->slots += win->sectors;
}

/* A small disk as a whole, or what matters of one that takes two map pages */
static void choose_sizes(Workload *w)
{
    const uint64_t page = MAP_PAGE_SPAN / SECTOR;
    const uint64_t near = 6 * GRANULE / SECTOR;
    bool large = rng_chance(&w->rng, 35);
    int64_t sectors = 1 + rng_below(&w->rng, 30 * GRANULE / SECTOR);

    if (rng_chance(&w->rng, 20)) {
        sectors = ROUND_UP(sectors, GRANULE / SECTOR);
    }
    w->size = sectors * SECTOR + (large ? MAP_PAGE_SPAN : 0);
    if (large && rng_chance(&w->rng, 50)) {
        /* The second page comes when the disk grows */
        w->size = MAP_PAGE_SPAN - SECTOR * (1 + rng_below(&w->rng, near));
    }
    w->max_size = w->size + SECTOR * rng_below(&w->rng, SPARE / SECTOR);
    if (large) {
        add_window(w, 0, near);
        add_window(w, page - near, MAX(page + near, w->max_size / SECTOR));
    } else {
        add_window(w, 0, w->max_size / SECTOR);
    }
}

static void choose_base(Workload *w)
{
    static Change base_shows = { .id = STAMP_BASE };
    static Change zero;

    w->has_base = rng_chance(&w->rng, 75);
    if (w->has_base) {
        w->base_size = rng_chance(&w->rng, 60) ? w->max_size :
                       w->size - SECTOR * rng_below(&w->rng, 64);
        w->base_size = MAX(w->base_size, SECTOR);
    }
    w->base = ram_disk_new("base", w->base_size,
                           MAP_PAGE_SPAN + 2 * SPARE, rng_next(&w->rng));
    w->base->max_yields = 4;
    w->history = g_new(GPtrArray *, w->slots);
    for (unsigned i = 0; i < w->n_windows; i++) {
        Window *win = &w->windows[i];

        for (uint64_t n = 0; n < win->sectors; n++) {
            uint64_t s = win->sector + n;
            bool in_base = s < w->base_size / SECTOR;

            w->history[win->slot + n] = g_ptr_array_new();
            g_ptr_array_add(w->history[win->slot + n],
                            in_base ? &base_shows : &zero);
            stamp_fill(w->base->data + s * SECTOR, s, 1,
                       in_base ? STAMP_BASE : STAMP_ZERO);
        }
    }
}

/* Another session's blocks: whoever sees one, sees what is not his */
static void fill_with_stale(Workload *w)
{
    for (unsigned i = 0; i < w->n_windows; i++) {
        Window *win = &w->windows[i];

        for (uint64_t s = win->sector; s < win->sector + win->sectors; s++) {
            int64_t at = w->data_offset + s * SECTOR;

            if (at + SECTOR <= w->file->length) {
                stamp_fill(w->file->data + at, s, 1, STAMP_STALE);
            }
        }
    }
}

static int64_t find_data_offset(void)
{
    BlockBackend *blk = mcs_open("file", NULL, 0, &error_abort);
    BDRVMcsState *s = blk_bs(blk)->opaque;
    int64_t data_offset = s->layer.data_offset;

    blk_unref(blk);
    return data_offset;
}

static void open_logged(Workload *w)
{
    QDict *options = qdict_new();
    BlockDriverState *bs;

    qdict_put_str(options, "driver", "blklogwrites");
    qdict_put_str(options, "node-name", "logged");
    qdict_put_str(options, "file", "file");
    qdict_put_str(options, "log", "log");
    qdict_put_str(options, "discard", "unmap");
    bs = bdrv_open(NULL, NULL, options, BDRV_O_RDWR | BDRV_O_RESIZE,
                   &error_abort);
    /* It passes the flags on but does not say so; mcs punches only then */
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    w->blk = mcs_open("logged", w->has_base ? "base" : NULL,
                      BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP,
                      &error_abort);
    bdrv_unref(bs);
}

static void make_disks(Workload *w)
{
    /* Header, room in the map, and the disk */
    int64_t capacity = 66 * 1024 * 1024 + MAP_PAGE_SPAN + 2 * SPARE;
    g_autofree char *name = workload_base_name(0);
    HeaderUpdate h = { .size = w->size };
    BaseContent b = {};

    w->file = ram_disk_new("file", 0, capacity, rng_next(&w->rng));
    if (rng_chance(&w->rng, 40)) {
        /* A device was full of other things, and is never extended */
        ram_disk_set_length(w->file, capacity);
        w->file->fixed_length = true;
        for (int64_t i = 0; i < 20; i++) {
            stamp_fill(w->file->data + i * GRANULE, i, 1, STAMP_STALE);
        }
    }
    mcs_make("file", w->size, MCS_LIFETIME_DEDICATED, name);
    w->data_offset = find_data_offset();
    fill_with_stale(w);
    w->start = ram_disk_new("start", 0, capacity, 0);
    ram_disk_copy(w->start, w->file);
    w->log = ram_disk_new("log", 0, 1024 * 1024 * 1024, rng_next(&w->rng));
    w->log->max_yields = 2;
    w->file->max_yields = 12;
    w->file->events = g_array_new(false, false, sizeof(RamEvent));
    w->file->clock = &w->clock;
    g_array_append_val(w->headers, h);
    b.data = copy_base(w);
    g_array_append_val(w->bases, b);
}

Workload *workload_record(uint64_t seed)
{
    Workload *w = g_new0(Workload, 1);

    w->rng.state = seed;
    w->changes = g_ptr_array_new_with_free_func(g_free);
    w->flushes = g_array_new(false, false, sizeof(Flush));
    w->headers = g_array_new(false, false, sizeof(HeaderUpdate));
    w->bases = g_array_new(false, false, sizeof(BaseContent));
    choose_sizes(w);
    choose_base(w);
    make_disks(w);
    open_logged(w);
    for (int i = 0; i < PHASES; i++) {
        run_requests(w, rng_chance(&w->rng, 50));
        if (rng_chance(&w->rng, 20)) {
            commit(w);
        }
    }
    blk_unref(w->blk);
    return w;
}

void workload_free(Workload *w)
{
    for (uint64_t i = 0; i < w->slots; i++) {
        g_ptr_array_free(w->history[i], true);
    }
    for (guint i = 0; i < w->bases->len; i++) {
        g_free(g_array_index(w->bases, BaseContent, i).data);
    }
    g_array_free(w->file->events, true);
    ram_disk_free(w->file);
    ram_disk_free(w->log);
    ram_disk_free(w->base);
    ram_disk_free(w->start);
    g_ptr_array_free(w->changes, true);
    g_array_free(w->flushes, true);
    g_array_free(w->headers, true);
    g_array_free(w->bases, true);
    g_free(w->history);
    g_free(w);
}

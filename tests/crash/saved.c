/*
 * Crash test of saved states: what a token in the header vouches for
 *
 * A pooled disk is written to, saved, resumed, changed, reset and saved again.
 * Every request of its file is recorded. For every moment, states that a power
 * failure may leave are made: what a completed flush covers, and of all else
 * each sector or not. A state with a token must hold what was saved under that
 * token, byte by byte; and from the end of saving to the first change after it
 * the token must be there (L6). The map is decoded here, not by the driver.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "block/mcs/mcs.h"
#include "fixture.h"

#define GRANULES        24
#define SIZE            (GRANULES * GRANULE)
#define SESSIONS        6
#define SESSION_OPS     14
#define STATES          6       /* of each moment */
#define CAPACITY        (80 * 1024 * 1024)

typedef struct Saved {
    uint8_t token[VDISK_TOKEN_BYTES];
    uint8_t content[SIZE];
    uint64_t begin;             /* saving began; nothing was asked for since */
    uint64_t done;              /* it is saved */
    uint64_t changed;           /* the first change after it was asked for */
} Saved;

typedef struct Test {
    Rng rng;
    uint64_t seed, clock;
    RamDisk *file, *base;
    BlockBackend *blk;
    VdiskLayer *layer;
    uint8_t ref[SIZE], base_content[SIZE];
    GPtrArray *saved;
    uint64_t next_id;

    uint8_t *state;             /* the file after a crash */
    GArray *undo;
    uint64_t states, with_token, wrong;
} Test;

typedef struct Undo {
    int64_t offset;
    uint8_t old[SECTOR];
} Undo;

/* The desktop at work */

static void note_change(Test *t)
{
    Saved *s = t->saved->len ?
               g_ptr_array_index(t->saved, t->saved->len - 1) : NULL;

    if (s && !s->changed) {
        s->changed = ++t->clock;
    }
}

static void random_op(Test *t)
{
    int64_t first = rng_below(&t->rng, SIZE / SECTOR);
    int64_t n = 1 + rng_below(&t->rng, MIN(SIZE / SECTOR - first, 20));
    unsigned dice = rng_below(&t->rng, 100);
    g_autofree uint8_t *buf = g_malloc(SIZE);

    if (dice < 50 && rng_chance(&t->rng, 50)) {
        first = ROUND_DOWN(first, GRANULE / SECTOR);
        n = MIN(ROUND_UP(n, GRANULE / SECTOR), 16);
        n = MIN(n, SIZE / SECTOR - first);
    }
    note_change(t);
    if (dice < 75) {
        stamp_fill(buf, first, n, ++t->next_id);
        memcpy(t->ref + first * SECTOR, buf, n * SECTOR);
        blk_pwrite(t->blk, first * SECTOR, n * SECTOR, buf, 0);
    } else if (dice < 97) {
        memset(t->ref + first * SECTOR, 0, n * SECTOR);
        blk_pwrite_zeroes(t->blk, first * SECTOR, n * SECTOR,
                          dice < 85 ? BDRV_REQ_MAY_UNMAP : 0);
    } else {
        memcpy(t->ref, t->base_content, SIZE);
        vdisk_pooled_reset_all();
    }
}

static void compare(Test *t, const char *when)
{
    g_autofree uint8_t *buf = g_malloc(SIZE);

    blk_pread(t->blk, 0, SIZE, buf, 0);
    if (memcmp(buf, t->ref, SIZE)) {
        note("%s: the disk holds something else", when);
        t->wrong++;
    }
}

/* As the end of a migration does */
static void save(Test *t)
{
    Saved *s = g_new0(Saved, 1);

    compare(t, "before saving");
    note_change(t);     /* the token before may go from now on */
    s->begin = ++t->clock;
    memcpy(s->content, t->ref, SIZE);
    bdrv_drain_all_begin();
    bdrv_inactivate(blk_bs(t->blk), &error_abort);
    bdrv_drain_all_end();
    memcpy(s->token, t->layer->header.token, sizeof(s->token));
    s->done = ++t->clock;
    g_ptr_array_add(t->saved, s);
}

static void resume(Test *t)
{
    bdrv_graph_rdlock_main_loop();
    bdrv_activate(blk_bs(t->blk), &error_abort);
    bdrv_graph_rdunlock_main_loop();
    if (!rng_chance(&t->rng, 40)) {
        compare(t, "resumed");
    }
}

static void record(Test *t)
{
    for (int i = 0; i < SESSIONS; i++) {
        int ops = rng_below(&t->rng, SESSION_OPS);

        if (t->layer->tier) {
            vdisk_tier_write_through(t->layer, rng_chance(&t->rng, 30));
        }
        for (int n = 0; n < ops; n++) {
            random_op(t);
        }
        save(t);
        resume(t);
    }
}

static void begin(Test *t)
{
    /* Stale content of the data region is of another session */
    t->file = ram_disk_new("file", 0, CAPACITY, rng_next(&t->rng));
    t->base = ram_disk_new("base", SIZE, SIZE, rng_next(&t->rng));
    stamp_fill(t->base->data, 0, SIZE / SECTOR, STAMP_BASE);
    memcpy(t->base_content, t->base->data, SIZE);
    memcpy(t->ref, t->base_content, SIZE);
    mcs_make("file", SIZE, MCS_LIFETIME_POOLED, "/nonexistent/base");
    t->blk = mcs_open("file", "base", BDRV_O_RDWR | BDRV_O_RESIZE |
                      BDRV_O_UNMAP, &error_abort);
    blk_set_force_allow_inactivate(t->blk);
    t->layer = vdisk_node_next(NULL);
    if (rng_chance(&t->rng, 60)) {
        vdisk_tier_open(t->layer, (1 + rng_below(&t->rng, 8)) * GRANULE,
                        &error_abort);
    }
    stamp_fill(t->file->data + t->layer->data_offset, 0, SIZE / SECTOR,
               STAMP_STALE);
    memcpy(t->state, t->file->data, VDISK_HEADER_BYTES * 2);
    memset(t->state + t->layer->header.map_offset, 0, VDISK_MAP_PAGE);
    memcpy(t->state + t->layer->data_offset,
           t->file->data + t->layer->data_offset, SIZE);
    t->file->max_yields = 6;
    t->file->keep_data = true;
    t->file->clock = &t->clock;
    t->file->events = g_array_new(false, false, sizeof(RamEvent));
    t->saved = g_ptr_array_new_with_free_func(g_free);
}

/* What a crash leaves of it */

static void put_sector(Test *t, const RamEvent *e, int64_t at, bool undo)
{
    uint8_t *to = t->state + at;

    if (undo) {
        Undo u = { .offset = at };

        memcpy(u.old, to, SECTOR);
        g_array_append_val(t->undo, u);
    }
    switch (e->request) {
    case RAM_WRITE:
        memcpy(to, e->data + (at - e->offset), SECTOR);
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

/* Of the request's sectors, @percent are there */
static void put_event(Test *t, const RamEvent *e, unsigned percent, bool undo)
{
    if (e->request == RAM_FLUSH || e->request == RAM_TRUNCATE) {
        return;
    }
    for (int64_t at = e->offset; at < e->offset + e->bytes; at += SECTOR) {
        if (rng_chance(&t->rng, percent)) {
            put_sector(t, e, at, undo);
        }
    }
}

static void take_back(Test *t)
{
    for (guint i = t->undo->len; i > 0; i--) {
        Undo *u = &g_array_index(t->undo, Undo, i - 1);

        memcpy(t->state + u->offset, u->old, SECTOR);
    }
    g_array_set_size(t->undo, 0);
}

static const Saved *find_token(Test *t, const uint8_t *token, uint64_t now)
{
    for (guint i = 0; i < t->saved->len; i++) {
        const Saved *s = g_ptr_array_index(t->saved, i);

        if (memcmp(s->token, token, sizeof(s->token)) == 0 && s->begin <= now) {
            return s;
        }
    }
    return NULL;
}

static bool granule_is_right(Test *t, const VdiskHeader *h, unsigned g,
                             const uint8_t *expected)
{
    unsigned bits = t->state[h->map_offset + g / 4] >> (2 * (g % 4)) & 3;

    switch (bits) {
    case 0:
        return !memcmp(t->base_content + g * GRANULE, expected, GRANULE);
    case 1:
        return !memcmp(t->state + h->data_offset + g * GRANULE, expected,
                       GRANULE);
    case 2:
        return buffer_is_zero(expected, GRANULE);
    default:
        return false;
    }
}

static void judge(Test *t, uint64_t now)
{
    const Saved *last = NULL;
    const Saved *s;
    g_autofree char *why = NULL;
    VdiskHeader h;
    unsigned bad;

    t->states++;
    for (guint i = 0; i < t->saved->len; i++) {
        s = g_ptr_array_index(t->saved, i);
        if (s->done <= now && (!s->changed || s->changed > now)) {
            last = s;
        }
    }
    if (vdisk_header_choose(&h, t->state, &bad, &why) < 0) {
        note("crash at %" PRIu64 ": no header: %s", now, why);
        t->wrong++;
        return;
    }
    s = find_token(t, h.token, now);
    if (last && s != last) {
        note("crash at %" PRIu64 ": the token of what is saved is gone", now);
        t->wrong++;
    }
    if (!s) {
        if (!buffer_is_zero(h.token, sizeof(h.token))) {
            note("crash at %" PRIu64 ": a token that was never given", now);
            t->wrong++;
        }
        return;
    }
    t->with_token++;
    for (unsigned g = 0; g < GRANULES; g++) {
        if (!granule_is_right(t, &h, g, s->content + g * GRANULE)) {
            note("crash at %" PRIu64 ": granule %u is not as it was saved, %"
                 PRIu64 " to %" PRIu64 ", changed %" PRIu64, now, g, s->begin,
                 s->done, s->changed);
            t->wrong++;
            return;
        }
    }
}

static void try_states(Test *t, guint settled, uint64_t now)
{
    GArray *events = t->file->events;

    for (int i = 0; i < STATES; i++) {
        static const unsigned percent[] = { 0, 100, 50, 10, 90 };

        for (guint n = settled; n < events->len; n++) {
            RamEvent *e = &g_array_index(events, RamEvent, n);
            unsigned whole = 100 * rng_chance(&t->rng, 50);

            if (e->begin > now) {
                continue;
            }
            put_event(t, e, i < ARRAY_SIZE(percent) ? percent[i] : whole, true);
        }
        judge(t, now);
        take_back(t);
    }
}

/* A crash just before each request of the file completes, and at the end */
static void replay(Test *t)
{
    GArray *events = t->file->events;
    guint settled = 0;

    for (guint i = 0; i <= events->len && t->wrong < 5; i++) {
        uint64_t now = i < events->len ?
                       g_array_index(events, RamEvent, i).end - 1 : t->clock;
        uint64_t covered = 0;

        for (guint n = 0; n < i; n++) {
            RamEvent *e = &g_array_index(events, RamEvent, n);

            covered = e->request == RAM_FLUSH ? MAX(covered, e->begin)
                                              : covered;
        }
        while (settled < i &&
               g_array_index(events, RamEvent, settled).end <= covered) {
            put_event(t, &g_array_index(events, RamEvent, settled++), 100,
                      false);
        }
        try_states(t, settled, now);
    }
}

static void end(Test *t)
{
    GArray *events = t->file->events;

    blk_unref(t->blk);
    t->file->events = NULL;
    for (guint i = 0; i < events->len; i++) {
        g_free(g_array_index(events, RamEvent, i).data);
    }
    g_array_free(events, true);
    g_ptr_array_free(t->saved, true);
    ram_disk_free(t->file);
    ram_disk_free(t->base);
}

int main(int argc, char **argv)
{
    uint64_t limit = option_number(argv, "--states", 10000);
    uint64_t first = option_number(argv, "--seed", 1);
    Test t = {
        .seed = first,
        .state = g_malloc0(CAPACITY),
        .undo = g_array_new(false, false, sizeof(Undo)),
    };

    block_layer_init();
    for (; t.states < limit && !t.wrong; t.seed++) {
        t.rng.state = t.seed;
        begin(&t);
        record(&t);
        replay(&t);
        end(&t);
    }
    return !report(!t.wrong, "saved states: %" PRIu64 " crashes of %" PRIu64
                   " desktops, %" PRIu64 " left a token, %" PRIu64 " wrong, "
                   "--seed %" PRIu64, t.states, t.seed - first, t.with_token,
                   t.wrong, first);
}

/*
 * Power-cut test: cuts that are chosen, and what is left after them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/pvs/private.h"
#include "directed.h"
#include "states.h"

#define PART            (16 * 1024)

static const StateKind all_written[DEVICES];    /* STATE_PREFIX */
static const StateKind all_lost[DEVICES] = {
    STATE_NOTHING, STATE_NOTHING, STATE_NOTHING
};

/* What a cut of @l at @now leaves; NULL if it was @seen, unless that is NULL */
static Start *cut(const Life *l, States *s, uint64_t now,
                  const StateKind kind[DEVICES], GHashTable *seen)
{
    Start *left = NULL;

    states_settle(s, now);
    states_make(s, kind);
    if (!seen ||
        g_hash_table_add(seen, g_memdup2(&s->hash, sizeof(s->hash)))) {
        left = states_keep(s, l);
    }
    states_take_back(s);
    return left;
}

/* The life ended; another begins with what a cut at @now leaves at least */
static void next_life(Row *r, uint64_t now)
{
    States *s = states_new(r->l, rng_next(&r->rng));
    Start *left = cut(r->l, s, now, all_lost, NULL);

    states_free(s);
    row_end(r);
    r->start = left;
    r->l = life_new(&subject_private, left, rng_next(&r->rng), false);
    r->l->slow = false;
}

/* Not life_end(): the life knows nothing of what is written here */
static void close_disk(Life *l)
{
    blk_unref(l->blk);
    l->blk = NULL;
}

/* Does the copy lack, after a cut, what was shipped? Not when all is quiet. */
static bool copy_is_new(Life *l)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    p = pvs_private_of(blk_bs(l->blk));
    return qatomic_read(&p->copy_new);
}

/*
 * Returns when all of it was shipped, and the tail is past it; with @keep the
 * copy has it durably, too. 0: it was not.
 */
static uint64_t write_and_ship(Row *r, uint8_t content, bool keep)
{
    uint8_t buf[PART];
    uint64_t now = 0;

    memset(buf, content, sizeof(buf));
    if (life_open(r->l) && wait_drained(&subject_private, r->l->blk) &&
        blk_pwrite(r->l->blk, 0, PART, buf, 0) >= 0 &&
        blk_flush(r->l->blk) >= 0 &&
        wait_drained(&subject_private, r->l->blk)) {
        while (keep && copy_is_new(r->l)) {
            pause_ms(10);
        }
        now = r->l->log->clock;
    } else {
        row_wrong(r, "a write is not shipped");
    }
    close_disk(r->l);
    return now;
}

/*
 * The local copy has a range, and it is written again: once the tail is past
 * that a cut leaves the new content (J6)
 */
void one_of_rewrites(Row *r)
{
    uint8_t buf[PART] = {}, wanted[PART];
    uint64_t now;

    memset(wanted, 2, sizeof(wanted));
    row_begin(r, PART);
    now = write_and_ship(r, 1, true);
    if (now) {
        next_life(r, now);
        now = write_and_ship(r, 2, false);
    }
    if (now) {
        next_life(r, now);
        if (!life_open(r->l) || blk_pread(r->l->blk, 0, PART, buf, 0) < 0 ||
            memcmp(buf, wanted, PART)) {
            row_wrong(r, "after a cut 0x%x is read", buf[0]);
        }
        close_disk(r->l);
    }
    row_end(r);
}

static PrivateState state_of(Life *l)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    p = pvs_private_of(blk_bs(l->blk));
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->state;
}

/* Who opens it is let in: the label is known as its own (J8) */
static bool open_and_close(Row *r, Life *l)
{
    bool ok = life_open(l);

    if (!ok) {
        r->wrong++;
        return false;
    }
    while (state_of(l) == PRIVATE_AWAY) {
        pause_ms(1);
    }
    ok = state_of(l) != PRIVATE_FENCED;
    if (!ok) {
        row_wrong(r, "after cuts of openings its own label fences it");
    }
    life_end(l);
    return ok;
}

/* All that a cut at any event may leave, each once: Start * */
static GPtrArray *cut_everywhere(Row *r, const Life *l)
{
    GPtrArray *all = g_ptr_array_new();
    GHashTable *seen = g_hash_table_new_full(g_int64_hash, g_int64_equal,
                                             g_free, NULL);
    States *s = states_new(l, rng_next(&r->rng));

    for (guint i = 0; i < 2 * l->log->events->len; i++) {
        const LogEvent *e = &g_array_index(l->log->events, LogEvent, i / 2);
        Start *left = cut(l, s, e->end - 1, i % 2 ? all_lost : all_written,
                          seen);

        if (left) {
            g_ptr_array_add(all, left);
        }
    }
    states_free(s);
    g_hash_table_unref(seen);
    return all;
}

/* Opened, and cut, @depth times; what is left can be opened. Takes @start. */
static void cut_openings(Row *r, Start *start, unsigned depth)
{
    Life *l = life_new(&subject_private, start, rng_next(&r->rng), false);
    GPtrArray *all = NULL;

    l->slow = false;
    r->requests++;
    if (!r->wrong && open_and_close(r, l) && depth) {
        all = cut_everywhere(r, l);
    }
    life_free(l);
    start_free(start);
    for (guint i = 0; all && i < all->len; i++) {
        cut_openings(r, g_ptr_array_index(all, i), depth - 1);
    }
    if (all) {
        g_ptr_array_unref(all);
    }
}

/*
 * A label is written while it is made the writer's own, and the header does not
 * know it yet; then again, by the one that comes back (J8)
 */
void one_of_adoptions(Row *r)
{
    cut_openings(r, start_new(&subject_private, &r->rng), 2);
}

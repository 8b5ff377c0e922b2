/*
 * Power-cut test: a private vDisk whose host, or store, or both lose power
 *
 * Lives of a desktop are recorded: all that is written to the journal, to the
 * local copy and to the store, in one order. For many prefixes of that order
 * states are made that a power cut may leave, judged as they are, opened with
 * the real driver, read, and let run until the journal is empty. One of them is
 * what the desktop's next life begins with.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/pvs/journal-scan.h"
#include "directed.h"
#include "epochs.h"
#include "life.h"
#include "states.h"

#define LIVES               3       /* of one desktop */
#define STATES_PER_CUT      4
#define STATES_PER_LIFE     200     /* about, unless --per-life says else */
/* One state of so many is let run until all is on the store */
#define DRAIN_EVERY         4
#define MAX_NOTES           10
#define SECONDS_PER_LIFE    300
/* In so many states everything happens that may */
#define SURE_STATES         10000

typedef struct Power {
    const Subject *subject;
    bool faults;                /* of the store, while the desktop lives */
    Rng rng;
    uint64_t seed, limit, per_life;

    /* This life */
    Life *l;
    Epochs *epochs;
    States *s;
    Start *next;                /* what the next life begins with, or NULL */
    uint64_t next_event;        /* the cut that it comes from */
    uint8_t *buf;               /* of the vDisk's size */
    StateKind kind[DEVICES];

    GHashTable *seen;           /* hashes */
    uint64_t tried, lost, sectors, drains, lives, n_epochs, reads, requests;
    uint64_t full, inactive, rotten, damaged;
    uint64_t faults_hit[FAULT_CRASH + 1];
} Power;

static bool G_GNUC_PRINTF(2, 3) wrong(Power *p, const char *fmt, ...)
{
    g_autofree char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (p->lost < MAX_NOTES) {
        note("--seed %" PRIu64 ", cut at %" PRIu64 " (%d, %d, %d): %s", p->seed,
             p->s->now, p->kind[JOURNAL], p->kind[COPY], p->kind[STORE], what);
    }
    return false;
}

/* Judging a state */

/* The end of the last flush that had ended before @begin, or 0 */
static uint64_t flushed_before(const Life *l, uint64_t begin)
{
    uint64_t settled = 0;

    for (guint i = 0; i < l->flushes->len; i++) {
        Flush *f = &g_array_index(l->flushes, Flush, i);

        if (f->end < begin) {
            settled = MAX(settled, f->begin);
        }
    }
    return settled;
}

static bool judge_sectors(Power *p, const uint8_t *data, uint64_t settled,
                          const char *what)
{
    for (uint64_t s = 0; s < p->l->sectors; s++) {
        const GPtrArray *history = p->l->history[s];
        uint64_t id = stamp_read(data + s * SECTOR, s);

        p->sectors++;
        if (history_allows(history, id, settled, p->s->now)) {
            continue;
        }
        wrong(p, "%s: sector %" PRIu64 " holds 0x%" PRIx64 "%s; flushed before "
              "%" PRIu64 ":", what, s, id,
              id == STAMP_STALE ? ", another session's" : "", settled);
        for (guint i = 0; i < history->len && p->lost < MAX_NOTES; i++) {
            Change *c = g_ptr_array_index(history, i);

            if (c->begin <= p->s->now) {
                note("  0x%" PRIx64 " from %" PRIu64 " to %" PRIu64, c->id,
                     c->begin, c->end);
            }
        }
        return false;
    }
    return true;
}

/*
 * The store alone (J2): by the epochs in the journal; and, as far as a guest
 * can tell, if it has a write that followed a flush, all before that is there.
 * All before this life counts as flushed. With durability=store all that was
 * flushed is there.
 */
static bool judge_store(Power *p)
{
    const uint8_t *store = p->s->device[STORE].d->data;
    g_autofree char *why = NULL;
    uint64_t newest = 0;

    if (!p->epochs) {
        return true;
    }
    if (!epochs_allow(p->epochs, store, &why)) {
        return wrong(p, "%s", why);
    }
    if (p->subject->label_closed(store, p->l->size) &&
        !epochs_complete(p->epochs, store, &why)) {
        return wrong(p, "the label says that the store has all: %s", why);
    }
    for (uint64_t s = 0; s < p->l->sectors; s++) {
        const Change *c = life_change(p->l, stamp_read(store + s * SECTOR, s));

        newest = MAX(newest, c ? c->begin : 0);
    }
    if (p->subject->durable_store &&
        flushed_before(p->l, p->s->now + 1)) {
        newest = p->s->now + 1;
    }
    return !newest || judge_sectors(p, store, flushed_before(p->l, newest),
                                    "the store alone");
}

static BlockBackend *open_state(Power *p)
{
    Error *err = NULL;
    BlockBackend *blk = p->subject->open(state_names, p->l->size, &err);

    if (!blk) {
        wrong(p, "%s", error_get_pretty(err));
        error_free(err);
    }
    return blk;
}

static bool read_all(Power *p, BlockBackend *blk, uint8_t *buf)
{
    int ret = blk_pread(blk, 0, p->l->size, buf, 0);

    return ret >= 0 || wrong(p, "reading fails: %s", strerror(-ret));
}

static bool same(Power *p, const uint8_t *a, const uint8_t *b, const char *what)
{
    for (uint64_t s = 0; s < p->l->sectors; s++) {
        if (memcmp(a + s * SECTOR, b + s * SECTOR, SECTOR)) {
            return wrong(p, "%s: sector %" PRIu64 " holds 0x%" PRIx64
                         " instead of 0x%" PRIx64, what, s,
                         stamp_read(a + s * SECTOR, s),
                         stamp_read(b + s * SECTOR, s));
        }
    }
    return true;
}

/* All is shipped: the store has what the desktop reads, and so has its copy */
static bool judge_drained(Power *p, BlockBackend *blk)
{
    g_autofree uint8_t *again = g_malloc(p->l->size);

    p->drains++;
    if (!wait_drained(p->subject, blk)) {
        return wrong(p, "the journal is not empty after a minute");
    }
    return same(p, p->s->device[STORE].d->data, p->buf, "the store, drained") &&
           read_all(p, blk, again) &&
           same(p, again, p->buf, "the disk, drained");
}

static bool judge_label(Power *p)
{
    const uint8_t *store = p->s->device[STORE].d->data;
    g_autofree char *why = NULL;

    if (p->subject->label_ok &&
        !p->subject->label_ok(store, p->l->size, &why)) {
        return wrong(p, "the label, drained and closed: %s", why);
    }
    return true;
}

static bool judge_state(Power *p)
{
    bool drain = p->tried % DRAIN_EVERY == 0;
    BlockBackend *blk;
    bool ok;

    if (!judge_store(p)) {
        return false;
    }
    blk = open_state(p);
    if (!blk) {
        return false;
    }
    ok = read_all(p, blk, p->buf) &&
         judge_sectors(p, p->buf, flushed_before(p->l, p->s->now + 1),
                       "the disk") &&
         (!drain || judge_drained(p, blk));
    blk_unref(blk);
    return ok && (!drain || judge_label(p));
}

/*
 * A bit of what is still needed of the journal rots. It is refused, or all is
 * there that was flushed when a later write was made: that one's record says
 * so, and no rot of one bit hits both (J5).
 */
static uint64_t flushed_before_write(const Life *l, uint64_t now)
{
    uint64_t begin = 0;

    for (guint i = 0; i < l->changes->len; i++) {
        const Change *c = g_ptr_array_index(l->changes, i);

        if (c->id >= l->first_id && c->end <= now) {
            begin = MAX(begin, c->begin);
        }
    }
    return flushed_before(l, begin);
}

static void ignore_record(void *opaque, const JournalRecord *r,
                          uint64_t payload)
{
}

/* Where the records are that count: false if there are none */
static bool records_of(const uint8_t *data, JournalScan *s, JournalHeader *h)
{
    g_autofree char *why = NULL;
    uint64_t from;
    bool more;

    if (journal_header_choose(h, data, &why) < 0) {
        return false;
    }
    journal_scan_init(s, h);
    do {
        uint64_t at = s->next.pos % h->ring_size;

        from = s->next.pos;
        more = journal_scan_records(s, data + JOURNAL_RING_OFFSET + at,
                                    MIN(h->ring_size - at,
                                        journal_scan_end(s) - from),
                                    ignore_record, NULL);
    } while (more && s->next.pos > from);
    return s->next.pos > h->tail.pos;
}

static bool judge_rot(Power *p)
{
    const uint8_t *data = p->s->device[JOURNAL].d->data;
    JournalHeader h;
    JournalScan s;
    Error *err = NULL;
    BlockBackend *blk;
    bool ok;

    if (!records_of(data, &s, &h)) {
        return true;
    }
    states_rot(p->s, JOURNAL, JOURNAL_RING_OFFSET +
               (h.tail.pos + rng_below(&p->rng, s.next.pos - h.tail.pos)) %
               h.ring_size);
    blk = p->subject->open(state_names, p->l->size, &err);
    if (!blk) {
        p->damaged++;
        ok = strstr(error_get_pretty(err), "is damaged");
        if (!ok) {
            wrong(p, "rot: %s", error_get_pretty(err));
        }
        error_free(err);
        return ok;
    }
    ok = read_all(p, blk, p->buf) &&
         judge_sectors(p, p->buf, flushed_before_write(p->l, p->s->now), "rot");
    blk_unref(blk);
    return ok;
}

static void try_rot(Power *p)
{
    static const StateKind kinds[DEVICES] = {
        STATE_PREFIX, STATE_PREFIX, STATE_ALIVE
    };

    if (!p->epochs || !p->l->opened || p->s->now < p->l->opened) {
        return;
    }
    memcpy(p->kind, kinds, sizeof(kinds));
    states_make(p->s, p->kind);
    p->rotten++;
    if (!judge_rot(p)) {
        p->lost++;
    }
    states_take_back(p->s);
}

/* The next life begins with this state */
static void keep_content(Power *p)
{
    for (uint64_t s = 0; s < p->l->sectors; s++) {
        p->next->content[s] = stamp_read(p->buf + s * SECTOR, s);
    }
}

/* Who loses its power: the host, the store, both, or only the process dies */
static void choose_kinds(Power *p, unsigned n)
{
    bool host = n == 0 || rng_chance(&p->rng, 75);
    bool store = n > 0 && rng_chance(&p->rng, 50);

    for (int i = 0; i < DEVICES; i++) {
        bool power = i == STORE ? store : host;

        p->kind[i] = !power ? STATE_ALIVE : n == 0 ? STATE_PREFIX :
                     rng_below(&p->rng, STATE_ALIVE);
    }
}

static void try_state(Power *p, unsigned n, bool keep)
{
    choose_kinds(p, n);
    states_make(p->s, p->kind);
    p->tried++;
    if (keep) {
        p->next = states_keep(p->s, p->l);
    }
    if (!judge_state(p)) {
        p->lost++;
    }
    if (keep) {
        keep_content(p);
    }
    g_hash_table_add(p->seen, g_memdup2(&p->s->hash, sizeof(p->s->hash)));
    states_take_back(p->s);
}

static uint64_t states_seen(Power *p)
{
    return g_hash_table_size(p->seen);
}

static bool is_enough(Power *p)
{
    return p->lost || states_seen(p) >= p->limit;
}

/* A cut just before an event, or after the last */
static void try_cut(Power *p, guint i)
{
    GArray *events = p->l->log->events;

    states_settle(p->s, i < events->len ?
                  g_array_index(events, LogEvent, i).end - 1 :
                  p->l->log->clock);
    for (unsigned n = 0; n < STATES_PER_CUT && !is_enough(p); n++) {
        try_state(p, n, i == p->next_event && n == STATES_PER_CUT - 1);
    }
    if (!is_enough(p)) {
        try_rot(p);
    }
}

static void replay(Power *p)
{
    guint len = p->l->log->events->len;
    guint cuts = p->per_life / STATES_PER_CUT;

    p->next_event = rng_below(&p->rng, len);
    for (guint i = 0; i <= len && !is_enough(p); i++) {
        if (i == p->next_event || rng_below(&p->rng, len) < cuts) {
            try_cut(p, i);
        }
    }
}

static void count_life(Power *p)
{
    p->lives++;
    p->requests += p->l->requests;
    p->reads += p->l->reads;
    p->full += p->l->full;
    p->inactive += p->l->inactive;
    p->lost += p->l->wrong;
    p->n_epochs += p->epochs ? epochs_count(p->epochs) : 0;
    for (int i = 0; i <= FAULT_CRASH; i++) {
        p->faults_hit[i] += p->l->device[STORE]->faults[i];
    }
}

/* Returns what the next one begins with, or NULL */
static Start *run_life(Power *p, Start *start, uint64_t seed)
{
    alarm(SECONDS_PER_LIFE);
    p->next = NULL;
    p->l = life_record(p->subject, start, seed, p->faults);
    p->epochs = p->subject->drained ? epochs_new(p->l) : NULL;
    p->s = states_new(p->l, ~seed);
    p->rng.state = rng_next(&p->s->rng);
    p->buf = g_malloc0(p->l->size);
    count_life(p);
    replay(p);
    g_free(p->buf);
    states_free(p->s);
    if (p->epochs) {
        epochs_free(p->epochs);
    }
    life_free(p->l);
    return p->next;
}

static void run_desktop(Power *p)
{
    Rng rng = { p->seed };
    Start *start = start_new(p->subject, &rng);

    for (int i = 0; i < LIVES && start && !is_enough(p); i++) {
        Start *next = run_life(p, start, rng_next(&rng));

        start_free(start);
        start = next;
    }
    if (start) {
        start_free(start);
    }
}

/* Desktops one after the other until @limit states were seen, or one is lost */
static void run(Power *p, uint64_t limit)
{
    p->limit = limit;
    p->per_life = p->per_life ?: STATES_PER_LIFE;
    p->seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    while (!is_enough(p)) {
        run_desktop(p);
        p->seed++;
    }
}

static void tell(Power *p)
{
    note("%s: %" PRIu64 " lives, %" PRIu64 " requests, %" PRIu64 " of them "
         "while the journal was full, %" PRIu64 " epochs, %" PRIu64 " times "
         "inactive; of the store %" PRIu64 " errors, %" PRIu64 " lost links, %"
         PRIu64 " crashes; rot in %" PRIu64 " states, %" PRIu64 " refused",
         p->subject->name, p->lives, p->requests, p->full, p->n_epochs,
         p->inactive,
         p->faults_hit[FAULT_ERROR], p->faults_hit[FAULT_LINK],
         p->faults_hit[FAULT_CRASH], p->rotten, p->damaged);
}

/* Else the lives are not what they are meant to be */
static bool all_happened(const Power *p)
{
    bool all = p->full && p->inactive && p->damaged;

    if (!p->faults || p->lost || p->limit < SURE_STATES) {
        return true;
    }
    for (int i = 0; i <= FAULT_CRASH; i++) {
        all = all && p->faults_hit[i];
    }
    return report(all, "%s: the journal was full, the node inactive, rot "
                  "refused, and each fault hit the store", p->subject->name);
}

static bool run_private(const Subject *subject, bool faults, uint64_t limit,
                        uint64_t seed, uint64_t per_life)
{
    Power p = {
        .subject = subject,
        .faults = faults,
        .seed = seed,
        .per_life = per_life,
    };
    bool all;

    run(&p, limit);
    tell(&p);
    all = all_happened(&p);
    return report(!p.lost, "%s: %" PRIu64 " states, all distinct, from %"
                  PRIu64 " cuts, %" PRIu64 " sectors judged, %" PRIu64
                  " states let run until drained; %" PRIu64 " reads judged; %"
                  PRIu64 " states lost, --seed %" PRIu64, subject->name,
                  states_seen(&p), p.tried, p.sectors, p.drains, p.reads,
                  p.lost, seed) && all;
}

/*
 * The control rows. Over a store that never fails a stock client keeps what was
 * flushed, whatever is cut, or the cuts would prove nothing.
 */
static bool run_sound_control(uint64_t limit, uint64_t seed)
{
    Power p = { .subject = &subject_stock, .seed = seed };

    run(&p, limit);
    tell(&p);
    return report(!p.lost, "control: over a store that does not fail a stock "
                  "client loses nothing in %" PRIu64 " states",
                  states_seen(&p));
}

/* Sectors on the store that lack what was written before the last flush */
static uint64_t count_lost(Life *l)
{
    const uint8_t *store = l->device[STORE]->data;
    uint64_t now = l->log->clock, lost = 0;
    uint64_t settled = flushed_before(l, now + 1);

    for (uint64_t s = 0; s < l->sectors; s++) {
        uint64_t id = stamp_read(store + s * SECTOR, s);

        lost += !history_allows(l->history[s], id, settled, now);
    }
    return lost;
}

/* Over one that crashes it loses some: nothing is cut, no flush failed */
static bool run_faulty_control(uint64_t lives, uint64_t seed)
{
    Power p = { .subject = &subject_stock, .faults = true };
    uint64_t lost = 0;
    Rng rng = { seed };

    while (p.lives < lives) {
        Start *start = start_new(p.subject, &rng);

        p.l = life_record(p.subject, start, rng_next(&rng), true);
        lost += count_lost(p.l);
        p.l->wrong = 0;
        count_life(&p);
        life_free(p.l);
        start_free(start);
    }
    tell(&p);
    return report(lost, "control: over a store that crashes a stock client, "
                  "which reconnects, loses %" PRIu64 " sectors that were "
                  "flushed, in %" PRIu64 " lives", lost, lives);
}

int main(int argc, char **argv)
{
    uint64_t limit = option_number(argv, "--states", 10000);
    uint64_t control = option_number(argv, "--control", 1000);
    uint64_t durable = option_number(argv, "--durable", 1000);
    uint64_t directed = option_number(argv, "--directed", 10);
    uint64_t row = option_number(argv, "--row", 0);
    uint64_t seed = option_number(argv, "--seed", 1);
    uint64_t per_life = option_number(argv, "--per-life", STATES_PER_LIFE);
    bool ok = true;

    setenv("DESKCAST_TEST_STORE", "1", true);
    block_layer_init();
    watch_for_ends();
    device_init();
    if (control) {
        ok = run_sound_control(control, seed);
        ok = run_faulty_control(30, seed) && ok;
    }
    if (limit) {
        ok = run_private(&subject_private, true, limit, seed, per_life) && ok;
    }
    if (durable) {
        ok = run_private(&subject_store, false, durable, seed, per_life) && ok;
    }
    if (directed) {
        ok = run_directed(directed, seed, row) && ok;
    }
    return !ok;
}

/*
 * Kill test: what the disk and the store may hold
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "kill.h"

/* One sector gets this content */
typedef struct SectorChange {
    uint64_t id, begin, end;
    bool fua;
} SectorChange;

struct Model {
    /* The store had this when it was drained, and no sector had changed */
    uint64_t base[SECTORS];
    /* Since then, but for what was lost: SectorChange by begin */
    GArray *history[SECTORS];
    uint64_t size;              /* of them all */
    GArray *flushes;            /* Span */
    GArray *begins;             /* uint64_t, by id, from first_id on */
    uint64_t first_id;

    /* The disk had this when it was read; all before then counts no more */
    uint64_t current[SECTORS];
    uint64_t read_at;
};

static SectorChange *change_at(const Model *m, uint64_t s, guint i)
{
    return &g_array_index(m->history[s], SectorChange, i);
}

Model *model_new(void)
{
    Model *m = g_new0(Model, 1);

    for (uint64_t s = 0; s < SECTORS; s++) {
        m->history[s] = g_array_new(false, false, sizeof(SectorChange));
    }
    m->flushes = g_array_new(false, false, sizeof(Span));
    m->begins = g_array_new(false, false, sizeof(uint64_t));
    return m;
}

static void forget(Model *m)
{
    for (uint64_t s = 0; s < SECTORS; s++) {
        g_array_set_size(m->history[s], 0);
    }
    g_array_set_size(m->flushes, 0);
    m->first_id += m->begins->len;
    g_array_set_size(m->begins, 0);
    m->size = 0;
}

void model_reset(Model *m)
{
    forget(m);
    for (uint64_t s = 0; s < SECTORS; s++) {
        m->base[s] = m->current[s] = STAMP_BASE;
    }
    m->read_at = 0;
}

uint64_t model_size(const Model *m)
{
    return m->size;
}

/* The begin of the last flush that had ended before @begin; or 0 */
static uint64_t flushed_before(const Model *m, uint64_t begin)
{
    uint64_t settled = 0;

    for (guint i = 0; i < m->flushes->len; i++) {
        const Span *f = &g_array_index(m->flushes, Span, i);

        if (f->end < begin) {
            settled = MAX(settled, f->begin);
        }
    }
    return settled;
}

/* The disk */

static bool is_durable(const SectorChange *c, uint64_t settled)
{
    return c->end <= settled || (c->fua && c->end != CHANGE_UNDER_WAY);
}

/* Nothing that ended before this can be there any more; 0: anything can */
static uint64_t disk_floor(const Model *m, uint64_t s, uint64_t settled)
{
    uint64_t floor = 0;

    for (guint i = 0; i < m->history[s]->len; i++) {
        const SectorChange *c = change_at(m, s, i);

        if (c->begin > m->read_at && is_durable(c, settled)) {
            floor = MAX(floor, c->begin);
        }
    }
    return floor;
}

static G_GNUC_PRINTF(2, 3) bool wrong(char **why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    *why = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return false;
}

static void note_history(const Model *m, uint64_t s)
{
    note("sector %" PRIu64 ", base 0x%" PRIx64 ", read as 0x%" PRIx64 " at %"
         PRIu64 ":", s, m->base[s], m->current[s], m->read_at);
    for (guint i = 0; i < m->history[s]->len; i++) {
        const SectorChange *c = change_at(m, s, i);

        note("  0x%" PRIx64 " from %" PRIu64 " to %" PRIu64 "%s", c->id,
             c->begin, c->end, c->fua ? ", durable" : "");
    }
    for (guint i = 0; i < m->flushes->len; i++) {
        const Span *f = &g_array_index(m->flushes, Span, i);

        note("  flush from %" PRIu64 " to %" PRIu64, f->begin, f->end);
    }
}

/*
 * The change that is found in a sector: the last one with this content, as two
 * may have made zeros. NULL: none since it was read.
 */
static SectorChange *find_change(const Model *m, uint64_t s, uint64_t id,
                                 uint64_t floor)
{
    for (guint i = m->history[s]->len; i > 0; i--) {
        SectorChange *c = change_at(m, s, i - 1);

        if (c->begin > m->read_at && c->id == id && c->end >= floor) {
            return c;
        }
    }
    return NULL;
}

/* What was lost never was: all that began when what is found had ended */
static void drop_lost(Model *m, uint64_t s, uint64_t end)
{
    GArray *h = m->history[s];
    guint kept = 0;

    for (guint i = 0; i < h->len; i++) {
        SectorChange *c = change_at(m, s, i);

        if (c->begin <= end) {
            *change_at(m, s, kept++) = *c;
        }
    }
    m->size -= h->len - kept;
    g_array_set_size(h, kept);
}

static bool found_sector(Model *m, uint64_t s, const Content *c,
                         uint64_t settled, char **why)
{
    uint64_t id = c->ids[s];
    uint64_t floor = disk_floor(m, s, settled);
    SectorChange *found = find_change(m, s, id, floor);

    if (!found && (id != m->current[s] || floor)) {
        note_history(m, s);
        return wrong(why, "sector %" PRIu64 " of the disk holds 0x%" PRIx64
                     "%s", s, id, id == STAMP_TORN ? ", which is torn" : "");
    }
    drop_lost(m, s, found ? found->end : m->read_at);
    found = find_change(m, s, id, floor);
    if (found) {
        found->end = MIN(found->end, c->at);
    }
    m->current[s] = id;
    return true;
}

bool model_found(Model *m, const Content *c, char **why)
{
    /* Recovery begins an epoch, so that it is like a flush for the store */
    Span f = { c->at, c->at };
    uint64_t settled = flushed_before(m, UINT64_MAX);

    for (uint64_t s = 0; s < SECTORS; s++) {
        if (!found_sector(m, s, c, settled, why)) {
            return false;
        }
    }
    m->read_at = c->at;
    g_array_append_val(m->flushes, f);
    return true;
}

static void add_entry(Model *m, const Entry *e)
{
    SectorChange c = { e->id, e->begin, e->end, e->fua };

    if (e->id != STAMP_ZERO) {
        /* Numbers that a victim took and died before it noted them */
        while (m->first_id + m->begins->len < e->id) {
            g_array_append_val(m->begins, e->begin);
        }
        g_array_append_val(m->begins, e->begin);
    }
    for (uint32_t s = e->first; s < e->first + e->n; s++) {
        g_array_append_val(m->history[s], c);
    }
    m->size += e->n;
}

void model_add(Model *m, const Shared *sh)
{
    for (unsigned i = 0; i < sh->n_entries; i++) {
        add_entry(m, &sh->entries[i]);
    }
    g_array_append_vals(m->flushes, sh->flushes, sh->n_flushes);
}

/* The store alone */

static uint64_t begin_of(const Model *m, uint64_t id)
{
    return id >= m->first_id && id - m->first_id < m->begins->len
           ? g_array_index(m->begins, uint64_t, id - m->first_id) : 0;
}

static bool store_allows(const Model *m, uint64_t s, uint64_t id,
                         uint64_t settled)
{
    uint64_t floor = 0;

    for (guint i = 0; i < m->history[s]->len; i++) {
        const SectorChange *c = change_at(m, s, i);

        if (c->end <= settled) {
            floor = MAX(floor, c->begin);
        }
    }
    for (guint i = 0; i < m->history[s]->len; i++) {
        const SectorChange *c = change_at(m, s, i);

        if (c->id == id && c->end >= floor) {
            return true;
        }
    }
    return id == m->base[s] && !floor;
}

bool model_store(Model *m, const uint8_t *image, char **why)
{
    g_autofree uint64_t *ids = g_new(uint64_t, SECTORS);
    uint64_t newest = 0, settled;

    for (uint64_t s = 0; s < SECTORS; s++) {
        ids[s] = stamp_read(image + s * SECTOR, s);
        newest = MAX(newest, begin_of(m, ids[s]));
    }
    settled = flushed_before(m, newest);
    for (uint64_t s = 0; s < SECTORS; s++) {
        if (!store_allows(m, s, ids[s], settled)) {
            note_history(m, s);
            return wrong(why, "the store has what began at %" PRIu64
                         ", which is after the flush from %" PRIu64 " on; but "
                         "its sector %" PRIu64 " holds 0x%" PRIx64, newest,
                         settled, s, ids[s]);
        }
    }
    return true;
}

bool model_drained(Model *m, const uint8_t *image, char **why)
{
    for (uint64_t s = 0; s < SECTORS; s++) {
        uint64_t id = stamp_read(image + s * SECTOR, s);

        if (id != m->current[s]) {
            note_history(m, s);
            return wrong(why, "sector %" PRIu64 " of the drained store "
                         "holds 0x%" PRIx64, s, id);
        }
    }
    forget(m);
    memcpy(m->base, m->current, sizeof(m->base));
    return true;
}

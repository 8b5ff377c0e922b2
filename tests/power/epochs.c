/*
 * Power-cut test: is the store a prefix of what was written (J2)?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/pvs/journal-scan.h"
#include "epochs.h"

/* A sector has this content from the end of the epoch on */
typedef struct Version {
    uint64_t epoch, id;
} Version;

typedef struct Entry {
    JournalRecord r;
    const uint8_t *payload;     /* NULL: zeros */
} Entry;

/* Epochs from first to last */
typedef struct Span {
    uint64_t first, last;
} Span;

struct Epochs {
    uint64_t sectors;
    GArray **versions;          /* for each sector: Version */
    uint64_t first, last;
};

/* Reading the journal */

static void add_entry(GArray *entries, const JournalRecord *r,
                      const uint8_t *payload)
{
    Entry e = { *r, r->type == JOURNAL_WRITE ? payload : NULL };

    if (r->type == JOURNAL_WRITE || r->type == JOURNAL_ZERO) {
        g_array_append_val(entries, e);
    }
}

typedef struct OldRecords {
    GArray *entries;
    const uint8_t *ring;
    uint64_t ring_size;
} OldRecords;

static void old_record(void *opaque, const JournalRecord *r, uint64_t payload)
{
    OldRecords *o = opaque;

    add_entry(o->entries, r, o->ring + payload % o->ring_size);
}

/* What the journal had already */
static void read_old(GArray *entries, const JournalHeader *h,
                     const uint8_t *ring)
{
    OldRecords o = { entries, ring, h->ring_size };
    JournalScan s;
    uint64_t from, end;

    journal_scan_init(&s, h);
    end = journal_scan_end(&s);
    do {
        uint64_t at = s.next.pos % h->ring_size;
        uint64_t n = MIN(h->ring_size - at, end - s.next.pos);

        from = s.next.pos;
        if (!journal_scan_records(&s, ring + at, n, old_record, &o)) {
            break;
        }
    } while (s.next.pos > from);
}

/* The records of one write to the ring */
static void read_batch(GArray *entries, const LogEvent *e, uint32_t unit)
{
    int64_t at = 0;

    while (at + JOURNAL_RECORD_BYTES <= e->bytes) {
        JournalRecord r;

        if (!journal_record_decode(&r, e->data + at)) {
            return;
        }
        add_entry(entries, &r, e->data + at + unit);
        at += journal_record_space(&r, unit);
    }
}

static gint by_sequence(gconstpointer a, gconstpointer b)
{
    uint64_t x = ((const Entry *)a)->r.seq, y = ((const Entry *)b)->r.seq;

    return x < y ? -1 : x > y;
}

static GArray *read_journal(const Life *l)
{
    GArray *entries = g_array_new(false, false, sizeof(Entry));
    const uint8_t *start = l->start->device[JOURNAL];
    g_autofree char *why = NULL;
    JournalHeader h;

    if (journal_header_choose(&h, start, &why) < 0) {
        return entries;
    }
    read_old(entries, &h, start + JOURNAL_RING_OFFSET);
    for (guint i = 0; i < l->log->events->len; i++) {
        LogEvent *e = &g_array_index(l->log->events, LogEvent, i);

        if (e->device == JOURNAL && e->request == DEVICE_WRITE &&
            e->offset >= JOURNAL_RING_OFFSET) {
            read_batch(entries, e, h.unit);
        }
    }
    g_array_sort(entries, by_sequence);
    return entries;
}

/* What each sector had after which epoch */

static void add_version(GArray *versions, uint64_t epoch, uint64_t id)
{
    Version *last = versions->len ? &g_array_index(versions, Version,
                                                   versions->len - 1) : NULL;
    Version v = { epoch, id };

    if (last && last->epoch == epoch) {
        last->id = id;
    } else {
        g_array_append_val(versions, v);
    }
}

static void add_versions(Epochs *x, const Entry *e)
{
    for (uint64_t at = 0; at < e->r.length; at += SECTOR) {
        uint64_t sector = (e->r.offset + at) / SECTOR;
        uint64_t id = e->payload ? stamp_read(e->payload + at, sector)
                                 : STAMP_ZERO;

        add_version(x->versions[sector], e->r.epoch, id);
    }
}

Epochs *epochs_new(const Life *l)
{
    Epochs *x = g_new0(Epochs, 1);
    GArray *entries = read_journal(l);

    x->sectors = l->sectors;
    x->versions = g_new(GArray *, l->sectors);
    for (uint64_t s = 0; s < l->sectors; s++) {
        x->versions[s] = g_array_new(false, false, sizeof(Version));
        add_version(x->versions[s], 0,
                    stamp_read(l->start->device[STORE] + s * SECTOR, s));
    }
    for (guint i = 0; i < entries->len; i++) {
        Entry *e = &g_array_index(entries, Entry, i);

        x->first = x->first ? x->first : e->r.epoch;
        x->last = e->r.epoch;
        add_versions(x, e);
    }
    g_array_free(entries, true);
    return x;
}

void epochs_free(Epochs *x)
{
    for (uint64_t s = 0; s < x->sectors; s++) {
        g_array_free(x->versions[s], true);
    }
    g_free(x->versions);
    g_free(x);
}

uint64_t epochs_count(const Epochs *x)
{
    return x->first ? x->last - x->first + 1 : 0;
}

/* Judging */

/*
 * Which epoch may be the one that is being sent, if a sector has @id? Or, with
 * @complete, the last one that was.
 */
static void spans_of(const GArray *versions, uint64_t id, bool complete,
                     GArray *spans)
{
    g_array_set_size(spans, 0);
    for (guint i = 0; i < versions->len; i++) {
        Version *v = &g_array_index(versions, Version, i);
        Span s = {
            .first = v->epoch,
            .last = i + 1 < versions->len
                    ? g_array_index(versions, Version, i + 1).epoch - complete
                    : UINT64_MAX,
        };
        Span *before = spans->len ? &g_array_index(spans, Span, spans->len - 1)
                                  : NULL;

        if (v->id != id) {
            continue;
        }
        if (before && before->last == s.first) {
            before->last = s.last;
        } else {
            g_array_append_val(spans, s);
        }
    }
}

static GArray *meet(const GArray *a, const GArray *b)
{
    GArray *both = g_array_new(false, false, sizeof(Span));

    for (guint i = 0; i < a->len; i++) {
        for (guint j = 0; j < b->len; j++) {
            Span *x = &g_array_index(a, Span, i);
            Span *y = &g_array_index(b, Span, j);
            Span s = { MAX(x->first, y->first), MIN(x->last, y->last) };

            if (s.first <= s.last) {
                g_array_append_val(both, s);
            }
        }
    }
    return both;
}

static char *tell(const Epochs *x, uint64_t sector, uint64_t id,
                  const GArray *possible)
{
    const Span *s = &g_array_index(possible, Span, 0);
    GString *why = g_string_new(NULL);

    g_string_printf(why, "sector %" PRIu64 " of the store holds 0x%" PRIx64
                    " while epoch %" PRIu64 " is being sent (or so); it had",
                    sector, id, s->first);
    for (guint i = 0; i < x->versions[sector]->len; i++) {
        Version *v = &g_array_index(x->versions[sector], Version, i);

        g_string_append_printf(why, " 0x%" PRIx64 " in %" PRIu64 ",", v->id,
                               v->epoch);
    }
    return g_string_free(why, false);
}

static bool judge(const Epochs *x, const uint8_t *store, bool complete,
                  char **why)
{
    GArray *possible = g_array_new(false, false, sizeof(Span));
    GArray *spans = g_array_new(false, false, sizeof(Span));
    Span all = { 0, UINT64_MAX };
    bool ok = true;

    g_array_append_val(possible, all);
    for (uint64_t s = 0; s < x->sectors && ok; s++) {
        uint64_t id = stamp_read(store + s * SECTOR, s);
        GArray *both;

        spans_of(x->versions[s], id, complete, spans);
        both = meet(possible, spans);
        if (both->len == 0) {
            *why = tell(x, s, id, possible);
            ok = false;
        }
        g_array_free(possible, true);
        possible = both;
    }
    g_array_free(possible, true);
    g_array_free(spans, true);
    return ok;
}

bool epochs_allow(const Epochs *x, const uint8_t *store, char **why)
{
    return judge(x, store, false, why);
}

bool epochs_complete(const Epochs *x, const uint8_t *store, char **why)
{
    return judge(x, store, true, why);
}

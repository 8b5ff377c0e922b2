/*
 * Where in the reconnect buffer the newest content of a range is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/pvs/journal-index.h"

/* GLib's balanced tree that can be searched for neighbours */
struct JournalIndex {
    GSequence *extents;
};

static uint64_t end_of(const JournalExtent *e)
{
    return e->offset + e->length;
}

static void advance(JournalExtent *e, uint64_t n)
{
    e->offset += n;
    e->length -= n;
    e->pos += e->pos == JOURNAL_POS_ZERO ? 0 : n;
}

JournalIndex *journal_index_new(void)
{
    JournalIndex *x = g_new(JournalIndex, 1);

    x->extents = g_sequence_new(g_free);
    return x;
}

void journal_index_free(JournalIndex *x)
{
    if (x) {
        g_sequence_free(x->extents);
        g_free(x);
    }
}

uint64_t journal_index_extents(const JournalIndex *x)
{
    return g_sequence_get_length(x->extents);
}

static JournalExtent *get(GSequenceIter *it)
{
    return g_sequence_iter_is_end(it) ? NULL : g_sequence_get(it);
}

/* Never equal, so that a search ends behind what begins at the same place */
static int by_offset(gconstpointer a, gconstpointer b, gpointer unused)
{
    const JournalExtent *x = a, *y = b;

    return x->offset <= y->offset ? -1 : 1;
}

/* The first extent that ends behind @offset */
static GSequenceIter *first_behind(const JournalIndex *x, uint64_t offset)
{
    JournalExtent key = { .offset = offset };
    GSequenceIter *it = g_sequence_search(x->extents, &key, by_offset, NULL);

    if (!g_sequence_iter_is_begin(it)) {
        GSequenceIter *before = g_sequence_iter_prev(it);

        if (end_of(g_sequence_get(before)) > offset) {
            return before;
        }
    }
    return it;
}

static bool continues(const JournalExtent *a, const JournalExtent *b)
{
    uint64_t next = a->pos == JOURNAL_POS_ZERO ? a->pos : a->pos + a->length;

    return a->seq == b->seq && end_of(a) == b->offset && b->pos == next;
}

/* Put the first @n bytes of @e before @it, where there is room */
static void put(GSequenceIter *it, const JournalExtent *e, uint64_t n)
{
    JournalExtent *added;

    if (!g_sequence_iter_is_begin(it)) {
        JournalExtent *before = g_sequence_get(g_sequence_iter_prev(it));

        if (continues(before, e)) {
            before->length += n;
            return;
        }
    }
    added = g_memdup2(e, sizeof(*e));
    added->length = n;
    g_sequence_insert_before(it, added);
}

/*
 * Take [@from, @to) out of the extent at @it, which covers @from. Returns what
 * comes behind.
 */
static GSequenceIter *cut(GSequenceIter *it, uint64_t from, uint64_t to)
{
    JournalExtent *e = g_sequence_get(it);
    GSequenceIter *next = g_sequence_iter_next(it);

    if (end_of(e) > to) {
        JournalExtent *right = g_memdup2(e, sizeof(*e));

        advance(right, to - e->offset);
        next = g_sequence_insert_before(next, right);
    }
    e->length = from - e->offset;
    if (e->length == 0) {
        g_sequence_remove(it);
    }
    return next;
}

void journal_index_insert(JournalIndex *x, JournalExtent e)
{
    GSequenceIter *it = first_behind(x, e.offset);

    while (e.length) {
        JournalExtent *old = get(it);
        uint64_t n = e.length;

        if (old && old->offset <= e.offset && old->seq < e.seq) {
            it = cut(it, e.offset, end_of(&e));
            continue;
        }
        if (old && old->offset <= e.offset) {
            n = MIN(n, end_of(old) - e.offset);
            it = g_sequence_iter_next(it);
        } else {
            n = old ? MIN(n, old->offset - e.offset) : n;
            put(it, &e, n);
        }
        advance(&e, n);
    }
}

uint64_t journal_index_find(const JournalIndex *x, uint64_t offset,
                            uint64_t length, JournalExtent *e)
{
    JournalExtent *found = get(first_behind(x, offset));

    if (!found || found->offset >= offset + length) {
        *e = (JournalExtent) { .offset = offset, .length = length };
    } else if (found->offset > offset) {
        *e = (JournalExtent) {
            .offset = offset,
            .length = found->offset - offset,
        };
    } else {
        *e = *found;
        advance(e, offset - found->offset);
        e->length = MIN(e->length, length);
    }
    return e->length;
}

void journal_index_remove(JournalIndex *x, uint64_t offset, uint64_t length,
                          uint64_t seq)
{
    GSequenceIter *it = first_behind(x, offset);
    uint64_t end = offset + length;
    JournalExtent *e;

    while ((e = get(it)) && e->offset < end) {
        if (e->seq <= seq) {
            it = cut(it, MAX(e->offset, offset), end);
        } else {
            it = g_sequence_iter_next(it);
        }
    }
}

/*
 * The reconnect buffer: its index, and the label of the store
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdlib.h>
#include "block/pvs/journal-index.h"
#include "block/pvs/label.h"
#include "journal-sample.h"
#include "suite.h"

/* Index */

#define BYTES   2048

typedef struct Model {
    uint64_t seq[BYTES], pos[BYTES];
} Model;

static void same_as_model(const JournalIndex *x, const Model *m)
{
    for (uint64_t k = 0; k < BYTES; ) {
        JournalExtent e;
        uint64_t n = journal_index_find(x, k, BYTES - k, &e);

        CU_ASSERT_FATAL(n > 0 && n == e.length && e.offset == k);
        for (uint64_t i = 0; i < n; i++) {
            CU_ASSERT_FATAL(m->seq[k + i] == e.seq);
            CU_ASSERT_FATAL(!e.seq || m->pos[k + i] ==
                            (e.pos == JOURNAL_POS_ZERO ? e.pos : e.pos + i));
        }
        k += n;
    }
}

static void index_step(JournalIndex *x, Model *m, GRand *rand, int i)
{
    uint64_t offset = g_rand_int_range(rand, 0, BYTES);
    uint64_t most = g_rand_int_range(rand, 1, 200);
    uint64_t length = MIN(most, BYTES - offset);
    uint64_t seq = g_rand_int_range(rand, 1, 300) * UINT64_C(1000) + i;
    bool zero = g_rand_int_range(rand, 0, 4) == 0;
    uint64_t pos = zero ? JOURNAL_POS_ZERO : seq * 4096;
    bool take_out = g_rand_int_range(rand, 0, 8) == 0;

    if (take_out) {
        journal_index_remove(x, offset, length, seq);
    } else {
        journal_index_insert(x, (JournalExtent) {
            .offset = offset, .length = length, .pos = pos, .seq = seq,
        });
    }
    for (uint64_t k = offset; k < offset + length; k++) {
        if (take_out && m->seq[k] <= seq) {
            m->seq[k] = 0;
        } else if (!take_out && m->seq[k] < seq) {
            m->seq[k] = seq;
            m->pos[k] = zero ? pos : pos + k - offset;
        }
    }
}

static void test_index(void)
{
    GRand *rand = g_rand_new_with_seed(2);

    for (int round = 0; round < 30; round++) {
        JournalIndex *x = journal_index_new();
        Model *m = g_new0(Model, 1);

        for (int i = 0; i < 400; i++) {
            index_step(x, m, rand, i);
            if (i % 10 == 0) {
                same_as_model(x, m);
            }
        }
        journal_index_remove(x, 0, BYTES, UINT64_MAX);
        CU_ASSERT_EQUAL(journal_index_extents(x), 0);
        g_free(m);
        journal_index_free(x);
    }
    journal_index_free(NULL);
    g_rand_free(rand);
}

/* What is written one behind the other is found as one */
static void test_index_joins(void)
{
    JournalIndex *x = journal_index_new();
    JournalExtent e;

    journal_index_insert(x, (JournalExtent) { 1024, 512, 100, 1, 0 });
    journal_index_insert(x, (JournalExtent) { 2048, 512, 700, 2, 0 });
    journal_index_insert(x, (JournalExtent) { 0, 4096, 5000, 3, 0 });
    CU_ASSERT_EQUAL(journal_index_extents(x), 1);
    CU_ASSERT_EQUAL(journal_index_find(x, 100, 10000, &e), 3996);
    CU_ASSERT_EQUAL(e.pos, 5100);
    journal_index_insert(x, (JournalExtent) { 4096, 512, JOURNAL_POS_ZERO, 3,
                                              0 });
    CU_ASSERT_EQUAL(journal_index_extents(x), 2);
    journal_index_insert(x, (JournalExtent) { 8192, 512, 9000, 3, 0 });
    CU_ASSERT_EQUAL(journal_index_extents(x), 3);   /* not next to it */
    CU_ASSERT_EQUAL(journal_index_find(x, 5000, 100, &e), 100);
    CU_ASSERT_EQUAL(e.seq, 0);
    journal_index_free(x);
}

/* Labels */

static Label label(uint64_t writer, uint8_t nonce)
{
    Label l = {
        .id.writer = writer,
        .virtual_size = DISK,
        .version = 13,
        .vdisk = "win-11",
    };

    memset(l.id.content, 0x44, sizeof(l.id.content));
    memset(l.id.nonce, nonce, sizeof(l.id.nonce));
    return l;
}

static bool label_taken(const uint8_t *buf, Label *l)
{
    g_autofree char *why = NULL;
    bool ok = label_decode(l, buf, &why);

    CU_ASSERT_EQUAL(ok, why == NULL);
    return ok;
}

static void forge_label(uint8_t *buf, size_t offset, uint8_t value)
{
    uint64_t sum;

    buf[offset] = value;
    memset(buf + 8, 0, 8);
    sum = GUINT64_TO_LE(journal_checksum(buf, LABEL_BYTES));
    memcpy(buf + 8, &sum, sizeof(sum));
}

static void test_label(void)
{
    Label l = label(4, 0x55), out;
    uint8_t buf[LABEL_BYTES] = {};

    CU_ASSERT_EQUAL(label_offset(4097), 8192);
    CU_ASSERT(label_taken(buf, &out));
    CU_ASSERT_FALSE(journal_label_is_set(&out.id));
    for (int closed = 0; closed < 2; closed++) {
        l.closed = closed;
        label_encode(&l, buf);
        CU_ASSERT(label_taken(buf, &out));
        CU_ASSERT_EQUAL(memcmp(&l, &out, sizeof(l)), 0);
    }
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] ^= 0x10;
        CU_ASSERT_FALSE(label_taken(buf, &out));
        buf[i] ^= 0x10;
    }
    buf[0] = 0;
    CU_ASSERT_FALSE(label_taken(buf, &out));
    label_encode(&l, buf);
    forge_label(buf, 16, 2);                    /* version */
    CU_ASSERT_FALSE(label_taken(buf, &out));
    label_encode(&l, buf);
    forge_label(buf, 80 + 127, 'x');
    CU_ASSERT_FALSE(label_taken(buf, &out));
    label_encode(&l, buf);
    forge_label(buf, 40, 0);                    /* nobody's, and not empty */
    CU_ASSERT_FALSE(label_taken(buf, &out));
}

static bool judged_older;

static LabelVerdict judge(const JournalHeader *h, Label l, bool first,
                          bool take_over, bool empty)
{
    LabelQuestion q = {
        .h = h, .first = first, .take_over = take_over, .empty = empty,
    };
    g_autofree char *why = NULL;
    LabelVerdict v = label_judge(&q, &l, &why);

    CU_ASSERT_EQUAL(v == LABEL_FENCED, why != NULL);
    judged_older = why && strstr(why, "an older state");
    return v;
}

static void test_verdicts(void)
{
    JournalHeader bound = sample(), new = sample(), claiming = sample();
    Label mine = label(4, 0x55), other = label(4, 0x56), none = {};
    Label intent = label(5, 0x77), older = label(3, 0x54);

    memset(&new.label, 0, sizeof(new.label));
    memset(&new.intent, 0, sizeof(new.intent));
    memset(&claiming.label, 0, sizeof(claiming.label));
    memset(intent.id.content, 0x66, sizeof(intent.id.content));

    CU_ASSERT_EQUAL(judge(&bound, mine, true, false, false), LABEL_OWN);
    CU_ASSERT_EQUAL(judge(&bound, mine, false, false, false), LABEL_OWN);
    CU_ASSERT_EQUAL(judge(&bound, intent, true, false, false), LABEL_OWN);
    CU_ASSERT_EQUAL(judge(&bound, intent, false, false, false), LABEL_FENCED);
    CU_ASSERT_EQUAL(judge(&bound, other, true, false, true), LABEL_FENCED);
    CU_ASSERT_EQUAL(judge(&bound, other, false, true, true), LABEL_FENCED);
    CU_ASSERT_EQUAL(judge(&bound, other, true, true, false), LABEL_FENCED);
    CU_ASSERT_EQUAL(judge(&bound, other, true, true, true), LABEL_TAKE);
    /* What was ours is gone: the store is another one, or an old copy */
    CU_ASSERT_EQUAL(judge(&bound, none, true, false, true), LABEL_FENCED);

    CU_ASSERT_EQUAL(judge(&new, none, true, false, true), LABEL_CLAIM);
    CU_ASSERT_EQUAL(judge(&new, other, true, false, true), LABEL_FENCED);
    CU_ASSERT_EQUAL(judge(&new, other, true, true, true), LABEL_TAKE);
    CU_ASSERT_EQUAL(judge(&claiming, none, true, false, false), LABEL_CLAIM);
    CU_ASSERT_EQUAL(judge(&claiming, none, false, false, false), LABEL_FENCED);

    CU_ASSERT_FALSE(judged_older);
    CU_ASSERT_EQUAL(judge(&bound, older, false, true, true), LABEL_FENCED);
    CU_ASSERT(judged_older);
    CU_ASSERT_EQUAL(judge(&bound, older, true, true, true), LABEL_TAKE);
    older.id.content[0]++;
    CU_ASSERT_EQUAL(judge(&bound, older, false, true, true), LABEL_FENCED);
    CU_ASSERT_FALSE(judged_older);

    mine.version++;
    CU_ASSERT_EQUAL(judge(&bound, mine, true, true, true), LABEL_FENCED);
    mine = label(4, 0x55);
    mine.virtual_size += 512;
    CU_ASSERT_EQUAL(judge(&bound, mine, true, true, true), LABEL_FENCED);
    mine = label(4, 0x55);
    mine.vdisk[0] = 'x';
    CU_ASSERT_EQUAL(judge(&bound, mine, true, true, true), LABEL_FENCED);
    mine = label(4, 0x55);
    mine.id.content[0]++;
    CU_ASSERT_EQUAL(judge(&bound, mine, true, false, true), LABEL_FENCED);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "index: like a model", test_index },
        { "index: joins what belongs together", test_index_joins },
        { "labels: round trip, and damage", test_label },
        { "labels: whose store it is", test_verdicts },
        CU_TEST_INFO_NULL
    };

    return run_suite("journal-index", tests);
}

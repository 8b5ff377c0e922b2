/*
 * Fuzz the index of a reconnect buffer against an array of bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/journal-index.h"
#include "fuzz.h"

#define BYTES   256

static uint64_t seqs[BYTES], places[BYTES];

static void step(JournalIndex *x, Input *in)
{
    uint8_t what = input_take(in, 1);
    uint64_t offset = input_take(in, 1);
    uint64_t most = input_take(in, 1) + 1;
    uint64_t length = MIN(most, BYTES - offset);
    uint64_t seq = input_take(in, 1) + 1;
    uint64_t pos = what & 2 ? JOURNAL_POS_ZERO : seq * 65536;

    if (what & 1) {
        journal_index_remove(x, offset, length, seq);
    } else {
        journal_index_insert(x, (JournalExtent) {
            .offset = offset, .length = length, .pos = pos, .seq = seq,
        });
    }
    for (uint64_t k = offset; k < offset + length; k++) {
        if ((what & 1) && seqs[k] <= seq) {
            seqs[k] = 0;
        } else if (!(what & 1) && seqs[k] < seq) {
            seqs[k] = seq;
            places[k] = what & 2 ? pos : pos + k - offset;
        }
    }
}

static void compare(const JournalIndex *x)
{
    JournalExtent e;

    for (uint64_t k = 0; k < BYTES; k += e.length) {
        uint64_t n = journal_index_find(x, k, BYTES - k, &e);

        assert(n && n == e.length && e.offset == k);
        for (uint64_t i = 0; i < n; i++) {
            assert(seqs[k + i] == e.seq);
            assert(!e.seq || places[k + i] ==
                   (e.pos == JOURNAL_POS_ZERO ? e.pos : e.pos + i));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = { data, size };
    JournalIndex *x = journal_index_new();

    memset(seqs, 0, sizeof(seqs));
    while (in.size) {
        step(x, &in);
        compare(x);
    }
    journal_index_free(x);
    return 0;
}

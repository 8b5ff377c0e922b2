/*
 * Fuzz the header of a reconnect buffer, and a store's label, with checksums
 * that fit: what is decoded is bounded, and the same when it is written again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/label.h"
#include "fuzz.h"

static void header(uint8_t *buf)
{
    uint8_t again[JOURNAL_HEADER_BYTES], third[JOURNAL_HEADER_BYTES];
    JournalHeader h, other;
    g_autofree char *why = NULL;

    if (!journal_header_decode(&h, buf, &why)) {
        assert(why);
        return;
    }
    assert(h.unit == 512 || h.unit == 4096);
    assert(h.ring_size >= JOURNAL_RING_MIN && h.ring_size <= JOURNAL_RING_MAX);
    assert(h.tail.pos % h.unit == 0 && h.tail.pos <= INT64_MAX);
    assert(h.virtual_size <= VDISK_MAX_SIZE && h.reserve <= h.ring_size);
    assert(strlen(h.vdisk) <= VDISK_NAME_CHARS);
    /* Not the structures: what is behind a name's end means nothing */
    journal_header_encode(&h, again);
    assert(journal_header_decode(&other, again, &why));
    journal_header_encode(&other, third);
    assert(!memcmp(again, third, sizeof(again)));
    assert(!strcmp(h.vdisk, other.vdisk));
}

static void label(uint8_t *buf)
{
    uint8_t again[LABEL_BYTES];
    Label l, other;
    g_autofree char *why = NULL;

    if (!label_decode(&l, buf, &why)) {
        assert(why);
        return;
    }
    assert(strlen(l.vdisk) <= VDISK_NAME_CHARS);
    if (journal_label_is_set(&l.id)) {
        label_encode(&l, again);
        assert(label_decode(&other, again, &why));
        assert(journal_label_same(&l.id, &other.id));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t buf[4096] = {};

    memcpy(buf, data, MIN(size, sizeof(buf)));
    header(buf);
    label(buf);
    input_sign(buf, 0, sizeof(buf));
    header(buf);
    label(buf);
    return 0;
}

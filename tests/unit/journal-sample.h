/*
 * A header of a reconnect buffer that is as good as any
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_JOURNAL_SAMPLE_H
#define TESTS_UNIT_JOURNAL_SAMPLE_H

#include "block/pvs/journal-format.h"

#define RING    ((uint64_t)JOURNAL_RING_MIN)
#define UNIT    512
#define DISK    (UINT64_C(64) << 20)

static inline JournalHeader sample(void)
{
    JournalHeader h = {
        .unit = UNIT,
        .generation = 7,
        .virtual_size = DISK,
        .ring_size = RING,
        .tail = { .pos = 4096, .seq = 5, .epoch = 3, .link = 99 },
        .durable = 4,
        .window = true,
        .reserve = 8192,
        .version = 13,
        .vdisk = "win-11",
        .label = { .writer = 4 },
        .intent = { .writer = 5 },
    };

    memset(h.journal, 0x11, sizeof(h.journal));
    memset(h.desktop, 0x22, sizeof(h.desktop));
    memset(h.tail.nonce, 0x33, sizeof(h.tail.nonce));
    memset(h.label.content, 0x44, sizeof(h.label.content));
    memset(h.label.nonce, 0x55, sizeof(h.label.nonce));
    memset(h.intent.content, 0x66, sizeof(h.intent.content));
    memset(h.intent.nonce, 0x77, sizeof(h.intent.nonce));
    memset(h.newest, 0x88, sizeof(h.newest));
    return h;
}

#endif /* TESTS_UNIT_JOURNAL_SAMPLE_H */

/*
 * The label of a private vDisk: who wrote to it last
 *
 * The 4096 bytes behind the vDisk on its store, see
 * docs/interop/reconnect-buffer.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_LABEL_H
#define BLOCK_PVS_LABEL_H

#include "block/pvs/journal-format.h"

#define LABEL_BYTES     4096

typedef struct Label {
    JournalLabel id;            /* writer is 0: nobody has claimed it */
    bool closed;                /* the store has all that was written */
    uint64_t virtual_size;      /* bytes */
    uint64_t version;
    char vdisk[VDISK_NAME_CHARS + 1];
} Label;

/* Where it is in the store's image of a vDisk of @virtual_size bytes */
static inline uint64_t label_offset(uint64_t virtual_size)
{
    return ROUND_UP(virtual_size, LABEL_BYTES);
}

void label_encode(const Label *l, uint8_t buf[LABEL_BYTES]);

/* False with *@why set (to be freed) if it is no label, and not all zeros */
bool label_decode(Label *l, const uint8_t buf[LABEL_BYTES], char **why);

typedef enum LabelVerdict {
    LABEL_OWN,          /* go on */
    LABEL_CLAIM,        /* nobody's: make it our own */
    LABEL_TAKE,         /* somebody else's, and we were told to take it */
    LABEL_FENCED,       /* send nothing */
} LabelVerdict;

typedef struct LabelQuestion {
    const JournalHeader *h;     /* as it is known to be durable */
    bool first;                 /* connection of this opening */
    bool take_over;             /* we were told to */
    bool empty;                 /* nothing is there to ship */
} LabelQuestion;

/* May the journal's owner write to the store? If fenced, *@why is set. */
LabelVerdict label_judge(const LabelQuestion *q, const Label *l, char **why);

#endif /* BLOCK_PVS_LABEL_H */

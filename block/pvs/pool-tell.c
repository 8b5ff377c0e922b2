/*
 * A pool of stores: what is told of them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/pvs/image.h"
#include "block/pvs/pool-int.h"

/* Of one store; of one that has more of them wrong, some may be told again */
#define WRONG_MAX   4096

static bool is_new(PvsPool *p, unsigned store, int64_t offset)
{
    GHashTable *wrong = p->stores[store].wrong;

    QEMU_LOCK_GUARD(&p->waits->lock);
    if (g_hash_table_size(wrong) == WRONG_MAX) {
        g_hash_table_remove_all(wrong);
    }
    return g_hash_table_add(wrong, g_memdup2(&offset, sizeof(offset)));
}

/* Who waits for a block that no store has right asks again and again */
void pvs_pool_tell_wrong(PvsPool *p, unsigned store, int64_t offset)
{
    PvsImage *img = pvs_image(p->bs);

    if (is_new(p, store, offset)) {
        pvs_image_report_corrupt(img, p->kind == PVS_POOL_TREE,
                                 p->stores[store].name, offset, VDISK_GRANULE);
    } else {
        qatomic_inc(&img->corrupt);
    }
}

void pvs_pool_note_right(PvsPool *p, unsigned store, int64_t offset,
                         int64_t bytes)
{
    GHashTable *wrong = p->stores[store].wrong;
    int64_t end = offset + bytes;

    for (; g_hash_table_size(wrong) && offset < end; offset += VDISK_GRANULE) {
        g_hash_table_remove(wrong, &offset);
    }
}

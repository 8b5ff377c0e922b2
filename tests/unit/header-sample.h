/*
 * Headers to begin with, for the tests of the codec
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_HEADER_SAMPLE_H
#define TESTS_UNIT_HEADER_SAMPLE_H

#include "block/vdisk/header.h"
#include "suite.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

/* A differencing disk with all that it can have */
static inline VdiskHeader sample(void)
{
    VdiskHeader h = {
        .generation = 7,
        .role = VDISK_ROLE_MCS,
        .lifetime = VDISK_DEDICATED,
        .base = { "master.qcow2", "qcow2", .size = 4096 },
        .assigned = { "next.raw", "raw", .size = 8192 },
    };

    vdisk_header_layout(&h, 10 * 1024 * 1024 + 512);
    memset(h.desktop, 0xab, sizeof(h.desktop));
    memset(h.token, 0xcd, sizeof(h.token));
    return h;
}

/* A desktop's write cache, or a host's cache */
static inline VdiskHeader streamed(VdiskRole role)
{
    VdiskHeader h = {
        .generation = 3,
        .role = role,
        .lifetime = VDISK_DEDICATED,
        .base = { "win-11.x_64", "", .version = 12, .size = 1024 * 1024 },
    };

    if (role == VDISK_ROLE_WRITE_CACHE) {
        h.lifetime = VDISK_POOLED;
        h.assigned = h.base;
        h.assigned.version = VDISK_MAX_VERSION;
        h.assigned.size = 2 * 1024 * 1024;
        memset(h.assigned.root, 0x77, sizeof(h.assigned.root));
    }
    memset(h.base.root, 0x66, sizeof(h.base.root));
    vdisk_header_layout(&h, 1024 * 1024);
    return h;
}

/* Is the header refused, with a reason? */
static inline bool refused(const VdiskHeader *h)
{
    uint8_t buf[VDISK_HEADER_BYTES];
    VdiskHeader out;
    char *why = NULL;
    bool valid;

    vdisk_header_encode(h, buf);
    valid = vdisk_header_decode(&out, buf, &why);
    CU_ASSERT_EQUAL(valid, why == NULL);
    g_free(why);
    return !valid;
}

/* Make the checksum match again, as an attacker would */
static inline void reseal(uint8_t *buf)
{
    uint64_t sum = 0;

    memcpy(buf + 8, &sum, sizeof(sum));
    sum = GUINT64_TO_LE(XXH3_64bits(buf, VDISK_HEADER_BYTES));
    memcpy(buf + 8, &sum, sizeof(sum));
}

#define REFUSE(field, value) do { \
        VdiskHeader h_ = sample(); \
        h_.field = value; \
        CU_ASSERT(refused(&h_)); \
    } while (0)

#endif /* TESTS_UNIT_HEADER_SAMPLE_H */

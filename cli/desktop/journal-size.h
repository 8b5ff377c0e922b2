/*
 * The size of a reconnect buffer, and how long it may take to make one
 *
 * All of it is written: 4 GiB are there in time if the disk takes 164 MiB a
 * second, and so is a larger one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_JOURNAL_SIZE_H
#define CLI_DESKTOP_JOURNAL_SIZE_H

#include <glib.h>
#include <stdint.h>

#define JOURNAL_BYTES       (UINT64_C(4) << 30)     /* if nobody says more */
#define JOURNAL_MAKE_MS     25000                   /* for that */
#define JOURNAL_MAKE_MAX_MS (3600 * 1000)

/* @bytes: 0: the default */
static inline int journal_make_ms(uint64_t bytes)
{
    uint64_t times = MAX(bytes, JOURNAL_BYTES) / (JOURNAL_BYTES / 1024);

    return MIN(times * JOURNAL_MAKE_MS / 1024, JOURNAL_MAKE_MAX_MS);
}

#define JOURNAL_MAX_BYTES   (UINT64_C(1) << 50)

/* One in which @reserve can be, whole MiB; more than JOURNAL_MAX_BYTES: none */
static inline uint64_t journal_size_for(uint64_t reserve)
{
    uint64_t least = MIN(reserve, JOURNAL_MAX_BYTES) * 16 / 5;

    return ((least + (1 << 20) - 1) >> 20 << 20) + (1 << 20);
}

#endif /* CLI_DESKTOP_JOURNAL_SIZE_H */

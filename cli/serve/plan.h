/*
 * Which versions get room in a host's cache, and how much
 *
 * A version is granted all that it needs, or what is left, or nothing. What a
 * node was granted stays granted until it is closed, and that waits for its
 * clients: so room is not given away before it is free.
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_PLAN_H
#define CLI_SERVE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

/* Less than that is not worth a cache; bytes */
#define PLAN_LEAST      (UINT64_C(16) << 20)

typedef struct PlanItem {
    uint64_t need;          /* bytes that hold all of it */
    uint64_t held;          /* bytes that its node was granted; 0: none */
    bool wanted;            /* false: it goes as soon as it can */
    uint64_t grant;         /* out: what its node is to have; 0: no cache */
} PlanItem;

/*
 * Share @size bytes among @n versions, the most important one first. The sum
 * of the larger of held and grant, over all, is never more than the larger of
 * @size and the sum of held.
 */
void plan_room(PlanItem *items, unsigned n, uint64_t size);

#endif /* CLI_SERVE_PLAN_H */

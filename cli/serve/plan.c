/*
 * Which versions get room in a host's cache, and how much
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "plan.h"

#include <glib.h>

/* What there is for one that needs @need, with @left to give */
static uint64_t share(uint64_t need, uint64_t left)
{
    if (need <= left) {
        return need;
    }
    return left < PLAN_LEAST ? 0 : left;
}

/* What it would be if nothing was held */
static void plan_ideal(PlanItem *items, unsigned n, uint64_t size)
{
    uint64_t left = size;

    for (unsigned i = 0; i < n; i++) {
        items[i].grant = items[i].wanted ? share(items[i].need, left) : 0;
        left -= items[i].grant;
    }
}

/* From @ideal to what can be had now, with *@free not held by anybody */
static uint64_t plan_now(const PlanItem *item, uint64_t ideal, uint64_t *free)
{
    uint64_t grant;

    if (ideal < item->held) {
        /* A cache does not shrink: it is given up, and made anew */
        return 0;
    }
    if (item->held && (ideal - item->held > *free || ideal < item->need)) {
        /* To grow a little is not worth to be made anew */
        return item->held;
    }
    grant = item->held ? ideal : share(item->need, MIN(ideal, *free));
    *free -= grant - item->held;
    return grant;
}

void plan_room(PlanItem *items, unsigned n, uint64_t size)
{
    uint64_t held = 0, free;

    for (unsigned i = 0; i < n; i++) {
        held += items[i].held;
    }
    free = size > held ? size - held : 0;
    plan_ideal(items, n, size);
    for (unsigned i = 0; i < n; i++) {
        if (items[i].wanted) {
            items[i].grant = plan_now(&items[i], items[i].grant, &free);
        }
    }
}

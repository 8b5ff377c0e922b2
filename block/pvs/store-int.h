/*
 * What store.c (health) has for store-read.c (choice and reads)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_STORE_INT_H
#define BLOCK_PVS_STORE_INT_H

#include "block/pvs/store.h"

#define STORE_BIT(i)    (UINT64_C(1) << (i))

/*
 * What to expect of it in ns: a store that was asked and does not answer
 * anything is at least as slow as it has been silent.
 */
int64_t store_latency(const Store *s, int64_t now);

/* Is it up, and expected to answer within hedge-after? */
bool store_is_brisk(const StoreSet *set, const Store *s, int64_t now);

/* An error, or a read that hangs: no quick answer */
void store_penalize(StoreSet *set, Store *s, int64_t now);

/* @ask, all but its read and kind set here, goes to @store */
void store_ask_sent(StoreSet *set, StoreAsk *ask, unsigned store, int64_t now);

/* Was @ask sent before its store came back, maybe by a lost connection? */
bool store_is_stale(const Store *s, const StoreAsk *ask);

/* Its read waits for @ask no longer */
void store_detach(StoreSet *set, StoreAsk *ask);

#endif /* BLOCK_PVS_STORE_INT_H */

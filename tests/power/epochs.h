/*
 * Power-cut test: is the store a prefix of what was written (J2)?
 *
 * What went into which epoch is known from the records that were written to
 * the journal.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_POWER_EPOCHS_H
#define TESTS_POWER_EPOCHS_H

#include "life.h"

typedef struct Epochs Epochs;

/* From the journal that @l began with, and all that it wrote to it */
Epochs *epochs_new(const Life *l);
void epochs_free(Epochs *e);

/*
 * Has @store all of some epoch and of those before it, and of those behind it
 * a subset of the next one, each sector the last of that epoch? Else *@why.
 */
bool epochs_allow(const Epochs *e, const uint8_t *store, char **why);

/* So, and nothing of the next one? */
bool epochs_complete(const Epochs *e, const uint8_t *store, char **why);

/* Epochs that the life had */
uint64_t epochs_count(const Epochs *e);

#endif /* TESTS_POWER_EPOCHS_H */

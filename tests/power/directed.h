/*
 * Power-cut test: what random lives come to too rarely
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_POWER_DIRECTED_H
#define TESTS_POWER_DIRECTED_H

#include "life.h"

/* Each kind @lives times; true if nothing was wrong */
bool run_directed(uint64_t lives, uint64_t seed);

#endif /* TESTS_POWER_DIRECTED_H */

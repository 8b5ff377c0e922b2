/*
 * The world of fuzz-nbd: QEMU's block layer in one thread, by a clock of its
 * own
 *
 * What makes the same input take the same course: time stands still while
 * anything is to be done and leaps to the next timer when nothing is, so that
 * a peer that says nothing costs no time; and what would be a thread is a
 * coroutine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_FUZZ_NBD_WORLD_H
#define TESTS_FUZZ_NBD_WORLD_H

#include "qemu/osdep.h"

void world_init(void);

/* From here to world_end() the clock is ours, and tells the same each time */
void world_begin(void);

/* Nodes are closed: wait for what is going on still, of which no more comes */
void world_end(void);

/* ns since world_begin() */
int64_t world_now(void);

/*
 * Called for each connection that is made, with the address' path; the peer's
 * end is the callee's to close.
 */
void world_connected(const char *path, int fd);

#endif /* TESTS_FUZZ_NBD_WORLD_H */

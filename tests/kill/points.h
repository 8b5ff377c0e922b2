/*
 * The process dies at a chosen system call: see points.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_KILL_POINTS_H
#define TESTS_KILL_POINTS_H

/* Called at each system call that writes to a file, before it */
extern void (*points_writing)(void);
/*
 * Kill this process at the @n-th point from here at which it has changed a
 * file, or sent something, or is about to; 0: do not
 */
void points_arm(unsigned n);
void kill_now(void) G_NORETURN;

#endif /* TESTS_KILL_POINTS_H */

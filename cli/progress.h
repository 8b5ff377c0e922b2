/*
 * How far a long step is: a bar on a terminal, plain lines elsewhere
 *
 * On a terminal one line of standard error is drawn again, at most ten times a
 * second. Elsewhere a line is printed for each tenth of the step, so that logs
 * stay short. With --json nothing is printed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Progress Progress;

/*
 * Begin the step @what ("converting win11.vhdx") of @total bytes or pieces; 0
 * if that is not known yet. @bytes: show amounts in MiB and a rate. @quiet:
 * print nothing. Never NULL; all functions below take NULL and do nothing.
 */
Progress *progress_new(const char *what, uint64_t total, bool bytes,
                       bool quiet);

/* @n more are done; any thread may say so */
void progress_add(Progress *p, uint64_t n);

/* @done of @total are done; any thread */
void progress_set(Progress *p, uint64_t done, uint64_t total);

/*
 * Something about one of the pieces ("kvm1: bringing win11 version 2: 40%"):
 * behind the bar until the next one, elsewhere a line of its own; any thread
 */
void progress_say(Progress *p, const char *detail);

/* The step ended well; an unfinished one is left as it stands by free alone */
void progress_done(Progress *p);
void progress_free(Progress *p);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Progress, progress_free)

#endif /* CLI_PROGRESS_H */

/*
 * What rbd(8) answers in JSON
 *
 * Nothing here does I/O. The program is trusted no more than a peer: it tells
 * what others wrote into the pool.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_RBD_ANSWER_H
#define CLI_STORE_RBD_ANSWER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define RBD_WATCHERS_MAX    100000

/* Of `rbd info`: the image's size in bytes. False with @error if it is none */
bool rbd_answer_size(const char *text, uint64_t *bytes, GError **error);

/* Of `rbd status`: how many have the image open */
bool rbd_answer_watchers(const char *text, unsigned *count, GError **error);

#endif /* CLI_STORE_RBD_ANSWER_H */

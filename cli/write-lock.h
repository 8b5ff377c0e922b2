/*
 * QEMU's image locks, as a writer takes them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WRITE_LOCK_H
#define CLI_WRITE_LOCK_H

#include <stdbool.h>

/*
 * Lock @fd as a QEMU that writes and shares reading only, until it is closed.
 * False if a VM or a tool has the file open, unless it only reads, shares
 * writing, and we need not be @alone.
 */
bool write_lock_take(int fd, bool alone);

#endif /* CLI_WRITE_LOCK_H */

/*
 * Manifests of far stores, read again and again
 *
 * A thread for each store, so that one that hangs keeps nobody from asking the
 * others. What they find is told in the main loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_WATCH_H
#define CLI_SERVE_WATCH_H

#include "far.h"

/*
 * Store number @store has manifest @m of @vdisk, or none, and then @error says
 * why. @m is the callee's.
 */
typedef void WatchFunc(void *opaque, unsigned store, const char *vdisk,
                       Manifest *m, const GError *error);

/*
 * Begin. Threads do not end before the process does: @stores and @vdisks, which
 * end with NULL, and @opaque have to last as long.
 */
void watch_begin(Far *const *stores, char **vdisks, unsigned interval_ms,
                 WatchFunc *func, void *opaque);

#endif /* CLI_SERVE_WATCH_H */

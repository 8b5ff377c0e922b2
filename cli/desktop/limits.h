/*
 * What a host gives to its desktops, and whether one more fits
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_LIMITS_H
#define CLI_DESKTOP_LIMITS_H

#include "cli/host/hosts.h"
#include "metadata.h"

/* What desktops may take together, by their metadata; in bytes */
typedef struct HostLoad {
    uint64_t write_cache;
    uint64_t ram;
    uint64_t bandwidth;         /* a second, through the host's relay */
    unsigned unbounded;         /* desktops whose write cache has no bound */
} HostLoad;

void limits_add(HostLoad *load, const DesktopMetadata *d);

/*
 * May @count desktops like @d come to @host, which has @load already? False
 * with @error, which says what is short, and what to do.
 */
bool limits_allow(const Host *host, const HostLoad *load,
                  const DesktopMetadata *d, unsigned count, GError **error);

#endif /* CLI_DESKTOP_LIMITS_H */

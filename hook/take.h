/*
 * From the version that is wanted to the header of a desktop's disk
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HOOK_TAKE_H
#define HOOK_TAKE_H

#include "block/vdisk/header.h"
#include "cli/desktop/metadata.h"

typedef enum Take {
    TAKE_NOTHING,               /* it is what is wanted, or will be */
    TAKE_CHANGED,               /* *@new is the header to write */
    TAKE_REFUSED,               /* @error tells why; it stays as it is */
} Take;

/* What is to become of @h so that the next reset takes d->wanted */
Take take_wanted(const VdiskHeader *h, const DesktopMetadata *d,
                 VdiskHeader *new, GError **error);

/* d->wanted as a header names it */
void take_name(const DesktopMetadata *d, VdiskImageName *name);

#endif /* HOOK_TAKE_H */

/*
 * Which version a desktop is to take: what push, rollback and follow write
 * into its metadata
 *
 * Nothing here does I/O.
 *
 * previous is where a rollback goes. Versions only rise, so it lies below
 * wanted before a rollback and above it afterwards: that a version was gone
 * back from is remembered, and neither a second rollback nor follow brings it
 * again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_PLAN_H
#define CLI_HOST_PLAN_H

#include "cli/desktop/metadata.h"

void wanted_set(WantedVersion *to, const WantedVersion *from);
void wanted_clear(WantedVersion *w);
bool wanted_same(const WantedVersion *a, const WantedVersion *b);

/*
 * Have @d want @target. False if it does already; then nothing changes, so
 * that a push can be repeated and a rollback still finds where to go.
 */
bool plan_push(DesktopMetadata *d, const WantedVersion *target);

/* Have @d want what it did before its last push. False if there is nothing. */
bool plan_rollback(DesktopMetadata *d);

/* Is @number, which is current, newer than all that @d was ever told? */
bool plan_follows(const DesktopMetadata *d, uint64_t number);

/*
 * Can a desktop of @catalog that says @d be pushed to? False with @error,
 * which does not name the desktop.
 */
bool plan_fits(const CatalogMetadata *catalog, const DesktopMetadata *d,
               GError **error);

#endif /* CLI_HOST_PLAN_H */

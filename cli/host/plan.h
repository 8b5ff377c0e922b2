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
 * Did the last push of the catalog go back from @number by itself, and was it
 * not released anew since? follow leaves it then.
 */
bool plan_held(const CatalogMetadata *catalog, uint64_t number,
               uint64_t released);

/*
 * Note what came of a push to all of a catalog: of version @number, which
 * @went_back, or did not. @follow: it is the current one. False if nothing
 * changes.
 */
bool plan_note_back(CatalogMetadata *catalog, uint64_t number,
                    uint64_t released, bool went_back, bool follow);

/*
 * Can a desktop of @catalog that says @d be pushed to? False with @error,
 * which does not name the desktop.
 */
bool plan_fits(const CatalogMetadata *catalog, const DesktopMetadata *d,
               GError **error);

#endif /* CLI_HOST_PLAN_H */

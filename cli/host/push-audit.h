/*
 * The journal's lines for a push
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_PUSH_AUDIT_H
#define CLI_HOST_PUSH_AUDIT_H

#include "push-run.h"

#include "cli/desktop/metadata.h"

/*
 * Before it: @action ("push") on @catalog. One line for each version that
 * desktops are to take: in a rollback each has its own.
 */
void push_audit(const Push *push, const char *action,
                const CatalogMetadata *catalog);

/* After it: one for each version that desktops went back to by themselves */
void push_audit_back(const Push *push, const char *action,
                     const CatalogMetadata *catalog);

#endif /* CLI_HOST_PUSH_AUDIT_H */

/*
 * The journal's lines for a push
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "push-audit.h"

#include "cli/audit.h"

#include <inttypes.h>

static uint64_t version_of(const Push *push, guint i, bool back)
{
    const PushDesktop *d = g_ptr_array_index(push->desktops, i);

    return back ? d->before->wanted.number : d->after->wanted.number;
}

static bool has_state(const Push *push, guint i, RolloutState state)
{
    return rollout_desktop(push->rollout, i)->state == state;
}

static bool tried_to_go_back(const Push *push, guint i)
{
    return has_state(push, i, ROLLOUT_RESTORED) ||
           has_state(push, i, ROLLOUT_NOT_RESTORED);
}

/* Is desktop @i the first of its version, of those that a line is for? */
static bool is_first(const Push *push, guint i, bool back)
{
    for (guint k = 0; k < i; k++) {
        if (version_of(push, k, back) == version_of(push, i, back) &&
            (!back || tried_to_go_back(push, k))) {
            return false;
        }
    }
    return !back || tried_to_go_back(push, i);
}

static guint count(const Push *push, uint64_t version)
{
    guint n = 0;

    for (guint i = 0; i < push->desktops->len; i++) {
        n += version_of(push, i, false) == version;
    }
    return n;
}

void push_audit(const Push *push, const char *action,
                const CatalogMetadata *catalog)
{
    for (guint i = 0; i < push->desktops->len; i++) {
        uint64_t version = version_of(push, i, false);

        if (is_first(push, i, false)) {
            audit(action, catalog->vdisk, version,
                  "catalog %s, %u desktops to version %" PRIu64 ", %s",
                  catalog->catalog, count(push, version), version,
                  push->now ? "now" : "at their next reset");
        }
    }
}

static guint count_back(const Push *push, uint64_t version, RolloutState state)
{
    guint n = 0;

    for (guint i = 0; i < push->desktops->len; i++) {
        n += version_of(push, i, true) == version && has_state(push, i, state);
    }
    return n;
}

void push_audit_back(const Push *push, const char *action,
                     const CatalogMetadata *catalog)
{
    for (guint i = 0; i < push->desktops->len; i++) {
        uint64_t version = version_of(push, i, true);

        if (is_first(push, i, true)) {
            audit(action, catalog->vdisk, version,
                  "catalog %s, %u desktops went back by themselves to version %"
                  PRIu64 ", %u could not", catalog->catalog,
                  count_back(push, version, ROLLOUT_RESTORED), version,
                  count_back(push, version, ROLLOUT_NOT_RESTORED));
        }
    }
}

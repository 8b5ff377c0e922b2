/*
 * Saved states: what goes with the state of the machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "migration/misc.h"
#include "migration/vmstate.h"
#include "block/vdisk/layer.h"
#include "block/vdisk/tier.h"
#include "system/runstate.h"

/* More disks than a machine can have by far */
#define MAX_TOKENS      64

/* The tokens of all pooled disks, in no order: each is found by itself */
typedef struct VdiskTokens {
    uint32_t count;
    uint8_t tokens[MAX_TOKENS * VDISK_TOKEN_BYTES];
} VdiskTokens;

static VdiskTokens sent, received;
static bool migrating;

/* The next pooled disk that is written */
static VdiskLayer *next_saved(VdiskLayer *l)
{
    do {
        l = vdisk_node_next(l);
    } while (l && (!l->pooled || bdrv_is_read_only(l->bs)));
    return l;
}

static bool tokens_needed(void *opaque)
{
    return next_saved(NULL) != NULL;
}

static int tokens_pre_save(void *opaque)
{
    VdiskTokens *t = opaque;

    t->count = 0;
    for (VdiskLayer *l = next_saved(NULL); l; l = next_saved(l)) {
        /* Snapshots with the guest running, COLO: nothing holds the disk */
        if (!(l->bs->open_flags & BDRV_O_INACTIVE)) {
            error_report("The pooled disk '%s' can be saved with the machine "
                         "only by a migration, which ends its use here",
                         bdrv_get_node_name(l->bs));
            return -EINVAL;
        }
        if (t->count == MAX_TOKENS) {
            error_report("More than %d pooled disks cannot be saved",
                         MAX_TOKENS);
            return -EINVAL;
        }
        memcpy(t->tokens + t->count * VDISK_TOKEN_BYTES, l->header.token,
               VDISK_TOKEN_BYTES);
        t->count++;
    }
    return 0;
}

static int tokens_post_load(void *opaque, int version_id)
{
    VdiskTokens *t = opaque;

    if (t->count > MAX_TOKENS) {
        error_report("The saved state has the tokens of %" PRIu32 " pooled "
                     "disks; %d are possible", t->count, MAX_TOKENS);
        t->count = 0;
        return -EINVAL;
    }
    received = *t;
    return 0;
}

static const VMStateDescription vmstate_tokens = {
    .name = "vdisk",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = tokens_needed,
    .pre_save = tokens_pre_save,
    .post_load = tokens_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(count, VdiskTokens),
        VMSTATE_BUFFER(tokens, VdiskTokens),
        VMSTATE_END_OF_LIST()
    },
};

bool vdisk_saved_received(const uint8_t *token)
{
    for (uint32_t i = 0; i < received.count; i++) {
        if (memcmp(received.tokens + i * VDISK_TOKEN_BYTES, token,
                   VDISK_TOKEN_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

bool vdisk_is_migrating(void)
{
    return migrating;
}

void vdisk_report_inactivate(Error *err)
{
    if (runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        /* Nobody else says why, and query-migrate is where one looks */
        migration_file_set_error(-EBUSY, error_copy(err));
    }
    error_report_err(err);
}

/*
 * All of the tier has to be in the file when the guest is stopped: begin now,
 * so that the guest is not stopped for long.
 */
static int migration_event(NotifierWithReturn *notifier, MigrationEvent *e,
                           Error **errp)
{
    migrating = e->type == MIG_EVENT_PRECOPY_SETUP;
    for (VdiskLayer *l = next_saved(NULL); l; l = next_saved(l)) {
        vdisk_tier_write_through(l, migrating);
    }
    return 0;
}

void vdisk_saved_register(void)
{
    static NotifierWithReturn notifier;

    GLOBAL_STATE_CODE();
    vmstate_register_any(NULL, &vmstate_tokens, &sent);
    migration_add_notifier(&notifier, migration_event);
}

/*
 * Reset of pooled layers with the system
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/resettable.h"
#include "qom/object.h"
#include "system/reset.h"
#include "block/vdisk/layer.h"

#define TYPE_VDISK_RESET "vdisk-reset"
OBJECT_DECLARE_SIMPLE_TYPE(VdiskReset, VDISK_RESET)

struct VdiskReset {
    Object parent;
    ResettableState reset_state;
};

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(VdiskReset, vdisk_reset, VDISK_RESET,
                                          OBJECT,
                                          { TYPE_RESETTABLE_INTERFACE }, { })

static ResettableState *vdisk_reset_get_state(Object *obj)
{
    return &VDISK_RESET(obj)->reset_state;
}

/*
 * In the exit phase all devices have stopped their queues. In the hold phase
 * an IOThread may still submit what the guest queued before the reset, and it
 * would land in the clean layer. Other types than cold leave the guest's
 * memory as it was, and so its disks: waking up, loading a snapshot.
 */
static void vdisk_reset_exit(Object *obj, ResetType type)
{
    if (type == RESET_TYPE_COLD) {
        vdisk_pooled_reset_all();
    }
}

static void vdisk_reset_init(Object *obj)
{
}

static void vdisk_reset_finalize(Object *obj)
{
}

static void vdisk_reset_class_init(ObjectClass *klass, void *data)
{
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    rc->get_state = vdisk_reset_get_state;
    rc->phases.exit = vdisk_reset_exit;
}

/* Never unregistered: reset handlers must not come and go during a reset */
void vdisk_reset_register(void)
{
    static Object *registered;

    if (!registered) {
        registered = object_new(TYPE_VDISK_RESET);
        qemu_register_resettable(registered);
        vdisk_saved_register();
    }
}

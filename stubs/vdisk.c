/*
 * Tools and storage daemons have no system that could be reset, no migration,
 * and no guest that could be stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/pvs/resume.h"
#include "block/vdisk/layer.h"

void vdisk_reset_register(void)
{
}

bool vdisk_saved_received(const uint8_t *token)
{
    return false;
}

bool vdisk_is_migrating(void)
{
    return false;
}

bool pvs_has_guest(void)
{
    return false;
}

void pvs_resume_soon(void)
{
}

void pvs_resume_register(void)
{
}

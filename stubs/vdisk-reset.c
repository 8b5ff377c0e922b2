/*
 * Tools have no system that could be reset, and no migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
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

void vdisk_report_inactivate(Error *err)
{
    error_report_err(err);
}

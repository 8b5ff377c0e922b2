/*
 * Tools have no system that could be reset
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/vdisk/layer.h"

void vdisk_reset_register(void)
{
}

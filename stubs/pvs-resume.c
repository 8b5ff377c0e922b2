/*
 * Tools and storage daemons have no guest that could be stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/pvs/resume.h"

bool pvs_has_guest(void)
{
    return false;
}

bool pvs_guest_is_stopped(void)
{
    return false;
}

void pvs_resume_soon(void)
{
}

void pvs_resume_register(void)
{
}

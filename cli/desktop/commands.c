/*
 * Commands on desktops
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/commands.h"

const Command desktop_commands[] = {
    {}
};

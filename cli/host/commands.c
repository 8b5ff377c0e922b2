/*
 * Commands on catalogs and hosts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/commands.h"

const Command host_commands[] = {
    {}
};

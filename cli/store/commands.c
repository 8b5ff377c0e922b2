/*
 * Commands on the store's versions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/commands.h"

const Command store_commands[] = {
    {}
};

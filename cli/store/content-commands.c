/*
 * Commands on what is in the store's versions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/commands.h"

const Command content_commands[] = {
    {}
};

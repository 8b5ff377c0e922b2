/*
 * Commands that serve versions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/commands.h"

const Command serve_commands[] = {
    {}
};

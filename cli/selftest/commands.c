/*
 * The self-test as a command
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "stories.h"

#include "cli/commands.h"

const Command selftest_commands[] = {
    { NULL, "selftest", "see that deskcast and its QEMU work on this machine",
      command_selftest },
    {}
};

/*
 * Commands on the files of a desktop that is switched off
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "disk-commands.h"
#include "commands.h"

const Command disk_commands[] = {
    { "desktop", "assign",
      "push an image to powered-off pooled desktops",
      command_desktop_assign },
    { "journal", "show",
      "tell what a reconnect buffer holds",
      command_journal_show },
    { "journal", "rescue",
      "get out what a reconnect buffer holds",
      command_journal_rescue },
    {}
};

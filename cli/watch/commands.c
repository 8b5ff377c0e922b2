/*
 * Commands that watch desktops
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "watch-commands.h"

#include "cli/commands.h"

const Command watch_commands[] = {
    { NULL, "exporter", "tell Prometheus of this host's desktops",
      command_exporter },
    { NULL, "top", "see what this host's desktops do", command_top },
    { NULL, "report", "draw what was recorded of them", command_report },
    {}
};

/*
 * Commands that serve versions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "serve.h"

#include "cli/commands.h"

const Command serve_commands[] = {
    { "store", "serve", "serve the versions of a store", command_store_serve },
    { NULL, "relay", "serve a host's desktops from far stores", command_relay },
    {}
};

/*
 * Commands on catalogs and hosts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-commands.h"

#include "cli/commands.h"

const Command host_commands[] = {
    { NULL, "status", "what desktops are to run on, and do run on",
      command_status },
    { NULL, "push", "have a catalog's desktops take a version",
      command_push },
    { NULL, "rollback", "have them take the version before the last push",
      command_rollback },
    { NULL, "follow", "push what has become current by its release date",
      command_follow },
    { NULL, "stage", "bring a catalog's versions to the hosts' own stores",
      command_stage },
    { "catalog", "create", "make a catalog of a master VM",
      command_catalog_create },
    { "catalog", "list", "all catalogs", command_catalog_list },
    { "catalog", "show", "a catalog and its desktops", command_catalog_show },
    { "host", "list", "hosts, their caps and what is in use",
      command_host_list },
    { "host", "drain", "keep new desktops off a host", command_host_drain },
    { "host", "undrain", "let a host have new desktops again",
      command_host_undrain },
    { "update", "start", "start a catalog's master VM on a new version",
      command_update_start },
    { "update", "finish", "seal what the master VM wrote",
      command_update_finish },
    { "update", "abort", "throw away what the master VM wrote",
      command_update_abort },
    {}
};

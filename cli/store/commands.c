/*
 * Commands on the store's versions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/command-util.h"

const Command store_commands[] = {
    { "store", "create", "make a store of vDisks", command_store_create },
    { "store", "status", "what is in a store, who reads it, what is wrong",
      command_store_status },
    { "vdisk", "list", "list the vDisks of a store", command_vdisk_list },
    { "vdisk", "show", "show a vDisk's versions", command_vdisk_show },
    { "vdisk", "rm", "delete a vDisk with all its versions", command_vdisk_rm },
    { "version", "new", "make a version to write to", command_version_new },
    { "version", "seal", "make it immutable, with its hashes",
      command_version_seal },
    { "version", "promote", "from test to production", command_version_promote },
    { "version", "revert", "the newest one out of production, back to test",
      command_version_revert },
    { "version", "retire", "serve a version no more", command_version_retire },
    { "version", "rm", "delete a version in maintenance, or a retired one",
      command_version_rm },
    { "version", "merge", "give a version an image without parents",
      command_version_merge },
    { "version", "trace", "give a version a boot trace, for new hosts",
      command_version_trace },
    {}
};

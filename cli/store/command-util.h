/*
 * What commands on a store have in common: options, arguments, errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_COMMAND_UTIL_H
#define CLI_STORE_COMMAND_UTIL_H

#include "cli/commands.h"
#include "cli/store/store.h"

typedef struct StoreOptions {
    char *store;                /* folder */
    gboolean json;
} StoreOptions;

/* For GOptionEntry tables */
#define STORE_OPTION(o) \
    { "store", 's', 0, G_OPTION_ARG_FILENAME, &(o).store, \
      "The store's folder (default: $DESKCAST_STORE, else /srv/deskcast)", \
      "DIR" }
#define JSON_OPTION(o) \
    { "json", 0, 0, G_OPTION_ARG_NONE, &(o).json, "Answer in JSON", NULL }

/* The store it says; NULL with @error */
Store *store_from(const StoreOptions *o, StoreUse use, GError **error);

/* "NAME" and "N", or "NAME@N"; *@number is 0 if there is none */
bool version_arguments(int argc, char **argv, char **vdisk, uint64_t *number,
                       GError **error);

/* Print @error, with --json as {"error": …} on standard output too */
int command_error(const StoreOptions *o, const GError *error);

void store_options_clear(StoreOptions *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(StoreOptions, store_options_clear)

int command_store_create(int argc, char **argv);
int command_store_status(int argc, char **argv);
int command_vdisk_list(int argc, char **argv);
int command_vdisk_show(int argc, char **argv);
int command_vdisk_rm(int argc, char **argv);
int command_version_new(int argc, char **argv);
int command_version_seal(int argc, char **argv);
int command_version_promote(int argc, char **argv);
int command_version_revert(int argc, char **argv);
int command_version_retire(int argc, char **argv);
int command_version_rm(int argc, char **argv);
int command_version_merge(int argc, char **argv);
int command_version_trace(int argc, char **argv);

#endif /* CLI_STORE_COMMAND_UTIL_H */

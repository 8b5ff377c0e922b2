/*
 * Commands on catalogs and hosts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_HOST_COMMANDS_H
#define CLI_HOST_HOST_COMMANDS_H

int command_status(int argc, char **argv);
int command_push(int argc, char **argv);
int command_rollback(int argc, char **argv);
int command_follow(int argc, char **argv);
int command_stage(int argc, char **argv);
int command_catalog_create(int argc, char **argv);
int command_catalog_list(int argc, char **argv);
int command_catalog_show(int argc, char **argv);
int command_host_list(int argc, char **argv);
int command_host_drain(int argc, char **argv);
int command_host_undrain(int argc, char **argv);
int command_update_start(int argc, char **argv);
int command_update_finish(int argc, char **argv);
int command_update_abort(int argc, char **argv);

#endif /* CLI_HOST_HOST_COMMANDS_H */

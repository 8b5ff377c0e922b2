/*
 * What the commands on contents share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_CONTENT_COMMANDS_H
#define CLI_STORE_CONTENT_COMMANDS_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>

/* Print the error, or what is wrong with the command line; the exit status */
int content_usage(const char *text);

void content_print_json(JsonBuilder *b);

int command_store_replicate(int argc, char **argv);

#endif /* CLI_STORE_CONTENT_COMMANDS_H */

/*
 * Commands that watch desktops
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_WATCH_COMMANDS_H
#define CLI_WATCH_WATCH_COMMANDS_H

int command_exporter(int argc, char **argv);
int command_top(int argc, char **argv);
int command_report(int argc, char **argv);

#endif /* CLI_WATCH_WATCH_COMMANDS_H */

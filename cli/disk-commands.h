/*
 * Commands on the files of a desktop that is switched off
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DISK_COMMANDS_H
#define CLI_DISK_COMMANDS_H

int command_desktop_assign(int argc, char **argv);
int command_journal_show(int argc, char **argv);
int command_journal_rescue(int argc, char **argv);

#endif /* CLI_DISK_COMMANDS_H */

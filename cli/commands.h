/*
 * The commands of deskcast(1)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include <glib.h>
#include <stdbool.h>

/* Exit status of a command */
enum {
    COMMAND_DONE = 0,
    COMMAND_FAILED = 1,     /* for one of its objects at least */
    COMMAND_USAGE = 2,
};

/*
 * Parse what follows the command's name; argv[0] stays the name. @summary is
 * the rest of the usage line. False, with a message printed, if it is wrong.
 */
bool command_parse(const char *summary, const GOptionEntry *entries, int *argc,
                   char ***argv);

int command_desktop_assign(int argc, char **argv);
int command_journal_show(int argc, char **argv);
int command_journal_rescue(int argc, char **argv);

#endif /* CLI_COMMANDS_H */

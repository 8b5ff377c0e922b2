/*
 * The commands of deskcast(1)
 *
 * Each room has a table of its own, which main.c lists.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

/* Exit status of a command */
enum {
    COMMAND_DONE = 0,
    COMMAND_FAILED = 1,     /* for one of its objects at least */
    COMMAND_USAGE = 2,
};

/* `deskcast GROUP NAME`, or `deskcast NAME` if @group is NULL */
typedef struct Command {
    const char *group;
    const char *name;       /* NULL ends a table */
    const char *help;       /* one line */
    int (*run)(int argc, char **argv);      /* argv[0] is the name */
} Command;

extern const Command disk_commands[];       /* files of a desktop */
extern const Command store_commands[];      /* store/: versions */
extern const Command content_commands[];    /* store/: what is in them */
extern const Command serve_commands[];      /* serve/ */
extern const Command desktop_commands[];    /* desktop/ */
extern const Command host_commands[];       /* host/ */
extern const Command selftest_commands[];   /* selftest/ */
extern const Command watch_commands[];      /* watch/ */

/*
 * Parse what follows the command's name; argv[0] stays the name. @summary is
 * the rest of the usage line. False, with a message printed, if it is wrong.
 */
bool command_parse(const char *summary, const GOptionEntry *entries, int *argc,
                   char ***argv);

/* Print the JSON object that is the answer; takes it */
void command_answer(JsonObject *answer);

/*
 * Say @error, and with @json also as the object that is the answer. Returns
 * COMMAND_FAILED.
 */
int command_fail(bool json, const GError *error);

#endif /* CLI_COMMANDS_H */

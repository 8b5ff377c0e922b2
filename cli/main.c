/*
 * deskcast(1): what an administrator types
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "commands.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

typedef struct Command {
    const char *group;
    const char *name;
    const char *help;
    int (*run)(int argc, char **argv);
} Command;

static const Command commands[] = {
    { "desktop", "assign",
      "push an image to powered-off pooled desktops",
      command_desktop_assign },
    { "journal", "show",
      "tell what a reconnect buffer holds",
      command_journal_show },
    { "journal", "rescue",
      "get out what a reconnect buffer holds",
      command_journal_rescue },
};

bool command_parse(const char *summary, const GOptionEntry *entries, int *argc,
                   char ***argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new(summary);
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, &error)) {
        fprintf(stderr, "deskcast: %s\n", error->message);
        return false;
    }
    return true;
}

static int usage(FILE *to)
{
    fprintf(to, "usage: deskcast GROUP COMMAND [OPTION…]\n\n");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        fprintf(to, "  %s %-10s %s\n", commands[i].group, commands[i].name,
                commands[i].help);
    }
    fprintf(to, "\n'deskcast GROUP COMMAND --help' tells the options.\n");
    return to == stdout ? COMMAND_DONE : COMMAND_USAGE;
}

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
        return usage(stdout);
    }
    for (size_t i = 0; argc > 2 && i < G_N_ELEMENTS(commands); i++) {
        const Command *c = &commands[i];

        if (!strcmp(argv[1], c->group) && !strcmp(argv[2], c->name)) {
            g_autofree char *name = g_strdup_printf("deskcast %s %s", c->group,
                                                    c->name);

            g_set_prgname(name);
            return c->run(argc - 2, argv + 2);
        }
    }
    return usage(stderr);
}

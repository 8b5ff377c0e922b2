/*
 * deskcast(1): what an administrator types
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "commands.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

static const Command *const tables[] = {
    store_commands,
    content_commands,
    serve_commands,
    host_commands,
    desktop_commands,
    disk_commands,
    selftest_commands,
    watch_commands,
};

typedef void CommandFunc(const Command *c, void *opaque);

static void for_each_command(CommandFunc *func, void *opaque)
{
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const Command *c = tables[i]; c->name; c++) {
            func(c, opaque);
        }
    }
}

/* As it is typed after "deskcast" */
static char *words_of(const Command *c)
{
    return c->group ? g_strdup_printf("%s %s", c->group, c->name)
                    : g_strdup(c->name);
}

/* "--", which GLib leaves where something like an option follows it */
static void drop_separator(int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        if (!strcmp(argv[i], "--")) {
            memmove(&argv[i], &argv[i + 1], (*argc - i) * sizeof(*argv));
            --*argc;
            return;
        }
    }
}

bool command_parse(const char *summary, const GOptionEntry *entries, int *argc,
                   char ***argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new(summary);
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, &error)) {
        fprintf(stderr, "deskcast: %s\n'%s --help' tells the options.\n",
                error->message, g_get_prgname());
        return false;
    }
    drop_separator(argc, *argv);
    return true;
}

typedef struct Listing {
    FILE *to;
    const char *group;          /* only this one; NULL: all */
} Listing;

static void list_one(const Command *c, void *opaque)
{
    Listing *l = opaque;
    g_autofree char *words = words_of(c);

    if (!l->group || g_strcmp0(l->group, c->group) == 0) {
        fprintf(l->to, "  %-18s %s\n", words, c->help);
    }
}

static void usage(FILE *to)
{
    Listing l = { .to = to };

    fprintf(to, "usage: deskcast GROUP COMMAND [OPTION…]\n"
            "       deskcast COMMAND [OPTION…]\n\n");
    for_each_command(list_one, &l);
    fprintf(to, "\n'--help' after a command tells its options.\n");
}

/* What the first words are, among all commands */
typedef struct Lookup {
    const char *first, *second; /* @second may be NULL */
    const Command *found;
    bool is_group;              /* @first is one */
    const Command *near;        /* has one of the words as its own */
} Lookup;

/* Typed without its group, or with a letter or two missing at its end */
static bool resembles(const char *word, const char *name)
{
    return word && *word && (!strcmp(word, name) ||
                             (strlen(word) > 2 && g_str_has_prefix(name, word)));
}

static void look_at(const Command *c, void *opaque)
{
    Lookup *l = opaque;

    if (!c->group) {
        if (!strcmp(l->first, c->name)) {
            l->found = c;
        }
    } else if (!strcmp(l->first, c->group)) {
        l->is_group = true;
        if (l->second && !strcmp(l->second, c->name)) {
            l->found = c;
        }
    }
    if (!l->near && (resembles(l->first, c->name) ||
                     (c->group && resembles(l->second, c->name)))) {
        l->near = c;
    }
}

static int unknown(const Lookup *l)
{
    if (l->is_group) {
        Listing listing = { .to = stderr, .group = l->first };

        if (l->second) {
            fprintf(stderr, "deskcast: '%s' has no command '%s'; it has:\n",
                    l->first, l->second);
        } else {
            fprintf(stderr, "deskcast: '%s' wants a command:\n", l->first);
        }
        for_each_command(list_one, &listing);
        return COMMAND_USAGE;
    }
    fprintf(stderr, "deskcast: there is no command '%s'; ", l->first);
    if (l->near) {
        g_autofree char *words = words_of(l->near);

        fprintf(stderr, "was it 'deskcast %s'? ", words);
    }
    fprintf(stderr, "'deskcast --help' lists them all.\n");
    return COMMAND_USAGE;
}

static int run(const Command *c, int argc, char **argv)
{
    g_autofree char *words = words_of(c);
    g_autofree char *name = g_strdup_printf("deskcast %s", words);
    int skip = c->group ? 2 : 1;

    g_set_prgname(name);
    return c->run(argc - skip, argv + skip);
}

/* `deskcast GROUP --help` */
static int group_help(const char *group)
{
    Listing l = { .to = stdout, .group = group };

    printf("usage: deskcast %s COMMAND [OPTION…]\n\n", group);
    for_each_command(list_one, &l);
    return COMMAND_DONE;
}

static bool asks_help(const char *word)
{
    return !g_strcmp0(word, "--help") || !g_strcmp0(word, "-h") ||
           !g_strcmp0(word, "help");
}

int main(int argc, char **argv)
{
    Lookup l = {
        .first = argc > 1 ? argv[1] : NULL,
        .second = argc > 2 ? argv[2] : NULL,
    };

    setlocale(LC_ALL, "");      /* NOLINT(concurrency-mt-unsafe): it is alone */
    if (!l.first) {
        usage(stderr);
        return COMMAND_USAGE;
    }
    if (asks_help(l.first)) {
        usage(stdout);
        return COMMAND_DONE;
    }
    for_each_command(look_at, &l);
    if (l.found) {
        return run(l.found, argc, argv);
    }
    return l.is_group && asks_help(l.second) ? group_help(l.first)
                                             : unknown(&l);
}

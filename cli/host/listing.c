/*
 * Commands that look at hosts and list what is there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "listing.h"

#include "cli/commands.h"

#include <stdio.h>

void listing_clear(Listing *l)
{
    g_clear_pointer(&l->survey, survey_free);
    host_options_clear(&l->hosts);
}

bool listing_open(Listing *l, int argc, char **argv, int *status)
{
    const GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, &l->json, "Answer in JSON", NULL },
        HOST_OPTION_ENTRIES(&l->hosts),
        { NULL }
    };
    g_autoptr(GError) error = NULL;

    *status = COMMAND_USAGE;
    if (!command_parse(l->summary, entries, &argc, &argv)) {
        return false;
    }
    if (argc - 1 < l->min || argc - 1 > l->max) {
        fprintf(stderr, "deskcast: %s\n", l->wrong);
        return false;
    }
    l->catalog = argc > 1 ? argv[1] : NULL;
    l->survey = survey_hosts(&l->hosts, l->depth, l->catalog, &error);
    if (!l->survey) {
        *status = command_fail(l->json, error);
    }
    return l->survey;
}

int listing_end(const Listing *l)
{
    survey_print_silent(l->survey);
    return survey_silent(l->survey) ? COMMAND_FAILED : COMMAND_DONE;
}

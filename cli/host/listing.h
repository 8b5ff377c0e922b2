/*
 * Commands that look at hosts and list what is there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_LISTING_H
#define CLI_HOST_LISTING_H

#include "survey.h"

typedef struct Listing {
    /* What the command is like */
    const char *summary;        /* of its arguments, as command_parse() has it */
    int min, max;               /* how many there are, 0 or 1: a catalog */
    const char *wrong;          /* what is said if there are others */
    SurveyDepth depth;
    /* As it was typed, and what was found */
    HostOptions hosts;
    gboolean json;
    const char *catalog;        /* of argv; NULL: all */
    Survey *survey;
} Listing;

void listing_clear(Listing *l);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Listing, listing_clear)

/*
 * Parse the command line, and ask the hosts. False if the command is over,
 * with its exit status in *@status and what is wrong told.
 */
bool listing_open(Listing *l, int argc, char **argv, int *status);

/* Tell which hosts are silent, after all else; returns the exit status */
int listing_end(const Listing *l);

#endif /* CLI_HOST_LISTING_H */

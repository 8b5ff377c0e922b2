/*
 * What the self-test does: two stories, in steps
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SELFTEST_STORIES_H
#define CLI_SELFTEST_STORIES_H

#include "lab.h"

/* Steps build on those before them */
typedef struct Step {
    const char *text;           /* what is so if it is done; NULL ends a story */
    bool (*run)(Lab *lab, GError **error);
} Step;

extern const Step mcs_story[];
extern const Step pvs_story[];

int command_selftest(int argc, char **argv);

#endif /* CLI_SELFTEST_STORIES_H */

/*
 * What became of a push, for people and for programs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_PUSH_REPORT_H
#define CLI_HOST_PUSH_REPORT_H

#include "push-run.h"

#include <json-glib/json-glib.h>

#define PUSH_WENT_BACK  3       /* exit status */

/* Prints it, or adds it to @list if that is not NULL. Returns the exit status. */
int push_report(const Push *push, const char *what, const char *catalog,
                bool json, JsonArray *list);

#endif /* CLI_HOST_PUSH_REPORT_H */

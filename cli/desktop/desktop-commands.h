/*
 * Commands on desktops, and what they say of each
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_DESKTOP_COMMANDS_H
#define CLI_DESKTOP_DESKTOP_COMMANDS_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

int command_desktop_create(int argc, char **argv);
int command_desktop_list(int argc, char **argv);
int command_desktop_rm(int argc, char **argv);

/* A line for each desktop, or one JSON answer at the end */
typedef struct DesktopReport {
    const char *done;           /* what was done, if it was: "made" */
    bool json;
    JsonArray *answers;
} DesktopReport;

/* @error: what went wrong, or NULL */
void desktop_report(DesktopReport *r, const char *name, const char *host,
                    const GError *error);
void desktop_report_end(DesktopReport *r);

/* Print @array as {"desktops": […]}, and free it */
void desktop_print_json(JsonArray *array);

#endif /* CLI_DESKTOP_DESKTOP_COMMANDS_H */

/*
 * Commands on desktops
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "desktop-commands.h"
#include "cli/commands.h"

#include <stdio.h>

const Command desktop_commands[] = {
    { "desktop", "create",
      "make desktops of a catalog",
      command_desktop_create },
    { "desktop", "list",
      "list desktops and where they are",
      command_desktop_list },
    { "desktop", "rm",
      "remove desktops that are switched off, with their disks",
      command_desktop_rm },
    {}
};

void desktop_print_json(JsonArray *array)
{
    JsonObject *object = json_object_new();

    json_object_set_array_member(object, "desktops", array);
    command_answer(object);
}

void desktop_report(DesktopReport *r, const char *name, const char *host,
                    const GError *error)
{
    JsonObject *o;

    if (error && !r->json) {
        fprintf(stderr, "deskcast: %s on %s: %s\n", name, host,
                error->message);
    } else if (!r->json) {
        printf("%s: %s on %s\n", name, r->done, host);
    }
    if (!r->json) {
        return;
    }
    o = json_object_new();
    json_object_set_string_member(o, "name", name);
    json_object_set_string_member(o, "host", host);
    json_object_set_boolean_member(o, "done", !error);
    if (error) {
        json_object_set_string_member(o, "reason", error->message);
    }
    if (!r->answers) {
        r->answers = json_array_new();
    }
    json_array_add_object_element(r->answers, o);
}

void desktop_report_end(DesktopReport *r)
{
    if (r->json) {
        desktop_print_json(r->answers ?: json_array_new());
        r->answers = NULL;
    }
}

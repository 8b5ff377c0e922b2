/*
 * How a command answers in JSON, and says that it failed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "commands.h"
#include "json-strict.h"

#include <stdio.h>

/* Names in it may be anybody's: valid, and nothing that moves a cursor */
static char *presentable(const char *message)
{
    char *text = g_utf8_make_valid(message, -1);
    GString *s = g_string_new(NULL);

    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        g_string_append_unichar(s, g_unichar_iscntrl(c) && c != '\n' ? '?' : c);
    }
    g_free(text);
    return g_string_free(s, false);
}

void command_answer(JsonObject *answer)
{
    g_autofree char *text = json_strict_text(answer);

    fputs(text, stdout);
    json_object_unref(answer);
}

int command_fail(bool json, const GError *error)
{
    g_autofree char *message = presentable(error->message);

    fprintf(stderr, "deskcast: %s\n", message);
    if (json) {
        JsonObject *o = json_object_new();

        json_object_set_string_member(o, "error", message);
        command_answer(o);
    }
    return COMMAND_FAILED;
}

/*
 * Have qemu-img copy an image into another one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "convert.h"
#include "cli/program.h"
#include "cli/store/content.h"

#include <stdlib.h>
#include <string.h>

/* "    (12.34/100%)" with a carriage return, again and again */
static void take_progress(void *opaque, const char *text)
{
    const char *last = strrchr(text, '(');

    if (last) {
        progress_set(opaque, g_ascii_strtod(last + 1, NULL), 100);
    }
}

static bool run(const char *const *argv, Progress *progress, GError **error)
{
    g_autofree char *complaint = NULL;
    int status = program_run(argv, take_progress, progress, &complaint, error);

    if (status > 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "cannot be converted: %s", complaint);
    }
    return status == 0;
}

static char *json_name(JsonObject *definition)
{
    g_autofree char *text = content_node_text(definition);

    return g_strconcat("json:", text, NULL);
}

bool convert_into(JsonObject *source, JsonObject *target, Progress *progress,
                  GError **error)
{
    g_autofree char *program = program_qemu_img();
    g_autofree char *from = json_name(source), *to = json_name(target);
    const char *argv[] = {
        program, "convert", "-p", "-n", "--target-is-zero", "-O",
        json_object_get_string_member(target, "driver"), from, to, NULL,
    };

    return run(argv, progress, error);
}

bool convert_to_file(JsonObject *source, const char *path, const char *format,
                     const char *options, Progress *progress, GError **error)
{
    g_autofree char *program = program_qemu_img();
    g_autofree char *from = json_name(source);
    g_autofree char *to = g_strconcat("file:", path, NULL);
    const char *argv[] = {
        program, "convert", "-p", "-O", format, from, to,
        options ? "-o" : NULL, options, NULL,
    };

    return run(argv, progress, error);
}

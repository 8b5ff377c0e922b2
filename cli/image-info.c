/*
 * What qemu-img says of an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "image-info.h"

#include <json-glib/json-glib.h>

static bool parse_size(const char *text, uint64_t *size, GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    JsonNode *root;
    JsonObject *object;

    if (!json_parser_load_from_data(parser, text, -1, error)) {
        return false;
    }
    root = json_parser_get_root(parser);
    object = root && JSON_NODE_HOLDS_OBJECT(root) ? json_node_get_object(root)
                                                  : NULL;
    if (!object || !json_object_has_member(object, "virtual-size")) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "qemu-img did not tell its size");
        return false;
    }
    *size = json_object_get_int_member(object, "virtual-size");
    return true;
}

bool image_virtual_size(const char *path, const char *format, uint64_t *size,
                        GError **error)
{
    const char *program = g_getenv("DESKCAST_QEMU_IMG");
    g_autoptr(GSubprocess) process = NULL;
    g_autofree char *name = g_strconcat("file:", path, NULL);
    g_autofree char *out = NULL;
    g_autofree char *err = NULL;

    process = g_subprocess_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE |
                               G_SUBPROCESS_FLAGS_STDERR_PIPE, error,
                               program ? program : "qemu-img", "info", "-U",
                               "--output=json", "-f", format, name, NULL);
    if (!process ||
        !g_subprocess_communicate_utf8(process, NULL, NULL, &out, &err,
                                       error)) {
        return false;
    }
    if (!g_subprocess_get_successful(process)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s",
                    g_strchomp(err));
        return false;
    }
    return parse_size(out, size, error);
}

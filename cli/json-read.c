/*
 * JSON that somebody else wrote
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "json-read.h"
#include "json-scan.h"

static void invalid(GError **error, const char *why)
{
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, why);
}

JsonNode *json_read(const char *text, gsize length, GError **error)
{
    const JsonScanLimits limits = {
        .depth = JSON_READ_MAX_DEPTH, .digits = JSON_READ_MAX_DIGITS,
    };
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    JsonNode *root;

    if (!json_scan(text, length, &limits, error) ||
        !json_parser_load_from_data(parser, text, length, error)) {
        return NULL;
    }
    root = json_parser_steal_root(parser);
    if (!root) {
        invalid(error, "there is nothing in it");
    }
    return root;
}

JsonObject *json_read_object(const char *text, gsize length, GError **error)
{
    g_autoptr(JsonNode) root = json_read(text, length, error);

    if (!root) {
        return NULL;
    }
    if (!JSON_NODE_HOLDS_OBJECT(root)) {
        invalid(error, "it is no JSON object");
        return NULL;
    }
    return json_object_ref(json_node_get_object(root));
}

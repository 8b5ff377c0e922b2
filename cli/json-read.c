/*
 * JSON that somebody else wrote
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "json-read.h"

#include <stdbool.h>
#include <string.h>

static bool invalid(GError **error, const char *why)
{
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, why);
    return false;
}

/* Behind the text that begins at @i, or @length */
static gsize string_end(const char *text, gsize length, gsize i)
{
    for (i++; i < length && text[i] != '"'; i++) {
        i += text[i] == '\\';
    }
    return MIN(i, length);
}

/*
 * Seen before the parser runs. Outside of texts are only characters that JSON
 * has there: in a comment a quote or a bracket would mean nothing to the parser.
 */
static bool harmless(const char *text, gsize length, GError **error)
{
    unsigned depth = 0;

    for (gsize i = 0; i < length; i++) {
        switch (text[i]) {
        case '"':
            i = string_end(text, length, i);
            break;
        case '{':
        case '[':
            if (++depth > JSON_READ_MAX_DEPTH) {
                return invalid(error, "it nests too deep");
            }
            break;
        case '}':
        case ']':
            /* Too many of them are the parser's to tell */
            depth -= !!depth;
            break;
        default:
            /* Letters are those of true, false and null */
            if (!text[i] || !strchr(" \t\r\n:,-+.0123456789Etrufalsne",
                                    text[i])) {
                return invalid(error, "this is not JSON");
            }
        }
    }
    return true;
}

JsonNode *json_read(const char *text, gsize length, GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    JsonNode *root;

    if (memchr(text, 0, length) || !g_utf8_validate(text, length, NULL)) {
        invalid(error, "it is not UTF-8 text");
        return NULL;
    }
    if (!harmless(text, length, error) ||
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

/*
 * JSON by the letter, from files and peers that are not trusted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/json-strict.h"
#include "cli/json-scan.h"

#include <inttypes.h>
#include <string.h>

static bool invalid(GError **error, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

static bool invalid(GError **error, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list ap;

    va_start(ap, format);
    message = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, message);
    return false;
}

/* Members, as the parser met them: one that stands twice is met twice */

static void count_met(JsonParser *parser, JsonObject *object, const char *name,
                      gpointer opaque)
{
    (*(guint64 *)opaque)++;
}

static guint64 count_kept(JsonNode *node)
{
    guint64 n = 0;

    if (JSON_NODE_HOLDS_OBJECT(node)) {
        JsonObject *o = json_node_get_object(node);
        JsonObjectIter it;
        JsonNode *member;

        n = json_object_get_size(o);
        json_object_iter_init(&it, o);
        while (json_object_iter_next(&it, NULL, &member)) {
            n += count_kept(member);
        }
    } else if (JSON_NODE_HOLDS_ARRAY(node)) {
        JsonArray *a = json_node_get_array(node);

        for (guint i = 0; i < json_array_get_length(a); i++) {
            n += count_kept(json_array_get_element(a, i));
        }
    }
    return n;
}

JsonObject *json_strict_parse(const char *text, gsize length, GError **error)
{
    const JsonScanLimits limits = {
        .depth = JSON_STRICT_MAX_DEPTH, .digits = JSON_STRICT_MAX_DIGITS,
    };
    g_autoptr(JsonParser) parser = json_parser_new();
    /* Both want a NUL behind the text */
    g_autofree char *copy = g_strndup(text, length);
    guint64 met = 0;
    JsonNode *root;

    if (!json_scan(copy, length, &limits, error)) {
        return NULL;
    }
    g_signal_connect(parser, "object-member", G_CALLBACK(count_met), &met);
    if (!json_parser_load_from_data(parser, copy, length, error)) {
        return NULL;
    }
    root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
        invalid(error, "it is no JSON object");
        return NULL;
    }
    if (met != count_kept(root)) {
        invalid(error, "a member stands twice in one of its objects");
        return NULL;
    }
    return json_object_ref(json_node_get_object(root));
}

char *json_strict_text(JsonObject *object)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *text = NULL;

    json_node_set_object(root, object);
    json_generator_set_root(generator, root);
    json_generator_set_pretty(generator, true);
    text = json_generator_to_data(generator, NULL);
    return g_strconcat(text, "\n", NULL);
}

bool json_strict_only(JsonObject *o, const char *const *names, GError **error)
{
    JsonObjectIter it;
    const char *name;

    json_object_iter_init(&it, o);
    while (json_object_iter_next(&it, &name, NULL)) {
        if (!g_strv_contains(names, name)) {
            return invalid(error, "it has a member '%.64s', which nobody "
                           "knows; was it edited by hand?", name);
        }
    }
    return true;
}

bool json_strict_has(JsonObject *o, const char *name)
{
    return json_object_has_member(o, name);
}

/* NULL with @error if it is not there or of another type */
static JsonNode *member(JsonObject *o, const char *name, GType type,
                        const char *what, GError **error)
{
    JsonNode *node = json_object_get_member(o, name);

    if (!node) {
        invalid(error, "'%s' is missing", name);
    } else if (!JSON_NODE_HOLDS_VALUE(node) ||
               json_node_get_value_type(node) != type) {
        invalid(error, "'%s' is not %s", name, what);
    } else {
        return node;
    }
    return NULL;
}

bool json_strict_number(JsonObject *o, const char *name, uint64_t max,
                        uint64_t *value, GError **error)
{
    JsonNode *node = member(o, name, G_TYPE_INT64, "a whole number", error);
    gint64 n;

    if (!node) {
        return false;
    }
    n = json_node_get_int(node);
    if (n < 0 || (uint64_t)n > max) {
        return invalid(error, "'%s' is %" PRId64 ", and must be from 0 to %"
                       PRIu64, name, n, max);
    }
    *value = n;
    return true;
}

bool json_strict_bool(JsonObject *o, const char *name, bool *value,
                      GError **error)
{
    JsonNode *node = member(o, name, G_TYPE_BOOLEAN, "true or false", error);

    if (node) {
        *value = json_node_get_boolean(node);
    }
    return node;
}

bool json_strict_string(JsonObject *o, const char *name, gsize max,
                        const char **value, GError **error)
{
    JsonNode *node = member(o, name, G_TYPE_STRING, "a text", error);
    const char *text;

    if (!node) {
        return false;
    }
    text = json_node_get_string(node);
    if (strlen(text) > max) {
        return invalid(error, "'%s' is longer than %" G_GSIZE_FORMAT " bytes",
                       name, max);
    }
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            return invalid(error, "'%s' has a control character in it", name);
        }
    }
    *value = text;
    return true;
}

bool json_strict_array(JsonObject *o, const char *name, guint max,
                       JsonArray **value, GError **error)
{
    JsonNode *node = json_object_get_member(o, name);

    if (!node || !JSON_NODE_HOLDS_ARRAY(node)) {
        return invalid(error, node ? "'%s' is not an array" : "'%s' is missing",
                       name);
    }
    *value = json_node_get_array(node);
    if (json_array_get_length(*value) > max) {
        return invalid(error, "'%s' has more than %u elements", name, max);
    }
    return true;
}

bool json_strict_object(JsonObject *o, const char *name, JsonObject **value,
                        GError **error)
{
    JsonNode *node = json_object_get_member(o, name);

    if (!node || !JSON_NODE_HOLDS_OBJECT(node)) {
        return invalid(error, node ? "'%s' is not an object"
                       : "'%s' is missing", name);
    }
    *value = json_node_get_object(node);
    return true;
}

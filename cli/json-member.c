/*
 * Members of JSON objects that somebody else wrote
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "json-member.h"

static JsonNode *member(JsonObject *object, const char *name)
{
    return object ? json_object_get_member(object, name) : NULL;
}

static JsonNode *value_of_type(JsonObject *object, const char *name, GType type)
{
    JsonNode *node = member(object, name);

    return node && json_node_get_value_type(node) == type ? node : NULL;
}

JsonObject *member_object(JsonObject *object, const char *name)
{
    JsonNode *node = member(object, name);

    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node)
                                                : NULL;
}

JsonArray *member_array(JsonObject *object, const char *name)
{
    JsonNode *node = member(object, name);

    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node)
                                               : NULL;
}

const char *member_string(JsonObject *object, const char *name)
{
    JsonNode *node = value_of_type(object, name, G_TYPE_STRING);

    return node ? json_node_get_string(node) : NULL;
}

bool member_int(JsonObject *object, const char *name, int64_t *value)
{
    JsonNode *node = value_of_type(object, name, G_TYPE_INT64);

    if (node) {
        *value = json_node_get_int(node);
    }
    return node != NULL;
}

bool member_bool(JsonObject *object, const char *name, bool *value)
{
    JsonNode *node = value_of_type(object, name, G_TYPE_BOOLEAN);

    if (node) {
        *value = json_node_get_boolean(node);
    }
    return node != NULL;
}

JsonObject *element_object(JsonArray *array, unsigned index)
{
    JsonNode *node;

    if (!array || index >= json_array_get_length(array)) {
        return NULL;
    }
    node = json_array_get_element(array, index);
    return JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

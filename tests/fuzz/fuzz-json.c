/*
 * Fuzz the two readers of JSON: both bound how deep it nests, and what the strict
 * one takes is the same when it is written and read again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/json-read.h"
#include "cli/json-strict.h"
#include "fuzz.h"

/* How deep it nests, all of it UTF-8; *@fractions if there is one, of which nobody reads any */
static unsigned depth_of(JsonNode *node, bool *fractions)
{
    unsigned most = 0;

    if (JSON_NODE_HOLDS_VALUE(node)) {
        const char *text = json_node_get_string(node);

        assert(!text || g_utf8_validate(text, -1, NULL));
        *fractions |= json_node_get_value_type(node) == G_TYPE_DOUBLE;
    } else if (JSON_NODE_HOLDS_ARRAY(node)) {
        JsonArray *a = json_node_get_array(node);

        for (guint i = 0; i < json_array_get_length(a); i++) {
            most = MAX(most, depth_of(json_array_get_element(a, i), fractions));
        }
        most++;
    } else if (JSON_NODE_HOLDS_OBJECT(node)) {
        JsonObjectIter it;
        const char *name;
        JsonNode *member;

        json_object_iter_init(&it, json_node_get_object(node));
        while (json_object_iter_next(&it, &name, &member)) {
            assert(g_utf8_validate(name, -1, NULL));
            most = MAX(most, depth_of(member, fractions));
        }
        most++;
    }
    return most;
}

static void use_members(JsonObject *o)
{
    JsonObjectIter it;
    const char *name, *text;
    JsonObject *inner;
    JsonArray *array;
    uint64_t n;
    bool flag;

    json_object_iter_init(&it, o);
    while (json_object_iter_next(&it, &name, NULL)) {
        assert(json_strict_has(o, name));
        if (json_strict_number(o, name, 1000, &n, NULL)) {
            assert(n <= 1000);
        }
        if (json_strict_string(o, name, 100, &text, NULL)) {
            assert(strlen(text) <= 100 && !strpbrk(text, "\n\r\t\x7f"));
        }
        if (json_strict_array(o, name, 3, &array, NULL)) {
            assert(json_array_get_length(array) <= 3);
        }
        json_strict_bool(o, name, &flag, NULL);
        json_strict_object(o, name, &inner, NULL);
    }
}

static void strict(const char *text, size_t size)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) o = json_strict_parse(text, size, &error);
    g_autoptr(JsonObject) again = NULL;
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *written = NULL, *same = NULL;
    bool fractions = false;

    if (!o) {
        assert(error && *error->message);
        return;
    }
    json_node_set_object(node, o);
    assert(!error && depth_of(node, &fractions) <= JSON_STRICT_MAX_DEPTH);
    use_members(o);
    written = json_strict_text(o);
    assert(g_utf8_validate(written, -1, NULL));
    if (!fractions) {
        again = json_strict_parse(written, strlen(written), NULL);
        assert(again);
        same = json_strict_text(again);
        assert(!strcmp(written, same));
    }
}

/* Brackets by the thousand, behind whatever the input is */
static void deep(const char *text, size_t size)
{
    size_t n = 20 * JSON_READ_MAX_DEPTH;
    g_autofree char *all = g_malloc(size + n);
    g_autoptr(JsonNode) node = NULL;

    memcpy(all, text, size);
    memset(all + size, '[', n);
    node = json_read(all, size + n, NULL);
    assert(!node);
    memset(all + size + n / 2, ']', n / 2);
    node = json_read(all, size + n, NULL);
    assert(!node);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) node = json_read(text, size, &error);
    bool fractions = false;

    assert(!node == (error != NULL));
    if (node) {
        assert(depth_of(node, &fractions) <= JSON_READ_MAX_DEPTH);
    }
    strict(text, size);
    deep(text, size);
    return 0;
}

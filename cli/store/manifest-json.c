/*
 * Manifest of a vDisk as text: docs/interop/store.rst
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/manifest.h"
#include "cli/json-strict.h"
#include "cli/units.h"

/* Bound of texts whose own check comes afterwards */
#define TEXT_MAX    1024

static bool get_text(JsonObject *o, const char *name, char **to, GError **error)
{
    const char *text;

    if (!json_strict_string(o, name, TEXT_MAX, &text, error)) {
        return false;
    }
    *to = g_strdup(text);
    return true;
}

static bool get_time(JsonObject *o, const char *name, int64_t *to,
                     GError **error)
{
    g_autofree char *same = NULL;
    const char *text;

    if (!json_strict_string(o, name, TEXT_MAX, &text, error)) {
        return false;
    }
    /* One way to write it, so that it reads the same in every time zone */
    if (units_parse_time(text, to, NULL)) {
        same = units_format_time(*to);
    }
    if (g_strcmp0(same, text) != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "'%s' is not a time like 2026-11-27T09:00:00Z", name);
        return false;
    }
    return true;
}

/* Members that need not be there */

static bool may_time(JsonObject *o, const char *name, int64_t *to,
                     GError **error)
{
    if (!json_strict_has(o, name)) {
        return true;
    }
    if (!get_time(o, name, to, error)) {
        return false;
    }
    if (!*to) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "'%s' is the begin of 1970", name);
    }
    return *to != 0;
}

static bool may_text(JsonObject *o, const char *name, char **to, GError **error)
{
    return !json_strict_has(o, name) || get_text(o, name, to, error);
}

static bool may_root(JsonObject *o, uint8_t root[VERITY_HASH_BYTES],
                     GError **error)
{
    g_autofree char *text = NULL, *why = NULL;

    if (!may_text(o, "root", &text, error)) {
        return false;
    }
    if (text && !verity_root_decode(root, text, &why)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "'root': %s",
                    why);
        return false;
    }
    return true;
}

static bool get_access(JsonObject *o, VersionAccess *access, GError **error)
{
    const char *text;

    if (!json_strict_string(o, "access", TEXT_MAX, &text, error)) {
        return false;
    }
    if (!version_access_parse(access, text)) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                            "'access' is none of maintenance, test, "
                            "production, retired");
        return false;
    }
    return true;
}

static bool decode_version(JsonObject *o, Version *v, GError **error)
{
    static const char *const names[] = {
        "version", "access", "parent", "size", "label", "image", "format",
        "tree", "root", "trace", "created", "sealed", "released", "failed",
        "comment", NULL
    };
    const uint64_t max = JSON_STRICT_MAX_NUMBER;

    return json_strict_number(o, "version", max, &v->number, error) &&
           json_strict_only(o, names, error) &&
           get_access(o, &v->access, error) &&
           json_strict_number(o, "parent", max, &v->parent, error) &&
           json_strict_number(o, "size", max, &v->size, error) &&
           json_strict_bool(o, "label", &v->label, error) &&
           get_text(o, "image", &v->image, error) &&
           get_text(o, "format", &v->format, error) &&
           may_text(o, "tree", &v->tree, error) &&
           may_root(o, v->root, error) &&
           may_text(o, "trace", &v->trace, error) &&
           get_time(o, "created", &v->created, error) &&
           may_time(o, "sealed", &v->sealed, error) &&
           may_time(o, "released", &v->released, error) &&
           may_time(o, "failed", &v->failed, error) &&
           may_text(o, "comment", &v->comment, error);
}

static bool decode_versions(JsonObject *o, Manifest *m, GError **error)
{
    JsonArray *list;

    if (!json_strict_array(o, "versions", MANIFEST_MAX_VERSIONS, &list,
                           error)) {
        return false;
    }
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonNode *node = json_array_get_element(list, i);
        Version *v = version_new(0);

        g_ptr_array_add(m->versions, v);
        if (!JSON_NODE_HOLDS_OBJECT(node)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                        "element %u of 'versions' is not an object", i + 1);
            return false;
        }
        if (!decode_version(json_node_get_object(node), v, error)) {
            g_prefix_error(error, "element %u of 'versions': ", i + 1);
            return false;
        }
    }
    return true;
}

static bool decode_unused(JsonObject *o, Manifest *m, GError **error)
{
    JsonArray *list;

    if (!json_strict_array(o, "unused", MANIFEST_MAX_UNUSED, &list, error)) {
        return false;
    }
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonNode *node = json_array_get_element(list, i);

        if (!JSON_NODE_HOLDS_VALUE(node) ||
            json_node_get_value_type(node) != G_TYPE_STRING) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                        "element %u of 'unused' is not a text", i + 1);
            return false;
        }
        g_ptr_array_add(m->unused, g_strdup(json_node_get_string(node)));
    }
    return true;
}

static bool decode_format(JsonObject *o, GError **error)
{
    uint64_t format;

    if (!json_strict_number(o, "deskcast-manifest", JSON_STRICT_MAX_NUMBER,
                            &format, error)) {
        return false;
    }
    if (format > MANIFEST_FORMAT) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "it is of format %" PRIu64 ", and this deskcast knows "
                    "format %d: a newer one is needed", format,
                    MANIFEST_FORMAT);
    } else if (!format) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                            "'deskcast-manifest' is 0");
    }
    return format == MANIFEST_FORMAT;
}

static bool decode(JsonObject *o, Manifest *m, GError **error)
{
    static const char *const names[] = {
        "deskcast-manifest", "vdisk", "uuid", "salt", "revision", "next",
        "unused", "versions", NULL
    };
    const uint64_t max = JSON_STRICT_MAX_NUMBER;

    return decode_format(o, error) && json_strict_only(o, names, error) &&
           get_text(o, "vdisk", &m->vdisk, error) &&
           get_text(o, "uuid", &m->uuid, error) &&
           get_text(o, "salt", &m->salt, error) &&
           json_strict_number(o, "revision", max, &m->revision, error) &&
           json_strict_number(o, "next", max, &m->next, error) &&
           decode_unused(o, m, error) && decode_versions(o, m, error) &&
           manifest_valid(m, error);
}

Manifest *manifest_decode(const char *text, gsize length, GError **error)
{
    g_autoptr(JsonObject) o = NULL;
    g_autoptr(Manifest) m = g_new0(Manifest, 1);

    m->unused = g_ptr_array_new_with_free_func(g_free);
    m->versions = g_ptr_array_new_with_free_func((GDestroyNotify)version_free);
    if (length > MANIFEST_MAX_BYTES) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "it is longer than %d bytes", MANIFEST_MAX_BYTES);
        return NULL;
    }
    o = json_strict_parse(text, length, error);
    return o && decode(o, m, error) ? g_steal_pointer(&m) : NULL;
}

/* As text */

static void set_time(JsonObject *o, const char *name, int64_t t)
{
    g_autofree char *text = units_format_time(t);

    if (t) {
        json_object_set_string_member(o, name, text);
    }
}

static JsonObject *encode_version(const Version *v)
{
    JsonObject *o = json_object_new();
    g_autofree char *created = units_format_time(v->created);

    json_object_set_int_member(o, "version", v->number);
    json_object_set_string_member(o, "access", version_access_text(v->access));
    json_object_set_int_member(o, "parent", v->parent);
    json_object_set_int_member(o, "size", v->size);
    json_object_set_boolean_member(o, "label", v->label);
    json_object_set_string_member(o, "image", v->image);
    json_object_set_string_member(o, "format", v->format);
    if (v->tree) {
        g_autofree char *root = version_root_text(v);

        json_object_set_string_member(o, "tree", v->tree);
        json_object_set_string_member(o, "root", root);
    }
    if (v->trace) {
        json_object_set_string_member(o, "trace", v->trace);
    }
    json_object_set_string_member(o, "created", created);
    set_time(o, "sealed", v->sealed);
    set_time(o, "released", v->released);
    set_time(o, "failed", v->failed);
    if (v->comment) {
        json_object_set_string_member(o, "comment", v->comment);
    }
    return o;
}

char *version_root_text(const Version *v)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < VERITY_HASH_BYTES; i++) {
        g_string_append_printf(s, "%02x", v->root[i]);
    }
    return g_string_free(s, false);
}

char *manifest_encode(const Manifest *m)
{
    g_autoptr(JsonObject) o = json_object_new();
    JsonArray *unused = json_array_new(), *versions = json_array_new();

    json_object_set_int_member(o, "deskcast-manifest", MANIFEST_FORMAT);
    json_object_set_string_member(o, "vdisk", m->vdisk);
    json_object_set_string_member(o, "uuid", m->uuid);
    json_object_set_string_member(o, "salt", m->salt);
    json_object_set_int_member(o, "revision", m->revision);
    json_object_set_int_member(o, "next", m->next);
    for (guint i = 0; i < m->unused->len; i++) {
        json_array_add_string_element(unused, g_ptr_array_index(m->unused, i));
    }
    json_object_set_array_member(o, "unused", unused);
    for (guint i = 0; i < m->versions->len; i++) {
        json_array_add_object_element(versions, encode_version(
            g_ptr_array_index(m->versions, i)));
    }
    json_object_set_array_member(o, "versions", versions);
    return json_strict_text(o);
}

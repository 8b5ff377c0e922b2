/*
 * Members of JSON objects that somebody else wrote
 *
 * json-glib's own getters abort or warn if a member is not there or of another
 * type; these say so by their value.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_JSON_MEMBER_H
#define CLI_JSON_MEMBER_H

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

/* NULL if it is not there, of another type, or @object is NULL. The value
 * belongs to @object. */
JsonObject *member_object(JsonObject *object, const char *name);
JsonArray *member_array(JsonObject *object, const char *name);
const char *member_string(JsonObject *object, const char *name);

/* False, with @value untouched, if it is not there or of another type */
bool member_int(JsonObject *object, const char *name, int64_t *value);
bool member_bool(JsonObject *object, const char *name, bool *value);

/* The object at @index of an array; NULL if it is none */
JsonObject *element_object(JsonArray *array, unsigned index);

#endif /* CLI_JSON_MEMBER_H */

/*
 * JSON by the letter, from files and peers that are not trusted
 *
 * It is scanned (json-scan.h) before it is parsed: json-glib alone takes more
 * than JSON, and members that stand twice, and wraps large numbers.
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_JSON_STRICT_H
#define CLI_JSON_STRICT_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

#define JSON_STRICT_MAX_DEPTH   8
#define JSON_STRICT_MAX_NUMBER  UINT64_C(999999999999999999)
#define JSON_STRICT_MAX_DIGITS  18      /* of that */

/*
 * An object, to be unreferenced. NULL with @error if @text is not one, is not
 * UTF-8, nests deeper than above, or has a member twice in an object.
 */
JsonObject *json_strict_parse(const char *text, gsize length, GError **error);

/* As text with a line feed at its end, for people to read as well */
char *json_strict_text(JsonObject *object);

/* False with @error if @o has a member that is not in @names, NULL at its end */
bool json_strict_only(JsonObject *o, const char *const *names, GError **error);

/*
 * Members by type. False with @error, which names the member, if it is not
 * there or something else; for json_strict_has() it is no error.
 */
bool json_strict_has(JsonObject *o, const char *name);
bool json_strict_number(JsonObject *o, const char *name, uint64_t max,
                        uint64_t *value, GError **error);
bool json_strict_bool(JsonObject *o, const char *name, bool *value,
                      GError **error);
/* @value is @o's; without control characters, @max bytes at most */
bool json_strict_string(JsonObject *o, const char *name, gsize max,
                        const char **value, GError **error);
bool json_strict_array(JsonObject *o, const char *name, guint max,
                       JsonArray **value, GError **error);
bool json_strict_object(JsonObject *o, const char *name, JsonObject **value,
                        GError **error);

#endif /* CLI_JSON_STRICT_H */

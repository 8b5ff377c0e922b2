/*
 * JSON that somebody else wrote
 *
 * json-glib takes more than JSON, such as comments, and calls itself for each
 * object and array in another: what a peer sends could use up the stack.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_JSON_READ_H
#define CLI_JSON_READ_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>

#define JSON_READ_MAX_DEPTH     256     /* of objects and arrays */

/*
 * What is in @text, to be unreferenced, and not to be changed. NULL with @error
 * if it is not JSON, not UTF-8, has a NUL in it, or nests deeper than that.
 */
JsonNode *json_read(const char *text, gsize length, GError **error);

/* The same where only an object will do */
JsonObject *json_read_object(const char *text, gsize length, GError **error);

#endif /* CLI_JSON_READ_H */

/*
 * JSON that somebody else wrote
 *
 * It is scanned (json-scan.h) before it is parsed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_JSON_READ_H
#define CLI_JSON_READ_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>

#define JSON_READ_MAX_DEPTH     256     /* of objects and arrays */
#define JSON_READ_MAX_DIGITS    20      /* of a number, those of UINT64_MAX */

/*
 * What is in @text, to be unreferenced, and not to be changed. NULL with @error
 * if it is not JSON or not UTF-8, has a NUL in it, or is beyond these bounds.
 */
JsonNode *json_read(const char *text, gsize length, GError **error);

/* The same where only an object will do */
JsonObject *json_read_object(const char *text, gsize length, GError **error);

#endif /* CLI_JSON_READ_H */

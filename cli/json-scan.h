/*
 * What json-glib's parser would take too easily, seen before it runs
 *
 * It takes comments, escapes that JSON has not, half a pair of surrogates and
 * octal numbers, and makes of some of them texts that are not UTF-8; and it
 * calls itself for each object and array in another, so that what a peer sends
 * could use up the stack.
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_JSON_SCAN_H
#define CLI_JSON_SCAN_H

#include <gio/gio.h>
#include <stdbool.h>

typedef struct JsonScanLimits {
    unsigned depth;         /* of objects and arrays in each other */
    size_t digits;          /* of a number in one piece */
} JsonScanLimits;

/*
 * False with @error if @text, of @length bytes, is not UTF-8, has a NUL, even an
 * escaped one, a text that does not end or with a character or an escape that
 * JSON has not in it, anything that JSON does not have outside of texts, or is
 * beyond @limits. What is left is the parser's to tell.
 */
bool json_scan(const char *text, gsize length, const JsonScanLimits *limits,
               GError **error);

#endif /* CLI_JSON_SCAN_H */

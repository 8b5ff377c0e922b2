/*
 * What rbd(8) answers in JSON
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/rbd-answer.h"
#include "cli/json-strict.h"

#include <string.h>

bool rbd_answer_size(const char *text, uint64_t *bytes, GError **error)
{
    g_autoptr(JsonObject) info = json_strict_parse(text, strlen(text), error);

    return info && json_strict_number(info, "size", JSON_STRICT_MAX_NUMBER,
                                      bytes, error);
}

bool rbd_answer_watchers(const char *text, unsigned *count, GError **error)
{
    g_autoptr(JsonObject) status = json_strict_parse(text, strlen(text),
                                                     error);
    JsonArray *watchers;

    if (!status || !json_strict_array(status, "watchers", RBD_WATCHERS_MAX,
                                      &watchers, error)) {
        return false;
    }
    *count = json_array_get_length(watchers);
    return true;
}

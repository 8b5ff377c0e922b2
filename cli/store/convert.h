/*
 * Have qemu-img copy an image into another one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_CONVERT_H
#define CLI_STORE_CONVERT_H

#include "cli/progress.h"

#include <gio/gio.h>
#include <json-glib/json-glib.h>

/*
 * The content of @source into @target, which is there, is all zeros, and is at
 * least as big. Both are blockdev definitions. @progress is set in percent.
 */
bool convert_into(JsonObject *source, JsonObject *target, Progress *progress,
                  GError **error);

/*
 * Into a new file @path of @format; @options: as of qemu-img create -o, or
 * NULL.
 */
bool convert_to_file(JsonObject *source, const char *path, const char *format,
                     const char *options, Progress *progress, GError **error);

#endif /* CLI_STORE_CONVERT_H */

/*
 * What an import reads: a file, a block device or an https URL
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_SOURCE_H
#define CLI_STORE_SOURCE_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

typedef struct Source {
    char *name;                 /* absolute path, or URL */
    const char *format;         /* QEMU's name of it */
    bool derived;               /* the format, from the name */
    bool url;
    bool device;
} Source;

/*
 * @format: NULL to derive it from @name's suffix (a block device is raw).
 * Nothing is opened. NULL with @error.
 */
Source *source_new(const char *name, const char *format, GError **error);
void source_free(Source *s);

/* Blockdev definition; to be freed by json_object_unref() */
JsonObject *source_node(const Source *s);

/*
 * Look at its header, and have qemu-img check its tables. False with @error if
 * it is not of its format, depends on other files, or was cut off.
 */
bool source_check(const Source *s, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Source, source_free)

#endif /* CLI_STORE_SOURCE_H */

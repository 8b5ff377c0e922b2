/*
 * Small files in a folder, read bounded and replaced whole
 *
 * All by the descriptor of the folder: a file system that is unmounted under
 * it does not let what was below the mount point take its place.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_DURABLE_H
#define CLI_STORE_DURABLE_H

#include <gio/gio.h>
#include <stdbool.h>
#include <sys/types.h>

/* @error from errno: "cannot WHAT NAME: reason"; false */
bool durable_errno(GError **error, const char *what, const char *name);

/* Open folder @name in @at. -1 with @error. */
int durable_open_folder(int at, const char *name, GError **error);

/* All of a regular file of at most @max bytes; NULL with @error */
char *durable_read(int folder, const char *name, gsize max, gsize *length,
                   GError **error);

/*
 * Make @text the content of @name: old or new at any crash. ".new-NAME" may
 * be left behind by one.
 */
bool durable_replace(int folder, const char *name, const char *text,
                     GError **error);

/* Write all of it at @offset. False with errno set. */
bool durable_pwrite(int fd, const void *data, size_t bytes, off_t offset);

/* Make what was created, renamed or removed in it durable */
bool durable_sync_folder(int folder, const char *name, GError **error);

/* Remove file @name; that there is none is fine */
bool durable_remove(int folder, const char *name, GError **error);

typedef bool DurableEntry(void *opaque, const char *name, GError **error);

/* Call @entry for each name in the folder but "." and ".." until it is false */
bool durable_list(int folder, DurableEntry *entry, void *opaque,
                  GError **error);

#endif /* CLI_STORE_DURABLE_H */

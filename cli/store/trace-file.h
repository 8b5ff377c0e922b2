/*
 * Boot traces of a version, from files and from servers
 *
 * docs/interop/boot-trace.rst has the format. All that is returned is one of
 * the version of @size bytes with that root hash; no more is known of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_TRACE_FILE_H
#define CLI_STORE_TRACE_FILE_H

#include "cli/store/content.h"

/* A file; to be freed by g_bytes_unref(). NULL with @error. */
GBytes *trace_file_read(const char *path, uint64_t size,
                        const uint8_t root[VERITY_HASH_BYTES], GError **error);

/* An export, which has zeros behind it, to whole sectors */
GBytes *trace_file_fetch(Content *c, uint64_t size,
                         const uint8_t root[VERITY_HASH_BYTES],
                         GError **error);

/*
 * What the file of version @number is called in a store; another content is
 * another name. To be freed.
 */
char *trace_file_name(uint64_t number, GBytes *trace);

#endif /* CLI_STORE_TRACE_FILE_H */

/*
 * The content of an image into a raw file, and how far it is on the medium
 *
 *   source --> threads of content_read() --> pwrite(), past the page cache
 *                                                 |
 *       copy_wait() <-- bytes that are durable <-- fdatasync(), now and then
 *
 * So that who reads the file back need not wait until all of it is there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_COPY_H
#define CLI_STORE_COPY_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Copy Copy;

/*
 * Begin: @source, a blockdev definition for content_open(), of which @bytes are
 * copied into @path. That is there, all zeros, and has @bytes rounded up to
 * 4096. Blocks of zeros are not written. What goes wrong is told by the next
 * two.
 */
Copy *copy_start(JsonObject *source, const char *path, uint64_t bytes);

/*
 * Wait until all before @end is on the medium, as far as the copy goes. From
 * any thread. False with @error if it will not come to that.
 */
bool copy_wait(Copy *copy, uint64_t end, GError **error);

/*
 * Let it come to its end, or, with @stop, to one soon; and free it. False with
 * @error if it failed by itself.
 */
bool copy_end(Copy *copy, bool stop, GError **error);

#endif /* CLI_STORE_COPY_H */

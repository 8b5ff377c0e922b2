/*
 * Boot traces of a version, from files and from servers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "trace-file.h"
#include "durable.h"
#include "block/pvs/boot-trace.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR  512

G_STATIC_ASSERT(BOOT_TRACE_ROOT_BYTES == VERITY_HASH_BYTES);

/* @bytes without the zeros that fill up the last sector */
static size_t without_filling(const uint8_t *buf, size_t bytes)
{
    size_t length = boot_trace_length(buf, bytes);

    if (!length || length >= bytes || bytes - length >= SECTOR) {
        return bytes;
    }
    for (size_t i = length; i < bytes; i++) {
        if (buf[i]) {
            return bytes;
        }
    }
    return length;
}

/* Takes @buf; @name is for errors */
static GBytes *checked(uint8_t *buf, size_t bytes, const char *name,
                       uint64_t size, const uint8_t *root, GError **error)
{
    BootTraceId id = { .image_bytes = size };
    g_autofree char *why = NULL;
    BootTrace *t;

    memcpy(id.root, root, sizeof(id.root));
    t = boot_trace_decode(buf, bytes, &id, &why);
    if (!t) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s is no boot "
                    "trace of this version: %s", name, why);
        g_free(buf);
        return NULL;
    }
    boot_trace_free(t);
    return g_bytes_new_take(buf, bytes);
}

GBytes *trace_file_read(const char *path, uint64_t size,
                        const uint8_t root[VERITY_HASH_BYTES], GError **error)
{
    /* Whoever names a file may do so by a link */
    g_autofree char *real = realpath(path, NULL);
    gsize bytes;
    char *buf = durable_read(AT_FDCWD, real ? real : path,
                             BOOT_TRACE_BYTES_MAX, &bytes, error);

    return buf ? checked((uint8_t *)buf, bytes, path, size, root, error) : NULL;
}

GBytes *trace_file_fetch(Content *c, uint64_t size,
                         const uint8_t root[VERITY_HASH_BYTES],
                         GError **error)
{
    uint64_t bytes = content_size(c);
    uint8_t *buf;

    if (bytes >= BOOT_TRACE_BYTES_MAX + SECTOR) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "what is served is too large for a boot trace");
        return NULL;
    }
    buf = g_malloc(bytes);
    if (!content_pread(c, 0, bytes, buf, error)) {
        g_free(buf);
        return NULL;
    }
    return checked(buf, without_filling(buf, bytes), "what is served", size,
                   root, error);
}

char *trace_file_name(uint64_t number, GBytes *trace)
{
    return g_strdup_printf("%" PRIu64 ".%016" PRIx64 ".trace", number,
                           boot_trace_sum(g_bytes_get_data(trace, NULL)));
}

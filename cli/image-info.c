/*
 * What qemu-img says of an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "image-info.h"

#include "json-member.h"
#include "json-read.h"

#include <string.h>

bool image_info_size(const char *text, gsize length, uint64_t *size,
                     GError **error)
{
    g_autoptr(JsonObject) info = json_read_object(text, length, error);
    int64_t bytes;

    if (!info) {
        return false;
    }
    if (!member_int(info, "virtual-size", &bytes) || bytes < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "qemu-img did not tell its size");
        return false;
    }
    *size = bytes;
    return true;
}

bool image_virtual_size(const char *path, const char *format, uint64_t *size,
                        GError **error)
{
    const char *program = g_getenv("DESKCAST_QEMU_IMG");
    g_autoptr(GSubprocess) process = NULL;
    g_autofree char *name = g_strconcat("file:", path, NULL);
    g_autofree char *out = NULL;
    g_autofree char *err = NULL;

    process = g_subprocess_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE |
                               G_SUBPROCESS_FLAGS_STDERR_PIPE, error,
                               program ? program : "qemu-img", "info", "-U",
                               "--output=json", "-f", format, name, NULL);
    if (!process ||
        !g_subprocess_communicate_utf8(process, NULL, NULL, &out, &err,
                                       error)) {
        return false;
    }
    if (!g_subprocess_get_successful(process)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s",
                    g_strchomp(err));
        return false;
    }
    return image_info_size(out, strlen(out), size, error);
}

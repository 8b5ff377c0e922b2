/*
 * What qemu-img says of an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_IMAGE_INFO_H
#define CLI_IMAGE_INFO_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Open the image @path as @format with qemu-img (or the program that
 * DESKCAST_QEMU_IMG names) and tell its virtual size in bytes.
 */
bool image_virtual_size(const char *path, const char *format, uint64_t *size,
                        GError **error);

/* The same from what it printed. False with @error if that does not tell it. */
bool image_info_size(const char *text, gsize length, uint64_t *size,
                     GError **error);

#endif /* CLI_IMAGE_INFO_H */

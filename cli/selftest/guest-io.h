/*
 * Requests to a disk by NBD, none of which waits for ever
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SELFTEST_GUEST_IO_H
#define CLI_SELFTEST_GUEST_IO_H

#include <gio/gio.h>
#include <libnbd.h>
#include <stdbool.h>

/* Connected to export @name on the Unix socket @path; NULL with @error */
struct nbd_handle *io_connect(const char *path, const char *name,
                              GError **error);

bool io_read(struct nbd_handle *nbd, uint64_t offset, size_t bytes, void *buf,
             GError **error);
bool io_write(struct nbd_handle *nbd, uint64_t offset, size_t bytes,
              const void *buf, GError **error);
bool io_flush(struct nbd_handle *nbd, GError **error);

/* Says good-bye first; takes NULL */
void io_close(struct nbd_handle *nbd);

#endif /* CLI_SELFTEST_GUEST_IO_H */

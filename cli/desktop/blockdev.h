/*
 * A desktop's disk as QEMU's -blockdev takes it
 *
 * The same for a QEMU and for a storage daemon. Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_BLOCKDEV_H
#define CLI_DESKTOP_BLOCKDEV_H

#include "metadata.h"

#define DESKTOP_TLS_DIR         "/etc/deskcast/tls"     /* of a client */

/* JSON without line feeds; NULL with @error if @d does not say enough */
char *desktop_blockdev(const DesktopMetadata *d, GError **error);

/* The -object that it refers to, as JSON; NULL if it needs none */
char *desktop_tls_object(const DesktopMetadata *d);

#endif /* CLI_DESKTOP_BLOCKDEV_H */

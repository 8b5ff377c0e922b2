/*
 * Small files on a host that is far away, by libvirt's storage volumes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_HOST_FILE_H
#define CLI_DESKTOP_HOST_FILE_H

#include <gio/gio.h>
#include <libvirt/libvirt.h>
#include <stdbool.h>

/*
 * Copy the file @here to @path on the host, whose folder is made if need be.
 * One that is there is an error. False with @error; then it is not there.
 */
bool host_file_upload(virConnectPtr conn, const char *here, const char *path,
                      GError **error);

/* One that is not there is no error */
bool host_file_remove(virConnectPtr conn, const char *path, GError **error);

#endif /* CLI_DESKTOP_HOST_FILE_H */

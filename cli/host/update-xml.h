/*
 * The domain that a master VM runs as while it is updated
 *
 * It is started with this XML; its definition stays as it is, so that nothing
 * has to be put back. Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_UPDATE_XML_H
#define CLI_HOST_UPDATE_XML_H

#include "cli/desktop/metadata.h"

/*
 * mcs: the system disk is the image of the new version, a file, over all that
 * it is an overlay on. @paths and @formats: of the version and its parents in
 * that order; @paths ends with NULL. @disk: target of the system disk, "vda";
 * NULL: its only one. To be freed by g_free(); NULL with @error.
 */
char *update_xml_mcs(const char *master, const char *disk, char **paths,
                     char **formats, GError **error);

/*
 * pvs: the system disk is the private vDisk @d. The domain says so in its
 * metadata, which is what the hook makes journal and copy from.
 */
char *update_xml_pvs(const char *master, const char *disk,
                     const DesktopMetadata *d, const char *emulator,
                     GError **error);

#endif /* CLI_HOST_UPDATE_XML_H */

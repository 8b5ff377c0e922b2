/*
 * A layer file that no process runs: its header, read and changed in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_LAYER_FILE_H
#define CLI_LAYER_FILE_H

#include "block/vdisk/header.h"

typedef struct LayerFile {
    int fd;
    dev_t device;           /* of the file itself, with inode */
    ino_t inode;
    VdiskHeader header;
    int header_copy;        /* where on disk the header above is */
} LayerFile;

/*
 * Open @path for changing its header. Takes QEMU's image locks, so that it
 * fails while a VM or a tool has the file open. NULL with @error set; to be
 * closed with layer_file_close().
 */
LayerFile *layer_file_open(const char *path, GError **error);
void layer_file_close(LayerFile *file);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(LayerFile, layer_file_close)

/*
 * Make @new the header, durably. After an error, or if the power fails on the
 * way, the file has the old one or the new one.
 */
bool layer_file_set_header(LayerFile *file, const VdiskHeader *new,
                           GError **error);

#endif /* CLI_LAYER_FILE_H */

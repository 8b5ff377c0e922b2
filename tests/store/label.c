/*
 * Print the label of a private vDisk: label open|closed NAME VERSION SIZE
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/label.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    Label l = { .id = { .writer = 3 } };
    uint8_t buf[LABEL_BYTES];

    if (argc != 5) {
        return EXIT_FAILURE;
    }
    memset(l.id.content, 1, sizeof(l.id.content));
    memset(l.id.nonce, 2, sizeof(l.id.nonce));
    l.closed = !strcmp(argv[1], "closed");
    g_strlcpy(l.vdisk, argv[2], sizeof(l.vdisk));
    l.version = strtoull(argv[3], NULL, 10);
    l.virtual_size = strtoull(argv[4], NULL, 10);
    label_encode(&l, buf);
    return fwrite(buf, sizeof(buf), 1, stdout) == 1 ? EXIT_SUCCESS
                                                    : EXIT_FAILURE;
}

/*
 * Print a boot trace: boot-trace SIZE ROOT FIRST... of one granule each
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/boot-trace.h"
#include "block/pvs/verity.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    g_autofree uint8_t *buf = NULL;
    g_autofree char *why = NULL;
    BootTraceId id;
    BootTrace *t;
    size_t bytes;

    if (argc < 4 || !verity_root_decode(id.root, argv[2], &why)) {
        return EXIT_FAILURE;
    }
    id.image_bytes = strtoull(argv[1], NULL, 10);
    t = boot_trace_new(&id);
    for (int i = 3; i < argc; i++) {
        boot_trace_add(t, strtoull(argv[i], NULL, 10), 1);
    }
    buf = boot_trace_encode(t, &bytes);
    boot_trace_free(t);
    return fwrite(buf, bytes, 1, stdout) == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}

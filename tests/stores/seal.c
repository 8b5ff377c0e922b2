/*
 * seal FILE OFFSET: give 4096 bytes there, a header of a reconnect buffer or a
 * label, the checksum that they have to have
 *
 * So that tests can make what no other program would: headers of a format to
 * come, and fields that are impossible.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/pvs/journal-format.h"

int main(int argc, char **argv)
{
    uint8_t buf[JOURNAL_HEADER_BYTES];
    uint64_t sum;
    long offset;
    FILE *f;

    f = argc == 3 ? fopen(argv[1], "r+b") : NULL;
    if (!f) {
        return 2;
    }
    offset = atol(argv[2]);
    if (fseek(f, offset, SEEK_SET) || fread(buf, sizeof(buf), 1, f) != 1) {
        return 1;
    }
    memset(buf + 8, 0, sizeof(sum));
    sum = GUINT64_TO_LE(journal_checksum(buf, sizeof(buf)));
    memcpy(buf + 8, &sum, sizeof(sum));
    if (fseek(f, offset, SEEK_SET) || fwrite(buf, sizeof(buf), 1, f) != 1) {
        return 1;
    }
    return fclose(f) ? 1 : 0;
}

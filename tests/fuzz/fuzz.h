/*
 * What the fuzzers share: taking numbers out of their input, and checksums
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include "block/vdisk/pure.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Input {
    const uint8_t *data;
    size_t size;
} Input;

/* The next @bytes, filled up with zeros; of none either may be NULL */
static inline void input_copy(Input *in, void *buf, size_t bytes)
{
    size_t n = MIN(bytes, in->size);

    if (bytes) {
        memset(buf, 0, bytes);
    }
    if (n) {
        memcpy(buf, in->data, n);
        in->data += n;
        in->size -= n;
    }
}

/*
 * The next bytes as a number, 0 once there are none. Not to be given to MIN()
 * or MAX(): GLib's evaluate it twice.
 */
static inline uint64_t input_take(Input *in, size_t bytes)
{
    uint64_t value = 0;

    input_copy(in, &value, bytes);
    return GUINT64_FROM_LE(value);
}

/*
 * Make the checksum at 8 fit, as somebody would who can write the file: over
 * the bytes from @from on, in which it counts as zero
 */
static inline void input_sign(uint8_t *buf, size_t from, size_t bytes)
{
    uint64_t sum;

    memset(buf + 8, 0, 8);
    sum = GUINT64_TO_LE(XXH3_64bits(buf + from, bytes - from));
    memcpy(buf + 8, &sum, sizeof(sum));
}

#endif /* TESTS_FUZZ_H */

/*
 * What the fuzzers share: taking numbers out of their input
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include "block/vdisk/pure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Input {
    const uint8_t *data;
    size_t size;
} Input;

/* The next bytes as a number, 0 once there are none */
static inline uint64_t input_take(Input *in, size_t bytes)
{
    uint64_t value = 0;

    bytes = MIN(bytes, in->size);
    memcpy(&value, in->data, bytes);
    in->data += bytes;
    in->size -= bytes;
    return GUINT64_FROM_LE(value);
}

#endif /* TESTS_FUZZ_H */

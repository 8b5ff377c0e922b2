/*
 * The tree of an image while it is compared with another one
 *
 * The other image is what is walked through, by what it says is zero; of each
 * run that it has, this image's is read, compared and hashed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "content-int.h"

#include <stdlib.h>
#include <string.h>

#define TOLD_PLACES     8

typedef struct Compare {
    Content *c;
    uint64_t size, other_size;
    ContentSink add;            /* takes what was read and compared */
    void *opaque;
    uint8_t *buf[CONTENT_THREADS];

    GMutex lock;                /* protects all below */
    GString *places;            /* that differ, for people */
    unsigned told;
} Compare;

static void tell_difference(Compare *cmp, uint64_t offset, uint64_t bytes)
{
    g_mutex_lock(&cmp->lock);
    if (cmp->told++ < TOLD_PLACES) {
        g_string_append_printf(cmp->places, "%s%" PRIu64 " to %" PRIu64,
                               cmp->told > 1 ? ", " : "", offset,
                               offset + bytes - 1);
    } else if (cmp->told == TOLD_PLACES + 1) {
        g_string_append(cmp->places, " and more");
    }
    g_mutex_unlock(&cmp->lock);
}

static bool all_zero(const uint8_t *p, size_t bytes)
{
    return bytes == 0 || (*p == 0 && memcmp(p, p + 1, bytes - 1) == 0);
}

/* One run of up to CONTENT_RUN; @expected: NULL for zeros */
static bool compare_run(Compare *cmp, unsigned thread, uint64_t offset,
                        uint64_t bytes, const uint8_t *expected,
                        GError **error)
{
    uint8_t *buf = cmp->buf[thread];

    if (!content_read_at(cmp->c, thread, offset, bytes, buf, error)) {
        return false;
    }
    for (uint64_t at = 0; at < bytes; at += VERITY_BLOCK) {
        size_t n = MIN(VERITY_BLOCK, bytes - at);

        if (expected ? memcmp(buf + at, expected + at, n) != 0
                     : !all_zero(buf + at, n)) {
            tell_difference(cmp, offset + at, n);
        }
    }
    return cmp->add(cmp->opaque, thread, offset, bytes, buf, error);
}

/* Holes of this image need not be read */
static bool compare_zeros(Compare *cmp, unsigned thread, uint64_t offset,
                          uint64_t bytes, GError **error)
{
    uint64_t end = offset + bytes, n;

    while (offset < end) {
        n = content_zeros_at(cmp->c, offset, end - offset);
        if (n < end - offset) {
            n = n / TREE_SPAN * TREE_SPAN;
        }
        if (n) {
            if (!cmp->add(cmp->opaque, thread, offset, n, NULL, error)) {
                return false;
            }
        } else {
            n = MIN(end - offset, CONTENT_RUN);
            if (!compare_run(cmp, thread, offset, n, NULL, error)) {
                return false;
            }
        }
        offset += n;
    }
    return true;
}

/*
 * A run of the other image. The last one may be shorter than this image, by
 * less than a block: the rest is zeros.
 */
static bool take(void *opaque, unsigned thread, uint64_t offset,
                 uint64_t bytes, const uint8_t *data, GError **error)
{
    Compare *cmp = opaque;
    uint8_t last[VERITY_BLOCK] = {};
    uint64_t whole = bytes / VERITY_BLOCK * VERITY_BLOCK;
    uint8_t *copy = NULL;
    bool ok;

    if (offset + bytes == cmp->other_size) {
        bytes = cmp->size - offset;
    }
    if (!data) {
        return compare_zeros(cmp, thread, offset, bytes, error);
    }
    if (offset + bytes > cmp->other_size) {
        memcpy(last, data + whole, cmp->other_size - offset - whole);
        copy = content_buffer();
        memcpy(copy, data, whole);
        memcpy(copy + whole, last, sizeof(last));
    }
    ok = compare_run(cmp, thread, offset, bytes, copy ? copy : data, error);
    free(copy);
    return ok;
}

bool content_compare(Content *c, uint64_t size, Content *other,
                     uint64_t other_size, ContentSink add, void *opaque,
                     Progress *progress, GError **error)
{
    g_autoptr(GString) places = g_string_new(NULL);
    Compare cmp = { .c = c, .size = size, .other_size = other_size,
                    .add = add, .opaque = opaque, .places = places };
    bool ok;

    assert(other_size <= size && ROUND_UP(other_size, VERITY_BLOCK) == size);
    g_mutex_init(&cmp.lock);
    for (unsigned i = 0; i < CONTENT_THREADS; i++) {
        cmp.buf[i] = content_buffer();
    }
    ok = content_read(other, other_size, take, &cmp, progress, error);
    for (unsigned i = 0; i < CONTENT_THREADS; i++) {
        free(cmp.buf[i]);
    }
    g_mutex_clear(&cmp.lock);
    if (ok && cmp.told) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "bytes %s differ", places->str);
        return false;
    }
    return ok;
}

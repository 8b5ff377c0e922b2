/*
 * Fuzz the header of a layer, as it came and with checksums that fit
 *
 * What is taken keeps the limits of docs/interop/layer.rst, and is the same when
 * it is written and read again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/header.h"
#include "block/vdisk/map.h"
#include "fuzz.h"

#define COPIES_BYTES    (VDISK_HEADER_COPIES * VDISK_HEADER_BYTES)

static void check_regions(const VdiskHeader *h)
{
    uint64_t map_end = h->map_offset + h->map_capacity;
    uint64_t granules = DIV_ROUND_UP(h->virtual_size, 4096);

    assert(h->virtual_size <= UINT64_C(1) << 62 && h->virtual_size % 512 == 0);
    assert(h->map_offset >= 8192 && h->map_offset % 4096 == 0);
    assert(h->map_capacity % 4096 == 0 && h->data_offset % 4096 == 0);
    /* Two bits for each granule, and nothing overlaps or passes 2^63 */
    assert(h->map_offset <= INT64_MAX && h->map_capacity <= INT64_MAX);
    assert(h->map_capacity >= DIV_ROUND_UP(granules, 4));
    assert(map_end <= h->data_offset && h->data_offset <= INT64_MAX);
    assert(h->data_offset + granules * 4096 <= INT64_MAX);
    assert(h->file_size <= INT64_MAX);
    assert(vdisk_header_max_size(h) >= h->virtual_size);
    assert(VDISK_MAP_BYTES(granules) <= h->map_capacity);
}

static void check_image(const VdiskHeader *h, const VdiskImageName *image)
{
    bool named = image->name[0];
    bool streamed = h->role != VDISK_ROLE_MCS;

    assert(memchr(image->name, 0, sizeof(image->name)));
    assert(memchr(image->format, 0, sizeof(image->format)));
    for (const char *p = image->name; *p; p++) {
        assert((unsigned char)*p >= 0x20 && *p != 0x7f);
        assert(!streamed || g_ascii_isalnum(*p) || strchr("._-", *p));
    }
    assert(strncmp(image->name, "json:", 5) && image->size <= VDISK_MAX_SIZE);
    if (!named || !streamed) {
        assert(!image->version && !vdisk_root_is_set(image->root));
    }
    if (!named) {
        assert(!image->format[0] && !image->size);
    } else if (streamed) {
        assert(image->name[0] != '.' && image->name[0] != '-');
        assert(strlen(image->name) <= 127 && !image->format[0]);
        assert(image->version <= INT64_MAX);
        assert(image->version || h->role == VDISK_ROLE_HOST_CACHE);
    } else {
        /* Formats are never probed, nor is one an option of its own */
        assert(image->format[0] && !strpbrk(image->format, ":,=/ "));
    }
}

static void check_role(const VdiskHeader *h)
{
    VdiskLifetime must = h->role == VDISK_ROLE_WRITE_CACHE ? VDISK_POOLED
                                                           : VDISK_DEDICATED;

    assert(vdisk_role_driver(h->role));
    if (h->role == VDISK_ROLE_MCS) {
        assert(h->lifetime == VDISK_POOLED || h->lifetime == VDISK_DEDICATED);
        return;
    }
    assert(h->lifetime == must && h->base.name[0]);
    if (h->assigned.name[0]) {
        assert(h->role == VDISK_ROLE_WRITE_CACHE);
        assert(!strcmp(h->base.name, h->assigned.name));
    }
}

static bool decode(VdiskHeader *h, const uint8_t *buf)
{
    g_autofree char *why = NULL;
    bool valid = vdisk_header_decode(h, buf, &why);

    assert(valid == !why);
    return valid;
}

static void check_again(const VdiskHeader *h)
{
    uint8_t again[VDISK_HEADER_BYTES], third[VDISK_HEADER_BYTES];
    g_autofree char *why = NULL;
    VdiskHeader other;

    assert(vdisk_header_valid(h, &why));
    vdisk_header_encode(h, again);
    assert(decode(&other, again));
    vdisk_header_encode(&other, third);
    assert(!memcmp(again, third, sizeof(again)));
    assert(vdisk_image_same(&h->base, &other.base));
    assert(vdisk_image_same(&h->assigned, &other.assigned));
    assert(h->virtual_size == other.virtual_size && h->role == other.role &&
           h->data_offset == other.data_offset &&
           h->map_offset == other.map_offset &&
           h->generation == other.generation &&
           h->incompatible_features == other.incompatible_features);
}

static void one(const uint8_t *buf)
{
    VdiskRole role;
    VdiskHeader h;

    if (decode(&h, buf)) {
        assert(vdisk_header_probe(buf, VDISK_HEADER_BYTES, &role));
        assert(role == h.role);
        check_regions(&h);
        check_role(&h);
        check_image(&h, &h.base);
        check_image(&h, &h.assigned);
        check_again(&h);
    }
}

/* Whole, but for the version of the format */
static bool is_other_version(const uint8_t *copy)
{
    uint8_t buf[VDISK_HEADER_BYTES];
    uint32_t version;

    memcpy(buf, copy, sizeof(buf));
    memcpy(&version, buf + 16, sizeof(version));
    input_sign(buf, 0, sizeof(buf));
    return !memcmp(buf, "DSKLAYER", 8) && !memcmp(buf, copy, sizeof(buf)) &&
           GUINT32_FROM_LE(version) != 1;
}

/* The newer of those that are valid; none where a newer release was */
static void both(const uint8_t *buf)
{
    bool other = is_other_version(buf) ||
                 is_other_version(buf + VDISK_HEADER_BYTES);
    g_autofree char *why = NULL;
    VdiskHeader h, copy[VDISK_HEADER_COPIES];
    unsigned bad;
    int chosen = vdisk_header_choose(&h, buf, &bad, &why);

    assert((chosen < 0) == (why != NULL));
    assert((chosen < 0) == (bad == 3 || other));
    for (int i = 0; i < VDISK_HEADER_COPIES; i++) {
        bool valid = decode(&copy[i], buf + i * VDISK_HEADER_BYTES);

        assert(valid == !(bad & 1u << i));
        assert(!valid || chosen < 0 || copy[i].generation <= h.generation);
    }
    assert(chosen < 0 || h.generation == copy[chosen].generation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t buf[COPIES_BYTES];
    Input in = { data, size };
    VdiskRole role;

    vdisk_header_probe(data, size, &role);
    input_copy(&in, buf, VDISK_HEADER_BYTES);
    /* The other copy: the rest, over what the first one is */
    memcpy(buf + VDISK_HEADER_BYTES, buf, VDISK_HEADER_BYTES);
    memcpy(buf + VDISK_HEADER_BYTES, in.data, MIN(in.size, VDISK_HEADER_BYTES));
    for (int sign = 0; sign < 2; sign++) {
        for (int i = 0; i < VDISK_HEADER_COPIES; i++) {
            if (sign) {
                input_sign(buf + i * VDISK_HEADER_BYTES, 0, VDISK_HEADER_BYTES);
            }
            one(buf + i * VDISK_HEADER_BYTES);
        }
        both(buf);
    }
    return 0;
}

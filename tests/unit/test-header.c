/*
 * The header codec: what it takes, and what it must refuse
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/header.h"
#include "block/vdisk/map.h"
#include "header-sample.h"
#include "suite.h"

static void test_round_trip(void)
{
    VdiskHeader h = sample();
    VdiskHeader out = {};
    uint8_t buf[VDISK_HEADER_BYTES];
    char *why = NULL;

    vdisk_header_encode(&h, buf);
    CU_ASSERT_FATAL(vdisk_header_decode(&out, buf, &why));
    CU_ASSERT_EQUAL(out.virtual_size, h.virtual_size);
    CU_ASSERT_EQUAL(out.map_offset, h.map_offset);
    CU_ASSERT_EQUAL(out.map_capacity, h.map_capacity);
    CU_ASSERT_EQUAL(out.data_offset, h.data_offset);
    CU_ASSERT_EQUAL(out.file_size, h.file_size);
    CU_ASSERT_EQUAL(out.generation, 7);
    CU_ASSERT_EQUAL(out.base.size, 4096);
    CU_ASSERT_EQUAL(out.assigned.size, 8192);
    CU_ASSERT_EQUAL(memcmp(out.desktop, h.desktop, 16), 0);
    CU_ASSERT_EQUAL(memcmp(out.token, h.token, 16), 0);
    CU_ASSERT_STRING_EQUAL(out.base.name, "master.qcow2");
    CU_ASSERT_STRING_EQUAL(out.base.format, "qcow2");
    CU_ASSERT_STRING_EQUAL(out.assigned.name, "next.raw");
    CU_ASSERT_STRING_EQUAL(out.assigned.format, "raw");
}

/* The places of the fields are a contract: docs/interop/layer.rst */
static void test_layout_on_disk(void)
{
    VdiskHeader h = sample();
    uint8_t buf[VDISK_HEADER_BYTES];
    uint64_t size;

    vdisk_header_encode(&h, buf);
    CU_ASSERT_EQUAL(memcmp(buf, "DSKLAYER", 8), 0);
    memcpy(&size, buf + 56, sizeof(size));
    CU_ASSERT_EQUAL(GUINT64_FROM_LE(size), h.virtual_size);
    CU_ASSERT_EQUAL(buf[112], 0xab);
    CU_ASSERT_EQUAL(buf[128], 0xcd);
    CU_ASSERT_STRING_EQUAL((char *)buf + 256, "qcow2");
    CU_ASSERT_STRING_EQUAL((char *)buf + 288, "raw");
    CU_ASSERT_STRING_EQUAL((char *)buf + 320, "master.qcow2");
    CU_ASSERT_STRING_EQUAL((char *)buf + 1344, "next.raw");
}

static void test_every_bit(void)
{
    VdiskHeader h = sample();
    VdiskHeader out;
    uint8_t buf[VDISK_HEADER_BYTES];
    int taken = 0;

    vdisk_header_encode(&h, buf);
    for (int bit = 0; bit < VDISK_HEADER_BYTES * 8; bit++) {
        char *why = NULL;

        buf[bit / 8] ^= 1 << (bit % 8);
        taken += vdisk_header_decode(&out, buf, &why);
        buf[bit / 8] ^= 1 << (bit % 8);
        g_free(why);
    }
    CU_ASSERT_EQUAL(taken, 0);
}

static void test_torn(void)
{
    VdiskHeader old = sample(), new = sample(), out;
    uint8_t a[VDISK_HEADER_BYTES], b[VDISK_HEADER_BYTES];

    new.generation++;
    g_strlcpy(new.base.name, "another.qcow2", sizeof(new.base.name));
    g_strlcpy(new.assigned.name, "", sizeof(new.assigned.name));
    vdisk_header_encode(&old, a);
    vdisk_header_encode(&new, b);
    for (int torn = 1; torn < 0xff; torn++) {
        uint8_t mix[VDISK_HEADER_BYTES];
        char *why = NULL;

        for (int sector = 0; sector < 8; sector++) {
            memcpy(mix + sector * 512,
                   (torn & (1 << sector) ? b : a) + sector * 512, 512);
        }
        if (vdisk_header_decode(&out, mix, &why)) {
            CU_ASSERT(!memcmp(mix, a, sizeof(mix)) ||
                      !memcmp(mix, b, sizeof(mix)));
        }
        g_free(why);
    }
}

static void test_geometry(void)
{
    VdiskHeader h = sample();

    CU_ASSERT_FALSE(refused(&h));
    REFUSE(virtual_size, 1000);
    REFUSE(virtual_size, UINT64_C(1) << 63);
    REFUSE(virtual_size, UINT64_MAX - 511);
    REFUSE(virtual_size, UINT64_C(1) << 60);    /* map too small for it */
    REFUSE(map_offset, 0);
    REFUSE(map_offset, 4096);
    REFUSE(map_offset, 65537);
    REFUSE(map_offset, h.data_offset);
    REFUSE(map_offset, UINT64_MAX - 4095);
    REFUSE(map_capacity, 0);
    REFUSE(map_capacity, 4097);
    REFUSE(map_capacity, UINT64_MAX - 4095);
    REFUSE(map_capacity, h.map_capacity * 2);   /* overlaps the data */
    REFUSE(data_offset, 0);
    REFUSE(data_offset, h.data_offset + 512);
    REFUSE(data_offset, h.map_offset);
    REFUSE(data_offset, UINT64_C(1) << 63);
    REFUSE(data_offset, UINT64_C(1) << 62);
    REFUSE(file_size, UINT64_C(1) << 63);
    REFUSE(base.size, UINT64_C(1) << 63);
    REFUSE(role, 0);
    REFUSE(role, 4);
    REFUSE(role, 0x80000001);
    REFUSE(lifetime, 0);
    REFUSE(lifetime, 3);
}

static void refuse_name(const char *name, const char *format)
{
    VdiskHeader h = sample();

    g_strlcpy(h.base.name, name, sizeof(h.base.name));
    g_strlcpy(h.base.format, format, sizeof(h.base.format));
    CU_ASSERT(refused(&h));
    h = sample();
    g_strlcpy(h.assigned.name, name, sizeof(h.assigned.name));
    g_strlcpy(h.assigned.format, format, sizeof(h.assigned.format));
    CU_ASSERT(refused(&h));
}

static void test_names(void)
{
    char *why = NULL;
    char *longest = g_strnfill(VDISK_NAME_BYTES - 1, 'x');
    char *longer = g_strnfill(VDISK_NAME_BYTES, 'x');

    refuse_name("json:{\"driver\":\"null-co\"}", "raw");
    refuse_name("master.qcow2", "");
    refuse_name("mas\nter", "raw");
    refuse_name("mas\x7fter", "raw");
    refuse_name("master", "RAW!");
    refuse_name("master", "raw,file.locking=off");
    CU_ASSERT(vdisk_image_name_valid(longest, "raw", &why));
    CU_ASSERT_FALSE(vdisk_image_name_valid(longer, "raw", &why));
    g_clear_pointer(&why, g_free);
    CU_ASSERT(vdisk_image_name_valid("", "", &why));
    CU_ASSERT(vdisk_image_name_valid("m\xc3\xa4ster.raw", "raw", &why));
    g_free(longest);
    g_free(longer);
}

static bool resealed_is_refused(uint8_t *buf, const char *reason)
{
    VdiskHeader out;
    char *why = NULL;
    bool refused;

    reseal(buf);
    refused = !vdisk_header_decode(&out, buf, &why);
    CU_ASSERT(refused && strstr(why, reason));
    g_free(why);
    return refused;
}

/* A name that fills its field to the last byte does not end */
static void test_name_without_end(void)
{
    static const size_t fields[][2] = {
        { 256, 32 }, { 288, 32 }, { 320, 1024 }, { 1344, 1024 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        VdiskHeader h = sample();
        uint8_t buf[VDISK_HEADER_BYTES];

        vdisk_header_encode(&h, buf);
        memset(buf + fields[i][0], 'x', fields[i][1]);
        CU_ASSERT(resealed_is_refused(buf, "does not end"));
    }
}

static void test_versions(void)
{
    static const struct {
        size_t offset;
        const char *reason;
    } fields[] = {
        { 16, "version" }, { 20, "version" }, { 96, "granule size" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        VdiskHeader h = sample();
        uint8_t buf[VDISK_HEADER_BYTES];

        vdisk_header_encode(&h, buf);
        buf[fields[i].offset]++;
        CU_ASSERT(resealed_is_refused(buf, fields[i].reason));
    }
}

static void test_choose(void)
{
    VdiskHeader old = sample(), new = sample(), out;
    uint8_t buf[2 * VDISK_HEADER_BYTES] = {};
    char *why = NULL;
    unsigned bad;

    CU_ASSERT_EQUAL(vdisk_header_choose(&out, buf, &bad, &why), -1);
    CU_ASSERT_EQUAL(bad, 3);
    CU_ASSERT_PTR_NOT_NULL(why);
    g_clear_pointer(&why, g_free);

    new.generation = 8;
    vdisk_header_encode(&new, buf);
    vdisk_header_encode(&old, buf + VDISK_HEADER_BYTES);
    CU_ASSERT_EQUAL(vdisk_header_choose(&out, buf, &bad, &why), 0);
    CU_ASSERT_EQUAL(bad, 0);
    CU_ASSERT_EQUAL(out.generation, 8);

    buf[100] ^= 1;
    CU_ASSERT_EQUAL(vdisk_header_choose(&out, buf, &bad, &why), 1);
    CU_ASSERT_EQUAL(bad, 1);
    CU_ASSERT_EQUAL(out.generation, 7);
    CU_ASSERT_PTR_NULL(why);

    buf[100] ^= 1;
    buf[VDISK_HEADER_BYTES + 4095] ^= 1;
    CU_ASSERT_EQUAL(vdisk_header_choose(&out, buf, &bad, &why), 0);
    CU_ASSERT_EQUAL(bad, 2);

    vdisk_header_encode(&new, buf + VDISK_HEADER_BYTES);
    vdisk_header_encode(&old, buf);
    CU_ASSERT_EQUAL(vdisk_header_choose(&out, buf, &bad, &why), 1);
    CU_ASSERT_EQUAL(out.generation, 8);
}

/* Of another version: what it says may have changed what the other copy says */
static void test_choose_version(void)
{
    VdiskHeader h = sample(), out;
    uint8_t buf[2 * VDISK_HEADER_BYTES];

    for (int i = 0; i < 2; i++) {
        uint8_t *copy = buf + i * VDISK_HEADER_BYTES;
        g_autofree char *why = NULL;
        unsigned bad;

        vdisk_header_encode(&h, buf);
        vdisk_header_encode(&h, buf + VDISK_HEADER_BYTES);
        copy[16]++;
        reseal(copy);
        CU_ASSERT_EQUAL(vdisk_header_choose(&out, buf, &bad, &why), -1);
        CU_ASSERT_PTR_NOT_NULL_FATAL(why);
        CU_ASSERT_PTR_NOT_NULL(strstr(why, "version 2 of the format"));
        copy[100] ^= 1;         /* damaged, it says nothing */
        g_clear_pointer(&why, g_free);
        CU_ASSERT_EQUAL(vdisk_header_choose(&out, buf, &bad, &why), !i);
    }
}

static void test_sizes(void)
{
    static const uint64_t sizes[] = {
        0, 512, 4096, 4608, UINT64_C(1) << 40, UINT64_C(1) << 46,
        (UINT64_C(1) << 60) - 512, UINT64_C(1) << 60,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        VdiskHeader h = sample();

        CU_ASSERT(vdisk_header_layout(&h, sizes[i]));
        CU_ASSERT_FALSE(refused(&h));
        CU_ASSERT(vdisk_header_max_size(&h) >= sizes[i]);
        CU_ASSERT(vdisk_header_max_size(&h) <= VDISK_MAX_SIZE);
        CU_ASSERT(h.file_size >= h.data_offset + sizes[i]);
    }
    VdiskHeader h = sample();

    CU_ASSERT_FALSE(vdisk_header_layout(&h, (UINT64_C(1) << 60) + 512));
    CU_ASSERT_FALSE(vdisk_header_layout(&h, UINT64_MAX - 511));
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "what is encoded is decoded", test_round_trip },
        { "fields are where the specification says", test_layout_on_disk },
        { "every flipped bit is noticed", test_every_bit },
        { "a torn header is none", test_torn },
        { "sizes and offsets are bounded", test_geometry },
        { "names that must not reach the opener", test_names },
        { "names end inside their field", test_name_without_end },
        { "other versions of the format", test_versions },
        { "the newer valid copy is the header", test_choose },
        { "a copy of another version", test_choose_version },
        { "layouts of all sizes", test_sizes },
        CU_TEST_INFO_NULL,
    };

    return run_suite("header", tests);
}

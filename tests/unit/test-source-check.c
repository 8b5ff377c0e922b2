/*
 * Headers that images may have, and may not
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/source-check.h"
#include "suite.h"

#define HEAD    4096

static uint8_t head[HEAD];

static void put(unsigned at, const char *bytes, unsigned n)
{
    memcpy(head + at, bytes, n);
}

static void put_be(unsigned at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        head[at + i] = value >> 8 * (bytes - 1 - i);
    }
}

static void put_le(unsigned at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        head[at + i] = value >> 8 * i;
    }
}

static void begin(const char *mark, unsigned n)
{
    memset(head, 0, sizeof(head));
    put(0, mark, n);
}

static bool refused(const char *format, size_t bytes, uint64_t file_bytes,
                    const char *word)
{
    g_autofree char *why = source_head_refused(format, head, bytes,
                                               file_bytes);

    return why && strstr(why, word);
}

static bool taken(const char *format, size_t bytes, uint64_t file_bytes)
{
    g_autofree char *why = source_head_refused(format, head, bytes,
                                               file_bytes);

    return !why;
}

static void test_names(void)
{
    CU_ASSERT_STRING_EQUAL(source_format_of_name("a.VHD"), "vpc");
    CU_ASSERT_STRING_EQUAL(source_format_of_name("a.vhdx"), "vhdx");
    CU_ASSERT_STRING_EQUAL(source_format_of_name("/x.vdi/a.img"), "raw");
    CU_ASSERT_PTR_NULL(source_format_of_name("a.qcow2.gz"));
    CU_ASSERT_PTR_NULL(source_format_of_name("qcow2"));
    CU_ASSERT_PTR_NULL(source_format_of_name(""));
    CU_ASSERT_STRING_EQUAL(source_format_known("vhd"), "vpc");
    CU_ASSERT_STRING_EQUAL(source_format_known("vmdk"), "vmdk");
    CU_ASSERT_PTR_NULL(source_format_known("luks"));
    CU_ASSERT_PTR_NULL(source_format_known(""));
}

static void test_qcow2(void)
{
    begin("QFI\xfb\0\0\0\3", 8);
    CU_ASSERT(taken("qcow2", HEAD, 1 << 20));
    CU_ASSERT(refused("vhdx", HEAD, 1 << 20, "like qcow2"));
    CU_ASSERT(refused("qcow2", 50, 50, "cut off"));
    put_be(8, 1, 8);
    CU_ASSERT(refused("qcow2", HEAD, 1 << 20, "backing"));
    put_be(8, 0, 8);
    put_be(32, 1, 4);
    CU_ASSERT(refused("qcow2", HEAD, 1 << 20, "encrypted"));
    put_be(32, 0, 4);
    put_be(72, 4, 8);
    CU_ASSERT(refused("qcow2", HEAD, 1 << 20, "another file"));
    put_be(72, 2, 8);
    CU_ASSERT(refused("qcow2", HEAD, 1 << 20, "corrupt"));
    /* In version 2 these bytes are something else */
    put_be(4, 2, 4);
    CU_ASSERT(taken("qcow2", HEAD, 1 << 20));
}

static void test_raw(void)
{
    begin("", 0);
    CU_ASSERT(taken("raw", HEAD, 1 << 20));
    CU_ASSERT(refused("raw", HEAD, (1 << 20) + 1, "multiple"));
    CU_ASSERT(refused("raw", 0, 0, "empty"));
    CU_ASSERT(refused("qcow2", 0, 0, "does not begin"));
}

static void dynamic_vhd(void)
{
    begin("conectix", 8);
    put_be(16, 512, 8);
    put_be(60, 3, 4);
    put(512, "cxsparse", 8);
    put_be(512 + 16, 1536, 8);
    put_be(512 + 28, 4, 4);
    put_be(512 + 32, 2 << 20, 4);
}

static bool bad_table(uint64_t file_bytes)
{
    g_autofree char *why = NULL;
    SourceTable t;

    return !source_vhd_table(&t, head, HEAD, file_bytes, &why) && why;
}

static void test_vhd(void)
{
    /* Sector 4, then unused ones: 4 * 512 + 512 + 2 MiB are needed */
    uint8_t table[16] = { 0, 0, 0, 4, 255, 255, 255, 255, 255, 255, 255, 255,
                          255, 255, 255, 255 };
    uint64_t needed = 4 * 512 + 512 + (2 << 20);
    SourceTable t;
    char *why;

    dynamic_vhd();
    CU_ASSERT(taken("vpc", HEAD, 1 << 20));
    CU_ASSERT_FATAL(source_vhd_table(&t, head, HEAD, needed, &why));
    CU_ASSERT_EQUAL(t.entries, 4);
    CU_ASSERT_PTR_NULL(source_vhd_refused(&t, table, needed));
    why = source_vhd_refused(&t, table, needed - 1);
    CU_ASSERT_PTR_NOT_NULL(why);
    g_free(why);
    CU_ASSERT(bad_table(1550));
    put_be(512 + 32, 1000, 4);
    CU_ASSERT(bad_table(needed));
    put_be(512 + 32, 0, 4);
    CU_ASSERT(bad_table(needed));
    dynamic_vhd();
    put_be(512 + 28, UINT32_MAX, 4);
    CU_ASSERT(bad_table(needed));
    dynamic_vhd();
    put_be(512 + 16, UINT64_MAX, 8);
    CU_ASSERT(bad_table(needed));
    put_be(16, UINT64_MAX - 3, 8);
    CU_ASSERT(bad_table(needed));
    put_be(60, 4, 4);
    CU_ASSERT(refused("vpc", HEAD, needed, "parent"));
}

static void test_vdi(void)
{
    begin("", 0);
    put(0x40, "\x7f\x10\xda\xbe", 4);
    put_le(0x4c, 1, 4);
    put_le(0x158, 4096, 4);
    put_le(0x178, 1 << 20, 4);
    put_le(0x184, 3, 4);
    CU_ASSERT(taken("vdi", HEAD, 4096 + (3 << 20)));
    CU_ASSERT(refused("vdi", HEAD, 4095 + (3 << 20), "cut off"));
    put_le(0x184, UINT32_MAX, 4);
    put_le(0x17c, UINT32_MAX, 4);
    CU_ASSERT(refused("vdi", HEAD, 1 << 30, "cut off"));
    put_le(0x4c, 4, 4);
    CU_ASSERT(refused("vdi", HEAD, 1 << 30, "parent"));
    CU_ASSERT(refused("vdi", 0x100, 0x100, "cut off"));
}

static bool descriptor_refused(const char *text)
{
    g_autofree char *all = g_strconcat("# Disk DescriptorFile\n", text, NULL);
    g_autofree char *why = source_head_refused("vmdk", (uint8_t *)all,
                                               strlen(all), strlen(all));

    return why != NULL;
}

static void test_vmdk_names(void)
{
    g_autofree char *most = g_strnfill(255, 'a'), *more = g_strnfill(256, 'a');
    g_autofree char *may = g_strdup_printf("RW 8 FLAT \"%s\" 0\n", most);
    g_autofree char *cut = g_strdup_printf("RW 8 FLAT \"%s\" 0\n", more);

    /* No file has a longer one, and of 512 bytes QEMU opens another */
    CU_ASSERT_FALSE(descriptor_refused(may));
    CU_ASSERT(descriptor_refused(cut));
}

static void test_vmdk_descriptors(void)
{
    CU_ASSERT_FALSE(descriptor_refused("createType=\"monolithicFlat\"\n"
                                       "encoding = \"a/b\"\n"
                                       "parentCID=FFFFFFFF\n"
                                       "RW 8 FLAT \"disk-flat.vmdk\" 0\n"));
    CU_ASSERT_FALSE(descriptor_refused("RW 8 ZERO\n"));
    CU_ASSERT(descriptor_refused("RW 8 FLAT \"/etc/passwd\" 0\n"));
    CU_ASSERT(descriptor_refused("RW 8 FLAT \"..\" 0\n"));
    CU_ASSERT(descriptor_refused("RW 8 FLAT \"a\\b\" 0\n"));
    CU_ASSERT(descriptor_refused("RW 8 FLAT \"nbd:x\" 0\n"));
    CU_ASSERT(descriptor_refused("RW 8 FLAT \"\" 0\n"));
    CU_ASSERT(descriptor_refused("RW\n8\nFLAT\n\"/etc/passwd\" 0\n"));
    CU_ASSERT(descriptor_refused("RW 8 FLAT \"/etc/passwd"));
    CU_ASSERT(descriptor_refused("x=\"a\" RW 8 FLAT \"/etc/passwd\""));
    CU_ASSERT(descriptor_refused("parentCID=12345678\n"));
    /* To QEMU a line begins anew, whatever is open before it */
    CU_ASSERT(descriptor_refused("x=\"a\nRW 8 FLAT \"/etc/passwd\" 0\n"));
    CU_ASSERT(descriptor_refused("\"\nRW 8 VMFS \"/etc/passwd\nx=\"\"\"\n"));
    /* And a name ends at a carriage return */
    CU_ASSERT(descriptor_refused("RW 8 SPARSE \"a\rb\"\n"));
    CU_ASSERT_FALSE(descriptor_refused("x=\"a\"\r\nRW 8 FLAT \"a\" 0\r\n"));
}

static void test_vmdk_extents(void)
{
    static const char text[] = "# Disk DescriptorFile\nddb.x = \"no\"\n"
                               "RW 8 FLAT \"a\" 2\nRW 4 FLAT \"a\" 0\n"
                               "RW 9 SPARSE \"b\"\nRW -9 FLAT \"c\" 0";
    g_auto(GStrv) names = source_vmdk_extents((uint8_t *)text, sizeof(text));

    CU_ASSERT_EQUAL_FATAL(g_strv_length(names), 4);
    CU_ASSERT_STRING_EQUAL(names[0], "a");
    CU_ASSERT_STRING_EQUAL(names[2], "b");
    CU_ASSERT_EQUAL(source_vmdk_flat_bytes((uint8_t *)text, sizeof(text), "a"),
                    10 * 512);
    CU_ASSERT_EQUAL(source_vmdk_flat_bytes((uint8_t *)text, sizeof(text), "b"),
                    0);
    CU_ASSERT_EQUAL(source_vmdk_flat_bytes((uint8_t *)text, sizeof(text), "c"),
                    0);
}

static void test_sparse_vmdk(void)
{
    begin("KDMV", 4);
    CU_ASSERT(refused("vmdk", HEAD, HEAD, "capacity"));
    put_le(12, 8, 8);
    CU_ASSERT(taken("vmdk", HEAD, HEAD));
    put_le(28, 1, 8);
    put_le(36, 2, 8);
    put(512, "parentCID=00000001\n", 19);
    CU_ASSERT(refused("vmdk", HEAD, HEAD, "parent"));
    put(512, "RW 8 FLAT \"/x\" 0\n\n", 19);
    CU_ASSERT(refused("vmdk", HEAD, HEAD, "beside"));
    put_le(28, UINT64_MAX, 8);
    CU_ASSERT(refused("vmdk", HEAD, HEAD, "descriptor"));
}

/* Any bytes whatever: nothing is read that is not there */
static void test_random(void)
{
    static const char *const all[] = { "raw", "qcow2", "vpc", "vhdx", "vmdk",
                                       "vdi" };
    static const char *const marks[] = { "QFI\xfb", "conectix", "KDMV",
                                         "vhdxfile", "# Disk DescriptorFile" };
    unsigned n = getenv("UNIT_SHORT") ? 300 : 20000;
    GRand *r = g_rand_new_with_seed(4);

    for (unsigned i = 0; i < n; i++) {
        const char *mark = marks[g_rand_int_range(r, 0, 5)];
        size_t bytes = g_rand_int_range(r, 0, 2100);
        uint8_t *p = g_malloc(bytes + 1);
        g_auto(GStrv) names = NULL;
        SourceTable t;
        char *why;

        for (size_t k = 0; k < bytes; k++) {
            p[k] = g_rand_int_range(r, 0, 3) ? g_rand_int(r) : 0;
        }
        memcpy(p, mark, MIN(strlen(mark), bytes));
        for (unsigned k = 0; k < G_N_ELEMENTS(all); k++) {
            g_free(source_head_refused(all[k], p, bytes, bytes));
        }
        source_looks_like(p, bytes);
        source_vhd_table(&t, p, bytes, bytes, &why);
        g_free(why);
        names = source_vmdk_extents(p, bytes);
        g_free(p);
    }
    g_rand_free(r);
}

static void random_vhdx(GRand *r, uint8_t *p, size_t bytes, const char *mark)
{
    for (size_t k = 0; k < bytes; k++) {
        p[k] = g_rand_int_range(r, 0, 40) ? 0 : g_rand_int(r);
    }
    memcpy(p, mark, strlen(mark));
}

static void test_random_vhdx(void)
{
    uint8_t *regions = g_malloc(SOURCE_REGIONS_BYTES);
    uint8_t *metadata = g_malloc(65536), table[64] = {};
    SourceRegions r = { 0, 0, 65536, sizeof(table) };
    GRand *rnd = g_rand_new_with_seed(5);

    for (unsigned i = 0; i < 30; i++) {
        SourceRegions found;

        random_vhdx(rnd, regions, SOURCE_REGIONS_BYTES, "regi");
        random_vhdx(rnd, metadata, 65536, "metadata");
        source_vhdx_regions(&found, regions, 1 << 20);
        g_free(source_vhdx_refused(&r, metadata, table, 1 << 20));
    }
    g_rand_free(rnd);
    g_free(regions);
    g_free(metadata);
}

static const CU_TestInfo tests[] = {
    { "formats by name", test_names },
    { "qcow2", test_qcow2 },
    { "raw", test_raw },
    { "dynamic VHD", test_vhd },
    { "VDI", test_vdi },
    { "VMDK: what a descriptor may name", test_vmdk_descriptors },
    { "VMDK: how long a name may be", test_vmdk_names },
    { "VMDK: extents", test_vmdk_extents },
    { "VMDK: sparse", test_sparse_vmdk },
    { "random bytes", test_random },
    { "random VHDX", test_random_vhdx },
    CU_TEST_INFO_NULL
};

int main(void)
{
    return run_suite("source-check", tests);
}

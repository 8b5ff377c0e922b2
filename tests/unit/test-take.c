/*
 * From the version that is wanted to the header of a desktop's disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hook/take.h"
#include "suite.h"

#include <string.h>

#define ROOT    "00112233445566778899aabbccddeeff" \
                "00112233445566778899aabbccddeeff"
#define MIB     (UINT64_C(1) << 20)

static VdiskHeader header(VdiskRole role, const char *name, uint64_t version)
{
    VdiskHeader h = { .role = role, .lifetime = VDISK_POOLED };

    CU_ASSERT(vdisk_header_layout(&h, 4 * MIB));
    g_strlcpy(h.base.name, name, sizeof(h.base.name));
    if (role == VDISK_ROLE_MCS) {
        g_strlcpy(h.base.format, "raw", sizeof(h.base.format));
    }
    h.base.version = version;
    return h;
}

static DesktopMetadata mcs(char *image, uint64_t size)
{
    return (DesktopMetadata) {
        .vdisk = "win11", .model = MODEL_MCS, .lifetime = LIFETIME_POOLED,
        .wanted = { .number = 2, .size = size, .image = image,
                    .format = "raw" },
    };
}

static DesktopMetadata pvs(char *vdisk, uint64_t number, char *root)
{
    return (DesktopMetadata) {
        .vdisk = vdisk, .model = MODEL_PVS, .lifetime = LIFETIME_POOLED,
        .wanted = { .number = number, .size = 4 * MIB, .root = root },
    };
}

static void refuses(const VdiskHeader *h, const DesktopMetadata *d,
                    const char *text)
{
    g_autoptr(GError) error = NULL;
    VdiskHeader new;

    CU_ASSERT_EQUAL(take_wanted(h, d, &new, &error), TAKE_REFUSED);
    CU_ASSERT_PTR_NOT_NULL_FATAL(error);
    CU_ASSERT_PTR_NOT_NULL(strstr(error->message, text));
}

/* What was assigned can be written, and be read again */
static void valid(const VdiskHeader *h)
{
    g_autofree char *why = NULL;

    CU_ASSERT(vdisk_header_valid(h, &why));
}

static void test_mcs(void)
{
    VdiskHeader h = header(VDISK_ROLE_MCS, "/i/1", 0), new, newer;
    DesktopMetadata same = mcs("/i/1", 4 * MIB), next = mcs("/i/2", 8 * MIB);

    CU_ASSERT_EQUAL(take_wanted(&h, &same, &new, NULL), TAKE_NOTHING);
    CU_ASSERT_EQUAL(take_wanted(&h, &next, &new, NULL), TAKE_CHANGED);
    CU_ASSERT_STRING_EQUAL(new.assigned.name, "/i/2");
    CU_ASSERT_EQUAL(new.assigned.size, 8 * MIB);
    CU_ASSERT_STRING_EQUAL(new.base.name, "/i/1");
    valid(&new);
    CU_ASSERT_EQUAL(take_wanted(&new, &next, &newer, NULL), TAKE_NOTHING);
    /* rolled back before it was taken */
    CU_ASSERT_EQUAL(take_wanted(&new, &same, &newer, NULL), TAKE_CHANGED);
    CU_ASSERT_STRING_EQUAL(newer.assigned.name, "");
    valid(&newer);
}

static void test_pvs(void)
{
    VdiskHeader h = header(VDISK_ROLE_WRITE_CACHE, "win11", 1), new;
    DesktopMetadata next = pvs("win11", 2, ROOT);
    DesktopMetadata other = pvs("win10", 2, NULL);
    DesktopMetadata rooted = pvs("win11", 1, ROOT);

    CU_ASSERT_EQUAL(take_wanted(&h, &next, &new, NULL), TAKE_CHANGED);
    CU_ASSERT_STRING_EQUAL(new.assigned.name, "win11");
    CU_ASSERT_EQUAL(new.assigned.version, 2);
    CU_ASSERT_EQUAL(new.assigned.root[1], 0x11);
    CU_ASSERT_EQUAL(new.assigned.root[31], 0xff);
    valid(&new);
    /* the same number with another root hash is another version */
    CU_ASSERT_EQUAL(take_wanted(&h, &rooted, &new, NULL), TAKE_CHANGED);
    refuses(&h, &other, "another vDisk");
}

static void test_refused(void)
{
    VdiskHeader h = header(VDISK_ROLE_MCS, "/i/1", 0), new;
    DesktopMetadata d = mcs("/i/2", 2 * MIB);

    refuses(&h, &d, "smaller");
    d.wanted.size = vdisk_header_max_size(&h) + MIB;
    refuses(&h, &d, "cannot grow");
    d.model = MODEL_PVS;
    refuses(&h, &d, "another kind");
    d = mcs("/i/2", 4 * MIB);
    h.lifetime = VDISK_DEDICATED;
    refuses(&h, &d, "dedicated");
    d.lifetime = LIFETIME_DEDICATED;
    CU_ASSERT_EQUAL(take_wanted(&h, &d, &new, NULL), TAKE_NOTHING);
    d = mcs(NULL, 0);
    d.wanted.number = 0;
    CU_ASSERT_EQUAL(take_wanted(&h, &d, &new, NULL), TAKE_NOTHING);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "an image", test_mcs },
        { "a version", test_pvs },
        { "what is refused", test_refused },
        CU_TEST_INFO_NULL,
    };

    return run_suite("wanted version", tests);
}

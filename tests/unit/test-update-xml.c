/*
 * The domain that a master VM runs as while it is updated
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/host/update-xml.h"
#include "suite.h"

#include <string.h>

#define DISK(dev) \
    "<disk type='block' device='disk'><driver name='qemu' type='raw' " \
    "cache='none'/><source dev='/dev/own'/><backingStore type='file'>" \
    "<format type='raw'/><source file='/old'/></backingStore>" \
    "<target dev='" dev "' bus='virtio'/></disk>"
#define DOMAIN(disks) \
    "<domain type='kvm'><name>master</name><os><type arch='x86_64' " \
    "machine='q35'>hvm</type></os><devices><emulator>/usr/bin/qemu" \
    "</emulator><disk type='file' device='cdrom'><target dev='sda' " \
    "bus='sata'/></disk>" disks "</devices></domain>"

static char *paths[] = { (char *)"/s/deb/3.qcow2", (char *)"/s/deb/2.qcow2",
                         (char *)"/s/deb/1.raw", NULL };
static char *formats[] = { (char *)"qcow2", (char *)"qcow2", (char *)"raw",
                           NULL };

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* Without the white space between elements */
static char *joined(const char *xml)
{
    g_autoptr(GRegex) between = g_regex_new(">\\s+<", 0, 0, NULL);

    return g_regex_replace_literal(between, xml, -1, 0, "><", 0, NULL);
}

static void test_mcs(void)
{
    g_autofree char *text = update_xml_mcs(DOMAIN(DISK("vda")), NULL, paths,
                                           formats, NULL);
    g_autofree char *xml = text ? joined(text) : NULL;

    CU_ASSERT_PTR_NOT_NULL_FATAL(xml);
    CU_ASSERT_FALSE(has(xml, "/dev/own") || has(xml, "/old"));
    CU_ASSERT_TRUE(has(xml, "cache=\"none\"") && has(xml, "dev=\"vda\""));
    /* The whole chain, in its order, and closed */
    CU_ASSERT_PTR_NOT_NULL(strstr(xml, "<source file=\"/s/deb/3.qcow2\"/>"
                                  "<backingStore type=\"file\">"
                                  "<format type=\"qcow2\"/>"
                                  "<source file=\"/s/deb/2.qcow2\"/>"
                                  "<backingStore type=\"file\">"
                                  "<format type=\"raw\"/>"
                                  "<source file=\"/s/deb/1.raw\"/>"
                                  "<backingStore/></backingStore>"
                                  "</backingStore>"));
}

static void refused(const char *xml, const char *disk, const char *what)
{
    g_autoptr(GError) error = NULL;
    char *made = update_xml_mcs(xml, disk, paths, formats, &error);

    CU_ASSERT_PTR_NULL_FATAL(made);
    CU_ASSERT_PTR_NOT_NULL(strstr(error->message, what));
}

static void test_which_disk(void)
{
    g_autofree char *xml = update_xml_mcs(DOMAIN(DISK("vda") DISK("vdb")),
                                          "vdb", paths, formats, NULL);

    CU_ASSERT_PTR_NOT_NULL_FATAL(xml);
    CU_ASSERT_TRUE(strstr(xml, "/dev/own") < strstr(xml, "3.qcow2"));
    refused(DOMAIN(DISK("vda") DISK("vdb")), NULL, "--disk");
    refused(DOMAIN(DISK("vda")), "vdx", "no disk vdx");
    refused(DOMAIN(""), NULL, "no disk");
    refused("<domain/>", NULL, "devices");
    refused("<pool/>", NULL, "no domain");
    refused("no XML", NULL, "");
    refused("<!DOCTYPE domain [<!ENTITY e 'x'>]>" DOMAIN(DISK("vda")), NULL,
            "");
}

static DesktopMetadata private_disk(char **sources)
{
    return (DesktopMetadata) {
        .catalog = (char *)"lab", .vdisk = (char *)"deb", .model = MODEL_PVS,
        .lifetime = LIFETIME_PRIVATE, .run = RUN_IN_PROCESS,
        .disk = (char *)"/vdi/m.copy", .journal = (char *)"/vdi/m.journal",
        .node = (char *)"disk0", .monitor = (char *)"/run/m/qmp",
        .stores = sources, .wanted = { .number = 8, .size = 1 << 20 },
    };
}

static void test_pvs(void)
{
    char *sources[] = { (char *)"nbd://store1:10809", NULL };
    DesktopMetadata d = private_disk(sources);
    g_autofree char *xml = update_xml_pvs(DOMAIN(DISK("vda")), NULL, &d,
                                          "/our/qemu", NULL);
    g_autoptr(DesktopMetadata) seen = NULL;
    g_autoptr(CatalogMetadata) catalog = NULL;

    CU_ASSERT_PTR_NOT_NULL_FATAL(xml);
    CU_ASSERT_FALSE(has(xml, "/dev/own"));
    CU_ASSERT_TRUE(has(xml, "<name>master</name>") && has(xml, "/our/qemu"));
    CU_ASSERT_TRUE(has(xml, "deb@8") && has(xml, "private"));
    /* What the hook makes copy and journal from */
    CU_ASSERT_TRUE_FATAL(metadata_from_domain(xml, &seen, &catalog, NULL));
    CU_ASSERT_TRUE_FATAL(seen && !catalog);
    CU_ASSERT_EQUAL(seen->lifetime, LIFETIME_PRIVATE);
    CU_ASSERT_STRING_EQUAL(seen->journal, "/vdi/m.journal");
    CU_ASSERT_EQUAL(seen->wanted.number, 8);
}

static void test_bad_pvs(void)
{
    char *two[] = { (char *)"nbd://a:1", (char *)"nbd://b:1", NULL };
    DesktopMetadata d = private_disk(two);
    g_autoptr(GError) error = NULL;
    char *xml = update_xml_pvs(DOMAIN(DISK("vda")), NULL, &d, "/q", &error);

    CU_ASSERT_PTR_NULL(xml);
    CU_ASSERT_PTR_NOT_NULL(error);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "mcs: the chain of images", test_mcs },
        { "which disk it is", test_which_disk },
        { "pvs: a private vDisk", test_pvs },
        { "pvs: with two stores", test_bad_pvs },
        CU_TEST_INFO_NULL
    };

    return run_suite("update-xml", tests);
}

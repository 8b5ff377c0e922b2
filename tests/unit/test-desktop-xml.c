/*
 * A desktop's domain from its master's, its disk, its identity, its share of
 * a host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/desktop/blockdev.h"
#include "cli/desktop/identity.h"
#include "cli/desktop/limits.h"
#include "cli/desktop/xml.h"
#include "suite.h"

#include <string.h>

#define UUID    "11223344-5566-7788-99aa-bbccddeeff00"
#define ROOT    "00112233445566778899aabbccddeeff" \
                "00112233445566778899aabbccddeeff"
#define DISK    "<disk type='file' device='disk'><source file='/m.raw'/>" \
                "<target dev='vda' bus='virtio'/></disk>"

static DesktopMetadata metadata(DesktopModel model, DesktopRun run)
{
    static char *stores[] = { (char *)"nbd+unix:///?socket=/run/100%25",
                              (char *)"nbds://[::1]:10809", NULL };

    return (DesktopMetadata) {
        .catalog = "office", .vdisk = "win11", .model = model,
        .lifetime = LIFETIME_POOLED, .run = run, .disk = "/vdi/d1",
        .node = "disk0", .monitor = "/run/deskcast/d1/qmp",
        .identity = "/vdi/d1.cidata", .ram = 4096,
        .stores = model == MODEL_PVS ? stores : NULL,
        .host_cache = model == MODEL_PVS ? "/c%d" : NULL,
    };
}

/* Without the spaces that make it readable */
static char *squeeze(char *xml)
{
    g_autoptr(GRegex) space = g_regex_new(">\\s+<", 0, 0, NULL);
    char *text = xml ? g_regex_replace_literal(space, xml, -1, 0, "><", 0, NULL)
                     : NULL;

    g_free(xml);
    return text;
}

static char *make(const char *os, const char *devices, const char *more,
                  const DesktopMetadata *d, const char *disk, GError **error)
{
    g_autofree char *xml = g_strdup_printf(
        "<domain type='kvm' id='7'><name>gold</name><uuid>u</uuid>"
        "<title>Golden</title><genid>x</genid><metadata>"
        "<dc:catalog xmlns:dc='" METADATA_NAMESPACE "'/>"
        "<o xmlns='urn:o'/></metadata><os><type machine='pc-q35-7.2'>hvm</type>"
        "%s</os><devices><emulator>/usr/bin/qemu</emulator>%s</devices>%s"
        "</domain>", os, devices, more);
    const DesktopPlan plan = {
        .name = "d1", .uuid = UUID, .emulator = "/our/qemu", .disk = disk,
        .nvram = "/vdi/d1.nvram", .metadata = d,
    };

    return squeeze(desktop_xml(xml, &plan, error));
}

static void has(const char *xml, const char *text)
{
    if (!xml || !strstr(xml, text)) {
        printf("\n  no '%s' in:\n%s\n", text, xml ? xml : "nothing");
        CU_FAIL("is missing");
    }
}

static void lacks(const char *xml, const char *text)
{
    if (!xml || strstr(xml, text)) {
        printf("\n  '%s' in:\n%s\n", text, xml ? xml : "nothing");
        CU_FAIL("is there");
    }
}

static void refuses(const char *devices, const char *disk, const char *text)
{
    DesktopMetadata d = metadata(MODEL_MCS, RUN_IN_PROCESS);
    g_autoptr(GError) error = NULL;
    g_autofree char *xml = make("", devices, "", &d, disk, &error);

    CU_ASSERT_PTR_NULL(xml);
    CU_ASSERT_PTR_NOT_NULL_FATAL(error);
    has(error->message, text);
}

static void test_in_process(void)
{
    DesktopMetadata d = metadata(MODEL_MCS, RUN_IN_PROCESS);
    g_autofree char *xml = make(
        "<boot dev='network'/><boot dev='cdrom'/><boot dev='hd'/>", DISK
        "<disk type='file' device='cdrom'><source file='/setup.iso'/>"
        "<target dev='sda'/></disk>"
        "<interface type='network'><mac address='52:54:00:00:00:01'/>"
        "<target dev='tap7'/></interface>"
        "<sound><address type='pci' bus='0x00' slot='0x19'/></sound>",
        "", &d, NULL, NULL);

    has(xml, "<name>d1</name><uuid>" UUID "</uuid>");
    lacks(xml, "id=\"7\"");
    lacks(xml, "Golden");
    has(xml, "<genid/>");
    has(xml, "<o xmlns=\"urn:o\"/>");
    lacks(xml, "catalog/>");
    has(xml, "<emulator>/our/qemu</emulator>");
    lacks(xml, "/m.raw");
    lacks(xml, "/setup.iso");
    lacks(xml, "52:54:00:00:00:01");
    lacks(xml, "tap7");
    lacks(xml, "<boot dev");
    has(xml, "<boot order=\"1\"/></interface>");
    has(xml, "&quot;bootindex&quot;:2,");
    has(xml, "&quot;addr&quot;:&quot;0x18&quot;");      /* 0x19 is taken */
    has(xml, "&quot;rerror&quot;:&quot;stop&quot;,"
        "&quot;werror&quot;:&quot;stop&quot;");
    has(xml, "path=/run/deskcast/d1/qmp,server=on");
    has(xml, "<source file=\"/vdi/d1.cidata\"/><target dev=\"sdb\" "
        "bus=\"sata\"/><readonly/>");
    has(xml, "&quot;write-cache-ram&quot;:4096");
    lacks(xml, "memfd");
}

static void test_vhost_user(void)
{
    DesktopMetadata d = metadata(MODEL_MCS, RUN_VHOST_USER);
    g_autofree char *xml = make("", DISK, "<memoryBacking><locked/>"
                                "</memoryBacking>", &d, NULL, NULL);

    has(xml, "<locked/><source type=\"memfd\"/><access mode=\"shared\"/>");
    has(xml, "<disk type=\"vhostuser\" device=\"disk\">");
    has(xml, "path=\"/run/deskcast/d1/vhost\"><reconnect enabled=\"yes\"");
    has(xml, "<target dev=\"vda\" bus=\"virtio\"/><boot order=\"1\"/>");
    has(xml, "<emulator>/usr/bin/qemu</emulator>");
    lacks(xml, "commandline");
}

/* A master that is being updated has our disk itself */
static void test_master_of_ours(void)
{
    DesktopMetadata d = metadata(MODEL_MCS, RUN_IN_PROCESS);
    g_autofree char *xml = make("", "",
        "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
        "<q:arg value='-blockdev'/><q:arg value='{\"driver\":\"pvs\",\"a\":1}'/>"
        "<q:arg value='-global'/><q:arg value='keep=this'/>"
        "<q:arg value='-mon'/><q:arg value='chardev=deskcast-qmp'/>"
        "</q:commandline>", &d, NULL, NULL);

    lacks(xml, "&quot;a&quot;:1");
    has(xml, "value=\"keep=this\"");
    CU_ASSERT_PTR_EQUAL(strstr(xml, "chardev=deskcast-qmp"),
                        g_strrstr(xml, "chardev=deskcast-qmp"));
}

static void test_refused(void)
{
    refuses("", NULL, "no disk");
    refuses(DISK "<disk device='disk'><target dev='vdb'/></disk>", NULL,
            "second disk, vdb");
    refuses(DISK, "vdc", "no disk 'vdc'");
    refuses(DISK "<tpm><backend type='passthrough'/></tpm>", NULL,
            "host's own TPM");
    refuses(DISK "<hostdev mode='subsystem' type='mdev'/>", NULL,
            "device of its host");
}

static void test_shared(void)
{
    DesktopMetadata d = metadata(MODEL_MCS, RUN_IN_PROCESS);
    g_autofree char *xml = make("", DISK
        "<disk device='disk'><source file='/tools'/><target dev='vdb'/>"
        "<readonly/></disk>"
        "<graphics type='vnc' port='5901' autoport='no' passwd='p'/>"
        "<serial type='file'><source path='/log/gold.txt'/></serial>"
        "<serial type='unix'><source path='/log/other'/></serial>"
        "<channel type='unix'><source mode='bind' path='/c'/>"
        "<target name='agent'/></channel>"
        "<vsock model='virtio'><cid auto='no' address='3'/></vsock>", "", &d, NULL, NULL);

    has(xml, "/tools");
    has(xml, "<boot order=\"100\"/>");
    lacks(xml, "5901");
    has(xml, "autoport=\"yes\" passwd=\"p\"");
    has(xml, "<source path=\"/log/d1.txt\"/>");
    has(xml, "<serial type=\"pty\"/>");
    has(xml, "<channel type=\"unix\"><target name=\"agent\"/></channel>");
    has(xml, "<cid auto=\"yes\"/>");
}

static void test_firmware(void)
{
    DesktopMetadata d = metadata(MODEL_MCS, RUN_IN_PROCESS);
    g_autofree char *xml = make("<nvram template='/t'>/n/gold.fd</nvram>", DISK,
                                "", &d, NULL, NULL);

    has(xml, "<nvram template=\"/n/gold.fd\">/vdi/d1.nvram</nvram>");
}

static void test_names(void)
{
    static const char *const bad[] = {
        "", "-a", "a-", "a b", "a/b", "a.b", "a\n", "\xc3\xa4", "..",
        "a123456789012345678901234567890123456789012345678901234567890123",
    };
    g_autoptr(GError) error = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        CU_ASSERT_FALSE(desktop_name_valid(bad[i], NULL));
    }
    CU_ASSERT(desktop_name_valid("Desk-01", NULL));
    CU_ASSERT_FALSE(desktop_name_valid("a/b", &error));
    has(error->message, "'a/b'");
}

static void test_blockdev(void)
{
    DesktopMetadata d = metadata(MODEL_PVS, RUN_IN_PROCESS);
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL, *tls = desktop_tls_object(&d);
    char *two[] = { "nbd://a:1", NULL };

    d.wanted = (WantedVersion) { .number = 3, .size = 4096, .root = ROOT };
    text = desktop_blockdev(&d, NULL);
    has(text, "\"path\":\"/run/100%%\"");
    has(text, "\"host\":\"::1\",\"port\":\"10809\"");
    has(text, "\"export\":\"win11@%v\"");
    has(text, "\"export\":\"win11@%v.tree\"");
    has(text, "\"host-cache\":\"/c%%d/%r.cache\"");
    has(text, "\"tls-creds\":\"deskcast-tls\"");
    has(tls, "\"endpoint\":\"client\"");
    d.lifetime = LIFETIME_PRIVATE;
    d.journal = "/vdi/j";
    CU_ASSERT_PTR_NULL(desktop_blockdev(&d, &error));
    has(error->message, "one writer");
    d.stores = two;
    g_free(text);
    text = desktop_blockdev(&d, NULL);
    has(text, "\"mode\":\"private\"");
    has(text, "\"export\":\"win11@3\"");
    has(text, "\"export\":\"win11@3.label\"");
    has(text, "\"journal\":{");
    lacks(text, "write-cache-ram");
    lacks(text, "host-cache");
    CU_ASSERT_PTR_NULL(desktop_tls_object(&d));
}

static void test_identity(void)
{
    Identity i = { .name = "d1", .uuid = UUID };
    g_autofree char *meta = identity_meta_data(&i);
    g_autofree char *vendor = identity_vendor_data(&i), *keys = NULL;
    g_autofree char *filled = identity_fill_in(&i, "a @@NAME@@ @@UUID@@ @@X@@");

    CU_ASSERT_STRING_EQUAL(meta, "instance-id: " UUID "\nlocal-hostname: d1\n");
    has(vendor, "\"11223344556677889" "9aabbccddeeff00\\n\"");
    lacks(vendor, "ssh_keys");
    i.host_key = (char *)"-----BEGIN\nabc\n-----END\n";
    i.host_key_public = (char *)"ssh-ed25519 AAAA d1\n";
    keys = identity_vendor_data(&i);
    has(keys, "  ed25519_private: |\n    -----BEGIN\n    abc\n    -----END\n"
        "  ed25519_public: |\n    ssh-ed25519 AAAA d1\n");
    CU_ASSERT_STRING_EQUAL(filled, "a d1 " UUID " @@X@@");
    CU_ASSERT(identity_answer_name_valid("Unattend.xml", NULL));
    CU_ASSERT_FALSE(identity_answer_name_valid("META-DATA", NULL));
    CU_ASSERT_FALSE(identity_answer_name_valid("../x", NULL));
    CU_ASSERT_FALSE(identity_answer_name_valid("-o", NULL));
    CU_ASSERT_FALSE(identity_answer_name_valid("", NULL));
}

static void test_limits(void)
{
    Host host = { .name = "kvm1", .write_cache = 100, .ram = 10 };
    DesktopMetadata d = { .write_cache = 40, .ram = 1 };
    g_autoptr(GError) error = NULL;
    HostLoad load = { 0 };

    limits_add(&load, &d);
    CU_ASSERT(limits_allow(&host, &load, &d, 1, NULL));
    CU_ASSERT_FALSE(limits_allow(&host, &load, &d, 2, &error));
    has(error->message, "disk for write caches");
    g_clear_error(&error);
    d.ram = 6;
    limits_add(&load, &d);
    d.write_cache = 20;
    CU_ASSERT_FALSE(limits_allow(&host, &load, &d, 1, &error));
    has(error->message, "memory for write caches");
    g_clear_error(&error);
    d.write_cache = UINT64_MAX / 2;
    CU_ASSERT_FALSE(limits_allow(&host, &load, &d, 4, NULL));
    d.write_cache = 0;
    CU_ASSERT_FALSE(limits_allow(&host, &load, &d, 1, &error));
    has(error->message, "--write-cache");
    g_clear_error(&error);
    host = (Host) { .name = "kvm2" };
    CU_ASSERT(limits_allow(&host, &load, &d, 1000, NULL));
    host.drained = true;
    CU_ASSERT_FALSE(limits_allow(&host, &load, &d, 1, &error));
    has(error->message, "drained");
}

static void test_relay_limit(void)
{
    Host host = { .name = "kvm1", .relay_bandwidth = 100 };
    DesktopMetadata d = { .model = MODEL_PVS, .lifetime = LIFETIME_POOLED,
                          .bandwidth = 40 };
    g_autoptr(GError) error = NULL;
    HostLoad load = { 0 };

    limits_add(&load, &d);
    CU_ASSERT(limits_allow(&host, &load, &d, 1, NULL));
    CU_ASSERT_FALSE(limits_allow(&host, &load, &d, 2, &error));
    has(error->message, "relay bandwidth");
    g_clear_error(&error);
    d.bandwidth = 0;
    CU_ASSERT_FALSE(limits_allow(&host, &load, &d, 1, &error));
    has(error->message, "--bandwidth");
    d.lifetime = LIFETIME_PRIVATE;
    CU_ASSERT(limits_allow(&host, &load, &d, 1, NULL));
    d.lifetime = LIFETIME_POOLED;
    d.model = MODEL_MCS;
    CU_ASSERT(limits_allow(&host, &load, &d, 1, NULL));
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "in QEMU", test_in_process },
        { "behind vhost-user", test_vhost_user },
        { "a master on our disk", test_master_of_ours },
        { "what cannot be shared", test_refused },
        { "what the master shares", test_shared },
        { "UEFI variables", test_firmware },
        { "names", test_names },
        { "the disk", test_blockdev },
        { "identity", test_identity },
        { "limits of a host", test_limits },
        { "limit of its relay", test_relay_limit },
        CU_TEST_INFO_NULL,
    };

    return run_suite("desktops", tests);
}

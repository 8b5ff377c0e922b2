/*
 * Hosts, what is wanted of a desktop, and what its disk says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/host/actual.h"
#include "cli/host/hosts.h"
#include "cli/host/plan.h"
#include "suite.h"

#include <string.h>

/* The list of hosts */

static void test_hosts(void)
{
    static const char text[] =
        "# ours\n[kvm1]\nuri = qemu+ssh://kvm1/system\nwrite-cache=200G\n"
        "ram= 16g \nstore=/srv/store\ndrained=true\n"
        "[here]\nuri=qemu:///system\nrelay-bandwidth=1048576\n";
    g_autoptr(GPtrArray) hosts = hosts_parse(text, strlen(text), NULL);
    const Host *a, *b;

    CU_ASSERT_FATAL(hosts && hosts->len == 2);
    a = g_ptr_array_index(hosts, 0);
    b = hosts_find(hosts, "here", NULL);
    CU_ASSERT_STRING_EQUAL(a->uri, "qemu+ssh://kvm1/system");
    CU_ASSERT_EQUAL(a->write_cache, UINT64_C(200) << 30);
    CU_ASSERT_EQUAL(a->ram, UINT64_C(16) << 30);
    CU_ASSERT_STRING_EQUAL(a->store, "/srv/store");
    CU_ASSERT_TRUE(a->drained && !host_is_local(a));
    CU_ASSERT_EQUAL(b->relay_bandwidth, 1 << 20);
    CU_ASSERT_TRUE(!b->drained && host_is_local(b) && !b->store);
}

static void refused(const char *text, const char *what)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *hosts = hosts_parse(text, strlen(text), &error);

    CU_ASSERT_PTR_NULL_FATAL(hosts);
    CU_ASSERT_PTR_NOT_NULL(strstr(error->message, what));
}

static void test_bad_hosts(void)
{
    refused("", "no host");
    refused("[a]\n", "[a] uri: is missing");
    refused("[a]\nuri=nonsense\n", "not a URI");
    refused("[a]\nuri=qemu:///system\nwrit-cache=1G\n", "[a] writ-cache");
    refused("[a]\nuri=qemu:///system\nram=-1\n", "[a] ram: not a size");
    refused("[a]\nuri=qemu:///system\nram=1Gb\n", "not a size");
    refused("[a]\nuri=qemu:///system\nram=99999999P\n", "not a size");
    refused("[a]\nuri=qemu:///system\ndrained=perhaps\n", "true nor false");
    refused("[a]\nuri=qemu:///system\nstore=srv\n", "absolute");
    refused("uri=qemu:///system\n", "group");
}

/* What is wanted */

static WantedVersion version(uint64_t number)
{
    return (WantedVersion){ .number = number, .size = 4096 * number };
}

static void test_held(void)
{
    CatalogMetadata c = { 0 };

    CU_ASSERT_FALSE(plan_note_back(&c, 13, 100, false, true));
    CU_ASSERT_FALSE(plan_held(&c, 13, 100));
    CU_ASSERT_TRUE(plan_note_back(&c, 13, 100, true, true));
    CU_ASSERT_FALSE(plan_note_back(&c, 13, 100, true, true));
    CU_ASSERT_TRUE(plan_held(&c, 13, 100));
    CU_ASSERT_FALSE(plan_held(&c, 13, 101));    /* released anew */
    CU_ASSERT_FALSE(plan_held(&c, 14, 100));
    CU_ASSERT_FALSE(plan_note_back(&c, 12, 50, false, false));
    CU_ASSERT_TRUE(plan_held(&c, 13, 100));
    CU_ASSERT_TRUE(plan_note_back(&c, 13, 100, false, false));
    CU_ASSERT_FALSE(plan_held(&c, 13, 100));
    CU_ASSERT_TRUE(plan_note_back(&c, 13, 100, true, false));
    CU_ASSERT_TRUE(plan_note_back(&c, 12, 50, false, true));    /* reverted */
    CU_ASSERT_FALSE(plan_held(&c, 13, 100));
}

static void test_push_and_back(void)
{
    DesktopMetadata d = { .wanted = version(12) };
    WantedVersion to = version(13);

    CU_ASSERT_TRUE(plan_push(&d, &to));
    CU_ASSERT_TRUE(d.wanted.number == 13 && d.previous.number == 12);
    CU_ASSERT_FALSE(plan_push(&d, &to));        /* repeated */
    CU_ASSERT_TRUE(d.wanted.number == 13 && d.previous.number == 12);
    CU_ASSERT_TRUE(plan_rollback(&d));
    CU_ASSERT_TRUE(d.wanted.number == 12 && d.wanted.size == 12 * 4096);
    CU_ASSERT_FALSE(plan_rollback(&d));         /* repeated */
    CU_ASSERT_TRUE(d.wanted.number == 12);
    CU_ASSERT_FALSE(plan_follows(&d, 12));
    CU_ASSERT_FALSE(plan_follows(&d, 13));      /* that was gone back from */
    CU_ASSERT_TRUE(plan_follows(&d, 14));
}

static void test_first_push(void)
{
    DesktopMetadata d = { 0 };
    WantedVersion to = version(1);

    CU_ASSERT_FALSE(plan_rollback(&d));
    CU_ASSERT_TRUE(plan_follows(&d, 1));
    CU_ASSERT_TRUE(plan_push(&d, &to));
    CU_ASSERT_FALSE(plan_rollback(&d));
    CU_ASSERT_EQUAL(d.wanted.number, 1);
}

/* The same version at another place, as after staging */
static void test_moved(void)
{
    DesktopMetadata d = { .wanted = version(12), .previous = version(11) };
    WantedVersion to = version(12);

    to.image = g_strdup("/elsewhere/win/12.qcow2");
    CU_ASSERT_TRUE(plan_push(&d, &to));
    CU_ASSERT_STRING_EQUAL(d.wanted.image, "/elsewhere/win/12.qcow2");
    CU_ASSERT_EQUAL(d.previous.number, 11);
    wanted_clear(&to);
    wanted_clear(&d.wanted);
}

static void test_fits(void)
{
    CatalogMetadata c = { .catalog = (char *)"c", .vdisk = (char *)"win",
                          .model = MODEL_MCS };
    DesktopMetadata d = { .catalog = (char *)"c", .vdisk = (char *)"win",
                          .model = MODEL_MCS, .lifetime = LIFETIME_POOLED };
    g_autoptr(GError) error = NULL;

    CU_ASSERT_TRUE(plan_fits(&c, &d, NULL));
    d.model = MODEL_PVS;
    CU_ASSERT_FALSE(plan_fits(&c, &d, &error));
    CU_ASSERT_PTR_NOT_NULL(strstr(error->message, "model pvs"));
    d.model = MODEL_MCS;
    d.vdisk = (char *)"deb";
    CU_ASSERT_FALSE(plan_fits(&c, &d, NULL));
    d.vdisk = (char *)"win";
    d.lifetime = LIFETIME_DEDICATED;
    CU_ASSERT_FALSE(plan_fits(&c, &d, NULL));
}

/* What a disk says */

static void test_mcs(void)
{
    static const char answer[] =
        "{\"return\":[{\"node-name\":\"other\",\"resets\":9},"
        "{\"node-name\":\"disk0\",\"driver\":\"mcs\",\"virtual-size\":4096,"
        "\"image\":{\"filename\":\"/s/vdisks/win/12.qcow2\","
        "\"format\":\"qcow2\"},\"assigned\":{\"filename\":\"/b/new.qcow2\","
        "\"format\":\"qcow2\"},\"layer-bytes\":1,\"resets\":3}]}";
    DesktopMetadata d = { .vdisk = (char *)"win", .node = (char *)"disk0",
                          .model = MODEL_MCS };
    g_auto(Actual) a = { 0 };
    WantedVersion w = { .number = 12, .image = (char *)"/s/vdisks/win/12.qcow2" };

    d.wanted = (WantedVersion){ .number = 13, .image = (char *)"/b/new.qcow2" };
    CU_ASSERT_TRUE_FATAL(actual_from_qmp(&a, answer, &d, NULL));
    CU_ASSERT_TRUE(a.known && a.resets == 3);
    CU_ASSERT_EQUAL(a.version, 12);     /* by its name */
    CU_ASSERT_EQUAL(a.assigned, 13);    /* by what is wanted */
    CU_ASSERT_TRUE(actual_is(&a, &d, &w));
    CU_ASSERT_FALSE(actual_is(&a, &d, &d.wanted));
}

static void test_pvs(void)
{
    static const char answer[] =
        "{\"return\":[{\"node-name\":\"disk0\",\"driver\":\"pvs\","
        "\"virtual-size\":1000,\"resets\":1,\"pvs\":{\"mode\":\"standard\","
        "\"version\":12,\"assigned-version\":13,\"outage-ms\":5000,"
        "\"denied-ms\":70,\"stops-on-error\":false,"
        "\"budget\":{\"local-bytes\":500,\"boot-bytes\":100,"
        "\"boot-local-bytes\":50}}}]}";
    DesktopMetadata d = { .node = (char *)"disk0", .model = MODEL_PVS };
    g_auto(Actual) a = { 0 };

    CU_ASSERT_TRUE_FATAL(actual_from_qmp(&a, answer, &d, NULL));
    CU_ASSERT_TRUE(a.version == 12 && a.assigned == 13 && a.resets == 1);
    CU_ASSERT_TRUE(a.in_outage && a.outage_ms == 5000 && a.unprotected);
    CU_ASSERT_EQUAL(a.denied_ms, 70);
    CU_ASSERT_TRUE(a.has_budget && a.local_bytes == 500 && a.size == 1000);
    CU_ASSERT_TRUE(a.has_boot && a.boot_local_bytes == 50);
}

/* Nothing that a QEMU answers may hurt */
static void test_nonsense(void)
{
    static const char *const answers[] = {
        "", "{", "[]", "7", "null", "{\"return\":{}}", "{\"return\":[7]}",
        "{\"return\":[[]]}", "{\"return\":[{\"node-name\":7}]}",
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}",
    };
    DesktopMetadata d = { .node = (char *)"disk0", .vdisk = (char *)"win" };
    g_auto(Actual) a = { 0 };

    for (size_t i = 0; i < G_N_ELEMENTS(answers); i++) {
        g_autoptr(GError) error = NULL;

        CU_ASSERT_FALSE(actual_from_qmp(&a, answers[i], &d, &error));
        CU_ASSERT_TRUE(error && !a.known);
    }
    CU_ASSERT_TRUE(actual_from_qmp(&a, "{\"return\":[{\"node-name\":\"disk0\","
                                   "\"image\":[],\"pvs\":{\"budget\":4,"
                                   "\"version\":\"12\"}}]}", &d, NULL));
    CU_ASSERT_TRUE(a.known && !a.version && !a.has_budget);
}

static void test_names(void)
{
    static const struct {
        const char *image;
        uint64_t version;
    } names[] = {
        { "/s/vdisks/win/12.raw", 12 }, { "/s/vdisks/win/12", 0 },
        { "/s/vdisks/deb/12.raw", 0 }, { "/s/vdisks/win/x.raw", 0 },
        { "12.raw", 0 }, { "/s/vdisks/win/-1.raw", 0 },
        { "/s/vdisks/win/99999999999999999999.raw", 0 },
    };
    DesktopMetadata d = { .vdisk = (char *)"win" };
    VdiskHeader h = { .role = VDISK_ROLE_MCS };
    g_auto(Actual) a = { 0 };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_strlcpy(h.base.name, names[i].image, sizeof(h.base.name));
        actual_from_header(&a, &h, &d);
        CU_ASSERT_EQUAL(a.version, names[i].version);
        CU_ASSERT_STRING_EQUAL(a.image, names[i].image);
    }
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "the list of hosts", test_hosts },
        { "lists of hosts that are wrong", test_bad_hosts },
        { "what went back", test_held },
        { "push, rollback and follow", test_push_and_back },
        { "the first push", test_first_push },
        { "the same version at another place", test_moved },
        { "desktops of another kind", test_fits },
        { "query-vdisks: mcs", test_mcs },
        { "query-vdisks: pvs", test_pvs },
        { "query-vdisks: nonsense", test_nonsense },
        { "versions in names", test_names },
        CU_TEST_INFO_NULL
    };

    return run_suite("host-plan", tests);
}

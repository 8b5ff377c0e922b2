/*
 * What is told of a host's desktops from one look to the next
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/message-id.h"
#include "cli/watch/host-change.h"
#include "suite.h"

#include <string.h>

#define UP      "\"up\""
#define DOWN    "\"down\""
#define SUSPECT "\"suspect\""

/* A desktop that runs, with @pvs as what its disk says; NULL: it is silent */
static void add(HostSample *h, const char *name, const char *pvs)
{
    g_autofree char *json = g_strdup_printf(
        "[{\"node-name\":\"disk0\",\"pvs\":{%s}}]", pvs ? pvs : "");
    g_autoptr(JsonNode) answer = json_from_string(json, NULL);
    DesktopMetadata *m = desktop_metadata_parse(
        "<deskcast:desktop xmlns:deskcast='" METADATA_NAMESPACE "' format='1' "
        "catalog='office' vdisk='win' model='pvs' lifetime='pooled' "
        "run='in-process'><deskcast:disk path='/d' node='disk0'/>"
        "<deskcast:monitor path='/m'/></deskcast:desktop>", NULL);
    DesktopSample *d = desktop_sample_new(name, m, true);

    CU_ASSERT_PTR_NOT_NULL_FATAL(m);
    if (pvs) {
        CU_ASSERT_TRUE_FATAL(desktop_sample_take(d, answer));
    } else {
        d->trouble = g_strdup("it hangs");
    }
    g_ptr_array_add(h->desktops, d);
}

static HostSample *host(const char *pvs)
{
    HostSample *h = host_sample_new();

    add(h, "d1", pvs);
    return h;
}

static void note(void *opaque, const HostChange *c)
{
    GString *s = opaque;

    CU_ASSERT_PTR_NOT_NULL(strstr(c->text, c->desktop));
    g_string_append_printf(s, "%s %s %s\n", c->id, c->desktop,
                           c->store ? c->store : "-");
}

/* What is told between the two is @expected; takes both */
static void expect(HostSample *before, HostSample *now, const char *expected)
{
    g_autoptr(GString) told = g_string_new(NULL);

    host_changes(before, now, note, told);
    CU_ASSERT_STRING_EQUAL(told->str, expected);
    host_sample_free(before);
    host_sample_free(now);
}

#define STORE(state) "\"stores\":[{\"name\":\"nbd://s/e\",\"tree\":false," \
                     "\"state\":" state "}]"

static void test_outage(void)
{
    const char *well = "\"version\":12," STORE(UP);
    const char *away = "\"version\":12,\"outage-ms\":500," STORE(UP);
    const char *denied = "\"version\":12,\"denied-ms\":500," STORE(UP);

    expect(host(well), host(away), MESSAGE_OUTAGE " d1 -\n");
    expect(NULL, host(away), MESSAGE_OUTAGE " d1 -\n");
    expect(host(away), host(away), "");
    expect(host(away), host(well), MESSAGE_OUTAGE_OVER " d1 -\n");
    expect(NULL, host(well), "");
    /* Behind a relay that has no store */
    expect(host(well), host(denied), MESSAGE_OUTAGE " d1 -\n");
    expect(host(denied), host(away), "");
    expect(host(denied), host(well), MESSAGE_OUTAGE_OVER " d1 -\n");
}

static void test_stores(void)
{
    expect(host(STORE(UP)), host(STORE(DOWN)),
           MESSAGE_STORE_DOWN " d1 nbd://s\n");
    expect(host(STORE(SUSPECT)), host(STORE(DOWN)),
           MESSAGE_STORE_DOWN " d1 nbd://s\n");
    expect(host(STORE(DOWN)), host(STORE(UP)), MESSAGE_STORE_UP " d1 nbd://s\n");
    expect(host(STORE(UP)), host(STORE(SUSPECT)), "");
    expect(host(STORE(SUSPECT)), host(STORE(UP)), "");
    expect(host(STORE(DOWN)), host(STORE(DOWN)), "");
    expect(NULL, host(STORE(DOWN)), MESSAGE_STORE_DOWN " d1 nbd://s\n");
}

static void test_silence(void)
{
    expect(host(""), host(NULL), MESSAGE_SILENT " d1 -\n");
    expect(host(NULL), host(NULL), "");
    expect(host(NULL), host(""), MESSAGE_ANSWERS " d1 -\n");
    expect(NULL, host(NULL), MESSAGE_SILENT " d1 -\n");
    expect(NULL, host(""), "");
}

static void test_others(void)
{
    expect(host("\"version\":12"), host("\"version\":13"),
           MESSAGE_VERSION " d1 -\n");
    expect(host("\"corrupt\":1"), host("\"corrupt\":2"),
           MESSAGE_CORRUPT " d1 -\n");
    expect(host("\"corrupt\":2"), host("\"corrupt\":2"), "");
    expect(host("\"fenced\":false"), host("\"fenced\":true"),
           MESSAGE_FENCED " d1 -\n");
    expect(host("\"buffer\":{\"broken\":false}"),
           host("\"buffer\":{\"broken\":true}"), MESSAGE_BROKEN " d1 -\n");
}

/* Each is compared with itself, whoever came and went meanwhile */
static void test_names(void)
{
    HostSample *before = host_sample_new(), *now = host_sample_new();

    add(before, "a", "");
    add(before, "c", "\"version\":1");
    add(before, "d", NULL);
    add(before, "e", "\"version\":1");
    add(now, "b", NULL);
    add(now, "c", "\"version\":2");
    add(now, "d", "");
    add(now, "f", "\"version\":2");
    expect(before, now, MESSAGE_SILENT " b -\n" MESSAGE_VERSION " c -\n"
           MESSAGE_ANSWERS " d -\n");
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "outage", test_outage },
        { "stores", test_stores },
        { "silence", test_silence },
        { "others", test_others },
        { "names", test_names },
        CU_TEST_INFO_NULL,
    };

    return run_suite("host-change", tests);
}

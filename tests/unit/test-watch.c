/*
 * What desktops say of themselves, and the metrics that it becomes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/watch/host-json.h"
#include "suite.h"

#include <locale.h>
#include <math.h>
#include <string.h>

static void has(const char *text, const char *line)
{
    g_autofree char *whole = g_strdup_printf("\n%s\n", line);

    if (!strstr(text, whole)) {
        CU_FAIL("a line is there");
        printf("  '%s' is not in:\n%s", line, text);
    }
}

/* The text format */

static const Metric gauge = { "a_bytes", "Of a.", false };
static const Metric counter = { "b_total", "Of b.", true };

static void test_families(void)
{
    static const char *const labels[] = { "x", "1", "y", "2", NULL };
    g_autoptr(MetricPage) p = metric_page_new();
    g_autofree char *text = NULL;

    metric_add(p, &gauge, 1, NULL);
    metric_add(p, &counter, 2, labels);
    metric_add(p, &gauge, 3, labels);
    text = metric_page_text(p);
    CU_ASSERT_STRING_EQUAL(text,
        "# HELP a_bytes Of a.\n# TYPE a_bytes gauge\n"
        "a_bytes 1\na_bytes{x=\"1\",y=\"2\"} 3\n"
        "# HELP b_total Of b.\n# TYPE b_total counter\n"
        "b_total{x=\"1\",y=\"2\"} 2\n");
}

static char *of_label(const char *value)
{
    const char *const labels[] = { "x", value, NULL };
    g_autoptr(MetricPage) p = metric_page_new();
    g_autofree char *text = NULL;

    metric_add(p, &gauge, 0, labels);
    text = metric_page_text(p);
    return g_strdup(strchr(text, '{'));
}

static void expect(char *got, const char *text)
{
    CU_ASSERT_STRING_EQUAL(got, text);
    g_free(got);
}

static void test_labels(void)
{
    g_autofree char *wide = g_strnfill(METRIC_LABEL_MAX - 1, 'a');
    g_autofree char *cut = g_strconcat(wide, "é", "tail", NULL);
    g_autofree char *is = NULL;

    expect(of_label("a\"b\\c\nd"), "{x=\"a\\\"b\\\\c\\nd\"} 0\n");
    expect(of_label("a\xffz"), "{x=\"a\xef\xbf\xbdz\"} 0\n");
    expect(of_label(""), "{x=\"\"} 0\n");
    expect(of_label(NULL), "{x=\"\"} 0\n");
    /* No half of a character, and nothing behind it */
    is = of_label(cut);
    CU_ASSERT_TRUE(g_utf8_validate(is, -1, NULL));
    CU_ASSERT_PTR_NULL(strstr(is, "tail"));
}

static void number(double value, const char *text)
{
    g_autoptr(MetricPage) p = metric_page_new();
    g_autofree char *all = NULL;

    metric_add(p, &gauge, value, NULL);
    all = metric_page_text(p);
    CU_ASSERT_STRING_EQUAL(strrchr(g_strchomp(all), ' ') + 1, text);
}

static void test_numbers(void)
{
    setlocale(LC_ALL, "");
    number(0.1, "0.1");
    number(0.000001, "1e-06");
    number(68719476736, "68719476736");
    number(9007199254740992, "9007199254740992");
    number(NAN, "NaN");
    number(INFINITY, "+Inf");
}

/* What a disk says */

static VdiskSample *sample(const char *json, const char *node)
{
    g_autoptr(JsonNode) root = json_from_string(json, NULL);

    return vdisk_sample_parse(root, node);
}

static void test_mcs(void)
{
    g_autoptr(VdiskSample) s = sample(
        "[{\"node-name\":\"other\"},{\"node-name\":\"disk0\","
        "\"driver\":\"mcs\",\"virtual-size\":1024,"
        "\"image\":{\"filename\":\"/a/12.raw\",\"format\":\"raw\"},"
        "\"layer-bytes\":8192,\"resets\":3,\"admits-clients\":true,"
        "\"write-cache-ram\":{\"size\":10,\"used\":5,\"memory\":6}}]", "disk0");

    CU_ASSERT_PTR_NOT_NULL_FATAL(s);
    CU_ASSERT_FALSE(s->is_streamed);
    CU_ASSERT_STRING_EQUAL(s->image, "/a/12.raw");
    CU_ASSERT_PTR_NULL(s->assigned_image);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_SIZE), 1024);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_RESETS), 3);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_ADMITS), 1);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_RAM_MEMORY), 6);
    /* Nothing of pvs: neither 0 nor anything else */
    for (int i = VALUE_CACHE_USABLE; i < VDISK_VALUES; i++) {
        CU_ASSERT_FALSE(s->has[i]);
    }
}

static const char streamed[] =
    "[{\"node-name\":\"disk0\",\"driver\":\"pvs\",\"virtual-size\":4096,"
    "\"layer-bytes\":1,\"resets\":0,\"admits-clients\":true,\"pvs\":{"
    "\"mode\":\"private\",\"version\":13,\"assigned-version\":14,\"stores\":["
    "{\"name\":\"nbd://a:1/win@13\",\"tree\":false,\"state\":\"up\","
    "\"latency\":1500,\"reads\":7,\"bytes\":4096,\"errors\":2},"
    "{\"name\":\"nbd://a:1/win@13b\",\"tree\":false,\"state\":\"down\","
    "\"latency\":0,\"reads\":0,\"bytes\":0,\"errors\":1},"
    "{\"name\":\"nbd+unix:///win@13.tree?socket=/run/r\",\"tree\":true,"
    "\"state\":\"suspect\",\"latency\":0,\"reads\":0,\"bytes\":0,"
    "\"errors\":0}],"
    "\"host-cache\":{\"filename\":\"/c\",\"owner\":false,\"usable\":true,"
    "\"full\":false,\"hit-bytes\":30,\"miss-bytes\":10,\"filled-bytes\":0},"
    "\"budget\":{\"local-bytes\":2048},\"outage-action\":\"pause\","
    "\"outage-ms\":1500,\"stops-on-error\":false,\"corrupt\":1,"
    "\"fenced\":false,\"buffer\":{\"size\":100,\"used\":50,\"lag-bytes\":40,"
    "\"lag-ms\":2500,\"epochs-shipped\":3,\"bytes-shipped\":9,\"broken\":false,"
    "\"stuck\":\"it is full\",\"window\":true,\"reserve\":12,"
    "\"store-durable\":true}}}]";

static void test_pvs(void)
{
    g_autoptr(VdiskSample) s = sample(streamed, "disk0");
    const StoreSample *a, *b, *tree;

    CU_ASSERT_PTR_NOT_NULL_FATAL(s);
    CU_ASSERT_TRUE(s->is_streamed && s->is_private);
    CU_ASSERT_EQUAL(s->version, 13);
    CU_ASSERT_EQUAL(s->assigned, 14);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_OUTAGE), 1.5);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_LAG), 2.5);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_STUCK), 1);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_CACHE_HIT), 30);
    CU_ASSERT_TRUE(s->has[VALUE_STOPS] && !s->has[VALUE_BOOT]);
    CU_ASSERT_EQUAL_FATAL(s->stores->len, 3);
    a = g_ptr_array_index(s->stores, 0);
    b = g_ptr_array_index(s->stores, 1);
    tree = g_ptr_array_index(s->stores, 2);
    CU_ASSERT_STRING_EQUAL(a->name, "nbd://a:1");
    CU_ASSERT_STRING_EQUAL(b->name, "nbd://a:1#2");
    CU_ASSERT_STRING_EQUAL(tree->name, "nbd+unix:///?socket=/run/r");
    CU_ASSERT_DOUBLE_EQUAL(a->value[STORE_LATENCY], 0.0015, 0.000000001);
    CU_ASSERT_EQUAL(a->value[STORE_ERRORS], 2);
    CU_ASSERT_TRUE(a->health == HEALTH_UP && b->health == HEALTH_DOWN &&
                   tree->health == HEALTH_SUSPECT && tree->tree);
}

static void test_no_outage(void)
{
    g_autoptr(VdiskSample) s = sample(
        "[{\"node-name\":\"d\",\"pvs\":{\"version\":1}}]", "d");

    CU_ASSERT_PTR_NOT_NULL_FATAL(s);
    CU_ASSERT_TRUE(s->has[VALUE_OUTAGE] && s->value[VALUE_OUTAGE] == 0);
    CU_ASSERT_TRUE(s->has[VALUE_DENIED] && s->value[VALUE_DENIED] == 0);
    CU_ASSERT_FALSE(s->has[VALUE_STUCK]);       /* there is no buffer */
}

static void test_nonsense(void)
{
    static const char *const answers[] = {
        "{}", "[]", "[1,null,\"x\"]", "[{\"node-name\":1}]", "1", "[[]]",
    };

    CU_ASSERT_PTR_NULL(vdisk_sample_parse(NULL, "d"));
    for (size_t i = 0; i < G_N_ELEMENTS(answers); i++) {
        CU_ASSERT_PTR_NULL(sample(answers[i], "d"));
    }
    /* Of other types than they should be, and below nothing */
    g_autoptr(VdiskSample) s = sample(
        "[{\"node-name\":\"d\",\"virtual-size\":\"x\",\"resets\":-5,"
        "\"layer-bytes\":true,\"pvs\":{\"stores\":[1,{}],\"budget\":[],"
        "\"version\":-1,\"buffer\":null}}]", "d");

    CU_ASSERT_PTR_NOT_NULL_FATAL(s);
    CU_ASSERT_FALSE(s->has[VALUE_SIZE] || s->has[VALUE_LAYER] ||
                    s->has[VALUE_LOCAL] || s->has[VALUE_BROKEN]);
    CU_ASSERT_EQUAL(vdisk_sample_get(s, VALUE_RESETS), 0);
    CU_ASSERT_EQUAL(s->version, 0);
    CU_ASSERT_EQUAL(s->stores->len, 1);
}

/* A host */

static DesktopMetadata *metadata(const char *model)
{
    g_autofree char *xml = g_strdup_printf(
        "<deskcast:desktop xmlns:deskcast='" METADATA_NAMESPACE "' "
        "format='1' catalog='office' vdisk='win' model='%s' "
        "lifetime='pooled' run='in-process'>"
        "<deskcast:disk path='/d' node='disk0'/>"
        "<deskcast:monitor path='/m'/>"
        "<deskcast:wanted number='14' size='4096'%s/></deskcast:desktop>",
        model, strcmp(model, "mcs") ? ""
                                    : " image='/s/14.raw' format='raw'");

    return desktop_metadata_parse(xml, NULL);
}

static void test_host(void)
{
    g_autoptr(HostSample) h = host_sample_new();
    g_autoptr(JsonNode) answer = json_from_string(streamed, NULL);
    DesktopSample *on = desktop_sample_new("on", metadata("pvs"), true);
    g_autofree char *text = NULL;

    h->libvirt_up = true;
    g_ptr_array_add(h->desktops, on);
    g_ptr_array_add(h->desktops,
                    desktop_sample_new("off", metadata("mcs"), false));
    g_ptr_array_add(h->desktops, desktop_sample_new("bad", NULL, true));
    CU_ASSERT_TRUE_FATAL(desktop_sample_take(on, answer));
    text = host_sample_metrics(h);
    has(text, "deskcast_desktop_up{desktop=\"on\",vdisk=\"win\"} 1");
    has(text, "deskcast_vdisk_version{desktop=\"on\",vdisk=\"win\"} 13");
    has(text, "deskcast_vdisk_wanted_version{desktop=\"on\",vdisk=\"win\"} 14");
    has(text, "deskcast_budget_local_bytes{desktop=\"on\",vdisk=\"win\","
        "version=\"13\"} 2048");
    has(text, "deskcast_store_state{desktop=\"on\",vdisk=\"win\","
        "store=\"nbd://a:1\",content=\"data\",state=\"up\"} 1");
    has(text, "deskcast_desktop_info{desktop=\"on\",vdisk=\"win\","
        "version=\"13\",catalog=\"office\",model=\"pvs\",lifetime=\"pooled\","
        "run=\"in-process\"} 1");
    has(text, "deskcast_desktop_running{desktop=\"off\",vdisk=\"win\"} 0");
    has(text, "deskcast_desktop_up{desktop=\"bad\",vdisk=\"\"} 0");
    CU_ASSERT_PTR_NULL(strstr(text, "deskcast_desktop_up{desktop=\"off\""));
    CU_ASSERT_PTR_NULL(strstr(text, "relay"));
}

static void test_other_node(void)
{
    g_autoptr(JsonNode) answer = json_from_string("[{\"node-name\":\"x\"}]",
                                                  NULL);
    DesktopSample *d = desktop_sample_new("d", metadata("mcs"), true);

    CU_ASSERT_FALSE(desktop_sample_take(d, answer));
    CU_ASSERT_TRUE(!d->up && strstr(d->trouble, "disk0"));
    desktop_sample_free(d);
}

#define CHANNEL(state) "<channel type='unix'>\n<target type='virtio' " \
                       "name='org.qemu.guest_agent.0'" state "/>\n</channel>"

static void test_agent(void)
{
    const char *other = "<target type='virtio' name='x' state='connected'/>";
    g_autofree char *behind = g_strconcat(CHANNEL(""), other, NULL);

    CU_ASSERT_EQUAL(guest_agent_of_xml(CHANNEL(" state='connected'")),
                    AGENT_CONNECTED);
    CU_ASSERT_EQUAL(guest_agent_of_xml(CHANNEL(" state='disconnected'")),
                    AGENT_AWAY);
    CU_ASSERT_EQUAL(guest_agent_of_xml(CHANNEL("")), AGENT_AWAY);
    CU_ASSERT_EQUAL(guest_agent_of_xml(behind), AGENT_AWAY);
    CU_ASSERT_EQUAL(guest_agent_of_xml(other), AGENT_UNKNOWN);
    CU_ASSERT_EQUAL(guest_agent_of_xml(""), AGENT_UNKNOWN);
}

static void test_relay(void)
{
    static const char json[] =
        "{\"size\":100,\"used\":50,\"bandwidth\":0,\"versions\":[{\"export\":"
        "\"win@13\",\"root\":\"0\",\"size\":4096,\"data\":1,\"served\":true,"
        "\"hydrated\":false},7],\"stores\":[{\"uri\":\"nbd://a\","
        "\"reachable\":true}]}";
    g_autoptr(HostSample) h = host_sample_new();
    g_autofree char *text = NULL, *deep = NULL;

    CU_ASSERT_PTR_NULL(relay_sample_parse("[]", 2));
    CU_ASSERT_PTR_NULL(relay_sample_parse("{", 1));
    CU_ASSERT_PTR_NULL(relay_sample_parse("", 0));
    /* A relay that was taken over must not take the stack of who asks it */
    deep = g_strnfill(1 << 20, '[');
    memcpy(deep, "/*\"*/", 5);
    CU_ASSERT_PTR_NULL(relay_sample_parse(deep, 1 << 20));
    h->relay = relay_sample_parse(json, strlen(json));
    CU_ASSERT_PTR_NOT_NULL_FATAL(h->relay);
    text = host_sample_metrics(h);
    has(text, "deskcast_relay_cache_used_bytes 50");
    has(text, "deskcast_relay_version_served{export=\"win@13\"} 1");
    has(text, "deskcast_relay_version_hydrated{export=\"win@13\"} 0");
    has(text, "deskcast_relay_store_reachable{store=\"nbd://a\"} 1");
}

/* What was recorded, changed by somebody, and read for a report */

static HostSample *recorded(const char *format, ...)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    return host_sample_from_json(text, strlen(text), &err);
}

/* One letter, and @n characters of two bytes each */
static char *long_name(unsigned n)
{
    GString *s = g_string_new("x");

    while (n--) {
        g_string_append(s, "\u00e9");
    }
    return g_string_free(s, FALSE);
}

static void test_recorded_names(void)
{
    g_autofree char *name = long_name(400);
    g_autofree char *vdisk = long_name(127), *store = long_name(127);
    g_autoptr(HostSample) s = recorded(
        "{\"time\":1,\"desktops\":[{\"desktop\":\"%s\",\"vdisk\":\"%s\","
        "\"up\":true,\"stores\":[{\"store\":\"%s\"}]}]}", name, name, name);
    const DesktopSample *d;
    const StoreSample *in_it;

    CU_ASSERT_PTR_NOT_NULL_FATAL(s);
    CU_ASSERT_EQUAL_FATAL(s->desktops->len, 1);
    d = g_ptr_array_index(s->desktops, 0);
    CU_ASSERT_STRING_EQUAL(d->name, name);
    CU_ASSERT_STRING_EQUAL(d->vdisk, vdisk);
    CU_ASSERT_EQUAL_FATAL(d->disk->stores->len, 1);
    in_it = g_ptr_array_index(d->disk->stores, 0);
    CU_ASSERT_STRING_EQUAL(in_it->name, store);
}

static void test_recorded_twice(void)
{
    g_autoptr(HostSample) s = recorded(
        "{\"time\":1,\"desktops\":[{\"desktop\":\"a\",\"vdisk\":\"v\"},"
        "{\"desktop\":\"a\",\"vdisk\":\"w\"},{\"vdisk\":\"x\"},"
        "{\"desktop\":\"b\",\"vdisk\":\"y\"}]}");
    const DesktopSample *a;

    CU_ASSERT_PTR_NOT_NULL_FATAL(s);
    CU_ASSERT_EQUAL(s->desktops->len, 2);
    a = host_sample_find(s, "a");
    CU_ASSERT_PTR_NOT_NULL_FATAL(a);
    CU_ASSERT_STRING_EQUAL(a->vdisk, "v");
    CU_ASSERT_PTR_NOT_NULL(host_sample_find(s, "b"));
}

static void test_recorded_numbers(void)
{
    static const char *const none[] = { "-1", "1e300", "1e999", "\"1\"", "{}" };

    for (size_t i = 0; i < G_N_ELEMENTS(none); i++) {
        g_autoptr(HostSample) s = recorded(
            "{\"time\":1,\"desktops\":[{\"desktop\":\"a\",\"up\":true,"
            "\"resets_total\":2.5,\"buffer_lag_bytes\":%s}]}", none[i]);
        const VdiskSample *disk;

        CU_ASSERT_PTR_NOT_NULL_FATAL(s);
        disk = host_sample_find(s, "a")->disk;
        CU_ASSERT_PTR_NOT_NULL_FATAL(disk);
        CU_ASSERT_FALSE(disk->has[VALUE_LAG_BYTES]);
        CU_ASSERT_EQUAL(vdisk_sample_get(disk, VALUE_RESETS), 2.5);
        CU_ASSERT_PTR_NULL(recorded("{\"time\":%s}", none[i]));
    }
    CU_ASSERT_PTR_NULL(recorded("[]"));
}

/* Whatever a disk says of itself, what is recorded of a host can be read */
static void test_recorded_size(void)
{
    g_autoptr(HostSample) h = host_sample_new();
    g_autoptr(HostSample) again = NULL;
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *text = NULL;
    DesktopSample *d = desktop_sample_new("a", NULL, true);

    d->up = true;
    d->disk = sample("[{\"node-name\":\"disk0\",\"layer-bytes\":0,"
                     "\"virtual-size\":1000000000000000000}]", "disk0");
    CU_ASSERT_PTR_NOT_NULL_FATAL(d->disk);
    g_ptr_array_add(h->desktops, d);
    json_node_take_object(root, host_sample_json(h));
    text = json_to_string(root, false);
    again = recorded("%s", text);
    CU_ASSERT_PTR_NOT_NULL_FATAL(again);
    d = g_ptr_array_index(again->desktops, 0);
    CU_ASSERT_EQUAL(vdisk_sample_get(d->disk, VALUE_SIZE), 1e18);
    CU_ASSERT_TRUE(d->disk->has[VALUE_LAYER]);
}

/* Names that promtool cannot see when nothing is wrong enough to have them */
static void test_names(void)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    const Metric *m;

    for (guint i = 0; (m = host_metric(i)); i++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(m->name);
        CU_ASSERT_TRUE(g_hash_table_add(seen, (void *)m->name));
        CU_ASSERT_TRUE(g_str_has_prefix(m->name, "deskcast_"));
        CU_ASSERT_EQUAL(g_str_has_suffix(m->name, "_total"), m->counter);
        CU_ASSERT_TRUE(g_str_has_suffix(m->help, "."));
    }
    CU_ASSERT_TRUE(g_hash_table_size(seen) > VDISK_VALUES);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "families", test_families },
        { "labels", test_labels },
        { "numbers", test_numbers },
        { "mcs", test_mcs },
        { "pvs", test_pvs },
        { "no outage", test_no_outage },
        { "nonsense", test_nonsense },
        { "host", test_host },
        { "other node", test_other_node },
        { "agent", test_agent },
        { "relay", test_relay },
        { "recorded names", test_recorded_names },
        { "recorded twice", test_recorded_twice },
        { "recorded numbers", test_recorded_numbers },
        { "recorded size", test_recorded_size },
        { "names", test_names },
        CU_TEST_INFO_NULL,
    };

    return run_suite("watch", tests);
}

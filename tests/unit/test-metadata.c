/*
 * Domain metadata: what is read, what is refused, and the way there and back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/desktop/metadata.h"
#include "suite.h"

#include <string.h>

#define NS      "xmlns:dc='" METADATA_NAMESPACE "'"
#define ROOT    "00112233445566778899aabbccddeeff" \
                "00112233445566778899aabbccddeeff"
#define HEAD    "format='1' catalog='office' vdisk='win11' "
#define POOLED  HEAD "model='mcs' lifetime='pooled' run='in-process'"
#define PRIVATE HEAD "model='pvs' lifetime='private' run='in-process'"
#define DISK    "<disk path='/vdi/d1.mcs' node='disk0'/>" \
                "<monitor path='/run/d1.qmp'/>"
#define CATALOG "<catalog format='1' name='office' vdisk='win11' model='pvs' " \
                "lifetime='pooled' run='vhost-user'>" \
                "<store path='/srv/store'/><folder path='/vdi'/>"

static DesktopMetadata *desktop(const char *attributes, const char *content,
                                GError **error)
{
    g_autofree char *xml = g_strdup_printf("<desktop %s>%s</desktop>",
                                           attributes, content);

    return desktop_metadata_parse(xml, error);
}

/* Refused, and the error says @text */
static void refuses(const char *attributes, const char *content,
                    const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(DesktopMetadata) d = desktop(attributes, content, &error);

    CU_ASSERT_PTR_NULL(d);
    CU_ASSERT_PTR_NOT_NULL_FATAL(error);
    if (!strstr(error->message, text)) {
        printf("\n  '%s' lacks '%s'\n", error->message, text);
        CU_FAIL("error does not say why");
    }
}

static void refuses_xml(const char *xml, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(DesktopMetadata) d = desktop_metadata_parse(xml, &error);

    CU_ASSERT_PTR_NULL(d);
    CU_ASSERT_PTR_NOT_NULL_FATAL(error);
    if (!strstr(error->message, text)) {
        printf("\n  '%s' lacks '%s'\n", error->message, text);
        CU_FAIL("error does not say why");
    }
}

static void test_desktop(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(DesktopMetadata) d = desktop(POOLED,
        "\n <!-- by hand -->" DISK "<identity path='/vdi/d 1.iso'/>"
        "<wanted number='13' size='1024' image='/i/13' format='raw'/>", &error);

    CU_ASSERT_PTR_NOT_NULL_FATAL(d);
    CU_ASSERT_STRING_EQUAL(d->catalog, "office");
    CU_ASSERT_STRING_EQUAL(d->vdisk, "win11");
    CU_ASSERT_EQUAL(d->model, MODEL_MCS);
    CU_ASSERT_EQUAL(d->lifetime, LIFETIME_POOLED);
    CU_ASSERT_EQUAL(d->run, RUN_IN_PROCESS);
    CU_ASSERT_STRING_EQUAL(d->disk, "/vdi/d1.mcs");
    CU_ASSERT_STRING_EQUAL(d->node, "disk0");
    CU_ASSERT_STRING_EQUAL(d->monitor, "/run/d1.qmp");
    CU_ASSERT_STRING_EQUAL(d->identity, "/vdi/d 1.iso");
    CU_ASSERT_EQUAL(d->write_cache, 0);
    CU_ASSERT_EQUAL(d->wanted.number, 13);
    CU_ASSERT_EQUAL(d->wanted.size, 1024);
    CU_ASSERT_STRING_EQUAL(d->wanted.image, "/i/13");
    CU_ASSERT_STRING_EQUAL(d->wanted.format, "raw");
    CU_ASSERT_PTR_NULL(d->wanted.root);
    CU_ASSERT_EQUAL(d->previous.number, 0);
}

static void test_round_trip(void)
{
    DesktopMetadata d = {
        .catalog = "office", .vdisk = "win11", .model = MODEL_PVS,
        .lifetime = LIFETIME_PRIVATE, .run = RUN_VHOST_USER,
        .stores = (char *[]) { "nbd://a:1", "nbd+unix:///?socket=/s", NULL },
        .host_cache = "/cache",
        .disk = "/vdi/<&>'\" \xc3\xa4", .journal = "/vdi/j", .node = "disk0",
        .monitor = "/run/m", .identity = "/vdi/i", .write_cache = 5, .ram = 7,
        .bandwidth = 9,
        .wanted = { .number = INT64_MAX, .size = 4096, .root = ROOT },
        .previous = { .number = 1, .size = UINT64_C(1) << 62 },
    };
    g_autofree char *text = desktop_metadata_text(&d), *again = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(DesktopMetadata) read = desktop_metadata_parse(text, &error);

    CU_ASSERT_PTR_NULL(strstr(text, "xmlns"));
    CU_ASSERT_PTR_NOT_NULL_FATAL(read);
    CU_ASSERT_STRING_EQUAL(read->disk, d.disk);
    CU_ASSERT_STRING_EQUAL(read->journal, d.journal);
    CU_ASSERT_EQUAL(read->lifetime, d.lifetime);
    CU_ASSERT_EQUAL(read->run, d.run);
    CU_ASSERT_EQUAL_FATAL(g_strv_length(read->stores), 2);
    CU_ASSERT_STRING_EQUAL(read->stores[1], "nbd+unix:///?socket=/s");
    CU_ASSERT_STRING_EQUAL(read->host_cache, "/cache");
    CU_ASSERT_EQUAL(read->write_cache, 5);
    CU_ASSERT_EQUAL(read->ram, 7);
    CU_ASSERT_EQUAL(read->bandwidth, 9);
    CU_ASSERT_EQUAL(read->wanted.number, INT64_MAX);
    CU_ASSERT_STRING_EQUAL(read->wanted.root, ROOT);
    CU_ASSERT_EQUAL(read->previous.size, d.previous.size);
    CU_ASSERT_PTR_NULL(read->previous.root);
    again = desktop_metadata_text(read);
    CU_ASSERT_STRING_EQUAL(again, text);
}

static void test_catalog(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(CatalogMetadata) c = catalog_metadata_parse(CATALOG
        "<source uri='nbd+unix:///?socket=/run/relay'/>"
        "<source uri='nbds://[::1]:10809'/><host-cache path='/c'/>"
        "<each write-cache='10' ram='20' bandwidth='30'/><update version='4'/>"
        "<back version='3' released='1800000000'/></catalog>", &error);
    g_autoptr(CatalogMetadata) again = NULL;
    g_autofree char *text = NULL;

    CU_ASSERT_PTR_NOT_NULL_FATAL(c);
    CU_ASSERT_STRING_EQUAL(c->catalog, "office");
    CU_ASSERT_EQUAL(c->run, RUN_VHOST_USER);
    CU_ASSERT_STRING_EQUAL(c->store, "/srv/store");
    CU_ASSERT_STRING_EQUAL(c->folder, "/vdi");
    CU_ASSERT_EQUAL(c->ram, 20);
    CU_ASSERT_EQUAL(c->bandwidth, 30);
    CU_ASSERT_EQUAL(c->update, 4);
    CU_ASSERT_EQUAL(c->back, 3);
    text = catalog_metadata_text(c);
    again = catalog_metadata_parse(text, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(again);
    CU_ASSERT_EQUAL_FATAL(g_strv_length(again->stores), 2);
    CU_ASSERT_STRING_EQUAL(again->stores[0], "nbd+unix:///?socket=/run/relay");
    CU_ASSERT_STRING_EQUAL(again->stores[1], "nbds://[::1]:10809");
    CU_ASSERT_STRING_EQUAL(again->host_cache, "/c");
    CU_ASSERT_EQUAL(again->write_cache, 10);
    CU_ASSERT_EQUAL(again->back, 3);
    CU_ASSERT_EQUAL(again->back_released, 1800000000);
}

static void refuses_source(const char *uri)
{
    g_autofree char *xml = g_strdup_printf(CATALOG "<source uri='%s'/>"
                                           "</catalog>", uri);
    g_autoptr(GError) error = NULL;
    g_autoptr(CatalogMetadata) c = catalog_metadata_parse(xml, &error);

    CU_ASSERT_PTR_NULL(c);
    CU_ASSERT_PTR_NOT_NULL_FATAL(error);
    CU_ASSERT_PTR_NOT_NULL(strstr(error->message, "'uri' of 'source'"));
}

static void test_sources(void)
{
    static const char *const bad[] = {
        "", "nbd://", "nbd://host", "nbd://host:0", "nbd://host:10809/name",
        "nbd://user@host:10809", "nbd://host:10809?a=b", "http://host:80",
        "json:{}", "nbd+unix:///?socket=relative", "nbd+unix:///name?socket=/a",
        "nbd+unix:///?socket=/a/../b", "nbd://host:99999", "nbd://a b:1",
    };
    g_autoptr(GString) many = g_string_new(CATALOG);
    g_autoptr(CatalogMetadata) c = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        refuses_source(bad[i]);
    }
    for (int i = 0; i < 17; i++) {
        g_string_append(many, "<source uri='nbd://h:1'/>");
    }
    g_string_append(many, "</catalog>");
    c = catalog_metadata_parse(many->str, NULL);
    CU_ASSERT_PTR_NULL(c);
    c = catalog_metadata_parse(CATALOG "</catalog>", NULL);
    CU_ASSERT_PTR_NULL(c);
}

/* Neither what is not there nor what is too much goes unnoticed */
static void test_structure(void)
{
    refuses(POOLED " colour='red'", DISK, "unknown attribute 'colour'");
    refuses(POOLED " xml:lang='en'", DISK, "foreign attribute");
    refuses(POOLED, DISK "<colour/>", "unknown element 'colour'");
    refuses(POOLED, DISK "<monitor path='/b'/>", "a second element 'monitor'");
    refuses(POOLED, DISK "text", "text in");
    refuses(POOLED, DISK "<identity path='/a'>text</identity>", "content of");
    refuses(POOLED, DISK "<x:identity xmlns:x='urn:x' path='/a'/>",
            "unknown element");
    refuses(HEAD "model='mcs' lifetime='pooled'", DISK, "and run");
    refuses(POOLED, "<monitor path='/a'/>", "needs a disk");
    refuses(POOLED, "<disk path='/a'/><monitor path='/a'/>", "node");
    refuses(POOLED, "<disk path='/a' node='n'/>", "monitor");
    refuses(PRIVATE, DISK, "needs a journal");
    refuses(POOLED, DISK "<journal path='/j'/>", "only a private desktop");
    refuses(HEAD "model='mcs' lifetime='private' run='in-process'",
            DISK "<journal path='/j'/>", "needs model 'pvs'");
    refuses(HEAD "model='pvs' lifetime='dedicated' run='in-process'", DISK,
            "needs model 'mcs'");
    refuses(POOLED, DISK "<source uri='nbd://h:1'/>", "no source");
    refuses(HEAD "model='pvs' lifetime='pooled' run='vhost-user'", DISK,
            "needs a source");
    refuses("catalog='a'", DISK, "format");
    refuses("format='2' new='1'", DISK, "newer deskcast");
    refuses("format='0'", DISK, "format");
    refuses("format='-1'", DISK, "format");
    refuses("format='11111111111111'", DISK, "format");
}

static void test_versions(void)
{
    refuses(POOLED, DISK "<wanted size='512'/>", "has no number");
    refuses(POOLED, DISK "<wanted number='1' image='/a' format='raw'/>",
            "has no size");
    refuses(POOLED, DISK "<wanted number='1' size='512'/>", "image and format");
    refuses(POOLED, DISK "<previous number='1' size='512' image='/a' "
            "format='raw' root='" ROOT "'/>", "the previous version");
    refuses(POOLED, DISK "<wanted number='1' size='512' image='/a' "
            "format='vmdk'/>", "raw or qcow2");
    refuses(PRIVATE, DISK "<journal path='/j'/><wanted number='1' size='4096' "
            "image='/a' format='raw'/>", "no image");
    refuses(PRIVATE, DISK "<journal path='/j'/><wanted number='1' "
            "size='512'/>", "4096");
    refuses(POOLED, DISK "<wanted number='1' size='513'/>", "512");
    refuses(POOLED, DISK "<wanted number='1' size='4096' root='" ROOT "0'/>",
            "64 hexadecimal");
}

static void test_values(void)
{
    static const char *const numbers[] = {
        "", "0", "-1", "+1", " 1", "1 ", "01", "1e3", "0x10", "1G",
        "9223372036854775808", "18446744073709551617",
    };
    static const char *const paths[] = {
        "", "/", "a", "./a", "/a/../b", "/a/./b", "//a", "/a//b", "/a/",
        "json:{}", "/a&#10;b", "/a&#9;b", "/\x7f", "nbd://h:1/",
    };
    static const char *const nodes[] = {
        "", "0a", "#block0", "a b", "a,b", "a'b", "a123456789012345678901234567890x",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        g_autofree char *c = g_strdup_printf(DISK "<wanted number='%s'/>",
                                             numbers[i]);

        refuses(POOLED, c, "'number' of 'wanted'");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++) {
        g_autofree char *c = g_strdup_printf("<disk path='%s'/>", paths[i]);

        refuses(POOLED, c, "absolute path");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        g_autofree char *c = g_strdup_printf("<disk node=\"%s\"/>", nodes[i]);

        refuses(POOLED, c, "name of a block node");
    }
    refuses("format='1' catalog='../a'", DISK, "letters, digits");
    refuses("format='1' catalog='\xc3\xa4'", DISK, "letters, digits");
    refuses("format='1' vdisk=''", DISK, "letters, digits");
    refuses("format='1' model='MCS'", DISK, "mcs or pvs");
    refuses("format='1' run=''", DISK, "in-process or vhost-user");
    refuses("format='1' lifetime='pool'", DISK, "pooled, dedicated or private");
}

static char *repeated(const char *text, int times)
{
    GString *s = g_string_new(NULL);

    while (times--) {
        g_string_append(s, text);
    }
    return g_string_free(s, FALSE);
}

static void test_long(void)
{
    g_autofree char *a = repeated("a", 1023), *many = repeated("a", 65536);
    g_autofree char *deep = repeated("<a>", 10000), *xml = NULL, *c = NULL;

    c = g_strdup_printf("<disk path='/%s'/>", a);
    refuses(POOLED, c, "absolute path");
    g_free(c);
    c = g_strdup_printf("format='1' vdisk='%.128s'", a);
    refuses(c, DISK, "letters, digits");
    xml = g_strdup_printf("<desktop a='%s'/>", many);
    refuses_xml(xml, "more than 65536 bytes");
    refuses_xml(deep, "line 1");
}

static void test_hostile(void)
{
    char path[] = "/tmp/deskcast-xxe-XXXXXX";
    int fd = g_mkstemp(path);
    g_autofree char *external = g_strdup_printf(
        "<!DOCTYPE d [<!ENTITY e SYSTEM 'file://%s'>]>"
        "<desktop " POOLED ">" DISK "&e;</desktop>", path);

    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT(write(fd, "<identity path='/leak'/>", 24) == 24);
    close(fd);
    refuses_xml(external, "document type");
    unlink(path);
    refuses_xml("<!DOCTYPE d SYSTEM 'http://127.0.0.1:1/x.dtd'><desktop/>",
                "document type");
    refuses_xml("<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b "
                "'&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;'>]>"
                "<desktop catalog='&c;'/>", "document type");
    refuses_xml("<desktop catalog='&e;'/>", "cannot be read");
    refuses_xml("", "cannot be read");
    refuses_xml("<desktop", "cannot be read");
    refuses_xml("<desktop/><desktop/>", "cannot be read");
    refuses_xml("<desktop a='\xff\xfe'/>", "cannot be read");
    refuses_xml("<?xml version='1.0' encoding='UTF-7'?>+ADw-desktop/+AD4-",
                "cannot be read");
    refuses_xml("<desktop format='1' format='1'/>", "cannot be read");
    refuses_xml("<x:desktop xmlns:x='urn:x'/>", "not our element");
    refuses_xml("<catalog/>", "not our element");
    refuses_xml("<!-- <!DOCTYPE d> --><desktop/>", "format");
}

static bool domain(const char *content, DesktopMetadata **d,
                   CatalogMetadata **c, GError **error)
{
    g_autofree char *xml = g_strdup_printf(
        "<domain type='kvm'><name>a</name><metadata " NS "><x xmlns='urn:x'>"
        "<dc:desktop/></x>%s</metadata></domain>", content);

    return metadata_from_domain(xml, d, c, error);
}

#define DC_DESKTOP "<dc:desktop " POOLED ">" \
                   "<dc:disk path='/d' node='n'/><dc:monitor path='/m'/>" \
                   "</dc:desktop>"

static void test_domain(void)
{
    g_autoptr(DesktopMetadata) d = NULL;
    g_autoptr(CatalogMetadata) c = NULL;
    g_autoptr(GError) error = NULL;

    CU_ASSERT(domain("", &d, &c, &error));
    CU_ASSERT(!d && !c && !error);
    CU_ASSERT(domain(DC_DESKTOP, &d, &c, &error));
    CU_ASSERT(d && !c && !strcmp(d->disk, "/d"));
    g_clear_pointer(&d, desktop_metadata_free);
    CU_ASSERT(domain("<dc:catalog format='1' name='a' vdisk='b' model='mcs' "
                     "lifetime='pooled' run='in-process'><dc:store path='/s'/>"
                     "<dc:folder path='/f'/></dc:catalog>", &d, &c, &error));
    CU_ASSERT(!d && c && !strcmp(c->store, "/s"));
    g_clear_pointer(&c, catalog_metadata_free);
    CU_ASSERT(metadata_from_domain("<domain/>", &d, &c, &error) && !d && !c);
    CU_ASSERT(!domain(DC_DESKTOP DC_DESKTOP, &d, &c, &error) && !d && !c);
    CU_ASSERT_PTR_NOT_NULL_FATAL(error);
    CU_ASSERT_PTR_NOT_NULL(strstr(error->message, "more than one"));
    g_clear_error(&error);
    CU_ASSERT(!domain("<dc:other/>", &d, &c, &error) && error);
    g_clear_error(&error);
    CU_ASSERT(!domain("<dc:desktop format='1'/>", &d, &c, &error) && error);
    g_clear_error(&error);
    CU_ASSERT(!metadata_from_domain("<network/>", &d, &c, &error) && error);
}

/* Cut anywhere, it is an error or the whole; no byte of it may crash us */
static void test_mangled(void)
{
    static const char xml[] =
        "<desktop " POOLED ">" DISK
        "<wanted number='13' size='1024' image='/i/13' format='raw'/>"
        "</desktop>";
    unsigned refused = 0;

    for (size_t i = 0; i < sizeof(xml) - 1; i++) {
        g_autofree char *cut = g_strndup(xml, i), *bad = g_strdup(xml);
        g_autoptr(DesktopMetadata) d = desktop_metadata_parse(cut, NULL);

        CU_ASSERT_PTR_NULL(d);
        for (int bit = 0; bit < 8; bit++) {
            g_autoptr(GError) error = NULL;
            g_autoptr(DesktopMetadata) e = NULL;

            bad[i] = xml[i] ^ 1 << bit;
            e = desktop_metadata_parse(bad, &error);
            CU_ASSERT(!e == !!error);
            refused += !e;
        }
    }
    CU_ASSERT(refused > 1000);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "a desktop", test_desktop },
        { "there and back", test_round_trip },
        { "a catalog", test_catalog },
        { "sources", test_sources },
        { "structure", test_structure },
        { "versions", test_versions },
        { "values", test_values },
        { "too long, too deep", test_long },
        { "hostile XML", test_hostile },
        { "in a domain", test_domain },
        { "cut and mangled", test_mangled },
        CU_TEST_INFO_NULL,
    };

    return run_suite("domain metadata", tests);
}

/*
 * Manifests: read back as written; and what is not valid, with its reason
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "suite.h"
#include "cli/json-strict.h"
#include "cli/store/manifest.h"

#define ROOT "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

/* Written by hand, as the specification has it */
static const char sample[] =
    "{ \"deskcast-manifest\": 1, \"vdisk\": \"win11\",\n"
    "  \"uuid\": \"2a3cb1e4-4d4b-4b0b-9a0c-3c3e3f9d7a10\",\n"
    "  \"salt\": \"00ff\", \"revision\": 7, \"next\": 5,\n"
    "  \"unused\": [\"9.raw\"],\n"
    "  \"versions\": [\n"
    "  { \"version\": 1, \"access\": \"retired\", \"parent\": 0,\n"
    "    \"size\": 8192, \"label\": false, \"image\": \"1.raw\",\n"
    "    \"format\": \"raw\", \"tree\": \"1.tree\", \"root\": \"" ROOT "\",\n"
    "    \"created\": \"2026-01-01T00:00:00Z\",\n"
    "    \"sealed\": \"2026-01-02T00:00:00Z\" },\n"
    "  { \"version\": 3, \"access\": \"production\", \"parent\": 1,\n"
    "    \"size\": 8192, \"label\": false, \"image\": \"3.qcow2\",\n"
    "    \"format\": \"qcow2\", \"tree\": \"3.tree\", \"root\": \"" ROOT "\",\n"
    "    \"trace\": \"3.trace\",\n"
    "    \"created\": \"2026-02-01T00:00:00Z\",\n"
    "    \"sealed\": \"2026-02-02T00:00:00Z\",\n"
    "    \"released\": \"2026-03-01T00:00:00Z\",\n"
    "    \"comment\": \"Übung \\\"drei\\\"\" },\n"
    "  { \"version\": 4, \"access\": \"maintenance\", \"parent\": 3,\n"
    "    \"size\": 12288, \"label\": true, \"image\": \"4.qcow2\",\n"
    "    \"format\": \"qcow2\", \"created\": \"2026-04-01T00:00:00Z\" }\n"
    "  ] }\n";

/* The n-th @from of the sample replaced; NULL if there are not so many */
static char *edited(unsigned n, const char *from, const char *to)
{
    const char *at = sample;

    while ((at = strstr(at, from)) && n-- > 0) {
        at++;
    }
    return at ? g_strdup_printf("%.*s%s%s", (int)(at - sample), sample, to,
                                at + strlen(from)) : NULL;
}

static void test_sample(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Manifest) m = manifest_decode(sample, strlen(sample), &error);
    g_autofree char *root = NULL;

    CU_ASSERT_PTR_NOT_NULL_FATAL(m);
    CU_ASSERT_STRING_EQUAL(m->vdisk, "win11");
    CU_ASSERT(m->revision == 7 && m->next == 5 && m->versions->len == 3);
    CU_ASSERT(m->unused->len == 1);
    root = version_root_text(manifest_version(m, 3));
    CU_ASSERT_STRING_EQUAL(root, ROOT);
    CU_ASSERT_STRING_EQUAL(manifest_version(m, 3)->comment, "Übung \"drei\"");
    CU_ASSERT(manifest_version(m, 3)->released == 1772323200);
    CU_ASSERT_STRING_EQUAL(manifest_version(m, 3)->trace, "3.trace");
    CU_ASSERT_PTR_NULL(manifest_version(m, 1)->trace);
    CU_ASSERT(manifest_version(m, 3)->parent == 1);
    CU_ASSERT(manifest_version(m, 4)->label && manifest_version(m, 4)->size ==
              12288);
    CU_ASSERT_PTR_NULL(manifest_version(m, 2));
    CU_ASSERT(manifest_maintenance(m)->number == 4);
    CU_ASSERT(manifest_newest(m)->number == 3);
}

static void test_round_trip(void)
{
    g_autoptr(Manifest) m = manifest_decode(sample, strlen(sample), NULL);
    g_autoptr(Manifest) again = NULL;
    g_autofree char *text = NULL, *text2 = NULL;
    g_autoptr(GError) error = NULL;

    CU_ASSERT_PTR_NOT_NULL_FATAL(m);
    text = manifest_encode(m);
    again = manifest_decode(text, strlen(text), &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(again);
    text2 = manifest_encode(again);
    CU_ASSERT_STRING_EQUAL(text, text2);
    CU_ASSERT(g_str_has_suffix(text, "}\n"));
}

/* Highest production whose day has come */
static void test_current(void)
{
    g_autoptr(Manifest) m = manifest_decode(sample, strlen(sample), NULL);
    Version *old;

    CU_ASSERT_PTR_NOT_NULL_FATAL(m);
    CU_ASSERT_PTR_NULL(manifest_current(m, 1772323199));
    CU_ASSERT(manifest_current(m, 1772323200)->number == 3);
    old = manifest_version(m, 1);
    old->access = ACCESS_PRODUCTION;
    CU_ASSERT(manifest_current(m, 1772323199)->number == 1);
    CU_ASSERT(manifest_current(m, 1772323200)->number == 3);
    manifest_version(m, 3)->access = ACCESS_TEST;
    CU_ASSERT(manifest_current(m, 1772323200)->number == 1);
}

typedef struct Edit {
    const char *from;           /* in the sample */
    unsigned n;                 /* which one of them */
    const char *to;
    const char *reason;         /* part of the error */
} Edit;

static const Edit edits[] = {
    /* Newer, and not of this kind */
    { "manifest\": 1", 0, "manifest\": 2", "newer one is needed" },
    { "\"unused\": [\"9.raw\"]", 0, "\"new-thing\": 1", "'new-thing'" },
    { "manifest\": 1", 0, "manifest\": 0", "'deskcast-manifest' is 0" },
    { "manifest\": 1", 0, "manifest\": \"1\"", "not a whole number" },
    { "\"deskcast-manifest\": 1, ", 0, "", "'deskcast-manifest' is missing" },
    /* Edited by hand */
    { "\"revision\": 7", 0, "\"revision\": 7,", "" },
    { "\"revision\": 7", 0, "\"revision\": 7 /* mine */", "line 3: this is" },
    { "\"revision\": 7", 0, "\"revision\": 07", "begins with 0" },
    { "\"revision\": 7", 0, "\"revision\": 7.5", "not a whole number" },
    { "\"revision\": 7", 0, "\"revision\": -7", "is -7" },
    { "\"revision\": 7", 0, "\"revision\": true", "not a whole number" },
    { "\"revision\": 7", 0, "\"revision\": 18446744073709551617", "too large" },
    { "\"revision\": 7", 0, "\"revision\": 7, \"revision\": 7", "twice" },
    { "\"label\": false", 1, "\"label\": false, \"label\": false", "twice" },
    { "\"label\": false", 1, "\"label\": 0", "not true or false" },
    { "\"parent\": 1", 0, "\"father\": 1", "'father'" },
    { "\"parent\": 1,\n", 0, "", "'parent' is missing" },
    { "\"salt\": \"00ff\"", 0, "\"salt\": [[[[[[[[[[1]]]]]]]]]]", "too deep" },
    { "\"salt\": \"00ff\"", 0, "\"salt\": \"00f\"", "'salt'" },
    { "\"salt\": \"00ff\"", 0, "\"salt\": \"00FF\"", "'salt'" },
    { "\"salt\": \"00ff\"", 0, "\"salt\": \"\"", "'salt'" },
    { "\"salt\": \"00ff\"", 0, "\"salt\": \"00\n\"", "control character" },
    { "\"uuid\": \"2a3cb1e4", 0, "\"uuid\": \"2a3cb1e", "'uuid'" },
    /* Names */
    { "\"win11\"", 0, "\"win/11\"", "'vdisk'" },
    { "\"win11\"", 0, "\"..\"", "'vdisk'" },
    { "\"win11\"", 0, "\"win 11\"", "'vdisk'" },
    { "\"win11\"", 0, "\"w\\u0000n\"", "NUL" },
    { "\"win11\"", 0, "\"w\\nn\"", "control character" },
    { "\"1.raw\"", 0, "\"../1.raw\"", "'image'" },
    { "\"1.raw\"", 0, "\"/etc/passwd\"", "'image'" },
    { "\"1.raw\"", 0, "\"json:{}\"", "'image'" },
    { "\"1.raw\"", 0, "\".new-1.raw\"", "'image'" },
    { "\"1.raw\"", 0, "\"manifest.json\"", "'image'" },
    { "\"1.raw\"", 0, "\"3.tree\"", "stands twice" },
    { "\"1.raw\"", 0, "\"9.raw\"", "stands twice" },
    { "\"9.raw\"", 0, "\"a/b\"", "'unused'" },
    { "\"9.raw\"", 0, "9", "'unused'" },
    { "\"1.tree\"", 0, "\"sub/1.tree\"", "'tree'" },
    { "\"3.trace\"", 0, "\"../3.trace\"", "'trace'" },
    { "\"3.trace\"", 0, "\"1.tree\"", "stands twice" },
    { "\"3.trace\"", 0, "null", "'trace'" },
    { "\"raw\"", 0, "\"vmdk\"", "'format'" },
    /* Versions and parents */
    { "\"version\": 3", 0, "\"version\": 1", "stands after" },
    { "\"version\": 3", 0, "\"version\": 0", "version 0" },
    { "\"version\": 4", 0, "\"version\": 5", "below 'next'" },
    { "\"version\": 4", 0, "\"version\": 999999999999", "below 'next'" },
    { "\"parent\": 1", 0, "\"parent\": 2", "its parent 2 is missing" },
    { "\"parent\": 1", 0, "\"parent\": 3", "is not older" },
    { "\"parent\": 1", 0, "\"parent\": 4", "is not older" },
    { "\"next\": 5", 0, "\"next\": 4", "below 'next'" },
    { "\"next\": 5", 0, "\"next\": 99999999999", "'next'" },
    { "\"access\": \"retired\"", 0, "\"access\": \"gone\"", "'access'" },
    { "\"access\": \"production\"", 0, "\"access\": \"maintenance\"", "" },
    { "\"access\": \"production\"", 0, "\"access\": \"test\"", "'released'" },
    /* Sizes */
    { "\"size\": 8192", 0, "\"size\": 0", "'size'" },
    { "\"size\": 8192", 0, "\"size\": 512", "'size'" },
    { "\"size\": 8192", 0, "\"size\": 2251799813685248", "'size'" },
    { "\"size\": 8192", 0, "\"size\": 8192e0", "" },
    /* What sealed versions have */
    { ", \"root\": \"" ROOT "\"", 0, "", "no 'root'" },
    { ROOT, 0, "5f70", "'root'" },
    { "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef", 0,
      "0000000000000000000000000000000000000000000000000000000000000000",
      "'root'" },
    { "\"tree\": \"1.tree\", ", 0, "", "'tree'" },
    { ",\n    \"sealed\": \"2026-01-02T00:00:00Z\"", 0, "", "'sealed'" },
    { "\"label\": false", 0, "\"label\": true", "has a label" },
    { "\"label\": true", 0, "\"label\": true, \"tree\": \"4.tree\"",
      "has a tree" },
    { "\"label\": true", 0, "\"label\": true, \"trace\": \"4.trace\"",
      "a boot trace" },
    { "2026-04-01T00:00:00Z\"", 0, "2026-04-01T00:00:00Z\", "
      "\"sealed\": \"2026-04-01T00:00:00Z\"", "in maintenance" },
    /* Times and comments */
    { "2026-01-01T00:00:00Z", 0, "2026-01-01", "'created'" },
    { "2026-01-01T00:00:00Z", 0, "2026-01-01T00:00:00+01:00", "'created'" },
    { "2026-01-01T00:00:00Z", 0, "yesterday", "'created'" },
    { "2026-03-01T00:00:00Z", 0, "1970-01-01T00:00:00Z", "'released'" },
    { "\"Übung \\\"drei\\\"\"", 0, "\"\"", "'comment'" },
    { "Übung", 0, "\xdc" "bung", "UTF-8" },
    { "Übung", 0, "a\\u0007b", "control character" },
};

static void test_edits(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(edits); i++) {
        const Edit *e = &edits[i];
        g_autofree char *text = edited(e->n, e->from, e->to);
        g_autoptr(GError) error = NULL;
        g_autoptr(Manifest) m = NULL;

        if (!text) {
            printf("  %s\n", e->from);
        }
        CU_ASSERT_PTR_NOT_NULL_FATAL(text);
        m = manifest_decode(text, strlen(text), &error);
        if (m || !error || !strstr(error->message, e->reason)) {
            CU_FAIL("an edit is refused, with its reason");
            printf("  %s -> %s: %s\n", e->from, e->to,
                   error ? error->message : "taken");
        }
    }
}

/* Of how many bytes one is tried */
static size_t stride(void)
{
    return getenv("UNIT_SHORT") ? 11 : 1;
}

/* No begin of a manifest is one, but for the line feed at its end */
static void test_truncated(void)
{
    for (size_t n = 0; n < strlen(sample) - 1; n += stride()) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Manifest) m = manifest_decode(sample, n, &error);

        if (m || !error) {
            CU_FAIL("a truncated manifest is refused");
        }
    }
}

/* Any byte that rots: refused, or read as something valid; no crash */
static void test_rot(void)
{
    unsigned read = 0;

    for (size_t n = 0; n < strlen(sample); n += stride()) {
        g_autofree char *text = g_strdup(sample);
        g_autoptr(Manifest) m = NULL;

        text[n] ^= 1 << n % 8;
        m = manifest_decode(text, strlen(sample), NULL);
        if (m) {
            CU_ASSERT(manifest_valid(m, NULL));
            read++;
        }
    }
    CU_ASSERT(read < strlen(sample) / stride() / 2);
}

/* The largest one that is valid can be read again */
static void test_large(void)
{
    g_autoptr(Manifest) m = manifest_new("large"), again = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    char comment[MANIFEST_MAX_COMMENT + 1];

    memset(comment, '"', MANIFEST_MAX_COMMENT);
    comment[MANIFEST_MAX_COMMENT] = 0;
    for (unsigned i = 0; i < MANIFEST_MAX_VERSIONS; i++) {
        Version *v = version_new(MANIFEST_MAX_NUMBER - MANIFEST_MAX_VERSIONS +
                                 1 + i);

        v->access = ACCESS_PRODUCTION;
        v->parent = i ? v->number - 1 : 0;
        v->size = MANIFEST_MAX_SIZE;
        v->image = g_strdup_printf("%0*u", MANIFEST_MAX_FILE_NAME, i);
        v->tree = g_strdup_printf("1%0*u", MANIFEST_MAX_FILE_NAME - 1, i);
        v->trace = g_strdup_printf("3%0*u", MANIFEST_MAX_FILE_NAME - 1, i);
        v->format = g_strdup("qcow2");
        v->created = v->sealed = v->released = v->failed = 1795770000;
        v->comment = g_strdup(comment);
        memset(v->root, 1, sizeof(v->root));
        manifest_add(m, v);
    }
    for (unsigned i = 0; i < MANIFEST_MAX_UNUSED; i++) {
        g_autofree char *name = g_strdup_printf("2%0*u", MANIFEST_MAX_FILE_NAME
                                                - 1, i);

        manifest_set_unused(m, name, true);
    }
    m->next = MANIFEST_MAX_NUMBER + 1;
    CU_ASSERT(manifest_valid(m, &error));
    text = manifest_encode(m);
    CU_ASSERT(strlen(text) <= MANIFEST_MAX_BYTES);
    again = manifest_decode(text, strlen(text), &error);
    CU_ASSERT_PTR_NOT_NULL(again);
    CU_ASSERT(!again || again->versions->len == MANIFEST_MAX_VERSIONS);
    g_ptr_array_add(m->versions, version_new(MANIFEST_MAX_NUMBER));
    CU_ASSERT(!manifest_valid(m, NULL));
}

static void test_new(void)
{
    g_autoptr(Manifest) a = manifest_new("one"), b = manifest_new("two");
    g_autofree char *long_name = g_strnfill(128, 'x');
    g_autoptr(Manifest) c = manifest_new(long_name);

    CU_ASSERT(manifest_valid(a, NULL));
    CU_ASSERT(strlen(a->salt) == 64 && strcmp(a->salt, b->salt));
    CU_ASSERT(strcmp(a->uuid, b->uuid));
    CU_ASSERT(!manifest_valid(c, NULL));
}

static void test_unused(void)
{
    g_autoptr(Manifest) m = manifest_new("one");

    manifest_set_unused(m, "1.raw", true);
    manifest_set_unused(m, "1.raw", true);
    CU_ASSERT(m->unused->len == 1);
    manifest_set_unused(m, "2.raw", false);
    manifest_set_unused(m, NULL, true);
    CU_ASSERT(m->unused->len == 1);
    manifest_set_unused(m, "1.raw", false);
    CU_ASSERT(m->unused->len == 0);
}

static void test_order(void)
{
    g_autoptr(Manifest) m = manifest_new("one");
    static const unsigned numbers[] = { 3, 1, 2, 9, 5 };

    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        manifest_add(m, version_new(numbers[i]));
    }
    for (guint i = 1; i < m->versions->len; i++) {
        const Version *a = g_ptr_array_index(m->versions, i - 1);
        const Version *b = g_ptr_array_index(m->versions, i);

        CU_ASSERT(a->number < b->number);
    }
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "a manifest by hand is read", test_sample },
        { "what is written is read", test_round_trip },
        { "what is current", test_current },
        { "edits are refused", test_edits },
        { "truncated", test_truncated },
        { "any bit rots", test_rot },
        { "the largest", test_large },
        { "a new one", test_new },
        { "unused files", test_unused },
        { "versions are in order", test_order },
        CU_TEST_INFO_NULL,
    };

    return run_suite("manifest", tests);
}

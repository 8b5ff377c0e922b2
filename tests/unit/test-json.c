/*
 * JSON of others: what the two readers take, and what neither may
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "suite.h"
#include "cli/json-read.h"
#include "cli/json-strict.h"

#include <string.h>

static bool takes_read(const char *text, gsize length)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) node = json_read(text, length, &error);

    CU_ASSERT_EQUAL(!node, error != NULL);
    return node != NULL;
}

static bool takes_strict(const char *text, gsize length)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) o = json_strict_parse(text, length, &error);

    CU_ASSERT_EQUAL(!o, error != NULL);
    return o != NULL;
}

static void expect(const char *text, bool read, bool strict)
{
    if (takes_read(text, strlen(text)) != read ||
        takes_strict(text, strlen(text)) != strict) {
        CU_FAIL("each reader takes what it may, and nothing else");
        printf("  %s\n", text);
    }
}

static void test_taken(void)
{
    static const char *const both[] = {
        "{}", "{\"a\": [0, -1, 10.05e-07, true, false, null]}\r\n",
        "{\"a\": \"\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u00e9 \\uD834\\uDD1E\"}",
        "{\"a\": 999999999999999999}", "{\"\303\251\": \"\312\243\"}",
    };
    static const char *const read_only[] = {
        "[]", "1", "\"a\"", "{\"a\": 1, \"a\": 2}",
        "{\"a\": 9223372036854775807}",
        "{\"a\":[[[[[[[[0]]]]]]]]}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(both); i++) {
        expect(both[i], true, true);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(read_only); i++) {
        expect(read_only[i], true, false);
    }
}

/* Each of them is nothing to JSON, but most are something to json-glib */
static void test_refused(void)
{
    static const char *const bad[] = {
        "", " ", "{", "}", "{\"a\": \"", "{\"a\": \"\\", "{\"a\": \"\\\"}",
        "{\"a\": 1} /* */", "// \n{}", "{\"a\": 'b'}", "{a: 1}",
        "{\"a\": \"\n\"}", "{\"a\": \"\t\"}",
        "{\"a\": \"\\q\"}", "{\"a\": \"\\x41\"}", "{\"a\": \"\\u00e\312\243n\"}",
        "{\"a\": \"\\u12\"}", "{\"a\": \"\\u\"}", "{\"a\": \"\\u0000\"}",
        "{\"a\": \"\\ud834\"}", "{\"a\": \"\\ud834 dd1e\"}",
        "{\"a\": \"\\ud834\\n\"}", "{\"a\": \"\\ud834\\u0041\"}",
        "{\"a\": \"\\udd1e\"}", "{\"a\": \"\\ud834\\",
        "{\"a\": 07}", "{\"a\": .1}", "{\"a\": +1}",
        "{\"a\": 123456789012345678901}", "{\"a\": NaN}",
        "{\"a\": \"\300\200\"}", "{\"a\": \"\355\240\200\"}", "\377",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        expect(bad[i], false, false);
    }
    CU_ASSERT_FALSE(takes_read("{\0}", 3));
    CU_ASSERT_FALSE(takes_strict("{\0}", 3));
    CU_ASSERT_FALSE(takes_read("{}\0", 3));
    CU_ASSERT_FALSE(takes_strict("{}\0", 3));
}

/* Nothing behind the length is looked at: a text cut anywhere is refused */
static void test_cut(void)
{
    static const char text[] =
        "{\"a\": [\"\\ud834\\udd1e\", \"\\u00e9\", \"\\n\", 10, true]}";

    for (gsize n = 0; n < sizeof(text) - 1; n++) {
        CU_ASSERT_FALSE(takes_read(text, n));
        CU_ASSERT_FALSE(takes_strict(text, n));
    }
    CU_ASSERT_TRUE(takes_read(text, sizeof(text) - 1));
    CU_ASSERT_TRUE(takes_strict(text, sizeof(text) - 1));
}

static void test_depth(void)
{
    for (unsigned n = 1; n <= JSON_READ_MAX_DEPTH + 1; n++) {
        g_autoptr(GString) text = g_string_new(NULL);

        for (unsigned i = 1; i < n; i++) {
            g_string_append(text, "{\"a\":");
        }
        g_string_append(text, "{}");
        for (unsigned i = 1; i < n; i++) {
            g_string_append_c(text, '}');
        }
        CU_ASSERT_EQUAL(takes_read(text->str, text->len),
                        n <= JSON_READ_MAX_DEPTH);
        CU_ASSERT_EQUAL(takes_strict(text->str, text->len),
                        n <= JSON_STRICT_MAX_DEPTH);
    }
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "both take JSON", test_taken },
        { "neither takes what json-glib alone would", test_refused },
        { "a text that is cut off", test_cut },
        { "how deep it may nest", test_depth },
        CU_TEST_INFO_NULL,
    };

    return run_suite("json", tests);
}

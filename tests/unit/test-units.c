/*
 * Sizes and times, as people write and read them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "suite.h"
#include "cli/units.h"

static void test_sizes(void)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 }, { "512", 512 }, { "4k", 4096 }, { "4K", 4096 },
        { "200G", UINT64_C(200) << 30 }, { "1.5T", UINT64_C(3) << 39 },
        { "64 KiB", 65536 }, { "64 KB", 65536 }, { "10B", 10 },
        { "9007199254740993", UINT64_C(9007199254740993) },
        { "9223372036854775807", INT64_MAX }, { "7E", UINT64_C(7) << 60 },
        { "0.5K", 512 }, { "1.", 1 },
    };
    static const char *const bad[] = {
        "", "G", "-1", "+1", " 1", "1 2", "1X", "1KK", "1iB", "1.2.3", ".5K",
        "0x10", "1e3", "8E", "9223372036854775808", "99999999999999999999",
        "123456789012345678901234567890", "8.5E", "1K\n", "½",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        uint64_t bytes = 1;

        if (!units_parse_size(good[i].text, &bytes, NULL) ||
            bytes != good[i].bytes) {
            CU_FAIL("a size is read");
            printf("  '%s'\n", good[i].text);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        uint64_t bytes;

        if (units_parse_size(bad[i], &bytes, &error) || !error) {
            CU_FAIL("what is no size is refused");
            printf("  '%s'\n", bad[i]);
        }
    }
}

static void expect(char *got, const char *text)
{
    CU_ASSERT_STRING_EQUAL(got, text);
    g_free(got);
}

static void test_format(void)
{
    expect(units_format_size(0), "0 B");
    expect(units_format_size(1023), "1023 B");
    expect(units_format_size(1024), "1 KiB");
    expect(units_format_size(1536), "1.5 KiB");
    expect(units_format_size((1 << 20) - 1), "1 MiB");
    expect(units_format_size(UINT64_C(40) << 30), "40 GiB");
    expect(units_format_size(UINT64_MAX), "16 EiB");
    expect(units_format_span(0), "0 ms");
    expect(units_format_span(999), "999 ms");
    expect(units_format_span(12345), "12.3 s");
    expect(units_format_span(250000), "4 min 10 s");
    expect(units_format_span(3 * 3600000 + 300000), "3 h 5 min");
    expect(units_format_span(UINT64_C(52) * 3600000), "2 d 4 h");
}

static void test_times(void)
{
    int64_t t;

    CU_ASSERT(units_parse_time("2026-11-27T09:00:00Z", &t, NULL));
    CU_ASSERT(t == 1795770000);
    CU_ASSERT(units_parse_time("2026-11-27T10:00:00+01:00", &t, NULL));
    CU_ASSERT(t == 1795770000);
    expect(units_format_time(t), "2026-11-27T09:00:00Z");
    expect(units_format_time(UNITS_TIME_MAX), "9999-12-31T23:59:59Z");
    CU_ASSERT(units_parse_time("1970-01-01T00:00:00Z", &t, NULL) && t == 0);
    CU_ASSERT(!units_parse_time("1969-12-31T23:59:59Z", &t, NULL));
    CU_ASSERT(!units_parse_time("", &t, NULL));
    CU_ASSERT(!units_parse_time("tomorrow", &t, NULL));
    CU_ASSERT(!units_parse_time("2026-02-30", &t, NULL));
    CU_ASSERT(!units_parse_time("2026-13-01T00:00:00Z", &t, NULL));
    CU_ASSERT(!units_parse_time("27.11.2026", &t, NULL));
    /* Local time, as the administrator's clock shows it */
    CU_ASSERT(units_parse_time("2026-11-27", &t, NULL) && t == 1795705200);
    expect(units_format_local(t), "2026-11-27 00:00");
    CU_ASSERT(units_parse_time("2026-11-27T18:00", &t, NULL) &&
              t == 1795770000);
    CU_ASSERT(units_parse_time("2026-11-27 18:00", &t, NULL) &&
              t == 1795770000);
    CU_ASSERT(units_parse_time("2026-11-27T09:00Z", &t, NULL) &&
              t == 1795770000);
    CU_ASSERT(units_parse_time("2026-11-27T10:00+01:00", &t, NULL) &&
              t == 1795770000);
    CU_ASSERT(!units_parse_time("2026-11-27T18:60", &t, NULL));
    CU_ASSERT(!units_parse_time("2026-11-27T18:00x", &t, NULL));
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "sizes are read", test_sizes },
        { "sizes and spans are written", test_format },
        { "times", test_times },
        CU_TEST_INFO_NULL,
    };

    /* Nine hours east of Greenwich */
    g_setenv("TZ", "XST-9", true);
    return run_suite("units", tests);
}

/*
 * Sizes and times, as people write and read them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/units.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char size_units[] = "KMGTPE";

static bool bad(GError **error, const char *text, const char *what)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "'%s' is not %s", text, what);
    return false;
}

/* What is behind the number: K, KB, KiB. False if it is no unit. */
static bool parse_unit(const char *text, unsigned *shift)
{
    const char *unit;

    text += strspn(text, " ");
    *shift = 0;
    if (*text && (unit = strchr(size_units, g_ascii_toupper(*text)))) {
        *shift = 10 * (unit - size_units + 1);
        text++;
        if (*text == 'i' && text[1] == 'B') {
            text++;
        }
    }
    if (*text == 'B') {
        text++;
    }
    return !*text;
}

bool units_parse_size(const char *text, uint64_t *bytes, GError **error)
{
    static const char what[] = "a size: a number and K, M, G or T is expected";
    size_t digits = strspn(text, "0123456789.");
    double value;
    char *end;
    unsigned shift;

    if (!digits || !g_ascii_isdigit(*text) || digits > 20 ||
        !parse_unit(text + digits, &shift)) {
        return bad(error, text, what);
    }
    /* A double would round the low bytes of a large whole number */
    if (!memchr(text, '.', digits)) {
        uint64_t whole = g_ascii_strtoull(text, NULL, 10);

        *bytes = whole << shift;
        return whole <= (uint64_t)INT64_MAX >> shift
            ? true : bad(error, text, "a size that fits into 63 bits");
    }
    value = g_ascii_strtod(text, &end);
    if (end != text + digits) {
        return bad(error, text, what);
    }
    value = floor(ldexp(value, shift));
    if (value >= 0x1p63) {
        return bad(error, text, "a size that fits into 63 bits");
    }
    *bytes = value;
    return true;
}

char *units_format_size(uint64_t bytes)
{
    int unit = -1;
    double value = bytes;

    /* What would be shown as 1024.0 is one of the next unit */
    while (value >= 1023.95 && size_units[unit + 1]) {
        value /= 1024;
        unit++;
    }
    if (unit < 0) {
        return g_strdup_printf("%" PRIu64 " B", bytes);
    }
    value = round(value * 10) / 10;
    return g_strdup_printf("%.*f %ciB", value == floor(value) ? 0 : 1, value,
                           size_units[unit]);
}

char *units_format_span(uint64_t ms)
{
    uint64_t s = ms / 1000;

    if (ms < 1000) {
        return g_strdup_printf("%" PRIu64 " ms", ms);
    }
    if (s < 60) {
        return g_strdup_printf("%" PRIu64 ".%u s", s,
                               (unsigned)(ms % 1000 / 100));
    }
    if (s < 3600) {
        return g_strdup_printf("%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    }
    if (s < 86400) {
        return g_strdup_printf("%" PRIu64 " h %" PRIu64 " min", s / 3600,
                               s % 3600 / 60);
    }
    return g_strdup_printf("%" PRIu64 " d %" PRIu64 " h", s / 86400,
                           s % 86400 / 3600);
}

/* GLib wants seconds, which nobody types */
static char *with_seconds(const char *text)
{
    size_t day = strlen("2026-11-27"), minute = strlen("2026-11-27T18:00");
    size_t len = strlen(text);

    if (len == day) {
        return g_strconcat(text, "T00:00:00", NULL);
    }
    if (len >= minute && strchr("T ", text[day]) && text[minute - 3] == ':' &&
        (len == minute || strchr("Z+-", text[minute]))) {
        return g_strdup_printf("%.*s:00%s", (int)minute, text, text + minute);
    }
    return g_strdup(text);
}

bool units_parse_time(const char *text, int64_t *seconds, GError **error)
{
    g_autoptr(GTimeZone) zone = g_time_zone_new_local();
    g_autofree char *full = with_seconds(text);
    g_autoptr(GDateTime) t = g_date_time_new_from_iso8601(full, zone);

    if (!t) {
        return bad(error, text, "a date: 2026-11-27, 2026-11-27T18:00 or "
                   "2026-11-27T18:00:00Z is expected");
    }
    *seconds = g_date_time_to_unix(t);
    if (*seconds < 0 || *seconds > UNITS_TIME_MAX) {
        return bad(error, text, "a date in the years 1970 to 9999");
    }
    return true;
}

static char *format(GDateTime *t, const char *how)
{
    char *text = t ? g_date_time_format(t, how) : g_strdup("?");

    if (t) {
        g_date_time_unref(t);
    }
    return text;
}

char *units_format_time(int64_t seconds)
{
    return format(g_date_time_new_from_unix_utc(seconds), "%Y-%m-%dT%H:%M:%SZ");
}

char *units_format_local(int64_t seconds)
{
    return format(g_date_time_new_from_unix_local(seconds), "%Y-%m-%d %H:%M");
}

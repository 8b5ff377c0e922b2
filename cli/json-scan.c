/*
 * What json-glib's parser would take too easily, seen before it runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/json-scan.h"

#include <string.h>

typedef struct Scan {
    const char *at, *end;
    const JsonScanLimits *limits;
    unsigned depth;
    unsigned line;
} Scan;

static bool invalid(const Scan *s, const char *why, GError **error)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "line %u: %s",
                s->line, why);
    return false;
}

/* The character of "uXXXX" at @p, or -1 if this is something else */
static int unit_at(const Scan *s, const char *p)
{
    int unit = 0;

    if (s->end - p < 5 || *p != 'u') {
        return -1;
    }
    for (int i = 1; i <= 4; i++) {
        if (!g_ascii_isxdigit(p[i])) {
            return -1;
        }
        unit = unit << 4 | g_ascii_xdigit_value(p[i]);
    }
    return unit;
}

static bool is_between(int unit, int first, int last)
{
    return unit >= first && unit <= last;
}

/* @at is behind the backslash, and then at the escape's last character */
static bool scan_unicode(Scan *s, GError **error)
{
    int unit = unit_at(s, s->at);

    if (unit < 0) {
        return invalid(s, "an escape in a text is not of JSON", error);
    }
    if (unit == 0) {
        /* It would end the text for everybody behind the parser */
        return invalid(s, "a NUL in a text", error);
    }
    if (is_between(unit, 0xd800, 0xdbff)) {
        s->at += 5;
        if (s->at == s->end || *s->at++ != '\\' ||
            !is_between(unit_at(s, s->at), 0xdc00, 0xdfff)) {
            return invalid(s, "half a pair of surrogates in a text", error);
        }
    } else if (is_between(unit, 0xdc00, 0xdfff)) {
        return invalid(s, "half a pair of surrogates in a text", error);
    }
    s->at += 4;
    return true;
}

static bool scan_escape(Scan *s, GError **error)
{
    s->at++;
    /* A text that ends here is told by the caller */
    if (s->at == s->end || strchr("\"\\/bfnrt", *s->at)) {
        return true;
    }
    return scan_unicode(s, error);
}

static bool scan_string(Scan *s, GError **error)
{
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++) {
        if ((unsigned char)*s->at < 0x20) {
            return invalid(s, "a control character in a text", error);
        }
        if (*s->at == '\\' && !scan_escape(s, error)) {
            return false;
        }
    }
    if (s->at >= s->end) {
        return invalid(s, "a text in it does not end", error);
    }
    return true;
}

static size_t count_of(const Scan *s, const char *p, const char *chars)
{
    size_t n = 0;

    while (p + n < s->end && strchr(chars, p[n])) {
        n++;
    }
    return n;
}

/* The whole of it: a zero may begin a fraction, or stand alone */
static bool scan_number(Scan *s, GError **error)
{
    size_t n = count_of(s, s->at, "0123456789");

    if (n > s->limits->digits) {
        return invalid(s, "a number is too large", error);
    }
    if (n > 1 && *s->at == '0') {
        return invalid(s, "a number begins with 0", error);
    }
    s->at += n + count_of(s, s->at + n, ".+-eE0123456789") - 1;
    return true;
}

/*
 * Outside of texts are only characters that JSON has there: in a comment a quote
 * or a bracket would mean nothing to the parser.
 */
static bool scan_char(Scan *s, GError **error)
{
    switch (*s->at) {
    case '"':
        return scan_string(s, error);
    case '0' ... '9':
        return scan_number(s, error);
    case '{':
    case '[':
        if (++s->depth > s->limits->depth) {
            return invalid(s, "it nests too deep", error);
        }
        return true;
    case '}':
    case ']':
        /* Too many of them are the parser's to tell */
        s->depth -= !!s->depth;
        return true;
    case '\n':
        s->line++;
        return true;
    default:
        /* Letters are those of true, false and null */
        if (!strchr(" \t\r:,-trufalsne", *s->at)) {
            return invalid(s, "this is not JSON", error);
        }
        return true;
    }
}

bool json_scan(const char *text, gsize length, const JsonScanLimits *limits,
               GError **error)
{
    Scan s = {
        .at = text, .end = text + length, .limits = limits, .line = 1,
    };

    /* With a length, a NUL is not valid either */
    if (!g_utf8_validate(text, length, NULL)) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                            "it is not UTF-8 text");
        return false;
    }
    for (; s.at < s.end; s.at++) {
        if (!scan_char(&s, error)) {
            return false;
        }
    }
    return true;
}

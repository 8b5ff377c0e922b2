/*
 * The report: one page of HTML with all that it needs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "report-page.h"
#include "report-chart.h"

#include "cli/units.h"

#include <math.h>

#define ROWS_MAX    60          /* desktops in the chart of outages */

/*
 * Nothing comes from elsewhere, and nothing runs: the policy says so, too. The
 * colours differ in lightness as well.
 */
static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" "
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n"
    "<style>\n"
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1c1e21;--dim:#5c6370;"
    "--grid:#e3e6ea;--bad:#c62828;--silent:#8d6e00;"
    "--c0:#1f5fbf;--c1:#c2570c;--c2:#1b7f4b;--c3:#8e3bb0;--c4:#0e7c86;"
    "--c5:#a11d54}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#15171a;--fg:#e6e8eb;"
    "--dim:#9aa3af;--grid:#2c3138;--bad:#ff6b61;--silent:#e0b93a;"
    "--c0:#6ea8ff;--c1:#ff9d57;--c2:#5fd39a;--c3:#d08cf0;--c4:#57cfd9;"
    "--c5:#ff7fae}}\n"
    "body{background:var(--bg);color:var(--fg);font:15px/1.5 sans-serif;"
    "max-width:960px;margin:2em auto;padding:0 1em}\n"
    "h1{font-size:1.5em;margin-bottom:0}h2{font-size:1.15em;margin:2em 0 .3em}\n"
    "p{margin:.3em 0;color:var(--dim)}svg{width:100%;height:auto}\n"
    "table{border-collapse:collapse;width:100%;font-size:.92em}\n"
    "th,td{text-align:right;padding:.25em .6em;"
    "border-bottom:1px solid var(--grid)}\n"
    "th{color:var(--dim);font-weight:600}\n"
    "th:first-child,td:first-child,th:nth-child(2),td:nth-child(2)"
    "{text-align:left}\n"
    ".bad{color:var(--bad);font-weight:600}\n"
    "svg text{font:11px sans-serif;fill:var(--dim)}"
    ".mid{text-anchor:middle}.last{text-anchor:end}\n"
    ".grid{stroke:var(--grid)}.axis{stroke:var(--dim)}\n"
    ".line{fill:none;stroke-width:1.6;stroke-linejoin:round;"
    "stroke-linecap:round}\n"
    ".outage{fill:var(--bad)}.silent{fill:var(--silent)}\n"
    ".legend i{display:inline-block;width:1em;height:.25em;margin-right:.4em;"
    "vertical-align:middle}.legend span{margin-right:1.2em}\n"
    ".line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1)}"
    ".line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}"
    ".line.c4{stroke:var(--c4)}.line.c5{stroke:var(--c5)}\n"
    "i.c0{background:var(--c0)}i.c1{background:var(--c1)}"
    "i.c2{background:var(--c2)}i.c3{background:var(--c3)}"
    "i.c4{background:var(--c4)}i.c5{background:var(--c5)}"
    "circle.c0{fill:var(--c0);fill-opacity:.6}\n"
    "</style>\n";

static char *bytes_text(double bytes)
{
    return units_format_size(bytes);
}

static char *rate_text(double bytes)
{
    g_autofree char *text = units_format_size(bytes);

    return g_strconcat(text, "/s", NULL);
}

static char *share_text(double share)
{
    return g_strdup_printf("%.0f%%", floor(share * 100 + 0.001));
}

static char *span_text(double seconds)
{
    return units_format_span(seconds * 1000);
}

/* A cell; takes @text */
static void cell(GString *s, char *text, bool bad)
{
    g_string_append(s, bad ? "<td class=\"bad\">" : "<td>");
    chart_text(s, text);
    g_string_append(s, "</td>");
    g_free(text);
}

static char *times_text(unsigned count, double seconds)
{
    g_autofree char *span = span_text(seconds);

    return count ? g_strdup_printf("%u, %s", count, span) : g_strdup("-");
}

static int by_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* The median and the longest */
static char *boots_text(const DesktopStory *d)
{
    g_autofree double *seconds = g_new(double, MAX(d->boots->len, 1));
    g_autofree char *half = NULL, *most = NULL;
    guint n = d->boots->len;

    if (!n) {
        return g_strdup("-");
    }
    for (guint i = 0; i < n; i++) {
        seconds[i] = g_array_index(d->boots, Boot, i).seconds;
    }
    qsort(seconds, n, sizeof(*seconds), by_seconds);
    half = span_text(seconds[n / 2]);
    most = span_text(seconds[n - 1]);
    return g_strdup_printf("%u: %s, %s", n, half, most);
}

static void desktop_row(GString *s, const DesktopStory *d)
{
    unsigned outages, silences;
    double away = story_spans(d, false, &outages);
    double silent = story_spans(d, true, &silences);
    double reads = d->hit + d->miss;

    g_string_append(s, "<tr>");
    cell(s, g_strdup(d->name), false);
    cell(s, g_strdup(d->vdisk), false);
    cell(s, times_text(outages, away), outages);
    cell(s, times_text(silences, silent), silences);
    cell(s, d->lag->points->len ? bytes_text(series_max(d->lag))
                                : g_strdup("-"), false);
    cell(s, reads > 0 ? share_text(d->hit / reads) : g_strdup("-"), false);
    cell(s, bytes_text(d->read), false);
    cell(s, boots_text(d), false);
    g_string_append(s, "</tr>\n");
}

static void table(GString *s, const ReportData *r)
{
    g_string_append(s, "<h2>Desktops</h2>\n<table>\n<tr><th>Desktop</th>"
                    "<th>vDisk</th><th>Outages</th><th>Silent</th>"
                    "<th>Most lag</th><th>Hits</th><th>From stores</th>"
                    "<th>Boots: median, longest</th></tr>\n");
    for (guint i = 0; i < r->desktops->len; i++) {
        desktop_row(s, g_ptr_array_index(r->desktops, i));
    }
    g_string_append(s, "</table>\n");
}

static void section(GString *s, const char *title, const char *text)
{
    g_string_append_printf(s, "<h2>%s</h2>\n<p>%s</p>\n", title, text);
}

static void outages(GString *s, const ReportData *r)
{
    g_autoptr(GPtrArray) bad = g_ptr_array_new();
    guint more = 0;

    for (guint i = 0; i < r->desktops->len; i++) {
        DesktopStory *d = g_ptr_array_index(r->desktops, i);

        if (d->spans->len && bad->len < ROWS_MAX) {
            g_ptr_array_add(bad, d);
        } else {
            more += d->spans->len > 0;
        }
    }
    if (!bad->len) {
        section(s, "Outages", "None: each desktop had a store, and answered, "
                "whenever it was looked at.");
        return;
    }
    section(s, "Outages", "When a desktop had no store (red), and when it ran "
            "and did not answer (yellow). Desktops without are not shown.");
    chart_spans(s, bad, r);
    if (more) {
        g_string_append_printf(s, "<p>and %u more desktops</p>\n", more);
    }
}

static int by_most(const void *a, const void *b)
{
    double x = series_max(*(Series *const *)a);
    double y = series_max(*(Series *const *)b);

    return x > y ? -1 : x < y;
}

static void lag(GString *s, const ReportData *r)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();

    for (guint i = 0; i < r->desktops->len; i++) {
        DesktopStory *d = g_ptr_array_index(r->desktops, i);

        if (d->lag->points->len) {
            g_ptr_array_add(all, d->lag);
        }
    }
    if (!all->len) {
        section(s, "Lag", "No private desktop ran.");
        return;
    }
    g_ptr_array_sort(all, by_most);
    section(s, "Lag", "What private desktops had written and their stores did "
            "not have yet.");
    chart_lines(s, all, r, 0, bytes_text);
}

static void hits(GString *s, const ReportData *r)
{
    g_autoptr(GPtrArray) one = g_ptr_array_new();

    if (!r->hits->points->len) {
        section(s, "Hit rate", "Nothing was read through a host cache.");
        return;
    }
    section(s, "Hit rate", "How much of what desktops read was in the host "
            "cache.");
    g_ptr_array_add(one, r->hits);
    chart_lines(s, one, r, 1, share_text);
}

static void stores(GString *s, const ReportData *r)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();

    for (guint i = 0; i < r->stores->len; i++) {
        g_ptr_array_add(all, g_ptr_array_index(r->stores, i));
    }
    if (!all->len) {
        section(s, "Stores", "No streamed desktop ran.");
        return;
    }
    g_ptr_array_sort(all, by_most);
    section(s, "Stores", "What desktops read from each.");
    chart_lines(s, all, r, 0, rate_text);
    g_string_append(s, "<table>\n<tr><th>Store</th><th></th><th>In all</th>"
                    "<th>Most</th></tr>\n");
    for (guint i = 0; i < all->len; i++) {
        const Series *store = g_ptr_array_index(all, i);

        g_string_append(s, "<tr>");
        cell(s, g_strdup(store->name), false);
        cell(s, g_strdup(""), false);
        cell(s, bytes_text(series_sum(store)), false);
        cell(s, rate_text(series_max(store)), false);
        g_string_append(s, "</tr>\n");
    }
    g_string_append(s, "</table>\n");
}

static void boots(GString *s, const ReportData *r)
{
    g_autofree char *longest = span_text(r->longest);
    g_autofree char *text = g_strdup_printf(
        "From a reset or start until the guest's agent was there, as it was "
        "seen: exact to the time between two looks, %s at most.", longest);
    guint n = 0;

    for (guint i = 0; i < r->desktops->len; i++) {
        const DesktopStory *d = g_ptr_array_index(r->desktops, i);

        n += d->boots->len;
    }
    if (!n) {
        section(s, "Boot times", "No boot was seen from begin to end.");
        return;
    }
    section(s, "Boot times", text);
    chart_boots(s, r->desktops, r);
}

char *report_page(const ReportData *r, const char *title)
{
    GString *s = g_string_new(head);
    g_autofree char *from = units_format_local(r->from);
    g_autofree char *to = units_format_local(r->to);

    g_string_append(s, "<title>");
    chart_text(s, title);
    g_string_append(s, "</title>\n</head>\n<body>\n<h1>");
    chart_text(s, title);
    g_string_append_printf(s, "</h1>\n<p>%s to %s; %u desktops, looked at %u "
                           "times.</p>\n", from, to, r->desktops->len,
                           r->samples);
    table(s, r);
    outages(s, r);
    lag(s, r);
    hits(s, r);
    stores(s, r);
    boots(s, r);
    g_string_append(s, "</body>\n</html>\n");
    return g_string_free(s, FALSE);
}

/*
 * Charts as SVG
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "report-chart.h"

#include "cli/units.h"

#include <math.h>

/* In units of the drawing, which is scaled to the page's width */
#define WIDTH       900
#define HEIGHT      200
#define LEFT        80          /* of the plot: labels of the y axis */
#define NAMES       150         /* and names of desktops */
#define RIGHT       (WIDTH - 10)
#define TOP         10
#define BOTTOM      (HEIGHT - 24)
#define ROW         18
#define TICKS       6           /* of the x axis */
#define LINES       4           /* of the grid */
#define POINTS      600         /* of a line: two to three units each */

typedef struct Plot {
    double from, to;            /* time */
    double left, bottom, top;   /* in the drawing */
    double most;                /* value at its top */
} Plot;

/* Not with the locale's comma */
static void number(GString *s, double value)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE];

    g_string_append(s, g_ascii_formatd(buf, sizeof(buf), "%.1f", value));
}

void chart_text(GString *html, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    g_autofree char *safe = g_markup_escape_text(valid, -1);

    g_string_append(html, safe);
}

static double x_of(const Plot *p, double time)
{
    double span = MAX(p->to - p->from, 1);

    return p->left + (CLAMP(time, p->from, p->to) - p->from) / span *
           (RIGHT - p->left);
}

static double y_of(const Plot *p, double value)
{
    return p->bottom - CLAMP(value / p->most, 0, 1) * (p->bottom - p->top);
}

static void begin(GString *s, double height, const char *what)
{
    g_string_append_printf(s, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" "
                           "aria-label=\"%s\">\n", WIDTH, height, what);
}

static void end(GString *s)
{
    g_string_append(s, "</svg>\n");
}

static void line(GString *s, const char *class, double x1, double y1, double x2,
                 double y2)
{
    const char *const names[] = { "x1", "y1", "x2", "y2" };
    double values[] = { x1, y1, x2, y2 };

    g_string_append_printf(s, "<line class=\"%s\"", class);
    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        g_string_append_printf(s, " %s=\"", names[i]);
        number(s, values[i]);
        g_string_append_c(s, '"');
    }
    g_string_append(s, "/>\n");
}

static void label(GString *s, const char *class, double x, double y,
                  const char *text)
{
    g_string_append_printf(s, "<text class=\"%s\" x=\"", class);
    number(s, x);
    g_string_append(s, "\" y=\"");
    number(s, y);
    g_string_append(s, "\">");
    chart_text(s, text);
    g_string_append(s, "</text>\n");
}

static char *clock_text(double time, const char *format)
{
    g_autoptr(GDateTime) t = g_date_time_new_from_unix_local(time);

    return t ? g_date_time_format(t, format) : g_strdup("?");
}

static void time_axis(GString *s, const Plot *p)
{
    const char *format = p->to - p->from > 86400 ? "%d.%m. %H:%M"
                         : p->to - p->from > 600 ? "%H:%M" : "%H:%M:%S";

    for (int i = 0; i <= TICKS; i++) {
        double time = p->from + (p->to - p->from) * i / TICKS;
        g_autofree char *text = clock_text(time, format);

        line(s, "grid", x_of(p, time), p->top, x_of(p, time), p->bottom);
        label(s, i == 0 ? "first" : i == TICKS ? "last" : "mid",
              x_of(p, time), p->bottom + 16, text);
    }
}

static void value_axis(GString *s, const Plot *p, ChartLabel *text_of)
{
    for (int i = 0; i <= LINES; i++) {
        double value = p->most * i / LINES;
        g_autofree char *text = text_of(value);

        line(s, i ? "grid" : "axis", p->left, y_of(p, value), RIGHT,
             y_of(p, value));
        label(s, "last", p->left - 6, y_of(p, value) + 4, text);
    }
}

/* A line ends where nothing was recorded */
static void draw_series(GString *s, const Plot *p, const Series *all,
                        unsigned colour, double longest)
{
    Series *thin = series_thin(all, p->from, p->to, POINTS, true);
    double gap = MAX(longest, (p->to - p->from) / POINTS) * 2;
    double before = -INFINITY;

    g_string_append_printf(s, "<path class=\"line c%u\" d=\"", colour);
    for (guint i = 0; i < thin->points->len; i++) {
        const Point *at = &g_array_index(thin->points, Point, i);

        g_string_append_c(s, at->time - before > gap ? 'M' : 'L');
        number(s, x_of(p, at->time));
        g_string_append_c(s, ' ');
        number(s, y_of(p, at->value));
        /* One point by itself is seen, too: a line of no length, round ends */
        if (at->time - before > gap) {
            g_string_append(s, "h0");
        }
        before = at->time;
    }
    g_string_append(s, "\"><title>");
    chart_text(s, all->name);
    g_string_append(s, "</title></path>\n");
    series_free(thin);
}

static void legend(GString *html, const GPtrArray *series)
{
    g_string_append(html, "<p class=\"legend\">");
    for (guint i = 0; i < MIN(series->len, CHART_SERIES); i++) {
        const Series *s = g_ptr_array_index(series, i);

        g_string_append_printf(html, "<span><i class=\"c%u\"></i>", i);
        chart_text(html, s->name);
        g_string_append(html, "</span> ");
    }
    if (series->len > CHART_SERIES) {
        g_string_append_printf(html, "<span>and %u that are lower</span>",
                               series->len - CHART_SERIES);
    }
    g_string_append(html, "</p>\n");
}

void chart_lines(GString *html, const GPtrArray *series, const ReportData *r,
                 double top, ChartLabel *text_of)
{
    Plot p = { r->from, r->to, LEFT, BOTTOM, TOP, top };

    for (guint i = 0; top <= 0 && i < series->len; i++) {
        p.most = MAX(p.most, series_max(g_ptr_array_index(series, i)));
    }
    p.most = p.most > 0 ? p.most : 1;
    begin(html, HEIGHT, "lines over time");
    time_axis(html, &p);
    value_axis(html, &p, text_of);
    for (guint i = 0; i < MIN(series->len, CHART_SERIES); i++) {
        draw_series(html, &p, g_ptr_array_index(series, i), i, r->longest);
    }
    end(html);
    if (series->len && *((Series *)g_ptr_array_index(series, 0))->name) {
        legend(html, series);
    }
}

static void rectangle(GString *s, const Plot *p, const Span *span, double y)
{
    double x = x_of(p, span->begin), width = x_of(p, span->end) - x;
    g_autofree char *from = clock_text(span->begin, "%F %T");
    g_autofree char *length = units_format_span(
        (span->end - span->begin) * 1000);

    g_string_append_printf(s, "<rect class=\"%s\" x=\"",
                           span->silent ? "silent" : "outage");
    number(s, x);
    g_string_append(s, "\" y=\"");
    number(s, y);
    g_string_append(s, "\" width=\"");
    number(s, MAX(width, 1.5));
    g_string_append_printf(s, "\" height=\"%d\" rx=\"2\"><title>", ROW - 6);
    chart_text(s, span->silent ? "silent" : "no store");
    g_string_append_printf(s, " from %s, %s</title></rect>\n", from, length);
}

void chart_spans(GString *html, const GPtrArray *desktops, const ReportData *r)
{
    double bottom = TOP + ROW * desktops->len;
    Plot p = { r->from, r->to, NAMES, bottom, TOP, 1 };

    begin(html, bottom + 24, "outages over time");
    time_axis(html, &p);
    for (guint i = 0; i < desktops->len; i++) {
        const DesktopStory *d = g_ptr_array_index(desktops, i);
        double y = TOP + ROW * i;

        label(html, "last", NAMES - 6, y + ROW - 5, d->name);
        line(html, "grid", NAMES, y + ROW, RIGHT, y + ROW);
        for (guint j = 0; j < d->spans->len; j++) {
            rectangle(html, &p, &g_array_index(d->spans, Span, j), y + 3);
        }
    }
    end(html);
}

static char *seconds_text(double seconds)
{
    return units_format_span(seconds * 1000);
}

void chart_boots(GString *html, const GPtrArray *desktops, const ReportData *r)
{
    Plot p = { r->from, r->to, LEFT, BOTTOM, TOP, 1 };

    for (guint i = 0; i < desktops->len; i++) {
        const DesktopStory *d = g_ptr_array_index(desktops, i);

        for (guint j = 0; j < d->boots->len; j++) {
            p.most = MAX(p.most, g_array_index(d->boots, Boot, j).seconds);
        }
    }
    begin(html, HEIGHT, "boot times");
    time_axis(html, &p);
    value_axis(html, &p, seconds_text);
    for (guint i = 0; i < desktops->len; i++) {
        const DesktopStory *d = g_ptr_array_index(desktops, i);

        for (guint j = 0; j < d->boots->len; j++) {
            const Boot *b = &g_array_index(d->boots, Boot, j);
            g_autofree char *text = seconds_text(b->seconds);

            g_string_append(html, "<circle class=\"c0\" r=\"4\" cx=\"");
            number(html, x_of(&p, b->time));
            g_string_append(html, "\" cy=\"");
            number(html, y_of(&p, b->seconds));
            g_string_append(html, "\"><title>");
            chart_text(html, d->name);
            g_string_append_printf(html, ": %s</title></circle>\n", text);
        }
    }
    end(html);
}

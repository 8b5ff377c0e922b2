/*
 * Fuzz the report of what was recorded: each line of the input is a sample
 *
 * The file may come from somebody else; what is made of it is looked at in a
 * browser.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/watch/host-json.h"
#include "cli/watch/report-page.h"
#include "fuzz.h"

#include <json-glib/json-glib.h>
#include <math.h>

#define MOST_LINES  64
#define POINTS      8

/* What was read is written so that it is read as the same again */
static void check_again(const HostSample *s)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *once = NULL;
    g_autofree char *twice = NULL;
    g_autoptr(HostSample) again = NULL;

    json_node_take_object(node, host_sample_json(s));
    once = json_to_string(node, false);
    again = host_sample_from_json(once, strlen(once), NULL);
    assert(again);
    json_node_take_object(node, host_sample_json(again));
    twice = json_to_string(node, false);
    assert(again->desktops->len == s->desktops->len);
    assert(!strcmp(strchr(once, ','), strchr(twice, ',')));
}

static void check_series(const ReportData *r, const Series *s)
{
    Series *thin = series_thin(s, r->from, r->to, POINTS, true);
    double last = -1;

    assert(thin->points->len <= s->points->len);
    assert(series_max(thin) == series_max(s));
    for (unsigned i = 0; i < s->points->len; i++) {
        const Point *p = &g_array_index(s->points, Point, i);

        assert(p->time > last && p->time >= r->from && p->time <= r->to);
        assert(isfinite(p->value) && p->value >= 0);
        last = p->time;
    }
    series_free(thin);
}

static void check_story(const ReportData *r, const DesktopStory *d)
{
    unsigned count;

    assert(g_utf8_validate(d->name, -1, NULL));
    assert(d->hit >= 0 && d->miss >= 0 && d->read >= 0);
    assert(story_spans(d, true, &count) >= 0 && count <= d->spans->len);
    assert(story_spans(d, false, &count) >= 0 && count <= d->spans->len);
    for (unsigned i = 0; i < d->boots->len; i++) {
        assert(g_array_index(d->boots, Boot, i).seconds >= 0);
    }
    check_series(r, d->lag);
}

/* No name became markup: there is one script-free page, with one end */
static void check_page(const ReportData *r)
{
    g_autofree char *page = report_page(r, "<title> & \"more\"");

    assert(g_utf8_validate(page, -1, NULL));
    assert(!strstr(page, "<script") && !strstr(page, "<img"));
    assert(g_str_has_suffix(page, "</html>\n"));
    assert(strstr(page, "</html>") == page + strlen(page) - 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(ReportData) r = report_data_new();
    const char *p = (const char *)data, *end = p + size;

    for (unsigned n = 0; p < end && n < MOST_LINES; n++) {
        const char *stop = memchr(p, '\n', end - p);
        size_t length = (stop ? stop : end) - p;
        HostSample *s = host_sample_from_json(p, length, NULL);

        if (s) {
            check_again(s);
            report_data_add(r, s);
        }
        p += MIN(length + 1, (size_t)(end - p));
    }
    if (r->last) {
        for (unsigned i = 0; i < r->desktops->len; i++) {
            check_story(r, g_ptr_array_index(r->desktops, i));
        }
        for (unsigned i = 0; i < r->stores->len; i++) {
            check_series(r, g_ptr_array_index(r->stores, i));
        }
        check_series(r, r->hits);
        check_page(r);
    }
    return 0;
}

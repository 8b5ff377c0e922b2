/*
 * What samples of a host add up to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "report-data.h"
#include "rates.h"

#include <string.h>

static Series *series_new(const char *name)
{
    Series *s = g_new(Series, 1);

    s->name = g_strdup(name);
    s->points = g_array_new(FALSE, FALSE, sizeof(Point));
    return s;
}

void series_free(void *data)
{
    Series *s = data;

    g_free(s->name);
    g_array_unref(s->points);
    g_free(s);
}

static void series_add(Series *s, double time, double value)
{
    Point p = { time, value };

    g_array_append_val(s->points, p);
}

static const Point *point_at(const Series *s, guint i)
{
    return &g_array_index(s->points, Point, i);
}

double series_max(const Series *s)
{
    double most = 0;

    for (guint i = 0; i < s->points->len; i++) {
        most = MAX(most, point_at(s, i)->value);
    }
    return most;
}

double series_sum(const Series *s)
{
    double sum = 0;

    for (guint i = 1; i < s->points->len; i++) {
        const Point *p = point_at(s, i);
        double seconds = p->time - point_at(s, i - 1)->time;

        sum += seconds <= REPORT_GAP ? p->value * seconds : 0;
    }
    return sum;
}

Series *series_thin(const Series *s, double from, double to, unsigned n,
                    bool most)
{
    Series *thin = series_new(s->name);
    double width = MAX(to - from, 1) / n;
    guint i = 0;

    while (i < s->points->len) {
        const Point *first = point_at(s, i);
        double end = from + width * ((int)((first->time - from) / width) + 1);
        double sum = 0, max = first->value;
        unsigned count = 0;
        double time = first->time;

        for (; i < s->points->len && point_at(s, i)->time < end; i++) {
            time = point_at(s, i)->time;
            sum += point_at(s, i)->value;
            max = MAX(max, point_at(s, i)->value);
            count++;
        }
        if (!count) {           /* rounding put it behind its own end */
            sum = first->value;
            count = 1;
            i++;
        }
        series_add(thin, time, most ? max : sum / count);
    }
    return thin;
}

static void story_free(void *data)
{
    DesktopStory *d = data;

    g_free(d->name);
    g_free(d->vdisk);
    g_array_unref(d->spans);
    g_array_unref(d->boots);
    series_free(d->lag);
    g_free(d);
}

ReportData *report_data_new(void)
{
    ReportData *r = g_new0(ReportData, 1);

    r->desktops = g_ptr_array_new_with_free_func(story_free);
    r->stores = g_ptr_array_new_with_free_func(series_free);
    r->hits = series_new("");
    return r;
}

void report_data_free(ReportData *r)
{
    host_sample_free(r->last);
    g_ptr_array_unref(r->desktops);
    g_ptr_array_unref(r->stores);
    series_free(r->hits);
    g_free(r);
}

static DesktopStory *story_of(ReportData *r, const DesktopSample *d)
{
    DesktopStory *story;

    for (guint i = 0; i < r->desktops->len; i++) {
        story = g_ptr_array_index(r->desktops, i);
        if (!strcmp(story->name, d->name)) {
            return story;
        }
    }
    story = g_new0(DesktopStory, 1);
    story->name = g_strdup(d->name);
    story->vdisk = g_strdup(d->vdisk);
    story->spans = g_array_new(FALSE, FALSE, sizeof(Span));
    story->boots = g_array_new(FALSE, FALSE, sizeof(Boot));
    story->lag = series_new(d->name);
    g_ptr_array_add(r->desktops, story);
    return story;
}

/* Goes on with the last span if that has not ended before @begin */
static void add_span(DesktopStory *story, double begin, double end, bool silent)
{
    Span *last = story->spans->len
        ? &g_array_index(story->spans, Span, story->spans->len - 1) : NULL;
    Span span = { begin, end, silent };

    if (last && last->silent == silent && last->end >= begin) {
        last->end = MAX(last->end, end);
    } else {
        g_array_append_val(story->spans, span);
    }
}

static void add_troubles(DesktopStory *story, const DesktopSample *d,
                         double before, double now)
{
    double outage = vdisk_sample_get(d->disk, VALUE_OUTAGE);

    if (d->running && !d->up) {
        add_span(story, before, now, true);
    } else if (outage > 0) {
        add_span(story, MAX(now - outage, 0), now, false);
    }
}

/* A boot begins with a reset or a start, and ends when the agent is there */
static void add_boot(DesktopStory *story, const DesktopSample *was,
                     const DesktopSample *d, double now)
{
    bool reset = was && d->running &&
        (!was->running ||
         (was->disk && d->disk && vdisk_sample_get(d->disk, VALUE_RESETS) !=
          vdisk_sample_get(was->disk, VALUE_RESETS)));

    if (reset) {
        story->booting = now;
    }
    if (!d->running) {
        story->booting = 0;
    }
    if (story->booting > 0 && d->agent == AGENT_CONNECTED && !reset) {
        Boot boot = { now, now - story->booting };

        g_array_append_val(story->boots, boot);
        story->booting = 0;
    }
}

static double grown(const DesktopSample *was, const DesktopSample *d,
                    VdiskValue value)
{
    return was && was->disk && d->disk
           ? counter_growth(vdisk_sample_get(was->disk, value),
                            vdisk_sample_get(d->disk, value)) : 0;
}

/* What the desktops together read in one interval, by store */
static void add_reads(DesktopStory *story, GHashTable *reads,
                      const DesktopSample *was, const DesktopSample *d)
{
    for (guint i = 0; was && was->disk && i < d->disk->stores->len; i++) {
        const StoreSample *is = g_ptr_array_index(d->disk->stores, i);
        const StoreSample *old = store_sample_find(was->disk, is);
        double bytes = counter_growth(old ? old->value[STORE_BYTES] : 0,
                                      is->value[STORE_BYTES]);
        double *sum = g_hash_table_lookup(reads, is->name);

        if (!sum) {
            sum = g_new0(double, 1);
            g_hash_table_insert(reads, g_strdup(is->name), sum);
        }
        *sum += bytes;
        story->read += bytes;
    }
}

static Series *store_series(ReportData *r, const char *name)
{
    Series *s;

    for (guint i = 0; i < r->stores->len; i++) {
        s = g_ptr_array_index(r->stores, i);
        if (!strcmp(s->name, name)) {
            return s;
        }
    }
    s = series_new(name);
    g_ptr_array_add(r->stores, s);
    return s;
}

static void add_rates(ReportData *r, GHashTable *reads, double time,
                      double seconds)
{
    GHashTableIter i;
    void *name, *bytes;

    g_hash_table_iter_init(&i, reads);
    while (g_hash_table_iter_next(&i, &name, &bytes)) {
        series_add(store_series(r, name), time, *(double *)bytes / seconds);
    }
}

static void add_interval(ReportData *r, const HostSample *now, double time,
                         double seconds)
{
    g_autoptr(GHashTable) reads = g_hash_table_new_full(
        g_str_hash, g_str_equal, g_free, g_free);
    double hit = 0, miss = 0;

    for (guint i = 0; i < now->desktops->len; i++) {
        const DesktopSample *d = g_ptr_array_index(now->desktops, i);
        const DesktopSample *was = host_sample_find(r->last, d->name);
        DesktopStory *story = story_of(r, d);

        add_troubles(story, d, time - seconds, time);
        add_boot(story, was, d, time);
        if (!d->disk) {
            continue;
        }
        add_reads(story, reads, was, d);
        story->hit += grown(was, d, VALUE_CACHE_HIT);
        story->miss += grown(was, d, VALUE_CACHE_MISS);
        hit += grown(was, d, VALUE_CACHE_HIT);
        miss += grown(was, d, VALUE_CACHE_MISS);
        if (d->disk->has[VALUE_LAG_BYTES]) {
            series_add(story->lag, time, d->disk->value[VALUE_LAG_BYTES]);
        }
    }
    if (seconds > 0) {
        add_rates(r, reads, time, seconds);
    }
    if (hit + miss > 0) {
        series_add(r->hits, time, hit / (hit + miss));
    }
}

void report_data_add(ReportData *r, HostSample *s)
{
    double time = s->time / 1e6;
    double seconds = r->last ? time - r->to : 0;

    if (r->last && seconds <= 0) {
        host_sample_free(s);
        return;
    }
    if (!r->last) {
        r->from = time;
    }
    if (seconds > REPORT_GAP) {         /* as if it had begun anew */
        g_clear_pointer(&r->last, host_sample_free);
        seconds = 0;
    }
    add_interval(r, s, time, seconds);
    r->longest = MAX(r->longest, seconds);
    r->to = time;
    r->samples++;
    g_clear_pointer(&r->last, host_sample_free);
    r->last = s;
}

double story_spans(const DesktopStory *d, bool silent, unsigned *count)
{
    double seconds = 0;

    *count = 0;
    for (guint i = 0; i < d->spans->len; i++) {
        const Span *span = &g_array_index(d->spans, Span, i);

        if (span->silent == silent) {
            seconds += span->end - span->begin;
            ++*count;
        }
    }
    return seconds;
}

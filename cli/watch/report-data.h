/*
 * What samples of a host add up to: what the report draws
 *
 * Nothing here does I/O. Times are seconds since 1970.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_REPORT_DATA_H
#define CLI_WATCH_REPORT_DATA_H

#include "host-sample.h"

/* Longer without a sample: nobody recorded, and nothing is known of that time */
#define REPORT_GAP      300

typedef struct Point {
    double time, value;
} Point;

typedef struct Series {
    char *name;
    GArray *points;             /* Point, by time */
} Series;

typedef struct Span {
    double begin, end;
    bool silent;                /* else an outage */
} Span;

typedef struct Boot {
    double time, seconds;       /* when it was up, and how long that took */
} Boot;

/* A desktop over all samples */
typedef struct DesktopStory {
    char *name, *vdisk;
    GArray *spans;              /* Span, by time; of an outage and of silence */
    GArray *boots;              /* Boot */
    Series *lag;                /* bytes */
    double hit, miss, read;     /* bytes in all */
    double booting;             /* since when; 0: it is not */
} DesktopStory;

typedef struct ReportData {
    double from, to;            /* first and last sample */
    double longest;             /* between two, s; up to REPORT_GAP */
    unsigned samples;
    HostSample *last;
    GPtrArray *desktops;        /* DesktopStory */
    GPtrArray *stores;          /* Series: bytes a second of each */
    Series *hits;               /* share of all reads of the host caches */
} ReportData;

ReportData *report_data_new(void);
void report_data_free(ReportData *r);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ReportData, report_data_free)

/* The next sample, which is taken; one that is no later is dropped */
void report_data_add(ReportData *r, HostSample *s);

/* The most, and all that is below a curve; 0 if there are no points */
double series_max(const Series *s);
double series_sum(const Series *s);

/*
 * At most @n points: of those that fall together the mean, or the most. What a
 * chart cannot show need not be in it. To be freed with series_free().
 */
Series *series_thin(const Series *s, double from, double to, unsigned n,
                    bool most);
void series_free(void *s);

/* Seconds in spans of one kind; *@count: how many */
double story_spans(const DesktopStory *d, bool silent, unsigned *count);

#endif /* CLI_WATCH_REPORT_DATA_H */

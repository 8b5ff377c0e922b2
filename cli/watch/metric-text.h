/*
 * Metrics as Prometheus reads them: text format, version 0.0.4
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_METRIC_TEXT_H
#define CLI_WATCH_METRIC_TEXT_H

#include <glib.h>
#include <stdbool.h>

#define METRIC_LABEL_MAX    256     /* bytes of a label's value */
#define METRIC_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* A name with its unit at its end; of a counter with "_total" behind that */
typedef struct Metric {
    const char *name;
    const char *help;           /* one line */
    bool counter;               /* only grows, until its process ends */
} Metric;

/*
 * What fits into @most bytes of @text, which is UTF-8: no character is cut in
 * two. To be freed.
 */
char *metric_label_cut(const char *text, gsize most);

typedef struct MetricPage MetricPage;

MetricPage *metric_page_new(void);
void metric_page_free(MetricPage *p);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MetricPage, metric_page_free)

/*
 * A sample. @labels: name, value, ..., NULL. Values come from outside: they
 * are made valid, cut to METRIC_LABEL_MAX and escaped; one that is NULL is "".
 * @m must live as long as the page.
 */
void metric_add(MetricPage *p, const Metric *m, double value,
                const char *const *labels);

/*
 * All of it: each metric once, with its samples, in the order of their first
 * samples. To be freed.
 */
char *metric_page_text(const MetricPage *p);

#endif /* CLI_WATCH_METRIC_TEXT_H */

/*
 * Metrics as Prometheus reads them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "metric-text.h"

#include <math.h>
#include <string.h>

typedef struct Family {
    const Metric *metric;
    GString *samples;
} Family;

struct MetricPage {
    GPtrArray *order;           /* Family */
    GHashTable *families;       /* Metric -> Family */
};

static void family_free(void *data)
{
    Family *f = data;

    g_string_free(f->samples, TRUE);
    g_free(f);
}

char *metric_label_cut(const char *text, gsize most)
{
    gsize n = strnlen(text, most);

    /* Where the cut comes before the second byte of a character, or a later */
    while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) {
        n--;
    }
    return g_strndup(text, n);
}

MetricPage *metric_page_new(void)
{
    MetricPage *p = g_new(MetricPage, 1);

    p->order = g_ptr_array_new_with_free_func(family_free);
    p->families = g_hash_table_new(NULL, NULL);
    return p;
}

void metric_page_free(MetricPage *p)
{
    g_hash_table_unref(p->families);
    g_ptr_array_unref(p->order);
    g_free(p);
}

static Family *family_of(MetricPage *p, const Metric *m)
{
    Family *f = g_hash_table_lookup(p->families, m);

    if (!f) {
        f = g_new(Family, 1);
        f->metric = m;
        f->samples = g_string_new(NULL);
        g_ptr_array_add(p->order, f);
        g_hash_table_insert(p->families, (void *)m, f);
    }
    return f;
}

static void append_value(GString *s, const char *value)
{
    g_autofree char *cut = metric_label_cut(value, METRIC_LABEL_MAX);
    g_autofree char *valid = g_utf8_make_valid(cut, -1);

    for (const char *c = valid; *c; c++) {
        if (*c == '\n') {
            g_string_append(s, "\\n");
        } else {
            if (*c == '\\' || *c == '"') {
                g_string_append_c(s, '\\');
            }
            g_string_append_c(s, *c);
        }
    }
}

static void append_number(GString *s, double value)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE];

    if (isnan(value)) {
        g_string_append(s, "NaN");
    } else if (isinf(value)) {
        g_string_append(s, value > 0 ? "+Inf" : "-Inf");
    } else {
        /* Not with the locale's comma. 15 digits: 0.1 stays that */
        const char *format = fabs(value) < 1e15 ? "%.15g" : "%.17g";

        g_string_append(s, g_ascii_formatd(buf, sizeof(buf), format, value));
    }
}

void metric_add(MetricPage *p, const Metric *m, double value,
                const char *const *labels)
{
    GString *s = family_of(p, m)->samples;
    char before = '{';

    g_string_append(s, m->name);
    for (; labels && labels[0]; labels += 2) {
        g_string_append_printf(s, "%c%s=\"", before, labels[0]);
        append_value(s, labels[1] ? labels[1] : "");
        g_string_append_c(s, '"');
        before = ',';
    }
    g_string_append(s, before == ',' ? "} " : " ");
    append_number(s, value);
    g_string_append_c(s, '\n');
}

char *metric_page_text(const MetricPage *p)
{
    GString *s = g_string_new(NULL);

    for (guint i = 0; i < p->order->len; i++) {
        const Family *f = g_ptr_array_index(p->order, i);

        g_string_append_printf(s, "# HELP %s %s\n# TYPE %s %s\n%s",
                               f->metric->name, f->metric->help,
                               f->metric->name,
                               f->metric->counter ? "counter" : "gauge",
                               f->samples->str);
    }
    return g_string_free(s, FALSE);
}

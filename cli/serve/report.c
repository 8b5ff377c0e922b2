/*
 * What a service says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "report.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

/* Another reason for the same trouble is told after that time, us */
#define TELL_AGAIN      (60 * G_USEC_PER_SEC)

typedef struct Trouble {
    char *text;
    gint64 told;
} Trouble;

/* Of each subject that is not well */
static GHashTable *troubles;

static void trouble_free(gpointer data)
{
    Trouble *t = data;

    g_free(t->text);
    g_free(t);
}

void report(const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    fprintf(stderr, "%s: %s\n", g_get_prgname(), text);
}

static void set_trouble(const char *subject, const char *text)
{
    Trouble *t = g_hash_table_lookup(troubles, subject);
    gint64 now = g_get_monotonic_time();

    if (!t) {
        t = g_new0(Trouble, 1);
        t->told = -TELL_AGAIN;
        g_hash_table_insert(troubles, g_strdup(subject), t);
    }
    if (g_strcmp0(t->text, text) && now - t->told >= TELL_AGAIN) {
        report("%s: %s", subject, text);
        t->told = now;
        g_free(t->text);
        t->text = g_strdup(text);
    }
}

void report_state(const char *subject, const char *text)
{
    if (!troubles) {
        troubles = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                         trouble_free);
    }
    if (text) {
        set_trouble(subject, text);
    } else if (g_hash_table_remove(troubles, subject)) {
        report("%s: works again", subject);
    }
}

void report_forget(const char *subject)
{
    if (troubles) {
        g_hash_table_remove(troubles, subject);
    }
}

unsigned report_troubles(void)
{
    return troubles ? g_hash_table_size(troubles) : 0;
}

void report_ready(void)
{
    sd_notify(0, "READY=1");
}

void report_stopping(void)
{
    sd_notify(0, "STOPPING=1");
}

void report_alive(void)
{
    sd_notify(0, "WATCHDOG=1");
}

void report_status(const char *format, ...)
{
    static char *before;
    char *text;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    if (g_strcmp0(before, text)) {
        sd_notifyf(0, "STATUS=%s", text);
    }
    g_free(before);
    before = text;
}

/*
 * What a service says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "report.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

/* Subjects that are not well, and what was said of them */
static GHashTable *troubles;

void report(const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    fprintf(stderr, "%s: %s\n", g_get_prgname(), text);
}

void report_state(const char *subject, const char *text)
{
    const char *before;

    if (!troubles) {
        troubles = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                         g_free);
    }
    before = g_hash_table_lookup(troubles, subject);
    if (!g_strcmp0(before, text)) {
        return;
    }
    if (text) {
        report("%s: %s", subject, text);
        g_hash_table_insert(troubles, g_strdup(subject), g_strdup(text));
    } else {
        report("%s: works again", subject);
        g_hash_table_remove(troubles, subject);
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

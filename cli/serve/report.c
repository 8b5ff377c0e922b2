/*
 * What a service says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "report.h"

#include "cli/message-id.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>
#include <systemd/sd-daemon.h>

#define SD_JOURNAL_SUPPRESS_LOCATION    /* of no use to administrators */
#include <systemd/sd-journal.h>

#define FIELDS_MAX      8               /* of a message, besides ours */

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

/* systemd names the device and inode of the stream that it gave us */
static bool stderr_is_journal(void)
{
    const char *stream = g_getenv("JOURNAL_STREAM");
    g_autofree char *ours = NULL;
    struct stat st;

    if (!stream || fstat(STDERR_FILENO, &st) < 0) {
        return false;
    }
    ours = g_strdup_printf("%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT,
                           (guint64)st.st_dev, (guint64)st.st_ino);
    return !strcmp(stream, ours);
}

void report_message(const char *id, int priority, const char *const *fields,
                    const char *text)
{
    g_autofree char *line = g_strdup_printf("MESSAGE=%s: %s", g_get_prgname(),
                                            text);
    g_autofree char *kind = g_strdup_printf("MESSAGE_ID=%s", id);
    g_autofree char *level = g_strdup_printf("PRIORITY=%d", priority);
    struct iovec v[4 + FIELDS_MAX] = {
        { line, strlen(line) }, { kind, strlen(kind) },
        { level, strlen(level) },
        { (void *)"SYSLOG_IDENTIFIER=deskcast",
          sizeof("SYSLOG_IDENTIFIER=deskcast") - 1 },
    };
    int n = 4;

    for (; fields && fields[n - 4] && n < 4 + FIELDS_MAX; n++) {
        v[n] = (struct iovec){ (void *)fields[n - 4], strlen(fields[n - 4]) };
    }
    if (!stderr_is_journal() || sd_journal_sendv(v, n) < 0) {
        report("%s", text);
    }
}

static void say_state(const char *id, int priority, const char *subject,
                      const char *text)
{
    g_autofree char *field = g_strdup_printf("DESKCAST_SUBJECT=%s", subject);
    g_autofree char *line = g_strdup_printf("%s: %s", subject, text);
    const char *const fields[] = { field, NULL };

    report_message(id, priority, fields, line);
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
        say_state(MESSAGE_TROUBLE, LOG_WARNING, subject, text);
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
        say_state(MESSAGE_WELL, LOG_NOTICE, subject, "works again");
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

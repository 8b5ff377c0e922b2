/*
 * How far a long step is: a bar on a terminal, plain lines elsewhere
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REDRAW_US       100000
#define BAR_COLUMNS     24
#define MIB             (1 << 20)

struct Progress {
    char *what;
    bool bytes, quiet, terminal;
    gint64 start;               /* monotonic, microseconds */

    GMutex lock;                /* protects all below */
    uint64_t done, total;
    gint64 drawn;
    unsigned tenths;            /* printed, where it is no terminal */
    char *detail;               /* what was said last, on a terminal */
    bool line_open;             /* on a terminal */
};

Progress *progress_new(const char *what, uint64_t total, bool bytes,
                       bool quiet)
{
    Progress *p = g_new0(Progress, 1);

    p->what = g_strdup(what);
    p->bytes = bytes;
    p->quiet = quiet;
    p->terminal = isatty(STDERR_FILENO);
    p->start = g_get_monotonic_time();
    p->total = total;
    g_mutex_init(&p->lock);
    return p;
}

static unsigned percent(const Progress *p)
{
    return p->total ? MIN(p->done, p->total) / (p->total / 100.0) : 0;
}

/* " (1024 of 4096 MiB, 312 MiB/s)", or " (3 of 8)"; of 100 parts the percentage
 * says it all */
static char *amounts(const Progress *p)
{
    gint64 us = g_get_monotonic_time() - p->start;

    if (!p->bytes) {
        return p->total == 100 ? g_strdup("") :
               g_strdup_printf(" (%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                               ")", p->done, p->total);
    }
    return g_strdup_printf(" (%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                           " MiB, %.0f MiB/s)", p->done / MIB, p->total / MIB,
                           us > 0 ? p->done * 1e6 / MIB / us : 0);
}

static void draw_bar(Progress *p)
{
    g_autofree char *text = amounts(p);
    char bar[BAR_COLUMNS + 1];
    unsigned filled = percent(p) * BAR_COLUMNS / 100;

    memset(bar, '#', filled);
    memset(bar + filled, ' ', BAR_COLUMNS - filled);
    bar[BAR_COLUMNS] = '\0';
    /* Too long for the terminal, it is cut, and goes into no second line */
    fprintf(stderr, "\r\033[?7l%s [%s] %u%%%s%s%s\033[K\033[?7h", p->what, bar,
            percent(p), text, p->detail ? " " : "",
            p->detail ? p->detail : "");
    fflush(stderr);
    p->line_open = true;
}

static void draw_line(Progress *p)
{
    g_autofree char *text = amounts(p);

    fprintf(stderr, "%s: %u%%%s\n", p->what, percent(p), text);
}

/* Called with the lock held */
static void draw(Progress *p, bool last)
{
    gint64 now = g_get_monotonic_time();
    unsigned tenths = percent(p) / 10;

    if (p->quiet || p->total == 0) {
        return;
    }
    if (p->terminal && (last || now - p->drawn >= REDRAW_US)) {
        p->drawn = now;
        draw_bar(p);
    } else if (!p->terminal && tenths > p->tenths) {
        p->tenths = tenths;
        draw_line(p);
    }
}

void progress_add(Progress *p, uint64_t n)
{
    if (p) {
        g_mutex_lock(&p->lock);
        p->done += n;
        draw(p, false);
        g_mutex_unlock(&p->lock);
    }
}

void progress_set(Progress *p, uint64_t done, uint64_t total)
{
    if (p) {
        g_mutex_lock(&p->lock);
        p->done = done;
        p->total = total;
        draw(p, false);
        g_mutex_unlock(&p->lock);
    }
}

void progress_say(Progress *p, const char *detail)
{
    if (!p || p->quiet) {
        return;
    }
    g_mutex_lock(&p->lock);
    if (p->terminal) {
        g_free(p->detail);
        p->detail = g_strdup(detail);
        draw(p, false);
    } else {
        fprintf(stderr, "%s\n", detail);
    }
    g_mutex_unlock(&p->lock);
}

void progress_done(Progress *p)
{
    if (p) {
        g_mutex_lock(&p->lock);
        p->done = p->total;
        g_clear_pointer(&p->detail, g_free);
        draw(p, true);
        g_mutex_unlock(&p->lock);
    }
}

void progress_free(Progress *p)
{
    if (p) {
        if (p->line_open) {
            fputc('\n', stderr);
        }
        g_mutex_clear(&p->lock);
        g_free(p->what);
        g_free(p->detail);
        g_free(p);
    }
}

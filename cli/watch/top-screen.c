/*
 * A terminal that is drawn anew again and again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "top-screen.h"

#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ALTERNATE_ON    "\033[?1049h\033[?25l"  /* and no cursor */
#define ALTERNATE_OFF   "\033[?25h\033[?1049l"
#define HOME            "\033[H"
#define TO_LINE_END     "\033[K"
#define TO_SCREEN_END   "\033[J"
#define REVERSE         "\033[7m"
#define PLAIN           "\033[0m"
#define CONTROL_C       3
#define CONTROL_D       4

static struct termios before;
static volatile sig_atomic_t ended;

static void on_end(int number)
{
    (void)number;
    ended = 1;
}

static void on_resize(int number)
{
    (void)number;               /* it interrupts poll() */
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = { .sa_handler = handler };

    sigaction(number, &action, NULL);
}

bool screen_is_there(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

void screen_open(void)
{
    struct termios raw;

    tcgetattr(STDIN_FILENO, &before);
    raw = before;
    raw.c_lflag &= ~(ICANON | ECHO | ISIG);
    handle(SIGTERM, on_end);
    handle(SIGHUP, on_end);
    handle(SIGWINCH, on_resize);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
    fputs(ALTERNATE_ON, stdout);
}

void screen_close(void)
{
    fputs(ALTERNATE_OFF, stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
}

/* The first @width characters of a line */
static void draw_line(const char *line, int width, bool bold)
{
    glong length = g_utf8_strlen(line, -1);
    g_autofree char *cut = g_utf8_substring(line, 0, MIN(length, width));

    printf("%s%s%s" TO_LINE_END, bold ? REVERSE : "", cut, bold ? PLAIN : "");
}

void screen_draw(const char *text, int bold)
{
    struct winsize size = { .ws_row = 24, .ws_col = 80 };
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    int n = g_strv_length(lines);

    ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    fputs(HOME, stdout);
    for (int i = 0; i < n && i < size.ws_row; i++) {
        if (i) {
            putchar('\n');
        }
        draw_line(lines[i], size.ws_col, i == bold);
    }
    fputs(TO_SCREEN_END, stdout);
    fflush(stdout);
}

int screen_key(int wait_ms)
{
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
    char key;

    if (ended) {
        return SCREEN_END;
    }
    if (poll(&p, 1, wait_ms) <= 0) {
        return ended ? SCREEN_END : SCREEN_NONE;
    }
    if (read(STDIN_FILENO, &key, 1) != 1 || key == CONTROL_C ||
        key == CONTROL_D) {
        return SCREEN_END;      /* the terminal is gone, too */
    }
    return key;
}

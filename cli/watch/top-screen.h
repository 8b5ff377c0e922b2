/*
 * A terminal that is drawn anew again and again
 *
 * Cursor movements of ECMA-48 alone, which every terminal has: lines of text
 * need no library. What was on it comes back at the end, however we end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_TOP_SCREEN_H
#define CLI_WATCH_TOP_SCREEN_H

#include <stdbool.h>

#define SCREEN_NONE     0       /* the time is up, or its size has changed */
#define SCREEN_END      (-1)    /* ^C, or we were told to end */

/* Are standard input and output a terminal? */
bool screen_is_there(void);

/* One at a time */
void screen_open(void);
void screen_close(void);

/* @text, cut to the terminal's size. The line @bold is in reverse, -1: none */
void screen_draw(const char *text, int bold);

/* A key, SCREEN_NONE or SCREEN_END */
int screen_key(int wait_ms);

#endif /* CLI_WATCH_TOP_SCREEN_H */

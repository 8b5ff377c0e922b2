/*
 * What a service says: lines on standard error, which its unit puts into the
 * journal, and its state for systemd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_REPORT_H
#define CLI_SERVE_REPORT_H

#include <glib.h>

/* A line */
void report(const char *format, ...) G_GNUC_PRINTF(1, 2);

/*
 * A line that is of a kind, @id of message-id.h, and has a priority of
 * syslog's. @fields: "NAME=value", ..., NULL. Where standard error is the
 * journal, it gets all of that instead of the line.
 */
void report_message(const char *id, int priority, const char *const *fields,
                    const char *text);

/*
 * A line about @subject ("vDisk win11"), unless it is the same as the last one
 * about it, or the last one was told just now. @text NULL: all is well again,
 * which is said if it was not.
 */
void report_state(const char *subject, const char *text);

/* How many subjects are not well */
unsigned report_troubles(void);

/* Nothing is said of it any more; it is gone */
void report_forget(const char *subject);

/* To systemd, if it listens */
void report_ready(void);
void report_stopping(void);
void report_status(const char *format, ...) G_GNUC_PRINTF(1, 2);
void report_alive(void);

#endif /* CLI_SERVE_REPORT_H */

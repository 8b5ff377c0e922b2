/*
 * What store serve and relay have in common: a process that stays
 *
 * A tick each second, SIGTERM and SIGINT to end, SIGHUP to read certificates
 * again, a private folder.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_SERVICE_H
#define CLI_SERVE_SERVICE_H

#include <gio/gio.h>
#include <stdbool.h>

#define SERVICE_TICK_MS     1000
#define SERVICE_CONNECTIONS 4096        /* clients at once, if not told */

/* A folder of ours alone, which is empty; NULL with @error */
char *service_folder(GError **error);
void service_remove_folder(const char *folder);

/* Paths go to a daemon that runs elsewhere. NULL stays that. */
void service_make_absolute(char **path);

/* As many descriptors as we may have: a client is one */
void service_raise_limits(void);

/*
 * Run @tick at once and then each second until somebody ends us; @again when
 * SIGHUP comes.
 */
void service_run(void (*tick)(void *opaque), void (*again)(void *opaque),
                 void *opaque);

/* Run @tick soon, from the main loop */
void service_tick_soon(void);

#endif /* CLI_SERVE_SERVICE_H */

/*
 * The journal's line for a command that changes something
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_AUDIT_H
#define CLI_AUDIT_H

#include <glib.h>
#include <stdint.h>

/*
 * Who did @action ("version promote") to @vdisk, or NULL, and its @version, or
 * 0; @format tells the rest for people. Fields: DESKCAST_ACTION,
 * DESKCAST_VDISK, DESKCAST_VERSION, DESKCAST_USER; MESSAGE_COMMAND. A machine
 * without a journal goes without.
 */
void audit(const char *action, const char *vdisk, uint64_t version,
           const char *format, ...) G_GNUC_PRINTF(4, 5);

/* Who runs this: the user behind sudo or pkexec, else that of the process */
char *audit_user(void);

#endif /* CLI_AUDIT_H */

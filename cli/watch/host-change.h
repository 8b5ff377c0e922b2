/*
 * What has changed on a host since it was looked at last
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_HOST_CHANGE_H
#define CLI_WATCH_HOST_CHANGE_H

#include "host-sample.h"

typedef struct HostChange {
    const char *id;             /* of message-id.h */
    int priority;               /* syslog's */
    const char *desktop;
    const char *vdisk;
    const char *store;          /* of one; else NULL */
    const char *text;           /* for people, with the desktop's name */
} HostChange;

typedef void HostChangeFunc(void *opaque, const HostChange *change);

/*
 * Call @func for each change from @before to @now. What is not well already
 * when it is seen for the first time, as all is if @before is NULL, is a change
 * too; that something is well then is none.
 */
void host_changes(const HostSample *before, const HostSample *now,
                  HostChangeFunc *func, void *opaque);

#endif /* CLI_WATCH_HOST_CHANGE_H */

/*
 * The desktops of this host, as libvirt has them
 *
 * One thread asks libvirt, whose calls cannot be interrupted. While it does not
 * answer there is the last list, and still one thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_LISTER_H
#define CLI_WATCH_LISTER_H

#include "host-sample.h"

typedef struct Lister Lister;

/* @uri: libvirt's. It lives until the process ends. */
Lister *lister_new(const char *uri);

/*
 * Put the desktops into @s, by name, as they are now; or as they were, with
 * libvirt_up false, if that is not known within @timeout_ms. The first list is
 * waited for longer.
 */
void lister_list(Lister *l, HostSample *s, int timeout_ms);

#endif /* CLI_WATCH_LISTER_H */

/*
 * A host's desktops, all asked at once
 *
 * Each has a deadline, and so has the whole. A desktop that does not answer
 * costs the others nothing: next time it is asked when they have been.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_ASKER_H
#define CLI_WATCH_ASKER_H

#include "host-sample.h"

#include <gio/gio.h>

#define ASKER_URI       "qemu:///system"
#define ASKER_RELAY     "/run/deskcast/relay.json"
#define ASKER_TIMEOUT   2       /* s, of a desktop */
#define ASKER_ROUNDS    2       /* of all desktops, in such times */
#define ASKER_THREADS   32      /* desktops that are asked at once */

/* As they were typed; NULL and 0 are the defaults above */
typedef struct AskerOptions {
    char *uri;                  /* --connect */
    char *relay;                /* --relay-status */
    int timeout;                /* --timeout: s */
} AskerOptions;

void asker_options_clear(AskerOptions *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(AskerOptions, asker_options_clear)

#define ASKER_OPTION_ENTRIES(o) \
    { "connect", 'c', 0, G_OPTION_ARG_STRING, &(o)->uri, \
      "This host's libvirt (default: " ASKER_URI ")", "URI" }, \
    { "relay-status", 0, 0, G_OPTION_ARG_FILENAME, &(o)->relay, \
      "What the relay tells of itself (default: " ASKER_RELAY ")", "FILE" }, \
    { "timeout", 0, 0, G_OPTION_ARG_INT, &(o)->timeout, \
      "Seconds that a desktop may take to answer (default: 2)", "S" }

typedef struct Asker Asker;

/* NULL with @error if @options are wrong. It lives until the process ends. */
Asker *asker_new(const AskerOptions *options, GError **error);

/* Ask all; any thread, one at a time */
HostSample *asker_ask(Asker *a);

#endif /* CLI_WATCH_ASKER_H */

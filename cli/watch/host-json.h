/*
 * What is known of a host, in JSON: what `top --json` prints, and a line of
 * what `report --record` writes
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_HOST_JSON_H
#define CLI_WATCH_HOST_JSON_H

#include "host-sample.h"

/* Values have the names of their metrics, without "deskcast_" */
JsonObject *host_sample_json(const HostSample *s);

/* Back again: what the report needs of it. NULL with @error if it is none. */
HostSample *host_sample_from_json(const char *text, gsize length,
                                  GError **error);

#endif /* CLI_WATCH_HOST_JSON_H */

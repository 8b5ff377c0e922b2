/*
 * Sizes and times, as people write and read them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_UNITS_H
#define CLI_UNITS_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Bytes: "200G", "1.5T", "512", "64 KiB"; units of 1024. False with @error if
 * it is no size, or does not fit into 63 bits.
 */
bool units_parse_size(const char *text, uint64_t *bytes, GError **error);

/* "1.5 GiB"; to be freed */
char *units_format_size(uint64_t bytes);

/* A span: "250 ms", "12.3 s", "4 min 10 s", "3 h 5 min", "2 d 4 h" */
char *units_format_span(uint64_t milliseconds);

/* 9999-12-31T23:59:59Z: a year has four digits in all our files */
#define UNITS_TIME_MAX  INT64_C(253402300799)

/*
 * Seconds since 1970 of an ISO 8601 date, or date and time; without a zone it
 * is local time. False with @error if it is none, or not in 1970 to 9999.
 */
bool units_parse_time(const char *text, int64_t *seconds, GError **error);

/* "2026-11-27T09:00:00Z" */
char *units_format_time(int64_t seconds);

/* "2026-11-27 10:00", local time, for people */
char *units_format_local(int64_t seconds);

#endif /* CLI_UNITS_H */

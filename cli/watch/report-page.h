/*
 * The report: one page of HTML with all that it needs
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_REPORT_PAGE_H
#define CLI_WATCH_REPORT_PAGE_H

#include "report-data.h"

/* @title is for its head; to be freed */
char *report_page(const ReportData *r, const char *title);

#endif /* CLI_WATCH_REPORT_PAGE_H */

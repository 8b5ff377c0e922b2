/*
 * Charts as SVG, to stand in a page of HTML whose style gives them their colours
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_REPORT_CHART_H
#define CLI_WATCH_REPORT_CHART_H

#include "report-data.h"

#define CHART_SERIES    6           /* lines in a chart; so many colours */

/* A value as it stands at an axis; to be freed */
typedef char *ChartLabel(double value);

/*
 * Lines over time, up to CHART_SERIES of @series (Series); the y axis goes from
 * 0 to @top, or to the most there is if that is 0.
 */
void chart_lines(GString *html, const GPtrArray *series, const ReportData *r,
                 double top, ChartLabel *label);

/* A row for each desktop (DesktopStory), with its spans */
void chart_spans(GString *html, const GPtrArray *desktops,
                 const ReportData *r);

/* A dot for each boot */
void chart_boots(GString *html, const GPtrArray *desktops,
                 const ReportData *r);

/* Text that somebody else gave, for HTML and SVG */
void chart_text(GString *html, const char *text);

#endif /* CLI_WATCH_REPORT_CHART_H */

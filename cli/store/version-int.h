/*
 * What the files about versions share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_VERSION_INT_H
#define CLI_STORE_VERSION_INT_H

#include "cli/store/store-int.h"
#include "cli/store/version.h"

/* Seconds since 1970 */
int64_t store_now(void);

/* "version N of 'NAME' …" as @error; false */
bool version_refuse(GError **error, const Manifest *m, uint64_t number,
                    const char *format, ...) G_GNUC_PRINTF(4, 5);

Version *version_find(const Manifest *m, uint64_t number, GError **error);

/* Nobody has its image open for writing; false with @error */
bool version_no_writer(const Store *s, const Manifest *m, const Version *v,
                       GError **error);

/* Nobody has it open at all */
bool version_unread(const Store *s, const Manifest *m, const Version *v,
                    GError **error);

#endif /* CLI_STORE_VERSION_INT_H */

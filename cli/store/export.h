/*
 * Take a version out of the store, as an image of a format
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_EXPORT_H
#define CLI_STORE_EXPORT_H

#include "cli/store/store.h"

/*
 * Version @v as @file in @format (QEMU's name of it). The file has its name
 * only when what was read back from the medium has the version's root hash.
 * An existing one is replaced with @force only. False with @error.
 */
bool store_export(const Store *s, const Manifest *m, const Version *v,
                  const char *file, const char *format, bool force, bool quiet,
                  GError **error);

#endif /* CLI_STORE_EXPORT_H */

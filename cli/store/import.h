/*
 * Bring an image into the store as a new vDisk, and prove it identical
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_IMPORT_H
#define CLI_STORE_IMPORT_H

#include "cli/store/source.h"
#include "cli/store/store.h"

/*
 * Version 1 of a vDisk @name with the content of @source, filled up with zeros
 * to a multiple of 4096 bytes, in test. It exists only if what was read back
 * from the medium is what the source holds, which is read a second time for
 * that. NULL with @error. @quiet: no progress shown.
 */
Manifest *store_import(Store *s, const Source *source, const char *name,
                       const char *comment, bool quiet, GError **error);

#endif /* CLI_STORE_IMPORT_H */

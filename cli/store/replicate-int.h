/*
 * Inside of replicate*.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_REPLICATE_INT_H
#define CLI_STORE_REPLICATE_INT_H

#include "cli/store/replicate.h"
#include "cli/store/staging.h"

#define REPLICATE_MAX_BASES     8       /* versions that are compared with */

bool replicate_same_vdisk(const Manifest *here, const Manifest *there,
                          GError **error);

/* The manifest here, or an empty one; it does not contradict @there */
Manifest *replicate_own_manifest(const Store *s, const Manifest *there,
                                 GError **error);

/* All of @v is in @st: make it a version here. False with @error. */
bool replicate_finish(const char *folder, Staging *st, const Manifest *there,
                      const Version *v, bool as_test, bool quiet,
                      GError **error);

/*
 * Take over the boot traces of versions that both have. That one does not come
 * is told, and no error: versions are as good without.
 */
void replicate_traces(const char *folder, Origin *o, const Manifest *there,
                      Replication *result);

#endif /* CLI_STORE_REPLICATE_INT_H */

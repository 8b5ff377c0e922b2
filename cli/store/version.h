/*
 * What becomes of a version: made, sealed, promoted, and so on
 *
 * All of it works on a store that is open for changing and changes the
 * manifest durably before it returns true. False, with @error set, leaves the
 * manifest in the store as it was.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_VERSION_H
#define CLI_STORE_VERSION_H

#include "cli/progress.h"
#include "cli/store/store.h"

typedef struct VersionPlan {
    uint64_t from;              /* parent; 0: the newest, or none if it is the
                                   first version */
    uint64_t size;              /* bytes; 0: the parent's */
    bool label;                 /* for private image mode */
    const char *comment;        /* or NULL */
} VersionPlan;

/* The version in maintenance; it is @m's. NULL with @error. */
Version *store_version_begin(Store *s, Manifest *m, const VersionPlan *plan,
                             GError **error);

/*
 * Seal the version in maintenance. A writer has @wait_ms to let go of it,
 * which a server does when it sees the manifest. @quiet: no progress shown.
 */
bool store_version_seal(Store *s, Manifest *m, unsigned wait_ms, bool quiet,
                        GError **error);

/*
 * Test to production, from @release on (seconds since 1970; 0: at once).
 * @number 0: the newest in test.
 */
Version *store_version_promote(Store *s, Manifest *m, uint64_t number,
                               int64_t release, GError **error);

/*
 * The newest in production to test, so that the one before is current again.
 * Refused if there is none before, unless @force.
 */
Version *store_version_revert(Store *s, Manifest *m, bool force,
                              GError **error);

/* Test or production to retired: not served any more. Not what is current. */
Version *store_version_retire(Store *s, Manifest *m, uint64_t number,
                              GError **error);

/*
 * Delete the version in maintenance, or one that is retired and no parent. For
 * an update that is given up, see also store_version_seal().
 */
bool store_version_remove(Store *s, Manifest *m, uint64_t number,
                          GError **error);

/* Give version @number an image without parents, by content the same */
Version *store_version_merge(Store *s, Manifest *m, uint64_t number, bool quiet,
                             GError **error);

/*
 * Give version @number, which is sealed, the boot trace @trace of trace-file.h,
 * in place of the one it has
 */
Version *store_version_set_trace(Store *s, Manifest *m, uint64_t number,
                                 GBytes *trace, GError **error);

/* Note that its content is, or is not any more, other than what was sealed */
bool store_version_set_failed(Store *s, Manifest *m, uint64_t number,
                              bool failed, GError **error);

#endif /* CLI_STORE_VERSION_H */

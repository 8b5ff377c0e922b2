/*
 * Bring versions of a vDisk from another store into this one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_REPLICATE_H
#define CLI_STORE_REPLICATE_H

#include "cli/store/origin.h"

typedef struct Replication {
    unsigned versions;          /* that were brought */
    uint64_t newest;            /* of them; 0: none */
    unsigned changes;           /* of access, of others */
    unsigned traces;            /* boot traces that were brought */
    uint64_t bytes;             /* of these versions */
    uint64_t moved;             /* bytes that were read from the origin */
    uint64_t kept;              /* that an earlier try had read */
} Replication;

/*
 * Bring all sealed versions of @vdisk that are not retired there and not here
 * into the store in @folder. Each is checked against its root hash, read back
 * from the medium, before the manifest names it. With @as_test they are in
 * test; otherwise these and those that are here already take over the access
 * and release date they have there. Boot traces are taken over. What was done,
 * also before an error, is added to *@result. False with @error.
 */
bool store_replicate(const char *folder, Origin *o, const char *vdisk,
                     bool as_test, bool quiet, Replication *result,
                     GError **error);

#endif /* CLI_STORE_REPLICATE_H */

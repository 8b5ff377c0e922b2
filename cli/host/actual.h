/*
 * What a desktop's disk really runs on: from QMP's query-vdisks, or from the
 * header of its file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_ACTUAL_H
#define CLI_HOST_ACTUAL_H

#include "block/vdisk/header.h"
#include "cli/desktop/metadata.h"

typedef struct Actual {
    bool known;                 /* false: nothing below is */
    uint64_t version;           /* 0: not known by number; see image */
    char *image;                /* mcs: its file */
    uint64_t assigned;          /* what it takes at its next reset; 0: none */
    char *assigned_image;
    uint64_t resets;
    uint64_t size, local_bytes; /* outage budget: local of size */
    uint64_t boot_bytes, boot_local_bytes;      /* of the boot trace */
    bool has_budget, has_boot;
    bool in_outage;
    uint64_t outage_ms;
    uint64_t denied_ms;         /* waits for a block no store has; 0: not */
    bool unprotected;           /* no rerror=stop,werror=stop */
} Actual;

void actual_clear(Actual *a);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Actual, actual_clear)

/*
 * From the answer to query-vdisks, of the node that @d names. Bounded; false
 * with @error if it is no such answer, or has no such node.
 */
bool actual_from_qmp(Actual *a, const char *json, const DesktopMetadata *d,
                     GError **error);

/* From a header */
void actual_from_header(Actual *a, const VdiskHeader *h,
                        const DesktopMetadata *d);

/*
 * mcs: the version that an image is of, by its name; 0 if it is not known, or
 * @image is NULL
 */
uint64_t actual_number_of(const char *image, const DesktopMetadata *d);

/* Header of a file that may be in use. False with @error. */
bool layer_header_peek(const char *path, VdiskHeader *h, GError **error);

/* Does it run on this version? */
bool actual_is(const Actual *a, const DesktopMetadata *d,
               const WantedVersion *w);

#endif /* CLI_HOST_ACTUAL_H */

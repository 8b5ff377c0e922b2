/*
 * Where the self-test does its work: a folder, a store, its services
 *
 * All of it is below one folder of its own, but for the relay's live maps,
 * which have to be in memory. What it starts ends with it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SELFTEST_LAB_H
#define CLI_SELFTEST_LAB_H

#include "cli/desktop/metadata.h"

#include <json-glib/json-glib.h>

#define LAB_BYTES       (8 << 20)       /* of each version */
#define LAB_WAIT_MS     30000           /* for anything, before it is an error */

struct Guest;

typedef struct Lab {
    char *folder;
    char *maps;                 /* folder of live maps */
    char *self;                 /* this program */
    char *store;                /* folder of the store */
    GSubprocess *serve, *relay; /* while they run */
    uint8_t *holds[3];          /* what version 1 and 2 hold */
    struct Guest *pooled, *dedicated, *streamed, *private;
} Lab;

/* @folder: below it, or NULL for the usual place. NULL with @error. */
Lab *lab_new(const char *folder, GError **error);

/* Ends all; @keep: the files stay */
void lab_free(Lab *lab, bool keep);

/* Sets @error; returns false */
bool lab_error(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* A name in the folder; to be freed */
char *lab_path(const Lab *lab, const char *name);

/* Run a command of this program on the store: words, NULL */
bool lab_deskcast(Lab *lab, GError **error, ...) G_GNUC_NULL_TERMINATED;

/* The store, unless another story has made it */
bool lab_make_store(Lab *lab, GError **error);

/* What is known of a version; to be emptied by lab_version_clear() */
bool lab_version(Lab *lab, const char *vdisk, unsigned number,
                 WantedVersion *version, GError **error);
void lab_version_clear(WantedVersion *version);

/* Write @holds into the raw image @name */
bool lab_write_image(Lab *lab, const char *name, const uint8_t *holds,
                     GError **error);

/* Bytes that occur nowhere else, made from @seed */
void lab_noise(uint64_t seed, uint8_t *buf, size_t bytes);

/* The store's server, and a relay of vDisk @vdisk; and their sudden death */
bool lab_serve(Lab *lab, GError **error);
bool lab_relay(Lab *lab, const char *vdisk, GError **error);
void lab_kill(GSubprocess **process);

/* URIs of their sockets; to be freed */
char *lab_store_uri(const Lab *lab);
char *lab_relay_uri(const Lab *lab);

/* Until the relay has all of the version with this name (vDisk@N) */
bool lab_wait_hydrated(Lab *lab, const char *name, GError **error);

/*
 * Try @ready until it says true; it may set the error that is told when time
 * is up.
 */
typedef bool LabReady(void *opaque, GError **error);
bool lab_wait(LabReady *ready, void *opaque, const char *what, GError **error);

#endif /* CLI_SELFTEST_LAB_H */

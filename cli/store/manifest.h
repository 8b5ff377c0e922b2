/*
 * Manifest of a vDisk: its versions, as docs/interop/store.rst specifies
 *
 * Nothing here does I/O.
 *
 *                      promote            promote
 *   maintenance --seal--> test ------------> production
 *                          ^     revert        |
 *                          +-------------------+
 *                          |  retire           |  retire
 *                          v                   v
 *                        retired <-------------+
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_MANIFEST_H
#define CLI_STORE_MANIFEST_H

#include "block/pvs/verity.h"

#include <gio/gio.h>

#define MANIFEST_FORMAT         1
#define MANIFEST_MAX_BYTES      (8 << 20)       /* more is no manifest */
#define MANIFEST_MAX_VERSIONS   4096
#define MANIFEST_MAX_NUMBER     1000000000      /* of a version */
#define MANIFEST_MAX_SIZE       (UINT64_C(1) << 50)     /* bytes of a vDisk */
#define MANIFEST_MAX_FILE_NAME  200             /* characters */
#define MANIFEST_MAX_COMMENT    256             /* bytes */
#define MANIFEST_MAX_UNUSED     4096

typedef enum VersionAccess {
    ACCESS_MAINTENANCE,         /* being written; at most one */
    ACCESS_TEST,                /* sealed, for pilots */
    ACCESS_PRODUCTION,          /* sealed, for all, from its release date on */
    ACCESS_RETIRED,             /* sealed, not served any more */
} VersionAccess;

typedef struct Version {
    uint64_t number;            /* from 1 */
    VersionAccess access;
    uint64_t parent;            /* its image is an overlay on that; 0: none */
    uint64_t size;              /* bytes, a multiple of 4096; no label counted */
    bool label;                 /* image ends in a 4 KiB label: maintenance for
                                   private image mode (pvs) only */
    char *image;                /* file in the vDisk's folder, or RBD image */
    char *format;               /* "raw" or "qcow2" */
    char *tree;                 /* file of the verity tree; NULL unless sealed */
    char *trace;                /* file of a boot trace, or NULL */
    uint8_t root[VERITY_HASH_BYTES];    /* its root hash; zero unless sealed */
    int64_t created;            /* seconds since 1970, UTC */
    int64_t sealed;             /* 0: not yet */
    int64_t released;           /* counts as production from then on; 0: at once */
    int64_t failed;             /* its content was found not to be what was
                                   sealed then; 0: never */
    char *comment;              /* or NULL */
} Version;

typedef struct Manifest {
    char *vdisk;                /* vdisk_name_valid() */
    char *uuid;
    char *salt;                 /* hexadecimal, of all its trees, so that they
                                   can be compared */
    uint64_t revision;          /* counts the changes, from 1 */
    uint64_t next;              /* number of the next version */
    GPtrArray *unused;          /* char *: files that no version has, and that
                                   may be there: being made or removed */
    GPtrArray *versions;        /* Version, by number, ascending */
} Manifest;

/*
 * Read a manifest; every field is bounded, names cannot leave the folder.
 * NULL with @error, which names the field, if it is not valid or newer.
 */
Manifest *manifest_decode(const char *text, gsize length, GError **error);

/* As text with a line feed at its end; a manifest that is valid only */
char *manifest_encode(const Manifest *m);

/* Would it be read again? False with @error, which names the field. */
bool manifest_valid(const Manifest *m, GError **error);

/* With a UUID and a salt of its own, and without versions */
Manifest *manifest_new(const char *vdisk);
void manifest_free(Manifest *m);
Version *version_new(uint64_t number);
void version_free(Version *v);

/* NULL if there is none */
Version *manifest_version(const Manifest *m, uint64_t number);
Version *manifest_maintenance(const Manifest *m);

/* The highest that is sealed and not retired; NULL if there is none */
Version *manifest_newest(const Manifest *m);

static inline bool version_sealed(const Version *v)
{
    return v->access != ACCESS_MAINTENANCE;
}

/* Takes @v over and keeps the order. Validity is not looked at. */
void manifest_add(Manifest *m, Version *v);

/* Note @file as unused, or no longer; NULL is nothing */
void manifest_set_unused(Manifest *m, const char *file, bool unused);

/* Can a file have this name? False with @error, which calls it @what. */
bool manifest_file_name_valid(const char *what, const char *name,
                              GError **error);

/*
 * What desktops run on at @now (seconds since 1970): the highest version in
 * production whose release date has come. NULL if there is none.
 */
Version *manifest_current(const Manifest *m, int64_t now);

/* Its root hash in hexadecimal; to be freed */
char *version_root_text(const Version *v);

const char *version_access_text(VersionAccess access);
bool version_access_parse(VersionAccess *access, const char *text);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Manifest, manifest_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Version, version_free)

#endif /* CLI_STORE_MANIFEST_H */

/*
 * The attributes of our elements in domain metadata, and reading XML safely
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_METADATA_FIELD_H
#define CLI_DESKTOP_METADATA_FIELD_H

#include "metadata.h"
#include "xml-read.h"

#define METADATA_MAX_STORES     16

typedef enum FieldKind {
    FIELD_NAME,         /* char *: vdisk_name_valid() */
    FIELD_NODE,         /* char *: a name of a block node */
    FIELD_PATH,         /* char *: absolute */
    FIELD_FORMAT,       /* char *: raw or qcow2 */
    FIELD_ROOT,         /* char *: a root hash */
    FIELD_STORES,       /* char **: URIs, one for each element */
    FIELD_MODEL,
    FIELD_LIFETIME,
    FIELD_RUN,
    FIELD_NUMBER,       /* uint64_t: a version, from 1 */
    FIELD_SIZE,         /* uint64_t: bytes of a disk */
    FIELD_BYTES,        /* uint64_t: bytes of something else */
} FieldKind;

typedef struct MetadataField {
    const char *element;        /* NULL: the outer one */
    const char *name;
    FieldKind kind;
    size_t offset;              /* in the struct */
} MetadataField;

/* Both end with a field without a name */
extern const MetadataField metadata_desktop_fields[];
extern const MetadataField metadata_catalog_fields[];

/* NULL if done, else what the value must be */
const char *metadata_field_set(const MetadataField *f, void *object,
                               const char *value);

/* Its values as text: none if it is not set */
char **metadata_field_get(const MetadataField *f, const void *object);

/* Free what the fields own */
void metadata_fields_clear(const MetadataField *fields, void *object);

#endif /* CLI_DESKTOP_METADATA_FIELD_H */

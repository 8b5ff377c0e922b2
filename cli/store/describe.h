/*
 * Versions and vDisks, for people and machines
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_DESCRIBE_H
#define CLI_STORE_DESCRIBE_H

#include "cli/store/store.h"

/* As the manifest has it, and "current" */
JsonObject *describe_version(const Manifest *m, const Version *v, int64_t now);

/* Name, size, versions by number, current; with @all also each version */
JsonObject *describe_vdisk(const Store *s, const Manifest *m, int64_t now,
                           bool all);

/* Bytes that the file of @v's image takes; 0 where that is not known */
uint64_t describe_allocated(const Store *s, const Manifest *m,
                            const Version *v);

/* "production", "production from 2026-12-01 06:00", "current"; to be freed */
char *describe_access(const Manifest *m, const Version *v, int64_t now);

/* A table of all versions to standard output */
void describe_print(const Store *s, const Manifest *m, int64_t now);

#endif /* CLI_STORE_DESCRIBE_H */

/*
 * What one vDisk says of itself: an element of QMP's query-vdisks, bounded
 *
 * Its numbers stand in one table, with the metric that each is: one more is
 * one line more. Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_VDISK_SAMPLE_H
#define CLI_WATCH_VDISK_SAMPLE_H

#include "metric-text.h"

#include <json-glib/json-glib.h>
#include <stdint.h>

#define VDISK_STORES_MAX    64      /* of a vDisk that are looked at */

typedef enum VdiskValue {
    VALUE_SIZE,
    VALUE_LAYER,
    VALUE_RESETS,
    VALUE_ADMITS,
    VALUE_RAM_SIZE, VALUE_RAM_USED, VALUE_RAM_MEMORY,
    VALUE_CACHE_USABLE, VALUE_CACHE_FULL,
    VALUE_CACHE_HIT, VALUE_CACHE_MISS, VALUE_CACHE_FILLED,
    VALUE_LOCAL, VALUE_BOOT, VALUE_BOOT_LOCAL,
    VALUE_OUTAGE,               /* 0: none */
    VALUE_DENIED,               /* 0: it is not */
    VALUE_STOPS,
    VALUE_CORRUPT,
    VALUE_FENCED,
    VALUE_BUFFER_SIZE, VALUE_BUFFER_USED,
    VALUE_LAG_BYTES, VALUE_LAG,
    VALUE_EPOCHS, VALUE_SHIPPED,
    VALUE_BROKEN, VALUE_STUCK, VALUE_WINDOW, VALUE_RESERVE,
    VALUE_STORE_DURABLE,
    VDISK_VALUES
} VdiskValue;

typedef enum StoreValue {
    STORE_LATENCY, STORE_READS, STORE_BYTES, STORE_ERRORS,
    STORE_VALUES
} StoreValue;

typedef enum StoreHealth {
    HEALTH_UP, HEALTH_SUSPECT, HEALTH_DOWN,
    STORE_HEALTHS
} StoreHealth;

typedef struct StoreSample {
    char *name;                 /* where it is, without the version */
    bool tree;                  /* it has the verity tree */
    StoreHealth health;
    double value[STORE_VALUES]; /* in the units of their metrics */
} StoreSample;

typedef struct VdiskSample {
    bool is_streamed, is_private;
    uint64_t version, assigned; /* streamed: its number; 0: none */
    char *image, *assigned_image;       /* mcs: file name, or NULL */
    bool has[VDISK_VALUES];
    double value[VDISK_VALUES]; /* in the units of their metrics */
    GPtrArray *stores;          /* StoreSample */
} VdiskSample;

/* Each value's metric; its labels are desktop and vdisk, */
extern const Metric vdisk_metrics[VDISK_VALUES];
/* and version too, as it is a value of that alone */
bool vdisk_value_is_of_version(VdiskValue value);

/* With labels store and content besides */
extern const Metric store_metrics[STORE_VALUES];
extern const char *const store_healths[STORE_HEALTHS];

/* "down" if it is no state */
StoreHealth store_health_parse(const char *state);

VdiskSample *vdisk_sample_new(void);

/* A store of that name, where it is; to be filled in */
StoreSample *vdisk_sample_add_store(VdiskSample *s, const char *name);

/* The vDisk @node in what query-vdisks returned; NULL if it is not there */
VdiskSample *vdisk_sample_parse(JsonNode *answer, const char *node);
void vdisk_sample_free(VdiskSample *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VdiskSample, vdisk_sample_free)

/* 0 if it is not known */
double vdisk_sample_get(const VdiskSample *s, VdiskValue value);

#endif /* CLI_WATCH_VDISK_SAMPLE_H */

/*
 * Boot trace: which parts of a version were read first, and in which order
 *
 * The file is specified in docs/interop/boot-trace.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_BOOT_TRACE_H
#define BLOCK_PVS_BOOT_TRACE_H

#include "block/vdisk/pure.h"

#define BOOT_TRACE_ROOT_BYTES   32
/* Largest number of runs; a Debian desktop's boot has some thousands */
#define BOOT_TRACE_RUNS_MAX     (1 << 20)
/* And granules of all together, 4 GiB: whoever looks at each is done soon */
#define BOOT_TRACE_GRANULES_MAX (1 << 20)
#define BOOT_TRACE_BYTES_MAX    (4096 + BOOT_TRACE_RUNS_MAX * 12)

/* What the trace is of; zeros where nothing is known */
typedef struct BootTraceId {
    uint64_t image_bytes;
    uint8_t root[BOOT_TRACE_ROOT_BYTES];
} BootTraceId;

/* Granules of the version, in the order in which they were read first */
typedef struct BootTraceRun {
    uint64_t first;
    uint32_t n;
} BootTraceRun;

typedef struct BootTrace BootTrace;

/* An empty trace. To be freed. */
BootTrace *boot_trace_new(const BootTraceId *id);
void boot_trace_free(BootTrace *t);

/*
 * @n granules from @first on were read, for the first time. False if there is
 * no room for more.
 */
bool boot_trace_add(BootTrace *t, uint64_t first, uint32_t n);

const BootTraceRun *boot_trace_runs(const BootTrace *t, size_t *n);

/* Sum of the runs */
uint64_t boot_trace_granules(const BootTrace *t);

/* The file's content, to be freed; its size in *@bytes */
uint8_t *boot_trace_encode(const BootTrace *t, size_t *bytes);

/*
 * Read a file's content. NULL with *@why set (to be freed) if it is not a valid
 * trace of @id.
 */
BootTrace *boot_trace_decode(const uint8_t *buf, size_t bytes,
                             const BootTraceId *id, char **why);

/*
 * How long a file is that begins with these @bytes, as it says itself; 0 if it
 * is no trace. Something may be behind it where it came from.
 */
size_t boot_trace_length(const uint8_t *buf, size_t bytes);

/* The checksum in a valid file's content: tells two of them apart */
uint64_t boot_trace_sum(const uint8_t *buf);

#endif /* BLOCK_PVS_BOOT_TRACE_H */

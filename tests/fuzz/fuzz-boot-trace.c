/*
 * Fuzz boot traces, as they came and as somebody would write them who knows the
 * version and makes the checksum fit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/boot-trace.h"
#include "fuzz.h"

#define HEAD_BYTES  72
#define RUN_BYTES   12

static BootTrace *decode(const uint8_t *buf, size_t bytes,
                         const BootTraceId *id)
{
    g_autofree char *why = NULL;
    BootTrace *t = boot_trace_decode(buf, bytes, id, &why);

    assert(!t == (why != NULL));
    return t;
}

static void check_runs(const BootTrace *t, const BootTraceId *id)
{
    uint64_t granules = DIV_ROUND_UP(id->image_bytes, 4096), sum = 0;
    const BootTraceRun *runs;
    size_t n;

    runs = boot_trace_runs(t, &n);
    for (size_t i = 0; i < n; i++) {
        assert(runs[i].n > 0 && runs[i].first < granules);
        assert(runs[i].n <= granules - runs[i].first);
        sum += runs[i].n;
    }
    assert(n <= BOOT_TRACE_RUNS_MAX && sum == boot_trace_granules(t));
    assert(sum <= BOOT_TRACE_GRANULES_MAX);
}

static void check_again(const BootTrace *t, const BootTraceId *id)
{
    size_t bytes, more;
    g_autofree uint8_t *buf = boot_trace_encode(t, &bytes), *same = NULL;
    BootTrace *again = decode(buf, bytes, id);

    assert(again && bytes <= BOOT_TRACE_BYTES_MAX);
    same = boot_trace_encode(again, &more);
    assert(bytes == more && !memcmp(buf, same, bytes));
    boot_trace_free(again);
}

static void check(const uint8_t *buf, size_t bytes, const BootTraceId *id)
{
    BootTrace *t = decode(buf, bytes, id);

    if (t) {
        check_runs(t, id);
        check_again(t, id);
        boot_trace_free(t);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    BootTraceId id = { .image_bytes = UINT64_C(1) << 30 };
    g_autofree uint8_t *buf = g_memdup2(data, size);
    uint32_t runs;

    check(buf, size, &id);
    if (size < HEAD_BYTES) {
        return 0;
    }
    memcpy(&id.image_bytes, buf + 24, sizeof(id.image_bytes));
    id.image_bytes = GUINT64_FROM_LE(id.image_bytes);
    memcpy(id.root, buf + 32, sizeof(id.root));
    input_sign(buf, 16, size);
    check(buf, size, &id);
    runs = GUINT32_TO_LE((size - HEAD_BYTES) / RUN_BYTES);
    memcpy(buf + 64, &runs, sizeof(runs));
    size = HEAD_BYTES + GUINT32_FROM_LE(runs) * RUN_BYTES;
    input_sign(buf, 16, size);
    check(buf, size, &id);
    return 0;
}

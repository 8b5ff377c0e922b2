/*
 * Fuzz what judges an image that is imported, before QEMU opens it
 *
 * The first byte says what the image shall be, the next four how long its file
 * is. Of a VMDK that is taken, QEMU opens no file but one beside it, by its own
 * way of reading the descriptor.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/source-check.h"
#include "fuzz.h"
#include <stdio.h>

static const char *const formats[] = { "raw", "qcow2", "vpc", "vhdx", "vmdk",
                                       "vdi" };

/* As vmdk_parse_extents() of QEMU goes through a descriptor */
static void check_extents(const uint8_t *head, size_t bytes)
{
    static const char *const types[] = { "FLAT", "SPARSE", "VMFS", "VMFSSPARSE",
                                         "SESPARSE", NULL };
    g_autofree char *text = g_strndup((const char *)head, bytes);
    g_auto(GStrv) names = source_vmdk_extents(head, bytes);
    char access[11], type[11], name[512];
    int64_t sectors, offset;

    for (const char *p = text; *p; p += *p == '\n') {
        if (sscanf(p, "%10s %" SCNd64 " %10s \"%511[^\n\r\"]\" %" SCNd64,
                   access, &sectors, type, name, &offset) >= 4 &&
            !strcmp(access, "RW") && g_strv_contains(types, type)) {
            assert(!strpbrk(name, "/\\:") && name[0] != '.');
            assert(g_strv_contains((const char *const *)names, name));
        }
        p += strcspn(p, "\n");
    }
    for (char **n = names; *n; n++) {
        source_vmdk_flat_bytes(head, bytes, *n);
    }
}

static void check_head(const char *format, const uint8_t *head, size_t bytes,
                       uint64_t file_bytes)
{
    g_autofree char *why = source_head_refused(format, head, bytes, file_bytes);
    const char *seems = source_looks_like(head, bytes);

    if (why) {
        assert(*why);
        return;
    }
    /* Of a fixed VHD the mark is at the end */
    assert(g_str_equal(format, "raw") || g_strcmp0(seems, format) == 0 ||
           (!seems && g_str_equal(format, "vpc")));
    if (seems && g_str_equal(format, "vmdk") && head[0] == '#') {
        check_extents(head, bytes);
    }
}

static void check_vhd(const uint8_t *head, size_t bytes, uint64_t file_bytes)
{
    g_autofree char *why = NULL;
    g_autofree uint8_t *table = NULL;
    SourceTable t;

    if (!source_vhd_table(&t, head, bytes, file_bytes, &why)) {
        return;
    }
    assert(t.offset <= file_bytes &&
           t.entries * UINT64_C(4) <= file_bytes - t.offset);
    assert(t.entries <= 1 << 21 && t.block_bytes % 512 == 0 && t.block_bytes);
    /* Of a file of that many bytes only these are there to be read */
    if (t.offset + t.entries * UINT64_C(4) <= bytes) {
        table = g_memdup2(head + t.offset, t.entries * UINT64_C(4));
        why = source_vhd_refused(&t, table, file_bytes);
    }
}

static void check_vhdx(Input *in, uint64_t file_bytes)
{
    g_autofree uint8_t *regions = g_malloc0(SOURCE_REGIONS_BYTES);
    g_autofree uint8_t *metadata = NULL, *table = NULL;
    g_autofree char *why = NULL;
    SourceRegions r;

    input_copy(in, regions, MIN(in->size / 2, SOURCE_REGIONS_BYTES));
    if (!source_vhdx_regions(&r, regions, file_bytes)) {
        return;
    }
    assert(r.table_bytes <= SOURCE_MAX_TABLE_BYTES);
    assert(r.metadata_bytes <= SOURCE_METADATA_BYTES);
    assert(r.table + r.table_bytes <= file_bytes);
    assert(r.metadata + r.metadata_bytes <= file_bytes);
    metadata = g_malloc(r.metadata_bytes);
    r.table_bytes = MIN(r.table_bytes, 65536);
    table = g_malloc(r.table_bytes);
    input_copy(in, metadata, r.metadata_bytes);
    input_copy(in, table, r.table_bytes);
    why = source_vhdx_refused(&r, metadata, table, file_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = { data, size };
    const char *format = formats[input_take(&in, 1) % G_N_ELEMENTS(formats)];
    uint64_t said = input_take(&in, 4), file_bytes = MAX(said, in.size);
    /* Where the sanitizer sees who reads past its end */
    g_autofree uint8_t *head = g_memdup2(in.data, in.size);
    size_t bytes = MIN(in.size, SOURCE_HEAD_BYTES);

    check_head(format, head, bytes, file_bytes);
    check_head(format, head, bytes, bytes);
    check_vhd(head, bytes, file_bytes);
    check_vhdx(&in, file_bytes + SOURCE_REGIONS_OFFSET + SOURCE_REGIONS_BYTES);
    return 0;
}

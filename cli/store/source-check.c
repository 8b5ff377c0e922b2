/*
 * Is an image that somebody brought what its format says, and nothing else?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "source-check.h"

#include <limits.h>
#include <stdio.h>

#define VHD_MAX_ENTRIES     (1 << 21)
#define VHD_UNUSED          0xffffffff
#define SECTOR              512

typedef struct Format {
    const char *suffix, *format;
} Format;

static const Format formats[] = {
    { ".raw", "raw" }, { ".img", "raw" }, { ".qcow2", "qcow2" },
    { ".vhd", "vpc" }, { ".vpc", "vpc" }, { ".vhdx", "vhdx" },
    { ".vmdk", "vmdk" }, { ".vdi", "vdi" },
};

const char *source_format_of_name(const char *name)
{
    g_autofree char *lower = g_ascii_strdown(name, -1);

    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (g_str_has_suffix(lower, formats[i].suffix)) {
            return formats[i].format;
        }
    }
    return NULL;
}

const char *source_format_known(const char *format)
{
    if (g_str_equal(format, "vhd")) {
        return "vpc";
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (g_str_equal(format, formats[i].format)) {
            return formats[i].format;
        }
    }
    return NULL;
}

static bool begins(const uint8_t *p, size_t bytes, size_t at, const char *with)
{
    size_t len = strlen(with);

    return at + len <= bytes && memcmp(p + at, with, len) == 0;
}

const char *source_looks_like(const uint8_t *p, size_t bytes)
{
    if (begins(p, bytes, 0, "QFI\xfb")) {
        return "qcow2";
    } else if (begins(p, bytes, 0, "vhdxfile")) {
        return "vhdx";
    } else if (begins(p, bytes, 0, "conectix")) {
        return "vpc";
    } else if (begins(p, bytes, 0, "KDMV") || begins(p, bytes, 0, "COWD") ||
               begins(p, bytes, 0, "# Disk DescriptorFile")) {
        return "vmdk";
    } else if (begins(p, bytes, 0x40, "\x7f\x10\xda\xbe")) {
        return "vdi";
    }
    return NULL;
}

static uint64_t be64(const uint8_t *p)
{
    uint64_t n;

    memcpy(&n, p, sizeof(n));
    return GUINT64_FROM_BE(n);
}

static uint32_t be32(const uint8_t *p)
{
    uint32_t n;

    memcpy(&n, p, sizeof(n));
    return GUINT32_FROM_BE(n);
}

static uint32_t le32(const uint8_t *p)
{
    uint32_t n;

    memcpy(&n, p, sizeof(n));
    return GUINT32_FROM_LE(n);
}

static uint64_t le64(const uint8_t *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}

char *source_cut_off(uint64_t needed, uint64_t file_bytes)
{
    return g_strdup_printf("the file is cut off: it has %" PRIu64 " bytes, "
                           "and its tables speak of %" PRIu64 "; get it anew",
                           file_bytes, needed);
}

static char *depends(const char *on)
{
    return g_strdup_printf("the image is not complete by itself: it %s; make a "
                           "standalone copy of it where the rest is", on);
}

static char *qcow2_refused(const uint8_t *p, size_t bytes)
{
    if (bytes < 104) {
        return g_strdup("the file is cut off in its header");
    }
    if (be64(p + 8)) {
        return depends("has a backing file");
    }
    if (be32(p + 32)) {
        return g_strdup("the image is encrypted; decrypt it first");
    }
    if (be32(p + 4) >= 3 && (be64(p + 72) & 4)) {
        return depends("keeps its data in another file");
    }
    if (be32(p + 4) >= 3 && (be64(p + 72) & 2)) {
        return g_strdup("the image is marked corrupt; repair it with "
                        "'qemu-img check -r all' first");
    }
    return NULL;
}

bool source_vhd_table(SourceTable *t, const uint8_t *head, size_t bytes,
                      uint64_t file_bytes, char **why)
{
    uint64_t at;

    *why = NULL;
    if (!begins(head, bytes, 0, "conectix") || bytes < 2048 ||
        be32(head + 60) != 3) {
        return false;
    }
    at = be64(head + 16);
    if (at > bytes - 1024 || !begins(head, bytes, at, "cxsparse")) {
        *why = g_strdup("its dynamic disk header is not where it should be");
        return false;
    }
    *t = (SourceTable) { be64(head + at + 16), be32(head + at + 28),
                         be32(head + at + 32) };
    if (t->entries > VHD_MAX_ENTRIES || t->block_bytes < SECTOR ||
        t->block_bytes % SECTOR || t->block_bytes > (64 << 20)) {
        *why = g_strdup("its dynamic disk header is damaged");
    } else if (t->offset > file_bytes ||
               t->entries * UINT64_C(4) > file_bytes - t->offset) {
        *why = source_cut_off(t->offset + t->entries * UINT64_C(4), file_bytes);
    }
    return !*why;
}

char *source_vhd_refused(const SourceTable *t, const uint8_t *table,
                         uint64_t file_bytes)
{
    uint64_t bitmap = ROUND_UP(t->block_bytes / SECTOR / 8, SECTOR);

    for (uint32_t i = 0; i < t->entries; i++) {
        uint32_t sector = be32(table + i * UINT64_C(4));
        uint64_t end = sector * UINT64_C(512) + bitmap + t->block_bytes;

        if (sector != VHD_UNUSED && end > file_bytes) {
            return source_cut_off(end, file_bytes);
        }
    }
    return NULL;
}

static char *vpc_refused(const uint8_t *p, size_t bytes)
{
    if (begins(p, bytes, 0, "conectix") && bytes >= 64 && be32(p + 60) == 4) {
        return depends("is a differencing disk with a parent");
    }
    return NULL;
}

static char *vdi_refused(const uint8_t *p, size_t bytes, uint64_t file_bytes)
{
    uint64_t end;

    if (bytes < 0x188) {
        return g_strdup("the file is cut off in its header");
    }
    if (le32(p + 0x4c) != 1 && le32(p + 0x4c) != 2) {
        return depends("is a differencing disk with a parent");
    }
    end = le32(p + 0x158) +
          le32(p + 0x184) * (uint64_t)(le32(p + 0x178) + le32(p + 0x17c));
    return end > file_bytes ? source_cut_off(end, file_bytes) : NULL;
}

/*
 * A file beside the descriptor, whose name means nothing more to QEMU, and is
 * all of what QEMU takes for it: that ends at a carriage return, and after 511
 * bytes.
 */
static bool name_inside(const char *name, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (strchr("/\\:", name[i]) || (unsigned char)name[i] < 0x20) {
            return false;
        }
    }
    return bytes > 0 && bytes <= NAME_MAX && name[0] != '.';
}

/*
 * QEMU begins anew in each line: behind a quote that is left open in one, it
 * takes for a name what would be between two of them here.
 */
static bool quotes_end(const char *text)
{
    bool open = false;

    for (; *text && !(open && *text == '\n'); text++) {
        open ^= *text == '"';
    }
    return !open;
}

/*
 * The next quoted text that is no value of a key; @end: what follows it. QEMU
 * reads an extent with sscanf(), to which a line feed is a space like others.
 */
static const char *next_quoted(const char *p, const char **end)
{
    const char *start = p, *before;

    while ((p = strchr(p, '"'))) {
        *end = strchr(p + 1, '"');
        if (!*end) {
            *end = p + strlen(p);
        }
        for (before = p; before > start && g_ascii_isspace(before[-1]); ) {
            before--;
        }
        if (before == start || before[-1] != '=') {
            return p + 1;
        }
        p = **end ? *end + 1 : *end;
    }
    return NULL;
}

static char *descriptor_refused(const char *text)
{
    const char *parent = strstr(text, "parentCID="), *end, *name;

    if (parent && g_ascii_strncasecmp(parent + 10, "ffffffff", 8) != 0) {
        return depends("is a snapshot of a parent");
    }
    if (!quotes_end(text)) {
        return g_strdup("its descriptor is damaged: a quote in it does not end "
                        "in its line");
    }
    for (const char *p = text; (name = next_quoted(p, &end)); ) {
        if (!name_inside(name, end - name)) {
            return g_strdup_printf("its descriptor names a file that is not "
                                   "beside it (%.*s)",
                                   (int)MIN(end - name, 200), name);
        }
        p = *end ? end + 1 : end;
    }
    return NULL;
}

char **source_vmdk_extents(const uint8_t *head, size_t bytes)
{
    GPtrArray *names = g_ptr_array_new();
    g_autofree char *text = NULL;
    const char *end, *name;

    if (begins(head, bytes, 0, "# Disk DescriptorFile")) {
        text = g_strndup((const char *)head, bytes);
        for (const char *p = text; (name = next_quoted(p, &end)); ) {
            g_ptr_array_add(names, g_strndup(name, end - name));
            p = *end ? end + 1 : end;
        }
    }
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, false);
}

uint64_t source_vmdk_flat_bytes(const uint8_t *head, size_t bytes,
                                const char *name)
{
    g_autofree char *text = g_strndup((const char *)head, bytes);
    char access[11], type[11], file[512];
    int64_t sectors, offset;
    uint64_t needed = 0;

    for (const char *p = text; p; p = strchr(p, '\n')) {
        p += *p == '\n';
        offset = 0;
        if (sscanf(p, "%10s %" SCNd64 " %10s \"%511[^\n\r\"]\" %" SCNd64,
                   access, &sectors, type, file, &offset) >= 4 &&
            (g_str_equal(type, "FLAT") || g_str_equal(type, "VMFS")) &&
            g_str_equal(file, name) && sectors > 0 && offset >= 0 &&
            sectors < INT64_MAX / SECTOR / 2 &&
            offset < INT64_MAX / SECTOR / 2) {
            needed = MAX(needed, (uint64_t)(sectors + offset) * SECTOR);
        }
    }
    return needed;
}

/* The descriptor of a sparse extent, in sectors 1 to 20 as a rule */
static char *sparse_vmdk_refused(const uint8_t *p, size_t bytes)
{
    g_autofree char *text = NULL;
    uint64_t at, size;

    if (bytes < SECTOR) {
        return g_strdup("the file is cut off in its header");
    }
    if (le64(p + 12) == 0) {
        return g_strdup("its capacity is zero");
    }
    if (le64(p + 28) > bytes / SECTOR || le64(p + 36) > bytes / SECTOR) {
        return g_strdup("its descriptor is not at the begin of the file");
    }
    at = le64(p + 28) * SECTOR;
    size = MIN(le64(p + 36) * SECTOR, bytes - at);
    text = g_strndup((const char *)p + at, at ? size : 0);
    return descriptor_refused(text);
}

static char *vmdk_refused(const uint8_t *p, size_t bytes, uint64_t file_bytes)
{
    g_autofree char *text = NULL;

    if (begins(p, bytes, 0, "KDMV")) {
        return sparse_vmdk_refused(p, bytes);
    }
    if (begins(p, bytes, 0, "COWD")) {
        return NULL;
    }
    if (file_bytes > bytes) {
        return g_strdup("its descriptor is too long");
    }
    text = g_strndup((const char *)p, bytes);
    return descriptor_refused(text);
}

static char *raw_refused(uint64_t file_bytes)
{
    if (file_bytes % SECTOR) {
        return g_strdup_printf("the file has %" PRIu64 " bytes, no multiple of "
                               "512: it is cut off, or no disk image",
                               file_bytes);
    }
    return file_bytes ? NULL : g_strdup("the file is empty");
}

char *source_head_refused(const char *format, const uint8_t *head,
                          size_t bytes, uint64_t file_bytes)
{
    const char *seems = source_looks_like(head, bytes);

    if (g_str_equal(format, "raw")) {
        return raw_refused(file_bytes);
    }
    /* A fixed VHD has its mark at the end only: the driver looks there */
    if (!seems && g_str_equal(format, "vpc")) {
        return NULL;
    }
    if (!seems || !g_str_equal(seems, format)) {
        return g_strdup_printf("it does not begin like a %s image%s%s%s",
                               format, seems ? ", but like " : "",
                               seems ? seems : "",
                               seems ? " (see --format)" : "");
    }
    if (g_str_equal(format, "qcow2")) {
        return qcow2_refused(head, bytes);
    } else if (g_str_equal(format, "vpc")) {
        return vpc_refused(head, bytes);
    } else if (g_str_equal(format, "vdi")) {
        return vdi_refused(head, bytes, file_bytes);
    } else if (g_str_equal(format, "vmdk")) {
        return vmdk_refused(head, bytes, file_bytes);
    }
    return NULL;
}

/*
 * What an import reads: a file, a block device or an https URL
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "source.h"
#include "cli/program.h"
#include "cli/store/content.h"
#include "cli/store/source-check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define URL_TIMEOUT_S   30
#define CHECK_LEAKS     3       /* exit status of "qemu-img check" */
#define CHECK_NO_SUCH   63      /* the format has no check */

static bool fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static bool fail(GError **error, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, text);
    return false;
}

/* Of a URL, without what follows its path */
static const char *derive_format(const Source *s)
{
    g_autofree char *path = g_strndup(s->name, s->url ?
                                      strcspn(s->name, "?#") :
                                      strlen(s->name));

    return s->device ? "raw" : source_format_of_name(path);
}

static bool find_format(Source *s, const char *format, GError **error)
{
    if (format) {
        s->format = source_format_known(format);
        return s->format || fail(error, "format '%s' is not known; there are "
                                 "raw, qcow2, vpc (VHD), vhdx, vmdk and vdi",
                                 format);
    }
    s->derived = true;
    s->format = derive_format(s);
    return s->format || fail(error, "%s: the name does not tell the format; "
                             "name it with --format", s->name);
}

static bool find_file(Source *s, GError **error)
{
    struct stat st;
    int fd;

    if (stat(s->name, &st) < 0) {
        return fail(error, "%s: %s", s->name, g_strerror(errno));
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return fail(error, "%s is neither a file nor a block device", s->name);
    }
    s->device = S_ISBLK(st.st_mode);
    fd = open(s->name, O_RDONLY | O_CLOEXEC | (s->device ? O_EXCL : 0));
    if (fd < 0) {
        return fail(error, "%s: %s%s", s->name, g_strerror(errno),
                    errno == EBUSY ? "; it is mounted, or part of something "
                    "that is in use: stop that first" : "");
    }
    close(fd);
    return true;
}

Source *source_new(const char *name, const char *format, GError **error)
{
    g_autoptr(Source) s = g_new0(Source, 1);

    s->url = g_ascii_strncasecmp(name, "https://", 8) == 0;
    if (!s->url && strstr(name, "://")) {
        fail(error, "%s: of URLs, only https ones are taken", name);
        return NULL;
    }
    s->name = s->url ? g_strdup(name) : g_canonicalize_filename(name, NULL);
    if ((!s->url && !find_file(s, error)) || !find_format(s, format, error)) {
        return NULL;
    }
    return g_steal_pointer(&s);
}

void source_free(Source *s)
{
    if (s) {
        g_free(s->name);
        g_free(s);
    }
}

static JsonObject *protocol_node(const Source *s)
{
    JsonObject *node;

    if (!s->url) {
        return content_file_node(s->name, false);
    }
    node = json_object_new();
    json_object_set_string_member(node, "driver", "https");
    json_object_set_string_member(node, "url", s->name);
    json_object_set_int_member(node, "timeout", URL_TIMEOUT_S);
    return node;
}

JsonObject *source_node(const Source *s)
{
    return content_format_node(s->format, protocol_node(s), NULL);
}

static Content *open_file(JsonObject *protocol, GError **error)
{
    g_autoptr(JsonObject) raw = content_format_node("raw", protocol, NULL);

    return content_open(raw, error);
}

/* A file of 1000 bytes is one of 1024 to the block layer */
static uint64_t file_bytes(const Source *s, Content *file)
{
    struct stat st;

    if (!s->url && !s->device && stat(s->name, &st) == 0) {
        return st.st_size;
    }
    return content_size(file);
}

static bool check_vhd_table(const Source *s, Content *file,
                            const uint8_t *head, size_t bytes, GError **error)
{
    g_autofree char *why = NULL;
    g_autofree uint8_t *table = NULL;
    uint64_t size = file_bytes(s, file);
    SourceTable t;

    if (source_vhd_table(&t, head, bytes, size, &why)) {
        table = g_malloc(t.entries * UINT64_C(4));
        if (!content_pread(file, t.offset, t.entries * UINT64_C(4), table,
                           error)) {
            return false;
        }
        why = source_vhd_refused(&t, table, size);
    }
    return why ? fail(error, "%s: %s", s->name, why) : true;
}

static bool check_vhdx_table(const Source *s, Content *file, GError **error)
{
    g_autofree uint8_t *regions = g_malloc(SOURCE_REGIONS_BYTES);
    g_autofree uint8_t *metadata = NULL, *table = NULL;
    g_autofree char *why = NULL;
    uint64_t size = file_bytes(s, file);
    SourceRegions r;

    if (size < SOURCE_REGIONS_OFFSET + SOURCE_REGIONS_BYTES) {
        return fail(error, "%s: the file is cut off in its headers", s->name);
    }
    if (!content_pread(file, SOURCE_REGIONS_OFFSET, SOURCE_REGIONS_BYTES,
                       regions, error)) {
        return false;
    }
    if (!source_vhdx_regions(&r, regions, size)) {
        return fail(error, "%s: its table of regions is damaged, or the file is "
                    "cut off", s->name);
    }
    metadata = g_malloc(r.metadata_bytes);
    table = g_malloc(r.table_bytes);
    if (!content_pread(file, r.metadata, r.metadata_bytes, metadata, error) ||
        !content_pread(file, r.table, r.table_bytes, table, error)) {
        return false;
    }
    why = source_vhdx_refused(&r, metadata, table, size);
    return why ? fail(error, "%s: %s", s->name, why) : true;
}

/* A part of a VMDK: no descriptor that names more */
static bool check_extent(const Source *s, const char *name, uint64_t needed,
                         GError **error)
{
    g_autofree char *folder = g_path_get_dirname(s->name);
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_autoptr(Content) file = NULL;
    g_autofree uint8_t *head = g_malloc(SOURCE_HEAD_BYTES);
    g_autofree char *why = NULL;
    size_t bytes;

    if (s->url) {
        return fail(error, "%s: a VMDK of several files cannot be read from a "
                    "URL; copy all of them here", s->name);
    }
    file = open_file(content_file_node(path, false), error);
    if (!file) {
        return false;
    }
    if (content_size(file) < needed) {
        why = source_cut_off(needed, content_size(file));
        return fail(error, "%s: %s", path, why);
    }
    bytes = MIN(content_size(file), SOURCE_HEAD_BYTES);
    if (!content_pread(file, 0, bytes, head, error)) {
        return false;
    }
    /* A flat one holds data of the guest, which has no header */
    if (source_looks_like(head, bytes) && memcmp(head, "KDMV", 4) == 0) {
        why = source_head_refused("vmdk", head, bytes, content_size(file));
    }
    return why ? fail(error, "%s: %s", path, why) : true;
}

static bool check_head(const Source *s, Content *file, GError **error)
{
    g_autofree uint8_t *head = g_malloc0(SOURCE_HEAD_BYTES);
    size_t bytes = MIN(content_size(file), SOURCE_HEAD_BYTES);
    g_autofree char *why = NULL;
    g_auto(GStrv) extents = NULL;
    const char *seems;

    if (!content_pread(file, 0, bytes, head, error)) {
        return false;
    }
    seems = source_looks_like(head, bytes);
    if (s->derived && seems && g_str_equal(s->format, "raw")) {
        return fail(error, "%s begins like a %s image, not a raw one; say "
                    "which it is with --format", s->name, seems);
    }
    why = source_head_refused(s->format, head, bytes, file_bytes(s, file));
    if (why) {
        return fail(error, "%s: %s", s->name, why);
    }
    if (g_str_equal(s->format, "vmdk")) {
        extents = source_vmdk_extents(head, bytes);
        for (char **e = extents; *e; e++) {
            uint64_t needed = source_vmdk_flat_bytes(head, bytes, *e);

            if (!check_extent(s, *e, needed, error)) {
                return false;
            }
        }
    }
    if (g_str_equal(s->format, "vhdx")) {
        return check_vhdx_table(s, file, error);
    }
    return !g_str_equal(s->format, "vpc") ||
           check_vhd_table(s, file, head, bytes, error);
}

static bool check_tables(const Source *s, GError **error)
{
    g_autoptr(JsonObject) node = source_node(s);
    g_autofree char *text = content_node_text(node);
    g_autofree char *name = g_strconcat("json:", text, NULL);
    g_autofree char *program = program_qemu_img();
    g_autofree char *complaint = NULL;
    const char *argv[] = { program, "check", "-q", "-U", name, NULL };
    int status = program_run(argv, NULL, NULL, &complaint, error);

    if (status < 0) {
        return false;
    }
    return status == 0 || status == CHECK_LEAKS || status == CHECK_NO_SUCH ||
           fail(error, "%s is damaged or cut off: %s", s->name, complaint);
}

bool source_check(const Source *s, GError **error)
{
    g_autoptr(Content) file = open_file(protocol_node(s), error);

    return file && check_head(s, file, error) &&
           (g_str_equal(s->format, "raw") || check_tables(s, error));
}

/*
 * Manifest of a vDisk: what is in it, and what makes it valid
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/manifest.h"
#include "cli/units.h"
#include "block/vdisk/header.h"

static const char *const access_texts[] = {
    [ACCESS_MAINTENANCE] = "maintenance",
    [ACCESS_TEST] = "test",
    [ACCESS_PRODUCTION] = "production",
    [ACCESS_RETIRED] = "retired",
};

const char *version_access_text(VersionAccess access)
{
    return access_texts[access];
}

bool version_access_parse(VersionAccess *access, const char *text)
{
    for (size_t i = 0; i < G_N_ELEMENTS(access_texts); i++) {
        if (!strcmp(text, access_texts[i])) {
            *access = i;
            return true;
        }
    }
    return false;
}

/* Life */

static char *random_hex(unsigned bytes)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < bytes; i += 4) {
        g_string_append_printf(s, "%08x", g_random_int());
    }
    return g_string_free(s, false);
}

Manifest *manifest_new(const char *vdisk)
{
    Manifest *m = g_new0(Manifest, 1);

    m->vdisk = g_strdup(vdisk);
    m->uuid = g_uuid_string_random();
    m->salt = random_hex(VERITY_HASH_BYTES);
    m->next = 1;
    m->unused = g_ptr_array_new_with_free_func(g_free);
    m->versions = g_ptr_array_new_with_free_func((GDestroyNotify)version_free);
    return m;
}

void manifest_free(Manifest *m)
{
    if (m) {
        g_free(m->vdisk);
        g_free(m->uuid);
        g_free(m->salt);
        g_ptr_array_unref(m->unused);
        g_ptr_array_unref(m->versions);
        g_free(m);
    }
}

Version *version_new(uint64_t number)
{
    Version *v = g_new0(Version, 1);

    v->number = number;
    return v;
}

void version_free(Version *v)
{
    if (v) {
        g_free(v->image);
        g_free(v->format);
        g_free(v->tree);
        g_free(v->trace);
        g_free(v->comment);
        g_free(v);
    }
}

static Version *nth(const Manifest *m, guint i)
{
    return g_ptr_array_index(m->versions, i);
}

void manifest_add(Manifest *m, Version *v)
{
    guint i = m->versions->len;

    while (i > 0 && nth(m, i - 1)->number > v->number) {
        i--;
    }
    g_ptr_array_insert(m->versions, i, v);
}

void manifest_set_unused(Manifest *m, const char *file, bool unused)
{
    for (guint i = 0; file && i < m->unused->len; i++) {
        if (!strcmp(g_ptr_array_index(m->unused, i), file)) {
            g_ptr_array_remove_index(m->unused, i);
            break;
        }
    }
    if (file && unused) {
        g_ptr_array_add(m->unused, g_strdup(file));
    }
}

/* Questions */

Version *manifest_version(const Manifest *m, uint64_t number)
{
    for (guint i = 0; i < m->versions->len; i++) {
        if (nth(m, i)->number == number) {
            return nth(m, i);
        }
    }
    return NULL;
}

Version *manifest_maintenance(const Manifest *m)
{
    for (guint i = 0; i < m->versions->len; i++) {
        if (!version_sealed(nth(m, i))) {
            return nth(m, i);
        }
    }
    return NULL;
}

Version *manifest_newest(const Manifest *m)
{
    for (guint i = m->versions->len; i-- > 0;) {
        if (version_sealed(nth(m, i)) && nth(m, i)->access != ACCESS_RETIRED) {
            return nth(m, i);
        }
    }
    return NULL;
}

Version *manifest_current(const Manifest *m, int64_t now)
{
    for (guint i = m->versions->len; i-- > 0;) {
        if (nth(m, i)->access == ACCESS_PRODUCTION &&
            nth(m, i)->released <= now) {
            return nth(m, i);
        }
    }
    return NULL;
}

/* Validity */

static bool wrong(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static bool wrong(GError **error, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list ap;

    va_start(ap, format);
    message = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, message);
    return false;
}

bool manifest_file_name_valid(const char *what, const char *name,
                              GError **error)
{
    static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = name ? strlen(name) : 0;

    if (len < 1 || len > MANIFEST_MAX_FILE_NAME ||
        strspn(name, chars) != len || *name == '.' || *name == '-' ||
        !strcmp(name, "manifest.json")) {
        return wrong(error, "'%s' is not the plain name of a file", what);
    }
    return true;
}

static bool time_valid(const char *what, int64_t t, GError **error)
{
    return (t >= 0 && t <= UNITS_TIME_MAX) ||
           wrong(error, "'%s' is not in the years 1970 to 9999", what);
}

static bool times_valid(const Version *v, GError **error)
{
    if (!time_valid("created", v->created, error) ||
        !time_valid("sealed", v->sealed, error) ||
        !time_valid("released", v->released, error) ||
        !time_valid("failed", v->failed, error)) {
        return false;
    }
    if (!version_sealed(v) && (v->sealed || v->released || v->failed)) {
        return wrong(error, "it is in maintenance, and has a time of sealed "
                     "versions");
    }
    if (version_sealed(v) && !v->sealed) {
        return wrong(error, "'sealed' is missing");
    }
    if (v->released && v->access == ACCESS_TEST) {
        return wrong(error, "'released' stands at a version in test");
    }
    return true;
}

static bool comment_valid(const char *comment, GError **error)
{
    if (!comment) {
        return true;
    }
    if (!*comment || strlen(comment) > MANIFEST_MAX_COMMENT ||
        !g_utf8_validate(comment, -1, NULL)) {
        return wrong(error, "'comment' is not a text of 1 to %d bytes",
                     MANIFEST_MAX_COMMENT);
    }
    for (const char *p = comment; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            return wrong(error, "'comment' has a control character in it");
        }
    }
    return true;
}

static bool image_valid(const Version *v, GError **error)
{
    if (!v->size || v->size % VDISK_GRANULE || v->size > MANIFEST_MAX_SIZE) {
        return wrong(error, "'size' is not a multiple of 4096 bytes up to 2^50");
    }
    if (!manifest_file_name_valid("image", v->image, error)) {
        return false;
    }
    if (!v->format || (strcmp(v->format, "raw") && strcmp(v->format, "qcow2"))) {
        return wrong(error, "'format' is neither raw nor qcow2");
    }
    return true;
}

static bool tree_valid(const Version *v, GError **error)
{
    bool root = vdisk_root_is_set(v->root);

    if (!version_sealed(v)) {
        return (!v->tree && !v->trace && !root) ||
               wrong(error, "it is in maintenance, and has a tree, a boot "
                     "trace or a root");
    }
    if (v->label) {
        return wrong(error, "it is sealed, and has a label");
    }
    if (!root) {
        return wrong(error, "it is sealed, and has no 'root'");
    }
    return manifest_file_name_valid("tree", v->tree, error) &&
           (!v->trace || manifest_file_name_valid("trace", v->trace, error));
}

static bool parent_valid(const Manifest *m, const Version *v, GError **error)
{
    const Version *parent = v->parent ? manifest_version(m, v->parent) : NULL;

    if (!v->parent) {
        return true;
    }
    /* Lower numbers only: so there is no loop */
    if (v->parent >= v->number) {
        return wrong(error, "its parent %" PRIu64 " is not older", v->parent);
    }
    if (!parent) {
        return wrong(error, "its parent %" PRIu64 " is missing", v->parent);
    }
    return version_sealed(parent) ||
           wrong(error, "its parent %" PRIu64 " is not sealed", v->parent);
}

static bool version_valid(const Manifest *m, const Version *v, GError **error)
{
    if (v->number < 1 || v->number > MANIFEST_MAX_NUMBER ||
        v->number >= m->next) {
        return wrong(error, "'version' is not from 1 to below 'next'");
    }
    if ((unsigned)v->access > ACCESS_RETIRED) {
        return wrong(error, "'access' is unknown");
    }
    return image_valid(v, error) && tree_valid(v, error) &&
           times_valid(v, error) && comment_valid(v->comment, error) &&
           parent_valid(m, v, error);
}

static bool versions_valid(const Manifest *m, GError **error)
{
    uint64_t before = 0;
    unsigned writers = 0;

    if (m->versions->len > MANIFEST_MAX_VERSIONS) {
        return wrong(error, "it has more than %d versions",
                     MANIFEST_MAX_VERSIONS);
    }
    for (guint i = 0; i < m->versions->len; i++) {
        const Version *v = nth(m, i);

        if (v->number <= before) {
            return wrong(error, "version %" PRIu64 " stands after version %"
                         PRIu64, v->number, before);
        }
        if (!version_valid(m, v, error)) {
            g_prefix_error(error, "version %" PRIu64 ": ", v->number);
            return false;
        }
        before = v->number;
        writers += !version_sealed(v);
    }
    return writers <= 1 || wrong(error, "it has more than one version in "
                                 "maintenance");
}

/* False if @name is in @names already */
static bool take_name(GHashTable *names, const char *name, GError **error)
{
    return !name || g_hash_table_add(names, (gpointer)name) ||
           wrong(error, "the file '%s' stands twice", name);
}

/* One file is one version's image, tree or boot trace, or unused */
static bool names_valid(const Manifest *m, GError **error)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    if (m->unused->len > MANIFEST_MAX_UNUSED) {
        return wrong(error, "more than %d files are unused",
                     MANIFEST_MAX_UNUSED);
    }
    for (guint i = 0; i < m->unused->len; i++) {
        const char *name = g_ptr_array_index(m->unused, i);

        if (!manifest_file_name_valid("unused", name, error) ||
            !take_name(names, name, error)) {
            return false;
        }
    }
    for (guint i = 0; i < m->versions->len; i++) {
        if (!take_name(names, nth(m, i)->image, error) ||
            !take_name(names, nth(m, i)->tree, error) ||
            !take_name(names, nth(m, i)->trace, error)) {
            return false;
        }
    }
    return true;
}

static bool salt_valid(const char *salt)
{
    size_t len = salt ? strlen(salt) : 0;

    return len >= 2 && len % 2 == 0 && len <= 2 * VERITY_MAX_SALT &&
           strspn(salt, "0123456789abcdef") == len;
}

bool manifest_valid(const Manifest *m, GError **error)
{
    g_autofree char *why = NULL;

    if (!m->vdisk || !vdisk_name_valid(m->vdisk, &why)) {
        return wrong(error, "'vdisk': %s", why ? why : "missing");
    }
    if (!m->uuid || !g_uuid_string_is_valid(m->uuid)) {
        return wrong(error, "'uuid' is not a UUID");
    }
    if (!salt_valid(m->salt)) {
        return wrong(error, "'salt' is not of 2 to %d hexadecimal digits in "
                     "lower case", 2 * VERITY_MAX_SALT);
    }
    if (m->next < 1 || m->next > MANIFEST_MAX_NUMBER + 1) {
        return wrong(error, "'next' is not from 1 to %d",
                     MANIFEST_MAX_NUMBER + 1);
    }
    return versions_valid(m, error) && names_valid(m, error);
}

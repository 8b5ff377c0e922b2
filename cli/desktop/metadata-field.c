/*
 * The attributes of our elements in domain metadata
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "metadata-field.h"
#include "block/vdisk/header.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define NODE_CHARS      31      /* BDRV_MAX_NODE_NAME of QEMU, without NUL */

#define D(element, name, kind, member) \
    { element, name, kind, offsetof(DesktopMetadata, member) }
#define C(element, name, kind, member) \
    { element, name, kind, offsetof(CatalogMetadata, member) }
#define VERSION(element, member) \
    D(element, "number", FIELD_NUMBER, member.number), \
    D(element, "size", FIELD_SIZE, member.size), \
    D(element, "root", FIELD_ROOT, member.root), \
    D(element, "image", FIELD_PATH, member.image), \
    D(element, "format", FIELD_FORMAT, member.format)

const MetadataField metadata_desktop_fields[] = {
    D(NULL, "catalog", FIELD_NAME, catalog),
    D(NULL, "vdisk", FIELD_NAME, vdisk),
    D(NULL, "model", FIELD_MODEL, model),
    D(NULL, "lifetime", FIELD_LIFETIME, lifetime),
    D(NULL, "run", FIELD_RUN, run),
    D("disk", "path", FIELD_PATH, disk),
    D("disk", "node", FIELD_NODE, node),
    D("disk", "write-cache", FIELD_BYTES, write_cache),
    D("disk", "ram", FIELD_BYTES, ram),
    D("disk", "bandwidth", FIELD_BYTES, bandwidth),
    D("journal", "path", FIELD_PATH, journal),
    D("monitor", "path", FIELD_PATH, monitor),
    D("identity", "path", FIELD_PATH, identity),
    D("source", "uri", FIELD_STORES, stores),
    D("host-cache", "path", FIELD_PATH, host_cache),
    VERSION("wanted", wanted),
    VERSION("previous", previous),
    { NULL }
};

const MetadataField metadata_catalog_fields[] = {
    C(NULL, "name", FIELD_NAME, catalog),
    C(NULL, "vdisk", FIELD_NAME, vdisk),
    C(NULL, "model", FIELD_MODEL, model),
    C(NULL, "lifetime", FIELD_LIFETIME, lifetime),
    C(NULL, "run", FIELD_RUN, run),
    C("store", "path", FIELD_PATH, store),
    C("folder", "path", FIELD_PATH, folder),
    C("source", "uri", FIELD_STORES, stores),
    C("host-cache", "path", FIELD_PATH, host_cache),
    C("each", "write-cache", FIELD_BYTES, write_cache),
    C("each", "ram", FIELD_BYTES, ram),
    C("each", "bandwidth", FIELD_BYTES, bandwidth),
    C("update", "version", FIELD_NUMBER, update),
    C("back", "version", FIELD_NUMBER, back),
    C("back", "released", FIELD_NUMBER, back_released),
    { NULL }
};

static const char *const models[] = { "", "mcs", "pvs", NULL };
static const char *const lifetimes[] = { "", "pooled", "dedicated", "private",
                                         NULL };
static const char *const runs[] = { "", "in-process", "vhost-user", NULL };

static bool is_enum(FieldKind kind)
{
    return kind == FIELD_MODEL || kind == FIELD_LIFETIME || kind == FIELD_RUN;
}

static bool is_uint64(FieldKind kind)
{
    return kind == FIELD_NUMBER || kind == FIELD_SIZE || kind == FIELD_BYTES;
}

static const char *const *enum_words(FieldKind kind)
{
    return kind == FIELD_MODEL ? models :
           kind == FIELD_LIFETIME ? lifetimes : runs;
}

static const char *set_enum(const MetadataField *f, unsigned *at,
                            const char *value)
{
    const char *const *words = enum_words(f->kind);

    for (unsigned i = 1; words[i]; i++) {
        if (!strcmp(words[i], value)) {
            *at = i;
            return NULL;
        }
    }
    return f->kind == FIELD_MODEL ? "mcs or pvs" :
           f->kind == FIELD_RUN ? "in-process or vhost-user"
                                : "pooled, dedicated or private";
}

static const char *set_uint64(const MetadataField *f, uint64_t *at,
                              const char *value)
{
    uint64_t max = f->kind == FIELD_NUMBER ? VDISK_MAX_VERSION : VDISK_MAX_SIZE;
    uint64_t unit = f->kind == FIELD_SIZE ? 512 : 1;
    bool digits = *value && strspn(value, "0123456789") == strlen(value);

    if (!digits || *value == '0' ||
        !g_ascii_string_to_unsigned(value, 10, 1, max, at, NULL) ||
        *at % unit) {
        *at = 0;
        return f->kind == FIELD_NUMBER ? "the number of a version, from 1" :
               f->kind == FIELD_SIZE ? "bytes, a multiple of 512"
                                     : "a number of bytes, above 0";
    }
    return NULL;
}

static bool has_control(const char *text)
{
    for (; *text; text++) {
        if (g_ascii_iscntrl(*text)) {
            return true;
        }
    }
    return false;
}

/* As it would be opened: nothing in it that leads elsewhere than it says */
static bool path_valid(const char *path)
{
    g_autofree char *plain = NULL;

    if (*path != '/' || !path[1] || path[1] == '/' || has_control(path) ||
        strlen(path) >= VDISK_NAME_BYTES || !g_utf8_validate(path, -1, NULL)) {
        return false;
    }
    plain = g_canonicalize_filename(path, "/");
    return !strcmp(plain, path);
}

static bool node_valid(const char *name)
{
    if (!g_ascii_isalpha(*name) || strlen(name) > NODE_CHARS) {
        return false;
    }
    for (; *name; name++) {
        if (!g_ascii_isalnum(*name) && !strchr("-._", *name)) {
            return false;
        }
    }
    return true;
}

static bool root_valid(const char *text)
{
    return strlen(text) == 2 * VDISK_ROOT_BYTES &&
           strspn(text, "0123456789abcdef") == strlen(text) &&
           strspn(text, "0") != strlen(text);
}

static bool name_valid(const char *name)
{
    g_autofree char *why = NULL;

    return vdisk_name_valid(name, &why);
}

static const char *string_wrong(FieldKind kind, const char *value)
{
    switch (kind) {
    case FIELD_NAME:
        return name_valid(value) ? NULL :
               "1 to 127 letters, digits, '.', '_' and '-', the first one "
               "neither '.' nor '-'";
    case FIELD_NODE:
        return node_valid(value) ? NULL :
               "the name of a block node: a letter, then up to 30 letters, "
               "digits, '-', '.' and '_'";
    case FIELD_PATH:
        return path_valid(value) ? NULL :
               "an absolute path without '.', '..', '//' and control "
               "characters";
    case FIELD_FORMAT:
        return !strcmp(value, "raw") || !strcmp(value, "qcow2") ? NULL :
               "raw or qcow2";
    default:
        return root_valid(value) ? NULL :
               "a root hash: 64 hexadecimal digits in lower case";
    }
}

static const char *set_string(const MetadataField *f, char **at,
                              const char *value)
{
    const char *wrong = string_wrong(f->kind, value);

    if (!wrong) {
        g_free(*at);
        *at = g_strdup(value);
    }
    return wrong;
}

/* A name or an address; GUri takes more for a host than anybody would */
static bool host_valid(const char *host)
{
    size_t len = host ? strlen(host) : 0;

    return len && *host != '-' && len == strspn(host, "0123456789.:-_"
                                                "abcdefghijklmnopqrstuvwxyz"
                                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

/* nbd[s]://HOST:PORT, or nbd+unix:///?socket=PATH */
static bool store_valid(const char *text)
{
    g_autoptr(GUri) uri = g_uri_parse(text, G_URI_FLAGS_NONE, NULL);
    const char *scheme, *host, *path, *query;

    if (!uri || strlen(text) >= VDISK_NAME_BYTES || has_control(text) ||
        g_uri_get_userinfo(uri) || g_uri_get_fragment(uri)) {
        return false;
    }
    scheme = g_uri_get_scheme(uri);
    host = g_uri_get_host(uri);
    path = g_uri_get_path(uri);
    query = g_uri_get_query(uri);
    if (!strcmp(scheme, "nbd+unix")) {
        return (!host || !*host) && !strcmp(path, "/") && query &&
               g_str_has_prefix(query, "socket=") &&
               path_valid(query + strlen("socket="));
    }
    return (!strcmp(scheme, "nbd") || !strcmp(scheme, "nbds")) &&
           host_valid(host) && g_uri_get_port(uri) > 0 && !query && !*path;
}

static const char *add_store(const MetadataField *f, char ***at,
                             const char *value)
{
    unsigned n = *at ? g_strv_length(*at) : 0;

    if (n >= METADATA_MAX_STORES) {
        return "among 16 sources at most";
    }
    if (!store_valid(value)) {
        return "nbd://HOST:PORT, nbds://HOST:PORT or "
               "nbd+unix:///?socket=PATH";
    }
    *at = g_renew(char *, *at, n + 2);
    (*at)[n] = g_strdup(value);
    (*at)[n + 1] = NULL;
    return NULL;
}

const char *metadata_field_set(const MetadataField *f, void *object,
                               const char *value)
{
    void *at = (char *)object + f->offset;

    return is_enum(f->kind) ? set_enum(f, at, value) :
           is_uint64(f->kind) ? set_uint64(f, at, value) :
           f->kind == FIELD_STORES ? add_store(f, at, value)
                                   : set_string(f, at, value);
}

static char **one(char *value)
{
    char **values = g_new0(char *, 2);

    values[0] = value;
    return values;
}

char **metadata_field_get(const MetadataField *f, const void *object)
{
    const void *at = (const char *)object + f->offset;

    if (is_enum(f->kind)) {
        return one(g_strdup(enum_words(f->kind)[*(const unsigned *)at]));
    }
    if (is_uint64(f->kind)) {
        uint64_t n = *(const uint64_t *)at;

        return one(n ? g_strdup_printf("%" PRIu64, n) : NULL);
    }
    if (f->kind == FIELD_STORES) {
        char **stores = *(char **const *)at;

        return stores ? g_strdupv(stores) : one(NULL);
    }
    return one(g_strdup(*(char *const *)at));
}

void metadata_fields_clear(const MetadataField *fields, void *object)
{
    for (; fields->name; fields++) {
        void *at = (char *)object + fields->offset;

        if (fields->kind == FIELD_STORES) {
            g_strfreev(*(char ***)at);
        } else if (!is_enum(fields->kind) && !is_uint64(fields->kind)) {
            g_free(*(char **)at);
        }
    }
}

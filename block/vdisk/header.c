/*
 * Header of a layer file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/vdisk/header.h"
#include "block/vdisk/map.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define HEADER_MAGIC        "DSKLAYER"
#define HEADER_VERSION      1
#define MAP_OFFSET          (64 * 1024)
#define DATA_ALIGN          (1024 * 1024)   /* stripes of RAID and LVM */
/* Room to grow fourfold, and to 1 TiB at least: 64 MiB of a sparse file */
#define GROWTH              4
#define MIN_CAPACITY        (UINT64_C(1) << 40)
/* Bytes of map for the largest disk, four granules in each */
#define MAX_CAPACITY        (VDISK_MAX_SIZE / (4 * VDISK_GRANULE))

/* As on disk: little-endian, byte offsets as in docs/interop/layer.rst */
typedef struct QEMU_PACKED DiskHeader {
    char magic[8];
    uint64_t checksum;
    uint32_t version;
    uint32_t header_size;
    uint64_t generation;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint64_t virtual_size;
    uint64_t map_offset;
    uint64_t map_capacity;
    uint64_t data_offset;
    uint64_t file_size;
    uint32_t granule_bits;
    uint32_t role;
    uint32_t lifetime;
    uint32_t reserved;
    uint8_t desktop[16];
    uint8_t token[VDISK_TOKEN_BYTES];
    uint64_t base_size;
    uint64_t base_version;
    uint8_t base_root[VDISK_ROOT_BYTES];
    uint64_t assigned_version;
    uint8_t assigned_root[VDISK_ROOT_BYTES];
    uint64_t assigned_size;
    uint8_t reserved2[16];
    char base_format[VDISK_FORMAT_BYTES];
    char assigned_format[VDISK_FORMAT_BYTES];
    char base[VDISK_NAME_BYTES];
    char assigned[VDISK_NAME_BYTES];
    uint8_t reserved3[1728];
} DiskHeader;

QEMU_BUILD_BUG_ON(sizeof(DiskHeader) != VDISK_HEADER_BYTES);
QEMU_BUILD_BUG_ON(offsetof(DiskHeader, base_format) != 256);

bool vdisk_header_layout(VdiskHeader *h, uint64_t virtual_size)
{
    uint64_t capacity;

    if (virtual_size > VDISK_MAX_SIZE / GROWTH) {
        return false;
    }
    capacity = MAX(virtual_size * GROWTH, MIN_CAPACITY);
    h->virtual_size = virtual_size;
    h->map_offset = MAP_OFFSET;
    h->map_capacity = VDISK_MAP_BYTES(DIV_ROUND_UP(capacity, VDISK_GRANULE));
    h->data_offset = ROUND_UP(h->map_offset + h->map_capacity, DATA_ALIGN);
    h->file_size = h->data_offset + ROUND_UP(virtual_size, VDISK_GRANULE);
    return true;
}

uint64_t vdisk_header_max_size(const VdiskHeader *h)
{
    return h->map_capacity * 4 * VDISK_GRANULE;
}

bool vdisk_header_probe(const uint8_t *buf, size_t len, VdiskRole *role)
{
    uint32_t value = 0;

    if (len < 8 || memcmp(buf, HEADER_MAGIC, 8) != 0) {
        return false;
    }
    if (len >= offsetof(DiskHeader, lifetime)) {
        memcpy(&value, buf + offsetof(DiskHeader, role), sizeof(value));
    }
    *role = GUINT32_FROM_LE(value);
    return true;
}

const char *vdisk_role_driver(VdiskRole role)
{
    switch (role) {
    case VDISK_ROLE_MCS:
        return "mcs";
    case VDISK_ROLE_WRITE_CACHE:
    case VDISK_ROLE_HOST_CACHE:
    case VDISK_ROLE_LOCAL_COPY:
        return "pvs";
    default:
        return NULL;
    }
}

static uint64_t header_checksum(const DiskHeader *d)
{
    DiskHeader copy = *d;

    copy.checksum = 0;
    return XXH3_64bits(&copy, sizeof(copy));
}

void vdisk_header_encode(const VdiskHeader *h, uint8_t buf[VDISK_HEADER_BYTES])
{
    DiskHeader d = {
        .version = GUINT32_TO_LE(HEADER_VERSION),
        .header_size = GUINT32_TO_LE(VDISK_HEADER_BYTES),
        .generation = GUINT64_TO_LE(h->generation),
        .incompatible_features = GUINT64_TO_LE(h->incompatible_features),
        .compatible_features = GUINT64_TO_LE(h->compatible_features),
        .autoclear_features = GUINT64_TO_LE(h->autoclear_features),
        .virtual_size = GUINT64_TO_LE(h->virtual_size),
        .map_offset = GUINT64_TO_LE(h->map_offset),
        .map_capacity = GUINT64_TO_LE(h->map_capacity),
        .data_offset = GUINT64_TO_LE(h->data_offset),
        .file_size = GUINT64_TO_LE(h->file_size),
        .granule_bits = GUINT32_TO_LE(VDISK_GRANULE_BITS),
        .role = GUINT32_TO_LE(h->role),
        .lifetime = GUINT32_TO_LE(h->lifetime),
        .base_size = GUINT64_TO_LE(h->base.size),
        .base_version = GUINT64_TO_LE(h->base.version),
        .assigned_version = GUINT64_TO_LE(h->assigned.version),
        .assigned_size = GUINT64_TO_LE(h->assigned.size),
    };

    memcpy(d.magic, HEADER_MAGIC, sizeof(d.magic));
    memcpy(d.desktop, h->desktop, sizeof(d.desktop));
    memcpy(d.token, h->token, sizeof(d.token));
    memcpy(d.base_root, h->base.root, sizeof(d.base_root));
    memcpy(d.assigned_root, h->assigned.root, sizeof(d.assigned_root));
    g_strlcpy(d.base, h->base.name, sizeof(d.base));
    g_strlcpy(d.base_format, h->base.format, sizeof(d.base_format));
    g_strlcpy(d.assigned, h->assigned.name, sizeof(d.assigned));
    g_strlcpy(d.assigned_format, h->assigned.format,
              sizeof(d.assigned_format));
    d.checksum = GUINT64_TO_LE(header_checksum(&d));
    memcpy(buf, &d, sizeof(d));
}

bool vdisk_image_name_valid(const char *name, const char *format, char **why)
{
    if (g_str_has_prefix(name, "json:")) {
        *why = g_strdup("the image name is a json: pseudo-name, which could "
                        "open anything; a plain file name or URI is needed");
        return false;
    }
    if (strlen(name) >= VDISK_NAME_BYTES) {
        *why = g_strdup_printf("the image name is longer than %d bytes",
                               VDISK_NAME_BYTES - 1);
        return false;
    }
    for (const char *p = name; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *why = g_strdup("the image name has a control character in it");
            return false;
        }
    }
    if (*name && !*format) {
        *why = g_strdup("the image name comes without its format; formats are "
                        "never guessed");
        return false;
    }
    if (strlen(format) >= VDISK_FORMAT_BYTES ||
        strspn(format, "abcdefghijklmnopqrstuvwxyz0123456789-_") !=
        strlen(format)) {
        *why = g_strdup("the image's format is not the name of a format");
        return false;
    }
    return true;
}

bool vdisk_name_valid(const char *name, char **why)
{
    static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(name);

    if (len < 1 || len > VDISK_NAME_CHARS) {
        *why = g_strdup_printf("the name of a vDisk has 1 to %d characters",
                               VDISK_NAME_CHARS);
        return false;
    }
    if (strspn(name, chars) != len || *name == '.' || *name == '-') {
        *why = g_strdup("the name of a vDisk consists of letters, digits, "
                        "'.', '_' and '-', and begins with a letter, a digit "
                        "or '_'");
        return false;
    }
    return true;
}

bool vdisk_image_same(const VdiskImageName *a, const VdiskImageName *b)
{
    return g_str_equal(a->name, b->name) && g_str_equal(a->format, b->format) &&
           a->version == b->version &&
           memcmp(a->root, b->root, sizeof(a->root)) == 0;
}

char *vdisk_image_text(const VdiskImageName *image)
{
    if (!image->version) {
        return g_strdup(image->name);
    }
    return g_strdup_printf("%s@%" PRIu64, image->name, image->version);
}

bool vdisk_root_is_set(const uint8_t root[VDISK_ROOT_BYTES])
{
    static const uint8_t none[VDISK_ROOT_BYTES];

    return memcmp(root, none, sizeof(none)) != 0;
}

/* Copy the names of an image out of a header; they are not judged yet */
static bool decode_image(VdiskImageName *image, const char *name,
                         const char *format, char **why)
{
    if (!memchr(name, 0, VDISK_NAME_BYTES) ||
        !memchr(format, 0, VDISK_FORMAT_BYTES)) {
        *why = g_strdup("an image name in it does not end");
        return false;
    }
    /* What is behind the end of a name is nobody's */
    g_strlcpy(image->name, name, VDISK_NAME_BYTES);
    g_strlcpy(image->format, format, VDISK_FORMAT_BYTES);
    return true;
}

static bool check_version(const VdiskImageName *image, VdiskRole role,
                          char **why)
{
    if (!vdisk_name_valid(image->name, why)) {
        return false;
    }
    if (image->format[0]) {
        *why = g_strdup("a version of a vDisk has no format");
        return false;
    }
    /* A cache of the host is known by its root hash, or by its name alone */
    if (role != VDISK_ROLE_HOST_CACHE && !image->version) {
        *why = g_strdup("the vDisk's version is missing");
        return false;
    }
    if (image->size % 512) {
        *why = g_strdup("the size of its image is not possible");
        return false;
    }
    if (image->version > VDISK_MAX_VERSION) {
        *why = g_strdup("the vDisk's version is not possible");
        return false;
    }
    return true;
}

static bool check_image(const VdiskImageName *image, VdiskRole role, char **why)
{
    bool versioned = image->version || vdisk_root_is_set(image->root);

    if (image->size > VDISK_MAX_SIZE) {
        *why = g_strdup("the size of its image is not possible");
        return false;
    }
    if (!image->name[0] && (versioned || image->format[0] || image->size)) {
        *why = g_strdup("it describes an image without a name");
        return false;
    }
    if (role != VDISK_ROLE_MCS) {
        return !image->name[0] || check_version(image, role, why);
    }
    if (versioned) {
        *why = g_strdup("the image of a differencing disk has no version");
        return false;
    }
    return vdisk_image_name_valid(image->name, image->format, why);
}

static bool check_images(const VdiskHeader *h, char **why)
{
    const char *bad = NULL;

    if (!check_image(&h->base, h->role, why) ||
        !check_image(&h->assigned, h->role, why)) {
        return false;
    }
    if (h->role == VDISK_ROLE_MCS) {
        return true;
    }
    if (!h->base.name[0]) {
        bad = "the name of its vDisk is missing";
    } else if (h->assigned.name[0] && h->role != VDISK_ROLE_WRITE_CACHE) {
        bad = "only a write cache can take another version";
    } else if (h->assigned.name[0] &&
               !g_str_equal(h->assigned.name, h->base.name)) {
        bad = "a version of another vDisk is assigned";
    }
    *why = g_strdup(bad);
    return !bad;
}

static const char *bad_geometry(const VdiskHeader *h)
{
    uint64_t granules;

    if (h->virtual_size > VDISK_MAX_SIZE || h->virtual_size % 512) {
        return "the disk's size is not possible";
    }
    granules = DIV_ROUND_UP(h->virtual_size, VDISK_GRANULE);
    if (h->map_offset % VDISK_MAP_PAGE || h->map_capacity % VDISK_MAP_PAGE ||
        h->data_offset % VDISK_GRANULE) {
        return "an offset is not aligned";
    }
    if (h->map_offset < VDISK_HEADER_COPIES * VDISK_HEADER_BYTES ||
        h->map_capacity > MAX_CAPACITY || h->map_offset > VDISK_MAX_SIZE / 4 ||
        h->data_offset > VDISK_MAX_SIZE / 2 || h->file_size > INT64_MAX) {
        return "an offset is out of range";
    }
    if (h->map_capacity < VDISK_MAP_BYTES(granules)) {
        return "the granule map is smaller than the disk needs";
    }
    if (h->data_offset < h->map_offset + h->map_capacity) {
        return "granule map and data overlap";
    }
    return NULL;
}

static const char *bad_kind(const VdiskHeader *h)
{
    if (!vdisk_role_driver(h->role)) {
        return "its role is unknown";
    }
    if (h->lifetime != VDISK_DEDICATED && h->lifetime != VDISK_POOLED) {
        return "its lifetime is neither dedicated nor pooled";
    }
    if (h->role == VDISK_ROLE_WRITE_CACHE && h->lifetime != VDISK_POOLED) {
        return "a write cache must be pooled";
    }
    if (h->role == VDISK_ROLE_HOST_CACHE && h->lifetime != VDISK_DEDICATED) {
        return "a host's cache must be dedicated";
    }
    if (h->role == VDISK_ROLE_LOCAL_COPY && h->lifetime != VDISK_DEDICATED) {
        return "a local copy must be dedicated";
    }
    return NULL;
}

static bool check_fields(const VdiskHeader *h, char **why)
{
    const char *bad = bad_geometry(h) ?: bad_kind(h);

    if (bad) {
        *why = g_strdup(bad);
        return false;
    }
    return check_images(h, why);
}

bool vdisk_header_decode(VdiskHeader *h, const uint8_t buf[VDISK_HEADER_BYTES],
                         char **why)
{
    DiskHeader d;

    memcpy(&d, buf, sizeof(d));
    if (memcmp(d.magic, HEADER_MAGIC, sizeof(d.magic)) != 0) {
        *why = g_strdup("it does not begin like one");
        return false;
    }
    if (GUINT32_FROM_LE(d.version) != HEADER_VERSION ||
        GUINT32_FROM_LE(d.header_size) != VDISK_HEADER_BYTES) {
        *why = g_strdup_printf("version %" PRIu32 " of the format is not known",
                               GUINT32_FROM_LE(d.version));
        return false;
    }
    if (GUINT64_FROM_LE(d.checksum) != header_checksum(&d)) {
        *why = g_strdup("its checksum does not match");
        return false;
    }
    if (GUINT32_FROM_LE(d.granule_bits) != VDISK_GRANULE_BITS) {
        *why = g_strdup("its granule size is not known");
        return false;
    }
    *h = (VdiskHeader) {
        .generation = GUINT64_FROM_LE(d.generation),
        .incompatible_features = GUINT64_FROM_LE(d.incompatible_features),
        .compatible_features = GUINT64_FROM_LE(d.compatible_features),
        .autoclear_features = GUINT64_FROM_LE(d.autoclear_features),
        .virtual_size = GUINT64_FROM_LE(d.virtual_size),
        .map_offset = GUINT64_FROM_LE(d.map_offset),
        .map_capacity = GUINT64_FROM_LE(d.map_capacity),
        .data_offset = GUINT64_FROM_LE(d.data_offset),
        .file_size = GUINT64_FROM_LE(d.file_size),
        .role = GUINT32_FROM_LE(d.role),
        .lifetime = GUINT32_FROM_LE(d.lifetime),
        .base.version = GUINT64_FROM_LE(d.base_version),
        .base.size = GUINT64_FROM_LE(d.base_size),
        .assigned.version = GUINT64_FROM_LE(d.assigned_version),
        .assigned.size = GUINT64_FROM_LE(d.assigned_size),
    };
    memcpy(h->desktop, d.desktop, sizeof(h->desktop));
    memcpy(h->token, d.token, sizeof(h->token));
    memcpy(h->base.root, d.base_root, sizeof(h->base.root));
    memcpy(h->assigned.root, d.assigned_root, sizeof(h->assigned.root));
    return decode_image(&h->base, d.base, d.base_format, why) &&
           decode_image(&h->assigned, d.assigned, d.assigned_format, why) &&
           check_fields(h, why);
}

bool vdisk_header_valid(const VdiskHeader *h, char **why)
{
    uint8_t buf[VDISK_HEADER_BYTES];
    VdiskHeader copy;

    vdisk_header_encode(h, buf);
    return vdisk_header_decode(&copy, buf, why);
}

/* Whole, so that it is no damage */
static bool is_other_version(const uint8_t *buf)
{
    DiskHeader d;

    memcpy(&d, buf, sizeof(d));
    return memcmp(d.magic, HEADER_MAGIC, sizeof(d.magic)) == 0 &&
           GUINT64_FROM_LE(d.checksum) == header_checksum(&d) &&
           GUINT32_FROM_LE(d.version) != HEADER_VERSION;
}

int vdisk_header_choose(VdiskHeader *h, const uint8_t *buf, unsigned *bad,
                        char **why)
{
    VdiskHeader copy;
    int chosen = -1;

    *bad = 0;
    *why = NULL;
    for (int i = 0; i < VDISK_HEADER_COPIES; i++) {
        char *reason = NULL;

        if (!vdisk_header_decode(&copy, buf + i * VDISK_HEADER_BYTES,
                                 &reason)) {
            *bad |= 1u << i;
            if (!*why) {
                *why = reason;
            } else {
                g_free(reason);
            }
        } else if (chosen < 0 || copy.generation > h->generation) {
            *h = copy;
            chosen = i;
        }
    }
    for (int i = 0; i < VDISK_HEADER_COPIES; i++) {
        if (is_other_version(buf + i * VDISK_HEADER_BYTES)) {
            return -1;
        }
    }
    if (chosen >= 0) {
        g_clear_pointer(why, g_free);
    }
    return chosen;
}

/*
 * Host cache: how its owner makes it, finds it again and leaves it
 *
 *   data file     live map        is
 *   none          -               made
 *   of this       of this boot    gone on with, bit for bit
 *   of this       none            with a saved map: loaded; else scanned
 *   of another    -               refused: its name is wrong
 *   damaged       -               made anew
 *   no cache      -               refused
 *
 * Without a tree nothing can be compared: then it is always made anew.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "block/pvs/cache-int.h"
#include <sys/mman.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#define HEADER_SIZE     (VDISK_HEADER_COPIES * VDISK_HEADER_BYTES)

/* The data file */

static bool write_at(int fd, const void *buf, size_t bytes, off_t offset,
                     Error **errp)
{
    ssize_t ret = pwrite(fd, buf, bytes, offset);

    if (ret != bytes) {
        error_setg_errno(errp, ret < 0 ? errno : EIO,
                         "Could not write to the host cache");
        return false;
    }
    return true;
}

/* The next header, durably, into the copy that is not in use */
static bool write_header(PvsCache *c, Error **errp)
{
    uint8_t buf[VDISK_HEADER_BYTES];
    int copy = (c->header_copy + 1) % VDISK_HEADER_COPIES;

    c->header.generation++;
    vdisk_header_encode(&c->header, buf);
    if (!write_at(c->fd, buf, sizeof(buf), copy * sizeof(buf), errp)) {
        return false;
    }
    if (qemu_fdatasync(c->fd) < 0) {
        error_setg_errno(errp, errno, "Could not write to the host cache");
        return false;
    }
    c->header_copy = copy;
    return true;
}

static bool new_header(VdiskHeader *h, const PvsCacheId *id, Error **errp)
{
    int64_t image = ROUND_UP(id->image_bytes, VDISK_GRANULE);
    g_autofree char *why = NULL;

    *h = (VdiskHeader) {
        .role = VDISK_ROLE_HOST_CACHE,
        .lifetime = VDISK_DEDICATED,
        .base.version = id->version,
        .base.size = id->image_bytes,
    };
    if (!vdisk_name_valid(id->vdisk, &why)) {
        error_setg(errp, "A host cache needs the name of its vDisk: %s", why);
        return false;
    }
    g_strlcpy(h->base.name, id->vdisk, sizeof(h->base.name));
    if (id->root) {
        memcpy(h->base.root, id->root, sizeof(h->base.root));
    }
    if (!vdisk_header_layout(h, image + id->tree_bytes)) {
        error_setg(errp, "The version is too large for a host cache");
        return false;
    }
    return true;
}

static bool lock_data(int fd, const char *name, Error **errp)
{
    int ret = qemu_lock_fd(fd, 0, 1, true);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "The host cache '%s' is in use by another "
                         "relay", name);
        return false;
    }
    return true;
}

/* A new file in place of what is there, which others may have open still */
static bool make_data(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    g_autofree char *temp = g_strdup_printf("%s.new", c->data_name);
    int fd;

    if (!new_header(&c->header, id, errp)) {
        return false;
    }
    unlink(temp);
    fd = qemu_create(temp, O_RDWR | O_EXCL, 0644, errp);
    if (fd < 0) {
        return false;
    }
    if (c->fd >= 0) {
        qemu_close(c->fd);
    }
    c->fd = fd;
    c->header_copy = 1;
    if (!lock_data(fd, c->data_name, errp)) {
        return false;
    }
    if (ftruncate(fd, c->header.file_size) < 0) {
        error_setg_errno(errp, errno, "Could not make the host cache %" PRIu64
                         " bytes long", c->header.file_size);
        return false;
    }
    if (!write_header(c, errp)) {
        return false;
    }
    if (rename(temp, c->data_name) < 0) {
        error_setg_errno(errp, errno, "Could not make the host cache '%s'",
                         c->data_name);
        return false;
    }
    return true;
}

/* Is the file that is there a cache of @id? */
static bool same_version(const VdiskHeader *h, const PvsCacheId *id)
{
    static const uint8_t none[VDISK_ROOT_BYTES];

    return g_str_equal(h->base.name, id->vdisk) &&
           h->base.size == id->image_bytes &&
           h->virtual_size == ROUND_UP(id->image_bytes, VDISK_GRANULE) +
                              id->tree_bytes &&
           memcmp(h->base.root, id->root ?: none, sizeof(none)) == 0;
}

typedef enum Found {
    FOUND_USABLE,
    FOUND_OLD,                  /* to be made anew */
    FOUND_REFUSED,
} Found;

static Found judge_header(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    ERRP_GUARD();
    const VdiskHeader *h = &c->header;

    if (h->role != VDISK_ROLE_HOST_CACHE) {
        error_setg(errp, "'%s' is not a host cache", c->data_name);
        return FOUND_REFUSED;
    }
    if (h->incompatible_features) {
        error_setg(errp, "The host cache '%s' uses features that this version "
                   "does not know (0x%" PRIx64 ")", c->data_name,
                   h->incompatible_features);
        error_append_hint(errp, "Use a newer version of Deskcast, or remove "
                          "the file: it is filled again.\n");
        return FOUND_REFUSED;
    }
    if (!same_version(h, id)) {
        error_setg(errp, "The host cache '%s' is of version %" PRIu64 " of "
                   "'%s', or of another image", c->data_name, h->base.version,
                   h->base.name);
        error_append_hint(errp, "Give each version a file of its own, with %%r "
                          "in its name; or remove it.\n");
        return FOUND_REFUSED;
    }
    return id->root ? FOUND_USABLE : FOUND_OLD;
}

static Found look_at_data(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    g_autofree uint8_t *buf = g_malloc0(HEADER_SIZE);
    g_autofree char *why = NULL;
    VdiskRole role;
    ssize_t n = pread(c->fd, buf, HEADER_SIZE, 0);
    unsigned bad;

    if (n < 0) {
        error_setg_errno(errp, errno, "Could not read the host cache '%s'",
                         c->data_name);
        return FOUND_REFUSED;
    }
    if (n == 0) {
        return FOUND_OLD;
    }
    if (!vdisk_header_probe(buf, n, &role) &&
        !vdisk_header_probe(buf + VDISK_HEADER_BYTES, VDISK_HEADER_BYTES,
                            &role)) {
        error_setg(errp, "'%s' is there already, and is not a host cache",
                   c->data_name);
        return FOUND_REFUSED;
    }
    c->header_copy = vdisk_header_choose(&c->header, buf, &bad, &why);
    if (c->header_copy < 0) {
        if (role != VDISK_ROLE_HOST_CACHE) {
            error_setg(errp, "'%s' is not a host cache: %s", c->data_name,
                       why);
            return FOUND_REFUSED;
        }
        warn_report("The host cache '%s' is damaged and made anew: %s",
                    c->data_name, why);
        return FOUND_OLD;
    }
    return judge_header(c, id, errp);
}

static bool open_data(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    Found found = FOUND_OLD;

    if (access(c->data_name, F_OK) == 0) {
        c->fd = qemu_open(c->data_name, O_RDWR, errp);
        if (c->fd < 0 || !lock_data(c->fd, c->data_name, errp)) {
            return false;
        }
        found = look_at_data(c, id, errp);
    }
    if (found == FOUND_OLD) {
        return make_data(c, id, errp);
    }
    return found == FOUND_USABLE;
}

/* The live map */

static bool on_tmpfs(int fd, const char *name, Error **errp)
{
    ERRP_GUARD();
    struct statfs st;

    if (fstatfs(fd, &st) == 0 &&
        (st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC)) {
        return true;
    }
    error_setg(errp, "The live map '%s' is not on a tmpfs", name);
    error_append_hint(errp, "It must not outlive the host's boot. Choose a "
                      "name in /run or /dev/shm with host-cache-map.\n");
    return false;
}

/* Whoever has mapped the one that is there reads no more from it */
static void kill_map(const char *name)
{
    uint8_t *p = MAP_FAILED;
    struct stat st;
    int fd = open(name, O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        return;
    }
    if (fstat(fd, &st) == 0 && st.st_size >= LIVE_MAP_HEADER_BYTES) {
        p = mmap(NULL, LIVE_MAP_HEADER_BYTES, PROT_READ | PROT_WRITE,
                 MAP_SHARED, fd, 0);
    }
    if (p != MAP_FAILED) {
        qatomic_set((uint32_t *)(p + LIVE_MAP_DEAD), 1);
        munmap(p, LIVE_MAP_HEADER_BYTES);
    }
    close(fd);
}

/*
 * Filled by @load before others can find it. The memory is allocated first:
 * tmpfs has no other way to say that there is none than to kill who writes.
 */
static bool make_map(PvsCache *c, const char *name, const LiveMap *wanted,
                     Error **errp)
{
    g_autofree char *temp = g_strdup_printf("%s.new", name);
    g_autofree char *dir = g_path_get_dirname(name);
    uint8_t header[LIVE_MAP_HEADER_BYTES];
    bool ok = false;
    int fd, ret;

    g_mkdir_with_parents(dir, 0755);
    unlink(temp);
    fd = qemu_create(temp, O_RDWR | O_EXCL, 0644, errp);
    if (fd < 0) {
        return false;
    }
    live_map_encode(wanted, header);
    if (!on_tmpfs(fd, name, errp)) {
        goto out;
    }
    ret = posix_fallocate(fd, 0, live_map_file_bytes(wanted));
    if (ret) {
        error_setg_errno(errp, ret, "No memory for the live map '%s' of %"
                         PRIu64 " bytes", name, live_map_file_bytes(wanted));
        goto out;
    }
    ok = write_at(fd, header, sizeof(header), 0, errp) &&
         pvs_cache_map(c, fd, PROT_READ | PROT_WRITE, wanted, errp);
out:
    if (!ok) {
        unlink(temp);
    }
    qemu_close(fd);
    return ok;
}

static bool publish_map(const char *name, Error **errp)
{
    g_autofree char *temp = g_strdup_printf("%s.new", name);

    kill_map(name);
    if (rename(temp, name) < 0) {
        error_setg_errno(errp, errno, "Could not make the live map '%s'",
                         name);
        return false;
    }
    return true;
}

static bool is_saved(const VdiskHeader *h)
{
    static const uint8_t none[VDISK_TOKEN_BYTES];

    return memcmp(h->token, none, sizeof(none)) != 0;
}

/* What the last owner has left in the file. Anything wrong: nothing. */
static void load_map(PvsCache *c)
{
    size_t bytes = VDISK_MAP_BYTES(c->map.granules);
    g_autofree uint8_t *buf = g_malloc0(bytes);

    if (pread(c->fd, buf, bytes, c->header.map_offset) != bytes) {
        return;
    }
    for (size_t page = 0; page < bytes / VDISK_MAP_PAGE; page++) {
        vdisk_map_load(&c->map, page, buf + page * VDISK_MAP_PAGE);
    }
    vdisk_map_trim(&c->map, true);
}

static void ready_map(PvsCache *c)
{
    c->map.dirty_bytes = DIV_ROUND_UP(vdisk_map_pages(&c->map), 64) *
                         sizeof(uint64_t);
    c->map.dirty = g_malloc0(c->map.dirty_bytes);
}

/* Go on with the map of an owner that is gone, killed maybe */
static bool adopt_map(PvsCache *c, const char *name, const LiveMap *wanted)
{
    int fd = open(name, O_RDWR | O_CLOEXEC);
    bool ok = fd >= 0 && pvs_cache_map(c, fd, PROT_READ | PROT_WRITE, wanted,
                                       NULL);

    if (fd >= 0) {
        close(fd);
    }
    if (ok) {
        ready_map(c);
        c->all_unsynced = true;
    }
    return ok;
}

static bool open_map(PvsCache *c, const char *name, const PvsCacheId *id,
                     Error **errp)
{
    struct stat st;
    LiveMap wanted;
    bool saved = is_saved(&c->header);

    if (fstat(c->fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not look at the host cache");
        return false;
    }
    wanted = pvs_cache_live_id(id, &st, c->header.data_offset);
    if (!adopt_map(c, name, &wanted)) {
        if (!make_map(c, name, &wanted, errp)) {
            return false;
        }
        ready_map(c);
        if (saved) {
            load_map(c);
        }
        c->scanning = !saved && id->root && c->ops->co_verify;
        if (!publish_map(name, errp)) {
            return false;
        }
    }
    /* From here on the saved map grows old: it must not be trusted again */
    memset(c->header.token, 0, sizeof(c->header.token));
    return !saved || write_header(c, errp);
}

PvsCache *pvs_cache_own(const char *data, const char *map,
                        const PvsCacheId *id, uint64_t limit,
                        const PvsCacheOps *ops, void *opaque, Error **errp)
{
    PvsCache *c = g_new0(PvsCache, 1);

    c->owner = true;
    c->fd = -1;
    c->data_name = g_strdup(data);
    c->limit = limit;
    c->ops = ops;
    c->opaque = opaque;
    if (!new_header(&c->header, id, errp) || !open_data(c, id, errp) ||
        !open_map(c, map, id, errp)) {
        pvs_cache_unmap(c);
        if (c->fd >= 0) {
            qemu_close(c->fd);
        }
        g_free(c->map.dirty);
        g_free(c->data_name);
        g_free(c);
        return NULL;
    }
    qemu_mutex_init(&c->lock);
    QSIMPLEQ_INIT(&c->to_write);
    c->unsynced = g_array_new(false, false, sizeof(FillRun));
    pvs_cache_own_start(c);
    return c;
}

/*
 * Data, then the map, then the mark that says so; each durable before the next.
 * If anything fails the map is not trusted, and the data is looked at again.
 */
void pvs_cache_save(PvsCache *c)
{
    size_t bytes = VDISK_MAP_BYTES(c->map.granules);
    Error *err = NULL;

    if (!vdisk_root_is_set(c->header.base.root) || c->scanning) {
        return;
    }
    if (qemu_fdatasync(c->fd) < 0) {
        error_setg_errno(&err, errno, "Could not write to the host cache");
    } else if (write_at(c->fd, c->map.words, bytes, c->header.map_offset,
                        &err)) {
        if (qemu_fdatasync(c->fd) < 0) {
            error_setg_errno(&err, errno, "Could not write to the host cache");
        } else {
            qemu_guest_getrandom_nofail(c->header.token,
                                        sizeof(c->header.token));
            write_header(c, &err);
        }
    }
    if (err) {
        warn_reportf_err(err, "'%s': ", c->data_name);
    }
}

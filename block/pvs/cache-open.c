/*
 * Host cache: how its owner finds the live map, makes it and leaves it
 *
 *   data file     live map        is
 *   none          -               made (cache-file.c)
 *   of this       of this boot    gone on with, bit for bit
 *   of this       none            with a saved map: loaded; else scanned
 *
 * Without a tree nothing can be compared: then it is always made anew.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "block/pvs/cache-int.h"
#include <sys/mman.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

QEMU_BUILD_BUG_ON(sizeof(XXH128_canonical_t) != VDISK_TOKEN_BYTES);

/* The live map's file */

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

/* A file of another kind, or of another program, is not ours to replace */
static bool may_replace(const char *name, Error **errp)
{
    uint8_t buf[LIVE_MAP_DEAD] = {};
    struct stat st;
    bool ours = false;
    int fd;

    if (lstat(name, &st) < 0) {
        return true;
    }
    if (S_ISREG(st.st_mode)) {
        fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        ours = fd >= 0 && (pread(fd, buf, sizeof(buf), 0) <= 0 ||
                           live_map_probe(buf, sizeof(buf)));
        if (fd >= 0) {
            close(fd);
        }
    }
    if (!ours) {
        error_setg(errp, "'%s' is there already, and is not a live map", name);
    }
    return ours;
}

bool pvs_cache_kill_map(const char *name, Error **errp)
{
    uint8_t *p = MAP_FAILED;
    struct stat st;
    int fd;

    if (!may_replace(name, errp)) {
        return false;
    }
    fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        if (errno == ENOENT) {
            return true;
        }
        error_setg_errno(errp, errno, "Could not open the live map '%s'",
                         name);
        return false;
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
    return true;
}

/*
 * The memory is allocated before it is mapped: tmpfs has no other way to say
 * that there is none than to kill who writes.
 */
static bool fill_map(PvsCache *c, int fd, const LiveMap *wanted, Error **errp)
{
    uint8_t header[LIVE_MAP_HEADER_BYTES];
    int ret;

    if (!on_tmpfs(fd, c->map_name, errp)) {
        return false;
    }
    ret = -posix_fallocate(fd, 0, live_map_file_bytes(wanted));
    if (ret == 0 && fchmod(fd, 0644) < 0) {
        ret = -errno;
    }
    live_map_encode(wanted, header);
    if (ret == 0 && pwrite(fd, header, sizeof(header), 0) != sizeof(header)) {
        ret = -ENOSPC;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "No memory for the live map '%s' of %"
                         PRIu64 " bytes", c->map_name,
                         live_map_file_bytes(wanted));
        return false;
    }
    return pvs_cache_map(c, fd, PROT_READ | PROT_WRITE, wanted, errp);
}

static bool make_map(PvsCache *c, const LiveMap *wanted, Error **errp)
{
    g_autofree char *temp = g_strdup_printf("%s.new", c->map_name);
    g_autofree char *dir = g_path_get_dirname(c->map_name);
    bool ok;
    int fd;

    g_mkdir_with_parents(dir, 0755);
    if (!may_replace(temp, errp)) {
        return false;
    }
    unlink(temp);
    fd = qemu_create(temp, O_RDWR | O_EXCL, 0644, errp);
    if (fd < 0) {
        return false;
    }
    ok = fill_map(c, fd, wanted, errp);
    if (!ok) {
        unlink(temp);
    }
    qemu_close(fd);
    return ok;
}

/* Complete as it is now, it takes the name */
static bool publish_map(PvsCache *c, Error **errp)
{
    g_autofree char *temp = g_strdup_printf("%s.new", c->map_name);

    if (!pvs_cache_kill_map(c->map_name, errp)) {
        unlink(temp);
        return false;
    }
    if (rename(temp, c->map_name) < 0) {
        error_setg_errno(errp, errno, "Could not make the live map '%s'",
                         c->map_name);
        unlink(temp);
        return false;
    }
    return true;
}

/* The map in the data file */

/* What names the map as it is on disk: all its pages; never zero */
static void map_token(const uint8_t *buf, size_t bytes,
                      uint8_t token[VDISK_TOKEN_BYTES])
{
    XXH128_canonical_t hash;

    XXH128_canonicalFromHash(&hash, XXH3_128bits(buf, bytes));
    memcpy(token, &hash, VDISK_TOKEN_BYTES);
}

/* What the last owner has left in the file. Anything wrong: nothing. */
static bool load_map(PvsCache *c)
{
    size_t bytes = VDISK_MAP_BYTES(c->map.granules);
    g_autofree uint8_t *buf = g_try_malloc0(bytes);
    uint8_t token[VDISK_TOKEN_BYTES];

    if (!buf || pread(c->fd, buf, bytes, c->header.map_offset) != bytes) {
        return false;
    }
    map_token(buf, bytes, token);
    if (memcmp(token, c->header.token, sizeof(token)) != 0) {
        return false;
    }
    for (size_t page = 0; page < bytes / VDISK_MAP_PAGE; page++) {
        vdisk_map_load(&c->map, page, buf + page * VDISK_MAP_PAGE);
    }
    return true;
}

static bool write_map(PvsCache *c, Error **errp)
{
    size_t bytes = VDISK_MAP_BYTES(c->map.granules);
    g_autofree uint8_t *buf = g_try_malloc0(bytes);
    ssize_t ret = -1;

    errno = ENOMEM;
    if (buf) {
        for (size_t page = 0; page < bytes / VDISK_MAP_PAGE; page++) {
            vdisk_map_take(&c->map, page, buf + page * VDISK_MAP_PAGE);
        }
        ret = pwrite(c->fd, buf, bytes, c->header.map_offset);
    }
    if (ret != bytes || qemu_fdatasync(c->fd) < 0) {
        error_setg_errno(errp, ret >= 0 && ret != bytes ? ENOSPC : errno,
                         "Could not write its map");
        return false;
    }
    map_token(buf, bytes, c->header.token);
    return true;
}

/*
 * Data, then the map, then the mark that says so; each durable before the next.
 * If anything fails the map is not trusted, and the data is looked at again.
 */
void pvs_cache_save(PvsCache *c)
{
    Error *err = NULL;

    if (pvs_cache_sync(c) < 0 || pvs_cache_is_dead(c) || c->scanning ||
        !vdisk_root_is_set(c->header.base.root)) {
        return;
    }
    if (!write_map(c, &err) || !pvs_cache_write_header(c, &err)) {
        warn_reportf_err(err, "Host cache '%s': ", c->data_name);
    }
}

/* Opening */

static void ready_map(PvsCache *c)
{
    c->map.dirty_bytes = DIV_ROUND_UP(vdisk_map_pages(&c->map), 64) *
                         sizeof(uint64_t);
    c->map.dirty = g_malloc0(c->map.dirty_bytes);
    c->unsynced_bits = (unsigned long *)
                       (c->live + live_map_unsynced_offset(&c->id));
}

/*
 * What the last owner had not made durable yet is for us to sync. If it ended
 * in a sync, it may be the only one who was told that it failed.
 */
static void adopt_unsynced(PvsCache *c)
{
    uint32_t *syncing = pvs_cache_flag(c, LIVE_MAP_SYNCING);
    unsigned long end = c->map.granules, first, stop;

    for (first = find_first_bit(c->unsynced_bits, end); first < end;
         first = find_next_bit(c->unsynced_bits, end, stop)) {
        FillRun run = { .first = first };

        stop = find_next_zero_bit(c->unsynced_bits, end, first);
        run.n = stop - first;
        if (qatomic_read(syncing)) {
            vdisk_map_set(&c->map, first, run.n, VDISK_STATE_BASE);
            bitmap_clear(c->unsynced_bits, first, run.n);
        } else {
            g_array_append_val(c->unsynced, run);
        }
    }
    smp_wmb();                  /* it may be killed here too */
    qatomic_set(syncing, 0);
}

/*
 * The tree's head is two granules that are of use together only. They may be in
 * two words of the map, between which the last owner was killed.
 */
static void adopt_head(PvsCache *c)
{
    uint64_t tree = c->id.tree_bytes / VDISK_GRANULE;
    uint64_t first = c->map.granules - tree;
    VdiskState state[2];

    if (tree < 2) {
        return;
    }
    vdisk_map_run(&c->map, first, 1, &state[0]);
    vdisk_map_run(&c->map, first + 1, 1, &state[1]);
    if (state[0] == VDISK_STATE_BASE || state[1] == VDISK_STATE_BASE) {
        vdisk_map_set(&c->map, first, 2, VDISK_STATE_BASE);
    }
}

/* Go on with the map of an owner that is gone, killed maybe */
static bool adopt_map(PvsCache *c, const LiveMap *wanted)
{
    int fd = open(c->map_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool ok = fd >= 0 && pvs_cache_map(c, fd, PROT_READ | PROT_WRITE, wanted,
                                       NULL);

    if (fd >= 0) {
        close(fd);
    }
    if (ok) {
        ready_map(c);
        adopt_unsynced(c);
        adopt_head(c);
        c->scanning = qatomic_read(pvs_cache_flag(c, LIVE_MAP_SCANNING)) &&
                      c->ops->co_verify;
    }
    return ok;
}

static bool new_map(PvsCache *c, const LiveMap *wanted, bool saved,
                    const PvsCacheId *id, Error **errp)
{
    if (!make_map(c, wanted, errp)) {
        return false;
    }
    ready_map(c);
    if (!c->made && !(saved && load_map(c))) {
        c->scanning = id->root && c->ops->co_verify;
    }
    qatomic_set(pvs_cache_flag(c, LIVE_MAP_SCANNING), c->scanning);
    return publish_map(c, errp);
}

static bool open_map(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    struct stat st;
    LiveMap wanted;
    bool saved = !buffer_is_zero(c->header.token, sizeof(c->header.token));
    bool clear = saved || c->header.autoclear_features;

    if (fstat(c->fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not look at the host cache");
        return false;
    }
    wanted = pvs_cache_live_id(id, &st, &c->header);
    if (!adopt_map(c, &wanted) && !new_map(c, &wanted, saved, id, errp)) {
        return false;
    }
    /* From here on the saved map grows old: it must not be trusted again */
    memset(c->header.token, 0, sizeof(c->header.token));
    c->header.autoclear_features = 0;
    return !clear || pvs_cache_write_header(c, errp);
}

static void own_free(PvsCache *c)
{
    pvs_cache_unmap(c);
    if (c->fd >= 0) {
        qemu_close(c->fd);
    }
    g_array_unref(c->unsynced);
    g_free(c->map.dirty);
    g_free(c->data_name);
    g_free(c->map_name);
    g_free(c);
}

PvsCache *pvs_cache_own(const char *data, const char *map,
                        const PvsCacheId *id, uint64_t limit,
                        const PvsCacheOps *ops, void *opaque, Error **errp)
{
    PvsCache *c = g_new0(PvsCache, 1);

    c->owner = true;
    c->fd = -1;
    c->data_name = g_strdup(data);
    c->map_name = g_strdup(map);
    c->limit = limit;
    c->ops = ops;
    c->opaque = opaque;
    c->unsynced = g_array_new(false, false, sizeof(FillRun));
    if (!pvs_cache_own_data(c, id, errp) || !open_map(c, id, errp)) {
        own_free(c);
        return NULL;
    }
    qemu_mutex_init(&c->lock);
    qemu_co_mutex_init(&c->sync_lock);
    QSIMPLEQ_INIT(&c->to_write);
    pvs_cache_own_start(c);
    return c;
}

void pvs_cache_close(PvsCache *c)
{
    if (!c) {
        return;
    }
    if (c->owner) {
        pvs_cache_own_stop(c);
        own_free(c);
        return;
    }
    pvs_cache_unmap(c);
    qemu_close(c->fd);
    g_free(c);
}

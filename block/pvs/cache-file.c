/*
 * Host cache: the data file, how it is found, judged and made
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/guest-random.h"
#include "block/pvs/cache-int.h"

#define HEADER_SIZE     (VDISK_HEADER_COPIES * VDISK_HEADER_BYTES)

/*
 * Never written: so what was cut off does not look whole again when something
 * is written behind the cut
 */
#define TAIL_BYTES      VDISK_GRANULE

/* How often to look again after somebody else has replaced the file */
#define TRIES           100

QEMU_BUILD_BUG_ON(sizeof(((VdiskHeader *)0)->desktop) != LIVE_MAP_ID_BYTES);

/* The header */

bool pvs_cache_write_header(PvsCache *c, Error **errp)
{
    uint8_t buf[VDISK_HEADER_BYTES];
    int copy = (c->header_copy + 1) % VDISK_HEADER_COPIES;
    ssize_t ret;

    c->header.generation++;
    vdisk_header_encode(&c->header, buf);
    ret = pwrite(c->fd, buf, sizeof(buf), copy * sizeof(buf));
    if (ret != sizeof(buf) || qemu_fdatasync(c->fd) < 0) {
        error_setg_errno(errp, ret < 0 || ret == sizeof(buf) ? errno : EIO,
                         "Could not write to the host cache");
        return false;
    }
    c->header_copy = copy;
    return true;
}

static uint64_t cache_bytes(const PvsCacheId *id)
{
    return ROUND_UP(id->image_bytes, VDISK_GRANULE) + id->tree_bytes;
}

static bool new_header(VdiskHeader *h, const PvsCacheId *id, Error **errp)
{
    g_autofree char *why = NULL;

    *h = (VdiskHeader) {
        .role = VDISK_ROLE_HOST_CACHE,
        .lifetime = VDISK_DEDICATED,
        .base.version = id->version,
        .base.size = id->image_bytes,
    };
    if (!vdisk_name_valid(id->vdisk ?: "", &why)) {
        error_setg(errp, "A host cache needs the name of its vDisk: %s", why);
        return false;
    }
    g_strlcpy(h->base.name, id->vdisk, sizeof(h->base.name));
    if (id->root) {
        memcpy(h->base.root, id->root, sizeof(h->base.root));
    }
    if (!vdisk_header_layout(h, cache_bytes(id))) {
        error_setg(errp, "The version is too large for a host cache");
        return false;
    }
    qemu_guest_getrandom_nofail(h->desktop, sizeof(h->desktop));
    return true;
}

/* By its tree, or by its name if it has none */
static bool same_version(const VdiskHeader *h, const PvsCacheId *id)
{
    if (h->base.size != id->image_bytes ||
        h->virtual_size != cache_bytes(id)) {
        return false;
    }
    if (id->root) {
        return memcmp(h->base.root, id->root, sizeof(h->base.root)) == 0;
    }
    return !vdisk_root_is_set(h->base.root) &&
           g_str_equal(h->base.name, id->vdisk ?: "") &&
           h->base.version == id->version;
}

typedef enum Found {
    FOUND_USABLE,
    FOUND_OLD,                  /* to be made anew; @errp says why */
    FOUND_REFUSED,
} Found;

static void not_a_cache(const char *name, Error **errp)
{
    ERRP_GUARD();

    error_setg(errp, "'%s' is not a host cache", name);
    error_append_hint(errp, "It is left as it is. Choose another name with "
                      "host-cache, or remove it.\n");
}

static Found judge_header(PvsCache *c, const char *name, const PvsCacheId *id,
                          Error **errp)
{
    ERRP_GUARD();
    const VdiskHeader *h = &c->header;

    if (h->role != VDISK_ROLE_HOST_CACHE) {
        not_a_cache(name, errp);
        return FOUND_REFUSED;
    }
    if (h->incompatible_features) {
        error_setg(errp, "The host cache '%s' uses features that this version "
                   "does not know (0x%" PRIx64 ")", name,
                   h->incompatible_features);
        error_append_hint(errp, "Use a newer version of Deskcast, or remove "
                          "the file: it is filled again.\n");
        return FOUND_REFUSED;
    }
    if (!same_version(h, id)) {
        error_setg(errp, "The host cache '%s' is of version %" PRIu64 " of "
                   "'%s', or of another image", name, h->base.version,
                   h->base.name);
        error_append_hint(errp, "Give each version a file of its own, with %%r "
                          "in its name; or remove it.\n");
        return FOUND_REFUSED;
    }
    return FOUND_USABLE;
}

static Found judge_length(PvsCache *c, const char *name, Error **errp)
{
    struct stat st;

    if (fstat(c->fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not look at '%s'", name);
        return FOUND_REFUSED;
    }
    /* Not the sum: a header may say what is no length any more with it */
    if (st.st_size < TAIL_BYTES ||
        st.st_size - TAIL_BYTES < c->header.file_size) {
        error_setg(errp, "The host cache '%s' was cut off", name);
        return FOUND_OLD;
    }
    c->length = c->header.file_size + TAIL_BYTES;
    return FOUND_USABLE;
}

/* Does what is open have a header of this format, of whatever version? */
static bool is_layer(const uint8_t *buf, size_t n, VdiskRole *role)
{
    return vdisk_header_probe(buf, n, role) ||
           (n == HEADER_SIZE && vdisk_header_probe(buf + VDISK_HEADER_BYTES,
                                                   VDISK_HEADER_BYTES, role));
}

static Found judge_data(PvsCache *c, const char *name, const PvsCacheId *id,
                        Error **errp)
{
    g_autofree uint8_t *buf = g_malloc0(HEADER_SIZE);
    g_autofree char *why = NULL;
    VdiskRole role;
    ssize_t n = pread(c->fd, buf, HEADER_SIZE, 0);
    unsigned bad;
    Found found;

    if (n < 0) {
        error_setg_errno(errp, errno, "Could not read the host cache '%s'",
                         name);
        return FOUND_REFUSED;
    }
    if (n == 0) {
        error_setg(errp, "'%s' is empty", name);
        return FOUND_OLD;
    }
    if (!is_layer(buf, n, &role)) {
        not_a_cache(name, errp);
        return FOUND_REFUSED;
    }
    c->header_copy = vdisk_header_choose(&c->header, buf, &bad, &why);
    if (c->header_copy < 0) {
        error_setg(errp, "The host cache '%s' is damaged: %s", name, why);
        return role == VDISK_ROLE_HOST_CACHE ? FOUND_OLD : FOUND_REFUSED;
    }
    found = judge_header(c, name, id, errp);
    return found == FOUND_USABLE ? judge_length(c, name, errp) : found;
}

bool pvs_cache_open_data(PvsCache *c, const char *name, const PvsCacheId *id,
                         Error **errp)
{
    c->fd = qemu_open(name, O_RDONLY, errp);
    return c->fd >= 0 && judge_data(c, name, id, errp) == FOUND_USABLE;
}

/* Owning it */

typedef enum Lock {
    LOCK_OK,
    LOCK_FAILED,
    LOCK_MOVED,                 /* the name leads elsewhere by now */
} Lock;

/*
 * Open @name with @flags and lock it: who has the lock of the file that a name
 * leads to may replace it, so the name counts only with the lock held.
 */
static Lock open_locked(const char *name, int flags, int *fd, Error **errp)
{
    ERRP_GUARD();
    struct stat st, now;
    int ret;

    *fd = flags & O_CREAT ? qemu_create(name, flags & ~O_CREAT, 0644, errp)
                          : qemu_open(name, flags, errp);
    if (*fd < 0) {
        error_append_hint(errp, "A relay writes to its host cache. Choose "
                          "another place with host-cache, or leave it out.\n");
        return LOCK_FAILED;
    }
    ret = qemu_lock_fd(*fd, 0, 1, true);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "The host cache '%s' is in use by another "
                         "relay", name);
        qemu_close(*fd);
        return LOCK_FAILED;
    }
    if (fstat(*fd, &st) < 0 || stat(name, &now) < 0 ||
        st.st_dev != now.st_dev || st.st_ino != now.st_ino) {
        qemu_close(*fd);
        return LOCK_MOVED;
    }
    return LOCK_OK;
}

static bool is_ours(int fd, const char *name, Error **errp)
{
    uint8_t buf[VDISK_HEADER_BYTES];
    VdiskRole role;
    ssize_t n = pread(fd, buf, sizeof(buf), 0);
    static const uint8_t zero[VDISK_HEADER_BYTES];

    if (n < 0 || (memcmp(buf, zero, n) != 0 && !is_layer(buf, n, &role))) {
        error_setg(errp, "'%s' is in the way", name);
        return false;
    }
    return true;
}

/* All of the new file but its name; @fd is empty, or was left by a crash */
static bool fill_new(PvsCache *c, int fd, const PvsCacheId *id, Error **errp)
{
    int old = c->fd;
    bool ok;

    if (!new_header(&c->header, id, errp)) {
        return false;
    }
    c->length = c->header.file_size + TAIL_BYTES;
    /* Whatever the umask: desktops run as other users */
    if (fchmod(fd, 0644) < 0 || ftruncate(fd, 0) < 0 ||
        ftruncate(fd, c->length) < 0) {
        error_setg_errno(errp, errno, "Could not make the host cache %" PRId64
                         " bytes long", (int64_t)c->length);
        return false;
    }
    c->fd = fd;
    c->header_copy = 1;
    ok = pvs_cache_write_header(c, errp);
    c->fd = old;
    return ok;
}

/*
 * The new file takes the name. The old one's live map dies first: the inode
 * may be used again, and what reads it must not take one file for the other.
 */
static bool publish_data(PvsCache *c, const char *temp, Error **errp)
{
    if (!pvs_cache_kill_map(c->map_name, errp)) {
        return false;
    }
    if (rename(temp, c->data_name) < 0) {
        error_setg_errno(errp, errno, "Could not make the host cache '%s'",
                         c->data_name);
        return false;
    }
    return true;
}

/*
 * A new file in place of what is there, which others may have open still. The
 * lock of the old one, if any, is held until the new one has its name.
 */
static Lock make_data(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    g_autofree char *temp = g_strdup_printf("%s.new", c->data_name);
    int fd;
    Lock lock = open_locked(temp, O_RDWR | O_CREAT | O_NOFOLLOW, &fd, errp);

    if (lock != LOCK_OK) {
        return lock;
    }
    if (c->fd < 0 && access(c->data_name, F_OK) == 0) {
        /* Somebody else has made it; who that is has its lock */
        unlink(temp);
        qemu_close(fd);
        return LOCK_MOVED;
    }
    if (!is_ours(fd, temp, errp)) {
        qemu_close(fd);
        return LOCK_FAILED;
    }
    if (!fill_new(c, fd, id, errp) || !publish_data(c, temp, errp)) {
        unlink(temp);
        qemu_close(fd);
        return LOCK_FAILED;
    }
    if (c->fd >= 0) {
        qemu_close(c->fd);
    }
    c->fd = fd;
    c->made = true;
    return LOCK_OK;
}

/* With the lock of what is there: use it, replace it, or leave it alone */
static Lock take_data(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    Error *why = NULL;

    switch (judge_data(c, c->data_name, id, &why)) {
    case FOUND_USABLE:
        if (id->root) {
            return LOCK_OK;
        }
        break;
    case FOUND_OLD:
        warn_reportf_err(why, "It is made anew: ");
        break;
    default:
        error_propagate(errp, why);
        return LOCK_FAILED;
    }
    return make_data(c, id, errp);
}

static Lock try_data(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    struct stat st;
    Lock lock;

    if (stat(c->data_name, &st) < 0) {
        return make_data(c, id, errp);
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "'%s' is not a host cache: it is no regular file",
                   c->data_name);
        return LOCK_FAILED;
    }
    lock = open_locked(c->data_name, O_RDWR, &c->fd, errp);
    if (lock == LOCK_OK) {
        lock = take_data(c, id, errp);
    } else {
        c->fd = -1;
    }
    if (lock != LOCK_OK && c->fd >= 0) {
        qemu_close(c->fd);
        c->fd = -1;
    }
    return lock;
}

bool pvs_cache_own_data(PvsCache *c, const PvsCacheId *id, Error **errp)
{
    if (!new_header(&c->header, id, errp)) {
        return false;
    }
    for (int i = 0; i < TRIES; i++) {
        Lock lock = try_data(c, id, errp);

        if (lock != LOCK_MOVED) {
            return lock == LOCK_OK;
        }
    }
    error_setg(errp, "The host cache '%s' is made by others again and again",
               c->data_name);
    return false;
}

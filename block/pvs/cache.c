/*
 * Host cache: reading, and what both sides share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/uuid.h"
#include "block/pvs/cache-int.h"
#include "block/thread-pool.h"
#include <sys/mman.h>
#include <sys/uio.h>

#define BOOT_ID     "/proc/sys/kernel/random/boot_id"

/* Id of the host's boot; random if the host does not tell */
static void boot_id(uint8_t boot[LIVE_MAP_BOOT_BYTES])
{
    static uint8_t id[LIVE_MAP_BOOT_BYTES];
    static bool known;
    g_autofree char *text = NULL;
    QemuUUID uuid;

    if (!known) {
        /* Where /proc is not to be had, nobody else gets the same id */
        qemu_uuid_generate(&uuid);
        if (g_file_get_contents(BOOT_ID, &text, NULL, NULL)) {
            qemu_uuid_parse(g_strstrip(text), &uuid);
        }
        memcpy(id, uuid.data, sizeof(id));
        known = true;
    }
    memcpy(boot, id, sizeof(id));
}

LiveMap pvs_cache_live_id(const PvsCacheId *id, const struct stat *data,
                          const VdiskHeader *header)
{
    LiveMap m = {
        .dev = data->st_dev,
        .ino = data->st_ino,
        .image_bytes = id->image_bytes,
        .tree_bytes = id->tree_bytes,
        .data_offset = header->data_offset,
    };

    boot_id(m.boot);
    memcpy(m.file_id, header->desktop, sizeof(m.file_id));
    if (id->root) {
        memcpy(m.root, id->root, sizeof(m.root));
    }
    return m;
}

uint32_t *pvs_cache_flag(PvsCache *c, size_t offset)
{
    return (uint32_t *)(c->live + offset);
}

bool pvs_cache_is_dead(PvsCache *c)
{
    return qatomic_read(pvs_cache_flag(c, LIVE_MAP_DEAD));
}

static bool map_file(PvsCache *c, int fd, int prot, const LiveMap *wanted,
                     char **why)
{
    uint8_t *header = NULL;
    struct stat st;

    if (fstat(fd, &st) < 0) {
        *why = g_strdup(g_strerror(errno));
        return false;
    }
    if (st.st_size >= LIVE_MAP_HEADER_BYTES) {
        header = mmap(NULL, st.st_size, prot, MAP_SHARED, fd, 0);
    }
    if (!header || header == MAP_FAILED) {
        *why = g_strdup("it is too short, or cannot be mapped");
        return false;
    }
    c->live = header;
    c->live_bytes = st.st_size;
    if (!live_map_decode(&c->id, header, st.st_size, why) ||
        !live_map_matches(&c->id, wanted, why)) {
        return false;
    }
    if (pvs_cache_is_dead(c)) {
        *why = g_strdup("its relay has given it up");
        return false;
    }
    return true;
}

bool pvs_cache_map(PvsCache *c, int fd, int prot, const LiveMap *wanted,
                   Error **errp)
{
    g_autofree char *why = NULL;

    if (!map_file(c, fd, prot, wanted, &why)) {
        error_setg(errp, "The live map cannot be used: %s", why);
        pvs_cache_unmap(c);
        return false;
    }
    c->map = (VdiskMap) {
        .words = (uint64_t *)(c->live + LIVE_MAP_HEADER_BYTES),
        .words_bytes = VDISK_MAP_BYTES(live_map_granules(&c->id)),
        .granules = live_map_granules(&c->id),
    };
    return true;
}

void pvs_cache_unmap(PvsCache *c)
{
    if (c->live) {
        munmap(c->live, c->live_bytes);
        c->live = NULL;
    }
}

static bool attach_map(PvsCache *c, const char *map, const PvsCacheId *id,
                       Error **errp)
{
    struct stat st;
    LiveMap wanted;
    bool ok;
    int fd;

    if (fstat(c->fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not look at the host cache");
        return false;
    }
    fd = qemu_open(map, O_RDONLY, errp);
    if (fd < 0) {
        return false;
    }
    wanted = pvs_cache_live_id(id, &st, &c->header);
    ok = pvs_cache_map(c, fd, PROT_READ, &wanted, errp);
    qemu_close(fd);
    return ok;
}

PvsCache *pvs_cache_attach(const char *data, const char *map,
                           const PvsCacheId *id, Error **errp)
{
    PvsCache *c = g_new0(PvsCache, 1);

    if (pvs_cache_open_data(c, data, id, errp) &&
        attach_map(c, map, id, errp)) {
        return c;
    }
    if (c->fd >= 0) {
        qemu_close(c->fd);
    }
    g_free(c);
    return NULL;
}

bool pvs_cache_is_full(PvsCache *c)
{
    return qatomic_read(&c->full);
}

PvsCacheUse pvs_cache_use(PvsCache *c)
{
    return (PvsCacheUse) {
        .full = qatomic_read(&c->full) || qatomic_read(&c->full_reported),
        .hit_bytes = qatomic_read(&c->hit_bytes),
        .miss_bytes = qatomic_read(&c->miss_bytes),
        .filled_bytes = qatomic_read(&c->filled_bytes),
    };
}

/* Counts are of interest, not of importance: two threads may lose one */
static void count(uint64_t *counter, uint64_t bytes)
{
    qatomic_set(counter, qatomic_read(counter) + bytes);
}

void pvs_cache_count(PvsCache *c, uint64_t hit_bytes, uint64_t miss_bytes)
{
    if (hit_bytes) {
        count(&c->hit_bytes, hit_bytes);
    }
    if (miss_bytes) {
        count(&c->miss_bytes, miss_bytes);
    }
}

uint64_t pvs_cache_run(PvsCache *c, uint64_t first, uint64_t max,
                       VdiskState *state)
{
    uint64_t n;

    /* A page fault of a map that was cut off cannot be told from others */
    if (pvs_cache_is_dead(c)) {
        *state = VDISK_STATE_BASE;
        return max;
    }
    n = vdisk_map_run(&c->map, first, max, state);
    if (*state == VDISK_STATE_BAD) {
        *state = VDISK_STATE_BASE;
    }
    /* The bit was set after its data was written: read them in that order */
    smp_rmb();
    return n;
}

/* Reading */

typedef struct CacheRead {
    int fd;
    const struct iovec *iov;
    int niov;
    size_t skip;                /* bytes that were read already */
    size_t bytes;
    off_t offset;
} CacheRead;

/* In a thread: the rest of a read, whatever it has to wait for */
static int read_rest(void *opaque)
{
    CacheRead *r = opaque;
    g_autofree struct iovec *iov = g_new(struct iovec, r->niov);

    while (r->skip < r->bytes) {
        unsigned n = iov_copy(iov, r->niov, r->iov, r->niov, r->skip,
                              r->bytes - r->skip);
        ssize_t ret = preadv(r->fd, iov, MIN(n, IOV_MAX), r->offset + r->skip);

        if (ret == 0) {
            return -ENODATA;
        }
        if (ret < 0 && errno != EINTR) {
            return -errno;
        }
        r->skip += MAX(ret, 0);
    }
    return 0;
}

/*
 * What is in the page cache is copied right here, which takes less time than
 * to ask somebody else; the rest in a thread.
 */
static int coroutine_fn cache_co_read_iov(CacheRead *r)
{
    ssize_t ret = -1;

    if (r->niov <= IOV_MAX) {
        ret = preadv2(r->fd, r->iov, r->niov, r->offset, RWF_NOWAIT);
    }
    if (ret == r->bytes) {
        return 0;
    }
    r->skip = MAX(ret, 0);
    return thread_pool_submit_co(read_rest, r);
}

int coroutine_fn pvs_cache_co_read(PvsCache *c, int64_t offset, int64_t bytes,
                                   QEMUIOVector *qiov, size_t qiov_offset)
{
    CacheRead r = {
        .fd = c->fd,
        .iov = qiov->iov,
        .niov = qiov->niov,
        .bytes = bytes,
        .offset = c->id.data_offset + offset,
    };
    QEMUIOVector slice;
    int ret;

    if (qiov_offset == 0 && bytes == qiov->size) {
        return cache_co_read_iov(&r);
    }
    qemu_iovec_init_slice(&slice, qiov, qiov_offset, bytes);
    r.iov = slice.iov;
    r.niov = slice.niov;
    ret = cache_co_read_iov(&r);
    qemu_iovec_destroy(&slice);
    return ret;
}

int coroutine_fn pvs_cache_co_pread(PvsCache *c, uint8_t *buf, size_t bytes,
                                    off_t offset)
{
    struct iovec iov = { .iov_base = buf, .iov_len = bytes };
    CacheRead r = {
        .fd = c->fd, .iov = &iov, .niov = 1, .bytes = bytes, .offset = offset,
    };

    return thread_pool_submit_co(read_rest, &r);
}

/*
 * The verity tree of a version, as it is used
 *
 *   block  0      1      level_first[k] ...
 *          +------+------+--------------------+--------------------+ ...
 *          | super| top  | chunk of 16 blocks | chunk of 16 blocks |
 *          +------+------+--------------------+--------------------+ ...
 *             the head     of level k; all have one parent
 *
 * Superblock and top block are read and believed together: the superblock has
 * the salt, and only the top block tells whether that is the right one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/memalign.h"
#include "block/block-io.h"
#include "block/pvs/cache.h"
#include "block/pvs/tree.h"

QEMU_BUILD_BUG_ON(VERITY_FANOUT % PVS_TREE_CHUNK);

struct PvsTreeChunk {
    uint64_t first;             /* block of the file */
    unsigned n;
    bool leaf;
    unsigned refs;              /* under the lock */
    uint8_t *buf;
    QTAILQ_ENTRY(PvsTreeChunk) lru;     /* leaves */
};

struct PvsTree {
    /* Never changed after it was made */
    PvsImage *img;
    PvsPool *pool;
    VerityGeometry g;

    /* Under the lock of the image; v does not change once it is set */
    Verity *v;                  /* valid once ready is set */
    bool ready;                 /* atomic */
    uint8_t *head;              /* superblock and top block */
    GHashTable *chunks;         /* by their first block */
    QTAILQ_HEAD(, PvsTreeChunk) lru;    /* leaves, least recently used first */
    unsigned leaves;
};

int64_t pvs_tree_bytes(int64_t size)
{
    g_autofree char *why = NULL;
    VerityGeometry g;

    if (!verity_geometry_init(&g, size, &why)) {
        return -1;
    }
    return g.file_blocks * VERITY_BLOCK;
}

static void chunk_free(gpointer opaque)
{
    PvsTreeChunk *c = opaque;

    assert(c->refs == 0);
    qemu_vfree(c->buf);
    g_free(c);
}

PvsTree *pvs_tree_new(PvsImage *img, PvsPool *pool, Error **errp)
{
    g_autofree char *why = NULL;
    VerityGeometry g;
    PvsTree *t;

    if (!verity_geometry_init(&g, img->size, &why)) {
        error_setg(errp, "The version cannot have a verity tree: %s", why);
        return NULL;
    }
    t = g_new0(PvsTree, 1);
    t->img = img;
    t->pool = pool;
    t->g = g;
    t->chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL,
                                      chunk_free);
    QTAILQ_INIT(&t->lru);
    return t;
}

void pvs_tree_free(PvsTree *t)
{
    if (!t) {
        return;
    }
    pvs_pool_close(t->pool);
    g_hash_table_unref(t->chunks);
    verity_free(t->v);
    qemu_vfree(t->head);
    g_free(t);
}

PvsPool *pvs_tree_pool(const PvsTree *t)
{
    return t->pool;
}

const VerityGeometry *pvs_tree_geometry(const PvsTree *t)
{
    return &t->g;
}

/* Where things are */

/* Blocks that are read together as the head */
static unsigned head_blocks(const PvsTree *t)
{
    return t->g.levels ? 2 : 1;
}

bool pvs_tree_is_head(const PvsTree *t, int64_t offset)
{
    return offset >= t->img->tree_base &&
           offset < t->img->tree_base + head_blocks(t) * VERITY_BLOCK;
}

/* Level of a block behind the head */
static unsigned level_of(const PvsTree *t, uint64_t block)
{
    for (unsigned k = 0; k < t->g.levels; k++) {
        if (block >= t->g.level_first[k] &&
            block < t->g.level_first[k] + t->g.level_blocks[k]) {
            return k;
        }
    }
    g_assert_not_reached();
}

static uint64_t parent_of(const PvsTree *t, uint64_t block)
{
    unsigned k = level_of(t, block);

    assert(k + 1 < t->g.levels);
    return t->g.level_first[k + 1] +
           (block - t->g.level_first[k]) / VERITY_FANOUT;
}

static uint64_t chunk_first(const PvsTree *t, uint64_t block)
{
    uint64_t first = t->g.level_first[level_of(t, block)];

    return first + QEMU_ALIGN_DOWN(block - first, PVS_TREE_CHUNK);
}

static unsigned chunk_blocks(const PvsTree *t, uint64_t first)
{
    unsigned k = level_of(t, first);

    return MIN(PVS_TREE_CHUNK,
               t->g.level_first[k] + t->g.level_blocks[k] - first);
}

int64_t pvs_tree_unit(PvsTree *t, int64_t offset, int64_t end)
{
    uint64_t block = (offset - t->img->tree_base) / VERITY_BLOCK;
    uint64_t last = head_blocks(t);

    if (block >= last) {
        last = chunk_first(t, block);
        last += chunk_blocks(t, last);
    }
    return MIN(end - offset, (int64_t)(last - block) * VERITY_BLOCK);
}

/* Chunks in memory */

/* Caller holds the lock */
static PvsTreeChunk *chunk_find(PvsTree *t, uint64_t first)
{
    PvsTreeChunk *c = g_hash_table_lookup(t->chunks, &first);

    if (c) {
        c->refs++;
        if (c->leaf) {
            QTAILQ_REMOVE(&t->lru, c, lru);
            QTAILQ_INSERT_TAIL(&t->lru, c, lru);
        }
    }
    return c;
}

/* Caller holds the lock */
static void trim(PvsTree *t)
{
    PvsTreeChunk *c, *next;

    QTAILQ_FOREACH_SAFE(c, &t->lru, lru, next) {
        if (t->leaves <= PVS_TREE_CHUNKS_MAX) {
            return;
        }
        if (c->refs == 0) {
            QTAILQ_REMOVE(&t->lru, c, lru);
            t->leaves--;
            g_hash_table_remove(t->chunks, &c->first);
        }
    }
}

/* Takes @buf. Somebody else may have been faster. */
static PvsTreeChunk *chunk_add(PvsTree *t, uint64_t first, uint8_t *buf)
{
    PvsTreeChunk *c;

    QEMU_LOCK_GUARD(&t->img->waits.lock);
    c = chunk_find(t, first);
    if (c) {
        qemu_vfree(buf);
        return c;
    }
    c = g_new(PvsTreeChunk, 1);
    *c = (PvsTreeChunk) {
        .first = first,
        .n = chunk_blocks(t, first),
        .leaf = level_of(t, first) == 0,
        .refs = 1,
        .buf = buf,
    };
    g_hash_table_insert(t->chunks, &c->first, c);
    if (c->leaf) {
        QTAILQ_INSERT_TAIL(&t->lru, c, lru);
        t->leaves++;
        trim(t);
    }
    return c;
}

/* Verifying */

static const uint8_t *block_data(const PvsTreeHold *h, uint64_t block)
{
    const PvsTree *t = h->tree;

    if (block < head_blocks(t)) {
        return t->head + block * VERITY_BLOCK;
    }
    for (int i = 0; i < ARRAY_SIZE(h->chunks); i++) {
        const PvsTreeChunk *c = h->chunks[i];

        if (c && block >= c->first && block < c->first + c->n) {
            return c->buf + (block - c->first) * VERITY_BLOCK;
        }
    }
    g_assert_not_reached();
}

/* Superblock and top block of this version? */
static Verity *head_check(const PvsTree *t, const uint8_t *buf, char **why)
{
    Verity *v = verity_new(buf, t->img->root, t->img->size,
                           t->g.file_blocks * VERITY_BLOCK, why);

    if (v && t->g.levels &&
        !verity_check_tree(v, 1, buf + VERITY_BLOCK, NULL, why)) {
        verity_free(v);
        return NULL;
    }
    return v;
}

static bool check_block(const PvsTreeHold *h, int64_t offset,
                        const uint8_t *buf)
{
    const PvsTree *t = h->tree;
    g_autofree char *why = NULL;

    if (offset >= t->img->tree_base) {
        uint64_t block = (offset - t->img->tree_base) / VERITY_BLOCK;

        return verity_check_tree(t->v, block, buf,
                                 block_data(h, parent_of(t, block)), &why);
    } else {
        uint64_t n = offset / VERITY_BLOCK;
        VerityEntry path[VERITY_MAX_LEVELS];
        unsigned levels = verity_path(&t->g, n, path);

        return verity_check_data(t->v, n, buf,
                                 levels ? block_data(h, path[0].block) : NULL,
                                 &why);
    }
}

/* A part of the head is neither right nor wrong */
static int check_head(const PvsTreeHold *h, int64_t bytes, const uint8_t *buf)
{
    const PvsTree *t = h->tree;
    g_autofree char *why = NULL;
    Verity *v;

    if (h->offset != t->img->tree_base ||
        bytes < head_blocks(t) * VERITY_BLOCK) {
        return -EINVAL;
    }
    v = head_check(t, buf, &why);
    verity_free(v);
    return v ? 0 : -EBADMSG;
}

int coroutine_fn pvs_tree_check(void *opaque, int64_t offset, int64_t bytes,
                                const uint8_t *buf, int64_t *bad)
{
    PvsTreeHold *h = opaque;

    *bad = offset;
    if (pvs_tree_is_head(h->tree, h->offset)) {
        return check_head(h, bytes, buf);
    }
    for (int64_t n = 0; n < bytes; n += VERITY_BLOCK) {
        if (!check_block(h, h->offset + n, buf + n)) {
            *bad = offset + n;
            return -EBADMSG;
        }
    }
    return 0;
}

/* Reading what is missing */

/* From the host cache, if it has all of it; verified by the caller */
static uint8_t *coroutine_fn
cached_blocks(PvsTree *t, int64_t offset, int64_t bytes)
{
    uint64_t want = bytes / VDISK_GRANULE;
    PvsCache *cache = pvs_image_cache(t->img);
    VdiskState state;
    QEMUIOVector qiov;
    uint8_t *buf;

    if (!cache || pvs_cache_run(cache, offset / VDISK_GRANULE, want,
                                &state) < want || state != VDISK_STATE_DATA) {
        return NULL;
    }
    buf = qemu_memalign(VDISK_GRANULE, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    if (pvs_cache_co_read(cache, offset, bytes, &qiov, 0) < 0) {
        qemu_vfree(buf);
        return NULL;
    }
    return buf;
}

/*
 * The range of the tree, verified: from the host cache, by a fetch that others
 * share and that fills the cache, or by a read past both, where what the cache
 * has is damaged or part of it only.
 */
static int coroutine_fn GRAPH_UNLOCKED
read_blocks(PvsTree *t, uint64_t first, unsigned blocks, bool patient,
            uint8_t **buf)
{
    PvsImage *img = t->img;
    int64_t bytes = (int64_t)blocks * VERITY_BLOCK;
    int64_t offset = img->tree_base + first * VERITY_BLOCK;
    int64_t until = patient ? INT64_MAX : pvs_now() + PVS_PATIENCE;
    PvsTreeHold hold = {};
    int64_t n, bad;
    PvsFetch *f;
    int ret = pvs_tree_co_hold(t, offset, bytes, patient, &hold);

    *buf = ret < 0 ? NULL : cached_blocks(t, offset, bytes);
    if (*buf && pvs_tree_check(&hold, offset, bytes, *buf, &bad) < 0) {
        pvs_image_report_corrupt(img, true, "host cache", bad, VERITY_BLOCK);
        qemu_vfree(*buf);
        *buf = NULL;
    }
    f = ret < 0 || *buf ? NULL
                        : pvs_fetch_begin(img, offset, bytes, patient
                                          ? PVS_DEMAND : PVS_BACKGROUND, &n);
    if (f) {
        ret = n == bytes ? pvs_fetch_co_wait_until(img, f, until) : -EAGAIN;
        if (ret >= 0) {
            *buf = qemu_memalign(VDISK_GRANULE, bytes);
            memcpy(*buf, pvs_fetch_data(f, offset), bytes);
        }
        pvs_fetch_unref(img, f);
    }
    if (!*buf && (ret >= 0 || ret == -EAGAIN || ret == -ECANCELED ||
                  (patient && ret == -ENODATA))) {
        ret = pvs_pool_co_read(t->pool, offset - img->tree_base, bytes,
                               patient, pvs_tree_check, &hold, buf);
    }
    pvs_tree_release(t, &hold);
    return ret;
}

static int coroutine_fn GRAPH_UNLOCKED
co_load_head(PvsTree *t, bool patient)
{
    g_autofree char *why = NULL;
    uint8_t *buf = NULL;
    Verity *v;
    int ret = read_blocks(t, 0, head_blocks(t), patient, &buf);

    if (ret < 0) {
        return ret;
    }
    v = head_check(t, buf, &why);
    WITH_QEMU_LOCK_GUARD(&t->img->waits.lock) {
        if (!t->v) {
            t->head = g_steal_pointer(&buf);
            t->v = g_steal_pointer(&v);
            qatomic_store_release(&t->ready, true);
        }
    }
    verity_free(v);
    qemu_vfree(buf);
    return 0;
}

static int coroutine_fn GRAPH_UNLOCKED
co_get_chunk(PvsTree *t, uint64_t block, bool patient, PvsTreeChunk **c)
{
    uint64_t first = chunk_first(t, block);
    uint8_t *buf = NULL;
    int ret;

    WITH_QEMU_LOCK_GUARD(&t->img->waits.lock) {
        *c = chunk_find(t, first);
    }
    if (*c) {
        return 0;
    }
    ret = read_blocks(t, first, chunk_blocks(t, first), patient, &buf);
    if (ret >= 0) {
        *c = chunk_add(t, first, buf);
    }
    return MIN(ret, 0);
}

/* The block that vouches for what is at @offset; 0: no block of the tree */
static uint64_t voucher(PvsTree *t, int64_t offset)
{
    VerityEntry path[VERITY_MAX_LEVELS];

    if (offset >= t->img->tree_base) {
        return parent_of(t, (offset - t->img->tree_base) / VERITY_BLOCK);
    }
    return verity_path(&t->g, offset / VERITY_BLOCK, path) ? path[0].block : 0;
}

int coroutine_fn pvs_tree_co_hold(PvsTree *t, int64_t offset, int64_t bytes,
                                  bool patient, PvsTreeHold *hold)
{
    uint64_t first, last;
    int ret = 0;

    *hold = (PvsTreeHold) { .tree = t, .offset = offset };
    if (pvs_tree_is_head(t, offset)) {
        return 0;       /* the head vouches for itself, by the root hash */
    }
    if (!qatomic_load_acquire(&t->ready)) {
        ret = co_load_head(t, patient);
    }
    if (ret < 0) {
        return ret;
    }
    first = voucher(t, offset);
    last = voucher(t, offset + bytes - VERITY_BLOCK);
    if (first >= head_blocks(t)) {
        ret = co_get_chunk(t, first, patient, &hold->chunks[0]);
    }
    if (ret >= 0 && last >= head_blocks(t) &&
        chunk_first(t, last) != chunk_first(t, first)) {
        ret = co_get_chunk(t, last, patient, &hold->chunks[1]);
    }
    return ret;
}

bool pvs_tree_try_hold(PvsTree *t, int64_t offset, int64_t bytes,
                       PvsTreeHold *hold)
{
    uint64_t vouch[2];

    *hold = (PvsTreeHold) { .tree = t, .offset = offset };
    if (pvs_tree_is_head(t, offset)) {
        return true;
    }
    if (!qatomic_load_acquire(&t->ready)) {
        return false;
    }
    vouch[0] = voucher(t, offset);
    vouch[1] = voucher(t, offset + bytes - VERITY_BLOCK);
    QEMU_LOCK_GUARD(&t->img->waits.lock);
    for (int i = 0; i < 2; i++) {
        if (vouch[i] < head_blocks(t) ||
            (i && chunk_first(t, vouch[1]) == chunk_first(t, vouch[0]))) {
            continue;
        }
        hold->chunks[i] = chunk_find(t, chunk_first(t, vouch[i]));
        if (!hold->chunks[i]) {
            if (hold->chunks[0]) {
                hold->chunks[0]->refs--;
            }
            return false;
        }
    }
    return true;
}

void pvs_tree_release(PvsTree *t, PvsTreeHold *hold)
{
    QEMU_LOCK_GUARD(&t->img->waits.lock);
    for (int i = 0; i < ARRAY_SIZE(hold->chunks); i++) {
        if (hold->chunks[i]) {
            hold->chunks[i]->refs--;
            hold->chunks[i] = NULL;
        }
    }
}

bool pvs_tree_check_local(PvsTree *t, Error **errp)
{
    ERRP_GUARD();
    BdrvChild *child = pvs_pool_local_child(t->pool);
    int64_t bytes = head_blocks(t) * VERITY_BLOCK;
    g_autofree char *why = NULL;
    uint8_t *buf;
    Verity *v = NULL;
    int ret;

    if (!child) {
        return true;
    }
    buf = qemu_memalign(VERITY_BLOCK, bytes);
    ret = bdrv_pread(child, 0, bytes, buf, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the verity tree");
    } else {
        v = head_check(t, buf, &why);
        if (!v) {
            error_setg(errp, "The verity tree does not fit: %s", why);
            error_append_hint(errp, "Tree, root hash and size must all be of "
                              "the same version.\n");
        }
    }
    verity_free(v);
    qemu_vfree(buf);
    return v;
}

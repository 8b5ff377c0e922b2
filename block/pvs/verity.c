/*
 * dm-verity trees: is a block of a version what was sealed?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/pvs/verity.h"
#include <nettle/sha2.h>
#include <sys/mman.h>

#define FANOUT_BITS         7
#define SUPER_SIGNATURE     "verity\0"
#define SUPER_VERSION       1
#define HASH_TYPE           1           /* the salt comes before the block */
#define HASH_NAME           "sha256"
#define MAX_DATA_BLOCKS     (VERITY_MAX_SIZE / VERITY_BLOCK)

QEMU_BUILD_BUG_ON(VERITY_FANOUT != 1 << FANOUT_BITS);
QEMU_BUILD_BUG_ON(VERITY_HASH_BYTES != SHA256_DIGEST_SIZE);
QEMU_BUILD_BUG_ON(MAX_DATA_BLOCKS >
                  UINT64_C(1) << (FANOUT_BITS * VERITY_MAX_LEVELS));

/* As in the file, little-endian */
typedef struct QEMU_PACKED DiskSuper {
    char signature[8];
    uint32_t version;
    uint32_t hash_type;
    uint8_t uuid[16];
    char hash_name[32];
    uint32_t data_block_size;
    uint32_t hash_block_size;
    uint64_t data_blocks;
    uint16_t salt_size;
    uint8_t reserved[6];
    uint8_t salt[VERITY_MAX_SALT];
    uint8_t reserved2[168];
} DiskSuper;

QEMU_BUILD_BUG_ON(sizeof(DiskSuper) != VERITY_SUPER_BYTES);

struct Verity {
    /* Never changed after it was made */
    VerityGeometry geometry;
    VeritySuper super;
    uint8_t root[VERITY_HASH_BYTES];
    struct sha256_ctx salted;   /* copied for each block */
    size_t checked_bytes;

    uint64_t *checked;          /* a bit for each block of the file */
};

static const uint8_t zeros[VERITY_BLOCK];

/* Are all of the @n bytes at @p zero? */
static bool is_zero(const void *p, size_t n)
{
    assert(n <= sizeof(zeros));
    return memcmp(p, zeros, n) == 0;
}

static char *bad_super(const DiskSuper *d)
{
    uint32_t data_block = GUINT32_FROM_LE(d->data_block_size);
    uint32_t hash_block = GUINT32_FROM_LE(d->hash_block_size);
    char name[sizeof(d->hash_name)] = HASH_NAME;

    if (memcmp(d->signature, SUPER_SIGNATURE, sizeof(d->signature)) != 0) {
        return g_strdup("it does not begin like a dm-verity tree");
    }
    if (GUINT32_FROM_LE(d->version) != SUPER_VERSION) {
        return g_strdup_printf("version %" PRIu32 " of dm-verity's superblock "
                               "is not known", GUINT32_FROM_LE(d->version));
    }
    if (GUINT32_FROM_LE(d->hash_type) != HASH_TYPE) {
        return g_strdup_printf("the tree is of hash type %" PRIu32 ", not %d",
                               GUINT32_FROM_LE(d->hash_type), HASH_TYPE);
    }
    if (memcmp(d->hash_name, name, sizeof(name)) != 0) {
        return g_strdup("the tree's hash is not " HASH_NAME);
    }
    if (data_block != VERITY_BLOCK || hash_block != VERITY_BLOCK) {
        return g_strdup_printf("the tree has data blocks of %" PRIu32
                               " bytes and hash blocks of %" PRIu32
                               ", not %d", data_block, hash_block,
                               VERITY_BLOCK);
    }
    return NULL;
}

/* Fields that are not the same in all superblocks */
static const char *bad_fields(const DiskSuper *d, const VeritySuper *s)
{
    if (s->data_blocks == 0 || s->data_blocks > MAX_DATA_BLOCKS) {
        return "the tree's number of data blocks is not possible";
    }
    if (s->salt_bytes > VERITY_MAX_SALT) {
        return "the tree's salt is longer than its field";
    }
    if (!is_zero(d->salt + s->salt_bytes, VERITY_MAX_SALT - s->salt_bytes) ||
        !is_zero(d->reserved, sizeof(d->reserved)) ||
        !is_zero(d->reserved2, sizeof(d->reserved2))) {
        return "unused bytes of the tree's superblock are not zero";
    }
    return NULL;
}

bool verity_super_decode(VeritySuper *s, const uint8_t buf[VERITY_SUPER_BYTES],
                         char **why)
{
    const char *bad;
    DiskSuper d;

    memcpy(&d, buf, sizeof(d));
    *why = bad_super(&d);
    if (*why) {
        return false;
    }
    *s = (VeritySuper) {
        .data_blocks = GUINT64_FROM_LE(d.data_blocks),
        .salt_bytes = GUINT16_FROM_LE(d.salt_size),
    };
    memcpy(s->salt, d.salt, sizeof(s->salt));
    bad = bad_fields(&d, s);
    *why = g_strdup(bad);
    return !bad;
}

bool verity_root_decode(uint8_t root[VERITY_HASH_BYTES], const char *hex,
                        char **why)
{
    size_t len = strlen(hex);
    int high, low;

    if (len != 2 * VERITY_HASH_BYTES) {
        *why = g_strdup_printf("a root hash has %d hexadecimal digits, this "
                               "one has %zu characters",
                               2 * VERITY_HASH_BYTES, len);
        return false;
    }
    for (unsigned i = 0; i < VERITY_HASH_BYTES; i++) {
        high = g_ascii_xdigit_value(hex[2 * i]);
        low = g_ascii_xdigit_value(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            *why = g_strdup_printf("character %u of the root hash is no "
                                   "hexadecimal digit",
                                   2 * i + (high < 0 ? 1 : 2));
            return false;
        }
        root[i] = high << 4 | low;
    }
    /* Headers have no other way to say that there is none */
    if (is_zero(root, VERITY_HASH_BYTES)) {
        *why = g_strdup("a root hash of zeros stands for none");
        return false;
    }
    return true;
}

bool verity_geometry_init(VerityGeometry *g, uint64_t data_bytes, char **why)
{
    uint64_t blocks;

    if (data_bytes == 0 || data_bytes > VERITY_MAX_SIZE) {
        *why = g_strdup(data_bytes ? "the image is too large for a tree"
                                   : "an empty image has no tree");
        return false;
    }
    blocks = DIV_ROUND_UP(data_bytes, VERITY_BLOCK);
    *g = (VerityGeometry) {
        .data_bytes = data_bytes,
        .data_blocks = blocks,
        .file_blocks = 1,
    };
    while (blocks > 1) {
        blocks = DIV_ROUND_UP(blocks, VERITY_FANOUT);
        g->level_blocks[g->levels++] = blocks;
    }
    for (unsigned k = g->levels; k-- > 0; ) {
        g->level_first[k] = g->file_blocks;
        g->file_blocks += g->level_blocks[k];
    }
    return true;
}

/* Entry @n of @level */
static VerityEntry entry_at(const VerityGeometry *g, unsigned level, uint64_t n)
{
    return (VerityEntry) {
        .block = g->level_first[level] + n / VERITY_FANOUT,
        .offset = n % VERITY_FANOUT * VERITY_HASH_BYTES,
    };
}

unsigned verity_path(const VerityGeometry *g, uint64_t n,
                     VerityEntry path[VERITY_MAX_LEVELS])
{
    assert(n < g->data_blocks);
    for (unsigned k = 0; k < g->levels; k++) {
        path[k] = entry_at(g, k, n);
        n /= VERITY_FANOUT;
    }
    return g->levels;
}

/* Do superblock, image and file fit together? */
static char *bad_sizes(const VeritySuper *s, const VerityGeometry *g,
                       uint64_t file_bytes)
{
    uint64_t part = g->data_bytes % VERITY_BLOCK;

    if (s->data_blocks != g->data_blocks) {
        return g_strdup_printf("the tree is of an image of %" PRIu64
                               " blocks of %d bytes, this one has %" PRIu64
                               "%s", s->data_blocks, VERITY_BLOCK,
                               g->data_blocks,
                               part && s->data_blocks + 1 == g->data_blocks ?
                               ": its last part of a block was not filled up "
                               "with zeros before veritysetup" : "");
    }
    if (file_bytes / VERITY_BLOCK < g->file_blocks) {
        return g_strdup_printf("the tree is cut off: it has %" PRIu64
                               " bytes, but needs %" PRIu64, file_bytes,
                               g->file_blocks * VERITY_BLOCK);
    }
    return NULL;
}

/* Memory comes with use, so a tree that is hardly read costs little */
static bool reserve_checked(Verity *v, char **why)
{
    uint64_t words = DIV_ROUND_UP(v->geometry.file_blocks, 64);
    void *p = MAP_FAILED;

    if (words <= SIZE_MAX / sizeof(*v->checked)) {
        p = mmap(NULL, words * sizeof(*v->checked), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (p == MAP_FAILED) {
        *why = g_strdup("no address space for the state of the tree");
        return false;
    }
    v->checked = p;
    v->checked_bytes = words * sizeof(*v->checked);
    madvise(p, v->checked_bytes, MADV_NOHUGEPAGE);
    return true;
}

Verity *verity_new(const uint8_t super[VERITY_SUPER_BYTES], const char *root,
                   uint64_t data_bytes, uint64_t file_bytes, char **why)
{
    Verity *v = g_new0(Verity, 1);
    bool ok;

    ok = verity_root_decode(v->root, root, why) &&
         verity_super_decode(&v->super, super, why) &&
         verity_geometry_init(&v->geometry, data_bytes, why);
    if (ok) {
        *why = bad_sizes(&v->super, &v->geometry, file_bytes);
        ok = !*why && reserve_checked(v, why);
    }
    if (!ok) {
        verity_free(v);
        return NULL;
    }
    sha256_init(&v->salted);
    sha256_update(&v->salted, v->super.salt_bytes, v->super.salt);
    return v;
}

void verity_free(Verity *v)
{
    if (v && v->checked) {
        munmap(v->checked, v->checked_bytes);
    }
    g_free(v);
}

const VerityGeometry *verity_geometry(const Verity *v)
{
    return &v->geometry;
}

/* The hash of a block that begins with @bytes at @buf and goes on with zeros */
static void hash_part(const Verity *v, const uint8_t *buf, size_t bytes,
                      uint8_t hash[VERITY_HASH_BYTES])
{
    struct sha256_ctx ctx = v->salted;

    sha256_update(&ctx, bytes, buf);
    if (bytes < VERITY_BLOCK) {
        sha256_update(&ctx, VERITY_BLOCK - bytes, zeros);
    }
    sha256_digest(&ctx, VERITY_HASH_BYTES, hash);
}

void verity_hash(const Verity *v, const uint8_t *block,
                 uint8_t hash[VERITY_HASH_BYTES])
{
    hash_part(v, block, VERITY_BLOCK, hash);
}

static bool has_hash(const Verity *v, const uint8_t *buf, size_t bytes,
                     const uint8_t *expected)
{
    uint8_t hash[VERITY_HASH_BYTES];

    hash_part(v, buf, bytes, hash);
    return memcmp(hash, expected, sizeof(hash)) == 0;
}

bool verity_check_tree(const Verity *v, uint64_t block, const uint8_t *buf,
                       const uint8_t *parent, char **why)
{
    const VerityGeometry *g = &v->geometry;
    unsigned level = 0;
    VerityEntry e;

    assert(block > 0 && block < g->file_blocks);
    while (block < g->level_first[level]) {
        level++;
    }
    if (level + 1 == g->levels) {
        if (has_hash(v, buf, VERITY_BLOCK, v->root)) {
            return true;
        }
        *why = g_strdup("the tree does not have this root hash: it is "
                        "damaged, or another image's");
        return false;
    }
    e = entry_at(g, level + 1, block - g->level_first[level]);
    if (has_hash(v, buf, VERITY_BLOCK, parent + e.offset)) {
        return true;
    }
    *why = g_strdup_printf("block %" PRIu64 " of the tree does not have the "
                           "hash that block %" PRIu64 " has for it", block,
                           e.block);
    return false;
}

bool verity_check_data(const Verity *v, uint64_t n, const uint8_t *buf,
                       const uint8_t *leaf, char **why)
{
    const VerityGeometry *g = &v->geometry;
    const uint8_t *expected = v->root;
    size_t bytes;

    assert(n < g->data_blocks);
    bytes = MIN(VERITY_BLOCK, g->data_bytes - n * VERITY_BLOCK);
    if (g->levels > 0) {
        expected = leaf + entry_at(g, 0, n).offset;
    }
    if (has_hash(v, buf, bytes, expected)) {
        return true;
    }
    *why = g_strdup_printf("data block %" PRIu64 " does not have the hash that "
                           "the %s has for it", n,
                           g->levels ? "tree" : "root hash");
    return false;
}

static uint64_t bit_of(const Verity *v, uint64_t block)
{
    assert(block < v->geometry.file_blocks);
    return UINT64_C(1) << (block % 64);
}

bool verity_is_checked(const Verity *v, uint64_t block)
{
    uint64_t bit = bit_of(v, block);

    return qatomic_load_acquire(&v->checked[block / 64]) & bit;
}

void verity_mark_checked(Verity *v, uint64_t block)
{
    uint64_t bit = bit_of(v, block);

    qatomic_fetch_or(&v->checked[block / 64], bit);
}

void verity_forget(Verity *v, uint64_t block)
{
    uint64_t bit = bit_of(v, block);

    qatomic_fetch_and(&v->checked[block / 64], ~bit);
}

/*
 * Differences of two trees
 *
 * A node of height 0 is a data block, one of height h a block of level h - 1.
 * Node n of one height stands for the same data in both trees, whatever their
 * heights are.
 */
typedef struct Diff {
    const Verity *older, *newer;
    const VerityDiffOps *ops;
    void *opaque;
    char **why;
    uint64_t first, n;          /* different, not told yet */
    uint8_t old_block[VERITY_MAX_LEVELS][VERITY_BLOCK];     /* by level */
    uint8_t new_block[VERITY_MAX_LEVELS][VERITY_BLOCK];
} Diff;

/* First data block below node @n of @height */
static uint64_t first_below(unsigned height, uint64_t n)
{
    return n << (FANOUT_BITS * height);
}

static bool diff_tell(Diff *d)
{
    if (d->n > 0 && !d->ops->differ(d->opaque, d->first, d->n)) {
        *d->why = g_strdup("comparing the trees was stopped");
        return false;
    }
    d->n = 0;
    return true;
}

/* All data below node @n of @height differs */
static bool diff_add(Diff *d, unsigned height, uint64_t n)
{
    uint64_t first = first_below(height, n);
    uint64_t end = MIN(first_below(height, n + 1),
                       d->newer->geometry.data_blocks);

    if (d->first + d->n != first) {
        if (!diff_tell(d)) {
            return false;
        }
        d->first = first;
    }
    d->n = end - d->first;
    return true;
}

/* Read node @n of @height of the newer tree; it has @hash */
static bool read_new(Diff *d, unsigned height, uint64_t n, const uint8_t *hash)
{
    uint64_t block = d->newer->geometry.level_first[height - 1] + n;
    uint8_t *buf = d->new_block[height - 1];

    if (d->ops->read(d->opaque, true, block, buf) != VERITY_READ_DONE) {
        *d->why = g_strdup_printf("block %" PRIu64 " of the newer tree cannot "
                                  "be read", block);
        return false;
    }
    if (!has_hash(d->newer, buf, VERITY_BLOCK, hash)) {
        *d->why = g_strdup_printf("block %" PRIu64 " of the newer tree is "
                                  "damaged", block);
        return false;
    }
    return true;
}

/*
 * Read node @n of @height of the older tree; it has *@hash. Sets *@hash to
 * NULL if it is not to be had. False to stop.
 */
static bool read_old(Diff *d, unsigned height, uint64_t n, const uint8_t **hash)
{
    uint64_t block = d->older->geometry.level_first[height - 1] + n;
    uint8_t *buf = d->old_block[height - 1];
    VerityRead ret = d->ops->read(d->opaque, false, block, buf);

    if (ret == VERITY_READ_STOP) {
        *d->why = g_strdup_printf("block %" PRIu64 " of the older tree cannot "
                                  "be read", block);
        return false;
    }
    if (ret == VERITY_READ_NONE ||
        !has_hash(d->older, buf, VERITY_BLOCK, *hash)) {
        *hash = NULL;
    }
    return true;
}

/*
 * The hash that the older tree has for child @n, in all the tree, of a node of
 * @height; NULL if it has none. @in_old: the node itself was read from it.
 */
static const uint8_t *old_child(const Diff *d, unsigned height, uint64_t n,
                                bool in_old)
{
    const VerityGeometry *g = &d->older->geometry;

    if (first_below(height - 1, n) >= g->data_blocks) {
        return NULL;
    }
    if (in_old) {
        return d->old_block[height - 1] + n % VERITY_FANOUT * VERITY_HASH_BYTES;
    }
    return height - 1 == g->levels ? d->older->root : NULL;
}

static bool diff_node(Diff *d, unsigned height, uint64_t n,
                      const uint8_t *new_hash, const uint8_t *old_hash);

static bool diff_children(Diff *d, unsigned height, uint64_t n, bool in_old)
{
    uint64_t end = (n + 1) * VERITY_FANOUT;
    const uint8_t *new = d->new_block[height - 1];

    for (uint64_t child = n * VERITY_FANOUT; child < end; child++) {
        if (first_below(height - 1, child) >= d->newer->geometry.data_blocks) {
            break;
        }
        if (!diff_node(d, height - 1, child, new,
                       old_child(d, height, child, in_old))) {
            return false;
        }
        new += VERITY_HASH_BYTES;
    }
    return true;
}

/*
 * Compare what is below node @n of @height. @new_hash and @old_hash: what the
 * trees have for it; @old_hash is NULL if the older one has nothing.
 */
static bool diff_node(Diff *d, unsigned height, uint64_t n,
                      const uint8_t *new_hash, const uint8_t *old_hash)
{
    /* All of the older tree is below the first child of this node */
    bool above = n == 0 && height > d->older->geometry.levels;

    if (old_hash && memcmp(old_hash, new_hash, VERITY_HASH_BYTES) == 0) {
        return true;
    }
    if (height > 0 && old_hash && !read_old(d, height, n, &old_hash)) {
        return false;
    }
    if (height == 0 || (!old_hash && !above)) {
        return diff_add(d, height, n);
    }
    return read_new(d, height, n, new_hash) &&
           diff_children(d, height, n, old_hash != NULL);
}

/* Compare from the top of the newer tree, which may be the lower one */
static bool diff_top(Diff *d)
{
    unsigned top = d->newer->geometry.levels;
    unsigned height = d->older->geometry.levels;
    const uint8_t *old_hash = height < top ? NULL : d->older->root;

    while (height > top && old_hash) {
        if (!read_old(d, height, 0, &old_hash)) {
            return false;
        }
        height--;
        if (old_hash) {
            old_hash = d->old_block[height];
        }
    }
    return diff_node(d, top, 0, d->newer->root, old_hash) && diff_tell(d);
}

bool verity_diff(const Verity *older, const Verity *newer,
                 const VerityDiffOps *ops, void *opaque, char **why)
{
    const VeritySuper *a = &older->super, *b = &newer->super;
    Diff *d;
    bool ok;

    if (a->salt_bytes != b->salt_bytes ||
        memcmp(a->salt, b->salt, a->salt_bytes) != 0) {
        *why = g_strdup("the trees have different salts, so they cannot be "
                        "compared; all versions of a vDisk need the same");
        return false;
    }
    d = g_new0(Diff, 1);
    d->older = older;
    d->newer = newer;
    d->ops = ops;
    d->opaque = opaque;
    d->why = why;
    ok = diff_top(d);
    g_free(d);
    return ok;
}

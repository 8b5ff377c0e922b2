/*
 * Build the dm-verity tree of an image in one pass over its content
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "tree-build.h"

#include <nettle/sha2.h>

/* The superblock; other bytes are zero. Numbers are little-endian. */
#define SUPER_SIGNATURE         0       /* "verity\0\0" */
#define SUPER_VERSION           8       /* u32: 1 */
#define SUPER_HASH_TYPE         12      /* u32: 1, the salt comes first */
#define SUPER_UUID              16
#define SUPER_HASH_NAME         32      /* "sha256" */
#define SUPER_DATA_BLOCK        64      /* u32: 4096 */
#define SUPER_HASH_BLOCK        68      /* u32: 4096 */
#define SUPER_DATA_BLOCKS       72      /* u64 */
#define SUPER_SALT_SIZE         80      /* u16 */
#define SUPER_SALT              88

struct TreeBuild {
    /* Never changed after it was made */
    VerityGeometry geometry;
    uint8_t salt[VERITY_MAX_SALT];
    unsigned salt_bytes;
    struct sha256_ctx salted;           /* copied for each block */
    uint8_t zero_hash[VERITY_HASH_BYTES];       /* of a block of zeros */
    uint8_t zero_leaf_hash[VERITY_HASH_BYTES];  /* of a block of those */
    uint64_t spans;

    uint8_t *head;              /* the file before the leaves */
    size_t head_bytes;
    uint8_t *span_hash;         /* of each leaf, VERITY_HASH_BYTES */
    uint8_t *given;             /* a byte for each span: threads set them */
};

static const uint8_t zeros[VERITY_BLOCK];

static void hash_block(const TreeBuild *t, const uint8_t *block, uint8_t *hash)
{
    struct sha256_ctx ctx = t->salted;

    sha256_update(&ctx, VERITY_BLOCK, block);
    sha256_digest(&ctx, VERITY_HASH_BYTES, hash);
}

static bool decode_salt(TreeBuild *t, const char *hex)
{
    size_t len = strlen(hex);
    int high, low;

    if (len % 2 || len / 2 > VERITY_MAX_SALT) {
        return false;
    }
    t->salt_bytes = len / 2;
    for (unsigned i = 0; i < t->salt_bytes; i++) {
        high = g_ascii_xdigit_value(hex[2 * i]);
        low = g_ascii_xdigit_value(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        t->salt[i] = high << 4 | low;
    }
    return true;
}

/* What zeros hash to is known before any is seen */
static void prepare_hashes(TreeBuild *t)
{
    uint8_t leaf[VERITY_BLOCK];

    sha256_init(&t->salted);
    sha256_update(&t->salted, t->salt_bytes, t->salt);
    hash_block(t, zeros, t->zero_hash);
    for (unsigned i = 0; i < VERITY_FANOUT; i++) {
        memcpy(leaf + i * VERITY_HASH_BYTES, t->zero_hash, VERITY_HASH_BYTES);
    }
    hash_block(t, leaf, t->zero_leaf_hash);
}

static void put_u32(uint8_t *p, uint32_t n)
{
    n = GUINT32_TO_LE(n);
    memcpy(p, &n, sizeof(n));
}

static void write_super(TreeBuild *t, const uint8_t uuid[TREE_UUID_BYTES])
{
    uint64_t blocks = GUINT64_TO_LE(t->geometry.data_blocks);
    uint8_t *s = t->head;

    memcpy(s + SUPER_SIGNATURE, "verity", strlen("verity"));
    put_u32(s + SUPER_VERSION, 1);
    put_u32(s + SUPER_HASH_TYPE, 1);
    memcpy(s + SUPER_UUID, uuid, TREE_UUID_BYTES);
    memcpy(s + SUPER_HASH_NAME, "sha256", strlen("sha256"));
    put_u32(s + SUPER_DATA_BLOCK, VERITY_BLOCK);
    put_u32(s + SUPER_HASH_BLOCK, VERITY_BLOCK);
    memcpy(s + SUPER_DATA_BLOCKS, &blocks, sizeof(blocks));
    s[SUPER_SALT_SIZE] = t->salt_bytes & 0xff;
    s[SUPER_SALT_SIZE + 1] = t->salt_bytes >> 8;
    memcpy(s + SUPER_SALT, t->salt, t->salt_bytes);
}

TreeBuild *tree_build_new(uint64_t data_bytes, const char *salt,
                          const uint8_t uuid[TREE_UUID_BYTES], char **why)
{
    g_autoptr(TreeBuild) t = g_new0(TreeBuild, 1);
    const VerityGeometry *g = &t->geometry;

    if (!verity_geometry_init(&t->geometry, data_bytes, why)) {
        return NULL;
    }
    if (!decode_salt(t, salt)) {
        *why = g_strdup_printf("a salt has an even number of hexadecimal "
                               "digits, at most %d", 2 * VERITY_MAX_SALT);
        return NULL;
    }
    prepare_hashes(t);
    t->spans = DIV_ROUND_UP(g->data_blocks, VERITY_FANOUT);
    t->head_bytes = (g->levels ? g->level_first[0] : 1) * VERITY_BLOCK;
    t->head = g_try_malloc0(t->head_bytes);
    t->span_hash = g_try_malloc0_n(t->spans, VERITY_HASH_BYTES);
    t->given = g_try_malloc0(t->spans);
    if (!t->head || !t->span_hash || !t->given) {
        *why = g_strdup("no memory for the tree of an image of that size");
        return NULL;
    }
    write_super(t, uuid);
    return g_steal_pointer(&t);
}

void tree_build_free(TreeBuild *t)
{
    if (t) {
        g_free(t->head);
        g_free(t->span_hash);
        g_free(t->given);
        g_free(t);
    }
}

uint64_t tree_build_spans(const TreeBuild *t)
{
    return t->spans;
}

uint64_t tree_build_file_bytes(const TreeBuild *t)
{
    return t->geometry.file_blocks * VERITY_BLOCK;
}

uint64_t tree_build_leaf_offset(const TreeBuild *t, uint64_t n)
{
    assert(n < t->spans);
    return t->geometry.levels ? (t->geometry.level_first[0] + n) * VERITY_BLOCK
                              : 0;
}

/* The hash of the block at @data, of which only @bytes are there */
static void hash_data(const TreeBuild *t, const uint8_t *data, size_t bytes,
                      uint8_t *hash)
{
    uint8_t part[VERITY_BLOCK];

    if (!data || memcmp(data, zeros, bytes) == 0) {
        memcpy(hash, t->zero_hash, VERITY_HASH_BYTES);
    } else if (bytes == VERITY_BLOCK) {
        hash_block(t, data, hash);
    } else {
        memset(part, 0, sizeof(part));
        memcpy(part, data, bytes);
        hash_block(t, part, hash);
    }
}

void tree_build_span(TreeBuild *t, uint64_t n, const uint8_t *data,
                     size_t bytes, uint8_t *leaf)
{
    uint64_t start = n * TREE_SPAN;
    uint64_t expected = MIN(TREE_SPAN, t->geometry.data_bytes - start);
    unsigned blocks = DIV_ROUND_UP(expected, VERITY_BLOCK);
    uint8_t *hash = t->span_hash + n * VERITY_HASH_BYTES;

    assert(n < t->spans && (!data || bytes == expected));
    memset(leaf, 0, VERITY_BLOCK);
    for (unsigned i = 0; i < blocks; i++) {
        size_t at = (size_t)i * VERITY_BLOCK;

        hash_data(t, data ? data + at : NULL, MIN(VERITY_BLOCK, expected - at),
                  leaf + i * VERITY_HASH_BYTES);
    }
    if (t->geometry.levels == 0) {
        /* The hash of the only block is the root */
        memcpy(hash, leaf, VERITY_HASH_BYTES);
    } else if (!data && blocks == VERITY_FANOUT) {
        memcpy(hash, t->zero_leaf_hash, VERITY_HASH_BYTES);
    } else {
        hash_block(t, leaf, hash);
    }
    qatomic_set(&t->given[n], 1);
}

const uint8_t *tree_build_span_hash(const TreeBuild *t, uint64_t n)
{
    assert(n < t->spans);
    return t->span_hash + n * VERITY_HASH_BYTES;
}

/* Blocks of @level from the hashes of those below; leaves theirs in @hashes */
static void build_level(TreeBuild *t, unsigned level, uint8_t *hashes,
                        uint64_t n)
{
    uint8_t *first = t->head + t->geometry.level_first[level] * VERITY_BLOCK;

    memcpy(first, hashes, n * VERITY_HASH_BYTES);
    for (uint64_t i = 0; i < t->geometry.level_blocks[level]; i++) {
        hash_block(t, first + i * VERITY_BLOCK, hashes + i * VERITY_HASH_BYTES);
    }
}

bool tree_build_finish(TreeBuild *t, uint8_t root[VERITY_HASH_BYTES],
                       const uint8_t **head, size_t *head_bytes)
{
    g_autofree uint8_t *hashes = NULL;
    uint64_t n = t->spans;

    if (memchr(t->given, 0, t->spans)) {
        return false;
    }
    hashes = g_memdup2(t->span_hash, n * VERITY_HASH_BYTES);
    for (unsigned k = 1; k < t->geometry.levels; k++) {
        build_level(t, k, hashes, n);
        n = t->geometry.level_blocks[k];
    }
    memcpy(root, hashes, VERITY_HASH_BYTES);
    *head = t->head;
    *head_bytes = t->head_bytes;
    return true;
}

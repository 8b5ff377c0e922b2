/*
 * An image and its dm-verity tree, made without the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "verity-model.h"

static uint32_t rng = 1;

uint32_t rnd(uint32_t below)
{
    rng = rng * 1664525 + 1013904223;
    return (uint64_t)rng * below >> 32;
}

static uint64_t blocks_of(uint64_t bytes)
{
    return bytes / BLOCK + (bytes % BLOCK != 0);
}

static void fill(Model *m, uint64_t from)
{
    for (uint64_t n = from; n < m->blocks; n++) {
        uint8_t *p = m->data + n * BLOCK;

        if (n % 7 != 3) {
            for (unsigned i = 0; i < 64; i++) {
                p[i] = rnd(256);
            }
            p[BLOCK - 1] = n;
        }
    }
    memset(m->data + m->bytes, 0, m->blocks * BLOCK - m->bytes);
}

Model *model_new(uint64_t bytes, unsigned salt_bytes)
{
    Model *m = g_new0(Model, 1);

    m->bytes = bytes;
    m->blocks = blocks_of(bytes);
    m->data = g_malloc0(m->blocks * BLOCK);
    m->salt_bytes = salt_bytes;
    for (unsigned i = 0; i < salt_bytes; i++) {
        m->salt[i] = i * 37 + 5;
    }
    fill(m, 0);
    return m;
}

Model *model_copy(const Model *m, uint64_t bytes)
{
    Model *copy = g_new0(Model, 1);

    copy->bytes = bytes;
    copy->blocks = blocks_of(bytes);
    copy->data = g_malloc0(copy->blocks * BLOCK);
    copy->salt_bytes = m->salt_bytes;
    memcpy(copy->salt, m->salt, sizeof(m->salt));
    memcpy(copy->data, m->data, MIN(m->blocks, copy->blocks) * BLOCK);
    fill(copy, MIN(m->blocks, copy->blocks));
    return copy;
}

void model_free(Model *m)
{
    g_free(m->data);
    g_free(m->tree);
    g_free(m);
}

static void hash(const Model *m, const uint8_t *block, uint8_t digest[32])
{
    GChecksum *sum = g_checksum_new(G_CHECKSUM_SHA256);
    gsize len = 32;

    g_checksum_update(sum, m->salt, m->salt_bytes);
    g_checksum_update(sum, block, BLOCK);
    g_checksum_get_digest(sum, digest, &len);
    g_checksum_free(sum);
}

/* Hashes of @n blocks, filled up to whole blocks */
static GByteArray *hash_all(const Model *m, const uint8_t *blocks, uint64_t n)
{
    GByteArray *level = g_byte_array_new();
    static const uint8_t zero[32];
    uint8_t digest[32];

    for (uint64_t i = 0; i < n; i++) {
        hash(m, blocks + i * BLOCK, digest);
        g_byte_array_append(level, digest, 32);
    }
    while (level->len % BLOCK) {
        g_byte_array_append(level, zero, 32);
    }
    return level;
}

static void put(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        to[i] = value >> (8 * i);
    }
}

static void make_super(const Model *m, uint8_t *p)
{
    memcpy(p, "verity", 6);
    put(p + 8, 1, 4);
    put(p + 12, 1, 4);
    memset(p + 16, 0xab, 16);
    memcpy(p + 32, "sha256", 6);
    put(p + 64, 4096, 4);
    put(p + 68, 4096, 4);
    put(p + 72, m->blocks, 8);
    put(p + 80, m->salt_bytes, 2);
    memcpy(p + 88, m->salt, m->salt_bytes);
}

void model_seal(Model *m)
{
    GByteArray *level[MODEL_LEVELS];
    const uint8_t *below = m->data;
    uint64_t n = m->blocks;
    uint8_t digest[32], *p;

    m->levels = 0;
    m->tree_bytes = BLOCK;
    while (n > 1) {
        level[m->levels] = hash_all(m, below, n);
        below = level[m->levels]->data;
        n = level[m->levels]->len / BLOCK;
        m->tree_bytes += n * BLOCK;
        m->level_blocks[m->levels++] = n;
    }
    hash(m, below, digest);
    for (unsigned i = 0; i < 32; i++) {
        g_snprintf(m->root + 2 * i, 3, "%02x", digest[i]);
    }
    g_free(m->tree);
    m->tree = g_malloc0(m->tree_bytes);
    make_super(m, m->tree);
    p = m->tree + BLOCK;
    for (unsigned k = m->levels; k-- > 0; ) {
        memcpy(p, level[k]->data, level[k]->len);
        p += level[k]->len;
        g_byte_array_unref(level[k]);
    }
}

uint64_t model_below(const Model *m, uint64_t block)
{
    uint64_t first = 1, span = 128;
    unsigned k = m->levels - 1;

    for (unsigned i = 0; i < k; i++) {
        span *= 128;
    }
    while (block >= first + m->level_blocks[k]) {
        first += m->level_blocks[k--];
        span /= 128;
    }
    first = (block - first) * span;
    return first + rnd(MIN(span, m->blocks - first));
}

Verity *model_open(const Model *m, char **why)
{
    uint8_t super[VERITY_SUPER_BYTES] = {};

    memcpy(super, m->tree, MIN(m->tree_bytes, sizeof(super)));
    return verity_new(super, m->root, m->bytes, m->tree_bytes, why);
}

bool model_read(const Model *m, Verity *v, uint64_t n, char **why)
{
    VerityEntry path[VERITY_MAX_LEVELS];
    unsigned k = verity_path(verity_geometry(v), n, path);
    const uint8_t *parent = NULL;

    while (k-- > 0) {
        const uint8_t *buf = m->tree + path[k].block * BLOCK;

        if (!verity_is_checked(v, path[k].block)) {
            if (!verity_check_tree(v, path[k].block, buf, parent, why)) {
                return false;
            }
            verity_mark_checked(v, path[k].block);
        }
        parent = buf;
    }
    return verity_check_data(v, n, m->data + n * BLOCK, parent, why);
}

bool model_accepted(const Model *m, char **why)
{
    Verity *v = model_open(m, why);
    bool ok = v != NULL;

    for (uint64_t n = 0; ok && n < m->blocks; n++) {
        ok = model_read(m, v, n, why);
    }
    verity_free(v);
    return ok;
}

/* Damage */

static uint8_t *data_block(const Model *m, uint64_t *n)
{
    *n = rnd(m->blocks);
    return m->data + *n * BLOCK;
}

static uint8_t *tree_block(const Model *m, uint64_t *n)
{
    uint64_t block = 1 + rnd(m->tree_bytes / BLOCK - 1);

    *n = model_below(m, block);
    return m->tree + block * BLOCK;
}

static void flip(uint8_t *p, unsigned bytes)
{
    p[rnd(bytes)] ^= 1 << rnd(8);
}

static void swap(Damage *d)
{
    memcpy(d->at[0], d->was[1], BLOCK);
    memcpy(d->at[1], d->was[0], BLOCK);
}

/* Where the damage is to be */
static void aim(Model *m, Damage *d)
{
    bool in_tree = d->kind == FLIP_TREE || d->kind == SWAP_TREE ||
                   d->kind == ZERO_TREE || d->kind == SWAP_DATA_TREE;
    uint64_t other;

    d->at[0] = in_tree ? tree_block(m, &d->victim) : data_block(m, &d->victim);
    if (d->kind == SWAP_TREE) {
        d->at[1] = tree_block(m, &other);
    } else if (d->kind == SWAP_DATA || d->kind == SWAP_DATA_TREE) {
        d->at[1] = data_block(m, &other);
    } else if (d->kind == FLIP_SUPER) {
        d->at[0] = m->tree;
    } else if (d->kind == FLIP_TAIL_OF_TREE) {
        d->at[0] = m->tree + m->tree_bytes - BLOCK;
        d->victim = m->blocks - 1;
    }
}

static void flip_super(uint8_t *p)
{
    /* All of it but the UUID */
    unsigned at = rnd(VERITY_SUPER_BYTES - 16);

    p[at < 16 ? at : at + 16] ^= 1 << rnd(8);
}

static void strike(Model *m, Damage *d)
{
    char *digit = &m->root[rnd(64)];

    switch (d->kind) {
    case FLIP_DATA:
        flip(d->at[0], MIN(BLOCK, m->bytes - d->victim * BLOCK));
        break;
    case FLIP_TREE:
    case FLIP_TAIL_OF_TREE:
        flip(d->at[0], BLOCK);
        break;
    case FLIP_SUPER:
        flip_super(d->at[0]);
        break;
    case FLIP_ROOT:
        *digit = *digit == '7' ? 'e' : '7';
        break;
    case ZERO_DATA:
    case ZERO_TREE:
        memset(d->at[0], 0, BLOCK);
        break;
    case CUT_TREE:
        m->tree_bytes = rnd(m->tree_bytes);
        break;
    case CUT_DATA:
        m->bytes = rnd((m->blocks - 1) * BLOCK + 1);
        break;
    default:
        swap(d);
    }
}

bool model_damage(Model *m, Damage *d, Kind kind)
{
    *d = (Damage) {
        .kind = kind,
        .was_bytes = m->bytes,
        .was_tree_bytes = m->tree_bytes,
    };
    memcpy(d->was_root, m->root, sizeof(m->root));
    if (m->levels == 0 && (kind == FLIP_TREE || kind == SWAP_TREE ||
                           kind == ZERO_TREE || kind == SWAP_DATA_TREE ||
                           kind == FLIP_TAIL_OF_TREE)) {
        return false;
    }
    aim(m, d);
    for (unsigned i = 0; i < 2 && d->at[i]; i++) {
        memcpy(d->was[i], d->at[i], BLOCK);
    }
    strike(m, d);
    /* Past the end of the image there may be anything */
    if (m->bytes == d->was_bytes) {
        memset(m->data + m->bytes, 0, m->blocks * BLOCK - m->bytes);
    }
    return m->bytes != d->was_bytes || m->tree_bytes != d->was_tree_bytes ||
           memcmp(m->root, d->was_root, sizeof(m->root)) ||
           memcmp(d->at[0], d->was[0], BLOCK);
}

void model_undo(Model *m, const Damage *d)
{
    m->bytes = d->was_bytes;
    m->tree_bytes = d->was_tree_bytes;
    memcpy(m->root, d->was_root, sizeof(m->root));
    for (unsigned i = 2; i-- > 0; ) {
        if (d->at[i]) {
            memcpy(d->at[i], d->was[i], BLOCK);
        }
    }
}

bool model_found(const Model *m, const Damage *d)
{
    char *why = NULL;
    Verity *v = model_open(m, &why);
    bool found = !v || !model_read(m, v, d->victim, &why);

    /* What is found is also told */
    found = found && why && *why;
    g_free(why);
    verity_free(v);
    return found;
}

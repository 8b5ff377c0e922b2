/*
 * Fuzz the comparing of two trees, and reading by one, while blocks of trees and
 * data are damaged or not held
 *
 * The input edits an image, so that there are two versions, and then damages
 * things. Whatever it does: no block that differs is missed, and none is taken
 * for good that is not what was sealed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "tests/unit/verity-model.h"
#include "fuzz.h"

#define MOST_EDITS  16

/* Blocks of images: around what one tree block can have, and a level more */
static const unsigned sizes[] = { 1, 2, 3, 5, 8, 127, 128, 129, 131, 258 };

typedef struct Pair {
    Model *older, *newer;
    GByteArray *old_tree, *new_tree;    /* as they are read: damaged maybe */
    bool damaged, missing;
    uint64_t not_held;          /* a bit for every 64th block of the older */
    uint8_t *differs;           /* of each block of the newer, as told */
    uint64_t end;               /* of the last range that was told */
} Pair;

static Model *image(unsigned blocks, unsigned cut, unsigned salt)
{
    Model *m = model_new(blocks * (uint64_t)BLOCK - cut, salt);

    /* Not what chance has made of it: one input is one course */
    memset(m->data, 0, m->blocks * BLOCK);
    for (uint64_t n = 0; n < m->blocks; n++) {
        m->data[n * BLOCK] = n % 5;
    }
    return m;
}

static void edit(Model *m, Input *in)
{
    uint64_t first = input_take(in, 2) % m->blocks;
    uint64_t asked = input_take(in, 1) % 32, n = MIN(asked, m->blocks - first);
    uint8_t value = input_take(in, 1);

    for (uint64_t i = first; i < first + n; i++) {
        m->data[i * BLOCK] = value;
    }
}

static void seal(Model *m, GByteArray **tree)
{
    model_seal(m);
    *tree = g_byte_array_new();
    g_byte_array_append(*tree, m->tree, m->tree_bytes);
}

static void damage(GByteArray *tree, Input *in, bool *damaged)
{
    uint64_t at = BLOCK + input_take(in, 3);
    uint8_t bits = input_take(in, 1);

    if (at < tree->len) {
        tree->data[at] ^= bits;
        *damaged |= bits != 0;
    }
}

static VerityRead pair_read(void *opaque, bool newer, uint64_t block,
                            uint8_t *buf)
{
    Pair *p = opaque;
    const GByteArray *tree = newer ? p->new_tree : p->old_tree;

    assert(block > 0 && block < tree->len / BLOCK);
    if (!newer && (p->not_held >> block % 64 & 1)) {
        p->missing = true;
        return VERITY_READ_NONE;
    }
    memcpy(buf, tree->data + block * BLOCK, BLOCK);
    return VERITY_READ_DONE;
}

/* In order, apart, and inside */
static bool pair_differ(void *opaque, uint64_t first, uint64_t n)
{
    Pair *p = opaque;

    assert(n > 0 && first < p->newer->blocks && n <= p->newer->blocks - first);
    assert(p->end == 0 || first > p->end);
    memset(p->differs + first, 1, n);
    p->end = first + n;
    return true;
}

static bool same_block(const Pair *p, uint64_t n)
{
    return n < p->older->blocks &&
           !memcmp(p->older->data + n * BLOCK, p->newer->data + n * BLOCK,
                   BLOCK);
}

static void compare(Pair *p)
{
    static const VerityDiffOps ops = { pair_read, pair_differ };
    g_autofree char *why = NULL;
    Verity *older = model_open(p->older, &why);
    Verity *newer = model_open(p->newer, &why);
    bool exact = !p->damaged;

    assert(older && newer);
    p->differs = g_malloc0(p->newer->blocks);
    if (verity_diff(older, newer, &ops, p, &why)) {
        exact &= !p->missing;
        for (uint64_t n = 0; n < p->newer->blocks; n++) {
            assert(p->differs[n] || same_block(p, n));
            assert(!exact || !p->differs[n] || !same_block(p, n));
        }
    } else {
        assert(why && p->damaged);
    }
    g_free(p->differs);
    verity_free(older);
    verity_free(newer);
}

/* Block @n of the newer version, by the tree and the data as they are now */
static bool accepted(const Pair *p, const Verity *v, uint64_t n,
                     const uint8_t *data)
{
    VerityEntry path[VERITY_MAX_LEVELS];
    unsigned k = verity_path(verity_geometry(v), n, path);
    g_autofree char *why = NULL;
    const uint8_t *parent = NULL;

    while (k-- > 0) {
        const uint8_t *buf = p->new_tree->data + path[k].block * BLOCK;

        if (!verity_check_tree(v, path[k].block, buf, parent, &why)) {
            return false;
        }
        parent = buf;
    }
    return verity_check_data(v, n, data, parent, &why);
}

static void read_some(const Pair *p, Input *in)
{
    g_autofree char *why = NULL;
    Verity *v = model_open(p->newer, &why);
    uint8_t data[BLOCK];

    for (int i = 0; i < 4; i++) {
        uint64_t n = input_take(in, 2) % p->newer->blocks;
        size_t bytes = MIN(BLOCK, p->newer->bytes - n * BLOCK);
        const uint8_t *sealed = p->newer->data + n * BLOCK;

        memcpy(data, sealed, BLOCK);
        data[input_take(in, 2) % BLOCK] ^= input_take(in, 1);
        if (accepted(p, v, n, data)) {
            assert(!memcmp(data, sealed, bytes));
        } else {
            assert(p->damaged || memcmp(data, sealed, bytes));
        }
    }
    verity_free(v);
}

static void pair_init(Pair *p, Input *in)
{
    unsigned older = sizes[input_take(in, 1) % G_N_ELEMENTS(sizes)];
    unsigned newer = sizes[input_take(in, 1) % G_N_ELEMENTS(sizes)];
    unsigned cut = input_take(in, 1) % 8 * 512 % BLOCK;
    unsigned salt = input_take(in, 1) % 257;

    *p = (Pair) {
        .older = image(older, 0, salt),
        .newer = image(newer, cut, salt),
    };
    for (uint64_t n = input_take(in, 1) % MOST_EDITS; n > 0; n--) {
        edit(p->newer, in);
    }
    seal(p->older, &p->old_tree);
    seal(p->newer, &p->new_tree);
    for (uint64_t n = input_take(in, 1) % MOST_EDITS; n > 0; n--) {
        damage(input_take(in, 1) & 1 ? p->old_tree : p->new_tree, in,
               &p->damaged);
    }
    if (input_take(in, 1) & 1) {
        p->not_held = input_take(in, 8);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = { data, size };
    Pair p;

    pair_init(&p, &in);
    compare(&p);
    read_some(&p, &in);
    g_byte_array_unref(p.old_tree);
    g_byte_array_unref(p.new_tree);
    model_free(p.older);
    model_free(p.newer);
    return 0;
}

/*
 * An image and its dm-verity tree, made without the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_VERITY_MODEL_H
#define TESTS_UNIT_VERITY_MODEL_H

#include "block/pvs/verity.h"

#define MODEL_LEVELS    8
#define BLOCK           4096

typedef struct Model {
    uint64_t bytes;             /* of the image */
    uint64_t blocks;
    uint8_t *data;              /* whole blocks, filled up with zeros */
    uint8_t salt[256];
    unsigned salt_bytes;

    /* The tree */
    uint8_t *tree;
    uint64_t tree_bytes;
    unsigned levels;
    uint64_t level_blocks[MODEL_LEVELS];    /* from the data up */
    char root[65];
} Model;

/* Random numbers, the same in each run */
uint32_t rnd(uint32_t below);

/* An image of @bytes; blocks differ, some are zero */
Model *model_new(uint64_t bytes, unsigned salt_bytes);
Model *model_copy(const Model *m, uint64_t bytes);
void model_free(Model *m);

/* Make the tree and the root hash from the data */
void model_seal(Model *m);

/* A data block, at random, of those below block @block of the tree file */
uint64_t model_below(const Model *m, uint64_t block);

Verity *model_open(const Model *m, char **why);

/* Read data block @n by the tree. Marks tree blocks as checked. */
bool model_read(const Model *m, Verity *v, uint64_t n, char **why);

/* Is all of it accepted? */
bool model_accepted(const Model *m, char **why);

/* Damage; false if it changes nothing. model_undo() undoes the last one. */
typedef enum Kind {
    FLIP_DATA, FLIP_TREE, FLIP_SUPER, FLIP_ROOT, FLIP_TAIL_OF_TREE,
    SWAP_DATA, SWAP_TREE, SWAP_DATA_TREE,
    ZERO_DATA, ZERO_TREE, CUT_TREE, CUT_DATA,
    KINDS
} Kind;

typedef struct Damage {
    Kind kind;
    uint8_t *at[2];             /* blocks that were changed */
    uint8_t was[2][BLOCK];
    uint64_t was_bytes, was_tree_bytes;
    char was_root[65];
    uint64_t victim;            /* a data block that must not be readable */
} Damage;

bool model_damage(Model *m, Damage *d, Kind kind);
void model_undo(Model *m, const Damage *d);

/* Is the damage found by who reads the victim? */
bool model_found(const Model *m, const Damage *d);

#endif /* TESTS_UNIT_VERITY_MODEL_H */

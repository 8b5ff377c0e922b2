/*
 * NBD servers in the main loop, for fuzz-nbd: good ones, and bad ones that say
 * what a script makes of what a good one says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_FUZZ_NBD_SERVER_H
#define TESTS_FUZZ_NBD_SERVER_H

#include "fuzz.h"

/* No good server sends it, and no hole has it: what has it was never sent */
#define POISON      0xa5

typedef struct Server {
    const char *path;           /* by which it is reached */
    const uint8_t *data;
    uint64_t bytes;
    bool bad;

    /* What it can do */
    bool oldstyle, fixed, extended, structured, contexts, go;
} Server;

/* Those that there are; the script is that of the bad ones */
void servers_begin(const Server *servers, unsigned n, Input *script);

/* Nobody is connected any more */
void servers_end(void);

/* Did a bad one send a byte POISON? */
bool servers_sent_poison(void);

#endif /* TESTS_FUZZ_NBD_SERVER_H */

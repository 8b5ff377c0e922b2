/*
 * Test of the host cache, without stores and guests
 *
 * usage: pvs-cache --dir DISK --shm TMPFS [--seed N] [--rounds N]
 *
 * Every granule's content follows from its number, so whoever reads one knows
 * whether it is right.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "cache.h"

static const char *option_text(char **argv, const char *name)
{
    for (char **arg = argv + 1; *arg; arg++) {
        if (g_str_equal(*arg, name) && arg[1]) {
            return arg[1];
        }
    }
    fprintf(stderr, "%s is missing\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    bool child = argc == 5 && g_str_equal(argv[1], "--child");
    uint64_t rounds, seed;
    Place p;
    Rng rng;

    block_layer_init();
    if (child) {
        return kill_child(argv);
    }
    rounds = option_number(argv, "--rounds", 60);
    seed = option_number(argv, "--seed", 1);
    rng.state = seed;
    place_init(&p, option_text(argv, "--dir"), option_text(argv, "--shm"));
    test_open(&p, &rng);
    test_hydrate(&p);
    test_kill_in_sync(&p);
    test_rivals(&p, 4 + rounds / 6);
    test_kill(&p, &rng, rounds);
    test_threads(&p, &rng, 2 + rounds / 20);
    test_speed(&p, 6);
    note("--seed %" PRIu64, seed);
    place_clear(&p);
    return 0;
}

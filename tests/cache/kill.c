/*
 * Test of the host cache: relays that are killed, and relays that are two
 *
 * A relay is a process of its own, this program again. It fills what it likes
 * until it is killed; what it has said to be there by then must be right.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "cache.h"

#define RIVALS          3

/* The relay */

static void coroutine_fn fill_for_ever(void *opaque)
{
    PvsCache *c = opaque;
    g_autofree uint8_t *buf = g_malloc(MAX_RUN * GRANULE);
    Rng rng = { .state = g_get_real_time() };

    for (;;) {
        uint64_t g = rng_below(&rng, GRANULES);
        uint64_t n = 1 + rng_below(&rng, MIN(MAX_RUN, GRANULES - g));

        for (uint64_t i = 0; i < n; i++) {
            content(g + i, buf + i * GRANULE);
        }
        pvs_cache_co_fill(c, g * GRANULE, n * GRANULE, buf);
        if (rng_chance(&rng, 5)) {
            pvs_cache_co_sync(c);
        }
        if (rng_chance(&rng, 1)) {
            /* Like one that had to be undone: there is more to fill */
            qatomic_set(&fail_syncs, 1);
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, rng_below(&rng, 300) * 1000);
    }
}

static G_NORETURN void child_fill(Place *p)
{
    PvsCache *c = place_own(p);

    putchar('o');
    fflush(stdout);
    for (int i = 0; i < 3; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(fill_for_ever, c));
    }
    for (;;) {
        poll_ms(1000);
    }
}

/* Closes and opens it again and again */
static G_NORETURN void child_cycle(Place *p)
{
    Rng rng = { .state = g_get_real_time() };

    putchar('o');
    fflush(stdout);
    for (;;) {
        PvsCache *c = place_own(p);
        uint64_t g = rng_below(&rng, GRANULES - MAX_RUN);

        fill(c, g, 1 + rng_below(&rng, MAX_RUN));
        pvs_cache_close(c);
    }
}

static int child_rival(Place *p)
{
    PvsCache *c = pvs_cache_own(p->data, p->map, &p->id, 0, &p->ops, p, NULL);

    putchar(c ? 'o' : 'x');
    fflush(stdout);
    poll_ms(60 * 1000);
    return 0;
}

static int child_sync(Place *p)
{
    PvsCache *c = place_own(p);

    fill(c, 1, 6);
    sync_cache(c);
    fill(c, 701, 6);
    fail_syncs = 1;
    die_in_sync = true;
    sync_cache(c);
    return 0;
}

int kill_child(char **argv)
{
    Place p;

    place_init(&p, argv[3], argv[4]);
    if (g_str_equal(argv[2], "fill")) {
        child_fill(&p);
    } else if (g_str_equal(argv[2], "cycle")) {
        child_cycle(&p);
    } else if (g_str_equal(argv[2], "rival")) {
        return child_rival(&p);
    }
    return child_sync(&p);
}

/* Its parent */

typedef struct Child {
    pid_t pid;
    int out;
} Child;

static Child child_start(Place *p, const char *role)
{
    g_autofree char *shm = g_path_get_dirname(p->map);
    const char *argv[] = {
        "/proc/self/exe", "--child", role, p->dir, shm, NULL,
    };
    Child child;
    bool ok = g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                       G_SPAWN_DO_NOT_REAP_CHILD |
                                       G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL,
                                       &child.pid, NULL, &child.out, NULL,
                                       NULL);

    g_assert(ok);
    return child;
}

/* 'o' or 'x', or 0 if it has ended */
static char child_says(Child *child)
{
    char c;

    return RETRY_ON_EINTR(read(child->out, &c, 1)) == 1 ? c : 0;
}

static void child_kill(Child *child)
{
    kill(child->pid, SIGKILL);
    RETRY_ON_EINTR(waitpid(child->pid, NULL, 0));
    close(child->out);
}

typedef struct Kills {
    uint64_t granules, wrong, failed, lost, attached, scans;
} Kills;

static void add_survey(Kills *k, Survey s)
{
    k->granules += s.data + s.zero;
    k->wrong += s.wrong;
    k->failed += s.failed;
}

/* With the relay at work, and after it was killed */
static void watch(Place *p, Kills *k, Child *child, int ms)
{
    PvsCache *desk = NULL;
    int64_t end = g_get_monotonic_time() + ms * 1000;

    while (g_get_monotonic_time() < end) {
        if (!desk || pvs_cache_is_dead(desk)) {
            pvs_cache_close(desk);
            desk = pvs_cache_attach(p->data, p->map, &p->id, NULL);
            k->attached += desk != NULL;
        }
        if (desk) {
            add_survey(k, survey(desk));
        } else {
            g_usleep(1000);
        }
    }
    child_kill(child);
    if (desk) {
        Survey before = survey(desk);

        add_survey(k, before);
        pvs_cache_close(desk);
    }
}

/* The next relay goes on with the same map, or begins with nothing */
static void look_again(Place *p, Kills *k, bool reboot)
{
    PvsCache *desk = pvs_cache_attach(p->data, p->map, &p->id, NULL);
    Survey before = desk ? survey(desk) : (Survey) {};
    PvsCache *c;
    Survey s;

    pvs_cache_close(desk);
    if (reboot) {
        unlink(p->map);
    }
    c = place_own(p);
    s = survey(c);
    add_survey(k, s);
    if (!reboot && desk && s.data + s.zero + MAX_RUN * 100 < before.data) {
        k->lost++;
    }
    poll_ms(reboot ? 200 : 1);
    k->scans += reboot;
    add_survey(k, survey(c));
    pvs_cache_close(c);
}

void test_kill(Place *p, Rng *rng, unsigned rounds)
{
    Kills k = {};

    place_clear(p);
    for (unsigned i = 0; i < rounds; i++) {
        const char *role = rng_chance(rng, 50) ? "cycle" : "fill";
        Child child = child_start(p, role);

        if (child_says(&child)) {
            watch(p, &k, &child, rng_below(rng, 120));
        } else {
            child_kill(&child);
        }
        look_again(p, &k, rng_chance(rng, 30));
        if (rng_chance(rng, 20)) {
            unlink(p->data);
        }
    }
    report(!k.wrong && !k.failed && k.granules && k.attached > rounds / 2,
           "%u relays killed, %" PRIu64 " hosts started again: %" PRIu64
           " granules read, %" PRIu64 " wrong, %" PRIu64 " unreadable",
           rounds, k.scans, k.granules, k.wrong, k.failed);
}

/* Only one of several gets it, and the name leads to what that one has */
void test_rivals(Place *p, unsigned rounds)
{
    unsigned none = 0, many = 0, elsewhere = 0;

    for (unsigned i = 0; i < rounds; i++) {
        Child rivals[RIVALS];
        unsigned owners = 0;
        PvsCache *desk;

        place_clear(p);
        if (i % 2) {
            g_file_set_contents(p->data, "", 0, NULL);      /* to be replaced */
        }
        for (int n = 0; n < RIVALS; n++) {
            rivals[n] = child_start(p, "rival");
        }
        for (int n = 0; n < RIVALS; n++) {
            owners += child_says(&rivals[n]) == 'o';
        }
        desk = pvs_cache_attach(p->data, p->map, &p->id, NULL);
        none += owners == 0;
        many += owners > 1;
        elsewhere += owners == 1 && !desk;
        pvs_cache_close(desk);
        for (int n = 0; n < RIVALS; n++) {
            child_kill(&rivals[n]);
        }
    }
    report(!many && !elsewhere && none < rounds / 2 + 1,
           "%u times %d relays at once: %u times more than one owner, %u times "
           "one that no desktop finds, %u times none", rounds, RIVALS, many,
           elsewhere, none);
}

void test_kill_in_sync(Place *p)
{
    Child child;
    PvsCache *c;
    Survey s;

    place_clear(p);
    child = child_start(p, "sync");
    child_says(&child);
    child_kill(&child);
    c = place_own(p);
    s = survey(c);
    report(s.data == 6 && state_of(c, 1) == VDISK_STATE_DATA &&
           state_of(c, 701) == VDISK_STATE_BASE,
           "killed when it alone knew that a sync had failed: %" PRIu64
           " granules left", s.data);
    pvs_cache_close(c);
}

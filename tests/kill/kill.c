/*
 * Kill test: who kills, counts and judges
 *
 * usage: pvs-kill --daemon PROGRAM --volatile MODULE [--count N] [--seed N]
 *
 * PROGRAM is qemu-storage-daemon, MODULE the one of tests/stores/volatile.c.
 * What a victim does is given by the seed, but not to the microsecond when it
 * dies.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "kill.h"

#define HANG_MS         120000
#define DESKTOP_KILLS   400     /* then comes a new one, with new files */
/* So much since it was drained: it is time. Kills, changes to sectors */
#define DRAIN_KILLS     30
#define DRAIN_SIZE      300000

typedef struct Counts {
    uint64_t killed, in[PHASE__MAX], flushing;
    uint64_t twice;             /* before it read, like the one before it */
    uint64_t at_calls, closed, desktops;
    uint64_t writes, zeroes, fuas, flushes;
    uint64_t disks, stores;     /* that were compared: all of the sectors */
    uint64_t drained, store_kills;
} Counts;

typedef struct Killer {
    uint64_t seed, count;
    Rng rng;
    Shared *sh;
    Files files;
    Server server;
    Model *model;
    Counts c;

    uint64_t since_drained;     /* kills */
    uint64_t left;              /* of this desktop */
    bool early;                 /* the last one was killed before it read */
    pid_t pid;
    int status;
    char *why;                  /* the test has failed; or NULL */
} Killer;

static const char *const phase_names[PHASE__MAX] = {
    "opening", "recovering", "reading", "writing", "draining", "idle",
    "closing",
};

static G_GNUC_PRINTF(2, 3) bool failed(Killer *k, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    k->why = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return false;
}

/* Plans */

static Phase random_phase(Killer *k)
{
    static const unsigned percent[PHASE__MAX] = { 10, 14, 14, 50, 9, 1, 2 };
    unsigned dice = rng_below(&k->rng, 100);
    Phase phase = PHASE_OPENING;

    while (dice >= percent[phase]) {
        dice -= percent[phase++];
    }
    return phase;
}

static bool must_drain(const Killer *k)
{
    return k->since_drained >= DRAIN_KILLS || k->left == 1 ||
           model_size(k->model) > DRAIN_SIZE ||
           k->c.killed + 1 >= k->count;
}

/* How long it may be in a phase before it dies, and how many calls */
static void random_death(Killer *k, Plan *p)
{
    static const unsigned us[PHASE__MAX] = {
        3000, 300, 12000, 5000, 3000, 100, 500
    };
    static const unsigned points[PHASE__MAX] = { 14, 10, 60, 100, 40, 0, 10 };
    static const unsigned longer[] = { 1, 1, 2, 5 };
    unsigned n = p->phase == PHASE_WRITING ? longer[rng_below(&k->rng, 4)] : 1;

    p->delay_us = rng_below(&k->rng, us[p->phase] * n);
    if (points[p->phase] && rng_chance(&k->rng, 40)) {
        p->points = 1 + rng_below(&k->rng, points[p->phase] * n);
    }
}

static Plan make_plan(Killer *k)
{
    static const unsigned flushes[] = { 0, 3, 15, 25, 25, 50 };
    Plan p = {
        .seed = rng_next(&k->rng),
        .requests = UINT_MAX,
        .workers = 1 + rng_below(&k->rng, 8),
        .flush_percent = flushes[rng_below(&k->rng, ARRAY_SIZE(flushes))],
        .durability_store = rng_chance(&k->rng, 10),
        .phase = must_drain(k) ? PHASE_IDLE + rng_below(&k->rng, 2)
                               : random_phase(k),
    };

    random_death(k, &p);
    if (p.phase > PHASE_WRITING) {
        p.requests = rng_below(&k->rng, 200);
    }
    p.closes = p.phase == PHASE_CLOSING;
    if (p.closes && rng_chance(&k->rng, 25)) {
        p.phase = PHASE__MAX;   /* never: it comes to its end */
        p.points = 0;
    }
    if (!p.points && p.phase >= PHASE_READING && p.phase <= PHASE_DRAINING &&
        rng_chance(&k->rng, 4)) {
        p.kills_store = true;
        p.store_delay_us = rng_below(&k->rng, 5000);
        p.store_returns = rng_chance(&k->rng, 50);
    }
    return p;
}

/* One victim */

static bool start_store(Killer *k)
{
    return k->server.pid > 0 ||
           server_start(&k->server, rng_chance(&k->rng, 50) ? 30 : 0) ||
           failed(k, "the store does not start");
}

static bool kill_it(Killer *k)
{
    const Plan *p = &k->sh->plan;
    bool ok = true;

    if (p->kills_store) {
        g_usleep(p->store_delay_us);
        server_kill(&k->server);
        k->c.store_kills++;
        ok = !p->store_returns || start_store(k);
    }
    g_usleep(p->delay_us);
    kill(k->pid, SIGKILL);
    return ok;
}

/* The next phase that it is in; 0 if it is dead, -1 if nothing happens */
static int next_phase(int fd, Phase *phase)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    char c;
    int ret = RETRY_ON_EINTR(poll(&p, 1, HANG_MS));

    if (ret > 0) {
        ret = RETRY_ON_EINTR(read(fd, &c, 1));
        *phase = c;
    } else {
        ret = -1;
    }
    return ret;
}

static bool follow(Killer *k, int fd)
{
    const Plan *p = &k->sh->plan;
    bool ok = true;
    Phase phase;
    int ret;

    while ((ret = next_phase(fd, &phase)) > 0) {
        if ((phase == p->phase && !p->points) ||
            (phase == PHASE_IDLE && !p->closes)) {
            ok = kill_it(k) && ok;
        }
    }
    if (ret < 0) {
        kill(k->pid, SIGKILL);
    }
    RETRY_ON_EINTR(waitpid(k->pid, &k->status, 0));
    return ret < 0 ? failed(k, "it hangs") : ok;
}

static bool run_victim(Killer *k)
{
    Shared *sh = k->sh;
    int fds[2];
    bool ok;

    sh->plan = make_plan(k);
    sh->phase = PHASE_OPENING;
    sh->flushing = sh->n_entries = sh->n_flushes = 0;
    sh->opened.at = sh->drained.at = 0;
    if (!start_store(k)) {
        return false;
    }
    ok = g_unix_open_pipe(fds, FD_CLOEXEC, NULL);
    assert(ok);
    k->pid = fork();
    if (k->pid == 0) {
        close(fds[0]);
        victim_run(sh, &k->files, fds[1]);
    }
    close(fds[1]);
    assert(k->pid > 0);
    ok = follow(k, fds[0]);
    close(fds[0]);
    return ok;
}

/* What came of it */

static void count_kill(Killer *k)
{
    Counts *c = &k->c;
    Phase phase = k->sh->phase;
    bool early = phase <= PHASE_READING && !k->sh->opened.at;

    c->killed++;
    c->in[phase]++;
    c->flushing += phase == PHASE_WRITING && k->sh->flushing;
    c->at_calls += k->sh->plan.points != 0;
    c->twice += early && k->early;
    k->early = early;
    k->since_drained++;
    k->left--;
}

static void count_requests(Killer *k)
{
    const Shared *sh = k->sh;

    for (unsigned i = 0; i < sh->n_entries; i++) {
        const Entry *e = &sh->entries[i];

        *(e->id == STAMP_ZERO ? &k->c.zeroes : &k->c.writes) += 1;
        k->c.fuas += e->fua;
    }
    k->c.flushes += sh->n_flushes;
}

static bool judge_death(Killer *k)
{
    const Shared *sh = k->sh;

    if (sh->errors) {
        return failed(k, "%" PRIu64 " errors that the guest sees: %s",
                      sh->errors, sh->failed);
    }
    if (WIFSIGNALED(k->status) && WTERMSIG(k->status) == SIGKILL) {
        count_kill(k);
        return true;
    }
    if (WIFEXITED(k->status) && !WEXITSTATUS(k->status) && sh->plan.closes) {
        k->c.closed++;
        k->early = false;
        return true;
    }
    return failed(k, "the process ends by itself, with status 0x%x: %s",
                  k->status, sh->failed);
}

static bool judge_disk(Killer *k, const Content *c)
{
    g_autofree char *why = NULL;

    if (!c->at) {
        return true;
    }
    k->c.disks++;
    return model_found(k->model, c, &why) ||
           failed(k, "what was flushed is lost: %s", why);
}

static bool judge_store(Killer *k)
{
    g_autofree char *why = NULL;
    const uint8_t *image = server_read(&k->server);

    if (!image) {
        return failed(k, "the store is gone");
    }
    k->c.stores++;
    if (!model_store(k->model, image, &why)) {
        return failed(k, "the store alone is no prefix: %s", why);
    }
    if (k->sh->drained.at) {
        k->since_drained = 0;
        k->c.drained++;
        return model_drained(k->model, image, &why) ||
               failed(k, "the store does not have all: %s", why);
    }
    return true;
}

static bool judge(Killer *k)
{
    const Shared *sh = k->sh;

    if (!judge_death(k) || !judge_disk(k, &sh->opened)) {
        return false;
    }
    model_add(k->model, sh);
    count_requests(k);
    return judge_disk(k, &sh->drained) && judge_store(k);
}

/* Desktops */

static bool new_desktop(Killer *k)
{
    static const uint64_t sizes[] = { 1, 2, 4, 8 };
    uint64_t bytes = sizes[rng_below(&k->rng, ARRAY_SIZE(sizes))] * MiB;

    server_kill(&k->server);
    server_make(&k->server);
    k->pid = fork();
    if (k->pid == 0) {
        victim_make(&k->files, bytes);
    }
    if (k->pid < 0 || waitpid(k->pid, &k->status, 0) != k->pid || k->status) {
        return failed(k, "its files cannot be made");
    }
    model_reset(k->model);
    k->c.desktops++;
    k->left = DESKTOP_KILLS;
    k->since_drained = 0;
    k->early = false;
    return true;
}

static bool run(Killer *k)
{
    while (k->c.killed < k->count) {
        if (!k->left && !new_desktop(k)) {
            return false;
        }
        if (!run_victim(k) || !judge(k)) {
            return false;
        }
    }
    return true;
}

/* Telling */

/* Returns whether there was some of all */
static bool tell(const Killer *k)
{
    const Counts *c = &k->c;
    bool all = true;

    for (Phase i = 0; i < PHASE__MAX; i++) {
        note("killed while it was %s: %" PRIu64, phase_names[i], c->in[i]);
        all = all && c->in[i];
    }
    note("while a flush was under way: %" PRIu64 "; at a system call: %" PRIu64
         "; again before it had read all: %" PRIu64, c->flushing, c->at_calls,
         c->twice);
    note("%" PRIu64 " desktops, %" PRIu64 " closed in order; %" PRIu64
         " kills of the store, too", c->desktops, c->closed, c->store_kills);
    note("%" PRIu64 " writes, %" PRIu64 " of them with FUA, %" PRIu64
         " zeroes and discards, %" PRIu64 " flushes answered", c->writes,
         c->fuas, c->zeroes, c->flushes);
    note("compared: %" PRIu64 " times the disk, %" PRIu64 " times the store, %"
         PRIu64 " of them drained; %" PRIu64 " sectors", c->disks, c->stores,
         c->drained, (c->disks + c->stores) * SECTORS);
    return all && c->flushing && c->at_calls && c->twice && c->closed &&
           c->store_kills && c->fuas && c->zeroes && c->flushes && c->drained;
}

static void tell_failure(const Killer *k)
{
    report(false, "kill: %s; --seed %" PRIu64 ", after %" PRIu64 " kills, %"
           PRIu64 " of this desktop, when it was %s", k->why, k->seed,
           k->c.killed, DESKTOP_KILLS - k->left, phase_names[k->sh->phase]);
}

static const char *option_string(char **argv, const char *name)
{
    for (char **arg = argv + 1; *arg; arg++) {
        if (g_str_equal(*arg, name) && arg[1]) {
            return arg[1];
        }
    }
    fprintf(stderr, "%s is needed\n", name);
    exit(2);
}

static void make_names(Killer *k, const char *dir)
{
    k->files.copy = g_build_filename(dir, "copy", NULL);
    k->files.journal = g_build_filename(dir, "buffer", NULL);
    k->files.socket = k->server.socket = g_build_filename(dir, "socket", NULL);
    k->server.image = g_build_filename(dir, "image", NULL);
    k->server.log = g_build_filename(dir, "log", NULL);
}

int main(int argc, char **argv)
{
    Killer k = {
        .seed = option_number(argv, "--seed", 1),
        .count = option_number(argv, "--count", 150),
        .server.daemon = option_string(argv, "--daemon"),
        .server.module = option_string(argv, "--volatile"),
        .model = model_new(),
        .sh = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0),
    };
    g_autofree char *dir = g_dir_make_tmp("pvs-kill-XXXXXX", NULL);
    g_autofree char *remove = g_strdup_printf("rm -rf '%s'", dir);
    bool ok, all;

    assert(k.sh != MAP_FAILED && dir);
    k.rng.state = k.seed;
    k.sh->next_id = 1;
    make_names(&k, dir);
    ok = run(&k);
    server_kill(&k.server);
    all = tell(&k);
    if (!ok) {
        note("its files: %s", dir);
        tell_failure(&k);
        return 1;
    }
    report(true, "kill: %" PRIu64 " times kill -9. Lost flushed writes: 0. "
           "Prefix violations: 0. Guest I/O errors: 0. --seed %" PRIu64,
           k.c.killed, k.seed);
    if (k.count >= 1000) {
        ok = report(all, "kill: everything above has happened");
    }
    return system(remove) || !ok;
}

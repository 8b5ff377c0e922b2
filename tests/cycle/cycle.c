/*
 * Cycle test: desktops that are used, reset, pushed to, saved and killed
 *
 * A cycle is some random requests and then one event: a reset, an assignment,
 * taking it back, closing and opening, saving and resuming in this process or
 * in the next one, or the sudden death of the process. All is compared by
 * content with a record in memory that outlives the process (desk.h).
 *
 * The parent has no block layer. It starts one process after the other. What
 * they do is given by the seed, but not to the microsecond when they die.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include "qapi/error.h"
#include "qemu/memalign.h"
#include "../kill/points.h"
#include "desk.h"

#define LIFE_CYCLES     60
#define MAX_REQUESTS    50
#define CYCLE_SECONDS   60      /* longer than this, and it hangs */
#define EXIT_NEXT       3       /* the child is done, the cycles are not */

/* Events */

/* Some are too small for the disk, and shall be refused */
static int random_image(Desk *d)
{
    int image;

    do {
        image = rng_below(&d->r->rng, IMAGES);
    } while (images[image].sectors < desk_names(d)->sectors &&
             rng_chance(&d->r->rng, 70));
    return image;
}

static void event_reset(Desk *d)
{
    Record *r = d->r;
    Names new = *desk_names(d);
    bool away = new.assigned != NONE && rng_chance(&r->rng, 30);
    bool take = r->pooled && new.assigned != NONE &&
                (!away || d->l->assigned_bs);

    if (away) {
        image_hide(r, d->dir, new.assigned);
    }
    r->counts.stayed += away && !take;
    if (take) {
        new = (Names) { new.assigned, NONE, images[new.assigned].sectors };
    }
    desk_begin(d, DOING_RESET, new);
    desk_changes(d);
    machine_quiet = away && !take;
    vdisk_pooled_reset_all();
    machine_quiet = false;
    desk_changed(d);
    /* The header follows in the background: until then it may be the old one */
    desk_wait_header(d);
    desk_end(d);
    image_show(r, d->dir);
    r->counts.reset++;
    r->counts.switched += take;
    desk_check_names(d);
    if (r->pooled) {
        desk_forget(d);
    }
    if (r->pooled && d->l->tier && vdisk_tier_use(d->l).used) {
        desk_fail(d, "blocks of the last session are in memory");
    }
    desk_compare(d, r->pooled);
}

static void event_assign(Desk *d)
{
    Record *r = d->r;
    Names new = *desk_names(d);
    int image = random_image(d);
    g_autofree char *path = image_path(d->dir, image);
    bool away = rng_chance(&r->rng, 5);
    bool good = r->pooled && !away && images[image].sectors >= new.sectors;
    Error *err = NULL;

    if (away) {
        image_hide(r, d->dir, image);
    }
    if (good) {
        new.assigned = image;
    }
    desk_begin(d, DOING_ASSIGN, new);
    if (desk_assign(d, path, images[image].format, &err) != good) {
        desk_fail(d, "image %d was%s assigned: %s", image, good ? " not" : "",
                  err ? error_get_pretty(err) : "");
    }
    desk_end(d);
    image_show(r, d->dir);
    error_free(err);
    *(good ? &r->counts.assigned : &r->counts.refused) += 1;
    desk_check_names(d);
}

static void event_unassign(Desk *d)
{
    Names new = *desk_names(d);

    new.assigned = NONE;
    desk_begin(d, DOING_UNASSIGN, new);
    if (!desk_assign(d, NULL, NULL, NULL)) {
        desk_fail(d, "nothing could be unassigned");
    }
    desk_end(d);
    d->r->counts.unassigned++;
    desk_check_names(d);
}

static void check_file(Desk *d)
{
    BdrvCheckResult result = {};

    desk_check(d, bdrv_check(blk_bs(d->blk), &result, 0), "check");
    if (result.corruptions || result.leaks || result.check_errors) {
        desk_fail(d, "check finds %d corruptions, %d leaks", result.corruptions,
                  result.leaks);
    }
}

static void event_reopen(Desk *d)
{
    Record *r = d->r;

    desk_begin(d, DOING_CLOSE, *desk_names(d));
    desk_close(d);
    desk_end(d);
    if (r->pooled) {
        desk_forget(d);
    } else {
        memcpy(r->flushed, r->ref, sizeof(r->ref));
        r->log_n = 0;
    }
    desk_begin(d, DOING_OPEN, *desk_names(d));
    desk_open(d, false, &error_abort);
    desk_end(d);
    r->counts.reopened++;
    desk_compare(d, r->pooled);
    if (!r->pooled) {
        check_file(d);
    }
}

/* As the machine is saved: the disk is inactive then, and all in the file */
static void save(Desk *d)
{
    Record *r = d->r;

    desk_begin(d, DOING_SAVE, *desk_names(d));
    desk_changes(d);
    desk_check(d, bdrv_inactivate_all(), "saving");
    if (r->pooled) {
        /* Killed from here on, nobody has the machine's half of the state */
        qatomic_set_mb(&r->has_token, false);
        memcpy(r->saved_ref, r->ref, sizeof(r->ref));
        memcpy(r->token, d->l->header.token, sizeof(r->token));
        r->saved = SAVED_YES;
        qatomic_set_mb(&r->has_token, true);
    } else {
        memcpy(r->flushed, r->ref, sizeof(r->ref));
        r->log_n = 0;
    }
    desk_end(d);
    r->counts.saved++;
}

/* A migration that fails: the disk goes on in this process */
static void event_save(Desk *d)
{
    save(d);
    bdrv_activate_all(&error_abort);
    desk_check_names(d);
    desk_compare(d, false);
}

static void event_hand_over(Desk *d)
{
    save(d);
    d->r->resume_next = d->r->pooled;
    if (rng_chance(&d->r->rng, 50)) {
        desk_close(d);
    }
    _exit(EXIT_NEXT);
}

static void arm(Desk *d)
{
    static const unsigned times[] = { 100, 1000, 5000 };
    static const unsigned points[] = { 4, 16, 80 };
    Rng *rng = &d->r->rng;
    int i = rng_below(rng, 3);

    qatomic_set_mb(&d->r->killing, true);
    if (rng_chance(rng, 50)) {
        kill_after(1 + rng_below(rng, times[i]));
    } else {
        points_arm(1 + rng_below(rng, points[i]));
    }
}

static void (*const events_to_die_in[])(Desk *d) = {
    event_reset, event_reset, event_assign, event_assign, event_unassign,
    event_reopen, event_save,
};

static void event_to_die_in(Desk *d)
{
    events_to_die_in[rng_below(&d->r->rng, ARRAY_SIZE(events_to_die_in))](d);
}

static void event_crash(Desk *d)
{
    Rng *rng = &d->r->rng;

    d->r->counts.crashed++;
    if (rng_chance(rng, 20)) {
        /* Whatever comes first after saving, without a request in between */
        event_save(d);
        arm(d);
        event_to_die_in(d);
        kill_now();
    }
    if (rng_chance(rng, 50)) {
        event_assign(d);
    }
    arm(d);
    for (int i = 0; i < 4; i++) {
        if (rng_chance(rng, 50)) {
            desk_random_requests(d, 1 + rng_below(rng, MAX_REQUESTS));
        }
        event_to_die_in(d);
    }
    kill_now();
}

static const struct {
    void (*func)(Desk *d);
    unsigned weight;    /* of 100 */
} events[] = {
    { event_reset,      28 },
    { event_assign,     20 },
    { event_unassign,    6 },
    { event_reopen,     12 },
    { event_save,       10 },
    { event_hand_over,   4 },
    { event_crash,      20 },
};

static void random_event(Desk *d)
{
    unsigned n = rng_below(&d->r->rng, 100);
    int i = 0;

    while (n >= events[i].weight) {
        n -= events[i++].weight;
    }
    events[i].func(d);
}

/* Children */

/* Resume the saved state: can it be, and is it what was saved? */
static bool resume(Desk *d)
{
    Record *r = d->r;
    Error *err = NULL;
    bool ok;

    machine_token = r->token;
    ok = desk_open(d, true, &err);
    if (ok ? r->saved == SAVED_NO : r->saved == SAVED_YES) {
        desk_fail(d, "the saved state was%s resumed: %s", ok ? "" : " not",
                  err ? error_get_pretty(err) : "the disk has changed since");
    }
    if (!ok) {
        error_free(err);
        desk_close(d);
        r->saved = SAVED_NO;
        r->counts.not_resumed++;
        return false;
    }
    memcpy(r->ref, r->saved_ref, sizeof(r->ref));
    r->saved = SAVED_YES;
    r->counts.resumed++;
    desk_compare(d, false);
    return true;
}

static void begin_after_crash(Desk *d)
{
    desk_open(d, false, &error_abort);
    if (d->r->pooled) {
        desk_forget(d);
    } else {
        desk_accept(d);
        check_file(d);
    }
    desk_compare(d, d->r->pooled);
}

/* What the last process has left */
static void begin(Desk *d)
{
    Record *r = d->r;
    bool must_resume = r->resume_next;
    bool resumed = false;

    r->resume_next = false;
    if (must_resume || (r->has_token && rng_chance(&r->rng, 40))) {
        resumed = resume(d);
    }
    if (!resumed) {
        begin_after_crash(d);
    }
    r->doing = DOING_NOTHING;
}

static void begin_life(Desk *d)
{
    desk_make(d);
    desk_open(d, false, &error_abort);
    desk_compare(d, true);
    d->r->left = 1 + rng_below(&d->r->rng, LIFE_CYCLES);
}

static void child(Record *r, const char *dir)
{
    Desk d = { .r = r, .dir = dir };

    block_layer_init();
    d.path = g_build_filename(dir, "disk.mcs", NULL);
    d.buf = qemu_memalign(GRANULE, MAX_REQUEST * SECTOR);
    if (r->left) {
        begin(&d);
    } else {
        images_make(&d);
        begin_life(&d);
    }
    while (r->cycle < r->cycles) {
        alarm(CYCLE_SECONDS);
        r->cycle++;
        r->left--;
        desk_random_requests(&d, rng_below(&r->rng, MAX_REQUESTS));
        if (r->left == 0) {
            event_reopen(&d);
            desk_close(&d);
            begin_life(&d);
        } else {
            random_event(&d);
        }
    }
    desk_close(&d);
    exit(0);
}

/* Parent */

/* Returns whether there is to be another child */
static bool ended(Record *r, int status, bool *ok)
{
    if (r->failed) {
        *ok = false;
        return false;
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && r->killing) {
        r->killed = true;
        r->counts.killed_in[r->doing]++;
        return true;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NEXT) {
        return true;
    }
    *ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!*ok) {
        report(false, "cycle: the process ended with status 0x%x; cycle %"
               PRIu64 ", --seed %" PRIu64, status, r->cycle, r->seed);
    }
    return false;
}

static bool run_children(Record *r, const char *dir)
{
    bool ok = true;
    int status;

    do {
        pid_t pid = fork();

        if (pid == 0) {
            child(r, dir);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid) {
            return report(false, "cycle: no process: %s", strerror(errno));
        }
        image_show(r, dir);
        r->killing = r->killing && WIFSIGNALED(status);
    } while (ended(r, status, &ok));
    return ok;
}

/* Returns whether there was some of all */
static bool tell(const Record *r)
{
    const Counts *c = &r->counts;

    note("%" PRIu64 " resets: %" PRIu64 " took an image, %" PRIu64
         " found theirs gone", c->reset, c->switched, c->stayed);
    note("%" PRIu64 " assigned, %" PRIu64 " refused, %" PRIu64 " taken back",
         c->assigned, c->refused, c->unassigned);
    note("%" PRIu64 " reopened, %" PRIu64 " saved, %" PRIu64 " resumed in "
         "another process, %" PRIu64 " void", c->reopened, c->saved,
         c->resumed, c->not_resumed);
    note("%" PRIu64 " killed: %" PRIu64 " in requests, %" PRIu64 " assigning, %"
         PRIu64 " in resets, %" PRIu64 " saving, %" PRIu64 " opening",
         c->crashed, c->killed_in[DOING_REQUEST], c->killed_in[DOING_ASSIGN],
         c->killed_in[DOING_RESET], c->killed_in[DOING_SAVE],
         c->killed_in[DOING_OPEN]);
    note("of changed headers they left %" PRIu64 " old and %" PRIu64 " new; "
         "memory was full %" PRIu64 " times", c->found_old, c->found_new,
         c->overflowed);
    return c->switched && c->stayed && c->refused && c->resumed &&
           c->not_resumed && c->killed_in[DOING_RESET] && c->overflowed &&
           c->killed_in[DOING_ASSIGN] && c->found_old && c->found_new;
}

int main(int argc, char **argv)
{
    Record *r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_autofree char *dir = g_dir_make_tmp("mcs-cycle-XXXXXX", NULL);
    g_autofree char *remove = g_strdup_printf("rm -rf '%s'", dir);
    bool ok;

    assert(r != MAP_FAILED && dir);
    r->cycles = option_number(argv, "--cycles", 2000);
    r->seed = option_number(argv, "--seed", 1);
    r->rng.state = r->seed;
    r->next_id = 1;
    r->hidden = NONE;
    ok = run_children(r, dir);
    if (ok) {
        bool all = tell(r);

        report(true, "cycle: %" PRIu64 " cycles with %" PRIu64 " requests, %"
               PRIu64 " MiB read and compared, 0 wrong", r->cycle,
               r->counts.requests, r->counts.sectors / 2048);
        if (r->cycles >= 2000) {
            ok = report(all, "cycle: everything above has happened");
        }
    }
    return system(remove) || !ok;
}

/*
 * A push or rollback that is carried out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "push-run.h"
#include "disk-job.h"
#include "plan.h"

#include "cli/progress.h"

#include <signal.h>
#include <stdio.h>

#define LOOK_AT_SIGNALS_MS  200

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

static void push_desktop_free(void *data)
{
    PushDesktop *d = data;

    desktop_metadata_free(d->before);
    desktop_metadata_free(d->after);
    g_free(d);
}

void push_init(Push *push, Survey *survey)
{
    *push = (Push){
        .survey = survey,
        .desktops = g_ptr_array_new_with_free_func(push_desktop_free),
    };
}

void push_clear(Push *push)
{
    g_clear_pointer(&push->desktops, g_ptr_array_unref);
    g_clear_pointer(&push->rollout, rollout_free);
}

static DesktopMetadata *copy(const DesktopMetadata *d)
{
    g_autofree char *text = desktop_metadata_text(d);

    return desktop_metadata_parse(text, NULL);
}

void push_add(Push *push, Found *found, DesktopMetadata *after)
{
    PushDesktop *d = g_new0(PushDesktop, 1);

    d->found = found;
    d->before = copy(found->desktop);
    d->after = after;
    g_ptr_array_add(push->desktops, d);
}

/* Runs on it already, and takes nothing else at its next reset */
static bool is_there(const PushDesktop *d)
{
    const Actual *a = &d->found->actual;

    return actual_is(a, d->after, &d->after->wanted) && !a->assigned_image &&
           !a->assigned;
}

static void make_rollout(Push *push)
{
    push->rollout = rollout_new(&push->options);
    for (guint i = 0; i < push->desktops->len; i++) {
        PushDesktop *d = g_ptr_array_index(push->desktops, i);

        rollout_add(push->rollout, d->found->host,
                    push->now && d->found->running && !is_there(d));
        if (d->found->mute) {
            rollout_skip(push->rollout, i, d->found->actual_trouble);
        }
    }
}

typedef struct Run {
    Push *push;
    RolloutAction *begun;       /* by desktop: its job's */
    DiskJob **watched;          /* what it looked like before its reset */
    Progress *progress;
    RolloutState *told;
} Run;

static DiskJob *make_job(Run *run, guint i, RolloutAction action)
{
    PushDesktop *d = g_ptr_array_index(run->push->desktops, i);
    const RolloutDesktop *r = rollout_desktop(run->push->rollout, i);
    bool back = action == ROLLOUT_RESTORE;
    DiskJob *job = disk_job_new(d->found->uuid, back ? d->before : d->after,
                                back ? d->after : d->before,
                                survey_host(run->push->survey,
                                            d->found->host));

    job->reset_too = back && r->was_reset;
    if (action == ROLLOUT_LOOK) {
        job->watch_agent = run->watched[i]->watch_agent;
        job->watch_daemon = run->watched[i]->watch_daemon;
        job->resets = run->watched[i]->resets;
        job->counted = run->watched[i]->counted;
        job->writes = run->watched[i]->writes;
    }
    return job;
}

/* One behind vhost-user is switched off and on, one that has ended on */
static int patience(const PushDesktop *d, RolloutAction action)
{
    return action == ROLLOUT_RESTORE ||
           (action == ROLLOUT_RESET && d->after->run == RUN_VHOST_USER)
           ? FLEET_LONG_MS : 0;
}

static void post(Run *run, guint i, RolloutAction action)
{
    static FleetFunc *const funcs[] = {
        [ROLLOUT_ASSIGN] = disk_job_take,
        [ROLLOUT_RESET] = disk_job_reset,
        [ROLLOUT_LOOK] = disk_job_watch,
        [ROLLOUT_RESTORE] = disk_job_take,
    };
    PushDesktop *d = g_ptr_array_index(run->push->desktops, i);

    run->begun[i] = action;
    fleet_post(run->push->survey->fleet, d->found->host, i, funcs[action],
               make_job(run, i, action), disk_job_free,
               patience(d, action));
}

static void take(Run *run, FleetAnswer *a)
{
    Rollout *r = run->push->rollout;
    gint64 now = g_get_monotonic_time();
    g_autoptr(GError) error = g_steal_pointer(&a->error);
    DiskJob *job = a->job;

    if (error && fleet_lost(run->push->survey->fleet, a->host)) {
        rollout_lost(r, a->tag, error->message);
    } else if (error && !job) {
        rollout_unanswered(r, a->tag, error->message);
    } else if (run->begun[a->tag] == ROLLOUT_LOOK) {
        /* An error is as good as not up: it may be on its way */
        rollout_looked(r, a->tag, now, !error && job->up);
    } else {
        rollout_answer(r, a->tag, now, error ? error->message : NULL);
    }
    if (run->begun[a->tag] == ROLLOUT_RESET && !error) {
        run->watched[a->tag] = g_steal_pointer(&job);
    } else if (run->begun[a->tag] == ROLLOUT_LOOK && !error) {
        run->watched[a->tag]->counted = job->counted;
        run->watched[a->tag]->writes = job->writes;
    }
    if (job) {
        disk_job_free(job);
    }
}

static guint at_their_end(const Rollout *r)
{
    guint n = 0;

    for (int state = ROLLOUT_DONE; state < ROLLOUT_STATES; state++) {
        n += rollout_count(r, state);
    }
    return n;
}

/* What is new and for people to read: once for each desktop and state */
static void tell(Run *run)
{
    Push *push = run->push;

    progress_set(run->progress, at_their_end(push->rollout),
                 push->desktops->len);

    for (guint i = 0; !push->quiet && i < push->desktops->len; i++) {
        PushDesktop *d = g_ptr_array_index(push->desktops, i);
        const RolloutDesktop *r = rollout_desktop(push->rollout, i);

        if (r->state != run->told[i] && r->why &&
            (r->state == ROLLOUT_FAILED || r->state == ROLLOUT_NOT_RESTORED ||
             r->state == ROLLOUT_UNKNOWN)) {
            fprintf(stderr, "%s on %s: %s: %s\n", d->found->name,
                    survey_host(push->survey, d->found->host)->name,
                    rollout_state_text(r->state), r->why);
        }
        run->told[i] = r->state;
    }
}

static void wait_for(Run *run)
{
    gint64 due = rollout_due(run->push->rollout);
    gint64 left = due == G_MAXINT64 ? G_MAXINT64
                                    : MAX(due - g_get_monotonic_time(), 0);
    FleetAnswer answer;
    int ms = MIN(left / 1000 + 1, LOOK_AT_SIGNALS_MS);

    if (!fleet_owed(run->push->survey->fleet)) {
        g_usleep(ms * 1000);
    } else if (fleet_next(run->push->survey->fleet, &answer, ms)) {
        take(run, &answer);
        tell(run);
    }
    if (interrupted) {
        rollout_stop(run->push->rollout, "the push was interrupted before "
                     "its turn");
    }
}

static void drive(Run *run)
{
    for (;;) {
        guint i = 0;
        RolloutAction action = rollout_next(run->push->rollout,
                                            g_get_monotonic_time(), &i);

        if (action == ROLLOUT_FINISHED) {
            return;
        }
        if (action == ROLLOUT_WAIT) {
            wait_for(run);
        } else {
            post(run, i, action);
        }
    }
}

void push_run(Push *push)
{
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESETHAND };
    guint n = push->desktops->len;
    Run run = {
        .push = push,
        .begun = g_new0(RolloutAction, n + 1),
        .watched = g_new0(DiskJob *, n + 1),
        .told = g_new0(RolloutState, n + 1),
    };

    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    /* The session of the administrator ends: no reason to stop in the middle,
     * with desktops that nobody looks after */
    sigaction(SIGHUP, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    make_rollout(push);
    run.progress = progress_new("desktops", n, false, push->quiet || !n);
    drive(&run);
    tell(&run);
    progress_done(run.progress);
    progress_free(run.progress);
    for (guint i = 0; i < n; i++) {
        g_clear_pointer(&run.watched[i], disk_job_free);
    }
    g_free(run.begun);
    g_free(run.watched);
    g_free(run.told);
}

/*
 * Work on many hosts at once; none waits for another
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "fleet.h"

#include <libvirt/virterror.h>
#include <signal.h>

typedef struct Job {
    guint id;
    FleetFunc *run;             /* NULL: the thread ends */
    void *data;
    GDestroyNotify destroy;
    GError *error;
    bool broken;                /* the connection is, that is */
} Job;

/* Closing a connection asks the host, too: it has this long, in ms */
#define CLOSE_TIMEOUT   1000

/* What a host's threads share with the caller and may outlive it */
typedef struct Work {
    gatomicrefcount refs;
    char *uri;
    guint host;
    GAsyncQueue *jobs;          /* Job; to the threads */
    GAsyncQueue *answers;       /* Answer; all hosts' */

    GMutex lock;                /* of what follows */
    guint threads;              /* that take jobs */
    guint connected;            /* of them */
    GError *broken;             /* no connection, or one that broke */
} Work;

typedef struct Answer {
    guint host;
    Job *job;                   /* NULL: a thread has ended */
} Answer;

/* A host, as the caller's thread sees it */
typedef struct Member {
    Work *work;
    bool started;
    GHashTable *owed;           /* id of a job -> tag */
    gint64 heard;               /* when it answered, or was first owed */
    GError *lost;
    bool abandoned;             /* its threads do not answer */
} Member;

struct Fleet {
    GPtrArray *hosts;
    Member *members;
    GAsyncQueue *answers;
    GQueue failed;              /* FleetAnswer of hosts that were lost */
    int timeout_ms;
    guint last_id, owed;
};

static void job_free(Job *job)
{
    if (job->data && job->destroy) {
        job->destroy(job->data);
    }
    g_clear_error(&job->error);
    g_free(job);
}

static void answer_free(void *data)
{
    Answer *answer = data;

    g_clear_pointer(&answer->job, job_free);
    g_free(answer);
}

static void work_unref(void *data)
{
    Work *work = data;

    if (!g_atomic_ref_count_dec(&work->refs)) {
        return;
    }
    g_clear_error(&work->broken);
    g_async_queue_unref(work->jobs);
    g_async_queue_unref(work->answers);
    g_mutex_clear(&work->lock);
    g_free(work->uri);
    g_free(work);
}

bool fleet_set_error(GError **error, const char *what)
{
    virErrorPtr last = virGetLastError();

    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", what,
                last && last->message ? last->message : "libvirt says no more");
    return false;
}

virDomainPtr fleet_domain(virConnectPtr conn, const char *uuid, GError **error)
{
    virDomainPtr domain = virDomainLookupByUUIDString(conn, uuid);

    if (!domain) {
        fleet_set_error(error, "the domain");
    }
    return domain;
}

/* Takes @why */
static void set_broken(Work *work, GError *why)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&work->lock);

    if (work->broken) {
        g_error_free(why);
    } else {
        work->broken = why;
    }
}

/* After a job failed: by itself, or because the connection did? */
static bool is_broken(Work *work, virConnectPtr conn, const GError *why)
{
    if (virConnectIsAlive(conn) != 0) {
        return false;
    }
    set_broken(work, g_error_new(G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
                                 "the connection broke: %s", why->message));
    return true;
}

/* False with @error once the host is given up */
static bool check_broken(Work *work, GError **error)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&work->lock);

    if (work->broken) {
        g_propagate_error(error, g_error_copy(work->broken));
    }
    return !work->broken;
}

/*
 * A thread has, or has not, got a connection. False: this one shall not take
 * jobs, because others have one, and the host admits no more of them.
 */
static bool count_connection(Work *work, bool has)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&work->lock);

    work->connected += has;
    if (!has && work->connected) {
        work->threads--;
        return false;
    }
    return true;
}

/* False if others are to do it */
static bool run_job(Work *work, virConnectPtr *conn, Job *job)
{
    if (!check_broken(work, &job->error)) {
        job->broken = true;
        return true;
    }
    virResetLastError();
    if (!*conn) {
        *conn = virConnectOpen(work->uri);
        if (!*conn) {
            fleet_set_error(&job->error, "no connection");
        }
        if (!count_connection(work, *conn)) {
            g_clear_error(&job->error);
            return false;
        }
    }
    if (!*conn) {
        job->broken = true;
        set_broken(work, g_error_copy(job->error));
    } else if (!job->run(*conn, job->data, &job->error)) {
        job->broken = is_broken(work, *conn, job->error);
    }
    return true;
}

static void answer(Work *work, Job *job)
{
    Answer *a = g_new(Answer, 1);

    *a = (Answer){ work->host, job };
    g_async_queue_push(work->answers, a);
}

/* A host that hangs up between two calls is an error of the next one: libvirt
 * writes to its socket without MSG_NOSIGNAL. The signal is the thread's own. */
static void block_sigpipe(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void *host_thread(void *data)
{
    Work *work = data;
    virConnectPtr conn = NULL;
    Job *job;

    block_sigpipe();
    while ((job = g_async_queue_pop(work->jobs))->run) {
        if (!run_job(work, &conn, job)) {
            g_async_queue_push_front(work->jobs, job);
            work_unref(work);
            return NULL;
        }
        answer(work, job);
    }
    job_free(job);
    if (conn) {
        virConnectClose(conn);
    }
    answer(work, NULL);
    work_unref(work);
    return NULL;
}

static void ignore_error(void *opaque, virErrorPtr error)
{
}

static Work *work_new(const Host *host, guint number, GAsyncQueue *answers)
{
    Work *work = g_new0(Work, 1);

    g_atomic_ref_count_init(&work->refs);
    work->uri = g_strdup(host->uri);
    work->host = number;
    work->jobs = g_async_queue_new();
    work->answers = g_async_queue_ref(answers);
    g_mutex_init(&work->lock);
    return work;
}

Fleet *fleet_new(GPtrArray *hosts, int timeout_ms)
{
    Fleet *fleet = g_new0(Fleet, 1);

    virInitialize();
    virSetErrorFunc(NULL, ignore_error);    /* or it prints them */
    fleet->hosts = hosts;
    fleet->members = g_new0(Member, hosts->len);
    fleet->answers = g_async_queue_new_full(answer_free);
    fleet->timeout_ms = timeout_ms;
    g_queue_init(&fleet->failed);
    for (guint i = 0; i < hosts->len; i++) {
        Member *m = &fleet->members[i];

        m->work = work_new(g_ptr_array_index(hosts, i), i, fleet->answers);
        m->owed = g_hash_table_new(NULL, NULL);
    }
    return fleet;
}

static void start_threads(Member *m)
{
    m->started = true;
    m->work->threads = FLEET_THREADS;
    for (int i = 0; i < FLEET_THREADS; i++) {
        g_atomic_ref_count_inc(&m->work->refs);
        g_thread_unref(g_thread_new("host", host_thread, m->work));
    }
}

/* Returns how many may be expected to */
static guint end_threads(Member *m)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&m->work->lock);

    for (guint i = 0; i < m->work->threads; i++) {
        g_async_queue_push(m->work->jobs, g_new0(Job, 1));
    }
    return !m->abandoned && !g_hash_table_size(m->owed) ? m->work->threads : 0;
}

static void wait_for_threads(Fleet *fleet, guint threads)
{
    gint64 end = g_get_monotonic_time() + CLOSE_TIMEOUT * 1000;

    while (threads) {
        gint64 left = MAX(end - g_get_monotonic_time(), 0);
        Answer *from = g_async_queue_timeout_pop(fleet->answers, left);

        if (!from) {
            return;             /* they are left to themselves */
        }
        threads -= !from->job && !fleet->members[from->host].abandoned;
        answer_free(from);
    }
}

void fleet_free(Fleet *fleet)
{
    FleetAnswer *failed;
    guint threads = 0;

    for (guint i = 0; i < fleet->hosts->len; i++) {
        threads += end_threads(&fleet->members[i]);
    }
    wait_for_threads(fleet, threads);
    for (guint i = 0; i < fleet->hosts->len; i++) {
        Member *m = &fleet->members[i];

        work_unref(m->work);
        g_hash_table_unref(m->owed);
        g_clear_error(&m->lost);
    }
    while ((failed = g_queue_pop_head(&fleet->failed))) {
        g_clear_error(&failed->error);
        g_free(failed);
    }
    g_async_queue_unref(fleet->answers);
    g_free(fleet->members);
    g_free(fleet);
}

static void fail(Fleet *fleet, guint host, guint tag)
{
    FleetAnswer *answer = g_new0(FleetAnswer, 1);

    answer->host = host;
    answer->tag = tag;
    answer->error = g_error_copy(fleet->members[host].lost);
    g_queue_push_tail(&fleet->failed, answer);
}

void fleet_post(Fleet *fleet, guint host, guint tag, FleetFunc *run, void *data,
                GDestroyNotify destroy)
{
    Member *m = &fleet->members[host];
    Job *job;

    fleet->owed++;
    if (m->lost) {
        if (destroy) {
            destroy(data);
        }
        fail(fleet, host, tag);
        return;
    }
    if (!m->started) {
        start_threads(m);
    }
    if (!g_hash_table_size(m->owed)) {
        m->heard = g_get_monotonic_time();
    }
    job = g_new0(Job, 1);
    job->id = ++fleet->last_id;
    job->run = run;
    job->data = data;
    job->destroy = destroy;
    g_hash_table_insert(m->owed, GUINT_TO_POINTER(job->id),
                        GUINT_TO_POINTER(tag));
    g_async_queue_push(m->work->jobs, job);
}

/* The one way in which a host is given up */
static void abandon(Fleet *fleet, guint host)
{
    Member *m = &fleet->members[host];
    GHashTableIter iter;
    void *tag;
    Job *job;

    m->abandoned = true;
    if (!m->lost) {
        g_set_error(&m->lost, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
                    "does not answer within %g s",
                    fleet->timeout_ms / 1000.0);
    }
    while ((job = g_async_queue_try_pop(m->work->jobs))) {
        job_free(job);          /* nobody began with it, and nobody shall */
    }
    g_hash_table_iter_init(&iter, m->owed);
    while (g_hash_table_iter_next(&iter, NULL, &tag)) {
        fail(fleet, host, GPOINTER_TO_UINT(tag));
    }
    g_hash_table_remove_all(m->owed);
}

/* Gives up hosts that are late. Returns how long the others have, in µs. */
static gint64 look_at_clocks(Fleet *fleet)
{
    gint64 now = g_get_monotonic_time(), left = G_MAXINT64;

    for (guint i = 0; i < fleet->hosts->len; i++) {
        Member *m = &fleet->members[i];
        gint64 due = m->heard + fleet->timeout_ms * (gint64)1000;

        if (!g_hash_table_size(m->owed)) {
            continue;
        }
        if (due <= now) {
            abandon(fleet, i);
        } else {
            left = MIN(left, due - now);
        }
    }
    return left;
}

/* False if it comes too late */
static bool take(Fleet *fleet, Answer *from, FleetAnswer *answer)
{
    Member *m = &fleet->members[from->host];
    Job *job = from->job;
    void *tag;

    if (!g_hash_table_steal_extended(m->owed, GUINT_TO_POINTER(job->id), NULL,
                                     &tag)) {
        answer_free(from);
        return false;
    }
    m->heard = g_get_monotonic_time();
    if (job->broken && !m->lost) {
        m->lost = g_error_copy(job->error);
    }
    answer->host = from->host;
    answer->tag = GPOINTER_TO_UINT(tag);
    answer->job = g_steal_pointer(&job->data);
    answer->error = g_steal_pointer(&job->error);
    answer_free(from);
    return true;
}

static bool take_failed(Fleet *fleet, FleetAnswer *answer)
{
    FleetAnswer *failed = g_queue_pop_head(&fleet->failed);

    if (failed) {
        *answer = *failed;
        g_free(failed);
    }
    return failed != NULL;
}

bool fleet_next(Fleet *fleet, FleetAnswer *answer, int wait_ms)
{
    gint64 end = wait_ms < 0 ? G_MAXINT64
                             : g_get_monotonic_time() + wait_ms * (gint64)1000;

    while (fleet->owed) {
        Answer *from = g_async_queue_try_pop(fleet->answers);
        gint64 left;

        if (!from && !take_failed(fleet, answer)) {
            left = MIN(look_at_clocks(fleet),
                       MAX(end - g_get_monotonic_time(), 0));
            if (!g_queue_is_empty(&fleet->failed)) {
                continue;
            }
            from = g_async_queue_timeout_pop(fleet->answers, left);
            if (!from && g_get_monotonic_time() >= end) {
                return false;
            }
            if (!from) {
                continue;
            }
        }
        if (!from || take(fleet, from, answer)) {
            fleet->owed--;
            return true;
        }
    }
    return false;
}

guint fleet_owed(const Fleet *fleet)
{
    return fleet->owed;
}

const GError *fleet_lost(const Fleet *fleet, guint host)
{
    return fleet->members[host].lost;
}

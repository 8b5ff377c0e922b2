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
    GHashTable *begun;          /* id of a job -> Begun; one that is given up
                                   is no longer there */
    GError *broken;             /* no connection, or one that broke */
} Work;

/* A job that a thread works on */
typedef struct Begun {
    gint64 since;
    bool connected;             /* its thread is */
} Begun;

typedef struct Answer {
    guint host;
    Job *job;                   /* NULL: a thread has ended */
    bool probe;                 /* a probe has, that is */
    bool alive;                 /* and the host answered it */
} Answer;

/* A job that was posted and not answered */
typedef struct Owed {
    guint tag;
    gint64 patience;            /* how long it may take, in µs */
} Owed;

/* A host, as the caller's thread sees it */
typedef struct Member {
    Work *work;
    bool started;
    GHashTable *owed;           /* id of a job -> Owed */
    gint64 heard;               /* when it answered, or was first owed */
    gint64 probed;              /* when it was asked whether it is there */
    bool probing;               /* and has not said so yet */
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
    g_hash_table_unref(work->begun);
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

static void begin(Work *work, const Job *job, bool connected)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&work->lock);
    Begun *b = g_new(Begun, 1);

    *b = (Begun){ g_get_monotonic_time(), connected };
    g_hash_table_insert(work->begun, GUINT_TO_POINTER(job->id), b);
}

/* False if it was given up, and its thread with it */
static bool end(Work *work, const Job *job)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&work->lock);

    return g_hash_table_remove(work->begun, GUINT_TO_POINTER(job->id));
}

/*
 * The thread that has begun with @job has, or has not, got a connection. False:
 * it shall not do it. Either the job was given up meanwhile, or others have a
 * connection, and the host admits no more of them: then it takes no more jobs.
 */
static bool count_connection(Work *work, const Job *job, bool has)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&work->lock);
    Begun *b = g_hash_table_lookup(work->begun, GUINT_TO_POINTER(job->id));

    if (!b) {
        return false;
    }
    if (!has && work->connected) {
        work->threads--;
        return false;
    }
    b->connected = has;
    work->connected += has;
    return true;
}

/* False if this thread does not do it */
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
        if (!count_connection(work, job, *conn)) {
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

    *a = (Answer){ .host = work->host, .job = job };
    g_async_queue_push(work->answers, a);
    /* cppcheck-suppress memleak ; the queue has it now */
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

/* Does jobs until one is the last. True if somebody waits for this thread. */
static bool do_jobs(Work *work, virConnectPtr *conn)
{
    Job *job;

    while ((job = g_async_queue_pop(work->jobs))->run) {
        bool done, wanted;

        begin(work, job, *conn);
        done = run_job(work, conn, job);
        wanted = end(work, job);
        if (wanted && !done) {
            g_async_queue_push_front(work->jobs, job);
            return false;
        }
        if (!wanted) {          /* another thread has taken its place */
            job_free(job);
            return false;
        }
        answer(work, job);
    }
    job_free(job);
    return true;
}

static void *host_thread(void *data)
{
    Work *work = data;
    virConnectPtr conn = NULL;
    bool wanted;

    block_sigpipe();
    wanted = do_jobs(work, &conn);
    if (conn) {
        virConnectClose(conn);
    }
    if (wanted) {
        answer(work, NULL);
    }
    work_unref(work);
    return NULL;
}

/* Its jobs may take long; is the host there? Asked on a connection of its own,
 * which a QEMU that hangs does not hold. */
static void *probe_thread(void *data)
{
    Work *work = data;
    Answer *a = g_new(Answer, 1);
    unsigned long version;
    virConnectPtr conn;

    block_sigpipe();
    conn = virConnectOpen(work->uri);
    *a = (Answer){
        .host = work->host,
        .probe = true,
        .alive = conn && virConnectGetLibVersion(conn, &version) == 0,
    };
    g_async_queue_push(work->answers, a);
    if (conn) {
        virConnectClose(conn);
    }
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
    work->begun = g_hash_table_new_full(NULL, NULL, NULL, g_free);
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
        m->owed = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    }
    return fleet;
}

static void start_thread(Work *work, GThreadFunc run)
{
    g_atomic_ref_count_inc(&work->refs);
    g_thread_unref(g_thread_new("host", run, work));
}

static void start_threads(Member *m)
{
    m->started = true;
    m->work->threads = FLEET_THREADS;
    for (int i = 0; i < FLEET_THREADS; i++) {
        start_thread(m->work, host_thread);
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
        threads -= !from->job && !from->probe &&
                   !fleet->members[from->host].abandoned;
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

static void fail(Fleet *fleet, guint host, guint tag, const GError *why)
{
    FleetAnswer *answer = g_new0(FleetAnswer, 1);

    answer->host = host;
    answer->tag = tag;
    answer->error = g_error_copy(why);
    g_queue_push_tail(&fleet->failed, answer);
}

static Owed *owed_new(const Fleet *fleet, guint tag, int patience_ms)
{
    Owed *owed = g_new(Owed, 1);

    *owed = (Owed){ tag, MAX(fleet->timeout_ms, patience_ms) * (gint64)1000 };
    return owed;
}

void fleet_post(Fleet *fleet, guint host, guint tag, FleetFunc *run, void *data,
                GDestroyNotify destroy, int patience_ms)
{
    Member *m = &fleet->members[host];
    Job *job;

    fleet->owed++;
    if (m->lost) {
        if (destroy) {
            destroy(data);
        }
        fail(fleet, host, tag, m->lost);
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
                        owed_new(fleet, tag, patience_ms));
    g_async_queue_push(m->work->jobs, job);
    /* cppcheck-suppress memleak ; the queue has it now */
}

/* The one way in which a host is given up */
static void abandon(Fleet *fleet, guint host)
{
    Member *m = &fleet->members[host];
    GHashTableIter iter;
    void *owed;
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
    while (g_hash_table_iter_next(&iter, NULL, &owed)) {
        fail(fleet, host, ((Owed *)owed)->tag, m->lost);
    }
    g_hash_table_remove_all(m->owed);
}

/* A job that takes too long: what came of it is not known. Its thread is left
 * behind with it, and another one takes its place. */
static void give_up(Fleet *fleet, guint host, guint id)
{
    Member *m = &fleet->members[host];
    g_autofree Owed *owed = NULL;
    g_autoptr(GError) why = NULL;

    g_hash_table_steal_extended(m->owed, GUINT_TO_POINTER(id), NULL,
                                (void **)&owed);
    why = g_error_new(G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "the host answers, but "
                      "this was not done within %g s; what came of it is not "
                      "known", owed->patience / 1e6);
    fail(fleet, host, owed->tag, why);
    start_thread(m->work, host_thread);
}

/* The ids of jobs that take too long: their time was over when the host was
 * last heard. One that is not heard may be lost with all of them. */
static GArray *take_late(Member *m)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&m->work->lock);
    GArray *late = g_array_new(false, false, sizeof(guint));
    GHashTableIter iter;
    void *key, *value;

    g_hash_table_iter_init(&iter, m->work->begun);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        const Owed *owed = g_hash_table_lookup(m->owed, key);
        const Begun *b = value;
        guint id = GPOINTER_TO_UINT(key);

        if (b->since + owed->patience <= m->heard) {
            m->work->connected -= b->connected;
            g_hash_table_iter_remove(&iter);
            g_array_append_val(late, id);
        }
    }
    return late;
}

static void look_at_jobs(Fleet *fleet, guint host)
{
    g_autoptr(GArray) late = take_late(&fleet->members[host]);

    for (guint i = 0; i < late->len; i++) {
        give_up(fleet, host, g_array_index(late, guint, i));
    }
}

/* Half of its time has passed without an answer: is it there at all? */
static gint64 probe(Fleet *fleet, Member *m, gint64 now)
{
    gint64 due = MAX(m->heard, m->probed) + fleet->timeout_ms * (gint64)500;

    if (m->probing) {
        return G_MAXINT64;
    }
    if (due > now) {
        return due - now;
    }
    m->probing = true;
    m->probed = now;
    start_thread(m->work, probe_thread);
    return G_MAXINT64;
}

/* Gives up hosts and jobs that are late. Returns when to look again without an
 * answer, in µs from now. */
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
            continue;
        }
        left = MIN(left, MIN(due - now, probe(fleet, m, now)));
        look_at_jobs(fleet, i);
    }
    return left;
}

/* What a probe says is no answer to a job */
static void take_probe(Member *m, const Answer *from)
{
    m->probing = false;
    if (from->alive) {
        m->heard = g_get_monotonic_time();
    }
}

/* False if it comes too late */
static bool take(Fleet *fleet, Answer *from, FleetAnswer *answer)
{
    Member *m = &fleet->members[from->host];
    Job *job = from->job;
    g_autofree Owed *owed = NULL;

    if (from->probe) {
        take_probe(m, from);
    } else {
        g_hash_table_steal_extended(m->owed, GUINT_TO_POINTER(job->id), NULL,
                                    (void **)&owed);
    }
    if (!owed) {
        answer_free(from);
        return false;
    }
    m->heard = g_get_monotonic_time();
    if (job->broken && !m->lost) {
        m->lost = g_error_copy(job->error);
    }
    answer->host = from->host;
    answer->tag = owed->tag;
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

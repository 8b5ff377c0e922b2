/*
 * Work on hosts, on libvirt's test driver: whose connection a job is given
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/host/fleet.h"
#include "suite.h"

#include <glib/gstdio.h>
#include <string.h>

#define TIMEOUT_MS  60000
#define HUNG_MS     3000
#define JOBS        64

static const char node[] =
    "<node><domain type='test'><name>desk</name>"
    "<uuid>4b12f8a2-6a4e-4b0f-8f0e-2f7a4d0c9a11</uuid>"
    "<memory>8192</memory><os><type>hvm</type></os></domain></node>";

/* Jobs that hold their threads until enough of them are there */
typedef struct Crowd {
    GMutex lock;
    GCond cond;
    guint there, left, wanted;
    GHashTable *owners;         /* connection -> thread */
    guint shared;               /* connections seen by a second thread */
} Crowd;

typedef struct Meeting {
    Crowd *crowd;
    char uuid[VIR_UUID_STRING_BUFLEN];
    char *name;                 /* of the domain, found by its UUID */
} Meeting;

static Crowd *crowd_new(guint wanted)
{
    Crowd *crowd = g_new0(Crowd, 1);

    g_mutex_init(&crowd->lock);
    g_cond_init(&crowd->cond);
    crowd->wanted = wanted;
    crowd->owners = g_hash_table_new(NULL, NULL);
    return crowd;
}

static void crowd_free(Crowd *crowd)
{
    g_hash_table_unref(crowd->owners);
    g_mutex_clear(&crowd->lock);
    g_cond_clear(&crowd->cond);
    g_free(crowd);
}

static void note_owner(Crowd *crowd, virConnectPtr conn)
{
    GThread *owner = g_hash_table_lookup(crowd->owners, conn);

    crowd->shared += owner && owner != g_thread_self();
    g_hash_table_insert(crowd->owners, conn, g_thread_self());
}

static void meet(Crowd *crowd, virConnectPtr conn)
{
    g_mutex_lock(&crowd->lock);
    note_owner(crowd, conn);
    crowd->there++;
    g_cond_broadcast(&crowd->cond);
    while (crowd->there < crowd->wanted) {
        g_cond_wait(&crowd->cond, &crowd->lock);
    }
    crowd->left++;
    g_cond_broadcast(&crowd->cond);
    g_mutex_unlock(&crowd->lock);
}

/* Nobody is waited for any more; returns when all have left */
static void dissolve(Crowd *crowd)
{
    g_mutex_lock(&crowd->lock);
    crowd->wanted = 0;
    g_cond_broadcast(&crowd->cond);
    while (crowd->left < crowd->there) {
        g_cond_wait(&crowd->cond, &crowd->lock);
    }
    g_mutex_unlock(&crowd->lock);
}

static bool come_together(virConnectPtr conn, void *job, GError **error)
{
    Meeting *m = job;
    g_autoptr(virDomain) domain = NULL;

    meet(m->crowd, conn);
    if (!*m->uuid) {
        return true;
    }
    domain = fleet_domain(conn, m->uuid, error);
    m->name = domain ? g_strdup(virDomainGetName(domain)) : NULL;
    return domain;
}

static bool find_desk(virConnectPtr conn, void *job, GError **error)
{
    Meeting *m = job;
    g_autoptr(virDomain) domain = virDomainLookupByName(conn, "desk");

    return (domain && virDomainGetUUIDString(domain, m->uuid) == 0) ||
           fleet_set_error(error, "desk");
}

static void meeting_free(void *job)
{
    Meeting *m = job;

    g_free(m->name);
    g_free(m);
}

static Meeting *meeting_new(Crowd *crowd, const char *uuid)
{
    Meeting *m = g_new0(Meeting, 1);

    m->crowd = crowd;
    g_strlcpy(m->uuid, uuid, sizeof(m->uuid));
    return m;
}

/* A host of libvirt's test driver that is described in a file */
typedef struct Lab {
    GPtrArray *hosts;
    char *path;
    Fleet *fleet;
} Lab;

static Lab lab_new(int timeout_ms)
{
    Lab lab = { .hosts = g_ptr_array_new_with_free_func(
                    (GDestroyNotify)host_free) };
    Host *host = g_new0(Host, 1);
    int fd = g_file_open_tmp("dk-fleet-XXXXXX", &lab.path, NULL);

    g_close(fd, NULL);
    CU_ASSERT_FATAL(g_file_set_contents(lab.path, node, -1, NULL));
    host->name = g_strdup("kvm1");
    host->uri = g_strconcat("test://", lab.path, NULL);
    g_ptr_array_add(lab.hosts, host);
    lab.fleet = fleet_new(lab.hosts, timeout_ms);
    return lab;
}

static void lab_clear(Lab *lab)
{
    fleet_free(lab->fleet);
    g_unlink(lab->path);
    g_free(lab->path);
    g_ptr_array_unref(lab->hosts);
}

/* All answers; how many of them are errors */
static guint take_all(Fleet *fleet, guint *named)
{
    FleetAnswer a;
    guint failed = 0;

    while (fleet_next(fleet, &a, -1)) {
        Meeting *m = a.job;

        failed += a.error != NULL;
        *named += m && !g_strcmp0(m->name, "desk");
        g_clear_error(&a.error);
        g_clear_pointer(&m, meeting_free);
    }
    return failed;
}

static void post_meetings(Lab *lab, Crowd *crowd, guint n, const char *uuid)
{
    for (guint i = 0; i < n; i++) {
        fleet_post(lab->fleet, 0, i, come_together, meeting_new(crowd, uuid),
                   meeting_free, 0);
    }
}

static void test_own_connections(void)
{
    Lab lab = lab_new(TIMEOUT_MS);
    Crowd *crowd = crowd_new(FLEET_THREADS);
    guint named = 0;

    post_meetings(&lab, crowd, JOBS, "");
    CU_ASSERT_EQUAL(take_all(lab.fleet, &named), 0);
    CU_ASSERT_EQUAL(crowd->there, JOBS);
    CU_ASSERT_EQUAL(crowd->shared, 0);
    CU_ASSERT_EQUAL(g_hash_table_size(crowd->owners), FLEET_THREADS);
    lab_clear(&lab);
    crowd_free(crowd);
}

/* What one thread's job found, the jobs of the others find again */
static void test_domain_by_uuid(void)
{
    Lab lab = lab_new(TIMEOUT_MS);
    Crowd *crowd = crowd_new(FLEET_THREADS);
    FleetAnswer a;
    guint named = 0;

    fleet_post(lab.fleet, 0, 0, find_desk, meeting_new(NULL, ""),
               meeting_free, 0);
    CU_ASSERT_FATAL(fleet_next(lab.fleet, &a, -1) && !a.error);
    post_meetings(&lab, crowd, JOBS, ((Meeting *)a.job)->uuid);
    meeting_free(a.job);
    CU_ASSERT_EQUAL(take_all(lab.fleet, &named), 0);
    CU_ASSERT_EQUAL(named, JOBS);
    post_meetings(&lab, crowd, 2, "00000000-0000-4000-8000-000000000000");
    CU_ASSERT_EQUAL(take_all(lab.fleet, &named), 2);
    CU_ASSERT_PTR_NULL(fleet_lost(lab.fleet, 0));   /* only the domain is */
    lab_clear(&lab);
    crowd_free(crowd);
}

/* A host that takes one connection, and no second one, is worked on with it */
static void test_no_second_connection(void)
{
    Lab lab = lab_new(TIMEOUT_MS);
    Crowd *crowd = crowd_new(1);
    guint named = 0;

    post_meetings(&lab, crowd, 1, "");
    CU_ASSERT_EQUAL(take_all(lab.fleet, &named), 0);
    g_unlink(lab.path);
    post_meetings(&lab, crowd, JOBS, "");
    CU_ASSERT_EQUAL(take_all(lab.fleet, &named), 0);
    CU_ASSERT_EQUAL(crowd->there, 1 + JOBS);
    CU_ASSERT_EQUAL(g_hash_table_size(crowd->owners), 1);
    CU_ASSERT_PTR_NULL(fleet_lost(lab.fleet, 0));
    lab_clear(&lab);
    crowd_free(crowd);
}

static void test_no_connection(void)
{
    Lab lab = lab_new(TIMEOUT_MS);
    Crowd *crowd = crowd_new(1);
    guint named = 0;

    g_unlink(lab.path);
    post_meetings(&lab, crowd, JOBS, "");
    CU_ASSERT_EQUAL(take_all(lab.fleet, &named), JOBS);
    CU_ASSERT_EQUAL(crowd->there, 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(fleet_lost(lab.fleet, 0));
    CU_ASSERT_PTR_NOT_NULL(strstr(fleet_lost(lab.fleet, 0)->message,
                                  "no connection"));
    lab_clear(&lab);
    crowd_free(crowd);
}

/* One answer; is it that nobody knows what came of a job? */
static bool take_unknown(Fleet *fleet)
{
    FleetAnswer a;
    bool unknown;

    CU_ASSERT_FATAL(fleet_next(fleet, &a, -1));
    CU_ASSERT_NOT_EQUAL(a.tag, 0);
    unknown = a.error && !a.job;
    CU_ASSERT(unknown || !a.error);
    g_clear_error(&a.error);
    g_clear_pointer((Meeting **)&a.job, meeting_free);
    return unknown;
}

/* All of a host's threads hang, the first one in a job that may take long. The
 * host is there: its other jobs are done, and that one is waited for. */
static void test_hung(void)
{
    Lab lab = lab_new(HUNG_MS);
    Crowd *crowd = crowd_new(FLEET_THREADS + 1);
    guint unknown = 0;
    FleetAnswer a;

    for (guint i = 0; i < FLEET_THREADS; i++) {
        fleet_post(lab.fleet, 0, i, come_together, meeting_new(crowd, ""),
                   meeting_free, i ? 0 : TIMEOUT_MS);
    }
    for (guint i = 0; i < FLEET_THREADS; i++) {
        fleet_post(lab.fleet, 0, FLEET_THREADS + i, find_desk,
                   meeting_new(NULL, ""), meeting_free, 0);
    }
    while (fleet_owed(lab.fleet) > 1) {
        unknown += take_unknown(lab.fleet);
    }
    CU_ASSERT_EQUAL(unknown, FLEET_THREADS - 1);
    CU_ASSERT_PTR_NULL(fleet_lost(lab.fleet, 0));
    dissolve(crowd);
    CU_ASSERT_FATAL(fleet_next(lab.fleet, &a, -1));
    CU_ASSERT_EQUAL(a.tag, 0);
    CU_ASSERT_PTR_NULL(a.error);
    g_clear_pointer((Meeting **)&a.job, meeting_free);
    CU_ASSERT_FALSE(fleet_next(lab.fleet, &a, 0));
    lab_clear(&lab);
    crowd_free(crowd);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "a thread, a connection", test_own_connections },
        { "domains by UUID", test_domain_by_uuid },
        { "no second connection", test_no_second_connection },
        { "no connection", test_no_connection },
        { "jobs that hang", test_hung },
        CU_TEST_INFO_NULL,
    };

    return run_suite("fleet", tests);
}

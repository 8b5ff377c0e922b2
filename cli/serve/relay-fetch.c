/*
 * What a relay fetches to files: trees of versions, and their boot traces
 *
 * A thread does one after the other: then an older tree can be used, and the
 * link is not torn. On a host that has nothing of a version its boot trace
 * comes before it is served, since a node looks for it when it is opened. One
 * that comes later, or that is another one now, is for the next time, and for
 * relays that read from this one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "relay.h"
#include "report.h"
#include "service.h"
#include "trace-fetch.h"
#include "tree-fetch.h"

#include <string.h>

#define AGAIN_US            (5 * G_USEC_PER_SEC)
#define TRACE_AGAIN_MAX_US  (600 * G_USEC_PER_SEC)

typedef struct Job {
    Relay *relay;
    char *export;               /* NAME@N */
    bool with_tree;             /* else only the trace */
    TreeFetch tree;
    TraceFetch trace;
    char *trace_name;           /* in the manifest; NULL: there is none */

    /* What came of it */
    uint64_t data_bytes;
    GError *tree_error, *trace_error;
    bool trace_tried;
} Job;

static void job_free(Job *j)
{
    g_free(j->export);
    g_free(j->tree.path);
    g_free(j->tree.export);
    g_free(j->tree.root);
    g_free(j->tree.older);
    g_ptr_array_unref(j->tree.stores);
    g_free(j->trace.path);
    g_free(j->trace.export);
    g_free(j->trace.root);
    g_ptr_array_unref(j->trace.stores);
    g_free(j->trace_name);
    g_clear_error(&j->tree_error);
    g_clear_error(&j->trace_error);
    g_free(j);
}

/* Versions of the same content share a tree */
static void tree_done(const Job *j)
{
    for (guint i = 0; i < j->relay->order->len; i++) {
        RelayVersion *v = j->relay->order->pdata[i];

        if (v->tree == TREE_COMING && !strcmp(v->root, j->tree.root)) {
            v->tree = j->tree_error ? TREE_MISSING : TREE_HERE;
            v->tree_again = g_get_monotonic_time() + AGAIN_US;
            v->data_bytes = j->data_bytes;
            report_state(v->export, j->tree_error ? j->tree_error->message
                                                  : NULL);
        }
    }
}

static void trace_done(Job *j)
{
    RelayVersion *v = g_hash_table_lookup(j->relay->versions, j->export);
    g_autofree char *subject = g_strdup_printf("boot trace of %s", j->export);

    if (!v) {
        return;
    }
    report_state(subject, j->trace_error ? j->trace_error->message : NULL);
    if (j->trace_error) {
        v->trace_wait = CLAMP(v->trace_wait * 2, AGAIN_US, TRACE_AGAIN_MAX_US);
        v->trace_again = g_get_monotonic_time() + v->trace_wait;
    } else {
        g_free(v->trace_here);
        v->trace_here = g_steal_pointer(&j->trace_name);
    }
}

static gboolean job_done(gpointer opaque)
{
    Job *j = opaque;

    if (j->with_tree) {
        tree_done(j);
    }
    if (j->trace_tried) {
        trace_done(j);
    }
    j->relay->fetching = false;
    j->relay->changed = true;
    service_tick_soon();
    job_free(j);
    return G_SOURCE_REMOVE;
}

static void job_work(gpointer data, gpointer unused)
{
    Job *j = data;
    bool cold = !g_file_test(j->tree.path, G_FILE_TEST_EXISTS);

    (void)unused;
    if (j->with_tree) {
        tree_fetch(&j->tree, &j->data_bytes, &j->tree_error);
    }
    /* A host that has the tree is not kept waiting: it has a cache, too */
    if (j->trace_name && j->trace.stores->len && !j->tree_error &&
        (cold || !j->with_tree)) {
        j->trace_tried = true;
        trace_fetch(&j->trace, &j->trace_error);
    }
    g_idle_add(job_done, j);
}

/* A tree of the same vDisk that is here, of the nearest number */
static const RelayVersion *nearest(const Relay *r, const RelayVersion *v)
{
    const RelayVersion *best = NULL;

    for (guint i = 0; i < r->order->len; i++) {
        const RelayVersion *o = r->order->pdata[i];

        if (o != v && o->tree == TREE_HERE && !strcmp(o->vdisk, v->vdisk) &&
            (!best || ABS((int64_t)(o->number - v->number)) <
                      ABS((int64_t)(best->number - v->number)))) {
            best = o;
        }
    }
    return best;
}

/* Those that answered last, and, with @all, the others behind them */
static GPtrArray *stores_in_order(const Relay *r, bool all)
{
    GPtrArray *stores = g_ptr_array_new();

    for (int up = 1; up >= (all ? 0 : 1); up--) {
        for (guint i = 0; r->stores->pdata[i]; i++) {
            if (r->reachable[i] == (up == 1)) {
                g_ptr_array_add(stores, r->stores->pdata[i]);
            }
        }
    }
    return stores;
}

static Job *job_new(Relay *r, const RelayVersion *v, bool with_tree)
{
    const RelayVersion *older = nearest(r, v);
    Job *j = g_new0(Job, 1);

    j->relay = r;
    j->export = g_strdup(v->export);
    j->with_tree = with_tree;
    j->tree.path = relay_path(r, v, "tree");
    j->tree.export = g_strdup_printf("%s.tree", v->export);
    j->tree.root = g_strdup(v->root);
    j->tree.size = v->size;
    j->tree.stores = stores_in_order(r, true);
    j->tree.bandwidth = r->bandwidth;
    if (older) {
        j->tree.older = relay_path(r, older, "tree");
        j->tree.older_size = older->size;
    }
    j->trace.path = relay_path(r, v, "trace");
    j->trace.export = g_strdup_printf("%s.trace", v->export);
    j->trace.root = g_strdup(v->root);
    j->trace.size = v->size;
    j->trace.stores = stores_in_order(r, false);
    j->trace_name = g_strdup(v->trace);
    return j;
}

static bool wants_tree(const Relay *r, const RelayVersion *v)
{
    return v->wanted && v->tree == TREE_MISSING && v->tree_room &&
        tree_file_bytes(v->size) <= r->free &&
        v->tree_again <= g_get_monotonic_time();
}

static bool any_reachable(const Relay *r)
{
    for (guint i = 0; r->stores->pdata[i]; i++) {
        if (r->reachable[i]) {
            return true;
        }
    }
    return false;
}

static bool wants_trace(const Relay *r, const RelayVersion *v)
{
    return v->wanted && v->tree == TREE_HERE && v->trace &&
        g_strcmp0(v->trace, v->trace_here) &&
        v->trace_again <= g_get_monotonic_time() && any_reachable(r);
}

/* The most important version that @wants something, or NULL */
static RelayVersion *first(const Relay *r, bool (*wants)(const Relay *r,
                                                         const RelayVersion *v))
{
    for (guint i = 0; i < r->order->len; i++) {
        if (wants(r, r->order->pdata[i])) {
            return r->order->pdata[i];
        }
    }
    return NULL;
}

void relay_fetch(Relay *r)
{
    static GThreadPool *pool;
    RelayVersion *tree, *trace;

    if (!pool) {
        pool = g_thread_pool_new(job_work, NULL, 1, FALSE, NULL);
    }
    if (r->fetching) {
        return;
    }
    tree = first(r, wants_tree);
    trace = tree ? NULL : first(r, wants_trace);
    if (tree) {
        tree->tree = TREE_COMING;
    }
    if (tree || trace) {
        r->fetching = true;
        g_thread_pool_push(pool, job_new(r, tree ?: trace, tree != NULL), NULL);
    }
}

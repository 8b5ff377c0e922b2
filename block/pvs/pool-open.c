/*
 * A pool of stores: opening and closing them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "block/block-io.h"
#include "block/qdict.h"
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "block/pvs/image.h"
#include "block/pvs/pool-int.h"

/*
 * QEMU's drivers for other protocols block the whole process when they open,
 * and their requests cannot be cancelled.
 */
static bool GRAPH_RDLOCK is_near(BlockDriverState *bs)
{
    static const char *const protocols[] = {
        "nbd", "file", "host_device", NULL
    };
    BdrvChild *child;

    if (QLIST_EMPTY(&bs->children)) {
        return g_strv_contains(protocols, bs->drv->format_name);
    }
    QLIST_FOREACH(child, &bs->children, next) {
        if (!is_near(child->bs)) {
            return false;
        }
    }
    return true;
}

/*
 * What makes QEMU's NBD client fit: errors at once, no request without end,
 * and no wait for a server when the size is known.
 */
static bool tune_nbd(QDict *options, const PvsPoolOptions *o, Error **errp)
{
    static const char *const ours[] = {
        "reconnect-delay", "reconnect-interval", "open-timeout",
        "connect-timeout", "io-timeout", "size", NULL
    };

    for (int i = 0; ours[i]; i++) {
        if (qdict_haskey(options, ours[i])) {
            error_setg(errp, "'%s' of an NBD store is set by pvs", ours[i]);
            return false;
        }
    }
    qdict_put_int(options, "reconnect-delay", 0);
    qdict_put_int(options, "reconnect-interval", o->store.probe_interval);
    qdict_put_int(options, "connect-timeout", o->store.request_timeout);
    qdict_put_int(options, "io-timeout", o->store.request_timeout);
    if (o->length >= 0) {
        qdict_put_int(options, "size", o->length);
    }
    return true;
}

static BdrvChild *open_child(BlockDriverState *bs, QDict *options,
                             const char *name, bool far, Error **errp)
{
    BlockDriverState *store = bdrv_open(NULL, NULL, options, 0, errp);
    BdrvChild *child;
    bool near;

    if (!store) {
        return NULL;
    }
    bdrv_graph_rdlock_main_loop();
    near = is_near(store);
    bdrv_graph_rdunlock_main_loop();
    if (!near && !far) {
        error_setg(errp, "A desktop's store is an NBD export or a local file");
        error_append_hint(errp, "Other kinds can stop the whole process when "
                          "they do not answer. Put a relay in front: "
                          "qemu-storage-daemon with a pvs node without "
                          "'file'.\n");
        bdrv_unref(store);
        return NULL;
    }
    bdrv_graph_wrlock();
    child = bdrv_attach_child(bs, store, name, &child_of_bds, BDRV_CHILD_DATA,
                              errp);
    bdrv_graph_wrunlock();
    return child;
}

/* "stores.0", and "stores.0.1" for its second connection */
static bool open_conns(PvsPool *p, PvsStore *s, const char *key,
                       QDict *options, const PvsPoolOptions *o, Error **errp)
{
    s->conns = g_new0(PvsConn, s->n_conns);
    for (unsigned i = 0; i < s->n_conns; i++) {
        g_autofree char *name = i ? g_strdup_printf("%s.%u", key, i)
                                  : g_strdup(key);

        s->conns[i].child = open_child(p->bs, qdict_clone_shallow(options),
                                       name, o->far, errp);
        if (!s->conns[i].child) {
            return false;
        }
        /* What was opened without a server is not known to work */
        s->conns[i].broken = s->nbd && o->length >= 0;
    }
    return true;
}

static void refuse_length(const PvsPool *p, const PvsStore *s, int64_t length,
                          Error **errp)
{
    bool tree = p->kind == PVS_POOL_TREE;

    error_setg(errp, "%s %s has %" PRId64 " bytes instead of %" PRId64,
               tree ? "The verity tree" : "Store", s->name, length, p->length);
    error_append_hint(errp, tree
                      ? "It is cut off, or of an image of another size. Copy "
                        "it again, or make it with 'veritysetup format'.\n"
                      : "Stores of one version are all alike; this one may "
                        "have another version or image.\n");
}

static bool check_length(PvsPool *p, PvsStore *s, Error **errp)
{
    int64_t length;

    bdrv_graph_rdlock_main_loop();
    length = bdrv_getlength(s->conns[0].child->bs);
    bdrv_graph_rdunlock_main_loop();
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get the size of store %s",
                         s->name);
        return false;
    }
    if (p->length >= 0 && length != p->length) {
        refuse_length(p, s, length, errp);
        return false;
    }
    p->length = length;
    return true;
}

/* A name for people: where the export or the file is, or what node it is */
static char *store_name(const PvsStore *s, const QDict *options)
{
    const char *export = qdict_get_try_str(options, "export") ?: "";
    const char *path = qdict_get_try_str(options, "server.path");
    const char *host = qdict_get_try_str(options, "server.host");
    const char *port = qdict_get_try_str(options, "server.port");

    if (s->nbd && path) {
        return g_strdup_printf("nbd+unix:///%s?socket=%s", export, path);
    }
    if (s->nbd && host && port) {
        return g_strdup_printf("nbd://%s:%s/%s", host, port, export);
    }
    return g_strdup(qdict_get_try_str(options, "filename") ?:
                    qdict_get_try_str(options, "file.filename") ?:
                    qdict_get_str(options, "driver"));
}

static bool is_unix_socket(const QDict *options)
{
    const char *type = qdict_get_try_str(options, "server.type");

    return type && g_str_equal(type, "unix");
}

static bool open_store(PvsPool *p, unsigned i, const char *key, QDict *options,
                       const PvsPoolOptions *o, uint64_t *preferred,
                       Error **errp)
{
    ERRP_GUARD();
    PvsStore *s = &p->stores[i];
    const char *driver = qdict_get_try_str(options, "driver");

    if (!driver) {
        error_setg(errp, "'%s' must be given inline, with its 'driver'", key);
        return false;
    }
    s->nbd = g_str_equal(driver, "nbd");
    s->wrong = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    s->n_conns = 1;
    if (s->nbd) {
        bool local = is_unix_socket(options);

        s->n_conns = o->connections ?: local ? 1 : PVS_CONNECTIONS_FAR;
        *preferred |= (uint64_t)local << i;
        if (!tune_nbd(options, o, errp)) {
            return false;
        }
    }
    if (!open_conns(p, s, key, options, o, errp)) {
        error_prepend(errp, "Could not open '%s': ", key);
        return false;
    }
    s->name = store_name(s, options);
    bdrv_graph_rdlock_main_loop();
    s->local = !s->nbd && is_near(s->conns[0].child->bs);
    bdrv_graph_rdunlock_main_loop();
    return check_length(p, s, errp);
}

/* Take the options of the store @key out of @options */
static QDict *take_options(QDict *options, const char *key, Error **errp)
{
    g_autofree char *prefix = g_strdup_printf("%s.", key);
    QDict *sub;

    if (qdict_haskey(options, key)) {
        error_setg(errp, "'%s' must be given inline, not as the name of a "
                   "node", key);
        return NULL;
    }
    qdict_extract_subqdict(options, &sub, prefix);
    return sub;
}

static unsigned count_stores(const QDict *options, const char *prefix)
{
    unsigned n = 0;

    for (;; n++) {
        g_autofree char *key = g_strdup_printf("%s.%u", prefix, n);
        g_autofree char *below = g_strdup_printf("%s.", key);
        const QDictEntry *e;
        bool found = false;

        for (e = qdict_first(options); e && !found;
             e = qdict_next(options, e)) {
            found = g_str_equal(qdict_entry_key(e), key) ||
                    g_str_has_prefix(qdict_entry_key(e), below);
        }
        if (!found) {
            return n;
        }
    }
}

static bool open_all(PvsPool *p, QDict *options, const char *prefix,
                     bool single, unsigned n, const PvsPoolOptions *o,
                     uint64_t *preferred, Error **errp)
{
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *key = single ? g_strdup(prefix)
                                      : g_strdup_printf("%s.%u", prefix, i);
        QDict *sub = take_options(options, key, errp);
        bool ok = sub && open_store(p, i, key, sub, o, preferred, errp);

        qobject_unref(sub);
        if (!ok) {
            return false;
        }
    }
    return true;
}

static uint64_t stores_up(PvsPool *p, unsigned n)
{
    uint64_t up = 0;

    for (unsigned i = 0; i < n; i++) {
        if (!p->stores[i].conns[0].broken) {
            up |= 1ULL << i;
        }
    }
    return up;
}

PvsPool *pvs_pool_open(BlockDriverState *bs, PvsWaits *waits,
                       PvsPoolKind kind, QDict *options, const char *prefix,
                       bool single, const PvsPoolOptions *o, Error **errp)
{
    unsigned n = single ? 1 : count_stores(options, prefix);
    uint64_t preferred = 0;
    PvsPool *p;

    if (n == 0 || n > STORE_MAX) {
        error_setg(errp, "There are %u stores in '%s'; from 1 to %d are "
                   "possible", n, prefix, STORE_MAX);
        return NULL;
    }
    p = g_new0(PvsPool, 1);
    p->bs = bs;
    p->waits = waits;
    p->kind = kind;
    p->length = o->length;
    p->armed = INT64_MAX;
    p->opened_at = pvs_now();
    p->early_at = p->opened_at + 5 * SCALE_MS;
    p->events = g_array_new(false, false, sizeof(StoreEvent));
    QSIMPLEQ_INIT(&p->to_start);
    p->timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                             SCALE_NS, pvs_pool_timer, p);
    p->bh = aio_bh_new(qemu_get_aio_context(), pvs_pool_bh, p);
    if (!open_all(p, options, prefix, single, n, o, &preferred, errp)) {
        p->set.n = n;
        pvs_pool_close(p);
        return NULL;
    }
    store_set_init(&p->set, &o->store, n, preferred, stores_up(p, n),
                   g_random_int(), pvs_now());
    WITH_QEMU_LOCK_GUARD(&waits->lock) {
        pvs_pool_changed(p);
    }
    return p;
}

void pvs_pool_close(PvsPool *p)
{
    if (!p) {
        return;
    }
    timer_free(p->timer);
    qemu_bh_delete(p->bh);
    for (unsigned i = 0; i < p->set.n; i++) {
        g_free(p->stores[i].name);
        g_free(p->stores[i].conns);
        g_clear_pointer(&p->stores[i].wrong, g_hash_table_unref);
    }
    g_array_unref(p->events);
    g_free(p);
}

/* What others ask about a pool */

int64_t pvs_pool_length(const PvsPool *p)
{
    return p->length;
}

bool pvs_pool_is_up(PvsPool *p)
{
    QEMU_LOCK_GUARD(&p->waits->lock);
    return p->set.up;
}

unsigned pvs_pool_stores(const PvsPool *p)
{
    return p->set.n;
}

Store pvs_pool_store(PvsPool *p, unsigned i)
{
    QEMU_LOCK_GUARD(&p->waits->lock);
    return p->set.stores[i];
}

const char *pvs_pool_store_name(const PvsPool *p, unsigned i)
{
    return p->stores[i].name;
}

int64_t pvs_pool_outage_since(PvsPool *p)
{
    QEMU_LOCK_GUARD(&p->waits->lock);
    return p->set.outage ? p->set.outage_since : 0;
}

int64_t pvs_pool_denied_since(PvsPool *p)
{
    QEMU_LOCK_GUARD(&p->waits->lock);
    return p->denied ? p->denied_since : 0;
}

bool pvs_pool_fails_at_once(PvsPool *p)
{
    QEMU_LOCK_GUARD(&p->waits->lock);
    return p->set.outage_action != STORE_OUTAGE_WAIT &&
           store_outage_over(&p->set, pvs_now());
}

BdrvChild *pvs_pool_local_child(PvsPool *p)
{
    return p->stores[0].local ? p->stores[0].conns[0].child : NULL;
}

/*
 * pvs, private image mode: the store, its connection and its label
 *
 * A session is a connection whose label was found to be ours. It ends with the
 * first error of any request. Requests are bound to the connection that was
 * looked at, so that none of them can go out on another one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qobject/qdict.h"
#include "block/block-io.h"
#include "block/nbd.h"
#include "block/qdict.h"
#include "block/pvs/private.h"
#include "trace.h"

/*
 * The first look for a connection only begins to make it: the next one comes
 * soon, then ever later, up to probe-interval. And requests of a session that
 * is over end soon, once they meet a dead connection. ns
 */
#define FIRST_LOOK      (5 * SCALE_MS)

/* Open */

/* What can lock its image, but others can have it on another host, or block */
static bool GRAPH_RDLOCK is_exclusive_kind(BlockDriverState *bs, bool nbd)
{
    static const char *const refused[] = { "host_device", "rbd", NULL };

    return nbd || (bs->drv->bdrv_lock_image &&
                   !g_strv_contains(refused, bs->drv->format_name));
}

static bool GRAPH_RDLOCK check_flushes(PvsPrivate *p, Error **errp)
{
    BdrvChild *const all[] = { p->journal.child, p->bs->file, p->store };

    for (int i = 0; i < ARRAY_SIZE(all); i++) {
        if (all[i]->bs->open_flags & BDRV_O_NO_FLUSH) {
            error_setg(errp, "Flushes are disabled for the %s of a private "
                       "vDisk", all[i]->name);
            error_append_hint(errp, "What its guest flushed could be lost. "
                              "Leave out 'no-flush', or cache=unsafe.\n");
            return false;
        }
    }
    return true;
}

bool pvs_private_check_promises(PvsPrivate *p, Error **errp)
{
    ERRP_GUARD();

    if (!check_flushes(p, errp)) {
        return false;
    }
    if (!p->nbd && !bdrv_lock_images(p->store->bs, errp)) {
        error_prepend(errp, "The store of a private vDisk has one writer: ");
        error_append_hint(errp, "A local file has to be opened with "
                          "'locking' on or auto.\n");
        return false;
    }
    return true;
}

static bool tune_nbd(PvsPrivate *p, QDict *options, Error **errp)
{
    static const char *const ours[] = {
        "reconnect-delay", "reconnect-interval", "open-timeout",
        "connect-timeout", "io-timeout", "size", "exclusive",
        "require-flush", NULL
    };

    for (int i = 0; ours[i]; i++) {
        if (qdict_haskey(options, ours[i])) {
            error_setg(errp, "'%s' of an NBD store is set by pvs", ours[i]);
            return false;
        }
    }
    qdict_put_int(options, "reconnect-delay", 0);
    qdict_put_int(options, "reconnect-interval", p->probe_interval);
    qdict_put_int(options, "connect-timeout", p->request_timeout);
    qdict_put_int(options, "io-timeout", p->request_timeout);
    qdict_put_int(options, "size", label_offset(p->virtual_size) + LABEL_BYTES);
    return true;
}

static char *name_of(const QDict *options)
{
    const char *export = qdict_get_try_str(options, "export") ?: "";
    const char *path = qdict_get_try_str(options, "server.path");
    const char *host = qdict_get_try_str(options, "server.host");
    const char *port = qdict_get_try_str(options, "server.port");

    if (path) {
        return g_strdup_printf("nbd+unix:///%s?socket=%s", export, path);
    }
    if (host && port) {
        return g_strdup_printf("nbd://%s:%s/%s", host, port, export);
    }
    return g_strdup(qdict_get_try_str(options, "filename") ?:
                    qdict_get_str(options, "driver"));
}

static BdrvChild *GRAPH_UNLOCKED attach(PvsPrivate *p, QDict *options,
                                        const char *name,
                                        BdrvChildRole role, Error **errp)
{
    ERRP_GUARD();
    int flags = role & BDRV_CHILD_DATA ? BDRV_O_RDWR : 0;
    BlockDriverState *store;
    BdrvChild *child;
    bool ok;

    store = bdrv_open(NULL, NULL, qdict_clone_shallow(options), flags, errp);
    if (!store) {
        return NULL;
    }
    bdrv_graph_rdlock_main_loop();
    ok = is_exclusive_kind(store, p->nbd);
    bdrv_graph_rdunlock_main_loop();
    if (!ok) {
        error_setg(errp, "The store of a private vDisk is an NBD export or a "
                   "local file");
        error_append_hint(errp, "Only these promise that nobody else writes "
                          "to it.\n");
        bdrv_unref(store);
        return NULL;
    }
    bdrv_graph_wrlock();
    child = bdrv_attach_child(p->bs, store, name, &child_of_bds, role, errp);
    bdrv_graph_wrunlock();
    return child;
}

/* What is not NBD is there or not when the node is opened */
static bool check_length(PvsPrivate *p, Error **errp)
{
    int64_t wanted = label_offset(p->virtual_size) + LABEL_BYTES;
    int64_t length;

    bdrv_graph_rdlock_main_loop();
    length = bdrv_getlength(p->store->bs);
    bdrv_graph_rdunlock_main_loop();
    if (length == wanted) {
        return true;
    }
    error_setg(errp, "The store %s has %" PRId64 " bytes instead of %" PRId64,
               p->store_name, length, wanted);
    error_append_hint(errp, "The image of a private vDisk has the vDisk's size "
                      "(%" PRId64 "), rounded up to 4096, and 4096 bytes "
                      "more.\n", p->virtual_size);
    return false;
}

/* Optional: the version's read-only export */
static bool GRAPH_UNLOCKED open_label(PvsPrivate *p, QDict *options,
                                      Error **errp)
{
    QDict *sub;
    const char *driver;
    bool ok = true;

    qdict_extract_subqdict(options, &sub, "label.");
    driver = qdict_get_try_str(sub, "driver");
    if (qdict_size(sub) && (!driver || !g_str_equal(driver, "nbd") ||
                            !p->nbd)) {
        error_setg(errp, "'label' is an NBD export that is given inline, for "
                   "a store that is one, too");
        ok = false;
    } else if (driver) {
        ok = tune_nbd(p, sub, errp);
        p->label = ok ? attach(p, sub, "label", 0, errp) : NULL;
        ok = p->label;
    }
    qobject_unref(sub);
    return ok;
}

bool pvs_private_open_store(PvsPrivate *p, QDict *options, Error **errp)
{
    g_autoptr(QDict) rest = NULL;
    QDict *sub;
    const char *driver;
    bool ok;

    qdict_extract_subqdict(options, &rest, "stores.");
    qdict_extract_subqdict(rest, &sub, "0.");
    driver = qdict_get_try_str(sub, "driver");
    if (qdict_size(rest) || !driver) {
        error_setg(errp, "A private vDisk has exactly one store, which is "
                   "given inline, with its 'driver'");
        qobject_unref(sub);
        return false;
    }
    p->nbd = g_str_equal(driver, "nbd");
    p->store_name = name_of(sub);
    ok = !p->nbd || tune_nbd(p, sub, errp);
    if (ok && p->nbd) {
        qdict_put_bool(sub, "exclusive", true);
        /* Or the tail would move past what no flush made durable (J3) */
        qdict_put_bool(sub, "require-flush", true);
    }
    if (ok) {
        p->store = attach(p, sub, "store", BDRV_CHILD_DATA, errp);
        ok = p->store && check_length(p, errp);
    }
    qobject_unref(sub);
    return ok && open_label(p, options, errp);
}

/* State */

uint64_t pvs_private_session(PvsPrivate *p)
{
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->state == PRIVATE_READY ? p->session : 0;
}

/* Caller holds the lock */
static void set_state(PvsPrivate *p, PrivateState state, const char *reason)
{
    if (p->state == PRIVATE_READY && state != PRIVATE_READY) {
        p->away_since = pvs_now();
        p->lagging = true;
    }
    p->state = state;
    p->journal.fenced = state == PRIVATE_FENCED;
    g_free(p->reason);
    p->reason = g_strdup(reason);
    if (state == PRIVATE_READY) {
        p->session++;
        /* What comes from now on is not counted: that may never end (J10) */
        pvs_journal_close_epoch(&p->journal);
        p->catch_up = p->journal.closed_pos;
    }
    pvs_wake_all(&p->waits);
    qemu_bh_schedule(p->bh);
}

bool pvs_private_store_same(PvsPrivate *p, uint64_t session)
{
    uint64_t connection;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        if (p->state != PRIVATE_READY || p->session != session) {
            return false;
        }
        connection = p->connection;
    }
    return !p->nbd ||
           (nbd_is_connected(p->store->bs) &&
            nbd_connection_generation(p->store->bs) == connection);
}

void pvs_private_store_failed(PvsPrivate *p, uint64_t session, int error)
{
    /*
     * Of NBD it is known whether the connection is still the same one. Others
     * may have been away and forgotten what was not flushed, and only one of
     * their requests tells: any error ends the session (J3).
     */
    if ((p->nbd || error == -ENOTCONN) && pvs_private_store_same(p, session)) {
        return;
    }
    QEMU_LOCK_GUARD(&p->waits.lock);
    if (p->state == PRIVATE_READY && p->session == session) {
        /* It may be as good as before: one that is full is, to who reads it */
        p->doubted = !p->nbd && error != -ENOTCONN;
        set_state(p, PRIVATE_AWAY, g_strerror(-error));
    }
}

bool pvs_private_store_begin(PvsPrivate *p, uint64_t session)
{
    QEMU_LOCK_GUARD(&p->waits.lock);
    if (p->state != PRIVATE_READY || p->session != session) {
        return false;
    }
    p->store_users++;
    return true;
}

int pvs_private_store_end(PvsPrivate *p, uint64_t session, int ret)
{
    if (ret < 0) {
        pvs_private_store_failed(p, session, ret);
    }
    QEMU_LOCK_GUARD(&p->waits.lock);
    assert(p->store_users > 0);
    p->store_users--;
    return MIN(ret, 0);
}

static bool is_used(PvsPrivate *p)
{
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->store_users;
}

/* The label */

static int coroutine_fn GRAPH_RDLOCK
read_label(PvsPrivate *p, BdrvChild *child, Label *l, char **why)
{
    uint8_t *buf = qemu_blockalign(child->bs, LABEL_BYTES);
    int ret = bdrv_co_pread(child, label_offset(p->virtual_size),
                            LABEL_BYTES, buf, 0);

    if (ret >= 0 && !label_decode(l, buf, why)) {
        ret = -EINVAL;
    }
    qemu_vfree(buf);
    return MIN(ret, 0);
}

static int coroutine_fn GRAPH_RDLOCK
write_label(PvsPrivate *p, const JournalLabel *id, bool closed)
{
    uint8_t *buf = qemu_blockalign(p->store->bs, LABEL_BYTES);
    Label l = {
        .id = *id,
        .closed = closed,
        .virtual_size = p->virtual_size,
        .version = p->journal.header.version,
    };
    int ret;

    pstrcpy(l.vdisk, sizeof(l.vdisk), p->journal.header.vdisk);
    label_encode(&l, buf);
    ret = bdrv_co_pwrite(p->store, label_offset(p->virtual_size), LABEL_BYTES,
                         buf, 0);
    if (ret >= 0) {
        ret = bdrv_co_flush(p->store->bs);
    }
    qemu_vfree(buf);
    return MIN(ret, 0);
}

static void note_intent(JournalHeader *h, const void *opaque)
{
    h->intent = *(const JournalLabel *)opaque;
}

static void note_label(JournalHeader *h, const void *opaque)
{
    h->label = *(const JournalLabel *)opaque;
    h->intent = (JournalLabel) {};
}

/* The intent goes to disk first: a half-done change is then known as ours */
static int coroutine_fn GRAPH_RDLOCK
change_label(PvsPrivate *p, const JournalLabel *id, bool is_intent)
{
    int ret = is_intent ? 0 : pvs_journal_co_change_header(&p->journal,
                                                           note_intent, id);

    if (ret >= 0) {
        ret = write_label(p, id, false);
    }
    return ret < 0 ? ret : pvs_journal_co_change_header(&p->journal, note_label,
                                                        id);
}

/* Make the label ours, for this opening */
static int coroutine_fn GRAPH_RDLOCK adopt(PvsPrivate *p, const Label *l)
{
    const JournalHeader *h = &p->journal.header;
    JournalLabel id = l->id;
    int ret;

    if (journal_label_is_set(&id) && journal_label_same(&id, &h->intent)) {
        /*
         * Half done last time: the store may have it in a cache only. If it
         * forgot it later, nobody would know the old one any more.
         */
        ret = change_label(p, &id, true);
        if (ret < 0) {
            return ret;
        }
    }
    if (!journal_label_is_set(&id)) {
        qemu_guest_getrandom_nofail(id.content, sizeof(id.content));
    }
    id.writer++;
    qemu_guest_getrandom_nofail(id.nonce, sizeof(id.nonce));
    ret = change_label(p, &id, false);
    if (ret >= 0) {
        p->adopted = true;
    }
    return ret;
}

int coroutine_fn pvs_private_co_set_closed(PvsPrivate *p, uint64_t session,
                                           bool closed)
{
    JournalLabel id = p->journal.header.label;
    int ret;

    if (p->closed_label == closed) {
        return 0;
    }
    if (!pvs_private_store_begin(p, session)) {
        return -ENOTCONN;
    }
    ret = pvs_private_store_end(p, session, write_label(p, &id, closed));
    pvs_private_store_failed(p, session, -ENOTCONN);    /* if it is gone */
    if (ret >= 0 && !pvs_private_store_same(p, session)) {
        ret = -ENOTCONN;
    }
    if (ret < 0) {
        return ret;
    }
    p->closed_label = closed;
    return 0;
}

/* Connecting */

/* Requests go out on connection @connection only; 0: on any */
#define NO_CONNECTION   UINT64_MAX
static void bind_connection(PvsPrivate *p, uint64_t connection)
{
    if (p->nbd) {
        nbd_bind_connection(p->store->bs, connection);
    }
}

/*
 * Read the label of one connection, in *@l, to which requests are bound. There
 * are none of the session before (store_users), or they could go out meanwhile.
 */
static int coroutine_fn GRAPH_RDLOCK look(PvsPrivate *p, Label *l, char **why)
{
    int ret;

    bind_connection(p, 0);
    ret = read_label(p, p->store, l, why);
    if (ret < 0 || !p->nbd) {
        return ret;
    }
    /* It may have been another connection: read it on the one that is bound */
    p->connection = nbd_connection_generation(p->store->bs);
    bind_connection(p, p->connection);
    return read_label(p, p->store, l, why);
}

static int coroutine_fn GRAPH_RDLOCK connect_store(PvsPrivate *p, char **why)
{
    LabelQuestion q = {
        .h = &p->journal.header,
        .first = !p->adopted,
        .take_over = p->take_over,
        .empty = p->was_empty,
    };
    Label l;
    int ret = p->label ? read_label(p, p->label, &l, why) : 0;

    if (ret >= 0 && p->label && label_judge(&q, &l, why) == LABEL_FENCED) {
        return -ESTALE;         /* and whoever writes has noticed nothing */
    }
    if (ret >= 0) {
        ret = look(p, &l, why);
    }
    if (ret < 0) {
        return ret;
    }
    if (label_judge(&q, &l, why) == LABEL_FENCED) {
        return -ESTALE;
    }
    p->closed_label = l.closed && p->adopted;
    return p->adopted ? 0 : adopt(p, &l);
}

/* Why there is no connection; of an export that does not fit what to do, too */
static char *why_away(PvsPrivate *p, int ret, bool *misfit)
{
    BlockDriverState *bs = p->store->bs;
    char *why = p->nbd && !nbd_is_connected(bs)
                ? nbd_connection_error(bs, misfit) : NULL;
    char *advice;

    if (!why || !*misfit) {
        return why ?: g_strdup(g_strerror(-ret));
    }
    advice = g_strdup_printf("%s. The store of this vDisk is an export of %"
                             PRId64 " bytes, writable and exclusive, with "
                             "flushes", why, label_offset(p->virtual_size) +
                             LABEL_BYTES);
    g_free(why);
    return advice;
}

static void connected(PvsPrivate *p, int ret, const char *why)
{
    bool misfit = false;
    g_autofree char *away = ret < 0 && !why ? why_away(p, ret, &misfit) : NULL;

    if (ret < 0) {
        /* Not ours, or not known to be: nothing may be sent there */
        bind_connection(p, NO_CONNECTION);
    }
    why = why ?: away;
    QEMU_LOCK_GUARD(&p->waits.lock);
    if (p->doubted) {
        p->doubted = false;
        qemu_bh_schedule(p->bh);
    }
    if (ret >= 0) {
        set_state(p, PRIVATE_READY, NULL);
    } else if (ret == -ESTALE) {
        set_state(p, PRIVATE_FENCED, why);
    } else if (!p->reason || strcmp(p->reason, why)) {
        set_state(p, PRIVATE_AWAY, why);
    }
    p->refused = ret < 0 && (misfit || ret == -EINVAL);
}

/* In how many ns it is worth another look; 0: never */
static int64_t coroutine_fn store_step(PvsPrivate *p)
{
    g_autofree char *why = NULL;
    uint64_t session = pvs_private_session(p);
    int ret = 0;

    if (session) {
        p->look_after = FIRST_LOOK;
        pvs_private_store_failed(p, session, -ENOTCONN);    /* if it is gone */
        return p->probe_interval * SCALE_MS;
    }
    if (is_used(p)) {
        return FIRST_LOOK;
    }
    WITH_GRAPH_RDLOCK_GUARD() {
        ret = connect_store(p, &why);
    }
    trace_pvs_private_connect(p->bs, p->store_name, ret, why ?: "");
    connected(p, ret, why);
    p->look_after = MIN(p->look_after * 2, p->probe_interval * SCALE_MS);
    return ret == -ESTALE ? 0 : p->look_after;
}

void coroutine_fn pvs_private_store_entry(void *opaque)
{
    PvsPrivate *p = opaque;
    int64_t again = 1;

    p->look_after = FIRST_LOOK;
    while (again && pvs_private_co_begin(p, &p->store_sleep)) {
        again = store_step(p);
        pvs_private_end(p);
        if (again && !p->closing) {
            qemu_co_sleep_ns_wakeable(&p->store_sleep, QEMU_CLOCK_REALTIME,
                                      again);
        }
    }
    p->coroutines--;
    aio_wait_kick();
}

/*
 * pvs, private image mode: open, close, and drains
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/option.h"
#include "qobject/qdict.h"
#include "block/block-io.h"
#include "block/nbd.h"
#include "block/qdict.h"
#include "block/pvs/image-open.h"
#include "block/pvs/private.h"

/* The last word to the store is not waited for longer; ms */
#define LAST_WORD       2000

/* A drain is looked at so often; ns */
#define DRAIN_LOOK      (10 * SCALE_MS)

static QemuOptsList private_runtime_opts = {
    .name = "pvs-private",
    .head = QTAILQ_HEAD_INITIALIZER(private_runtime_opts.head),
    .desc = {
        { .name = "vdisk", .type = QEMU_OPT_STRING },
        { .name = "version", .type = QEMU_OPT_NUMBER },
        { .name = "durability", .type = QEMU_OPT_STRING },
        { .name = "take-over", .type = QEMU_OPT_BOOL },
        { .name = "request-timeout", .type = QEMU_OPT_NUMBER },
        { .name = "probe-interval", .type = QEMU_OPT_NUMBER },
        { .name = "outage-wait", .type = QEMU_OPT_NUMBER },
        { .name = "outage-action", .type = QEMU_OPT_STRING },
        { /* end of list */ }
    },
};

/* The background */

bool coroutine_fn pvs_private_co_begin(PvsPrivate *p, QemuCoSleep *sleep)
{
    for (;;) {
        if (p->closing) {
            return false;
        }
        if (!p->waits.drains) {
            bdrv_inc_in_flight(p->bs);
            return true;
        }
        qemu_co_sleep_ns_wakeable(sleep, QEMU_CLOCK_REALTIME, DRAIN_LOOK);
    }
}

void pvs_private_end(PvsPrivate *p)
{
    bdrv_dec_in_flight(p->bs);
}

static void begin_background(PvsPrivate *p)
{
    if (p->running) {
        return;
    }
    p->running = true;
    p->closing = false;
    p->coroutines = 2;
    aio_co_schedule(qemu_get_aio_context(),
                    qemu_coroutine_create(pvs_private_store_entry, p));
    aio_co_schedule(qemu_get_aio_context(),
                    qemu_coroutine_create(pvs_private_replay_entry, p));
}

static void end_background(PvsPrivate *p)
{
    if (!p->running) {
        return;
    }
    p->closing = true;
    qemu_co_sleep_wake(&p->store_sleep);
    qemu_co_sleep_wake(&p->replay_sleep);
    BDRV_POLL_WHILE(p->bs, p->coroutines > 0);
    p->running = false;
}

/* Something is to be done, or to be told; any thread, with the lock held */
static void journal_changed(void *opaque)
{
    PvsPrivate *p = opaque;

    qemu_bh_schedule(p->bh);
}

/* Drains: as for images, see image.c */

static void break_timer(void *opaque)
{
    PvsPrivate *p = opaque;

    if (p->waits.drains) {
        if (p->store) {
            bdrv_cancel_in_flight(p->store->bs);
        }
        if (p->label) {
            bdrv_cancel_in_flight(p->label->bs);
        }
        timer_mod(p->break_timer, pvs_now() + PVS_BREAK_MS * SCALE_MS);
    }
}

void pvs_private_drain_begin(PvsPrivate *p)
{
    pvs_waits_drain_begin(&p->waits);
    if (p->waits.drains == 1) {
        timer_mod(p->break_timer, pvs_now() + PVS_BREAK_MS * SCALE_MS);
    }
}

void pvs_private_drain_end(PvsPrivate *p)
{
    pvs_waits_drain_end(&p->waits);
    if (!p->waits.drains) {
        timer_del(p->break_timer);
        qemu_bh_schedule(p->bh);
    }
}

/* Something has changed */
static void private_bh(void *opaque)
{
    PvsPrivate *p = opaque;

    if (p->suspended && !p->waits.drains &&
        !(p->bs->open_flags & BDRV_O_INACTIVE)) {
        /* The node is active all the same: somebody else refused */
        p->suspended = false;
        begin_background(p);
    }
    pvs_private_tell(p);
}

/* Open */

static bool read_durability(PvsPrivate *p, QemuOpts *opts, Error **errp)
{
    Error *err = NULL;
    int value = qapi_enum_parse(&PvsDurability_lookup,
                                qemu_opt_get(opts, "durability"),
                                PVS_DURABILITY_LOCAL, &err);

    if (err) {
        error_propagate(errp, err);
        return false;
    }
    p->store_durability = value == PVS_DURABILITY_STORE;
    return true;
}

/* The header of the copy has them; an option can only agree */
static bool check_version(PvsPrivate *p, QemuOpts *opts, Error **errp)
{
    const VdiskImageName *base = &p->layer->header.base;
    const char *vdisk = qemu_opt_get(opts, "vdisk");
    uint64_t version = qemu_opt_get_number(opts, "version", base->version);

    if ((vdisk && !g_str_equal(vdisk, base->name)) ||
        version != base->version) {
        error_setg(errp, "The local copy is for version %" PRIu64 " of '%s', "
                   "not for version %" PRIu64 " of '%s'", base->version,
                   base->name, version, vdisk ?: base->name);
        return false;
    }
    return true;
}

static bool read_options(PvsPrivate *p, QemuOpts *opts, Error **errp)
{
    StoreOptions s;

    if (!pvs_read_store_options(&s, opts, errp) ||
        !read_durability(p, opts, errp) || !check_version(p, opts, errp)) {
        return false;
    }
    p->request_timeout = p->patience = s.request_timeout;
    p->probe_interval = s.probe_interval;
    p->outage_wait = s.outage_wait * NANOSECONDS_PER_SECOND;
    p->outage_action = s.outage_action;
    p->take_over = qemu_opt_get_bool(opts, "take-over", false);
    return true;
}

static bool GRAPH_UNLOCKED open_journal(PvsPrivate *p, QDict *options,
                                        Error **errp)
{
    ERRP_GUARD();
    const VdiskImageName *base = &p->layer->header.base;
    PvsJournal *j = &p->journal;
    BdrvChild *child = bdrv_open_child(NULL, options, "journal", p->bs,
                                       &child_of_bds, BDRV_CHILD_METADATA,
                                       false, errp);

    if (!child || !pvs_journal_open(j, p->bs, child, &p->waits, errp)) {
        return false;
    }
    j->changed = journal_changed;
    j->opaque = p;
    if (!g_str_equal(j->header.vdisk, base->name) ||
        j->header.version != base->version) {
        error_setg(errp, "The reconnect buffer is for version %" PRIu64
                   " of '%s', not for version %" PRIu64 " of '%s'",
                   j->header.version, j->header.vdisk, base->version,
                   base->name);
        error_append_hint(errp, "Each has its own, made by 'qemu-img create "
                          "-f pvs -o role=journal,...'.\n");
        return false;
    }
    return true;
}

static bool GRAPH_UNLOCKED open_all(PvsPrivate *p, QDict *options,
                                    QemuOpts *opts, Error **errp)
{
    return read_options(p, opts, errp) && open_journal(p, options, errp) &&
           pvs_private_open_store(p, options, errp);
}

typedef struct ActivateCo {
    PvsPrivate *p;
    Error **errp;
    int ret;
} ActivateCo;

static void coroutine_fn activate_entry(void *opaque)
{
    ActivateCo *ac = opaque;

    WITH_GRAPH_RDLOCK_GUARD() {
        ac->ret = pvs_private_co_activate(ac->p, ac->errp);
    }
    aio_wait_kick();
}

static bool GRAPH_UNLOCKED activate(PvsPrivate *p, Error **errp)
{
    ActivateCo ac = { .p = p, .errp = errp, .ret = -EINPROGRESS };

    qemu_coroutine_enter(qemu_coroutine_create(activate_entry, &ac));
    BDRV_POLL_WHILE(p->bs, ac.ret == -EINPROGRESS);
    return ac.ret >= 0;
}

PvsPrivate *pvs_private_open(BlockDriverState *bs, VdiskLayer *layer,
                             QDict *options, int flags, Error **errp)
{
    PvsPrivate *p = g_new0(PvsPrivate, 1);
    QemuOpts *opts = qemu_opts_create(&private_runtime_opts, NULL, 0,
                                      &error_abort);
    bool ok;

    p->bs = bs;
    p->layer = layer;
    p->virtual_size = layer->header.virtual_size;
    p->away_since = pvs_now();
    p->lagging = true;
    pvs_waits_init(&p->waits);
    p->break_timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                                   SCALE_NS, break_timer, p);
    p->bh = aio_bh_new(qemu_get_aio_context(), private_bh, p);
    ok = qemu_opts_absorb_qdict(opts, options, errp) &&
         open_all(p, options, opts, errp) &&
         ((flags & BDRV_O_INACTIVE) || activate(p, errp));
    qemu_opts_del(opts);
    if (!ok) {
        pvs_private_close(p);
        return NULL;
    }
    return p;
}

/* Back in standard image mode */

typedef struct LagCo {
    PvsJournal *j;
    Error **errp;
    int64_t lag;
    bool done;
} LagCo;

static void coroutine_fn lag_entry(void *opaque)
{
    LagCo *lc = opaque;

    WITH_GRAPH_RDLOCK_GUARD() {
        lc->lag = lc->j->header.broken
                  ? pvs_journal_report_broken(lc->errp)
                  : pvs_journal_co_lag(lc->j, lc->errp);
    }
    lc->done = true;
    aio_wait_kick();
}

static bool GRAPH_UNLOCKED check_drained(BlockDriverState *bs, BdrvChild *child,
                                         Error **errp)
{
    ERRP_GUARD();
    g_autofree PvsJournal *j = g_new0(PvsJournal, 1);
    PvsWaits waits;
    LagCo lc = { .j = j, .errp = errp };

    pvs_waits_init(&waits);
    if (pvs_journal_open(j, bs, child, &waits, errp)) {
        qemu_coroutine_enter(qemu_coroutine_create(lag_entry, &lc));
        BDRV_POLL_WHILE(bs, !lc.done);
        if (lc.lag > 0 || (lc.lag == 0 && j->header.window)) {
            error_setg(errp, "Version %" PRIu64 " of '%s' is not complete: "
                       "%" PRId64 " bytes are in the reconnect buffer only%s. "
                       "Open it with mode=private, and let it ship: %s",
                       j->header.version, j->header.vdisk, lc.lag,
                       j->header.window ? ", and an update window is open"
                                        : "",
                       j->header.window ? "vdisk-window-close" : "vdisk-drain");
        }
    }
    pvs_waits_destroy(&waits);
    return !*errp;
}

bool pvs_private_check_drained(BlockDriverState *bs, QDict *options,
                               Error **errp)
{
    BdrvChild *child = bdrv_open_child(NULL, options, "journal", bs,
                                       &child_of_bds, BDRV_CHILD_METADATA,
                                       true, errp);
    bool ok = child && check_drained(bs, child, errp);

    if (child) {
        bdrv_graph_wrlock();
        bdrv_unref_child(bs, child);
        bdrv_graph_wrunlock();
    }
    return ok;
}

/* Activate and inactivate */

static void bind_copy(VdiskHeader *h, const void *opaque)
{
    memset(h->base.root, 0, sizeof(h->base.root));
    memcpy(h->base.root, opaque, JOURNAL_UUID_BYTES);
}

/* The copy of another journal, or of what was written before a take-over */
static int coroutine_fn GRAPH_RDLOCK empty_copy(PvsPrivate *p)
{
    VdiskLayer *l = p->layer;
    int64_t bytes = vdisk_map_pages(&l->map) * VDISK_MAP_PAGE;
    /* It keeps its space, to be written also when the file system is full */
    int ret = bdrv_co_pwrite_zeroes(l->bs->file, l->header.map_offset, bytes,
                                    0);

    if (ret >= 0) {
        /* Before the header says that it is this journal's */
        ret = bdrv_co_flush(l->bs->file->bs);
    }
    if (ret < 0) {
        return ret;
    }
    vdisk_map_clear(&l->map);
    return vdisk_layer_co_change_header(l, bind_copy,
                                        p->journal.header.journal);
}

static int coroutine_fn GRAPH_RDLOCK check_copy(PvsPrivate *p, Error **errp)
{
    const uint8_t *owner = p->layer->header.base.root;
    bool ours = !memcmp(owner, p->journal.header.journal, JOURNAL_UUID_BYTES);
    int ret = 0;

    if (!ours || (p->take_over && p->was_empty)) {
        ret = empty_copy(p);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not empty the local copy");
    }
    return ret;
}

/* Others may have written to the vDisk while we were not active */
static void forget_session(PvsPrivate *p)
{
    QEMU_LOCK_GUARD(&p->waits.lock);
    p->suspended = false;
    p->adopted = p->closed_label = p->doubted = false;
    if (p->state == PRIVATE_READY) {
        p->state = PRIVATE_AWAY;
        p->away_since = pvs_now();
        p->lagging = true;
    }
}

int coroutine_fn pvs_private_co_activate(PvsPrivate *p, Error **errp)
{
    int ret;

    if (!pvs_private_check_promises(p, errp)) {
        return -ENOTSUP;
    }
    pvs_journal_forget(&p->journal);
    forget_session(p);
    ret = pvs_journal_co_recover(&p->journal, p->virtual_size, errp);
    if (ret < 0) {
        return ret;
    }
    p->was_empty = QSIMPLEQ_EMPTY(&p->journal.epochs);
    ret = check_copy(p, errp);
    if (ret < 0) {
        /* It may be tried again: then all of it is found anew */
        pvs_journal_forget(&p->journal);
        return ret;
    }
    begin_background(p);
    qemu_bh_schedule(p->bh);
    return 0;
}

int pvs_private_inactivate(PvsPrivate *p)
{
    uint64_t lag;

    bdrv_drained_begin(p->bs);
    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        pvs_journal_close_epoch(&p->journal);
        lag = pvs_private_lag_bytes(p);
    }
    if (!lag) {
        /* The journal stays as it is: the node may become active again */
        end_background(p);
        p->suspended = true;
    }
    bdrv_drained_end(p->bs);
    if (lag) {
        Error *err = NULL;

        error_setg(&err, "The private disk '%s' has %" PRIu64 " bytes that its "
                   "store does not have yet: it cannot be saved or migrated "
                   "now. Pause the guest, and 'vdisk-drain' ships them",
                   bdrv_get_node_name(p->bs), lag);
        vdisk_report_inactivate(err);
        return -EBUSY;
    }
    return 0;
}

/* Close */

typedef struct CloseCo {
    PvsPrivate *p;
    bool done;
} CloseCo;

/* Whoever takes the vDisk next is to see that nothing is missing */
static void coroutine_fn close_entry(void *opaque)
{
    CloseCo *cc = opaque;
    PvsPrivate *p = cc->p;
    uint64_t session = pvs_private_session(p);

    if (session && QSIMPLEQ_EMPTY(&p->journal.epochs) && p->journal.open) {
        GRAPH_RDLOCK_GUARD();
        pvs_private_co_set_closed(p, session, true);
    }
    cc->done = true;
    aio_wait_kick();
}

static void GRAPH_UNLOCKED close_label(PvsPrivate *p)
{
    CloseCo cc = { .p = p };

    if (p->nbd) {
        /* QEMU answers nobody meanwhile, and it can do without */
        nbd_set_io_timeout(p->store->bs, MIN(p->patience, LAST_WORD));
    }
    qemu_coroutine_enter(qemu_coroutine_create(close_entry, &cc));
    BDRV_POLL_WHILE(p->bs, !cc.done);
}

static void tell_lag(PvsPrivate *p)
{
    uint64_t lag;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        lag = p->journal.open ? pvs_private_lag_bytes(p) : 0;
    }
    if (lag) {
        warn_report("The store does not have %" PRIu64 " bytes of the private "
                    "disk '%s' yet; they are in its reconnect buffer, and are "
                    "shipped when it is opened again", lag,
                    bdrv_get_node_name(p->bs));
    }
}

void pvs_private_close(PvsPrivate *p)
{
    if (p->running) {
        end_background(p);
        /* The last word to the store has its own time */
        timer_del(p->break_timer);
        tell_lag(p);
        close_label(p);
    }
    if (p->journal.child) {
        pvs_journal_close(&p->journal);
    }
    pvs_private_unblock(p);
    timer_free(p->break_timer);
    qemu_bh_delete(p->bh);
    pvs_waits_destroy(&p->waits);
    g_free(p->reason);
    g_free(p->stuck);
    g_free(p->store_name);
    g_free(p);
}

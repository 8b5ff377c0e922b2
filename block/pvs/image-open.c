/*
 * pvs-image: open and close
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
#include "block/pvs/ahead.h"
#include "block/pvs/cache.h"
#include "block/pvs/image-open.h"
#include "block/pvs/resume.h"
#include "block/pvs/tree.h"

static QemuOptsList image_runtime_opts = {
    .name = "pvs-image",
    .head = QTAILQ_HEAD_INITIALIZER(image_runtime_opts.head),
    .desc = {
        { .name = PVS_IMAGE_OPT_OWNER, .type = QEMU_OPT_BOOL },
        { .name = PVS_IMAGE_OPT_VDISK, .type = QEMU_OPT_STRING },
        { .name = "vdisk", .type = QEMU_OPT_STRING },
        { .name = "version", .type = QEMU_OPT_NUMBER },
        { .name = "size", .type = QEMU_OPT_SIZE },
        { .name = "connections", .type = QEMU_OPT_NUMBER },
        { .name = "verity-root", .type = QEMU_OPT_STRING },
        { .name = "host-cache", .type = QEMU_OPT_STRING },
        { .name = "host-cache-map", .type = QEMU_OPT_STRING },
        { .name = "host-cache-limit", .type = QEMU_OPT_SIZE },
        { .name = "boot-trace", .type = QEMU_OPT_STRING },
        { .name = "request-timeout", .type = QEMU_OPT_NUMBER },
        { .name = "hedge-after", .type = QEMU_OPT_NUMBER },
        { .name = "probe-interval", .type = QEMU_OPT_NUMBER },
        { .name = "outage-wait", .type = QEMU_OPT_NUMBER },
        { .name = "outage-action", .type = QEMU_OPT_STRING },
        { /* end of list */ }
    },
};

static bool read_outage_action(StoreOptions *o, QemuOpts *opts, Error **errp)
{
    static const StoreOutageAction actions[] = {
        [PVS_OUTAGE_ACTION_WAIT] = STORE_OUTAGE_WAIT,
        [PVS_OUTAGE_ACTION_PAUSE] = STORE_OUTAGE_PAUSE,
        [PVS_OUTAGE_ACTION_ERROR] = STORE_OUTAGE_ERROR,
    };
    Error *err = NULL;
    int value = qapi_enum_parse(&PvsOutageAction_lookup,
                                qemu_opt_get(opts, "outage-action"),
                                pvs_has_guest() ? PVS_OUTAGE_ACTION_PAUSE
                                                : PVS_OUTAGE_ACTION_WAIT,
                                &err);

    if (err) {
        error_propagate(errp, err);
        return false;
    }
    if (value == PVS_OUTAGE_ACTION_PAUSE && !pvs_has_guest()) {
        error_setg(errp, "There is no guest in this process that could be "
                   "paused: outage-action must be 'wait' or 'error'");
        return false;
    }
    o->outage_action = actions[value];
    return true;
}

bool pvs_read_store_options(StoreOptions *s, QemuOpts *opts, Error **errp)
{
    g_autofree char *why = NULL;

    store_options_default(s);
    s->request_timeout = qemu_opt_get_number(opts, "request-timeout",
                                             s->request_timeout);
    if (qemu_opt_find(opts, "hedge-after")) {
        s->hedge_after = qemu_opt_get_number(opts, "hedge-after", 0);
    } else if (s->hedge_after >= s->request_timeout) {
        s->hedge_after = s->request_timeout / 2;
    }
    s->probe_interval = qemu_opt_get_number(opts, "probe-interval",
                                            s->probe_interval);
    s->outage_wait = qemu_opt_get_number(opts, "outage-wait", s->outage_wait);
    if (!store_options_check(s, &why)) {
        error_setg(errp, "%s", why);
        return false;
    }
    return read_outage_action(s, opts, errp);
}

static bool read_pool_options(PvsPoolOptions *o, QemuOpts *opts, Error **errp)
{
    if (!pvs_read_store_options(&o->store, opts, errp)) {
        return false;
    }
    o->connections = qemu_opt_get_number(opts, "connections", 0);
    if ((qemu_opt_get(opts, "connections") && o->connections < 1) ||
        o->connections > PVS_CONNECTIONS_MAX) {
        error_setg(errp, "connections must be from 1 to %d",
                   PVS_CONNECTIONS_MAX);
        return false;
    }
    o->far = !pvs_has_guest();
    /* A negative one comes as one that is too large */
    o->length = qemu_opt_get(opts, "size")
                ? MIN(qemu_opt_get_size(opts, "size", 0), INT64_MAX) : -1;
    return true;
}

static bool check_size(PvsPoolOptions *o, const char *root, Error **errp)
{
    if (o->length < 0 && root) {
        error_setg(errp, "'size' is needed with 'verity-root': a root hash "
                   "alone does not tell where a version ends");
        return false;
    }
    if (o->length >= 0 && (o->length == 0 || o->length > VERITY_MAX_SIZE ||
                           !QEMU_IS_ALIGNED(o->length, BDRV_SECTOR_SIZE))) {
        error_setg(errp, "'size' must be a multiple of 512 bytes, from 512 to %"
                   PRId64, (int64_t)VERITY_MAX_SIZE);
        return false;
    }
    return true;
}

static bool open_stores(PvsImage *img, QDict *options, PvsPoolOptions *o,
                        Error **errp)
{
    img->stores = pvs_pool_open(img->bs, &img->waits, PVS_POOL_IMAGE, options,
                                "stores", false, o, errp);
    if (!img->stores) {
        return false;
    }
    img->size = pvs_pool_length(img->stores);
    if (img->size == 0) {
        error_setg(errp, "The stores hold an empty image");
        return false;
    }
    img->tree_base = ROUND_UP(img->size, VDISK_GRANULE);
    return true;
}

static bool open_tree(PvsImage *img, QDict *options, PvsPoolOptions *o,
                      Error **errp)
{
    g_autofree char *why = NULL;
    PvsPool *pool;

    if (!img->root) {
        return true;
    }
    if (!verity_root_decode(img->root_hash, img->root, &why)) {
        error_setg(errp, "'verity-root': %s", why);
        return false;
    }
    o->length = pvs_tree_bytes(img->size);
    pool = pvs_pool_open(img->bs, &img->waits, PVS_POOL_TREE, options,
                         "verity-tree", true, o, errp);
    if (!pool) {
        return false;
    }
    img->tree = pvs_tree_new(img, pool, errp);
    if (!img->tree) {
        pvs_pool_close(pool);
        return false;
    }
    return pvs_tree_check_local(img->tree, errp);
}

static bool open_all(PvsImage *img, QDict *options, QemuOpts *opts,
                     Error **errp)
{
    PvsPoolOptions o = {};

    img->owner = qemu_opt_get_bool(opts, PVS_IMAGE_OPT_OWNER, false);
    img->node_name = g_strdup(qemu_opt_get(opts, PVS_IMAGE_OPT_VDISK) ?: "");
    img->vdisk = g_strdup(qemu_opt_get(opts, "vdisk") ?: "");
    img->version = qemu_opt_get_number(opts, "version", 0);
    img->root = g_strdup(qemu_opt_get(opts, "verity-root"));
    if (!read_pool_options(&o, opts, errp) ||
        !check_size(&o, img->root, errp)) {
        return false;
    }
    img->outage_action = o.store.outage_action;
    return open_stores(img, options, &o, errp) &&
           open_tree(img, options, &o, errp) &&
           pvs_image_open_cache(img, qemu_opt_get(opts, "host-cache"),
                                qemu_opt_get(opts, "host-cache-map"),
                                qemu_opt_get_size(opts, "host-cache-limit",
                                                  0), errp);
}

static void image_destroy(PvsImage *img)
{
    pvs_ahead_stop(img->ahead);
    pvs_image_close_cache(img);
    pvs_tree_free(img->tree);
    pvs_pool_close(img->stores);
    timer_free(img->break_timer);
    pvs_waits_destroy(&img->waits);
    g_free(img->node_name);
    g_free(img->vdisk);
    g_free(img->root);
    img->bs = NULL;
}

static void image_init(PvsImage *img, BlockDriverState *bs)
{
    pvs_waits_init(&img->waits);
    QLIST_INIT(&img->fetches);
    img->break_timer = pvs_image_break_timer(img);
    img->old_caches =
        g_ptr_array_new_with_free_func((GDestroyNotify)pvs_cache_close);
    /* From here on, drains are noticed */
    img->bs = bs;
}

int pvs_image_open(BlockDriverState *bs, QDict *options, int flags,
                   Error **errp)
{
    PvsImage *img = bs->opaque;
    QemuOpts *opts = qemu_opts_create(&image_runtime_opts, NULL, 0,
                                      &error_abort);
    g_autofree char *trace = NULL;
    bool ok;

    image_init(img, bs);
    ok = qemu_opts_absorb_qdict(opts, options, errp) &&
         open_all(img, options, opts, errp);
    trace = g_strdup(qemu_opt_get(opts, "boot-trace"));
    qemu_opts_del(opts);
    if (!ok) {
        /* As in a close: stores that are open may be asked something already */
        bdrv_drained_begin(bs);
        image_destroy(img);
        bdrv_drained_end(bs);
        return -EINVAL;
    }
    if (img->owner && img->cache) {
        img->ahead = pvs_ahead_start(img, trace);
    }
    bs->total_sectors = img->size / BDRV_SECTOR_SIZE;
    return 0;
}

void pvs_image_close(BlockDriverState *bs)
{
    image_destroy(bs->opaque);
}

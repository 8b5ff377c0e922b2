/*
 * Saved states: how a pooled layer goes from one process to the next
 *
 *            suspend                      activate, token as expected
 *   running ---------> inactive, saved --------------------------> running,
 *      ^                                                            saved
 *      |                      first change: token erased               |
 *      +---------------------------------------------------------------+
 *
 * The token in the header names the saved state that map and data in the file
 * belong to. It is written last and erased first, so a file that has it is as
 * it was saved. The other half of it goes with the state of the machine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/uuid.h"
#include "block/vdisk/layer.h"
#include "block/vdisk/tier.h"
#include "trace.h"

static bool token_is_set(const uint8_t *token)
{
    return !buffer_is_zero(token, VDISK_TOKEN_BYTES);
}

void vdisk_saved_loaded(VdiskLayer *l)
{
    qatomic_store_release(&l->saved, l->pooled &&
                                     token_is_set(l->header.token));
}

int coroutine_fn vdisk_layer_co_forget_saved(VdiskLayer *l)
{
    VdiskHeader h;
    int ret = 0;

    qemu_co_mutex_lock(&l->header_lock);
    if (qatomic_read(&l->saved)) {
        h = l->header;
        memset(h.token, 0, sizeof(h.token));
        /*
         * Durably, and before the change: else a second restore of the state
         * would find a disk that has moved on, and its token still there.
         */
        ret = vdisk_layer_co_set_header(l, &h);
        if (ret >= 0) {
            qatomic_store_release(&l->saved, false);
        }
        trace_vdisk_saved_forget(l->bs, ret);
    }
    qemu_co_mutex_unlock(&l->header_lock);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK saved_co_set_token(VdiskLayer *l)
{
    VdiskHeader h;
    QemuUUID random;
    int ret;

    QEMU_BUILD_BUG_ON(sizeof(random) != VDISK_TOKEN_BYTES);
    qemu_uuid_generate(&random);
    qemu_co_mutex_lock(&l->header_lock);
    h = l->header;
    memcpy(h.token, &random, sizeof(h.token));
    ret = vdisk_layer_co_set_header(l, &h);
    if (ret >= 0) {
        memcpy(l->own_token, h.token, sizeof(l->own_token));
        qatomic_store_release(&l->saved, true);
    }
    qemu_co_mutex_unlock(&l->header_lock);
    return ret;
}

/* In this order, each durable before the next: data, map, token (L6) */
static int coroutine_fn GRAPH_RDLOCK saved_co_write(VdiskLayer *l)
{
    int ret = qatomic_read(&l->sync_error);

    if (ret < 0) {
        return ret;     /* what was lost cannot be saved */
    }
    /* It may be there still, from a state that nothing has changed since */
    ret = vdisk_layer_co_forget_saved(l);
    if (ret >= 0) {
        ret = vdisk_tier_co_empty(l);
    }
    if (ret >= 0) {
        ret = vdisk_layer_co_write_map(l);
    }
    if (ret >= 0) {
        ret = saved_co_set_token(l);
    }
    return ret;
}

typedef struct SavedCo {
    VdiskLayer *l;
    int ret;
} SavedCo;

static void coroutine_fn saved_entry(void *opaque)
{
    SavedCo *sc = opaque;

    GRAPH_RDLOCK_GUARD();
    sc->ret = saved_co_write(sc->l);
}

int vdisk_saved_suspend(VdiskLayer *l)
{
    SavedCo sc = { .l = l, .ret = -EINPROGRESS };
    BlockDriverState *bs = l->bs;

    GLOBAL_STATE_CODE();
    /*
     * The guest stands still; others, such as exports, must so as well. First,
     * as a step in the background may wait for a granule that a request holds,
     * which waits for a store until a drain ends that.
     */
    bdrv_drained_begin(bs);
    vdisk_background_pause(l);
    qemu_coroutine_enter(qemu_coroutine_create(saved_entry, &sc));
    BDRV_POLL_WHILE(bs, sc.ret == -EINPROGRESS);
    bdrv_drained_end(bs);
    vdisk_background_resume(l);
    if (sc.ret < 0) {
        Error *err = NULL;

        error_setg(&err, "The pooled disk '%s' could not be saved: %s",
                   bdrv_get_node_name(bs), g_strerror(-sc.ret));
        vdisk_report_inactivate(err);
    }
    return MIN(sc.ret, 0);
}

static void forget_entry(void *opaque)
{
    SavedCo *sc = opaque;

    GRAPH_RDLOCK_GUARD();
    sc->ret = vdisk_layer_co_forget_saved(sc->l);
}

int vdisk_saved_forget(VdiskLayer *l)
{
    SavedCo sc = { .l = l, .ret = -EINPROGRESS };

    GLOBAL_STATE_CODE();
    if (!qatomic_read(&l->saved)) {
        return 0;
    }
    qemu_coroutine_enter(qemu_coroutine_create(forget_entry, &sc));
    BDRV_POLL_WHILE(l->bs, sc.ret == -EINPROGRESS);
    return sc.ret;
}

bool vdisk_saved_resumes(const VdiskLayer *l)
{
    /* What is read-only has no session that could be saved */
    return l->pooled && !bdrv_is_read_only(l->bs) &&
           (l->incoming || token_is_set(l->own_token));
}

bool vdisk_saved_check(const VdiskLayer *l, const VdiskHeader *before,
                       Error **errp)
{
    ERRP_GUARD();
    const char *file = l->bs->file->bs->filename;
    const VdiskHeader *h = &l->header;

    if (!token_is_set(h->token)) {
        error_setg(errp, "The pooled disk '%s' has changed since the state was "
                   "saved, or was not saved with it", file);
        error_append_hint(errp, "A saved state can be resumed once. Throw it "
                          "away and start the desktop anew.\n");
        return false;
    }
    if (memcmp(h->token, l->own_token, sizeof(h->token)) != 0 &&
        !vdisk_saved_received(h->token)) {
        error_setg(errp, "The pooled disk '%s' belongs to another saved state "
                   "than this one", file);
        error_append_hint(errp, "Resume the newest state of the desktop, or "
                          "throw it away and start the desktop anew.\n");
        return false;
    }
    if (!vdisk_image_same(&h->base, &before->base)) {
        g_autofree char *now = vdisk_image_text(&h->base);
        g_autofree char *then = vdisk_image_text(&before->base);

        error_setg(errp, "The pooled disk '%s' runs on '%s', but was opened "
                   "here when it ran on '%s'", file, now, then);
        error_append_hint(errp, "Start the destination anew.\n");
        return false;
    }
    return true;
}

void vdisk_saved_resumed(VdiskLayer *l)
{
    l->incoming = false;
    /* Its power-on was in another process */
    l->resets = MAX(l->resets, 1);
}

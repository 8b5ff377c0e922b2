/*
 * Cycle test: the disk is opened and closed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qobject/qdict.h"
#include "desk.h"

void desk_fail(Desk *d, const char *fmt, ...)
{
    const Names *names = desk_names(d);
    g_autofree char *what = NULL;
    va_list ap;

    qatomic_set_mb(&d->r->failed, true);
    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    note("%s disk of %u sectors, unmap %d, ram %d, base %d, assigned %d, "
         "hidden %d, saved %d, doing %d",
         d->r->pooled ? "pooled" : "dedicated", names->sectors, d->unmap,
         d->l && d->l->tier, names->base, names->assigned, d->r->hidden,
         d->r->saved, d->r->doing);
    report(false, "cycle: %s; cycle %" PRIu64 ", --seed %" PRIu64, what,
           d->r->cycle, d->r->seed);
    exit(1);
}

void desk_check(Desk *d, int ret, const char *what)
{
    if (ret < 0) {
        desk_fail(d, "%s failed: %s", what, strerror(-ret));
    }
}

void desk_begin(Desk *d, Doing doing, Names names)
{
    d->r->names[!d->r->now] = names;
    qatomic_set_mb(&d->r->doing, doing);
}

void desk_end(Desk *d)
{
    qatomic_set_mb(&d->r->now, !d->r->now);
    qatomic_set_mb(&d->r->doing, DOING_NOTHING);
}

static bool same_names(const Names *a, const Names *b)
{
    return a->base == b->base && a->assigned == b->assigned &&
           a->sectors == b->sectors;
}

static Names found_names(Desk *d)
{
    const VdiskHeader *h = &d->l->header;

    return (Names) {
        .base = image_find(d, h->base.name),
        .assigned = image_find(d, h->assigned.name),
        .sectors = h->virtual_size / SECTOR,
    };
}

void desk_check_names(Desk *d)
{
    Names found = found_names(d);

    if (!same_names(&found, desk_names(d))) {
        desk_fail(d, "the header has base %d, assigned %d, %u sectors",
                  found.base, found.assigned, found.sectors);
    }
    if (blk_getlength(d->blk) != (int64_t)found.sectors * SECTOR) {
        desk_fail(d, "the disk has %" PRId64 " bytes", blk_getlength(d->blk));
    }
}

/* After a kill: the header from before or from after, never neither */
static void judge_names(Desk *d)
{
    Record *r = d->r;
    Names found = found_names(d);
    Names *old = &r->names[r->now];
    const Names *new = &r->names[!r->now];

    if (r->killed && r->doing >= DOING_ASSIGN && r->doing <= DOING_RESET &&
        !same_names(old, new)) {
        /* It grows first, and takes the image then */
        if (r->doing == DOING_RESET && found.base == old->base &&
            found.sectors == new->sectors) {
            old->sectors = new->sectors;
        }
        if (same_names(&found, new)) {
            r->now = !r->now;
            r->counts.found_new++;
        } else {
            r->counts.found_old++;
        }
    }
    r->killed = false;
    desk_check_names(d);
}

static BlockDriverState *open_node(Desk *d, bool incoming, Error **errp)
{
    QDict *options = qdict_new();
    Rng *rng = &d->r->rng;
    int flags = BDRV_O_RDWR | BDRV_O_RESIZE;

    d->unmap = rng_chance(rng, 75);
    flags |= d->unmap ? BDRV_O_UNMAP : 0;
    flags |= incoming ? BDRV_O_INACTIVE : 0;
    qdict_put_str(options, "driver", "mcs");
    if (d->r->pooled && rng_chance(rng, 65)) {
        qdict_put_str(options, "write-cache-ram", "1M");
    }
    if (rng_chance(rng, 50)) {
        qdict_put_str(options, "keep-space", "on");
    }
    return bdrv_open(d->path, NULL, options, flags, errp);
}

static void find_layer(Desk *d)
{
    d->l = vdisk_node_next(NULL);
    while (d->l->bs != blk_bs(d->blk)) {
        d->l = vdisk_node_next(d->l);
    }
}

bool desk_open(Desk *d, bool resume, Error **errp)
{
    BlockDriverState *bs;
    Error *err = NULL;

    machine_incoming = resume;
    bs = open_node(d, resume, &error_abort);
    d->blk = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ |
                     BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL);
    blk_set_force_allow_inactivate(d->blk);
    blk_insert_bs(d->blk, bs, &error_abort);
    bdrv_unref(bs);
    find_layer(d);
    judge_names(d);
    machine_incoming = false;
    if (resume) {
        bdrv_activate_all(&err);
        if (err) {
            error_propagate(errp, err);
            return false;
        }
        desk_check_names(d);
    }
    return true;
}

void desk_close(Desk *d)
{
    blk_unref(d->blk);
    d->blk = NULL;
    d->l = NULL;
}

void desk_forget(Desk *d)
{
    const Names *names = desk_names(d);

    for (uint32_t s = 0; s < names->sectors; s++) {
        d->r->ref[s] = image_content(names->base, s);
    }
    d->r->session = d->r->next_id;
}

/*
 * As after years of use: the data region, and the map of a pooled disk, which
 * is void, are of sessions that were before.
 */
static void make_stale(Desk *d, int64_t data_offset, int64_t map_offset)
{
    int fd = open(d->path, O_RDWR);
    uint8_t map[MAX_SECTORS / GRANULE_SECTORS / 4];

    for (uint32_t s = 0; s < MAX_SECTORS; s += MAX_REQUEST) {
        stamp_fill(d->buf, s, MAX_REQUEST, STAMP_STALE);
        if (pwrite(fd, d->buf, MAX_REQUEST * SECTOR,
                   data_offset + s * SECTOR) < 0) {
            desk_fail(d, "no space for the disk");
        }
    }
    memset(map, 0x55, sizeof(map));
    if (d->r->pooled && pwrite(fd, map, sizeof(map), map_offset) < 0) {
        desk_fail(d, "no space for the disk");
    }
    close(fd);
}

void desk_make(Desk *d)
{
    static const int first_images[] = { 0, 1, 4 };
    int image = first_images[rng_below(&d->r->rng, 3)];
    g_autofree char *base = image_path(d->dir, image);
    int64_t data_offset, map_offset;

    d->r->pooled = rng_chance(&d->r->rng, 85);
    d->r->names[0] = (Names) { image, NONE, images[image].sectors };
    d->r->now = 0;
    d->r->saved = SAVED_NO;
    d->r->has_token = false;
    unlink(d->path);
    bdrv_img_create(d->path, "mcs", base, images[image].format,
                    (char *)(d->r->pooled ? "lifetime=pooled" :
                                            "lifetime=dedicated"),
                    (uint64_t)images[image].sectors * SECTOR, BDRV_O_RDWR,
                    true, &error_abort);
    desk_open(d, false, &error_abort);
    data_offset = d->l->data_offset;
    map_offset = d->l->header.map_offset;
    desk_close(d);
    make_stale(d, data_offset, map_offset);
    desk_forget(d);
    memcpy(d->r->flushed, d->r->ref, sizeof(d->r->ref));
    d->r->log_n = 0;
}

typedef struct DeskCo {
    VdiskLayer *l;
    const char *path, *format;
    Error **errp;
    bool done, ok;
} DeskCo;

static void coroutine_fn assign_entry(void *opaque)
{
    DeskCo *dc = opaque;
    g_autofree VdiskImageName *image = g_new0(VdiskImageName, 1);

    if (dc->path) {
        pstrcpy(image->name, sizeof(image->name), dc->path);
        pstrcpy(image->format, sizeof(image->format), dc->format);
    }
    dc->ok = dc->path ? vdisk_co_assign(dc->l, image, dc->errp)
                      : vdisk_co_unassign(dc->l, dc->errp);
    dc->done = true;
    aio_wait_kick();
}

bool desk_assign(Desk *d, const char *path, const char *format, Error **errp)
{
    DeskCo dc = { .l = d->l, .path = path, .format = format, .errp = errp };

    qemu_coroutine_enter(qemu_coroutine_create(assign_entry, &dc));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !dc.done);
    return dc.ok;
}

void desk_wait_header(Desk *d)
{
    if (d->l->background) {
        vdisk_background_pause(d->l);
        vdisk_background_resume(d->l);
    }
}

/*
 * Cycle test: the images that desktops run on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "desk.h"

/* Two of the smallest and two of the largest, some that end in a granule */
const Image images[IMAGES] = {
    { "one.raw",        "raw",      4096 },
    { "two.qcow2",      "qcow2",    4096 },
    { "odd.raw",        "raw",      5133 },
    { "three.qcow2",    "qcow2",    6144 },
    { "small.raw",      "raw",      3003 },
    { "full.raw",       "raw",      MAX_SECTORS },
    { "full.qcow2",     "qcow2",    MAX_SECTORS },
};

char *image_path(const char *dir, int image)
{
    return g_build_filename(dir, images[image].name, NULL);
}

int image_find(Desk *d, const char *path)
{
    if (!*path) {
        return NONE;
    }
    for (int i = 0; i < IMAGES; i++) {
        g_autofree char *own = image_path(d->dir, i);

        if (g_str_equal(own, path)) {
            return i;
        }
    }
    desk_fail(d, "the header names '%s'", path);
}

uint64_t image_content(int image, uint32_t s)
{
    bool hole = (s / 64 * 7 + image) % 5 == 0;

    return s >= images[image].sectors || hole ? STAMP_ZERO :
           STAMP_STALE + 1 + image;
}

static void image_fill(Desk *d, int image, BlockBackend *blk)
{
    for (uint32_t s = 0; s < images[image].sectors; s++) {
        uint64_t id = image_content(image, s);

        if (id != STAMP_ZERO) {
            stamp_fill(d->buf, s, 1, id);
            desk_check(d, blk_pwrite(blk, (int64_t)s * SECTOR, SECTOR, d->buf,
                                     0), "writing an image");
        }
    }
}

void images_make(Desk *d)
{
    for (int i = 0; i < IMAGES; i++) {
        g_autofree char *path = image_path(d->dir, i);
        QDict *options = qdict_new();
        BlockBackend *blk;

        bdrv_img_create(path, images[i].format, NULL, NULL, NULL,
                        (uint64_t)images[i].sectors * SECTOR, BDRV_O_RDWR,
                        true, &error_abort);
        qdict_put_str(options, "driver", images[i].format);
        blk = blk_new_open(path, NULL, options, BDRV_O_RDWR, &error_abort);
        image_fill(d, i, blk);
        blk_unref(blk);
    }
}

void image_hide(Record *r, const char *dir, int image)
{
    g_autofree char *path = image_path(dir, image);
    g_autofree char *away = g_strconcat(path, ".away", NULL);

    r->hidden = image;
    if (rename(path, away) < 0) {
        abort();
    }
}

void image_show(Record *r, const char *dir)
{
    if (r->hidden != NONE) {
        g_autofree char *path = image_path(dir, r->hidden);
        g_autofree char *away = g_strconcat(path, ".away", NULL);

        /* Not there if the process was killed just before or after */
        if (rename(away, path) < 0 && errno != ENOENT) {
            abort();
        }
        r->hidden = NONE;
    }
}

/*
 * Layer: verification and repair
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/memalign.h"
#include "block/vdisk/layer.h"

typedef struct LayerCheck {
    VdiskLayer *l;
    BdrvCheckResult *result;
    bool fix_errors;
    bool fix_leaks;
    int64_t length;         /* of the file, bytes */
} LayerCheck;

static void G_GNUC_PRINTF(2, 3)
found_error(LayerCheck *c, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, c->fix_errors ? "Repairing: " : "ERROR: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    c->result->corruptions++;
}

/* After a repair that went well, @ret is not negative */
static int repaired(LayerCheck *c, int ret)
{
    if (ret >= 0) {
        c->result->corruptions_fixed++;
        c->result->corruptions--;
        return 0;
    }
    c->result->check_errors++;
    return ret;
}

/* A damaged copy costs nothing until the other one is damaged too */
static int coroutine_fn GRAPH_RDLOCK check_header(LayerCheck *c)
{
    VdiskLayer *l = c->l;
    size_t size = VDISK_HEADER_COPIES * VDISK_HEADER_BYTES;
    uint8_t *buf = qemu_blockalign(l->bs->file->bs, size);
    int other = (l->header_copy + 1) % VDISK_HEADER_COPIES;
    g_autofree char *why = NULL;
    VdiskHeader h;
    unsigned bad;
    int ret = bdrv_co_pread(l->bs->file, 0, size, buf, 0);

    if (ret < 0) {
        c->result->check_errors++;
    } else {
        vdisk_header_choose(&h, buf, &bad, &why);
        if (bad & (1u << other)) {
            found_error(c, "copy %c of the header is damaged", 'A' + other);
            if (c->fix_errors) {
                qemu_co_mutex_lock(&l->header_lock);
                ret = repaired(c, vdisk_layer_co_set_header(l, &l->header));
                qemu_co_mutex_unlock(&l->header_lock);
            }
        }
    }
    qemu_vfree(buf);
    return MIN(ret, 0);
}

/* Granules whose data lies past the end of the file become zero */
static void drop_cut_off(LayerCheck *c)
{
    VdiskMap *map = &c->l->map;
    int64_t kept = MAX(0, c->length - c->l->data_offset);
    uint64_t g = kept / VDISK_GRANULE;
    uint64_t lost = 0;
    VdiskState state;

    while (g < map->granules) {
        uint64_t run = vdisk_map_run(map, g, map->granules - g, &state);

        if (state == VDISK_STATE_DATA) {
            lost += run;
            if (c->fix_errors) {
                vdisk_map_set(map, g, run, VDISK_STATE_ZERO);
            }
        }
        g += run;
    }
    if (lost) {
        found_error(c, "the data of %" PRIu64 " granules was cut off%s", lost,
                    c->fix_errors ? "; they read as zeros now" : "");
        if (c->fix_errors) {
            repaired(c, 0);
        }
    }
}

static int coroutine_fn GRAPH_RDLOCK check_length(LayerCheck *c)
{
    VdiskLayer *l = c->l;
    int64_t map_end = l->header.map_offset +
                      vdisk_map_pages(&l->map) * VDISK_MAP_PAGE;
    int ret;

    if (c->length >= l->header.file_size) {
        return 0;
    }
    found_error(c, "the file has %" PRId64 " bytes of at least %" PRIu64,
                c->length, l->header.file_size);
    if (c->length < map_end) {
        found_error(c, "part of the granule map was cut off%s",
                    c->fix_errors ? "; the base is read there now" : "");
        if (c->fix_errors) {
            repaired(c, 0);
        }
    }
    drop_cut_off(c);
    if (!c->fix_errors) {
        return 0;
    }
    /* The map first: a file of full length with the old map looks sound */
    ret = vdisk_layer_co_flush(l);
    if (ret >= 0) {
        ret = bdrv_co_truncate(l->bs->file, l->header.file_size, false,
                               PREALLOC_MODE_OFF, 0, NULL);
    }
    return repaired(c, ret);
}

/* Does the file have anything where the granule's data would be? */
static bool coroutine_fn GRAPH_RDLOCK has_data(VdiskLayer *l, uint64_t granule)
{
    int64_t n;
    int ret = bdrv_co_block_status_above(l->bs->file->bs, NULL,
                                         l->data_offset +
                                         granule * VDISK_GRANULE,
                                         VDISK_GRANULE, &n, NULL, NULL);

    return ret < 0 || n < VDISK_GRANULE || !(ret & BDRV_BLOCK_ZERO);
}

static void coroutine_fn GRAPH_RDLOCK check_states(LayerCheck *c)
{
    VdiskMap *map = &c->l->map;
    uint64_t g = vdisk_map_next_bad(map, 0);

    while (g < map->granules) {
        bool data = has_data(c->l, g);

        found_error(c, "granule %" PRIu64 " is in no valid state%s", g,
                    !c->fix_errors ? "" :
                    data ? "; taken as data" : "; taken from the base");
        if (c->fix_errors) {
            vdisk_map_set(map, g, 1, data ? VDISK_STATE_DATA :
                                            VDISK_STATE_BASE);
            repaired(c, 0);
        }
        g = vdisk_map_next_bad(map, g + 1);
    }
}

static void check_trim(LayerCheck *c)
{
    uint64_t past = vdisk_map_trim(&c->l->map, c->fix_leaks);

    c->result->leaks += past;
    if (past && c->fix_leaks) {
        c->result->leaks_fixed += past;
        c->result->leaks -= past;
    }
}

static void fill_result(LayerCheck *c)
{
    VdiskLayer *l = c->l;
    uint64_t count[4];

    vdisk_map_count(&l->map, count);
    c->result->bfi.total_clusters = l->map.granules;
    c->result->bfi.allocated_clusters = count[VDISK_STATE_DATA];
    c->result->image_end_offset = l->header.file_size;
}

int coroutine_fn vdisk_layer_co_check(VdiskLayer *l, BdrvCheckResult *result,
                                      BdrvCheckMode fix)
{
    LayerCheck c = {
        .l = l,
        .result = result,
        .fix_errors = fix & BDRV_FIX_ERRORS,
        .fix_leaks = fix & BDRV_FIX_LEAKS,
        .length = bdrv_co_getlength(l->bs->file->bs),
    };
    int ret;

    if (c.length < 0) {
        result->check_errors++;
        return c.length;
    }
    ret = check_header(&c);
    if (ret >= 0) {
        ret = check_length(&c);
    }
    if (ret >= 0) {
        check_states(&c);
        check_trim(&c);
        if (c.fix_errors || c.fix_leaks) {
            ret = vdisk_layer_co_flush(l);
        }
        fill_result(&c);
    }
    return ret;
}

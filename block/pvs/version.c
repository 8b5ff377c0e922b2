/*
 * pvs: from a version to the node that it is read by
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "block/qdict.h"
#include "block/pvs/image-open.h"
#include "block/pvs/pvs.h"
#include "block/pvs/tree.h"

/* No longer does a reset or an assignment wait for a version, ms */
#define USABLE_MS   2000

static const char *const image_options[] = {
    "vdisk", "version", "size", "connections", "verity-root", "host-cache",
    "host-cache-map", "host-cache-limit", "boot-trace", "request-timeout",
    "hedge-after", "probe-interval", "outage-wait", "outage-action",
    "verity-tree", "stores", NULL
};

/* Where %v and %r are replaced */
static const char *const expanded[] = {
    "host-cache", "host-cache-map", "boot-trace", "verity-tree", "stores", NULL
};

/* Is @key one of @names, or below one? */
static bool names_key(const char *const *names, const char *key)
{
    for (; *names; names++) {
        size_t len = strlen(*names);

        if (strncmp(key, *names, len) == 0 &&
            (key[len] == '\0' || key[len] == '.')) {
            return true;
        }
    }
    return false;
}

QDict *pvs_take_image_options(QDict *options)
{
    QDict *taken = qdict_new();
    const QDictEntry *e, *next;

    for (e = qdict_first(options); e; e = next) {
        const char *key = qdict_entry_key(e);

        next = qdict_next(options, e);
        if (names_key(image_options, key)) {
            qdict_put_obj(taken, key, qobject_ref(qdict_entry_value(e)));
            qdict_del(options, key);
        }
    }
    return taken;
}

/* Replace %v and %r in @pattern; to be freed, NULL with an error */
static char *expand(const char *pattern, uint64_t version, const char *root,
                    Error **errp)
{
    g_autoptr(GString) s = g_string_new(NULL);

    for (const char *p = pattern; *p; p++) {
        if (*p != '%') {
            g_string_append_c(s, *p);
            continue;
        }
        switch (*++p) {
        case 'v':
            g_string_append_printf(s, "%" PRIu64, version);
            break;
        case 'r':
            if (!root) {
                error_setg(errp, "There is no root hash for %%r in '%s'",
                           pattern);
                return NULL;
            }
            g_string_append(s, root);
            break;
        case '%':
            g_string_append_c(s, '%');
            break;
        default:
            error_setg(errp, "After '%%' in '%s' there must be v, r or another "
                       "'%%'", pattern);
            return NULL;
        }
    }
    return g_string_free(g_steal_pointer(&s), false);
}

static bool expand_options(QDict *options, uint64_t version, const char *root,
                           Error **errp)
{
    const QDictEntry *e;
    g_autoptr(QDict) changed = qdict_new();

    for (e = qdict_first(options); e; e = qdict_next(options, e)) {
        const char *value = qdict_get_try_str(options, qdict_entry_key(e));
        char *now;

        if (!value || !names_key(expanded, qdict_entry_key(e))) {
            continue;
        }
        now = expand(value, version, root, errp);
        if (!now) {
            return false;
        }
        qdict_put_str(changed, qdict_entry_key(e), now);
        g_free(now);
    }
    qdict_join(options, changed, true);
    return true;
}

/* Takes @options, which have vdisk, version and root hash in them */
static BlockDriverState *open_version(BlockDriverState *bs, QDict *options,
                                      uint64_t version, Error **errp)
{
    BDRVPvsState *s = bs->opaque;
    const char *root = qdict_get_try_str(options, "verity-root");

    if (!expand_options(options, version, root, errp)) {
        qobject_unref(options);
        return NULL;
    }
    qdict_put_str(options, "driver", "pvs-image");
    qdict_put_bool(options, PVS_IMAGE_OPT_OWNER, !s->has_layer);
    qdict_put_str(options, PVS_IMAGE_OPT_VDISK, bdrv_get_node_name(bs));
    return bdrv_open(NULL, NULL, options, 0, errp);
}

char *pvs_root_hex(const uint8_t root[VDISK_ROOT_BYTES])
{
    GString *s;

    if (!vdisk_root_is_set(root)) {
        return NULL;
    }
    s = g_string_new(NULL);
    for (int i = 0; i < VDISK_ROOT_BYTES; i++) {
        g_string_append_printf(s, "%02x", root[i]);
    }
    return g_string_free(s, false);
}

BlockDriverState *pvs_open_image(BlockDriverState *bs,
                                 const VdiskImageName *name, Error **errp)
{
    BDRVPvsState *s = bs->opaque;
    g_autofree char *root = pvs_root_hex(name->root);
    QDict *options = qdict_clone_shallow(s->image_options);

    qdict_put_str(options, "vdisk", name->name);
    qdict_put_int(options, "version", name->version);
    qdict_put_int(options, "size", name->size);
    qdict_del(options, "verity-root");
    if (root) {
        qdict_put_str(options, "verity-root", root);
    }
    return open_version(bs, options, name->version, errp);
}

static bool get_version(const QDict *options, uint64_t *version, Error **errp)
{
    const char *text = qdict_get_try_str(options, "version");

    *version = qdict_get_try_int(options, "version", 0);
    if (text && qemu_strtou64(text, NULL, 10, version) < 0) {
        error_setg(errp, "'version' must be a number");
        return false;
    }
    return true;
}

BlockDriverState *pvs_open_relay_image(BlockDriverState *bs, Error **errp)
{
    BDRVPvsState *s = bs->opaque;
    uint64_t version;

    if (!get_version(s->image_options, &version, errp)) {
        return NULL;
    }
    return open_version(bs, qdict_clone_shallow(s->image_options), version,
                        errp);
}

typedef enum Tried {
    TRIED_GOOD,
    TRIED_LATE,
    TRIED_CORRUPT,
} Tried;

static Tried coroutine_fn GRAPH_UNLOCKED
co_try(PvsImage *img, int64_t offset, int64_t bytes, int64_t until)
{
    uint64_t corrupt = qatomic_read(&img->corrupt);
    int ret = 0;
    int64_t n;
    PvsFetch *f;

    bdrv_inc_in_flight(img->bs);
    f = pvs_fetch_begin(img, offset, bytes, PVS_DEMAND, &n);
    if (f) {
        ret = pvs_fetch_co_wait_until(img, f, until);
        pvs_fetch_unref(img, f);
    }
    bdrv_dec_in_flight(img->bs);
    if (ret >= 0) {
        return TRIED_GOOD;
    }
    return qatomic_read(&img->corrupt) == corrupt ? TRIED_LATE : TRIED_CORRUPT;
}

/*
 * Do stores, tree and root hash belong together? Looks at the top of the tree
 * and at the first block. A block that is late is believed: all may be slow
 * when many desktops are pushed to.
 */
static bool coroutine_fn GRAPH_UNLOCKED
co_check_sealed(PvsImage *img, int64_t until, Error **errp)
{
    ERRP_GUARD();
    int64_t head = pvs_tree_unit(img->tree, img->tree_base,
                                 pvs_image_end(img));
    Tried tree = co_try(img, img->tree_base, head, until);

    if (tree == TRIED_LATE) {
        error_setg(errp, "The verity tree of version %" PRIu64 " of '%s' "
                   "cannot be read", img->version, img->vdisk);
        error_append_hint(errp, "Check that its server is up.\n");
    } else if (tree == TRIED_CORRUPT) {
        error_setg(errp, "The verity tree of version %" PRIu64 " of '%s' does "
                   "not fit its root hash", img->version, img->vdisk);
        error_append_hint(errp, "Tree, root hash and size must all be of the "
                          "same version.\n");
    } else if (co_try(img, 0, VDISK_GRANULE, until) == TRIED_CORRUPT) {
        error_setg(errp, "What the stores have as version %" PRIu64 " of '%s' "
                   "is not what was sealed", img->version, img->vdisk);
        error_append_hint(errp, "VDISK_CORRUPT events tell which ones; they "
                          "may have another version.\n");
    } else {
        return true;
    }
    return false;
}

bool coroutine_fn pvs_co_image_usable(BlockDriverState *image, Error **errp)
{
    ERRP_GUARD();
    int64_t until = pvs_now() + USABLE_MS * SCALE_MS;
    PvsImage *img = pvs_image(image);

    if (pvs_image_missing(img) == 0) {
        return true;
    }
    if (!pvs_pool_co_wait_up(img->stores)) {
        error_setg(errp, "No store has version %" PRIu64 " of '%s', and it is "
                   "not local", img->version, img->vdisk);
        error_append_hint(errp, "Check that the stores are up and serve it.\n");
        return false;
    }
    return !img->tree || co_check_sealed(img, until, errp);
}

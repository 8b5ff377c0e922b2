/*
 * How a version is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "version-status.h"
#include "cli/store/describe.h"
#include "cli/store/store-int.h"
#include "cli/store/tree-file.h"

#include <sys/stat.h>

static const char *const tree_texts[] = {
    [TREE_NONE] = "none",
    [TREE_FITS] = "fits",
    [TREE_DAMAGED] = "damaged",
    [TREE_MISSING] = "missing",
};

/* Takes @why; the first one counts */
static void set_trouble(VersionStatus *status, char *why)
{
    if (status->trouble) {
        g_free(why);
    } else {
        status->trouble = why;
    }
}

/* Are all blocks above the leaves what they should be? */
static bool head_is_good(const TreeFile *t)
{
    const VerityGeometry *g = verity_geometry(t->verity);

    for (uint64_t i = 0; i < (g->levels ? g->level_first[0] : 1); i++) {
        if (!t->good[i]) {
            return false;
        }
    }
    return true;
}

static void find_tree(VersionStatus *status, const Store *s, const Manifest *m,
                      const Version *v)
{
    g_autofree char *path = store_path(s, m->vdisk, v->tree);
    g_autoptr(GError) error = NULL;
    g_autoptr(TreeFile) tree = tree_file_of(s, m, v, &error);
    struct stat st;

    if (stat(path, &st) == 0) {
        status->tree_bytes = st.st_blocks * UINT64_C(512);
        status->tree = tree && head_is_good(tree) ? TREE_FITS : TREE_DAMAGED;
    } else {
        status->tree = TREE_MISSING;
    }
    if (error) {
        set_trouble(status, g_strdup(error->message));
    } else if (status->tree == TREE_DAMAGED) {
        set_trouble(status, g_strdup("its tree is not what was sealed; "
                                     "'deskcast vdisk verify' tells more"));
    }
}

/* While a version is sealed its label goes: either size is right then */
static bool has_right_size(const Version *v, uint64_t bytes)
{
    return bytes == version_image_bytes(v) ||
           (v->access == ACCESS_MAINTENANCE && bytes == v->size);
}

/* On Ceph each question is a program: only what the manifest says is told */
static void find_image(VersionStatus *status, const Store *s,
                       const Manifest *m, const Version *v)
{
    g_autofree char *path = store_path(s, m->vdisk, v->image);
    g_autoptr(GError) error = NULL;
    uint64_t bytes;

    if (store_on_rbd(s)) {
        return;
    }
    status->image_bytes = describe_allocated(s, m, v);
    status->readers = image_lock_readers(path);
    status->written = image_lock_is_written(path);
    if (!store_image_size(s, m, v, &bytes, &error)) {
        set_trouble(status, g_strdup(error->message));
    } else if (!has_right_size(v, bytes)) {
        set_trouble(status, g_strdup_printf(
            "its image has %" PRIu64 " bytes, and should have %" PRIu64, bytes,
            version_image_bytes(v)));
    }
}

static unsigned count_children(const Manifest *m, const Version *v)
{
    unsigned n = 0;

    for (guint i = 0; i < m->versions->len; i++) {
        n += ((Version *)m->versions->pdata[i])->parent == v->number;
    }
    return n;
}

void version_status_find(VersionStatus *status, const Store *s,
                         const Manifest *m, const Version *v, int64_t now)
{
    *status = (VersionStatus) {
        .children = count_children(m, v),
        .waits = v->access == ACCESS_PRODUCTION && v->released > now,
    };
    if (v->failed) {
        set_trouble(status, g_strdup("it is not what was sealed any more; "
                                     "'deskcast vdisk verify' tells where"));
    }
    find_image(status, s, m, v);
    if (v->tree) {
        find_tree(status, s, m, v);
    }
}

void version_status_clear(VersionStatus *status)
{
    g_clear_pointer(&status->trouble, g_free);
}

const char *version_status_tree(const VersionStatus *status)
{
    return tree_texts[status->tree];
}

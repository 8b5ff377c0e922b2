/*
 * Sealing a version
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/version-int.h"
#include "cli/store/content.h"
#include "cli/store/durable.h"
#include "block/pvs/label.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define POLL_US     100000      /* a server needs that long at least */

static void let_go(int hold)
{
    if (hold >= 0) {
        close(hold);
    }
}

bool version_no_writer(const Store *s, const Manifest *m, const Version *v,
                       GError **error)
{
    g_autoptr(GError) local = NULL;
    int hold = -1;

    if (s->images->hold(s, m, v, &hold, &local)) {
        let_go(hold);
        return true;
    }
    /* An image that is lost has no writer */
    if (g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
        return true;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return false;
}

/* A server lets go when it has seen the manifest */
static bool wait_for_writer(const Store *s, const Manifest *m, const Version *v,
                            unsigned wait_ms, int *hold, GError **error)
{
    gint64 end = g_get_monotonic_time() + (gint64)wait_ms * 1000;

    for (;;) {
        g_autoptr(GError) local = NULL;

        if (s->images->hold(s, m, v, hold, &local)) {
            return true;
        }
        if (!g_error_matches(local, G_IO_ERROR, G_IO_ERROR_BUSY) ||
            g_get_monotonic_time() >= end) {
            g_propagate_error(error, g_steal_pointer(&local));
            return false;
        }
        g_usleep(POLL_US);
    }
}

static Content *open_content(const Store *s, const Manifest *m,
                             const Version *v, GError **error)
{
    g_autoptr(JsonObject) chain = store_chain(s, m, v, STORE_CHAIN_DIRECT);

    return content_open(chain, error);
}

/* Has the store all that its private desktop wrote? */
static bool check_label(const Store *s, const Manifest *m, const Version *v,
                        GError **error)
{
    g_autoptr(Content) c = open_content(s, m, v, error);
    uint8_t buf[LABEL_BYTES];
    g_autofree char *why = NULL;
    Label l;

    if (!c || !content_pread(c, label_offset(v->size), sizeof(buf), buf,
                             error)) {
        return false;
    }
    if (!label_decode(&l, buf, &why)) {
        return version_refuse(error, m, v->number, "has no valid label behind "
                              "it: %s; was it written to past private image "
                              "mode?", why);
    }
    if (!l.id.writer || l.closed) {
        return true;
    }
    return version_refuse(error, m, v->number, "was not left in order by the "
                          "desktop that writes it: its reconnect buffer may "
                          "hold writes that the store lacks; start that "
                          "desktop again with the store reachable, and shut it "
                          "down");
}

/* Does the image have its label still? False with @error if it is neither. */
static bool has_label(const Store *s, const Manifest *m, const Version *v,
                      bool *label, GError **error)
{
    uint64_t bytes;

    if (!store_image_size(s, m, v, &bytes, error)) {
        return false;
    }
    *label = bytes == v->size + LABEL_BYTES;
    return *label || bytes == v->size ||
           version_refuse(error, m, v->number, "has an image of %" PRIu64
                          " bytes, and should have %" PRIu64, bytes, v->size);
}

/* The first steps; each can be repeated, and the image has no label then */
static bool take_label_off(Store *s, const Manifest *m, const Version *v,
                           unsigned wait_ms, int *hold, GError **error)
{
    bool label;

    if (!wait_for_writer(s, m, v, wait_ms, hold, error) ||
        !has_label(s, m, v, &label, error)) {
        return false;
    }
    if (!label) {
        return true;
    }
    if (!check_label(s, m, v, error)) {
        return false;
    }
    /* Cutting is writing, by a program that finds our hold in its way */
    let_go(*hold);
    *hold = -1;
    if (!s->images->cut(s, m, v, v->size, error) ||
        !s->images->hold(s, m, v, hold, error) ||
        !has_label(s, m, v, &label, error)) {
        return false;
    }
    return !label || version_refuse(error, m, v->number, "has its label still "
                                    "after it was cut off");
}

static bool make_tree(const Store *s, const Manifest *m, Version *v, bool quiet,
                      GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, v->tree);
    g_autofree char *what = g_strdup_printf("sealing %s@%" PRIu64, m->vdisk,
                                            v->number);
    g_autoptr(Progress) progress = progress_new(what, v->size, true, quiet);
    g_autoptr(Content) c = open_content(s, m, v, error);
    /* It gets its length at the end: somebody else may have made it meanwhile */
    int fd = c ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644)
               : -1;
    bool ok;

    if (!c) {
        return false;
    }
    if (fd < 0) {
        return durable_errno(error, "make", path);
    }
    ok = content_tree(c, v->size, m->salt, m->uuid, fd, v->root, progress,
                      error);
    close(fd);
    if (ok) {
        progress_done(progress);
    }
    return ok;
}

/* The last step: what the manifest says is true on the medium */
static bool make_sealed(Store *s, Manifest *m, Version *v, bool quiet,
                        GError **error)
{
    g_autofree char *tree = g_strdup_printf("%" PRIu64 ".tree", v->number);

    manifest_set_unused(m, tree, true);
    if (!store_set_manifest(s, m, error)) {
        return false;
    }
    v->tree = g_steal_pointer(&tree);
    v->access = ACCESS_TEST;
    v->sealed = store_now();
    if (!make_tree(s, m, v, quiet, error) ||
        !store_settle_version(s, m, v, error)) {
        return false;
    }
    manifest_set_unused(m, v->tree, false);
    return store_set_manifest(s, m, error);
}

/* Nothing was sealed: a private desktop may go on, if its label is there */
static void back_out(Store *s, Manifest *m, Version *v)
{
    g_autofree char *tree = g_strdup_printf("%" PRIu64 ".tree", v->number);
    bool label;

    /* By somebody else, maybe, while our lock was lost: all of it is his then */
    if (!store_is_current(s, m)) {
        return;
    }
    g_clear_pointer(&v->tree, g_free);
    memset(v->root, 0, sizeof(v->root));
    v->access = ACCESS_MAINTENANCE;
    v->sealed = 0;
    v->label = has_label(s, m, v, &label, NULL) && label;
    manifest_set_unused(m, tree, true);
    s->images->settle(s, m, v, false, NULL);
    /* Named as unused before it is deleted, whatever is there by now */
    if (store_set_manifest(s, m, NULL)) {
        store_remove_unused(s, m, NULL);
    }
}

static bool find_writing(const Manifest *m, Version **v, GError **error)
{
    Version *newest = manifest_newest(m);

    *v = manifest_maintenance(m);
    if (*v) {
        return true;
    }
    if (newest) {
        return version_refuse(error, m, newest->number, "is sealed already; "
                              "'deskcast version new' makes one to write to");
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                "'%s' has no version in maintenance", m->vdisk);
    return false;
}

bool store_version_seal(Store *s, Manifest *m, unsigned wait_ms, bool quiet,
                        GError **error)
{
    Version *v;
    int hold = -1;
    bool ok;

    if (!find_writing(m, &v, error)) {
        return false;
    }
    if (v->label) {
        v->label = false;
        if (!store_set_manifest(s, m, error)) {
            v->label = true;
            return false;
        }
    }
    ok = take_label_off(s, m, v, wait_ms, &hold, error) &&
         make_sealed(s, m, v, quiet, error);
    let_go(hold);
    if (!ok) {
        back_out(s, m, v);
    }
    return ok;
}

/*
 * The version that a push brings
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "target.h"

#include "cli/audit.h"
#include "cli/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

char *target_folder(const char *store, const char *vdisk)
{
    return g_build_filename(store, "vdisks", vdisk, NULL);
}

Manifest *target_manifest(const char *folder, const char *vdisk,
                          GError **error)
{
    g_autoptr(Store) store = store_open(folder, STORE_READ, error);

    return store ? store_manifest(store, vdisk, error) : NULL;
}

static bool refuse(GError **error, const char *vdisk, uint64_t number,
                   const char *why)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "version %" G_GUINT64_FORMAT " of '%s' %s", number, vdisk,
                why);
    return false;
}

static bool may_be_pushed(const Manifest *m, const Version *v, bool for_pilots,
                          int64_t now, GError **error)
{
    if (v->failed) {
        return refuse(error, m->vdisk, v->number, "is not what was sealed any "
                      "more ('deskcast vdisk verify')");
    }
    switch (v->access) {
    case ACCESS_MAINTENANCE:
        return refuse(error, m->vdisk, v->number, "is being written; seal it "
                      "first ('deskcast version seal', or 'update finish')");
    case ACCESS_RETIRED:
        return refuse(error, m->vdisk, v->number, "is retired");
    case ACCESS_TEST:
        return for_pilots ||
               refuse(error, m->vdisk, v->number, "is in test: push it to "
                      "desktops named with --pilot, or promote it first");
    case ACCESS_PRODUCTION:
        return for_pilots || v->released <= now ||
               refuse(error, m->vdisk, v->number, "is not released yet: it "
                      "can be pushed to desktops named with --pilot");
    }
    return refuse(error, m->vdisk, v->number, "has an unknown access");
}

const Version *target_version(const Manifest *m, uint64_t number,
                              bool for_pilots, int64_t now, GError **error)
{
    const Version *v = number ? manifest_version(m, number)
                              : manifest_current(m, now);

    if (!v && number) {
        refuse(error, m->vdisk, number, "is not in the store");
    } else if (!v) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "no version of '%s' is in production; promote one, or "
                    "name it", m->vdisk);
    }
    return v && may_be_pushed(m, v, for_pilots, now, error) ? v : NULL;
}

static char *hex(const uint8_t root[VERITY_HASH_BYTES])
{
    GString *s = g_string_new(NULL);

    for (int i = 0; i < VERITY_HASH_BYTES; i++) {
        g_string_append_printf(s, "%02x", root[i]);
    }
    return g_string_free(s, FALSE);
}

/* Images on Ceph have no path */
static bool check_store(const CatalogMetadata *catalog, const Host *host,
                        GError **error)
{
    g_autoptr(Store) store = NULL;

    if (host->store) {
        return true;
    }
    store = store_open(catalog->store, STORE_READ, error);
    if (store && store_on_rbd(store)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "the images of this store are on Ceph, and desktops of "
                    "the model mcs open files: give host '%s' a store of its "
                    "own (store= in the list of hosts), and 'deskcast stage'",
                    host->name);
        return false;
    }
    return store;
}

/* On another host QEMU, or the hook, finds out */
static bool check_image(const char *path, const Host *host, GError **error)
{
    if (host_is_local(host) && access(path, R_OK) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "host '%s' has no image '%s' (%s): stage it first "
                    "('deskcast stage')", host->name, path, g_strerror(errno));
        return false;
    }
    return true;
}

bool target_wanted(const CatalogMetadata *catalog, const Version *v,
                   const Host *host, WantedVersion *w, GError **error)
{
    const char *store = host->store ? host->store : catalog->store;
    g_autofree char *folder = target_folder(store, catalog->vdisk);

    *w = (WantedVersion){ .number = v->number, .size = v->size };
    if (catalog->model == MODEL_PVS) {
        w->root = hex(v->root);
        return true;
    }
    w->image = g_build_filename(folder, v->image, NULL);
    w->format = g_strdup(v->format);
    return check_store(catalog, host, error) &&
           check_image(w->image, host, error);
}

static void say_who(int fd)
{
    g_autofree char *user = audit_user();
    g_autofree char *who = g_strdup_printf("%s on %s, process %d\n", user,
                                           g_get_host_name(), (int)getpid());

    if (ftruncate(fd, 0) < 0 || pwrite(fd, who, strlen(who), 0) < 0) {
        return;                 /* only a courtesy */
    }
}

static void tell_no_lock(const char *name, GError **error)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                "cannot lock the catalog by '%s': %s", name,
                g_strerror(errno));
}

static void tell_other(int fd, const CatalogMetadata *catalog, GError **error)
{
    char who[256] = "";
    ssize_t got = pread(fd, who, sizeof(who) - 1, 0);

    g_strdelimit(who, "\n", '\0');
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                "another push of the catalog '%s' is going on (%s)",
                catalog->catalog, got > 0 ? who : "not known whose");
}

int target_lock(const CatalogMetadata *catalog, GError **error)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    g_autofree char *base = g_strdup_printf("push.%s.lock", catalog->catalog);
    g_autofree char *name = g_build_filename(catalog->store, base, NULL);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

    if (fd < 0) {
        tell_no_lock(name, error);
        return -1;
    }
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        if (errno == EAGAIN || errno == EACCES) {
            tell_other(fd, catalog, error);
        } else {
            tell_no_lock(name, error);
        }
        close(fd);
        return -1;
    }
    say_who(fd);
    return fd;
}

/*
 * The identity disk of a desktop: the file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XORRISO         "xorriso"
#define SSH_KEYGEN      "ssh-keygen"

static bool set_errno(GError **error, const char *what, const char *path)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                "cannot %s '%s': %s", what, path, g_strerror(saved));
    return false;
}

/* Keys are in what it writes: from the first byte for nobody else's eyes */
static void keep_private(gpointer unused)
{
    (void)unused;
    umask(077);
}

static bool run(const char *const *argv, const char *package, GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(
        G_SUBPROCESS_FLAGS_STDOUT_SILENCE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
    g_autoptr(GSubprocess) process = NULL;
    g_autofree char *said = NULL;

    g_subprocess_launcher_set_child_setup(launcher, keep_private, NULL, NULL);
    process = g_subprocess_launcher_spawnv(launcher, argv, error);
    if (!process) {
        g_prefix_error(error, "%s (Debian package %s): ", argv[0], package);
        return false;
    }
    if (!g_subprocess_communicate_utf8(process, NULL, NULL, NULL, &said,
                                       error)) {
        return false;
    }
    if (!g_subprocess_get_successful(process)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s failed: %s",
                    argv[0], g_strchomp(said ?: ""));
        return false;
    }
    return true;
}

static void remove_folder(const char *folder)
{
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);

        unlink(path);
    }
    g_clear_pointer(&dir, g_dir_close);
    rmdir(folder);
}

bool identity_make_host_key(Identity *i, GError **error)
{
    g_autofree char *folder = g_dir_make_tmp("deskcast-key-XXXXXX", error);
    g_autofree char *key = NULL, *public = NULL;
    bool made;

    if (!folder) {
        return false;
    }
    key = g_build_filename(folder, "key", NULL);
    public = g_strconcat(key, ".pub", NULL);
    made = run((const char *[]) { SSH_KEYGEN, "-q", "-t", "ed25519", "-N", "",
                                  "-C", i->name, "-f", key, NULL },
               "openssh-client", error) &&
           g_file_get_contents(key, &i->host_key, NULL, error) &&
           g_file_get_contents(public, &i->host_key_public, NULL, error);
    remove_folder(folder);
    return made;
}

static bool put(const char *folder, const char *name, const char *text,
                GError **error)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    return g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_NONE,
                                    0600, error);
}

/* As the administrator wrote it, with the desktop's name put in */
static bool put_filled(const Identity *i, const char *folder, const char *name,
                       const char *text, GError **error)
{
    g_autofree char *filled = text ? identity_fill_in(i, text) : NULL;

    return !filled || put(folder, name, filled, error);
}

static bool put_all(const Identity *i, const char *folder, GError **error)
{
    g_autofree char *meta = identity_meta_data(i);
    g_autofree char *vendor = identity_vendor_data(i);

    return put(folder, "meta-data", meta, error) &&
           put(folder, "vendor-data", vendor, error) &&
           put_filled(i, folder, "user-data",
                      i->user_data ?: "#cloud-config\n{}\n", error) &&
           put_filled(i, folder, "network-config", i->network_config, error) &&
           (!i->answer ||
            put_filled(i, folder, i->answer_name, i->answer, error));
}

/* Durable before it has its name; that of another one is not taken away. */
static bool finish(const char *new, const char *path, GError **error)
{
    int fd = open(new, O_RDONLY | O_CLOEXEC);
    bool done = fd >= 0 && fchmod(fd, 0600) == 0 && fsync(fd) == 0;

    if (!done) {
        set_errno(error, "write", new);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (!done || link(new, path) == 0) {
        return done;
    }
    if (errno == EEXIST) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                    "'%s' is there already: another command makes this desktop "
                    "now, or one was cut off; if none does, remove the file",
                    path);
        return false;
    }
    return set_errno(error, "make", path);
}

bool identity_write(const Identity *i, const char *path, GError **error)
{
    g_autofree char *folder = g_dir_make_tmp("deskcast-id-XXXXXX", error);
    g_autofree char *new = g_strdup_printf("%s.new.%d", path, (int)getpid());
    bool done;

    if (!folder) {
        return false;
    }
    done = put_all(i, folder, error) &&
           run((const char *[]) { XORRISO, "-as", "mkisofs", "-quiet", "-J",
                                  "-r", "-V", IDENTITY_LABEL, "-o", new,
                                  folder, NULL }, "xorriso", error) &&
           finish(new, path, error);
    unlink(new);
    remove_folder(folder);
    return done;
}

/*
 * The file that lists hosts: read, and changed in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NO_LIST         "no list of hosts (give --hosts FILE or --connect " \
                        "URI): "
#define LOCK_WAIT_S     120
#define LOCK_AGAIN_US   50000

static const char *file_name(const HostOptions *options)
{
    const char *file = options->file ?: g_getenv("DESKCAST_HOSTS");

    return file ?: HOSTS_FILE;
}

static char *read_file(const char *name, gsize *length, GError **error)
{
    char *text;

    if (!g_file_get_contents(name, &text, length, error)) {
        g_prefix_error(error, NO_LIST);
        return NULL;
    }
    if (*length > HOSTS_MAX_BYTES) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s: too large for a list of hosts", name);
        g_free(text);
        return NULL;
    }
    return text;
}

static GPtrArray *one_host(const char *uri)
{
    GPtrArray *hosts = g_ptr_array_new_with_free_func(
        (GDestroyNotify)host_free);
    Host *host = g_new0(Host, 1);

    host->name = g_strdup(uri);
    host->uri = g_strdup(uri);
    g_ptr_array_add(hosts, host);
    return hosts;
}

GPtrArray *hosts_load(const HostOptions *options, GError **error)
{
    g_autofree char *text = NULL;
    GPtrArray *hosts;
    gsize length;

    if (options->connect) {
        return one_host(options->connect);
    }
    text = read_file(file_name(options), &length, error);
    hosts = text ? hosts_parse(text, length, error) : NULL;
    if (text && !hosts) {
        g_prefix_error(error, "%s: ", file_name(options));
    }
    return hosts;
}

static bool set_errno(GError **error, const char *what, const char *name)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                "cannot %s the list of hosts '%s': %s", what, name,
                g_strerror(saved));
    return false;
}

/* Whoever changes the list replaces the file: a lock on what it was is none */
static bool is_at(int fd, const char *name)
{
    struct stat here, there;

    return fstat(fd, &here) == 0 && stat(name, &there) == 0 &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/*
 * The file itself is locked: it is there, and may be in a folder that the
 * administrator of desktops cannot write. @lock stays -1 if somebody has it.
 */
static bool try_lock(const char *name, int *lock, GError **error)
{
    int fd = open(name, O_RDWR | O_CLOEXEC);    /* as NFS wants it */

    if (fd < 0) {
        fd = open(name, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0) {
        set_errno(error, "open", name);
        g_prefix_error(error, NO_LIST);
        return false;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        bool busy = errno == EWOULDBLOCK || set_errno(error, "lock", name);

        close(fd);
        return busy;
    }
    if (is_at(fd, name)) {
        *lock = fd;
    } else {
        close(fd);
    }
    return true;
}

static bool wait_for_lock(const char *name, int *lock, GError **error)
{
    gint64 end = g_get_monotonic_time() + LOCK_WAIT_S * G_USEC_PER_SEC;
    bool told = false;

    while (try_lock(name, lock, error)) {
        if (*lock >= 0) {
            return true;
        }
        if (g_get_monotonic_time() > end) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                        "other commands have changed hosts for %d s; try "
                        "again ('lslocks' tells who has '%s')", LOCK_WAIT_S,
                        name);
            return false;
        }
        if (!told) {
            fprintf(stderr, "deskcast: another command changes hosts or makes "
                    "desktops; waiting for it\n");
            told = true;
        }
        g_usleep(LOCK_AGAIN_US);
    }
    return false;
}

bool hosts_lock(const HostOptions *options, int *lock, GError **error)
{
    *lock = -1;
    if (options->connect) {
        return true;
    }
    return wait_for_lock(file_name(options), lock, error);
}

void hosts_unlock(int *lock)
{
    if (*lock >= 0) {
        close(*lock);
    }
    *lock = -1;
}

/* It stays what and where it was: a link a link, with its mode */
static bool replace(const char *name, const char *text, gsize length,
                    GError **error)
{
    char *real = realpath(name, NULL);
    struct stat st;
    bool done;

    if (!real || stat(real, &st) < 0) {
        set_errno(error, "change", name);
        free(real);
        return false;
    }
    done = g_file_set_contents_full(real, text, length,
                                    G_FILE_SET_CONTENTS_CONSISTENT |
                                    G_FILE_SET_CONTENTS_DURABLE, 0600,
                                    error) &&
           (chmod(real, st.st_mode & 0777) == 0 ||
            set_errno(error, "set the mode of", real));
    free(real);
    return done;
}

static bool change_drained(const HostOptions *options, const char *name,
                           bool drained, GError **error)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GPtrArray) hosts = hosts_load(options, error);
    g_autofree char *text = NULL, *changed = NULL;
    gsize length;

    if (!hosts || !hosts_find(hosts, name, error)) {
        return false;
    }
    text = read_file(file_name(options), &length, error);
    if (!text || !g_key_file_load_from_data(file, text, length,
                                            G_KEY_FILE_KEEP_COMMENTS, error)) {
        return false;
    }
    g_key_file_set_boolean(file, name, "drained", drained);
    changed = g_key_file_to_data(file, &length, NULL);
    return replace(file_name(options), changed, length, error);
}

bool hosts_set_drained(const HostOptions *options, const char *name,
                       bool drained, GError **error)
{
    bool done;
    int lock;

    if (options->connect) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "draining is noted in the list of hosts; give --hosts "
                    "and not --connect");
        return false;
    }
    done = hosts_lock(options, &lock, error) &&
           change_drained(options, name, drained, error);
    hosts_unlock(&lock);
    return done;
}

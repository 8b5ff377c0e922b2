/*
 * Sockets that a service accepts its clients on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "listen.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <grp.h>
#include <netdb.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A daemon of ours that was left alone needs as long to end */
#define BUSY_US         (3 * G_USEC_PER_SEC)

/* A group with all its members */
#define GROUP_BYTES     (1 << 20)

static int fail(GError **error, const char *address, const char *why)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "cannot listen on %s: %s",
                address, why);
    return -1;
}

/* Host and port of @address; NULL for none */
static bool split(const char *address, char **host, char **port)
{
    const char *colon = strrchr(address, ':');
    const char *end = strchr(address, ']');

    if (address[0] == '[') {
        if (!end || (end[1] && end[1] != ':')) {
            return false;
        }
        *host = g_strndup(address + 1, end - address - 1);
        *port = end[1] && end[2] ? g_strdup(end + 2) : NULL;
        return true;
    }
    if (colon && colon != strchr(address, ':')) {
        return false;           /* IPv6 without brackets */
    }
    *host = colon ? g_strndup(address, colon - address) : g_strdup(address);
    *port = colon && colon[1] ? g_strdup(colon + 1) : NULL;
    return true;
}

/* errno if it is not done */
static int try_listen(int fd, const struct sockaddr *a, socklen_t length)
{
    return bind(fd, a, length) == 0 && listen(fd, SOMAXCONN) == 0 ? 0 : errno;
}

static int listen_at(const struct addrinfo *a, const char *address,
                     GError **error)
{
    gint64 end = g_get_monotonic_time() + BUSY_US;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1, off = 0, why;

    if (fd < 0) {
        return fail(error, address, g_strerror(errno));
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    do {
        why = try_listen(fd, a->ai_addr, a->ai_addrlen);
        if (!why) {
            return fd;
        }
        g_usleep(100000);
    } while (why == EADDRINUSE && g_get_monotonic_time() < end);
    close(fd);
    return fail(error, address, g_strerror(why));
}

int listen_tcp(const char *address, int usual, GError **error)
{
    struct addrinfo hints = {
        .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM,
    };
    g_autofree char *host = NULL, *port = NULL, *number = NULL;
    struct addrinfo *found = NULL;
    bool any;
    int ret, fd;

    if (!split(address, &host, &port)) {
        return fail(error, address, "it has to be HOST:PORT or [HOST]:PORT");
    }
    number = g_strdup_printf("%d", usual);
    any = !*host || g_str_equal(host, "*");
    if (any) {
        hints.ai_family = AF_INET6;     /* takes IPv4 as well */
    }
    ret = getaddrinfo(any ? NULL : host, port ?: number, &hints, &found);
    if (ret == 0 && any) {
        fd = listen_at(found, address, NULL);
        if (fd >= 0) {
            freeaddrinfo(found);
            return fd;
        }
        /* A machine without IPv6 */
        freeaddrinfo(found);
        hints.ai_family = AF_INET;
        ret = getaddrinfo(NULL, port ?: number, &hints, &found);
    }
    if (ret) {
        return fail(error, address, gai_strerror(ret));
    }
    fd = listen_at(found, address, error);
    freeaddrinfo(found);
    return fd;
}

/* A file refuses connections, too, and must not be removed for that */
static bool is_socket(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* A name that is left from a process that has ended. Does somebody accept? */
static bool is_stale(const struct sockaddr_un *a)
{
    bool stale;
    int fd;

    if (!is_socket(a->sun_path)) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    stale = fd >= 0 &&
        connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 &&
        errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static bool give_to_group(const char *path, const char *group, GError **error)
{
    g_autofree char *buf = group ? g_malloc(GROUP_BYTES) : NULL;
    struct group g, *found = NULL;

    if (group &&
        (getgrnam_r(group, &g, buf, GROUP_BYTES, &found) != 0 || !found)) {
        fail(error, path, "there is no such group");
        return false;
    }
    if (found && (chown(path, -1, g.gr_gid) < 0 || chmod(path, 0660) < 0)) {
        fail(error, path, g_strerror(errno));
        return false;
    }
    return true;
}

int listen_unix(const char *path, const char *group, GError **error)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    gint64 end = g_get_monotonic_time() + BUSY_US;
    mode_t mask;
    int fd, why;

    if (g_strlcpy(a.sun_path, path, sizeof(a.sun_path)) >= sizeof(a.sun_path)) {
        return fail(error, path, "the name is too long for a socket");
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(error, path, g_strerror(errno));
    }
    do {
        if (is_stale(&a)) {
            g_unlink(path);
        }
        mask = umask(0177);
        why = try_listen(fd, (struct sockaddr *)&a, sizeof(a));
        umask(mask);
        if (why == EADDRINUSE) {
            g_usleep(100000);
        }
    } while (why == EADDRINUSE && is_socket(path) &&
             g_get_monotonic_time() < end);
    if (why || !give_to_group(path, group, error)) {
        if (why) {
            fail(error, path, why == EADDRINUSE
                 ? "somebody else serves there, or it is no socket"
                 : g_strerror(why));
        }
        close(fd);
        return -1;
    }
    return fd;
}

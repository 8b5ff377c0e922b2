/*
 * A storage daemon of our own, or a server elsewhere, and connections to it
 *
 * The daemon inherits a socket that already listens. All connections are made
 * before it runs, so its name in the file system goes at once; if it ends
 * before it answers, they break.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "content-int.h"
#include "cli/program.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT          "content"
#define DAEMON_SOCKET   3               /* its descriptor in the daemon */
#define ENDING_US       2000000         /* a daemon has that long to end */
#define KEPT_MEMORY     "67108864"      /* bytes, of what its requests take */

bool content_nbd_error(const Content *c, const char *what, GError **error)
{
    const char *why = nbd_get_error();

    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s%s%s", c->name,
                what, why ? ": " : "", why ? why : "");
    return false;
}

static bool errno_error(GError **error, const char *what)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved), "%s: %s",
                what, g_strerror(saved));
    return false;
}

/* What the daemon wrote; "" if nothing */
static char *read_complaints(const Content *c)
{
    char buf[4096] = "";

    if (pread(c->complaints, buf, sizeof(buf) - 1, 0) <= 0) {
        return g_strdup("");
    }
    return program_complaint(buf);
}

static bool wait_end(GSubprocess *process, gint64 us)
{
    gint64 end = g_get_monotonic_time() + us;
    const char *id;

    while ((id = g_subprocess_get_identifier(process))) {
        if (g_get_monotonic_time() > end) {
            return false;
        }
        g_usleep(2000);
    }
    return true;
}

/* A folder of our own; a socket in it that listens */
static int listen_in(const char *folder, struct sockaddr_un *address,
                     GError **error)
{
    int fd;

    *address = (struct sockaddr_un) { .sun_family = AF_UNIX };
    if (g_snprintf(address->sun_path, sizeof(address->sun_path), "%s/nbd",
                   folder) >= (int)sizeof(address->sun_path)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FILENAME_TOO_LONG,
                    "TMPDIR is too long for a socket's name");
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)address, sizeof(*address)) < 0 ||
        listen(fd, CONTENT_CONNECTIONS) < 0) {
        errno_error(error, "cannot make a socket for the storage daemon");
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

/* Sockets to a listener, which need not have accepted them */
static bool connect_all(const struct sockaddr_un *address, int fds[],
                        GError **error)
{
    for (unsigned i = 0; i < CONTENT_CONNECTIONS; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)address,
                                  sizeof(*address)) < 0) {
            return errno_error(error, "cannot connect to the storage daemon");
        }
    }
    return true;
}

/* @listener and @fds[] come out as open descriptors, or as -1 */
static bool make_sockets(int *listener, int fds[], GError **error)
{
    g_autofree char *folder = g_dir_make_tmp("deskcast-XXXXXX", error);
    struct sockaddr_un address;
    bool ok = false;

    if (!folder) {
        return false;
    }
    *listener = listen_in(folder, &address, error);
    if (*listener >= 0) {
        ok = connect_all(&address, fds, error);
        g_unlink(address.sun_path);
    }
    g_rmdir(folder);
    return ok;
}

/*
 * QEMU allocates a buffer for each request. Of CONTENT_RUN bytes, glibc would
 * fetch it from the kernel and give it back, each time: half of what reading
 * costs.
 */
static void keep_memory(GSubprocessLauncher *launcher)
{
    g_subprocess_launcher_setenv(launcher, "MALLOC_MMAP_THRESHOLD_",
                                 KEPT_MEMORY, false);
    g_subprocess_launcher_setenv(launcher, "MALLOC_TRIM_THRESHOLD_",
                                 KEPT_MEMORY, false);
}

static bool spawn(Content *c, JsonObject *definition, bool writable,
                  int *listener, GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher =
        g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDOUT_SILENCE);
    g_autofree char *program = program_qsd();
    g_autofree char *node = NULL;
    int err = dup(c->complaints);

    if (err < 0) {
        return errno_error(error, "cannot start a storage daemon");
    }
    json_object_set_string_member(definition, "node-name", EXPORT);
    json_object_set_boolean_member(definition, "read-only", !writable);
    node = content_node_text(definition);
    keep_memory(launcher);
    g_subprocess_launcher_take_fd(launcher, g_steal_fd(listener),
                                  DAEMON_SOCKET);
    g_subprocess_launcher_take_stderr_fd(launcher, err);
    g_subprocess_launcher_set_child_setup(launcher, program_end_with_parent,
                                          NULL, NULL);
    c->daemon = g_subprocess_launcher_spawn(
        launcher, error, program, "--blockdev", node, "--nbd-server",
        "addr.type=fd,addr.str=" G_STRINGIFY(DAEMON_SOCKET), "--export",
        writable ? "type=nbd,id=e,node-name=" EXPORT ",name=" EXPORT
                   ",writable=on"
                 : "type=nbd,id=e,node-name=" EXPORT ",name=" EXPORT, NULL);
    if (!c->daemon) {
        g_prefix_error(error, "cannot start the storage daemon '%s': ",
                       program);
    }
    return c->daemon != NULL;
}

/* Say why the daemon did not answer: its own words if it has any */
static bool open_error(Content *c, GError **error)
{
    g_autofree char *said = NULL;

    if (c->daemon && wait_end(c->daemon, ENDING_US)) {
        said = read_complaints(c);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", c->name,
                    said[0] ? said : "the storage daemon ended");
        return false;
    }
    return content_nbd_error(c, "cannot be reached", error);
}

struct nbd_handle *content_handle(const char *export)
{
    struct nbd_handle *nbd = nbd_create();

    /* Buffers need not be cleared first: nobody looks at them after an error */
    if (nbd && (nbd_set_export_name(nbd, export) < 0 ||
                nbd_set_pread_initialize(nbd, false) < 0 ||
                nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0)) {
        nbd_close(nbd);
        nbd = NULL;
    }
    return nbd;
}

/* After the connections are made: what they lead to */
bool content_learn(Content *c, GError **error)
{
    int64_t size = nbd_get_size(c->nbd[0]);

    if (size < 0) {
        return content_nbd_error(c, "has no size", error);
    }
    c->size = size;
    c->has_status = nbd_can_meta_context(c->nbd[0],
                                         LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    return true;
}

static bool shake_hands(Content *c, int fds[], GError **error)
{
    for (unsigned i = 0; i < CONTENT_CONNECTIONS; i++) {
        c->nbd[i] = content_handle(EXPORT);
        if (!c->nbd[i] ||
            nbd_connect_socket(c->nbd[i], g_steal_fd(&fds[i])) < 0) {
            return open_error(c, error);
        }
    }
    return content_learn(c, error);
}

/* A name for messages: the file that all of it is in */
static char *definition_name(JsonObject *definition)
{
    JsonObject *node = definition;

    while (json_object_has_member(node, "file")) {
        node = json_object_get_object_member(node, "file");
    }
    for (unsigned i = 0; i < 3; i++) {
        static const char *const names[] = { "filename", "url", "image" };

        if (json_object_has_member(node, names[i])) {
            return g_strdup(json_object_get_string_member(node, names[i]));
        }
    }
    return g_strdup("image");
}

static Content *open_node(JsonObject *definition, bool writable,
                          GError **error)
{
    g_autoptr(Content) c = g_new0(Content, 1);
    int listener = -1, fds[CONTENT_CONNECTIONS];
    bool ok;

    memset(fds, -1, sizeof(fds));
    c->fd = c->complaints = -1;
    c->name = definition_name(definition);
    if (!writable && content_is_plain(definition)) {
        return content_open_plain(c, definition, error) ? g_steal_pointer(&c)
                                                        : NULL;
    }
    c->complaints = memfd_create("complaints", MFD_CLOEXEC);
    ok = c->complaints >= 0 && make_sockets(&listener, fds, error) &&
         spawn(c, definition, writable, &listener, error) &&
         shake_hands(c, fds, error);
    if (listener >= 0) {
        close(listener);
    }
    for (unsigned i = 0; i < CONTENT_CONNECTIONS; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    return ok ? g_steal_pointer(&c) : NULL;
}

Content *content_open(JsonObject *definition, GError **error)
{
    return open_node(definition, false, error);
}

Content *content_open_writable(JsonObject *definition, GError **error)
{
    return open_node(definition, true, error);
}

bool content_finish(Content *c, GError **error)
{
    g_autofree char *said = NULL;

    for (unsigned i = 0; i < CONTENT_CONNECTIONS; i++) {
        if (nbd_flush(c->nbd[i], 0) < 0) {
            return content_nbd_error(c, "cannot be flushed", error);
        }
    }
    for (unsigned i = 0; i < CONTENT_CONNECTIONS; i++) {
        nbd_shutdown(c->nbd[i], 0);
    }
    /* It closes the image in good order; a kill would leave leaks in it */
    g_subprocess_send_signal(c->daemon, SIGTERM);
    if (!g_subprocess_wait(c->daemon, NULL, error)) {
        return false;
    }
    if (!g_subprocess_get_successful(c->daemon)) {
        said = read_complaints(c);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "%s: the storage daemon failed: %s", c->name, said);
        return false;
    }
    return true;
}

void content_close(Content *c)
{
    if (!c) {
        return;
    }
    for (unsigned i = 0; i < CONTENT_CONNECTIONS; i++) {
        nbd_close(c->nbd[i]);
    }
    if (c->daemon) {
        g_subprocess_send_signal(c->daemon, SIGTERM);
        if (!wait_end(c->daemon, ENDING_US)) {
            g_subprocess_force_exit(c->daemon);
            g_subprocess_wait(c->daemon, NULL, NULL);
        }
        g_object_unref(c->daemon);
    }
    if (c->complaints >= 0) {
        close(c->complaints);
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    g_free(c->export);
    g_free(c->name);
    g_free(c);
}

uint64_t content_size(const Content *c)
{
    return c->size;
}

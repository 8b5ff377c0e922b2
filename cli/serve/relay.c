/*
 * deskcast relay: what a host's desktops read, close to them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "relay.h"
#include "listen.h"
#include "report.h"
#include "serve.h"
#include "service.h"

#include "cli/commands.h"
#include "cli/units.h"
#include "block/vdisk/header.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READY_US        (60 * G_USEC_PER_SEC)
#define INTERVAL_MAX    86400       /* seconds */

static void daemon_up(void *opaque)
{
    (void)opaque;
    service_tick_soon();
}

static void daemon_down(void *opaque)
{
    Relay *r = opaque;

    board_forget(r->board);
    g_clear_pointer(&r->job, g_free);
}

static void daemon_event(JsonObject *event, void *opaque)
{
    relay_hydrate_event(opaque, event);
    relay_tell_event(event);
    service_tick_soon();
}

/* Was what is known at least tried? Trees that are here are checked first. */
static bool all_tried(const Relay *r)
{
    for (guint i = 0; i < r->order->len; i++) {
        const RelayVersion *v = r->order->pdata[i];

        if (v->wanted && v->tree != TREE_HERE && !v->tree_again &&
            v->tree_room) {
            return false;
        }
        if (v->wanted && v->tree == TREE_HERE &&
            !board_export_key(r->board, v->export)) {
            return false;
        }
    }
    return true;
}

/* Once all that was known at the start is served again; or is not, for that
 * may never be */
static void maybe_ready(Relay *r)
{
    bool late = g_get_monotonic_time() - r->started > READY_US;

    if (!r->ready && daemon_qmp(r->daemon) && (late || all_tried(r))) {
        report("%u exports on %s", board_exports(r->board), r->socket);
        report_ready();
        r->ready = true;
    }
}

static void tick(void *opaque)
{
    Relay *r = opaque;

    relay_watch_cap(r);
    relay_rank(r);
    r->changed |= relay_plan(r);
    relay_fetch(r);
    if (r->changed || !r->wanted) {
        g_clear_pointer(&r->wanted, wanted_free);
        r->wanted = relay_wanted(r);
        r->changed = false;
    }
    if (daemon_qmp(r->daemon)) {
        board_sync(r->board, r->wanted);
        relay_sweep(r);
        relay_hydrate(r);
    }
    maybe_ready(r);
    relay_tell(r);
}

static void read_again(void *opaque)
{
    Relay *r = opaque;
    g_autoptr(GError) error = NULL;

    if (daemon_restart(r->daemon, &error)) {
        report("certificates and keys were read again");
    } else {
        report("certificates and keys stay as they were: %s", error->message);
    }
}

static bool wrong(GError **error, const char *why)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s", why);
    return false;
}

static bool names_valid(char **names, GError **error)
{
    for (char **name = names; *name; name++) {
        g_autofree char *why = NULL;

        if (!vdisk_name_valid(*name, &why)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                        "--vdisk: %s", why);
            return false;
        }
        for (char **other = names; other < name; other++) {
            if (!strcmp(*name, *other)) {
                return wrong(error, "a vDisk is named twice");
            }
        }
    }
    return true;
}

static bool make_stores(Relay *r, GError **error)
{
    r->stores = g_ptr_array_new();
    for (char **uri = r->from; *uri; uri++) {
        Far *far = far_new(*uri, &r->tls, error);

        if (!far) {
            return false;
        }
        g_ptr_array_add(r->stores, far);
    }
    r->reachable = g_new0(bool, r->stores->len);
    g_ptr_array_add(r->stores, NULL);
    return true;
}

static bool usable(Relay *r, GError **error)
{
    if (!r->from || !r->vdisk_names || !r->cache || !r->size_text ||
        !r->socket) {
        return wrong(error, "--from, --vdisk, --cache, --size and --socket "
                     "are needed");
    }
    if (r->hosts_file && !r->host) {
        return wrong(error, "--hosts is of use with --host only");
    }
    if (g_strv_length(r->from) > 64) {
        return wrong(error, "64 stores are the most that are read from");
    }
    if (r->max_connections < 1 || r->interval < 1) {
        return wrong(error, "--max-connections and --interval have to be 1 at "
                     "least");
    }
    r->interval = MIN(r->interval, INTERVAL_MAX);
    return units_parse_size(r->size_text, &r->size, error) &&
        (!r->bandwidth_text ||
         units_parse_size(r->bandwidth_text, &r->given, error)) &&
        tls_client_valid(&r->tls, false, error) &&
        names_valid(r->vdisk_names, error) && make_stores(r, error);
}

static void make_daemon(Relay *r)
{
    const DaemonEvents events = { daemon_up, daemon_down, daemon_event, r };
    g_autoptr(GPtrArray) arguments = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *nbd = g_strdup_printf(",max-connections=%d",
                                           r->max_connections);

    tls_client_arguments(&r->tls, arguments);
    g_ptr_array_add(arguments, NULL);
    r->daemon = daemon_new((const char *const *)arguments->pdata, nbd, r->fd,
                           &events);
    r->board = board_new(r->daemon);
}

/* Two would remove each other's files. Held until we end, however that is. */
static bool lock_cache(Relay *r, GError **error)
{
    g_autofree char *path = g_build_filename(r->cache, ".lock", NULL);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (r->lock < 0 || fcntl(r->lock, F_OFD_SETLK, &lock) < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", r->cache,
                    r->lock >= 0 ? "another relay uses this folder"
                                 : g_strerror(errno));
        return false;
    }
    return true;
}

static bool begin(Relay *r, GError **error)
{
    service_make_absolute(&r->cache);
    service_make_absolute(&r->map_folder);
    service_make_absolute(&r->tls.x509);
    service_make_absolute(&r->tls.psk);
    service_make_absolute(&r->hosts_file);
    if (!relay_read_cap(r, error)) {
        return false;
    }
    if (g_mkdir_with_parents(r->cache, 0755) < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "cannot make %s: %s",
                    r->cache, g_strerror(errno));
        return false;
    }
    if (!lock_cache(r, error)) {
        return false;
    }
    r->versions = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                        relay_version_free);
    r->order = g_ptr_array_new();
    if (!(r->private = service_folder(error)) ||
        !relay_load_manifests(r, error)) {
        return false;
    }
    r->fd = listen_unix(r->socket, r->group, error);
    if (r->fd < 0) {
        return false;
    }
    make_daemon(r);
    return daemon_start(r->daemon, error);
}

/* Threads that watch go on until the process ends, and use the rest */
static void end(Relay *r)
{
    g_clear_pointer(&r->daemon, daemon_free);
    if (r->fd >= 0) {
        close(r->fd);
        unlink(r->socket);
    }
    if (r->private) {
        service_remove_folder(r->private);
    }
}

static int relay(Relay *r)
{
    g_autoptr(GError) error = NULL;

    if (!usable(r, &error)) {
        fprintf(stderr, "%s: %s\n", g_get_prgname(), error->message);
        return COMMAND_USAGE;
    }
    service_raise_limits();
    if (!begin(r, &error)) {
        report("%s", error->message);
        return COMMAND_FAILED;
    }
    r->started = g_get_monotonic_time();
    relay_watch(r);
    service_run(tick, read_again, r);
    return COMMAND_DONE;
}

int command_relay(int argc, char **argv)
{
    static Relay r = {
        .max_connections = SERVICE_CONNECTIONS, .interval = 10, .fd = -1,
    };
    const GOptionEntry entries[] = {
        { "from", 'f', 0, G_OPTION_ARG_STRING_ARRAY, &r.from,
          "a store: nbds://HOST:PORT, nbd://HOST:PORT or "
          "nbd+unix:///?socket=PATH; more than once, the first one's manifests "
          "count", "URI" },
        { "vdisk", 'v', 0, G_OPTION_ARG_STRING_ARRAY, &r.vdisk_names,
          "a vDisk to serve; more than once", "NAME" },
        { "cache", 'c', 0, G_OPTION_ARG_FILENAME, &r.cache,
          "folder of the host caches", "DIR" },
        { "size", 0, 0, G_OPTION_ARG_STRING, &r.size_text,
          "what that folder may take", "SIZE" },
        { "socket", 's', 0, G_OPTION_ARG_FILENAME, &r.socket,
          "Unix socket that desktops read from", "PATH" },
        { "group", 0, 0, G_OPTION_ARG_STRING, &r.group,
          "who may use that socket besides its owner", "GROUP" },
        { "bandwidth", 0, 0, G_OPTION_ARG_STRING, &r.bandwidth_text,
          "what is fetched ahead in a second, at most", "SIZE" },
        { "host", 0, 0, G_OPTION_ARG_STRING, &r.host,
          "this host's name in the list of hosts, whose relay-bandwidth counts "
          "too", "NAME" },
        { "hosts", 0, 0, G_OPTION_ARG_FILENAME, &r.hosts_file,
          "that list (/etc/deskcast/hosts.conf)", "FILE" },
        { "map-folder", 0, 0, G_OPTION_ARG_FILENAME, &r.map_folder,
          "folder of live maps, on a tmpfs (/run/deskcast)", "DIR" },
        { "interval", 0, 0, G_OPTION_ARG_INT, &r.interval,
          "seconds between looks at the manifests (10)", "N" },
        { "status", 0, 0, G_OPTION_ARG_FILENAME, &r.status_file,
          "keep a file that tells what is here, as JSON", "FILE" },
        { "tls-x509", 0, 0, G_OPTION_ARG_FILENAME, &r.tls.x509,
          "folder with ca-cert.pem, client-cert.pem and client-key.pem",
          "DIR" },
        { "tls-psk", 0, 0, G_OPTION_ARG_FILENAME, &r.tls.psk,
          "folder with keys.psk", "DIR" },
        { "tls-user", 0, 0, G_OPTION_ARG_STRING, &r.tls.user,
          "whose key in keys.psk is used", "NAME" },
        { "max-connections", 0, 0, G_OPTION_ARG_INT, &r.max_connections,
          "how many clients at once (4096)", "N" },
        {}
    };
    int status;

    if (!command_parse("- serve a host's desktops from far stores", entries,
                       &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc > 1) {
        fprintf(stderr, "%s: what is '%s' for?\n", g_get_prgname(), argv[1]);
        return COMMAND_USAGE;
    }
    status = relay(&r);
    end(&r);
    return status;
}

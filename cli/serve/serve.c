/*
 * deskcast store serve: the versions of a store over NBD
 *
 *   NAME@N             a sealed version, read-only; or the maintenance version,
 *                      for one writer
 *   NAME@N.tree        the hashes of a sealed version
 *   NAME@N.trace       its boot trace, if it has one
 *   NAME@N.label       the maintenance version, read-only: who wrote it last
 *   NAME@manifest      its manifest, with line feeds behind it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "serve.h"
#include "board.h"
#include "listen.h"
#include "report.h"
#include "service.h"
#include "store-view.h"
#include "tls.h"

#include "cli/commands.h"

#include <stdio.h>
#include <unistd.h>

typedef struct Serve {
    /* As options say */
    char *folder, *listen, *socket, *group;
    TlsServer tls;
    int max_connections;

    char *private;              /* folder */
    char *rules;                /* who is let in; NULL without certificates */
    int fd;
    Daemon *daemon;
    Board *board;
    StoreView *view;
    Wanted *wanted;
    bool settled;               /* the board is as wanted */
    bool ready;                 /* systemd has been told */
} Serve;

/* Before anything is exported */
static void tell_rules(Serve *s)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) done = NULL;

    if (s->rules) {
        done = daemon_command(s->daemon, "qom-set", tls_server_tell(s->rules),
                              &error);
        if (!done) {
            report("%s", error->message);
        }
    }
}

static void daemon_up(void *opaque)
{
    Serve *s = opaque;

    tell_rules(s);
    s->settled = false;
    service_tick_soon();
}

static void daemon_down(void *opaque)
{
    Serve *s = opaque;

    board_forget(s->board);
    s->settled = false;
}

static void daemon_event(JsonObject *event, void *opaque)
{
    /* BLOCK_EXPORT_DELETED: a node can go now. Others come rarely. */
    (void)event;
    (void)opaque;
    service_tick_soon();
}

static void tell_status(Serve *s)
{
    unsigned vdisks, versions, troubles = report_troubles();

    store_view_count(s->view, &vdisks, &versions);
    if (troubles) {
        report_status("%u versions of %u vDisks, %u troubles (see the journal)",
                      versions, vdisks, troubles);
    } else {
        report_status("%u versions of %u vDisks", versions, vdisks);
    }
}

/* A file that cannot be read changes nothing */
static void look_at_names(Serve *s)
{
    g_autoptr(GError) error = NULL;
    char *rules = tls_server_rules(&s->tls, &error);

    report_state("--authorise-from", error ? error->message : NULL);
    if (!rules || !g_strcmp0(rules, s->rules)) {
        g_free(rules);
        return;
    }
    g_free(s->rules);
    s->rules = rules;
    tell_rules(s);
}

static void tick(void *opaque)
{
    Serve *s = opaque;

    look_at_names(s);
    if (store_view_look(s->view) || !s->wanted) {
        g_clear_pointer(&s->wanted, wanted_free);
        s->wanted = store_view_wanted(s->view);
        s->settled = false;
    }
    if (!s->settled && daemon_qmp(s->daemon)) {
        s->settled = board_sync(s->board, s->wanted);
        if (!s->ready) {
            report("%u exports on %s", board_exports(s->board),
                   s->listen ?: s->socket);
            report_ready();
            s->ready = true;
        }
    }
    tell_status(s);
}

/* Certificates are read when the daemon starts; clients come back by
 * themselves */
static void read_again(void *opaque)
{
    Serve *s = opaque;
    g_autoptr(GError) error = NULL;

    if (daemon_restart(s->daemon, &error)) {
        report("certificates and keys were read again");
    } else {
        report("certificates and keys stay as they were: %s", error->message);
    }
}

static bool usable(const Serve *s, GError **error)
{
    if (!s->listen == !s->socket) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "one of --listen and --socket is needed");
        return false;
    }
    if (s->group && !s->socket) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--group is for --socket");
        return false;
    }
    if (s->max_connections < 1) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--max-connections has to be 1 at least");
        return false;
    }
    return tls_server_valid(&s->tls, s->socket != NULL, error);
}

static bool make_daemon(Serve *s)
{
    const DaemonEvents events = { daemon_up, daemon_down, daemon_event, s };
    g_autoptr(GPtrArray) arguments = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) nbd = g_string_new(NULL);

    g_string_append_printf(nbd, ",max-connections=%d", s->max_connections);
    tls_server_arguments(&s->tls, s->rules, arguments, nbd);
    g_ptr_array_add(arguments, NULL);
    s->daemon = daemon_new((const char *const *)arguments->pdata, nbd->str,
                           s->fd, &events);
    s->board = board_new(s->daemon);
    return true;
}

/* All that can fail before anybody is served */
static bool begin(Serve *s, GError **error)
{
    g_autoptr(GError) why = NULL;

    service_make_absolute(&s->tls.x509);
    service_make_absolute(&s->tls.psk);
    s->private = service_folder(error);
    if (!s->private) {
        return false;
    }
    s->rules = tls_server_rules(&s->tls, &why);
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    s->view = store_view_new(s->folder ?: store_default_folder(), s->private,
                             error);
    if (!s->view) {
        return false;
    }
    s->fd = s->listen ? listen_tcp(s->listen, LISTEN_PORT, error)
                      : listen_unix(s->socket, s->group, error);
    return s->fd >= 0 && make_daemon(s) && daemon_start(s->daemon, error);
}

static void end(Serve *s)
{
    g_clear_pointer(&s->daemon, daemon_free);
    g_clear_pointer(&s->board, board_free);
    g_clear_pointer(&s->wanted, wanted_free);
    g_clear_pointer(&s->view, store_view_free);
    if (s->fd >= 0) {
        close(s->fd);
        if (s->socket) {
            unlink(s->socket);
        }
    }
    if (s->private) {
        service_remove_folder(s->private);
    }
    g_free(s->private);
    g_free(s->rules);
    g_free(s->folder);
    g_free(s->listen);
    g_free(s->socket);
    g_free(s->group);
    g_free(s->tls.x509);
    g_strfreev(s->tls.authorise);
    g_free(s->tls.authorise_from);
    g_free(s->tls.psk);
}

static int serve(Serve *s)
{
    g_autoptr(GError) error = NULL;

    if (!usable(s, &error)) {
        fprintf(stderr, "%s: %s\n", g_get_prgname(), error->message);
        return COMMAND_USAGE;
    }
    service_raise_limits();
    if (!begin(s, &error)) {
        report("%s", error->message);
        return COMMAND_FAILED;
    }
    service_run(tick, read_again, s);
    return COMMAND_DONE;
}

int command_store_serve(int argc, char **argv)
{
    Serve s = { .max_connections = SERVICE_CONNECTIONS, .fd = -1 };
    const GOptionEntry entries[] = {
        { "store", 's', 0, G_OPTION_ARG_FILENAME, &s.folder,
          "the store's folder", "DIR" },
        { "listen", 'l', 0, G_OPTION_ARG_STRING, &s.listen,
          "serve on the network; without a host on all addresses",
          "HOST:PORT" },
        { "socket", 0, 0, G_OPTION_ARG_FILENAME, &s.socket,
          "serve on a Unix socket", "PATH" },
        { "group", 0, 0, G_OPTION_ARG_STRING, &s.group,
          "who may use that socket besides its owner", "GROUP" },
        { "tls-x509", 0, 0, G_OPTION_ARG_FILENAME, &s.tls.x509,
          "folder with ca-cert.pem, server-cert.pem and server-key.pem",
          "DIR" },
        { "authorise", 0, 0, G_OPTION_ARG_STRING_ARRAY, &s.tls.authorise,
          "a client that is let in, by the name in its certificate; more than "
          "once", "NAME" },
        { "authorise-from", 0, 0, G_OPTION_ARG_FILENAME,
          &s.tls.authorise_from, "file with such names, one a line, that is "
          "read again when it changes", "FILE" },
        { "tls-psk", 0, 0, G_OPTION_ARG_FILENAME, &s.tls.psk,
          "folder with keys.psk", "DIR" },
        { "clear-text", 0, 0, G_OPTION_ARG_NONE, &s.tls.clear_text,
          "serve without TLS: everybody may read and change what is sent",
          NULL },
        { "max-connections", 0, 0, G_OPTION_ARG_INT, &s.max_connections,
          "how many clients at once (4096)", "N" },
        {}
    };
    int status;

    if (!command_parse("- serve the versions of a store", entries, &argc,
                       &argv)) {
        return COMMAND_USAGE;
    }
    if (argc > 1) {
        fprintf(stderr, "%s: what is '%s' for?\n", g_get_prgname(), argv[1]);
        return COMMAND_USAGE;
    }
    status = serve(&s);
    end(&s);
    return status;
}

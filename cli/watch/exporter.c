/*
 * deskcast exporter: a host's desktops, as Prometheus reads them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "asker.h"
#include "host-change.h"
#include "http.h"
#include "watch-commands.h"

#include "cli/commands.h"
#include "cli/serve/listen.h"
#include "cli/serve/report.h"
#include "cli/serve/service.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define EXPORTER_PORT   10810
#define USUAL           "127.0.0.1"

typedef struct Exporter {
    AskerOptions options;
    char *listen, *socket, *group;
    gboolean clear_text, once, list;
    Asker *asker;
    HostSample *last;           /* what was seen before */
} Exporter;

static void exporter_clear(Exporter *e)
{
    asker_options_clear(&e->options);
    g_free(e->listen);
    g_free(e->socket);
    g_free(e->group);
    g_clear_pointer(&e->last, host_sample_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Exporter, exporter_clear)

static void report_change(void *opaque, const HostChange *c)
{
    g_autofree char *desktop = g_strdup_printf("DESKCAST_DESKTOP=%s",
                                               c->desktop);
    g_autofree char *vdisk = g_strdup_printf("DESKCAST_VDISK=%s", c->vdisk);
    g_autofree char *store = c->store ? g_strdup_printf("DESKCAST_STORE=%s",
                                                        c->store) : NULL;
    const char *const fields[] = { desktop, vdisk, store, NULL };

    report_message(c->id, c->priority, fields, c->text);
}

/* What has changed is told, too */
static char *make_page(void *opaque)
{
    Exporter *e = opaque;
    HostSample *sample = asker_ask(e->asker);

    report_state("libvirt", sample->libvirt_trouble);
    host_changes(e->last, sample, report_change, NULL);
    g_clear_pointer(&e->last, host_sample_free);
    e->last = sample;
    return host_sample_metrics(sample);
}

static bool is_loopback(int fd)
{
    struct sockaddr_storage a = {};
    socklen_t length = sizeof(a);
    const struct in6_addr *six;

    if (getsockname(fd, (struct sockaddr *)&a, &length) < 0) {
        return false;
    }
    if (a.ss_family == AF_INET) {
        return ntohl(((struct sockaddr_in *)&a)->sin_addr.s_addr) >> 24 ==
               IN_LOOPBACKNET;
    }
    six = &((struct sockaddr_in6 *)&a)->sin6_addr;
    return a.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(six);
}

/* A socket that listens; -1 with @error */
static int listen_on(const Exporter *e, GError **error)
{
    int fd;

    if (e->socket) {
        return listen_unix(e->socket, e->group, error);
    }
    fd = listen_tcp(e->listen ? e->listen : USUAL, EXPORTER_PORT, error);
    if (fd >= 0 && !e->clear_text && !is_loopback(fd)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "%s is not this machine alone, and HTTP is clear text to "
                    "anybody: put a proxy with TLS before 127.0.0.1, or give "
                    "--clear-text", e->listen);
        close(fd);
        return -1;
    }
    return fd;
}

static void tick(void *opaque)
{
    (void)opaque;
}

static bool serve(Exporter *e, GError **error)
{
    int fd = listen_on(e, error);
    Http *http = fd >= 0 ? http_new(fd, make_page, e, error) : NULL;

    if (!http) {
        return false;
    }
    report("metrics on %s", e->socket ? e->socket :
           e->listen ? e->listen : USUAL);
    report_ready();
    service_run(tick, tick, NULL);
    http_free(http);
    if (e->socket) {
        unlink(e->socket);
    }
    return true;
}

static bool parse(Exporter *e, int argc, char **argv)
{
    const GOptionEntry entries[] = {
        { "listen", 'l', 0, G_OPTION_ARG_STRING, &e->listen,
          "Serve there (default: 127.0.0.1:10810)", "HOST:PORT" },
        { "socket", 0, 0, G_OPTION_ARG_FILENAME, &e->socket,
          "Serve on a Unix socket instead", "PATH" },
        { "group", 0, 0, G_OPTION_ARG_STRING, &e->group,
          "Who may use the socket too", "GROUP" },
        { "clear-text", 0, 0, G_OPTION_ARG_NONE, &e->clear_text,
          "Listen for other machines, unencrypted", NULL },
        { "once", 0, 0, G_OPTION_ARG_NONE, &e->once,
          "Print the metrics, and end", NULL },
        { "list", 0, 0, G_OPTION_ARG_NONE, &e->list,
          "Print what metrics there are, and end", NULL },
        ASKER_OPTION_ENTRIES(&e->options),
        { NULL }
    };

    if (!command_parse("- tell Prometheus of this host's desktops", entries,
                       &argc, &argv)) {
        return false;
    }
    if (argc > 1 || (e->socket && e->listen) || (e->group && !e->socket) ||
        (e->once && e->list) ||
        ((e->once || e->list) && (e->socket || e->listen))) {
        fprintf(stderr, "deskcast: give one of --listen, --socket (--group "
                "goes with it), --once and --list, and no arguments\n");
        return false;
    }
    return true;
}

static void print_list(void)
{
    const Metric *m;

    for (guint i = 0; (m = host_metric(i)); i++) {
        printf("%-42s %-7s  %s\n", m->name, m->counter ? "counter" : "gauge",
               m->help);
    }
}

int command_exporter(int argc, char **argv)
{
    g_auto(Exporter) e = { 0 };
    g_autoptr(GError) error = NULL;

    if (!parse(&e, argc, argv)) {
        return COMMAND_USAGE;
    }
    if (e.list) {
        print_list();
        return COMMAND_DONE;
    }
    e.asker = asker_new(&e.options, &error);
    if (!e.asker) {
        return command_fail(false, error);
    }
    if (e.once) {
        g_autofree char *page = make_page(&e);

        fputs(page, stdout);
        return COMMAND_DONE;
    }
    service_raise_limits();
    return serve(&e, &error) ? COMMAND_DONE : command_fail(false, error);
}

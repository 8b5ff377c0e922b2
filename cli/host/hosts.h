/*
 * The hosts that desktops run on: /etc/deskcast/hosts.conf
 *
 * A key file with a group for each host; docs/man/deskcast-host.rst describes
 * the keys.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_HOSTS_H
#define CLI_HOST_HOSTS_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

#define HOSTS_FILE      "/etc/deskcast/hosts.conf"
#define HOSTS_MAX       4096
#define HOSTS_MAX_BYTES (4 << 20)

typedef struct Host {
    char *name;                 /* the group; an URI if it came by --connect */
    char *uri;                  /* libvirt's */
    char *store;                /* folder of the host's own store, or NULL */
    bool drained;               /* takes no new desktops */
    uint64_t write_cache;       /* caps in bytes, 0: none */
    uint64_t ram;
    uint64_t relay_bandwidth;   /* bytes a second, 0: not limited */
} Host;

void host_free(Host *host);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Host, host_free)

/* Options of every command that works on hosts */
typedef struct HostOptions {
    char *file;                 /* --hosts */
    char *connect;              /* --connect: this one URI and no file */
    int timeout;                /* --timeout: seconds for an answer */
} HostOptions;

#define HOST_TIMEOUT        10
#define HOST_TIMEOUT_MAX    86400

/* The options, for the tables of commands */
#define HOST_OPTION_ENTRIES(o) \
    { "hosts", 0, 0, G_OPTION_ARG_FILENAME, &(o)->file, \
      "The file that lists hosts (default: " HOSTS_FILE ")", "FILE" }, \
    { "connect", 'c', 0, G_OPTION_ARG_STRING, &(o)->connect, \
      "Only the host with this libvirt URI", "URI" }, \
    { "timeout", 0, 0, G_OPTION_ARG_INT, &(o)->timeout, \
      "Seconds that a host may take to answer (default: 10)", "S" }

void host_options_clear(HostOptions *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(HostOptions, host_options_clear)

/*
 * The hosts of a file's text, at least one, in its order. NULL with @error,
 * which names group and key. Nothing is read.
 */
GPtrArray *hosts_parse(const char *text, gsize length, GError **error);

/* As @options say. NULL with @error, which names the file. */
GPtrArray *hosts_load(const HostOptions *options, GError **error);

/* NULL with @error if there is none */
const Host *hosts_find(GPtrArray *hosts, const char *name, GError **error);

/*
 * Keep out commands that change hosts, or what is promised of them, and use the
 * same list: they wait, as this does. Until hosts_unlock(), or the process
 * ends. A host that came by --connect has no caps, and *@lock is -1. False with
 * @error after two minutes.
 */
bool hosts_lock(const HostOptions *options, int *lock, GError **error);
void hosts_unlock(int *lock);

/* Write into the file that @name takes new desktops, or none, durably */
bool hosts_set_drained(const HostOptions *options, const char *name,
                       bool drained, GError **error);

/* Can files of this host be opened here? */
bool host_is_local(const Host *host);

#endif /* CLI_HOST_HOSTS_H */

/*
 * A host's relay: what its parts know of each other
 *
 *   far stores --manifests--> versions --> plan --> board --> storage daemon
 *        |                       ^                              |
 *        +---trees and traces----+          cache files, hydrated one by one
 *
 * A version is known by its export, NAME@N; its files by its root hash. It is
 * served when its tree is here, and goes when its manifest calls it retired and
 * its last client has gone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_RELAY_H
#define CLI_SERVE_RELAY_H

#include "board.h"
#include "far.h"

typedef enum TreeState {
    TREE_MISSING,
    TREE_COMING,                /* asked for */
    TREE_HERE,
} TreeState;

typedef struct RelayVersion {
    char *export;               /* NAME@N */
    char *vdisk;
    uint64_t number, size;
    char *root;                 /* hexadecimal */
    unsigned rank;              /* 0: what desktops run on; 1: what they will */
    bool wanted;                /* false: retired, or gone */
    TreeState tree;
    bool tree_room;             /* there is, or will be soon */
    gint64 tree_again;          /* do not ask before that; monotonic time */
    char *trace;                /* name of its boot trace at the store, or NULL */
    char *trace_here;           /* of the one that was fetched */
    gint64 trace_again;
    gint64 trace_wait;          /* the longer, the more often it failed; us */
    uint64_t data_bytes;        /* of it that are not zero; once tree is here */
    uint64_t grant;             /* bytes that its cache may take; 0: none */
    bool fits;                  /* that is all it needs, and it is to be filled */
    bool hydrated;
    gint64 hydrate_again;
} RelayVersion;

typedef struct RelayVdisk {
    char *name;
    Manifest *manifest;         /* NULL: none yet */
    unsigned store;             /* number of the store it is from */
    char *copy;                 /* path of what is exported of it */
} RelayVdisk;

typedef struct Relay {
    /* As options say */
    char **from;
    char **vdisk_names;
    char *cache, *map_folder, *socket, *group, *status_file;
    char *size_text, *bandwidth_text;
    char *host, *hosts_file;    /* in which list it has its cap, or NULL */
    TlsClient tls;
    int max_connections, interval;

    uint64_t size;
    uint64_t given;             /* by --bandwidth; 0: no limit */
    uint64_t bandwidth;         /* what counts: that, or the host's cap */
    gint64 cap_again;           /* when to look at the list; monotonic time */
    uint64_t free;              /* bytes that nobody was granted, and no tree
                                   takes */
    GPtrArray *stores;          /* Far; NULL behind the last */
    bool *reachable;            /* of each store, as it was last */
    RelayVdisk *vdisks;         /* as many as names */
    GHashTable *versions;       /* export -> RelayVersion */
    GPtrArray *order;           /* the same, the most important one first */
    char *private;              /* folder */
    int lock;                   /* of the cache's folder */
    int fd;
    Daemon *daemon;
    Board *board;
    Wanted *wanted;
    bool changed;               /* wanted is to be made anew */
    bool fetching;              /* a tree or a trace, in a thread */
    bool ready;
    gint64 started;             /* monotonic time */
    char *job;                  /* root of the version that is hydrated now */
    unsigned jobs;              /* counts them, for their names */
} Relay;

/* relay-versions.c: manifests */
bool relay_load_manifests(Relay *r, GError **error);
void relay_watch(Relay *r);
void relay_rank(Relay *r);
void relay_version_free(gpointer version);
char *relay_path(const Relay *r, const RelayVersion *v, const char *suffix);

/* relay-fetch.c: trees and boot traces. What is not here is asked for. */
void relay_fetch(Relay *r);

/* relay-cache.c: room, nodes, files. True if there are others than before. */
bool relay_plan(Relay *r);
Wanted *relay_wanted(Relay *r);
void relay_sweep(Relay *r);
char *relay_node_key(const RelayVersion *v);
uint64_t relay_used(const Relay *r);

/* relay-hydrate.c: one version after the other made local */
void relay_hydrate(Relay *r);
void relay_hydrate_event(Relay *r, JsonObject *event);

/* All of it? Versions of the same content share a cache, which one fills */
bool relay_is_here(const Relay *r, const RelayVersion *v);

/* The running one is as fast as bandwidth says now */
void relay_hydrate_speed(Relay *r);

/* relay-bandwidth.c: the cap of the host */
bool relay_read_cap(Relay *r, GError **error);
/* Look whether it has changed, every now and then */
void relay_watch_cap(Relay *r);

/* relay-status.c: for people and programs */
void relay_tell(Relay *r);
void relay_tell_event(JsonObject *event);

#endif /* CLI_SERVE_RELAY_H */

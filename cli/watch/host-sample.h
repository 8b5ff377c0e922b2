/*
 * What is known of a host's desktops and its relay at one moment
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WATCH_HOST_SAMPLE_H
#define CLI_WATCH_HOST_SAMPLE_H

#include "vdisk-sample.h"
#include "cli/desktop/metadata.h"

#define RELAY_VERSIONS_MAX  1024

typedef enum GuestAgent {
    AGENT_UNKNOWN,              /* it has no channel for one, or is off */
    AGENT_AWAY,
    AGENT_CONNECTED,            /* so the guest has come up */
} GuestAgent;

typedef struct DesktopSample {
    char *name;                 /* of the domain */
    char *vdisk;                /* "" if it is not known */
    DesktopMetadata *metadata;  /* NULL if it cannot be read: see trouble */
    bool running;
    GuestAgent agent;
    bool up;                    /* its process answered */
    double answer;              /* s that the answer took, if it is up */
    VdiskSample *disk;          /* NULL unless it is up */
    uint64_t version, assigned; /* that it runs on, and takes next; 0: none */
    char *trouble;              /* why it is not up, or NULL */
} DesktopSample;

typedef struct RelayStore {
    char *name;
    bool reachable;
} RelayStore;

typedef struct RelayVersion {
    char *export;               /* win11@12 */
    double size, data;          /* bytes */
    bool served, hydrated;
} RelayVersion;

typedef struct RelaySample {
    double size, used;          /* of its caches, bytes */
    GPtrArray *versions, *stores;
} RelaySample;

typedef struct HostSample {
    int64_t time;               /* when it was begun, us since 1970 */
    double seconds;             /* that it took */
    bool libvirt_up;            /* false: the list is that of an earlier time */
    char *libvirt_trouble;
    GPtrArray *desktops;        /* DesktopSample, by name */
    RelaySample *relay;         /* NULL: there is none */
} HostSample;

HostSample *host_sample_new(void);
void host_sample_free(HostSample *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HostSample, host_sample_free)

/* The desktop of that name; NULL if it is not there, or @s is NULL */
const DesktopSample *host_sample_find(const HostSample *s, const char *name);

/* Of a domain's XML, as libvirt itself writes it of one that runs */
GuestAgent guest_agent_of_xml(const char *xml);

/* Takes @metadata */
DesktopSample *desktop_sample_new(const char *name, DesktopMetadata *metadata,
                                  bool running);
void desktop_sample_free(void *data);

/*
 * What it answered to query-vdisks; false, with trouble set, if that is not
 * of use
 */
bool desktop_sample_take(DesktopSample *d, JsonNode *answer);

/* The file that `deskcast relay --status` writes; NULL if it is none */
RelaySample *relay_sample_parse(const char *json, gsize length);
void relay_sample_free(RelaySample *r);

/* All of it as metrics; to be freed */
char *host_sample_metrics(const HostSample *s);

/* For tests and documents: the @i-th metric, NULL behind the last one */
const Metric *host_metric(guint i);

#endif /* CLI_WATCH_HOST_SAMPLE_H */

/*
 * Work on many hosts at once; none waits for another
 *
 * Each host has threads of its own, and each of these a connection of its own.
 * The caller posts jobs and gets answers back, in the order in which they come:
 *
 *   fleet_post() --> host's queue --> job runs --> fleet_next()
 *                                        |
 *                       no answer in time, not even whether it is there, or
 *                       the connection broke: the host is lost, and all that
 *                       it still owes fails
 *
 * A host that is there, and takes long for one job, is not lost: the job is
 * given up, the others go on. libvirt's calls cannot be interrupted. A thread
 * whose job is given up, and those of a lost host, are left behind with what
 * they use; what they answer later is dropped.
 *
 * No connection is used by two threads: libvirt's client, where a call fails
 * while another thread's call waits on the same connection, reads that one's
 * stack after it is gone (CVE-2024-4418, not mended in libvirt 9.0). Hence
 * nothing that belongs to a connection, such as a virDomainPtr, leaves the job
 * that got it; between jobs a domain is its UUID.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_FLEET_H
#define CLI_HOST_FLEET_H

#include "hosts.h"

#include <libvirt/libvirt.h>

#define FLEET_THREADS   4       /* of a host: answers of QEMUs overlap */
/* For a job in which a domain is started, stopped or defined: the hook has its
 * time in it, and libvirt, which waits for a QEMU that does not end */
#define FLEET_LONG_MS   60000

typedef struct Fleet Fleet;

/*
 * Runs in a thread of the host, on that thread's connection. @job is its own
 * until it returns: what it reads must be a copy, what it finds goes in there,
 * nothing of @conn among it. False with @error.
 */
typedef bool FleetFunc(virConnectPtr conn, void *job, GError **error);

typedef struct FleetAnswer {
    guint host;
    guint tag;                  /* as posted */
    void *job;                  /* caller frees it; NULL if it is still used,
                                   or nobody began with it: it was given up,
                                   or its host is lost */
    GError *error;              /* or NULL; caller frees it */
} FleetAnswer;

/*
 * @hosts (Host) must live as long. A host that owes something and does not
 * answer anything for @timeout_ms is lost; half of that time without an answer,
 * and it is asked on a new connection whether it is there.
 */
Fleet *fleet_new(GPtrArray *hosts, int timeout_ms);

/* Waits for nobody */
void fleet_free(Fleet *fleet);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Fleet, fleet_free)

/*
 * Have @run done for @job on a host, which is Host number @host. Takes @job,
 * which @destroy frees if nobody gets it back. It may take @patience_ms, or the
 * fleet's timeout if that is more. Other threads than the one that made the
 * fleet must not call this or the next.
 */
void fleet_post(Fleet *fleet, guint host, guint tag, FleetFunc *run, void *job,
                GDestroyNotify destroy, int patience_ms);

/*
 * The next answer; waits for it, @wait_ms at most (-1: as long as it takes).
 * False if nothing is owed any more, or the time is up.
 */
bool fleet_next(Fleet *fleet, FleetAnswer *answer, int wait_ms);

/* Jobs that were posted and not answered */
guint fleet_owed(const Fleet *fleet);

/* Why the host is lost; NULL if it is not */
const GError *fleet_lost(const Fleet *fleet, guint host);

/* For a job: the domain with that UUID, to be freed before the job returns.
 * NULL with @error. */
virDomainPtr fleet_domain(virConnectPtr conn, const char *uuid,
                          GError **error);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virDomain, virDomainFree)

/* An error from libvirt's last one in this thread, after @what */
bool fleet_set_error(GError **error, const char *what);

#endif /* CLI_HOST_FLEET_H */

/*
 * What is done to one desktop: jobs for its host's threads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_DISK_JOB_H
#define CLI_HOST_DISK_JOB_H

#include "actual.h"
#include "fleet.h"

/* Copies only: a job may outlive everybody's interest in it */
typedef struct DiskJob {
    char uuid[VIR_UUID_STRING_BUFLEN];
    DesktopMetadata *desktop;   /* as it is to be from now on */
    DesktopMetadata *before;    /* as libvirt has it */
    bool local;                 /* its host is this one */
    bool reset_too;             /* disk_job_take(): at once, and switch it on
                                   if it is off */
    bool watch_agent;           /* up when its guest agent answers; else when it
                                   has written */
    bool watch_daemon;          /* vhost-user: its storage daemon can be asked */
    uint64_t resets;            /* before it was reset */
    bool counted;               /* writes is, of QEMU until it was reset */
    uint64_t writes;

    virDomainPtr domain;        /* only while it runs, in its thread */

    bool running;               /* found */
    virDomainState state;
    Actual actual;
    bool up;
} DiskJob;

/* Copies @d, and @before, which may be the same */
DiskJob *disk_job_new(const char *uuid, const DesktopMetadata *d,
                      const DesktopMetadata *before, const Host *host);
void disk_job_free(void *job);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DiskJob, disk_job_free)

/* Fills in running, state and actual */
FleetFunc disk_job_look;

/*
 * Make desktop what libvirt knows of it, and have a desktop that runs take the
 * version at its next reset. One that cannot is left as it was.
 */
FleetFunc disk_job_take;

/* Notes what it is watched by, and resets it */
FleetFunc disk_job_reset;

/* Is it up, on the wanted version, since it was reset? Sets up. */
FleetFunc disk_job_watch;

#endif /* CLI_HOST_DISK_JOB_H */

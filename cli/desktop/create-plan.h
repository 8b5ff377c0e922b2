/*
 * The making of desktops: what create.c and create-job.c share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_CREATE_PLAN_H
#define CLI_DESKTOP_CREATE_PLAN_H

#include "cli/host/survey.h"
#include "identity.h"
#include "xml.h"

#define DESKTOP_EMULATOR    "/usr/lib/deskcast/qemu-system-x86_64"

/* Where one is not given, the default is NULL */
typedef struct CreateOptions {
    HostOptions where;
    char *host;
    char *emulator;
    char *disk;
    char *identity_bus;
    char *user_data, *network_config, *answer_file;
    gboolean host_keys;
    gboolean no_identity;
    gint64 version;
    gboolean json;
} CreateOptions;

/* One desktop; a job of the host that it comes to */
typedef struct CreateJob {
    char *name;
    char *uuid;
    bool local;                 /* files of the host can be written here */
    char *master;               /* XML of the master VM */
    char *emulator, *disk, *identity_bus, *nvram;
    DesktopMetadata *metadata;
    bool host_keys;
    Identity identity;          /* what the administrator gave */
} CreateJob;

void create_job_free(void *job);

/* FleetFunc: its identity disk is there, and it is defined, or neither */
bool create_job_run(virConnectPtr conn, void *job, GError **error);

#endif /* CLI_DESKTOP_CREATE_PLAN_H */

/*
 * What is done to a domain by its name or XML: jobs for its host's threads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_DOMAIN_JOB_H
#define CLI_HOST_DOMAIN_JOB_H

#include "survey.h"

/* What of @from, which a command worked on, goes into @to, which libvirt has */
typedef void CatalogChange(CatalogMetadata *to, const CatalogMetadata *from);

typedef struct DomainJob {
    char *name;
    char uuid[VIR_UUID_STRING_BUFLEN];  /* found; "" if there is none */
    bool has_metadata;          /* of ours */
    bool running;
    char *metadata;             /* to be set, but of a catalog only */
    CatalogChange *change;      /* this; NULL: all of it */
    char *xml;                  /* found, or to be run */
    char *command;              /* for QMP */
    char *answer;
    int patience_ms;            /* how long it may take; 0: the fleet's time */
} DomainJob;

DomainJob *domain_job_new(const char *name);
/* For one that is known */
DomainJob *domain_job_of(const Found *found);
void domain_job_free(void *job);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DomainJob, domain_job_free)

/* Sets uuid, unless the host has none of that name */
FleetFunc domain_job_find;
/* Of the definition */
FleetFunc domain_job_set_metadata;
/* Its definition, not what runs now; and running */
FleetFunc domain_job_get_xml;
/* Start it with this XML; its definition stays what it is */
FleetFunc domain_job_run_xml;
FleetFunc domain_job_shutdown;  /* ask the guest to */
FleetFunc domain_job_destroy;
FleetFunc domain_job_state;     /* sets running */
/* Execute the QMP command */
FleetFunc domain_job_qmp;

/* Do one job, and wait for it. Takes @job. False with @error. */
bool domain_job_run(Fleet *fleet, guint host, FleetFunc *run, DomainJob *job,
                    GError **error);

/* The same; the job comes back, or is NULL */
DomainJob *domain_job_do(Fleet *fleet, guint host, FleetFunc *run,
                         DomainJob *job, GError **error);

/* False with @error if what QEMU answered to a command is that it refuses it */
bool domain_qmp_taken(const char *answer, GError **error);

#endif /* CLI_HOST_DOMAIN_JOB_H */

/*
 * Desktops and catalogs of all hosts, as libvirt's metadata has them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_SURVEY_H
#define CLI_HOST_SURVEY_H

#include "actual.h"
#include "fleet.h"

typedef struct Found {
    guint host;                 /* of Survey.hosts */
    char uuid[VIR_UUID_STRING_BUFLEN];  /* of the domain */
    char *name;                 /* its name */
    bool running;
    virDomainState state;
    DesktopMetadata *desktop;   /* one of these two, */
    CatalogMetadata *catalog;
    char *trouble;              /* or this: its metadata cannot be read */
    Actual actual;
    char *actual_trouble;       /* why it is not known, or NULL */
    bool mute;                  /* its host answers, but its QEMU does not */
} Found;

typedef struct Survey {
    GPtrArray *hosts;           /* Host */
    Fleet *fleet;
    GPtrArray *found;           /* Found */
    char **silent;              /* by host: why nothing is known of it, or NULL */
} Survey;

/* How much is looked at */
typedef enum SurveyDepth {
    SURVEY_METADATA,            /* not the state of those that run */
    SURVEY_DISKS,               /* and what desktops run on */
} SurveyDepth;

/*
 * Ask all hosts that @options name. Those that do not answer are in silent;
 * that is no error. @catalog: only what belongs to it, NULL: all. NULL with
 * @error if there is no list of hosts.
 */
Survey *survey_hosts(const HostOptions *options, SurveyDepth depth,
                     const char *catalog, GError **error);
void survey_free(Survey *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Survey, survey_free)

const Host *survey_host(const Survey *s, guint host);

/* How many hosts are silent */
guint survey_silent(const Survey *s);

/*
 * The master VM of the catalog. NULL with @error if there is none, two, or
 * hosts that might have it are silent.
 */
Found *survey_catalog(const Survey *s, const char *catalog, GError **error);

/* Say on standard error which hosts are silent */
void survey_print_silent(const Survey *s);

#endif /* CLI_HOST_SURVEY_H */

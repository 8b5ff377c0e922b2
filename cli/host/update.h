/*
 * An update: a new version of a vDisk, written by the catalog's master VM
 *
 *   start ------> (guest installs, reboots) ------> finish --> test [production]
 *     |                                               ^
 *     +--- again, if the master was switched off -----+---> abort
 *
 * That there is one stands in the catalog's metadata (update), and which
 * version in the store's manifest (maintenance). The master's definition is
 * not changed: it is started by XML made for the update.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_UPDATE_H
#define CLI_HOST_UPDATE_H

#include "domain-job.h"
#include "survey.h"

#include "cli/store/version.h"

#define UPDATE_NODE     "disk0"         /* of the private vDisk */

typedef struct Update {
    HostOptions hosts;
    gboolean json;
    Survey *survey;
    Found *master;
    CatalogMetadata *catalog;   /* the survey's */
    bool changed;               /* something was done: the journal has a line */
    Store *store;               /* open while update_open() .. update_close() */
    Manifest *manifest;
} Update;

void update_clear(Update *u);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Update, update_clear)

/* Find the catalog. False with @error. */
bool update_find(Update *u, const char *catalog, GError **error);

/* Lock its store, and read its manifest */
bool update_open(Update *u, GError **error);
void update_close(Update *u);

/* Note in the metadata that @version is written; 0: none */
bool update_note(Update *u, uint64_t version, GError **error);

/* Does the master run now? */
bool update_runs(Update *u, bool *runs, GError **error);

/* A QMP command to the master's QEMU: its answer, to be freed with free() */
char *update_qmp(Update *u, const char *command, GError **error);

/*
 * Wait until the block job of the master's disk has ended; shows @what as a
 * progress. False with @error if it cannot be asked any more.
 */
bool update_wait_job(Update *u, const char *what, GError **error);

/* What query-vdisks says of the window, and of bytes not shipped */
bool update_buffer(Update *u, bool *window, int64_t *lag, GError **error);

/* How it ends: prints the error, or what was done. The journal has it if all was
 * done, or some of it. */
int update_end(const Update *u, const char *action, uint64_t version,
               const char *what, const GError *error);

#endif /* CLI_HOST_UPDATE_H */

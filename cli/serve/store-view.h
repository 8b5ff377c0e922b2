/*
 * A store as a server sees it: what of its vDisks is to be exported
 *
 * It is looked at again and again. A manifest that cannot be read does not
 * count: the vDisk stays as it was, and the trouble is reported.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_STORE_VIEW_H
#define CLI_SERVE_STORE_VIEW_H

#include "board.h"

#include "cli/store/store.h"

typedef struct StoreView StoreView;

/*
 * @private: a folder for files of ours. NULL with @error if the store cannot be
 * opened. If another file system is mounted there later, that is taken.
 */
StoreView *store_view_new(const char *folder, const char *private,
                          GError **error);
void store_view_free(StoreView *v);

/* Look again. True if something has changed since the last time. */
bool store_view_look(StoreView *v);

/* What is to be exported; to be freed by wanted_free() */
Wanted *store_view_wanted(const StoreView *v);

/* How many vDisks, and versions of them, that is */
void store_view_count(const StoreView *v, unsigned *vdisks,
                      unsigned *versions);

/*
 * Export @m as "NAME@manifest", from a copy in the folder @private with line
 * feeds behind it, to whole sectors. The path of the copy, to be freed, or NULL
 * with @error.
 */
char *manifest_export(Wanted *w, const char *private, const Manifest *m,
                      GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreView, store_view_free)

#endif /* CLI_SERVE_STORE_VIEW_H */

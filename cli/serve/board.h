/*
 * What a storage daemon has, and what it is to have: nodes and NBD exports
 *
 * Wanted is a description; board_sync() takes the daemon there as far as it
 * goes without disconnecting anybody. A node is known by its key: one with
 * another key is another node. An export whose node is to be another, or that
 * is not wanted any more, stays as it is while it has clients.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_BOARD_H
#define CLI_SERVE_BOARD_H

#include "daemon.h"

typedef struct Wanted Wanted;
typedef struct Board Board;

typedef enum ExportUse {
    EXPORT_READ,            /* many readers */
    EXPORT_WRITE,           /* one writer, who is let in alone */
    EXPORT_BRIEF,           /* read as a whole at once: who stays does not keep
                               it from being replaced for long */
} ExportUse;

Wanted *wanted_new(void);
void wanted_free(Wanted *w);

/*
 * A node; @options, taken, are those of blockdev-add without a name. @backing:
 * key of the node below it, or NULL. A key that is there already is left.
 * Nodes that no export needs are not made.
 */
void wanted_node(Wanted *w, const char *key, JsonObject *options,
                 const char *backing);

/* An export under that name of the node @key. Its node may be missing: then
 * there is no such export. */
void wanted_export(Wanted *w, const char *name, const char *key,
                   ExportUse use);

/* How many exports it has */
unsigned wanted_exports(const Wanted *w);

Board *board_new(Daemon *d);
void board_free(Board *b);

/* The daemon is gone, and all of it */
void board_forget(Board *b);

/*
 * Bring the daemon nearer to @w, in bounded time. True if it is as wanted;
 * else to be called again after a while. What fails is reported, and tried
 * again each time.
 */
bool board_sync(Board *b, Wanted *w);

/* The key of the node that is exported under @name now; NULL if there is none */
const char *board_export_key(const Board *b, const char *name);

/* Is there a node of that key still? */
bool board_has_node(const Board *b, const char *key);

/* Its name in the daemon; NULL if there is none */
const char *board_node_name(const Board *b, const char *key);

/* How many exports there are */
unsigned board_exports(const Board *b);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Wanted, wanted_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Board, board_free)

#endif /* CLI_SERVE_BOARD_H */

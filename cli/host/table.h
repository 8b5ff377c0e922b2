/*
 * Columns of text
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_TABLE_H
#define CLI_HOST_TABLE_H

#include <glib.h>

typedef struct Table Table;

/* @titles: NULL at its end; must live as long */
Table *table_new(const char *const *titles);
void table_free(Table *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Table, table_free)

/* A row: as many texts as there are titles, which are taken */
void table_add(Table *t, ...);

/* As many lines as there are rows, and one of titles before; to be freed */
char *table_text(const Table *t);

/* To standard output: as wide as need be; the last column is not filled up */
void table_print(const Table *t);

#endif /* CLI_HOST_TABLE_H */

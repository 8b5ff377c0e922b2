/*
 * Columns of text
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "table.h"

#include <stdarg.h>
#include <stdio.h>

struct Table {
    const char *const *titles;
    guint columns;
    GPtrArray *cells;           /* char *, row by row */
};

Table *table_new(const char *const *titles)
{
    Table *t = g_new0(Table, 1);

    t->titles = titles;
    t->columns = g_strv_length((char **)titles);
    t->cells = g_ptr_array_new_with_free_func(g_free);
    return t;
}

void table_free(Table *t)
{
    g_ptr_array_unref(t->cells);
    g_free(t);
}

/* What a host says must not move the cursor */
static char *clean(char *text)
{
    for (char *c = text; *c; c++) {
        if (g_ascii_iscntrl(*c)) {
            *c = ' ';
        }
    }
    return text;
}

void table_add(Table *t, ...)
{
    va_list ap;

    va_start(ap, t);
    for (guint i = 0; i < t->columns; i++) {
        g_ptr_array_add(t->cells, clean(va_arg(ap, char *)));
    }
    va_end(ap);
}

static const char *cell(const Table *t, guint row, guint column)
{
    return row ? g_ptr_array_index(t->cells, (row - 1) * t->columns + column)
               : t->titles[column];
}

char *table_text(const Table *t)
{
    GString *s = g_string_new(NULL);
    guint rows = t->cells->len / t->columns + 1;
    g_autofree int *widths = g_new0(int, t->columns);

    for (guint i = 0; i < rows * t->columns; i++) {
        const char *text = cell(t, i / t->columns, i % t->columns);
        int width = g_utf8_strlen(text, -1);

        widths[i % t->columns] = MAX(widths[i % t->columns], width);
    }
    for (guint row = 0; row < rows; row++) {
        for (guint i = 0; i < t->columns; i++) {
            const char *text = cell(t, row, i);
            int fill = widths[i] - (int)g_utf8_strlen(text, -1);

            if (i + 1 < t->columns) {
                g_string_append_printf(s, "%s%*s  ", text, fill, "");
            } else {
                g_string_append_printf(s, "%s\n", text);
            }
        }
    }
    return g_string_free(s, FALSE);
}

void table_print(const Table *t)
{
    g_autofree char *text = table_text(t);

    fputs(text, stdout);
}

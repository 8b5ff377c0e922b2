/*
 * Run a program to its end, without a shell
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/program.h"

bool spawn_run(const char *const *argv, char **out, GError **error)
{
    g_auto(GStrv) environment = g_environ_setenv(g_get_environ(), "LC_ALL",
                                                 "C.UTF-8", true);
    g_autofree char *said = NULL, *complaint = NULL;
    int status;

    /*
     * Not GSubprocess: while somebody traces the program, as our tests do, it
     * may see it end before it can have its status, and takes that for 0.
     */
    if (!g_spawn_sync(NULL, (char **)argv, environment, G_SPAWN_SEARCH_PATH,
                      program_end_with_parent, NULL, &said, &complaint,
                      &status, error)) {
        return false;
    }
    if (!g_spawn_check_wait_status(status, NULL)) {
        g_autofree char *valid = g_utf8_make_valid(complaint, -1);
        g_autofree char *why = program_complaint(valid);

        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s", why);
        return false;
    }
    if (out) {
        *out = g_steal_pointer(&said);
    }
    return true;
}

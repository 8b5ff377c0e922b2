/*
 * Run a program to its end, without a shell
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/program.h"

bool spawn_run(const char *const *argv, char **out, GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(
        G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
    g_autoptr(GSubprocess) process = NULL;
    g_autofree char *said = NULL, *complaint = NULL;

    g_subprocess_launcher_set_child_setup(launcher, program_end_with_parent,
                                          NULL, NULL);
    g_subprocess_launcher_setenv(launcher, "LC_ALL", "C.UTF-8", true);
    process = g_subprocess_launcher_spawnv(launcher, argv, error);
    if (!process ||
        !g_subprocess_communicate_utf8(process, NULL, NULL, &said, &complaint,
                                       error)) {
        g_prefix_error(error, "%s: ", argv[0]);
        return false;
    }
    if (!g_subprocess_get_successful(process)) {
        g_autofree char *why = program_complaint(complaint);

        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s", why);
        return false;
    }
    if (out) {
        *out = g_steal_pointer(&said);
    }
    return true;
}

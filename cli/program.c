/*
 * QEMU's programs: those that belong to this deskcast
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "program.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

char *program_path(const char *variable, const char *name)
{
    const char *given = g_getenv(variable);
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = self ? g_path_get_dirname(self) : NULL;
    g_autofree char *beside = folder ? g_build_filename(folder, name, NULL)
                                     : NULL;

    if (given && given[0]) {
        return g_strdup(given);
    }
    if (beside && access(beside, X_OK) == 0) {
        return g_steal_pointer(&beside);
    }
    return g_strdup(name);
}

void program_end_with_parent(gpointer unused)
{
    (void)unused;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

/*
 * "qemu-img: error while converting raw: Could not …": the first word goes. An
 * option stands with its whole value, JSON with spaces in it.
 */
char *program_complaint(const char *text)
{
    g_autofree char *line = g_strstrip(g_strdup(text));
    const char *p = line, *end;

    if (g_str_has_prefix(p, "qemu-") && (end = strstr(p, ": "))) {
        p = end + 2;
    }
    if (g_str_has_prefix(p, "--blockdev {") && (end = strstr(p, "}: "))) {
        p = end + 3;
    }
    return g_strdup(*p ? p : "it gave no reason");
}

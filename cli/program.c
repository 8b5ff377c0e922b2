/*
 * QEMU's programs: those that belong to this deskcast
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "program.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
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

static void pass_output(GInputStream *out, ProgramOutput output, void *opaque)
{
    char buf[512];
    gssize n;

    while ((n = g_input_stream_read(out, buf, sizeof(buf) - 1, NULL,
                                    NULL)) > 0) {
        buf[n] = '\0';
        if (output) {
            output(opaque, buf);
        }
    }
}

/* Standard error goes to a file, so that none of both pipes can fill up */
static GSubprocess *start(const char *const *argv, int fd, GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher =
        g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE);

    g_subprocess_launcher_setenv(launcher, "LC_ALL", "C.UTF-8", true);
    g_subprocess_launcher_take_stderr_fd(launcher, dup(fd));
    g_subprocess_launcher_set_child_setup(launcher, program_end_with_parent,
                                          NULL, NULL);
    return g_subprocess_launcher_spawnv(launcher, argv, error);
}

int program_run(const char *const *argv, ProgramOutput output, void *opaque,
                char **complaint, GError **error)
{
    int fd = memfd_create("complaints", MFD_CLOEXEC);
    g_autoptr(GSubprocess) process = start(argv, fd, error);
    char buf[4096] = "";
    int status = -1;

    if (process) {
        pass_output(g_subprocess_get_stdout_pipe(process), output, opaque);
        g_subprocess_wait(process, NULL, NULL);
        if (g_subprocess_get_if_exited(process)) {
            status = g_subprocess_get_exit_status(process);
        } else {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "%s was ended by signal %d", argv[0],
                        g_subprocess_get_term_sig(process));
        }
    }
    if (pread(fd, buf, sizeof(buf) - 1, 0) < 0) {
        buf[0] = '\0';
    }
    *complaint = program_complaint(buf);
    close(fd);
    return status;
}

/* @p after what begins with @from and ends with @to; @p if it does not */
static const char *skip(const char *p, const char *from, const char *to)
{
    const char *end = g_str_has_prefix(p, from) ? strstr(p, to) : NULL;

    return end ? end + strlen(to) : p;
}

/*
 * The first line of "qemu-img: Could not open 'json:{…}': reason". An option
 * stands with its whole value, JSON with spaces in it.
 */
char *program_complaint(const char *text)
{
    g_autofree char *line = g_strstrip(g_strdup(text));
    const char *p = line;

    line[strcspn(line, "\n")] = '\0';
    p = skip(p, "qemu-", ": ");
    p = skip(p, "--blockdev {", "}: ");
    p = skip(p, "Could not open 'json:{", "}': ");
    return g_strdup(*p ? p : "it gave no reason");
}

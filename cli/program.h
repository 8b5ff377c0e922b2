/*
 * QEMU's programs: those that belong to this deskcast
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include <gio/gio.h>

/*
 * The path of @name: what the environment @variable says, else the file beside
 * this program, else @name to be searched in PATH. To be freed.
 */
char *program_path(const char *variable, const char *name);

#define program_qemu_img()  program_path("DESKCAST_QEMU_IMG", "qemu-img")
#define program_qsd()       program_path("DESKCAST_QSD", "qemu-storage-daemon")

/* For a child: end when the thread that started it does. A GSpawnChildSetupFunc */
void program_end_with_parent(gpointer unused);

/*
 * Run @argv to its end; it dies with this thread. @output, or NULL, gets what
 * it prints, as it comes. -1 with @error if it cannot be run or was killed,
 * else its exit status, and what it complained of in *@complaint, to be freed.
 */
typedef void (*ProgramOutput)(void *opaque, const char *text);

int program_run(const char *const *argv, ProgramOutput output, void *opaque,
                char **complaint, GError **error);

/* What a program of QEMU's said first, without names and options before it */
char *program_complaint(const char *text);

#endif /* CLI_PROGRAM_H */

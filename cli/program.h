/*
 * QEMU's programs: those that belong to this deskcast
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include <glib.h>

/*
 * The path of @name: what the environment @variable says, else the file beside
 * this program, else @name to be searched in PATH. To be freed.
 */
char *program_path(const char *variable, const char *name);

#define program_qemu_img()  program_path("DESKCAST_QEMU_IMG", "qemu-img")
#define program_qsd()       program_path("DESKCAST_QSD", "qemu-storage-daemon")

/* For a child: end when the thread that started it does. A GSpawnChildSetupFunc */
void program_end_with_parent(gpointer unused);

/* What a program of QEMU's said, without the name and the options before it */
char *program_complaint(const char *text);

#endif /* CLI_PROGRAM_H */

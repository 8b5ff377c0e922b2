/*
 * The identity disk of a desktop: what makes it somebody
 *
 * A CD with the label CIDATA in cloud-init's NoCloud layout, which cloudbase-init
 * reads on Windows. Desktops only read it, and no reset or push touches it.
 *
 *   meta-data       instance-id (the UUID) and local-hostname
 *   vendor-data     machine id, and SSH host keys if they were asked for
 *   user-data       the administrator's, or an empty one
 *   network-config  the administrator's, if there is one
 *   NAME            the administrator's answer file, if there is one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_IDENTITY_H
#define CLI_DESKTOP_IDENTITY_H

#include <gio/gio.h>
#include <stdbool.h>

#define IDENTITY_LABEL          "CIDATA"
#define IDENTITY_MAX_BYTES      (1 << 20)       /* of a file given by hand */

typedef struct Identity {
    const char *name;           /* host name; desktop_name_valid() */
    const char *uuid;           /* of the domain, with its dashes */
    char *host_key;             /* private SSH key (ed25519), or NULL */
    char *host_key_public;
    /* Given by the administrator, or NULL. In them @@NAME@@ and @@UUID@@ stand
     * for the desktop's own. */
    char *user_data;
    char *network_config;
    char *answer_name;          /* identity_answer_name_valid() */
    char *answer;
} Identity;

/* Does not free name and uuid */
void identity_clear(Identity *identity);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Identity, identity_clear)

/* Contents; to be freed. They do no I/O. */
char *identity_meta_data(const Identity *identity);
char *identity_vendor_data(const Identity *identity);
char *identity_fill_in(const Identity *identity, const char *text);
bool identity_answer_name_valid(const char *name, GError **error);

/* Make a pair of keys with ssh-keygen(1) */
bool identity_make_host_key(Identity *identity, GError **error);

/*
 * Make the disk @path with xorriso(1); it is there whole or not at all. One
 * that is there already is an error, and stays as it is.
 */
bool identity_write(const Identity *identity, const char *path,
                    GError **error);

#endif /* CLI_DESKTOP_IDENTITY_H */

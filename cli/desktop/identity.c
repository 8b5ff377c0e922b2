/*
 * The identity disk of a desktop: its content
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "identity.h"

#include <string.h>

void identity_clear(Identity *i)
{
    g_clear_pointer(&i->host_key, g_free);
    g_clear_pointer(&i->host_key_public, g_free);
    g_clear_pointer(&i->user_data, g_free);
    g_clear_pointer(&i->network_config, g_free);
    g_clear_pointer(&i->answer_name, g_free);
    g_clear_pointer(&i->answer, g_free);
}

char *identity_meta_data(const Identity *i)
{
    return g_strdup_printf("instance-id: %s\nlocal-hostname: %s\n", i->uuid,
                           i->name);
}

static char *machine_id(const char *uuid)
{
    g_auto(GStrv) parts = g_strsplit(uuid, "-", -1);
    g_autofree char *id = g_strjoinv("", parts);

    return g_ascii_strdown(id, -1);
}

/* A block of YAML: each line of @text after six spaces */
static void append_block(GString *s, const char *key, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    g_string_append_printf(s, "  %s: |\n", key);
    for (char **l = lines; *l; l++) {
        if (**l) {
            g_string_append_printf(s, "    %s\n", *l);
        }
    }
}

/*
 * systemd takes the same machine id from the UUID when /etc/machine-id is
 * empty, so that nothing changes while the guest runs.
 */
char *identity_vendor_data(const Identity *i)
{
    GString *s = g_string_new("#cloud-config\n");
    g_autofree char *id = machine_id(i->uuid);

    g_string_append_printf(s, "write_files:\n"
                           "- path: /etc/machine-id\n"
                           "  content: \"%s\\n\"\n"
                           "  permissions: '0444'\n", id);
    if (i->host_key) {
        g_string_append(s, "ssh_deletekeys: true\nssh_keys:\n");
        append_block(s, "ed25519_private", i->host_key);
        append_block(s, "ed25519_public", i->host_key_public);
    }
    return g_string_free(s, FALSE);
}

char *identity_fill_in(const Identity *i, const char *text)
{
    GString *s = g_string_new(text);

    g_string_replace(s, "@@NAME@@", i->name, 0);
    g_string_replace(s, "@@UUID@@", i->uuid, 0);
    return g_string_free(s, FALSE);
}

bool identity_answer_name_valid(const char *name, GError **error)
{
    static const char *const taken[] = { "meta-data", "user-data",
                                         "vendor-data", "network-config" };
    bool plain = *name && strlen(name) <= 64 && *name != '.' && *name != '-';

    for (const char *c = name; plain && *c; c++) {
        plain = g_ascii_isalnum(*c) || strchr("._-", *c);
    }
    for (size_t i = 0; plain && i < G_N_ELEMENTS(taken); i++) {
        plain = g_ascii_strcasecmp(name, taken[i]) != 0;
    }
    if (!plain) {
        g_autofree char *shown = g_utf8_make_valid(name, -1);

        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "'%s' cannot be the name of an answer file: 1 to 64 "
                    "letters, digits, '.', '_' and '-', and none of the names "
                    "that cloud-init has", shown);
    }
    return plain;
}

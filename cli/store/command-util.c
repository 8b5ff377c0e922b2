/*
 * What commands on a store have in common: options, arguments, errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/command-util.h"
#include "block/vdisk/header.h"

void store_options_clear(StoreOptions *o)
{
    g_clear_pointer(&o->store, g_free);
}

Store *store_from(const StoreOptions *o, StoreUse use, GError **error)
{
    return store_open(o->store ? o->store : store_default_folder(), use, error);
}

static bool parse_number(const char *text, uint64_t *number, GError **error)
{
    guint64 n;

    if (!g_ascii_string_to_unsigned(text, 10, 1, MANIFEST_MAX_NUMBER, &n,
                                    NULL)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "'%s' is not the number of a version", text);
        return false;
    }
    *number = n;
    return true;
}

bool version_arguments(int argc, char **argv, char **vdisk, uint64_t *number,
                       GError **error)
{
    g_auto(GStrv) parts = NULL;
    g_autofree char *why = NULL;
    const char *text;

    if (argc < 2 || argc > 3) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                            argc < 2 ? "the name of a vDisk is missing"
                            : "too many arguments");
        return false;
    }
    parts = g_strsplit(argv[1], "@", 2);
    text = argc == 3 ? argv[2] : parts[0] ? parts[1] : NULL;
    if (!vdisk_name_valid(parts[0] ? parts[0] : "", &why)) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                            why);
        return false;
    }
    if (argc == 3 && parts[1]) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                            "two versions are given, one is wanted");
        return false;
    }
    *number = 0;
    if (text && !parse_number(text, number, error)) {
        return false;
    }
    *vdisk = g_strdup(parts[0]);
    return true;
}

int command_error(const StoreOptions *o, const GError *error)
{
    return command_fail(o->json, error);
}

/*
 * deskcast desktop list: desktops and where they are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "desktop-commands.h"

#include "cli/commands.h"
#include "cli/host/listing.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const lifetimes[] = { "", "pooled", "dedicated", "private" };

static void add_member(JsonObject *o, const char *name, const char *value)
{
    if (value) {
        json_object_set_string_member(o, name, value);
    }
}

static JsonObject *to_json(const Survey *s, const Found *f)
{
    const DesktopMetadata *d = f->desktop;
    JsonObject *o = json_object_new();

    add_member(o, "name", f->name);
    add_member(o, "host", survey_host(s, f->host)->name);
    json_object_set_boolean_member(o, "running", f->running);
    if (!d) {
        add_member(o, "trouble", f->trouble);
        return o;
    }
    add_member(o, "catalog", d->catalog);
    add_member(o, "vdisk", d->vdisk);
    add_member(o, "lifetime", lifetimes[d->lifetime]);
    add_member(o, "disk", d->disk);
    add_member(o, "identity", d->identity);
    json_object_set_int_member(o, "wanted", d->wanted.number);
    return o;
}

static void print_line(const Survey *s, const Found *f)
{
    const DesktopMetadata *d = f->desktop;
    g_autofree char *version = d ? g_strdup_printf("%s@%" PRIu64, d->vdisk,
                                                   d->wanted.number) : NULL;

    printf("%-20s %-12s %-8s %-14s %-10s %s\n", f->name,
           survey_host(s, f->host)->name, f->running ? "running" : "off",
           d ? d->catalog : "?", d ? lifetimes[d->lifetime] : "?",
           d ? version : f->trouble ?: "?");
}

static void print_text(const Survey *s)
{
    printf("%-20s %-12s %-8s %-14s %-10s %s\n", "NAME", "HOST", "STATE",
           "CATALOG", "LIFETIME", "WANTED");
    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (!f->catalog) {
            print_line(s, f);
        }
    }
}

static void print_json(const Survey *s)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (!f->catalog) {
            json_array_add_object_element(array, to_json(s, f));
        }
    }
    desktop_print_json(array);
}

int command_desktop_list(int argc, char **argv)
{
    g_auto(Listing) l = {
        .summary = "[CATALOG] - list desktops and where they are", .max = 1,
        .wrong = "give one catalog, or none for all",
    };
    int status;

    if (!listing_open(&l, argc, argv, &status)) {
        return status;
    }
    if (l.json) {
        print_json(l.survey);
    } else {
        print_text(l.survey);
    }
    return listing_end(&l);
}

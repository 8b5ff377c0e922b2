/*
 * deskcast catalog list and show
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-commands.h"
#include "listing.h"
#include "table.h"
#include "target.h"

#include "cli/commands.h"
#include "cli/units.h"

#include <stdio.h>
#include <string.h>

/* What is wanted in a catalog */
typedef struct Count {
    guint desktops, running;
    guint on_current;           /* want what is current */
    uint64_t current;           /* 0: not known */
} Count;

static Count count(const Survey *s, const CatalogMetadata *c)
{
    gint64 now = g_get_real_time() / G_USEC_PER_SEC;
    g_autoptr(Manifest) m = target_manifest(c->store, c->vdisk, NULL);
    const Version *v = m ? manifest_current(m, now) : NULL;
    Count n = { .current = v ? v->number : 0 };

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (f->desktop && !strcmp(f->desktop->catalog, c->catalog)) {
            n.desktops++;
            n.running += f->running;
            n.on_current += n.current && f->desktop->wanted.number == n.current;
        }
    }
    return n;
}

static const char *model_text(const CatalogMetadata *c)
{
    return c->model == MODEL_PVS ? "pvs" : "mcs";
}

static JsonObject *catalog_json(const Survey *s, const Found *f)
{
    const CatalogMetadata *c = f->catalog;
    Count n = count(s, c);
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "catalog", c->catalog);
    json_object_set_string_member(o, "vdisk", c->vdisk);
    json_object_set_string_member(o, "model", model_text(c));
    json_object_set_string_member(o, "master", f->name);
    json_object_set_string_member(o, "host", survey_host(s, f->host)->name);
    json_object_set_string_member(o, "store", c->store);
    json_object_set_string_member(o, "folder", c->folder);
    json_object_set_int_member(o, "desktops", n.desktops);
    json_object_set_int_member(o, "running", n.running);
    if (n.current) {
        json_object_set_int_member(o, "current", n.current);
        json_object_set_int_member(o, "want-current", n.on_current);
    }
    if (c->update) {
        json_object_set_int_member(o, "update", c->update);
    }
    return o;
}

static void print_json(const Survey *s)
{
    JsonObject *o = json_object_new();
    JsonArray *catalogs = json_array_new();

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (f->catalog) {
            json_array_add_object_element(catalogs, catalog_json(s, f));
        }
    }
    json_object_set_array_member(o, "catalogs", catalogs);
    command_answer(o);
}

static char *number_text(uint64_t number)
{
    return number ? g_strdup_printf("%" G_GUINT64_FORMAT, number)
                  : g_strdup("-");
}

static void print_list(const Survey *s)
{
    static const char *const titles[] = {
        "CATALOG", "MODEL", "VDISK", "CURRENT", "DESKTOPS", "WANT-IT",
        "UPDATE", "MASTER", "HOST", NULL
    };
    g_autoptr(Table) table = table_new(titles);

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);
        const CatalogMetadata *c = f->catalog;

        if (c) {
            Count n = count(s, c);

            table_add(table, g_strdup(c->catalog), g_strdup(model_text(c)),
                      g_strdup(c->vdisk), number_text(n.current),
                      g_strdup_printf("%u", n.desktops),
                      g_strdup_printf("%u", n.on_current),
                      number_text(c->update), g_strdup(f->name),
                      g_strdup(survey_host(s, f->host)->name));
        }
    }
    table_print(table);
}

static void print_one(const Survey *s, const Found *f)
{
    const CatalogMetadata *c = f->catalog;
    Count n = count(s, c);

    printf("catalog      %s\nvdisk        %s\nmodel        %s\n"
           "master       %s on %s\nstore        %s\nfolder       %s\n",
           c->catalog, c->vdisk, model_text(c), f->name,
           survey_host(s, f->host)->name, c->store, c->folder);
    for (char **uri = c->stores; uri && *uri; uri++) {
        printf("source       %s\n", *uri);
    }
    if (c->host_cache) {
        printf("host cache   %s\n", c->host_cache);
    }
    if (c->write_cache) {
        g_autofree char *size = units_format_size(c->write_cache);

        printf("write cache  %s for each desktop\n", size);
    }
    if (c->ram) {
        g_autofree char *size = units_format_size(c->ram);

        printf("ram          %s for each desktop\n", size);
    }
    if (c->bandwidth) {
        g_autofree char *size = units_format_size(c->bandwidth);

        printf("bandwidth    %s a second for each desktop\n", size);
    }
    if (n.current) {
        printf("current      %" G_GUINT64_FORMAT ", wanted by %u of %u "
               "desktops\n", n.current, n.on_current, n.desktops);
    }
    if (c->update) {
        printf("update       version %" G_GUINT64_FORMAT
               " is being written\n", c->update);
    }
}

int command_catalog_list(int argc, char **argv)
{
    g_auto(Listing) l = {
        .summary = "- all catalogs", .wrong = "it takes no arguments",
    };
    int status;

    if (!listing_open(&l, argc, argv, &status)) {
        return status;
    }
    if (l.json) {
        print_json(l.survey);
    } else {
        print_list(l.survey);
    }
    return listing_end(&l);
}

int command_catalog_show(int argc, char **argv)
{
    g_auto(Listing) l = {
        .summary = "CATALOG - a catalog and its desktops", .min = 1, .max = 1,
        .wrong = "give one catalog",
    };
    g_autoptr(GError) error = NULL;
    Found *f;
    int status;

    if (!listing_open(&l, argc, argv, &status)) {
        return status;
    }
    f = survey_catalog(l.survey, l.catalog, &error);
    if (!f) {
        survey_print_silent(l.survey);
        return command_fail(l.json, error);
    }
    if (l.json) {
        print_json(l.survey);
    } else {
        print_one(l.survey, f);
    }
    return listing_end(&l);
}

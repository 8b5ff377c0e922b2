/*
 * deskcast status: what desktops are to run on, and what they do run on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-commands.h"
#include "listing.h"
#include "table.h"

#include "cli/commands.h"
#include "cli/units.h"

#include <stdio.h>

static const char *state_text(const Found *f)
{
    switch (f->state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
        return "running";
    case VIR_DOMAIN_PAUSED:
        return "paused";
    case VIR_DOMAIN_SHUTDOWN:
        return "shutting-down";
    case VIR_DOMAIN_SHUTOFF:
        return "off";
    case VIR_DOMAIN_CRASHED:
        return "crashed";
    case VIR_DOMAIN_PMSUSPENDED:
        return "asleep";
    default:
        return "unknown";
    }
}

static char *version_text(uint64_t number, const char *image)
{
    return number ? g_strdup_printf("%" G_GUINT64_FORMAT, number)
                  : g_strdup(image ? image : "-");
}

static char *actual_text(const Found *f)
{
    const Actual *a = &f->actual;

    return a->known ? version_text(a->version, a->image) : g_strdup("?");
}

static unsigned percent(uint64_t part, uint64_t all)
{
    return all ? part * 100.0 / all : 100;
}

/* What an administrator would look at next */
static char *note_text(const Found *f)
{
    const Actual *a = &f->actual;
    GString *s = g_string_new(NULL);

    if (f->trouble || f->actual_trouble) {
        g_string_append(s, f->trouble ? f->trouble : f->actual_trouble);
    }
    if (a->in_outage) {
        g_autofree char *span = units_format_span(a->outage_ms);

        g_string_append_printf(s, "no store for %s; ", span);
    }
    if (a->denied_ms) {
        g_autofree char *span = units_format_span(a->denied_ms);

        g_string_append_printf(s, "no store has what it reads, for %s; ",
                               span);
    }
    if (a->has_budget) {
        g_string_append_printf(s, "%u%% local", percent(a->local_bytes,
                                                        a->size));
    }
    if (a->has_boot) {
        g_string_append_printf(s, ", %u%% of boot",
                               percent(a->boot_local_bytes, a->boot_bytes));
    }
    if (a->unprotected) {
        g_string_append(s, "; its device lacks rerror=stop,werror=stop");
    }
    return g_string_free(s, FALSE);
}

static void set_version(JsonObject *o, const char *name, uint64_t number)
{
    if (number) {
        json_object_set_int_member(o, name, number);
    }
}

static void set_text(JsonObject *o, const char *name, const char *text)
{
    if (text) {
        json_object_set_string_member(o, name, text);
    }
}

static void set_actual(JsonObject *o, const Actual *a)
{
    set_version(o, "actual", a->version);
    set_text(o, "actual-image", a->image);
    set_version(o, "assigned", a->assigned);
    set_text(o, "assigned-image", a->assigned_image);
    if (a->has_budget) {
        json_object_set_int_member(o, "size", a->size);
        json_object_set_int_member(o, "local-bytes", a->local_bytes);
    }
    if (a->has_boot) {
        json_object_set_int_member(o, "boot-bytes", a->boot_bytes);
        json_object_set_int_member(o, "boot-local-bytes",
                                   a->boot_local_bytes);
    }
    if (a->in_outage) {
        json_object_set_int_member(o, "outage-ms", a->outage_ms);
    }
    if (a->denied_ms) {
        json_object_set_int_member(o, "denied-ms", a->denied_ms);
    }
    json_object_set_boolean_member(o, "stops-on-error", !a->unprotected);
}

static JsonObject *desktop_json(const Survey *s, const Found *f)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "desktop", f->name);
    json_object_set_string_member(o, "host", survey_host(s, f->host)->name);
    json_object_set_string_member(o, "state", state_text(f));
    if (f->desktop) {
        json_object_set_string_member(o, "catalog", f->desktop->catalog);
        json_object_set_string_member(o, "vdisk", f->desktop->vdisk);
        set_version(o, "wanted", f->desktop->wanted.number);
        set_version(o, "previous", f->desktop->previous.number);
    }
    if (f->actual.known) {
        set_actual(o, &f->actual);
    }
    set_text(o, "trouble", f->trouble ? f->trouble : f->actual_trouble);
    return o;
}

static JsonObject *host_json(const Survey *s, guint i)
{
    const Host *host = survey_host(s, i);
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "host", host->name);
    json_object_set_string_member(o, "uri", host->uri);
    json_object_set_boolean_member(o, "drained", host->drained);
    json_object_set_boolean_member(o, "answers", !s->silent[i]);
    set_text(o, "reason", s->silent[i]);
    return o;
}

static JsonArray *held_json(const Survey *s)
{
    JsonArray *held = json_array_new();

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (f->catalog && f->catalog->back) {
            JsonObject *o = json_object_new();

            json_object_set_string_member(o, "catalog", f->catalog->catalog);
            json_object_set_int_member(o, "version", f->catalog->back);
            json_array_add_object_element(held, o);
        }
    }
    return held;
}

static void print_held(const Survey *s)
{
    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (f->catalog && f->catalog->back) {
            printf("\n%s: a push of version %" G_GUINT64_FORMAT " went back; "
                   "'deskcast follow' leaves it until it is pushed or released "
                   "again\n", f->catalog->catalog, f->catalog->back);
        }
    }
}

static void print_json(const Survey *s)
{
    JsonObject *o = json_object_new();
    JsonArray *desktops = json_array_new(), *hosts = json_array_new();

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (!f->catalog) {
            json_array_add_object_element(desktops, desktop_json(s, f));
        }
    }
    for (guint i = 0; i < s->hosts->len; i++) {
        json_array_add_object_element(hosts, host_json(s, i));
    }
    json_object_set_array_member(o, "desktops", desktops);
    json_object_set_array_member(o, "hosts", hosts);
    json_object_set_array_member(o, "held", held_json(s));
    command_answer(o);
}

static void print_text(const Survey *s)
{
    static const char *const titles[] = {
        "CATALOG", "DESKTOP", "HOST", "STATE", "WANTED", "ACTUAL", "NOTE", NULL
    };
    g_autoptr(Table) table = table_new(titles);

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);
        const DesktopMetadata *d = f->desktop;

        if (!f->catalog) {
            table_add(table, g_strdup(d ? d->catalog : "?"),
                      g_strdup(f->name),
                      g_strdup(survey_host(s, f->host)->name),
                      g_strdup(state_text(f)),
                      d ? version_text(d->wanted.number, NULL) : g_strdup("?"),
                      actual_text(f), note_text(f));
        }
    }
    table_print(table);
    print_held(s);
}

int command_status(int argc, char **argv)
{
    g_auto(Listing) l = {
        .summary = "[CATALOG] - what desktops run on", .max = 1,
        .wrong = "give one catalog, or none for all", .depth = SURVEY_DISKS,
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

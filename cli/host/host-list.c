/*
 * deskcast host list, drain, undrain
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-commands.h"
#include "listing.h"
#include "table.h"

#include "cli/audit.h"
#include "cli/commands.h"
#include "cli/units.h"

#include <stdio.h>

/* What is promised to the desktops of a host */
typedef struct Use {
    guint desktops, running;
    uint64_t write_cache, ram, bandwidth;
} Use;

static Use use_of(const Survey *s, guint host)
{
    Use use = { 0 };

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (f->host == host && f->desktop) {
            use.desktops++;
            use.running += f->running;
            use.write_cache += f->desktop->write_cache;
            use.ram += f->desktop->ram;
            use.bandwidth += f->desktop->bandwidth;
        }
    }
    return use;
}

static JsonObject *host_json(const Survey *s, guint i)
{
    const Host *host = survey_host(s, i);
    JsonObject *o = json_object_new();
    Use use = use_of(s, i);

    json_object_set_string_member(o, "host", host->name);
    json_object_set_string_member(o, "uri", host->uri);
    json_object_set_boolean_member(o, "drained", host->drained);
    json_object_set_boolean_member(o, "answers", !s->silent[i]);
    if (s->silent[i]) {
        json_object_set_string_member(o, "reason", s->silent[i]);
    } else {
        json_object_set_int_member(o, "desktops", use.desktops);
        json_object_set_int_member(o, "running", use.running);
        json_object_set_int_member(o, "write-cache", use.write_cache);
        json_object_set_int_member(o, "ram", use.ram);
        json_object_set_int_member(o, "bandwidth", use.bandwidth);
    }
    json_object_set_int_member(o, "write-cache-cap", host->write_cache);
    json_object_set_int_member(o, "ram-cap", host->ram);
    json_object_set_int_member(o, "relay-bandwidth", host->relay_bandwidth);
    return o;
}

static void print_json(const Survey *s)
{
    JsonObject *o = json_object_new();
    JsonArray *hosts = json_array_new();

    for (guint i = 0; i < s->hosts->len; i++) {
        json_array_add_object_element(hosts, host_json(s, i));
    }
    json_object_set_array_member(o, "hosts", hosts);
    command_answer(o);
}

static char *of_cap(uint64_t use, uint64_t cap)
{
    g_autofree char *a = units_format_size(use);
    g_autofree char *b = cap ? units_format_size(cap) : NULL;

    return b ? g_strdup_printf("%s of %s", a, b) : g_strdup(a);
}

static void add_row(Table *table, const Survey *s, guint i)
{
    const Host *host = survey_host(s, i);
    Use use = use_of(s, i);

    if (s->silent[i]) {
        table_add(table, g_strdup(host->name), g_strdup("silent"),
                  g_strdup("?"), g_strdup("?"), g_strdup("?"), g_strdup("?"),
                  g_strdup("?"),
                  g_strdup(s->silent[i]));
        return;
    }
    table_add(table, g_strdup(host->name),
              g_strdup(host->drained ? "drained" : "open"),
              g_strdup_printf("%u", use.desktops),
              g_strdup_printf("%u", use.running),
              of_cap(use.write_cache, host->write_cache),
              of_cap(use.ram, host->ram),
              of_cap(use.bandwidth, host->relay_bandwidth), g_strdup(host->uri));
}

static void print_text(const Survey *s)
{
    static const char *const titles[] = {
        "HOST", "STATE", "DESKTOPS", "RUNNING", "WRITE-CACHE", "RAM", "BANDWIDTH",
        "URI", NULL
    };
    g_autoptr(Table) table = table_new(titles);

    for (guint i = 0; i < s->hosts->len; i++) {
        add_row(table, s, i);
    }
    table_print(table);
}

int command_host_list(int argc, char **argv)
{
    g_auto(Listing) l = {
        .summary = "- hosts, and what is in use of them",
        .wrong = "it takes no arguments",
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

/* Desktops of a host that run */
static JsonArray *running_on(const Survey *s, const char *name)
{
    JsonArray *running = json_array_new();

    for (guint i = 0; i < s->found->len; i++) {
        const Found *f = g_ptr_array_index(s->found, i);

        if (f->running && !g_strcmp0(survey_host(s, f->host)->name, name)) {
            json_array_add_string_element(running, f->name);
        }
    }
    return running;
}

static const char *silence_of(const Survey *s, const char *name)
{
    const char *silent = NULL;

    for (guint i = 0; i < s->hosts->len; i++) {
        silent = !g_strcmp0(survey_host(s, i)->name, name) ? s->silent[i]
                                                           : silent;
    }
    return silent;
}

static void print_running(const char *name, JsonArray *running,
                          const char *silent)
{
    guint n = json_array_get_length(running);

    printf("%s takes no new desktops. ", name);
    if (silent) {
        printf("What runs on it is not known: %s\n", silent);
    } else {
        printf("%u still run there%s\n", n, n ? ":" : ".");
    }
    for (guint i = 0; i < n; i++) {
        printf("  %s\n", json_array_get_string_element(running, i));
    }
    json_array_unref(running);
}

/* What still runs on a host that is drained */
static int tell_running(const HostOptions *hosts, const char *name, bool json)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Survey) s = survey_hosts(hosts, SURVEY_METADATA, NULL, &error);
    const char *silent = s ? silence_of(s, name) : error->message;
    JsonArray *running = s ? running_on(s, name) : json_array_new();
    JsonObject *o;

    if (json) {
        o = json_object_new();
        json_object_set_string_member(o, "host", name);
        json_object_set_boolean_member(o, "answers", !silent);
        json_object_set_array_member(o, "running", running);
        command_answer(o);
    } else {
        print_running(name, running, silent);
    }
    return silent ? COMMAND_FAILED : COMMAND_DONE;
}

static void print_undrained(const char *name)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "host", name);
    command_answer(o);
}

static int set_drained(int argc, char **argv, bool drained)
{
    g_auto(HostOptions) hosts = { 0 };
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Answer in JSON", NULL },
        HOST_OPTION_ENTRIES(&hosts),
        { NULL }
    };
    g_autoptr(GError) error = NULL;

    if (!command_parse("HOST - whether it takes new desktops", entries, &argc,
                       &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2) {
        fprintf(stderr, "deskcast: give one host\n");
        return COMMAND_USAGE;
    }
    if (!hosts_set_drained(&hosts, argv[1], drained, &error)) {
        return command_fail(json, error);
    }
    audit(drained ? "host drain" : "host undrain", NULL, 0, "host %s",
          argv[1]);
    if (drained) {
        return tell_running(&hosts, argv[1], json);
    }
    if (json) {
        print_undrained(argv[1]);
    } else {
        printf("%s takes new desktops.\n", argv[1]);
    }
    return COMMAND_DONE;
}

int command_host_drain(int argc, char **argv)
{
    return set_drained(argc, argv, true);
}

int command_host_undrain(int argc, char **argv)
{
    return set_drained(argc, argv, false);
}

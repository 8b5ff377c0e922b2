/*
 * deskcast stage: bring versions to the hosts' own stores
 *
 * Each host fetches for itself: 'deskcast store replicate' runs on it, here
 * or over the ssh of its libvirt URI, on all hosts at once.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-commands.h"
#include "survey.h"
#include "table.h"

#include "cli/audit.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/store/origin.h"

#include <stdio.h>
#include <string.h>

typedef struct Staging {
    const Host *host;
    char **argv;                /* NULL: there is nothing to do */
    char *note;                 /* what became of it */
    bool failed;
    Progress *progress;         /* of all hosts */
    GThread *thread;
} Staging;

typedef struct StageOptions {
    HostOptions hosts;
    char *from;
    char **only;
    OriginTls tls;
    gboolean json;
} StageOptions;

static void stage_options_clear(StageOptions *o)
{
    host_options_clear(&o->hosts);
    g_free(o->from);
    g_strfreev(o->only);
    origin_tls_clear(&o->tls);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(StageOptions, stage_options_clear)

static void staging_free(void *data)
{
    Staging *s = data;

    g_strfreev(s->argv);
    g_free(s->note);
    g_free(s);
}

/* What another host can fetch from: the catalog's first server on the network */
static const char *network_source(const CatalogMetadata *c)
{
    for (char **uri = c->stores; uri && *uri; uri++) {
        if (!g_str_has_prefix(*uri, "nbd+unix:")) {
            return *uri;
        }
    }
    return NULL;
}

static void add_option(GPtrArray *argv, const char *option, const char *value)
{
    if (value) {
        g_ptr_array_add(argv, g_strdup(option));
        g_ptr_array_add(argv, g_strdup(value));
    }
}

/* What is not said of TLS, the host knows itself: origin_new() */
static char **replicate(const char *program, const char *from,
                        const Host *host, const char *vdisk,
                        const OriginTls *tls)
{
    GPtrArray *argv = g_ptr_array_new();

    g_ptr_array_add(argv, g_strdup(program));
    g_ptr_array_add(argv, g_strdup("store"));
    g_ptr_array_add(argv, g_strdup("replicate"));
    add_option(argv, "--from", from);
    add_option(argv, "--to", host->store);
    add_option(argv, "--vdisk", vdisk);
    add_option(argv, "--tls-x509", tls->certificates);
    add_option(argv, "--tls-psk", tls->psk_file);
    add_option(argv, "--tls-user", tls->user);
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

/* A shell is at the other end of ssh: every word is quoted */
static char *quoted(char **argv)
{
    GString *s = g_string_new(NULL);

    for (; *argv; argv++) {
        g_autofree char *word = g_shell_quote(*argv);

        g_string_append_printf(s, "%s%s", s->len ? " " : "", word);
    }
    return g_string_free(s, FALSE);
}

/* A dead host is given up by ssh itself */
static char **over_ssh(GUri *uri, char **argv, int timeout)
{
    g_autofree char *command = quoted(argv);
    g_autoptr(GPtrArray) out = g_ptr_array_new();
    const char *ssh = g_getenv("DESKCAST_SSH");

    g_ptr_array_add(out, g_strdup(ssh ? ssh : "ssh"));
    g_ptr_array_add(out, g_strdup("-oBatchMode=yes"));
    g_ptr_array_add(out, g_strdup_printf("-oConnectTimeout=%d", timeout));
    g_ptr_array_add(out, g_strdup("-oServerAliveInterval=5"));
    g_ptr_array_add(out, g_strdup("-oServerAliveCountMax=3"));
    if (g_uri_get_port(uri) > 0) {
        g_ptr_array_add(out, g_strdup_printf("-p%d", g_uri_get_port(uri)));
    }
    if (g_uri_get_user(uri)) {
        g_ptr_array_add(out, g_strdup_printf("-l%s", g_uri_get_user(uri)));
    }
    g_ptr_array_add(out, g_strdup("--"));
    g_ptr_array_add(out, g_strdup(g_uri_get_host(uri)));
    g_ptr_array_add(out, g_steal_pointer(&command));
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&out), FALSE);
}

static void refuse(Staging *s, const char *why)
{
    s->failed = true;
    s->note = g_strdup(why);
}

static void plan_remote(Staging *s, const StageOptions *o,
                        const CatalogMetadata *c)
{
    g_autoptr(GUri) uri = g_uri_parse(s->host->uri, G_URI_FLAGS_NONE, NULL);
    const char *from = o->from ? o->from : network_source(c);
    g_auto(GStrv) argv = NULL;

    if (!uri || !strstr(g_uri_get_scheme(uri), "+ssh")) {
        refuse(s, "it is not reached by ssh: give 'deskcast store replicate' "
               "there");
    } else if (!from) {
        refuse(s, "give by --from where it can fetch versions, like "
               "nbds://STORE");
    } else {
        argv = replicate("deskcast", from, s->host, c->vdisk, &o->tls);
        s->argv = over_ssh(uri, argv, o->hosts.timeout > 0 ? o->hosts.timeout
                                                           : HOST_TIMEOUT);
    }
}

static Staging *plan(const Host *host, const StageOptions *o,
                     const CatalogMetadata *c)
{
    Staging *s = g_new0(Staging, 1);

    s->host = host;
    if (!host->store) {
        s->note = g_strdup("has no store of its own");
    } else if (host_is_local(host)) {
        s->argv = replicate("/proc/self/exe", o->from ? o->from : c->store,
                            host, c->vdisk, &o->tls);
    } else {
        plan_remote(s, o, c);
    }
    return s;
}

/* Show each line that it says. Returns the last one, without the program's
 * name: if it failed, why. */
static char *listen_to(Staging *s, GInputStream *said)
{
    g_autoptr(GDataInputStream) lines = g_data_input_stream_new(said);
    g_autofree char *last = NULL;
    char *line;

    while ((line = g_data_input_stream_read_line(lines, NULL, NULL, NULL))) {
        g_autofree char *valid = g_utf8_make_valid(line, -1);
        g_autofree char *text = g_strconcat(s->host->name, ": ", valid, NULL);

        progress_say(s->progress, text);
        g_free(last);
        last = g_strdup(g_str_has_prefix(valid, "deskcast: ")
                        ? valid + strlen("deskcast: ") : valid);
        g_free(line);
    }
    return last ? g_steal_pointer(&last) : g_strdup("it says nothing");
}

static void *run(void *data)
{
    Staging *s = data;
    g_autoptr(GError) error = NULL;
    g_autoptr(GSubprocess) process = NULL;
    g_autofree char *last = NULL;

    process = g_subprocess_newv((const char *const *)s->argv,
                                G_SUBPROCESS_FLAGS_STDOUT_SILENCE |
                                G_SUBPROCESS_FLAGS_STDERR_PIPE, &error);
    last = process ? listen_to(s, g_subprocess_get_stderr_pipe(process)) : NULL;
    if (!process || !g_subprocess_wait(process, NULL, &error)) {
        refuse(s, error->message);
    } else if (!g_subprocess_get_successful(process)) {
        refuse(s, last);
    } else {
        s->note = g_strdup("has all versions");
    }
    progress_add(s->progress, 1);
    return NULL;
}

static bool is_chosen(const StageOptions *o, const Host *host)
{
    return !o->only ||
           g_strv_contains((const char *const *)o->only, host->name);
}

static GPtrArray *plan_all(const Survey *survey, const StageOptions *o,
                           const CatalogMetadata *c)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(staging_free);

    for (guint i = 0; i < survey->hosts->len; i++) {
        if (is_chosen(o, survey_host(survey, i))) {
            g_ptr_array_add(all, plan(survey_host(survey, i), o, c));
        }
    }
    return all;
}

static guint to_be_run(const GPtrArray *all)
{
    guint n = 0;

    for (guint i = 0; i < all->len; i++) {
        n += ((const Staging *)g_ptr_array_index(all, i))->argv != NULL;
    }
    return n;
}

static void stage(const GPtrArray *all, bool quiet)
{
    g_autoptr(Progress) progress = progress_new("hosts", to_be_run(all), false,
                                                quiet);

    for (guint i = 0; i < all->len; i++) {
        Staging *s = g_ptr_array_index(all, i);

        s->progress = progress;
        s->thread = s->argv ? g_thread_new("stage", run, s) : NULL;
    }
    for (guint i = 0; i < all->len; i++) {
        Staging *s = g_ptr_array_index(all, i);

        if (s->thread) {
            g_thread_join(s->thread);
        }
    }
    progress_done(progress);
}

static void print_json(const GPtrArray *all, const char *catalog)
{
    JsonObject *o = json_object_new();
    JsonArray *hosts = json_array_new();

    for (guint i = 0; i < all->len; i++) {
        const Staging *s = g_ptr_array_index(all, i);
        JsonObject *host = json_object_new();

        json_object_set_string_member(host, "host", s->host->name);
        json_object_set_boolean_member(host, "failed", s->failed);
        json_object_set_string_member(host, "note", s->note);
        json_array_add_object_element(hosts, host);
    }
    json_object_set_string_member(o, "catalog", catalog);
    json_object_set_array_member(o, "hosts", hosts);
    command_answer(o);
}

static void print_text(const GPtrArray *all)
{
    static const char *const titles[] = { "HOST", "STAGED", "NOTE", NULL };
    g_autoptr(Table) table = table_new(titles);

    for (guint i = 0; i < all->len; i++) {
        const Staging *s = g_ptr_array_index(all, i);

        table_add(table, g_strdup(s->host->name),
                  g_strdup(s->failed ? "failed" : s->argv ? "yes" : "-"),
                  g_strdup(s->note));
    }
    table_print(table);
}

static int stage_catalog(const StageOptions *o, const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Survey) survey = survey_hosts(&o->hosts, SURVEY_METADATA, name,
                                            &error);
    Found *master = survey ? survey_catalog(survey, name, &error) : NULL;
    g_autoptr(GPtrArray) all = NULL;
    int status = COMMAND_DONE;

    for (char **host = o->only; master && host && *host; host++) {
        if (!hosts_find(survey->hosts, *host, &error)) {
            master = NULL;
        }
    }
    if (!master) {
        return command_fail(o->json, error);
    }
    all = plan_all(survey, o, master->catalog);
    stage(all, o->json);
    for (guint i = 0; i < all->len; i++) {
        const Staging *s = g_ptr_array_index(all, i);

        status = s->failed ? COMMAND_FAILED : status;
    }
    audit("stage", master->catalog->vdisk, 0, "catalog %s, %u hosts", name,
          all->len);
    if (o->json) {
        print_json(all, name);
    } else {
        print_text(all);
    }
    return status;
}

int command_stage(int argc, char **argv)
{
    g_auto(StageOptions) o = { 0 };
    GOptionEntry entries[] = {
        { "from", 0, 0, G_OPTION_ARG_STRING, &o.from,
          "Where hosts fetch from (default: the catalog's store, or its first "
          "source on the network)", "STORE" },
        { "host", 0, 0, G_OPTION_ARG_STRING_ARRAY, &o.only,
          "Only this host, may be given often", "HOST" },
        ORIGIN_TLS_OPTIONS(o.tls),
        { "json", 0, 0, G_OPTION_ARG_NONE, &o.json, "Answer in JSON", NULL },
        HOST_OPTION_ENTRIES(&o.hosts),
        { NULL }
    };

    if (!command_parse("CATALOG - bring its versions to the hosts' own stores",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2) {
        fprintf(stderr, "deskcast: give one catalog\n");
        return COMMAND_USAGE;
    }
    return stage_catalog(&o, argv[1]);
}

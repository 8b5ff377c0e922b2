/*
 * deskcast catalog create
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "domain-job.h"
#include "host-commands.h"
#include "survey.h"
#include "target.h"

#include "cli/audit.h"
#include "cli/commands.h"
#include "cli/store/store.h"
#include "cli/units.h"

#include <stdio.h>
#include <string.h>

typedef struct CreateOptions {
    HostOptions hosts;
    char *master, *vdisk, *model, *store, *folder, *lifetime, *run;
    char *host_cache, *write_cache, *ram, *bandwidth;
    char **sources;
    gboolean json;
} CreateOptions;

static void create_options_clear(CreateOptions *o)
{
    char *strings[] = { o->master, o->vdisk, o->model, o->store, o->folder,
                        o->lifetime, o->run, o->host_cache, o->write_cache,
                        o->ram, o->bandwidth };

    host_options_clear(&o->hosts);
    for (size_t i = 0; i < G_N_ELEMENTS(strings); i++) {
        g_free(strings[i]);
    }
    g_strfreev(o->sources);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CreateOptions, create_options_clear)

static bool refuse(GError **error, const char *what)
{
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, what);
    return false;
}

/* One of two words; @text NULL: the first */
static bool choose(const char *text, const char *first, const char *second,
                   int *value, GError **error)
{
    if (!text || !strcmp(text, first)) {
        *value = 1;
    } else if (!strcmp(text, second)) {
        *value = 2;
    } else {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "'%s' is neither '%s' nor '%s'", text, first, second);
        return false;
    }
    return true;
}

static bool set_words(CatalogMetadata *c, const CreateOptions *o,
                      GError **error)
{
    int model, lifetime, run;

    if (!o->model || !choose(o->model, "mcs", "pvs", &model, error)) {
        return o->model ? false
                        : refuse(error, "give the --model: mcs or pvs");
    }
    if (!choose(o->lifetime, "pooled", "dedicated", &lifetime, error) ||
        !choose(o->run, "in-process", "vhost-user", &run, error)) {
        return false;
    }
    c->model = model;
    c->lifetime = lifetime;
    c->run = run;
    return true;
}

static bool check_words(const CatalogMetadata *c, GError **error)
{
    if (c->model == MODEL_PVS && !(c->stores && c->stores[0])) {
        return refuse(error, "pvs: give a --source that desktops read from, "
                      "like nbd://HOST:10809");
    }
    if (c->model == MODEL_MCS && (c->stores || c->host_cache ||
                                  c->bandwidth)) {
        return refuse(error, "mcs: desktops open the image by its path; "
                      "there is no --source, --host-cache and --bandwidth");
    }
    if (c->model == MODEL_PVS && c->lifetime != LIFETIME_POOLED) {
        return refuse(error, "pvs: desktops that are streamed are pooled");
    }
    return true;
}

static CatalogMetadata *make_catalog(const CreateOptions *o, const char *name,
                                     GError **error)
{
    g_autoptr(CatalogMetadata) c = g_new0(CatalogMetadata, 1);
    g_autofree char *text = NULL;

    c->catalog = g_strdup(name);
    c->vdisk = g_strdup(o->vdisk);
    c->store = g_canonicalize_filename(o->store ? o->store
                                       : store_default_folder(), NULL);
    c->folder = g_strdup(o->folder);
    c->host_cache = g_strdup(o->host_cache);
    c->stores = g_strdupv(o->sources);
    if (!set_words(c, o, error) ||
        (o->write_cache &&
         !units_parse_size(o->write_cache, &c->write_cache, error)) ||
        (o->ram && !units_parse_size(o->ram, &c->ram, error)) ||
        (o->bandwidth &&
         !units_parse_size(o->bandwidth, &c->bandwidth, error)) ||
        !check_words(c, error)) {
        return NULL;
    }
    text = catalog_metadata_text(c);
    return catalog_metadata_parse(text, error);     /* all is checked there */
}

static bool check_name(const Survey *s, const CatalogMetadata *c,
                       GError **error)
{
    for (guint i = 0; i < s->found->len; i++) {
        Found *f = g_ptr_array_index(s->found, i);

        if (f->catalog && !strcmp(f->catalog->catalog, c->catalog)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                        "the catalog '%s' is there already: '%s' on host '%s'",
                        c->catalog, f->name, survey_host(s, f->host)->name);
            return false;
        }
    }
    return true;
}

/* The one host that has the domain */
static DomainJob *find_master(Survey *s, const char *name, guint *host,
                              GError **error)
{
    DomainJob *found = NULL;
    FleetAnswer a;
    bool two = false;

    for (guint i = 0; i < s->hosts->len; i++) {
        fleet_post(s->fleet, i, i, domain_job_find, domain_job_new(name),
                   domain_job_free, 0);
    }
    while (fleet_next(s->fleet, &a, -1)) {
        DomainJob *job = a.job;

        if (!a.error && *job->uuid && found) {
            two = true;
        } else if (!a.error && *job->uuid) {
            found = g_steal_pointer(&job);
            *host = a.host;
        }
        g_clear_pointer(&job, domain_job_free);
        g_clear_error(&a.error);
    }
    if (!found || two) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    two ? "there are several domains '%s'; name one host "
                          "by --connect"
                        : "no host that answers has a domain '%s'", name);
        g_clear_pointer(&found, domain_job_free);
    }
    return found;
}

static bool create(const CreateOptions *o, const CatalogMetadata *c,
                   GError **error)
{
    g_autoptr(Survey) s = survey_hosts(&o->hosts, SURVEY_METADATA, NULL,
                                       error);
    g_autoptr(Manifest) m = NULL;
    DomainJob *master;
    guint host = 0;

    if (!s) {
        return false;
    }
    survey_print_silent(s);
    m = target_manifest(c->store, c->vdisk, error);
    master = m && check_name(s, c, error)
             ? find_master(s, o->master, &host, error) : NULL;
    if (!master) {
        return false;
    }
    if (master->has_metadata) {
        domain_job_free(master);
        return refuse(error, "the domain is of a catalog already, or a "
                      "desktop");
    }
    master->metadata = catalog_metadata_text(c);
    return domain_job_run(s->fleet, host, domain_job_set_metadata, master,
                          error);
}

static void print_made(const CreateOptions *o, const CatalogMetadata *c)
{
    JsonObject *object = json_object_new();

    if (!o->json) {
        printf("%s: a catalog of '%s', with the master VM '%s'\n", c->catalog,
               c->vdisk, o->master);
        return;
    }
    json_object_set_string_member(object, "catalog", c->catalog);
    json_object_set_string_member(object, "vdisk", c->vdisk);
    json_object_set_string_member(object, "master", o->master);
    command_answer(object);
}

int command_catalog_create(int argc, char **argv)
{
    g_auto(CreateOptions) o = { 0 };
    GOptionEntry entries[] = {
        { "master", 'm', 0, G_OPTION_ARG_STRING, &o.master,
          "The master VM, in which updates are installed", "DOMAIN" },
        { "vdisk", 'v', 0, G_OPTION_ARG_STRING, &o.vdisk,
          "The vDisk that its desktops run on", "NAME" },
        { "model", 0, 0, G_OPTION_ARG_STRING, &o.model,
          "How desktops have it", "mcs|pvs" },
        { "store", 's', 0, G_OPTION_ARG_FILENAME, &o.store,
          "The store, as a folder here", "DIR" },
        { "folder", 'f', 0, G_OPTION_ARG_FILENAME, &o.folder,
          "Where a host has disks of desktops", "DIR" },
        { "lifetime", 0, 0, G_OPTION_ARG_STRING, &o.lifetime,
          "What becomes of writes (default: pooled)", "pooled|dedicated" },
        { "run", 0, 0, G_OPTION_ARG_STRING, &o.run,
          "Where the drivers are (default: in-process)",
          "in-process|vhost-user" },
        { "source", 0, 0, G_OPTION_ARG_STRING_ARRAY, &o.sources,
          "pvs: what desktops read from; may be given often", "URI" },
        { "host-cache", 0, 0, G_OPTION_ARG_FILENAME, &o.host_cache,
          "pvs: where a host has its caches", "DIR" },
        { "write-cache", 0, 0, G_OPTION_ARG_STRING, &o.write_cache,
          "What the disk of a desktop may take on its host", "SIZE" },
        { "ram", 0, 0, G_OPTION_ARG_STRING, &o.ram,
          "Memory for what a desktop wrote last", "SIZE" },
        { "bandwidth", 0, 0, G_OPTION_ARG_STRING, &o.bandwidth,
          "pvs: what a desktop is reckoned with of its host's relay, a second",
          "SIZE" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &o.json, "Answer in JSON", NULL },
        HOST_OPTION_ENTRIES(&o.hosts),
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(CatalogMetadata) c = NULL;

    if (!command_parse("NAME - make a catalog of a master VM", entries, &argc,
                       &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2 || !o.master || !o.vdisk || !o.folder) {
        fprintf(stderr, "deskcast: give a name, --master, --vdisk, --model "
                "and --folder\n");
        return COMMAND_USAGE;
    }
    c = make_catalog(&o, argv[1], &error);
    if (!c || !create(&o, c, &error)) {
        return command_fail(o.json, error);
    }
    audit("catalog create", c->vdisk, 0, "catalog %s, master %s", c->catalog,
          o.master);
    print_made(&o, c);
    return COMMAND_DONE;
}

/*
 * Desktops and catalogs of all hosts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "survey.h"
#include "disk-job.h"

#include <libvirt/virterror.h>
#include <libxml/parser.h>
#include <stdio.h>
#include <string.h>

/* What one host's thread looks for and finds */
typedef struct Inquiry {
    char *catalog;              /* NULL: all */
    bool headers;               /* read those of local desktops that are off */
    GPtrArray *found;
} Inquiry;

static void found_free(void *data)
{
    Found *f = data;

    g_free(f->name);
    desktop_metadata_free(f->desktop);
    catalog_metadata_free(f->catalog);
    g_free(f->trouble);
    actual_clear(&f->actual);
    g_free(f->actual_trouble);
    g_free(f);
}

static void inquiry_free(void *data)
{
    Inquiry *q = data;

    g_free(q->catalog);
    g_ptr_array_unref(q->found);
    g_free(q);
}

/*
 * Of its definition: a master VM that is updated runs as a desktop of its own.
 * What is transient has none. NULL, and true, if it has none of ours.
 */
static bool get_metadata(virDomainPtr domain, char **text, GError **error)
{
    *text = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                                 METADATA_NAMESPACE,
                                 VIR_DOMAIN_AFFECT_CONFIG);
    if (!*text && virGetLastErrorCode() != VIR_ERR_NO_DOMAIN_METADATA) {
        *text = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                                     METADATA_NAMESPACE, 0);
    }
    if (*text || virGetLastErrorCode() == VIR_ERR_NO_DOMAIN_METADATA ||
        virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
        return true;
    }
    return fleet_set_error(error, virDomainGetName(domain));
}

/* libvirt gives the element without its prefix */
static bool is_catalog(const char *text)
{
    return g_str_has_prefix(text, "<catalog") ||
           g_str_has_prefix(text, "<" METADATA_PREFIX ":catalog");
}

static void parse(Found *f, const char *text)
{
    g_autoptr(GError) error = NULL;

    if (is_catalog(text)) {
        f->catalog = catalog_metadata_parse(text, &error);
    } else {
        f->desktop = desktop_metadata_parse(text, &error);
    }
    f->trouble = error ? g_strdup(error->message) : NULL;
}

static bool belongs(const Found *f, const char *catalog)
{
    const char *its = f->desktop ? f->desktop->catalog
                    : f->catalog ? f->catalog->catalog : NULL;

    return !catalog || f->trouble || !g_strcmp0(its, catalog);
}

static void read_header(Found *f)
{
    g_autoptr(GError) error = NULL;
    VdiskHeader h;

    if (layer_header_peek(f->desktop->disk, &h, &error)) {
        actual_from_header(&f->actual, &h, f->desktop);
    } else {
        f->actual_trouble = g_strdup(error->message);
    }
}

/*
 * Before there are threads. GLib makes what its number parser needs at the
 * first call; a thread that waits for another one's first call comes back with
 * an errno that the parser takes for its own, and refuses a good number.
 */
static void init_parsers(void)
{
    xmlInitParser();
    g_ascii_strtoull("0", NULL, 10);
}

static bool add_domain(Inquiry *q, virDomainPtr domain, GError **error)
{
    g_autofree char *text = NULL;
    Found *f;

    if (!get_metadata(domain, &text, error)) {
        return false;
    }
    if (!text) {
        return true;
    }
    f = g_new0(Found, 1);
    virDomainGetUUIDString(domain, f->uuid);
    f->name = g_strdup(virDomainGetName(domain));
    f->running = virDomainGetID(domain) != (unsigned)-1;
    f->state = f->running ? VIR_DOMAIN_RUNNING : VIR_DOMAIN_SHUTOFF;
    parse(f, text);
    if (!belongs(f, q->catalog)) {
        found_free(f);
        return true;
    }
    if (q->headers && f->desktop && !f->running) {
        read_header(f);
    }
    g_ptr_array_add(q->found, f);
    return true;
}

static bool inquire(virConnectPtr conn, void *job, GError **error)
{
    Inquiry *q = job;
    virDomainPtr *domains = NULL;
    int n = virConnectListAllDomains(conn, &domains, 0);
    bool ok = true;

    if (n < 0) {
        return fleet_set_error(error, "it does not list its domains");
    }
    for (int i = 0; i < n; i++) {
        ok = ok && add_domain(q, domains[i], error);
        virDomainFree(domains[i]);
    }
    free(domains);
    return ok;
}

static void take_inquiry(Survey *s, FleetAnswer *a)
{
    Inquiry *q = a->job;

    if (a->error) {
        s->silent[a->host] = g_strdup(a->error->message);
        g_clear_error(&a->error);
    }
    for (guint i = 0; q && !s->silent[a->host] && i < q->found->len; i++) {
        Found *f = g_ptr_array_index(q->found, i);

        f->host = a->host;
        q->found->pdata[i] = NULL;
        g_ptr_array_add(s->found, f);
    }
    if (q) {
        g_ptr_array_set_free_func(q->found, NULL);
        for (guint i = 0; i < q->found->len; i++) {
            g_clear_pointer(&q->found->pdata[i], found_free);
        }
        inquiry_free(q);
    }
}

static void ask_hosts(Survey *s, SurveyDepth depth, const char *catalog)
{
    FleetAnswer answer;

    for (guint i = 0; i < s->hosts->len; i++) {
        Inquiry *q = g_new0(Inquiry, 1);

        q->catalog = g_strdup(catalog);
        q->headers = depth == SURVEY_DISKS && host_is_local(survey_host(s, i));
        q->found = g_ptr_array_new_with_free_func(found_free);
        fleet_post(s->fleet, i, i, inquire, q, inquiry_free,
                   FLEET_LONG_MS);
    }
    while (fleet_next(s->fleet, &answer, -1)) {
        take_inquiry(s, &answer);
    }
}

static void take_look(Survey *s, FleetAnswer *a)
{
    Found *f = g_ptr_array_index(s->found, a->tag);
    DiskJob *job = a->job;

    if (a->error) {
        f->actual_trouble = g_strdup(a->error->message);
        f->mute = !job && !fleet_lost(s->fleet, a->host);
        g_clear_error(&a->error);
    } else {
        f->state = job->state;
        f->running = job->running;
        f->actual = job->actual;
        job->actual = (Actual){ 0 };
    }
    if (job) {
        disk_job_free(job);
    }
}

/* Those that run are asked what they run on */
static void ask_desktops(Survey *s)
{
    FleetAnswer answer;

    for (guint i = 0; i < s->found->len; i++) {
        Found *f = g_ptr_array_index(s->found, i);

        if (f->desktop && f->running) {
            DiskJob *job = disk_job_new(f->uuid, f->desktop, f->desktop,
                                        survey_host(s, f->host));

            fleet_post(s->fleet, f->host, i, disk_job_look, job,
                       disk_job_free, 0);
        }
    }
    while (fleet_next(s->fleet, &answer, -1)) {
        take_look(s, &answer);
    }
}

static int by_name(const void *a, const void *b)
{
    const Found *x = *(Found *const *)a, *y = *(Found *const *)b;
    int order = strcmp(x->name, y->name);

    return order ? order : (int)x->host - (int)y->host;
}

Survey *survey_hosts(const HostOptions *options, SurveyDepth depth,
                     const char *catalog, GError **error)
{
    bool timeout_valid = options->timeout >= 0 &&
                         options->timeout <= HOST_TIMEOUT_MAX;
    GPtrArray *hosts = timeout_valid ? hosts_load(options, error) : NULL;
    Survey *s;

    if (!timeout_valid) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--timeout takes 1 to %d seconds", HOST_TIMEOUT_MAX);
    }
    if (!hosts) {
        return NULL;
    }
    init_parsers();
    s = g_new0(Survey, 1);
    s->hosts = hosts;
    s->fleet = fleet_new(hosts, (options->timeout > 0 ? options->timeout
                                                      : HOST_TIMEOUT) * 1000);
    s->found = g_ptr_array_new_with_free_func(found_free);
    s->silent = g_new0(char *, hosts->len + 1);
    ask_hosts(s, depth, catalog);
    g_ptr_array_sort(s->found, by_name);
    if (depth == SURVEY_DISKS) {
        ask_desktops(s);
    }
    return s;
}

void survey_free(Survey *s)
{
    g_ptr_array_unref(s->found);
    fleet_free(s->fleet);
    for (guint i = 0; i < s->hosts->len; i++) {
        g_free(s->silent[i]);
    }
    g_free(s->silent);
    g_ptr_array_unref(s->hosts);
    g_free(s);
}

const Host *survey_host(const Survey *s, guint host)
{
    return g_ptr_array_index(s->hosts, host);
}

guint survey_silent(const Survey *s)
{
    guint n = 0;

    for (guint i = 0; i < s->hosts->len; i++) {
        n += s->silent[i] != NULL;
    }
    return n;
}

Found *survey_catalog(const Survey *s, const char *catalog, GError **error)
{
    Found *master = NULL;

    for (guint i = 0; i < s->found->len; i++) {
        Found *f = g_ptr_array_index(s->found, i);

        if (!f->catalog || strcmp(f->catalog->catalog, catalog)) {
            continue;
        }
        if (master) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "two master VMs are of the catalog '%s': '%s' on '%s' "
                        "and '%s' on '%s'", catalog, master->name,
                        survey_host(s, master->host)->name, f->name,
                        survey_host(s, f->host)->name);
            return NULL;
        }
        master = f;
    }
    if (!master) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "there is no catalog '%s'%s", catalog,
                    survey_silent(s) ? " on the hosts that answer" : "");
    }
    return master;
}

void survey_print_silent(const Survey *s)
{
    for (guint i = 0; i < s->hosts->len; i++) {
        if (s->silent[i]) {
            fprintf(stderr, "deskcast: host '%s': %s\n",
                    survey_host(s, i)->name, s->silent[i]);
        }
    }
}

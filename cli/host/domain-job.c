/*
 * What is done to a domain by its name or XML
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "domain-job.h"

#include "cli/desktop/metadata.h"
#include "cli/json-member.h"
#include "cli/json-read.h"

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

DomainJob *domain_job_new(const char *name)
{
    DomainJob *job = g_new0(DomainJob, 1);

    job->name = g_strdup(name);
    return job;
}

DomainJob *domain_job_of(const Found *found)
{
    DomainJob *job = domain_job_new(found->name);

    g_strlcpy(job->uuid, found->uuid, sizeof(job->uuid));
    return job;
}

void domain_job_free(void *data)
{
    DomainJob *job = data;

    g_free(job->name);
    g_free(job->metadata);
    free(job->xml);
    g_free(job->command);
    free(job->answer);
    g_free(job);
}

bool domain_job_find(virConnectPtr conn, void *data, GError **error)
{
    DomainJob *job = data;
    g_autoptr(virDomain) domain = virDomainLookupByName(conn, job->name);
    char *text;

    if (!domain) {
        return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ||
               fleet_set_error(error, job->name);
    }
    text = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                                METADATA_NAMESPACE, 0);
    job->has_metadata = text != NULL;
    job->running = virDomainIsActive(domain) > 0;
    free(text);
    return virDomainGetUUIDString(domain, job->uuid) == 0 ||
           fleet_set_error(error, job->name);
}

static CatalogMetadata *get_catalog(virDomainPtr domain, const char *name,
                                    GError **error)
{
    g_autoptr(DesktopMetadata) desktop = NULL;
    CatalogMetadata *catalog = NULL;
    char *xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE);
    bool read;

    if (!xml) {
        fleet_set_error(error, name);
        return NULL;
    }
    read = metadata_from_domain(xml, &desktop, &catalog, error);
    free(xml);
    if (read && !catalog) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "%s: it is the master of no catalog any more", name);
    }
    return catalog;
}

/* Somebody else may have changed another part since it was read */
static bool merge_catalog(virDomainPtr domain, DomainJob *job, GError **error)
{
    g_autoptr(CatalogMetadata) to = get_catalog(domain, job->name, error);
    g_autoptr(CatalogMetadata) from = to ? catalog_metadata_parse(job->metadata,
                                                                  error) : NULL;

    if (!from) {
        return false;
    }
    job->change(to, from);
    g_free(job->metadata);
    job->metadata = catalog_metadata_text(to);
    return true;
}

bool domain_job_set_metadata(virConnectPtr conn, void *data, GError **error)
{
    DomainJob *job = data;
    g_autoptr(virDomain) domain = fleet_domain(conn, job->uuid, error);
    unsigned flags = VIR_DOMAIN_AFFECT_CONFIG;

    return domain && (!job->change || merge_catalog(domain, job, error)) &&
           (virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                                 job->metadata, METADATA_PREFIX,
                                 METADATA_NAMESPACE, flags) == 0 ||
            fleet_set_error(error, job->name));
}

bool domain_job_get_xml(virConnectPtr conn, void *data, GError **error)
{
    DomainJob *job = data;
    g_autoptr(virDomain) domain = fleet_domain(conn, job->uuid, error);

    if (!domain) {
        return false;
    }
    job->running = virDomainIsActive(domain) > 0;
    job->xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE |
                                   VIR_DOMAIN_XML_SECURE);
    return job->xml || fleet_set_error(error, job->name);
}

bool domain_job_run_xml(virConnectPtr conn, void *data, GError **error)
{
    DomainJob *job = data;
    virDomainPtr started = virDomainCreateXML(conn, job->xml, 0);

    if (!started) {
        return fleet_set_error(error, job->name);
    }
    virDomainFree(started);
    return true;
}

bool domain_job_shutdown(virConnectPtr conn, void *data, GError **error)
{
    DomainJob *job = data;
    g_autoptr(virDomain) domain = fleet_domain(conn, job->uuid, error);

    return domain && (virDomainShutdown(domain) == 0 ||
                      fleet_set_error(error, job->name));
}

bool domain_job_destroy(virConnectPtr conn, void *data, GError **error)
{
    DomainJob *job = data;
    g_autoptr(virDomain) domain = fleet_domain(conn, job->uuid, error);

    return domain && (virDomainDestroy(domain) == 0 ||
                      fleet_set_error(error, job->name));
}

bool domain_job_state(virConnectPtr conn, void *data, GError **error)
{
    DomainJob *job = data;
    g_autoptr(virDomain) domain = fleet_domain(conn, job->uuid, error);
    int active = domain ? virDomainIsActive(domain) : -1;

    job->running = active > 0;
    return active >= 0 || (domain && fleet_set_error(error, job->name));
}

bool domain_qmp_taken(const char *answer, GError **error)
{
    g_autoptr(JsonObject) said = json_read_object(answer, strlen(answer), NULL);
    JsonObject *refused = member_object(said, "error");
    const char *why = refused ? member_string(refused, "desc") : NULL;

    if (refused) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                            why ? why : "QEMU refuses it");
    }
    return !refused;
}

bool domain_job_qmp(virConnectPtr conn, void *data, GError **error)
{
    DomainJob *job = data;
    g_autoptr(virDomain) domain = fleet_domain(conn, job->uuid, error);

    free(job->answer);
    job->answer = NULL;
    if (!domain) {
        return false;
    }
    if (virDomainQemuMonitorCommand(domain, job->command, &job->answer,
                                    0) < 0) {
        return fleet_set_error(error, job->name);
    }
    return domain_qmp_taken(job->answer, error);
}

DomainJob *domain_job_do(Fleet *fleet, guint host, FleetFunc *run,
                         DomainJob *job, GError **error)
{
    FleetAnswer a = { 0 };

    g_assert(!fleet_owed(fleet));
    fleet_post(fleet, host, 0, run, job, domain_job_free, job->patience_ms);
    fleet_next(fleet, &a, -1);
    if (a.error) {
        g_propagate_error(error, a.error);
        g_clear_pointer((DomainJob **)&a.job, domain_job_free);
    }
    return a.job;
}

bool domain_job_run(Fleet *fleet, guint host, FleetFunc *run, DomainJob *job,
                    GError **error)
{
    DomainJob *done = domain_job_do(fleet, host, run, job, error);
    bool ok = done != NULL;

    g_clear_pointer(&done, domain_job_free);
    return ok;
}

/*
 * The making of one desktop, on its host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "create-plan.h"
#include "host-file.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <libvirt/virterror.h>
#include <unistd.h>

void create_job_free(void *opaque)
{
    CreateJob *job = opaque;

    g_free(job->name);
    g_free(job->uuid);
    g_free(job->master);
    g_free(job->emulator);
    g_free(job->disk);
    g_free(job->identity_bus);
    g_free(job->nvram);
    desktop_metadata_free(job->metadata);
    identity_clear(&job->identity);
    g_free(job);
}

/* Names are looked up first: defining would change one that is there */
static bool is_free(virConnectPtr conn, const char *name, GError **error)
{
    virDomainPtr domain = virDomainLookupByName(conn, name);

    if (domain) {
        virDomainFree(domain);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                    "there is a domain of that name");
        return false;
    }
    return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ||
           fleet_set_error(error, name);
}

static bool write_local(CreateJob *job, GError **error)
{
    const char *path = job->metadata->identity;
    g_autofree char *folder = g_path_get_dirname(path);

    if (g_mkdir_with_parents(folder, 0711) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "cannot make the folder '%s': %s", folder,
                    g_strerror(errno));
        return false;
    }
    return identity_write(&job->identity, path, error);
}

/* Made here, and carried there by libvirt */
static bool write_far(virConnectPtr conn, CreateJob *job, GError **error)
{
    g_autofree char *folder = g_dir_make_tmp("deskcast-id-XXXXXX", error);
    g_autofree char *here = NULL;
    bool done;

    if (!folder) {
        return false;
    }
    here = g_build_filename(folder, "identity", NULL);
    done = identity_write(&job->identity, here, error) &&
           host_file_upload(conn, here, job->metadata->identity, error);
    unlink(here);
    rmdir(folder);
    return done;
}

static bool write_identity(virConnectPtr conn, CreateJob *job, GError **error)
{
    if (!job->metadata->identity) {
        return true;
    }
    job->identity.name = job->name;
    job->identity.uuid = job->uuid;
    if (job->host_keys && !identity_make_host_key(&job->identity, error)) {
        return false;
    }
    return job->local ? write_local(job, error) : write_far(conn, job, error);
}

/* Only one that was made here: write_identity() takes no other's place */
static void remove_identity(virConnectPtr conn, const CreateJob *job)
{
    if (!job->metadata->identity) {
        return;
    }
    if (job->local) {
        unlink(job->metadata->identity);
    } else {
        host_file_remove(conn, job->metadata->identity, NULL);
    }
}

bool create_job_run(virConnectPtr conn, void *opaque, GError **error)
{
    CreateJob *job = opaque;
    const DesktopPlan plan = {
        .name = job->name, .uuid = job->uuid, .emulator = job->emulator,
        .disk = job->disk, .identity_bus = job->identity_bus,
        .nvram = job->nvram, .metadata = job->metadata,
    };
    g_autofree char *xml = NULL;
    virDomainPtr domain;

    if (!is_free(conn, job->name, error)) {
        return false;
    }
    xml = desktop_xml(job->master, &plan, error);
    if (!xml || !write_identity(conn, job, error)) {
        return false;
    }
    domain = virDomainDefineXMLFlags(conn, xml, 0);
    if (!domain) {
        fleet_set_error(error, "libvirt does not take it");
        remove_identity(conn, job);
        return false;
    }
    virDomainFree(domain);
    return true;
}

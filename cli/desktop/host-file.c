/*
 * Small files on a host that is far away, by libvirt's storage volumes
 *
 * A volume needs a pool. Where the folder is no pool of the administrator's, one
 * is made that goes away again, and leaves what is in the folder alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-file.h"
#include "cli/host/fleet.h"
#include "xml-read.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Pool {
    virStoragePoolPtr pool;
    bool ours;
} Pool;

static bool is_pool_of(virStoragePoolPtr pool, const char *folder)
{
    char *xml = virStoragePoolGetXMLDesc(pool, 0);
    g_autoptr(XmlDoc) doc = xml ? xml_read(xml, XML_MAX_BYTES, NULL) : NULL;
    xmlNodePtr path = xml_child(doc ? xml_child(xmlDocGetRootElement(doc),
                                                "target") : NULL, "path");
    xmlChar *text = path ? xmlNodeGetContent(path) : NULL;
    bool is = text && !strcmp((char *)text, folder);

    xmlFree(text);
    free(xml);
    return is;
}

static virStoragePoolPtr find_pool(virConnectPtr conn, const char *folder)
{
    virStoragePoolPtr *pools = NULL, found = NULL;
    int n = virConnectListAllStoragePools(
        conn, &pools, VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE |
        VIR_CONNECT_LIST_STORAGE_POOLS_DIR);

    for (int i = 0; i < n; i++) {
        if (!found && is_pool_of(pools[i], folder)) {
            found = pools[i];
        } else {
            virStoragePoolFree(pools[i]);
        }
    }
    free(pools);
    return found;
}

/* A folder that is there keeps its mode: none is given */
static bool open_pool(virConnectPtr conn, const char *folder, Pool *p,
                      GError **error)
{
    g_autofree char *uuid = g_uuid_string_random();
    g_autofree char *xml = NULL;

    p->ours = false;
    p->pool = find_pool(conn, folder);
    if (p->pool) {
        return virStoragePoolRefresh(p->pool, 0) == 0 ||
               fleet_set_error(error, folder);
    }
    xml = g_markup_printf_escaped("<pool type='dir'><name>deskcast-%s</name>"
                                  "<target><path>%s</path></target></pool>",
                                  uuid, folder);
    p->pool = virStoragePoolCreateXML(conn, xml,
                                      VIR_STORAGE_POOL_CREATE_WITH_BUILD);
    p->ours = p->pool;
    return p->pool || fleet_set_error(error, folder);
}

static void close_pool(Pool *p)
{
    if (p->pool) {
        if (p->ours) {
            virStoragePoolDestroy(p->pool);
        }
        virStoragePoolFree(p->pool);
    }
}

static int read_file(virStreamPtr stream, char *buf, size_t bytes, void *opaque)
{
    return read(*(int *)opaque, buf, bytes);
}

static bool send_file(virConnectPtr conn, virStorageVolPtr volume, int fd,
                      uint64_t size, GError **error)
{
    virStreamPtr stream = virStreamNew(conn, 0);
    bool sent = stream &&
                virStorageVolUpload(volume, stream, 0, size, 0) == 0 &&
                virStreamSendAll(stream, read_file, &fd) == 0 &&
                virStreamFinish(stream) == 0;

    if (!sent) {
        fleet_set_error(error, "it does not take the file");
    }
    if (stream) {
        virStreamFree(stream);
    }
    return sent;
}

static bool upload(virConnectPtr conn, Pool *pool, const char *path, int fd,
                   GError **error)
{
    g_autofree char *name = g_path_get_basename(path);
    g_autofree char *xml = NULL;
    virStorageVolPtr volume;
    struct stat st;
    bool sent;

    if (fstat(fd, &st) < 0) {
        return fleet_set_error(error, path);
    }
    xml = g_markup_printf_escaped(
        "<volume><name>%s</name><capacity unit='bytes'>%" PRIu64 "</capacity>"
        "<target><format type='raw'/><permissions><mode>0600</mode>"
        "</permissions></target></volume>", name, (uint64_t)st.st_size);
    volume = virStorageVolCreateXML(pool->pool, xml, 0);
    if (!volume) {
        return fleet_set_error(error, path);
    }
    sent = send_file(conn, volume, fd, st.st_size, error);
    if (!sent) {
        virStorageVolDelete(volume, 0);
    }
    virStorageVolFree(volume);
    return sent;
}

bool host_file_upload(virConnectPtr conn, const char *here, const char *path,
                      GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    int fd = open(here, O_RDONLY | O_CLOEXEC);
    Pool pool = { 0 };
    bool sent = fd >= 0 && open_pool(conn, folder, &pool, error) &&
                upload(conn, &pool, path, fd, error);

    close_pool(&pool);
    if (fd >= 0) {
        close(fd);
    }
    return sent;
}

bool host_file_remove(virConnectPtr conn, const char *path, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    g_autofree char *name = g_path_get_basename(path);
    Pool pool = { 0 };
    virStorageVolPtr volume = NULL;
    bool removed = open_pool(conn, folder, &pool, error);

    if (removed) {
        volume = virStorageVolLookupByName(pool.pool, name);
        removed = volume ? virStorageVolDelete(volume, 0) == 0
                         : virGetLastErrorCode() == VIR_ERR_NO_STORAGE_VOL;
        if (!removed) {
            fleet_set_error(error, path);
        }
    }
    if (volume) {
        virStorageVolFree(volume);
    }
    close_pool(&pool);
    return removed;
}

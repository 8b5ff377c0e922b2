/*
 * Devices of a desktop: what its master has and cannot be shared
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "xml-parts.h"

#include <string.h>

/* From the UUID, so that the same desktop keeps its addresses; KVM's prefix */
static char *own_mac(const char *uuid, unsigned index)
{
    g_autofree char *seed = g_strdup_printf("%s/%u", uuid, index);
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    guint8 hash[32];
    gsize len = sizeof(hash);

    g_checksum_update(sum, (guchar *)seed, -1);
    g_checksum_get_digest(sum, hash, &len);
    return g_strdup_printf("52:54:00:%02x:%02x:%02x", hash[0], hash[1],
                           hash[2]);
}

static void own_interfaces(xmlNodePtr devices, const char *uuid)
{
    unsigned index = 0;

    for (xmlNodePtr n = xml_child(devices, "interface"); n;
         n = xml_next(n, "interface")) {
        g_autofree char *mac = own_mac(uuid, index++);

        xml_set(xml_need(n, "mac"), "address", mac);
        xml_remove(xml_child(n, "target"));
    }
}

/* libvirt chooses ports and sockets of its own */
static void own_graphics(xmlNodePtr devices)
{
    for (xmlNodePtr n = xml_child(devices, "graphics"); n;
         n = xml_next(n, "graphics")) {
        xmlNodePtr listen = xml_child(n, "listen");

        if (xmlHasProp(n, BAD_CAST "port") ||
            xmlHasProp(n, BAD_CAST "tlsPort")) {
            xml_set(n, "autoport", "yes");
        }
        xml_unset(n, "port");
        xml_unset(n, "tlsPort");
        xml_unset(n, "websocket");
        xml_unset(n, "socket");
        for (; listen; listen = xml_next(listen, "listen")) {
            xml_unset(listen, "socket");
        }
    }
}

/*
 * The master's path with the desktop's name for the master's in its last
 * component; NULL if the master's is not there.
 */
static char *own_path(const char *path, const char *master, const char *name)
{
    const char *slash = strrchr(path, '/');
    const char *found = slash ? strstr(slash, master) : NULL;

    return !found || !*master ? NULL :
           g_strdup_printf("%.*s%s%s", (int)(found - path), path, name,
                           found + strlen(master));
}

static void own_log(xmlNodePtr n, const char *master, const char *name)
{
    xmlNodePtr log = xml_child(n, "log");
    g_autofree char *file = xml_attribute(log, "file");
    g_autofree char *own = file ? own_path(file, master, name) : NULL;

    if (own) {
        xml_set(log, "file", own);
    } else {
        xml_remove(log);
    }
}

static void own_character_device(xmlNodePtr n, const char *master,
                                 const char *name)
{
    xmlNodePtr source = xml_child(n, "source");
    g_autofree char *path = xml_attribute(source, "path");
    g_autofree char *own = path ? own_path(path, master, name) : NULL;

    own_log(n, master, name);
    if (!path || xml_is(n, "type", "pty")) {
        xml_unset(n, "tty");
        xml_remove(path ? source : NULL);
    } else if (own) {
        xml_set(source, "path", own);
    } else if (!strcmp((char *)n->name, "channel")) {
        xml_remove(source);             /* libvirt makes one */
    } else {
        xml_set(n, "type", "pty");
        xml_remove(source);
    }
}

static void own_character_devices(xmlNodePtr devices, const char *master,
                                  const char *name)
{
    static const char *const kinds[] = { "serial", "console", "parallel",
                                         "channel" };

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        for (xmlNodePtr n = xml_child(devices, kinds[i]); n;
             n = xml_next(n, kinds[i])) {
            own_character_device(n, master, name);
        }
    }
}

/* An emulated TPM's state goes by the UUID, so it is the desktop's own */
static bool own_tpm(xmlNodePtr devices, GError **error)
{
    for (xmlNodePtr n = xml_child(devices, "tpm"); n; n = xml_next(n, "tpm")) {
        xmlNodePtr backend = xml_child(n, "backend");

        if (!xml_is(backend, "type", "emulator")) {
            return xml_fail(error, "the master has the host's own TPM, which "
                            "desktops cannot share: give it an emulated one "
                            "(<backend type='emulator'/>)");
        }
        xml_remove(xml_child(backend, "source"));
    }
    return true;
}

/* libvirt finds a free number for each */
static void own_vsock(xmlNodePtr devices)
{
    xmlNodePtr cid = xml_child(xml_child(devices, "vsock"), "cid");

    if (cid) {
        xml_set(cid, "auto", "yes");
        xml_unset(cid, "address");
    }
}

static bool check_host_devices(xmlNodePtr devices, GError **error)
{
    return !xml_child(devices, "hostdev") ||
           xml_fail(error, "the master has a device of its host (<hostdev>), "
                    "which desktops cannot share: take it out of the master");
}

static bool is_drive(xmlNodePtr disk)
{
    return xml_is(disk, "device", "cdrom") || xml_is(disk, "device", "floppy");
}

static bool own_other_disk(xmlNodePtr disk, GError **error)
{
    g_autofree char *target = xml_attribute(xml_child(disk, "target"), "dev");

    if (is_drive(disk)) {
        xml_remove(xml_child(disk, "source"));
        xml_remove(xml_child(disk, "backingStore"));
        return true;
    }
    if (xml_child(disk, "readonly") || xml_child(disk, "shareable")) {
        return true;
    }
    return xml_fail(error, "the master has a second disk, %s, which desktops "
                    "cannot share: take it out of the master, make it "
                    "read-only, or name the system disk with --disk",
                    target ?: "of no name");
}

static bool has_disk(xmlNodePtr devices, const char *target)
{
    for (xmlNodePtr n = xml_child(devices, "disk"); n;
         n = xml_next(n, "disk")) {
        if (xml_is(xml_child(n, "target"), "dev", target)) {
            return !is_drive(n);
        }
    }
    return false;
}

/* Except the system disk, which xml_own_disk() replaces */
static bool own_other_disks(xmlNodePtr devices, const DesktopPlan *plan,
                            GError **error)
{
    bool system_seen = false;

    if (plan->disk && !has_disk(devices, plan->disk)) {
        return xml_fail(error, "the master has no disk '%s'", plan->disk);
    }
    for (xmlNodePtr n = xml_child(devices, "disk"); n;
         n = xml_next(n, "disk")) {
        bool is_system = !is_drive(n) && (plan->disk
            ? xml_is(xml_child(n, "target"), "dev", plan->disk)
            : !system_seen);

        system_seen |= is_system;
        if (!is_system && !own_other_disk(n, error)) {
            return false;
        }
    }
    return true;
}

bool xml_own_devices(xmlNodePtr devices, const char *master,
                     const DesktopPlan *plan, GError **error)
{
    own_interfaces(devices, plan->uuid);
    own_graphics(devices);
    own_character_devices(devices, master, plan->name);
    own_vsock(devices);
    return check_host_devices(devices, error) && own_tpm(devices, error) &&
           own_other_disks(devices, plan, error);
}

/*
 * The domain that a master VM runs as while it is updated
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "update-xml.h"

#include "cli/desktop/xml-parts.h"

#include <string.h>

static xmlNodePtr open_domain(const char *xml, XmlDoc **doc, GError **error)
{
    xmlNodePtr root;

    *doc = xml_read(xml, XML_MAX_BYTES, error);
    root = *doc ? xmlDocGetRootElement(*doc) : NULL;
    if (*doc && (!root || strcmp((char *)root->name, "domain") ||
                 !xml_child(root, "devices"))) {
        xml_fail(error, "the master is no domain with devices");
        return NULL;
    }
    return root;
}

static bool is_hard_disk(xmlNodePtr n)
{
    return !xml_is(n, "device", "cdrom") && !xml_is(n, "device", "floppy") &&
           !xml_is(n, "device", "lun");
}

/* A master with two disks and no word of which is not guessed at */
static xmlNodePtr find_disk(xmlNodePtr devices, const char *target,
                            GError **error)
{
    xmlNodePtr found = NULL;

    for (xmlNodePtr n = xml_child(devices, "disk"); n;
         n = xml_next(n, "disk")) {
        if (!is_hard_disk(n) ||
            (target && !xml_is(xml_child(n, "target"), "dev", target))) {
            continue;
        }
        if (found) {
            xml_fail(error, "the master has several disks: say by --disk "
                     "which is the system's");
            return NULL;
        }
        found = n;
    }
    if (!found) {
        xml_fail(error, "the master has no %s%s", target ? "disk " : "disk",
                 target ? target : "");
    }
    return found;
}

/* <source> of one image, with its format, below @parent */
static void set_source(xmlNodePtr parent, const char *path)
{
    xmlNodePtr source;

    xml_remove(xml_child(parent, "source"));
    source = xml_add(parent, "source");
    xml_set(source, "file", path);
}

/* All that is below is said: libvirt looks into no header then */
static void set_chain(xmlNodePtr disk, char **paths, char **formats)
{
    xmlNodePtr node = disk;

    xml_remove(xml_child(disk, "backingStore"));
    for (int i = 0; paths[i]; i++) {
        if (i) {
            node = xml_add(node, "backingStore");
            xml_set(node, "type", "file");
            xml_set(xml_add(node, "format"), "type", formats[i]);
        }
        set_source(node, paths[i]);
    }
    xml_add(node, "backingStore");
}

char *update_xml_mcs(const char *master, const char *target, char **paths,
                     char **formats, GError **error)
{
    g_autoptr(XmlDoc) doc = NULL;
    xmlNodePtr root = open_domain(master, &doc, error);
    xmlNodePtr disk = root ? find_disk(xml_child(root, "devices"), target,
                                       error) : NULL;
    xmlNodePtr driver;

    if (!disk) {
        return NULL;
    }
    xml_set(disk, "type", "file");
    driver = xml_need(disk, "driver");
    xml_set(driver, "name", "qemu");
    xml_set(driver, "type", formats[0]);
    xml_remove(xml_child(disk, "readonly"));
    xml_remove(xml_child(disk, "mirror"));
    set_chain(disk, paths, formats);
    return xml_text(root);
}

char *update_xml_pvs(const char *master, const char *target,
                     const DesktopMetadata *d, const char *emulator,
                     GError **error)
{
    g_autoptr(XmlDoc) doc = NULL;
    xmlNodePtr root = open_domain(master, &doc, error);
    xmlNodePtr devices = root ? xml_child(root, "devices") : NULL;
    DesktopPlan plan = {
        .emulator = emulator,
        .disk = target,
        .metadata = d,
    };

    if (!root || !find_disk(devices, target, error) ||
        !xml_own_metadata(root, &plan, error) ||
        !xml_own_disk(root, devices, &plan, error)) {
        return NULL;
    }
    return xml_text(root);
}

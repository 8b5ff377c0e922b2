/*
 * A desktop's disks: its own, in QEMU or behind vhost-user, and its identity
 *
 * In QEMU, libvirt does not know of the disk: it stands in <qemu:commandline>,
 * with a monitor of ours beside it. The device gets a PCI slot that libvirt
 * has not given away; it gives them from below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "blockdev.h"
#include "xml-parts.h"

#include <json-glib/json-glib.h>
#include <stdlib.h>
#include <string.h>

#define QEMU_NAMESPACE  "http://libvirt.org/schemas/domain/qemu/1.0"
#define OUR_ID          "deskcast-"     /* begins the ids of our devices */
#define LAST_BOOT       100
#define HIGHEST_SLOT    0x19            /* above are the chipset's own */

static bool is_our_argument(const char *option, const char *value)
{
    g_autoptr(JsonNode) root = NULL;
    const char *driver = NULL;

    if (strstr(value, "id=" OUR_ID) || strstr(value, "=" OUR_ID) ||
        strstr(value, "\"" OUR_ID)) {
        return true;
    }
    if (strcmp(option, "-blockdev") != 0) {
        return false;
    }
    root = json_from_string(value, NULL);
    if (root && JSON_NODE_HOLDS_OBJECT(root)) {
        driver = json_object_get_string_member_with_default(
            json_node_get_object(root), "driver", NULL);
    }
    return driver && (!strcmp(driver, "mcs") || !strcmp(driver, "pvs"));
}

static bool is_qemu(xmlNodePtr n, const char *name)
{
    return n && n->type == XML_ELEMENT_NODE && n->ns &&
           !strcmp((char *)n->ns->href, QEMU_NAMESPACE) &&
           !strcmp((char *)n->name, name);
}

static xmlNodePtr find_command_line(xmlNodePtr root)
{
    for (xmlNodePtr n = root->children; n; n = n->next) {
        if (is_qemu(n, "commandline")) {
            return n;
        }
    }
    return NULL;
}

/* Of a master that runs on a disk of ours while it is updated */
static bool remove_our_arguments(xmlNodePtr root)
{
    xmlNodePtr n = xml_child(find_command_line(root), "arg"), next;
    bool found = false;

    for (; n; n = next) {
        xmlNodePtr second = xml_next(n, "arg");
        g_autofree char *option = xml_attribute(n, "value");
        g_autofree char *value = xml_attribute(second, "value");

        next = second;
        if (option && value && is_our_argument(option, value)) {
            next = xml_next(second, "arg");
            xml_remove(n);
            xml_remove(second);
            found = true;
        }
    }
    return found;
}

static xmlNodePtr command_line(xmlNodePtr root)
{
    xmlNodePtr n = find_command_line(root);
    xmlNsPtr ns;

    if (n) {
        return n;
    }
    ns = xmlSearchNsByHref(root->doc, root, BAD_CAST QEMU_NAMESPACE) ?:
         xmlNewNs(root, BAD_CAST QEMU_NAMESPACE, BAD_CAST "qemu");
    return xmlNewChild(root, ns, BAD_CAST "commandline", NULL);
}

static void add_argument(xmlNodePtr line, const char *option,
                         const char *value)
{
    const char *const both[] = { option, value };

    for (size_t i = 0; i < G_N_ELEMENTS(both); i++) {
        xmlNodePtr arg = xmlNewChild(line, line->ns, BAD_CAST "arg", NULL);

        xml_set(arg, "value", both[i]);
    }
}

static void collect_slots(xmlNodePtr node, guint32 *used)
{
    for (; node; node = node->next) {
        g_autofree char *slot = NULL;

        if (node->type != XML_ELEMENT_NODE) {
            continue;
        }
        if (!strcmp((char *)node->name, "address") &&
            (xml_is(node, "bus", "0x00") || xml_is(node, "bus", "0"))) {
            slot = xml_attribute(node, "slot");
            *used |= slot ? 1u << (strtoul(slot, NULL, 0) & 31) : 0;
        }
        collect_slots(node->children, used);
    }
}

/* -1: none is free */
static int free_slot(xmlNodePtr devices)
{
    guint32 used = 0;

    collect_slots(devices->children, &used);
    for (int slot = HIGHEST_SLOT; slot > 2; slot--) {
        if (!(used & 1u << slot)) {
            return slot;
        }
    }
    return -1;
}

static bool is_q35(xmlNodePtr root)
{
    g_autofree char *machine =
        xml_attribute(xml_child(xml_child(root, "os"), "type"), "machine");

    return !machine || strstr(machine, "q35");
}

static char *device_argument(const DesktopMetadata *d, bool q35, int slot,
                             const char *boot)
{
    return g_strdup_printf(
        "{\"driver\":\"virtio-blk-pci\",\"id\":\"" OUR_ID "disk\","
        "\"drive\":\"%s\",\"iothread\":\"" OUR_ID "io\","
        "\"bus\":\"%s\",\"addr\":\"0x%x\",\"bootindex\":%s,"
        "\"rerror\":\"stop\",\"werror\":\"stop\"}",
        d->node, q35 ? "pcie.0" : "pci.0", slot, boot);
}

static bool in_process(xmlNodePtr root, xmlNodePtr devices,
                       const DesktopPlan *plan, const char *boot,
                       GError **error)
{
    const DesktopMetadata *d = plan->metadata;
    g_autofree char *disk = desktop_blockdev(d, error);
    g_autofree char *tls = desktop_tls_object(d);
    g_autofree char *device = NULL, *chardev = NULL;
    int slot = free_slot(devices);
    xmlNodePtr line;

    if (!disk) {
        return false;
    }
    if (slot < 0) {
        return xml_fail(error, "the master has a device in each PCI slot of "
                        "its first bus: take one out");
    }
    device = device_argument(d, is_q35(root), slot, boot);
    chardev = g_strdup_printf("socket,id=" OUR_ID "qmp,path=%s,server=on,"
                              "wait=off", d->monitor);
    xml_set_content(xml_need(devices, "emulator"), plan->emulator);
    line = command_line(root);
    if (tls) {
        add_argument(line, "-object", tls);
    }
    add_argument(line, "-object", "{\"qom-type\":\"iothread\",\"id\":\"" OUR_ID
                 "io\"}");
    add_argument(line, "-blockdev", disk);
    add_argument(line, "-device", device);
    add_argument(line, "-chardev", chardev);
    add_argument(line, "-mon", "chardev=" OUR_ID "qmp,mode=control");
    return true;
}

static void vhost_user(xmlNodePtr devices, const DesktopPlan *plan,
                       const char *target, const char *boot)
{
    xmlNodePtr disk = xml_add(devices, "disk"), node;
    g_autofree char *path = desktop_vhost_path(plan->name);

    xml_set(disk, "type", "vhostuser");
    xml_set(disk, "device", "disk");
    node = xml_add(disk, "driver");
    xml_set(node, "name", "qemu");
    xml_set(node, "type", "raw");
    node = xml_add(disk, "source");
    xml_set(node, "type", "unix");
    xml_set(node, "path", path);
    node = xml_add(node, "reconnect");
    xml_set(node, "enabled", "yes");
    xml_set(node, "timeout", "1");
    node = xml_add(disk, "target");
    xml_set(node, "dev", target);
    xml_set(node, "bus", "virtio");
    xml_set(xml_add(disk, "boot"), "order", boot);
}

static bool target_used(xmlNodePtr devices, const char *target)
{
    for (xmlNodePtr n = xml_child(devices, "disk"); n;
         n = xml_next(n, "disk")) {
        if (xml_is(xml_child(n, "target"), "dev", target)) {
            return true;
        }
    }
    return false;
}

static char *free_target(xmlNodePtr devices, const char *prefix)
{
    for (int c = 'a'; c <= 'z'; c++) {
        g_autofree char *target = g_strdup_printf("%s%c", prefix, c);

        if (!target_used(devices, target)) {
            return g_steal_pointer(&target);
        }
    }
    return NULL;
}

static bool has_scsi(xmlNodePtr devices)
{
    for (xmlNodePtr n = xml_child(devices, "controller"); n;
         n = xml_next(n, "controller")) {
        if (xml_is(n, "type", "scsi")) {
            return true;
        }
    }
    return false;
}

/* A CD, which both cloud-init and cloudbase-init look for, and Windows' setup */
static bool add_identity(xmlNodePtr root, xmlNodePtr devices,
                         const DesktopPlan *plan, GError **error)
{
    const char *bus = plan->identity_bus ?: is_q35(root) ? "sata" : "ide";
    g_autofree char *target =
        free_target(devices, !strcmp(bus, "ide") ? "hd" : "sd");
    xmlNodePtr disk, node;

    if (!target) {
        return xml_fail(error, "the master has no room for a CD drive more");
    }
    if (!strcmp(bus, "scsi") && !has_scsi(devices)) {
        node = xml_add(devices, "controller");
        xml_set(node, "type", "scsi");
        xml_set(node, "model", "virtio-scsi");
    }
    disk = xml_add(devices, "disk");
    xml_set(disk, "type", "file");
    xml_set(disk, "device", "cdrom");
    node = xml_add(disk, "driver");
    xml_set(node, "name", "qemu");
    xml_set(node, "type", "raw");
    xml_set(xml_add(disk, "source"), "file", plan->metadata->identity);
    node = xml_add(disk, "target");
    xml_set(node, "dev", target);
    xml_set(node, "bus", bus);
    xml_add(disk, "readonly");
    return true;
}

/*
 * libvirt numbers devices by the <boot> elements of <os>, and knows nothing of
 * a disk on the command line: so all get numbers of their own here. NULL: the
 * master had them already.
 */
static char *boot_position(xmlNodePtr root)
{
    xmlNodePtr os = xml_child(root, "os"), boot = xml_child(os, "boot"), next;
    xmlNodePtr nic = xml_child(xml_child(root, "devices"), "interface");
    unsigned place = 0, disk = 0;

    for (; boot; boot = next) {
        next = xml_next(boot, "boot");
        if (xml_is(boot, "dev", "hd")) {
            disk = ++place;
        } else if (xml_is(boot, "dev", "network") && nic) {
            g_autofree char *order = g_strdup_printf("%u", ++place);

            xml_set(xml_need(nic, "boot"), "order", order);
        }
        xml_remove(boot);
    }
    return g_strdup_printf("%u", disk ?: place + 1);
}

/* Behind all others, but numbered: else libvirt takes one for the first disk */
static void boot_last(xmlNodePtr devices)
{
    unsigned order = LAST_BOOT;

    for (xmlNodePtr n = xml_child(devices, "disk"); n;
         n = xml_next(n, "disk")) {
        g_autofree char *text = g_strdup_printf("%u", order);

        if (!xml_child(n, "boot")) {
            xml_set(xml_add(n, "boot"), "order", text);
            order++;
        }
    }
}

static xmlNodePtr system_disk(xmlNodePtr devices, const DesktopPlan *plan)
{
    for (xmlNodePtr n = xml_child(devices, "disk"); n;
         n = xml_next(n, "disk")) {
        if (plan->disk ? xml_is(xml_child(n, "target"), "dev", plan->disk)
                       : !xml_is(n, "device", "cdrom") &&
                         !xml_is(n, "device", "floppy")) {
            return n;
        }
    }
    return NULL;
}

bool xml_own_disk(xmlNodePtr root, xmlNodePtr devices, const DesktopPlan *plan,
                  GError **error)
{
    xmlNodePtr old = system_disk(devices, plan);
    g_autofree char *target = xml_attribute(xml_child(old, "target"), "dev");
    g_autofree char *boot = xml_attribute(xml_child(old, "boot"), "order");
    bool ours = remove_our_arguments(root);

    if (!old && !ours) {
        return xml_fail(error, "the master has no disk that desktops could "
                        "run from");
    }
    xml_remove(old);
    if (!boot) {
        boot = boot_position(root);
    }
    if (!target || target_used(devices, target) ||
        !g_str_has_prefix(target, "vd")) {
        g_free(target);
        target = free_target(devices, "vd");
    }
    if (plan->metadata->run == RUN_VHOST_USER) {
        vhost_user(devices, plan, target, boot);
    } else if (!in_process(root, devices, plan, boot, error)) {
        return false;
    }
    if (plan->metadata->identity &&
        !add_identity(root, devices, plan, error)) {
        return false;
    }
    boot_last(devices);
    return true;
}

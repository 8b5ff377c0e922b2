/*
 * The domain of a desktop, made from that of its master VM
 *
 *   xml.c          the whole: name, metadata, firmware
 *   xml-devices.c  what the master has and desktops cannot share
 *   xml-disk.c     the desktop's own disk, in QEMU or behind vhost-user
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "xml-parts.h"

#include <libxml/parser.h>
#include <string.h>

bool desktop_name_valid(const char *name, GError **error)
{
    size_t len = strlen(name);
    bool plain = len && len <= DESKTOP_NAME_CHARS;

    for (size_t i = 0; plain && i < len; i++) {
        plain = g_ascii_isalnum(name[i]) ||
                (name[i] == '-' && i && i + 1 < len);
    }
    if (!plain) {
        g_autofree char *shown = g_utf8_make_valid(name, MIN(len, 100));

        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "'%s' cannot be a desktop's name, which is its host name "
                    "too: 1 to %d letters, digits and '-', neither first nor "
                    "last", shown, DESKTOP_NAME_CHARS);
    }
    return plain;
}

char *desktop_monitor_path(const char *name)
{
    return g_build_filename(DESKTOP_RUN_DIR, name, "qmp", NULL);
}

char *desktop_vhost_path(const char *name)
{
    return g_build_filename(DESKTOP_RUN_DIR, name, "vhost", NULL);
}

bool xml_fail(GError **error, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, text);
    return false;
}

xmlNodePtr xml_next(xmlNodePtr node, const char *name)
{
    for (node = node ? node->next : NULL; node; node = node->next) {
        if (node->type == XML_ELEMENT_NODE &&
            !strcmp((char *)node->name, name)) {
            return node;
        }
    }
    return NULL;
}

void xml_remove(xmlNodePtr node)
{
    if (node) {
        xmlUnlinkNode(node);
        xmlFreeNode(node);
    }
}

void xml_set(xmlNodePtr node, const char *name, const char *value)
{
    xmlSetProp(node, BAD_CAST name, BAD_CAST value);
}

void xml_unset(xmlNodePtr node, const char *name)
{
    xmlUnsetProp(node, BAD_CAST name);
}

bool xml_is(xmlNodePtr node, const char *name, const char *value)
{
    g_autofree char *has = xml_attribute(node, name);

    return has && !strcmp(has, value);
}

xmlNodePtr xml_add(xmlNodePtr parent, const char *name)
{
    return xmlNewChild(parent, NULL, BAD_CAST name, NULL);
}

xmlNodePtr xml_need(xmlNodePtr parent, const char *name)
{
    return xml_child(parent, name) ?: xml_add(parent, name);
}

void xml_set_content(xmlNodePtr node, const char *text)
{
    xmlNodeSetContent(node, NULL);
    xmlNodeAddContent(node, BAD_CAST text);
}

char *xml_content(xmlNodePtr node)
{
    xmlChar *content = node ? xmlNodeGetContent(node) : NULL;
    char *text = g_strdup(content ? (char *)content : "");

    xmlFree(content);
    return text;
}

static void name_it(xmlNodePtr root, const DesktopPlan *plan)
{
    xmlNodePtr entry;

    xml_unset(root, "id");
    xml_set_content(xml_need(root, "name"), plan->name);
    xml_set_content(xml_need(root, "uuid"), plan->uuid);
    xml_remove(xml_child(root, "title"));
    if (xml_child(root, "genid")) {
        xml_set_content(xml_child(root, "genid"), "");
    }
    entry = xml_child(xml_child(xml_child(root, "sysinfo"), "system"), "entry");
    while (entry) {
        xmlNodePtr next = xml_next(entry, "entry");

        if (xml_is(entry, "name", "uuid")) {
            xml_remove(entry);
        }
        entry = next;
    }
}

static void remove_ours(xmlNodePtr metadata)
{
    xmlNodePtr next;

    for (xmlNodePtr n = metadata->children; n; n = next) {
        next = n->next;
        if (n->ns && !strcmp((char *)n->ns->href, METADATA_NAMESPACE)) {
            xml_remove(n);
        }
    }
}

static void set_namespace(xmlNodePtr node, xmlNsPtr ns)
{
    for (; node; node = node->next) {
        if (node->type == XML_ELEMENT_NODE) {
            xmlSetNs(node, ns);
            set_namespace(node->children, ns);
        }
    }
}

/* What is written must be what is read: paths came from a command line */
bool xml_own_metadata(xmlNodePtr root, const DesktopPlan *plan, GError **error)
{
    xmlNodePtr metadata = xml_need(root, "metadata"), node;
    g_autofree char *text = desktop_metadata_text(plan->metadata);
    g_autoptr(DesktopMetadata) again = desktop_metadata_parse(text, error);
    g_autoptr(XmlDoc) doc = NULL;

    if (!again) {
        return false;
    }
    doc = xml_read(text, METADATA_MAX_BYTES, error);
    if (!doc) {
        return false;
    }
    remove_ours(metadata);
    node = xmlDocCopyNode(xmlDocGetRootElement(doc), root->doc, 1);
    xmlAddChild(metadata, node);
    xmlSetNs(node, xmlNewNs(node, BAD_CAST METADATA_NAMESPACE,
                            BAD_CAST METADATA_PREFIX));
    set_namespace(node->children, node->ns);
    return true;
}

/*
 * UEFI variables: a file of its own, which libvirt makes at the first start
 * from the master's. So a desktop knows what the master boots and trusts.
 */
static void own_nvram(xmlNodePtr root, const DesktopPlan *plan)
{
    xmlNodePtr os = xml_child(root, "os"), nvram = xml_child(os, "nvram");
    g_autofree char *path = xml_content(nvram);

    if (!nvram) {
        return;
    }
    if (*path == '/') {
        xml_set(nvram, "template", path);
        /* libvirt takes no template of ours while it chooses by itself */
        xml_unset(os, "firmware");
        xml_remove(xml_child(os, "firmware"));
    }
    xml_set_content(nvram, plan->nvram ?: "");
}

static void shared_memory(xmlNodePtr root)
{
    xmlNodePtr memory = xml_need(root, "memoryBacking");

    if (!xml_child(memory, "hugepages")) {
        xml_set(xml_need(memory, "source"), "type", "memfd");
    }
    xml_set(xml_need(memory, "access"), "mode", "shared");
}

static bool change(xmlNodePtr root, const DesktopPlan *plan, GError **error)
{
    xmlNodePtr devices = xml_child(root, "devices");
    g_autofree char *master = xml_content(xml_child(root, "name"));

    if (!xml_is(root, "type", "kvm") && !xml_is(root, "type", "qemu")) {
        return xml_fail(error, "the master is no domain of QEMU");
    }
    if (!devices) {
        return xml_fail(error, "the master has no devices");
    }
    name_it(root, plan);
    own_nvram(root, plan);
    if (plan->metadata->run == RUN_VHOST_USER) {
        shared_memory(root);
    }
    return xml_own_metadata(root, plan, error) &&
           xml_own_devices(devices, master, plan, error) &&
           xml_own_disk(root, devices, plan, error);
}

char *desktop_xml(const char *master, const DesktopPlan *plan, GError **error)
{
    g_autoptr(XmlDoc) doc = NULL;
    xmlNodePtr root;

    if (!desktop_name_valid(plan->name, error)) {
        return NULL;
    }
    doc = xml_read(master, XML_MAX_BYTES, error);
    root = doc ? xmlDocGetRootElement(doc) : NULL;
    if (doc && (!root || strcmp((char *)root->name, "domain"))) {
        xml_fail(error, "not the XML of a domain");
        return NULL;
    }
    return root && change(root, plan, error) ? xml_text(root) : NULL;
}

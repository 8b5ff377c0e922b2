/*
 * What libvirt's domain metadata says of a desktop, a catalog or an update
 *
 * Everything stands in attributes, and one table for each kind of element says
 * which there are. Reading is strict: what is not in the table was misspelt, or
 * written by a newer deskcast, and would be lost at the next change.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "metadata-field.h"

#include <string.h>

#define FORMAT          "1"     /* of the element; more is newer than we are */

static void field_error(GError **error, const MetadataField *f,
                        const char *value, const char *must)
{
    g_autofree char *shown = g_utf8_make_valid(value, strnlen(value, 200));

    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                "domain metadata: attribute '%s'%s%s%s is '%s', and must be %s",
                f->name, f->element ? " of '" : "", f->element ?: "",
                f->element ? "'" : "", shown, must);
}

static bool set_field(const MetadataField *f, void *object, const char *value,
                      GError **error)
{
    const char *must = metadata_field_set(f, object, value);

    if (must) {
        field_error(error, f, value, must);
    }
    return !must;
}

/* The name of an element of ours: without a namespace is how libvirt gives it */
static bool ours(xmlNodePtr node)
{
    return node->type == XML_ELEMENT_NODE &&
           (!node->ns || !strcmp((char *)node->ns->href, METADATA_NAMESPACE));
}

static bool set_error_at(GError **error, xmlNodePtr node, const char *what,
                         const char *of)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                "domain metadata: %s '%.100s' in element '%.100s'", what, of,
                (const char *)node->name);
    return false;
}

static bool read_attribute(const MetadataField *fields, xmlNodePtr node,
                           const char *element, xmlAttrPtr attribute,
                           void *object, GError **error)
{
    const char *name = (const char *)attribute->name;
    g_autofree char *value = NULL;
    xmlChar *text;

    for (; fields->name; fields++) {
        if (!g_strcmp0(fields->element, element) &&
            !strcmp(fields->name, name)) {
            text = xmlNodeListGetString(node->doc, attribute->children, 1);
            value = g_strdup(text ? (char *)text : "");
            xmlFree(text);
            return set_field(fields, object, value, error);
        }
    }
    return set_error_at(error, node, "unknown attribute", name);
}

static bool read_attributes(const MetadataField *fields, xmlNodePtr node,
                            const char *element, void *object, GError **error)
{
    for (xmlAttrPtr a = node->properties; a; a = a->next) {
        if (!element && !strcmp((char *)a->name, "format")) {
            continue;                   /* read_format() did */
        }
        if (a->ns || !read_attribute(fields, node, element, a, object, error)) {
            return a->ns ? set_error_at(error, node, "foreign attribute",
                                        (char *)a->name) : false;
        }
    }
    return true;
}

static bool element_known(const MetadataField *fields, const char *name)
{
    for (; fields->name; fields++) {
        if (!g_strcmp0(fields->element, name)) {
            return true;
        }
    }
    return false;
}

/* Only a store can be there more than once */
static bool seen_before(xmlNodePtr node)
{
    if (!strcmp((char *)node->name, "source")) {
        return false;
    }
    for (xmlNodePtr n = node->prev; n; n = n->prev) {
        if (n->type == XML_ELEMENT_NODE && xmlStrEqual(n->name, node->name)) {
            return true;
        }
    }
    return false;
}

static bool read_child(const MetadataField *fields, xmlNodePtr node,
                       void *object, GError **error)
{
    const char *name = (const char *)node->name;

    if (!ours(node) || !element_known(fields, name)) {
        return set_error_at(error, node->parent, "unknown element", name);
    }
    if (seen_before(node)) {
        return set_error_at(error, node->parent, "a second element", name);
    }
    if (node->children) {
        return set_error_at(error, node, "content of", name);
    }
    return read_attributes(fields, node, name, object, error);
}

static bool read_format(xmlNodePtr node, GError **error)
{
    g_autofree char *format = NULL;
    xmlChar *text = xmlGetNoNsProp(node, BAD_CAST "format");

    format = g_strdup(text ? (char *)text : "");
    xmlFree(text);
    if (!strcmp(format, FORMAT)) {
        return true;
    }
    if (*format >= '1' && *format <= '9' && strlen(format) < 10 &&
        strspn(format, "0123456789") == strlen(format)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "domain metadata of format %s was written by a newer "
                    "deskcast: use that one", format);
        return false;
    }
    return set_error_at(error, node, "no attribute", "format");
}

static bool read_element(const MetadataField *fields, xmlNodePtr node,
                         void *object, GError **error)
{
    if (!read_format(node, error) ||
        !read_attributes(fields, node, NULL, object, error)) {
        return false;
    }
    for (xmlNodePtr n = node->children; n; n = n->next) {
        if (n->type == XML_COMMENT_NODE || xmlIsBlankNode(n)) {
            continue;
        }
        if (n->type != XML_ELEMENT_NODE) {
            return set_error_at(error, node, "text in", (char *)node->name);
        }
        if (!read_child(fields, n, object, error)) {
            return false;
        }
    }
    return true;
}

static bool set_missing(GError **error, const char *what)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                "domain metadata: %s", what);
    return false;
}

static bool version_fits(const WantedVersion *v, DesktopModel model,
                         const char *which, GError **error)
{
    const char *bad = NULL;

    if (!v->number) {
        bad = v->size || v->root || v->image || v->format
              ? "has no number" : NULL;
    } else if (!v->size) {
        bad = "has no size";
    } else if (model == MODEL_MCS && (!v->image || !v->format || v->root)) {
        bad = "is of model mcs: it needs image and format, and no root";
    } else if (model == MODEL_PVS && (v->image || v->format)) {
        bad = "is of model pvs: it has no image and no format";
    } else if (model == MODEL_PVS && v->size % 4096) {
        bad = "has a size that is no multiple of 4096";
    }
    if (bad) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "domain metadata: the %s version %s", which, bad);
    }
    return !bad;
}

static const char *lifetime_wrong(DesktopModel model, DesktopLifetime lifetime)
{
    if (model == MODEL_MCS && lifetime == LIFETIME_PRIVATE) {
        return "lifetime 'private' needs model 'pvs'";
    }
    if (model == MODEL_PVS && lifetime == LIFETIME_DEDICATED) {
        return "lifetime 'dedicated' needs model 'mcs'";
    }
    return NULL;
}

static bool desktop_complete(const DesktopMetadata *d, GError **error)
{
    const char *bad = NULL;

    if (!d->catalog || !d->vdisk || !d->model || !d->lifetime || !d->run) {
        bad = "a desktop needs catalog, vdisk, model, lifetime and run";
    } else if (!d->disk || !d->node || !d->monitor) {
        bad = "a desktop needs a disk with path and node, and a monitor";
    } else if (d->lifetime == LIFETIME_PRIVATE && !d->journal) {
        bad = "a private desktop needs a journal";
    } else if (d->lifetime != LIFETIME_PRIVATE && d->journal) {
        bad = "only a private desktop has a journal";
    } else if (d->model == MODEL_MCS && (d->stores || d->host_cache)) {
        bad = "a desktop of model mcs has no source and no host cache";
    } else if (d->model == MODEL_PVS && d->run == RUN_VHOST_USER &&
               !d->stores) {
        bad = "a desktop of model pvs with run vhost-user needs a source";
    } else {
        bad = lifetime_wrong(d->model, d->lifetime);
    }
    return bad ? set_missing(error, bad)
               : version_fits(&d->wanted, d->model, "wanted", error) &&
                 version_fits(&d->previous, d->model, "previous", error);
}

static bool catalog_complete(const CatalogMetadata *c, GError **error)
{
    const char *bad = NULL;

    if (!c->catalog || !c->vdisk || !c->model || !c->lifetime || !c->run) {
        bad = "a catalog needs name, vdisk, model, lifetime and run";
    } else if (!c->store || !c->folder) {
        bad = "a catalog needs a store and a folder";
    } else if (c->model == MODEL_PVS && !c->stores) {
        bad = "a catalog of model pvs needs a source at least";
    } else if (c->model == MODEL_MCS && (c->stores || c->host_cache)) {
        bad = "a catalog of model mcs has no source and no host cache";
    } else if (c->back_released && !c->back) {
        bad = "what was gone back from needs a version";
    } else {
        bad = lifetime_wrong(c->model, c->lifetime);
    }
    return bad ? set_missing(error, bad) : true;
}

static DesktopMetadata *read_desktop(xmlNodePtr node, GError **error)
{
    g_autoptr(DesktopMetadata) d = g_new0(DesktopMetadata, 1);

    return read_element(metadata_desktop_fields, node, d, error) &&
           desktop_complete(d, error) ? g_steal_pointer(&d) : NULL;
}

static CatalogMetadata *read_catalog(xmlNodePtr node, GError **error)
{
    g_autoptr(CatalogMetadata) c = g_new0(CatalogMetadata, 1);

    return read_element(metadata_catalog_fields, node, c, error) &&
           catalog_complete(c, error) ? g_steal_pointer(&c) : NULL;
}

static bool is_root(xmlDocPtr doc, const char *name, GError **error)
{
    xmlNodePtr root = xmlDocGetRootElement(doc);

    if (root && ours(root) && !strcmp((char *)root->name, name)) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                "domain metadata: not our element '%s'", name);
    return false;
}

DesktopMetadata *desktop_metadata_parse(const char *xml, GError **error)
{
    g_autoptr(XmlDoc) doc = xml_read(xml, METADATA_MAX_BYTES, error);

    return doc && is_root(doc, "desktop", error)
           ? read_desktop(xmlDocGetRootElement(doc), error) : NULL;
}

CatalogMetadata *catalog_metadata_parse(const char *xml, GError **error)
{
    g_autoptr(XmlDoc) doc = xml_read(xml, METADATA_MAX_BYTES, error);

    return doc && is_root(doc, "catalog", error)
           ? read_catalog(xmlDocGetRootElement(doc), error) : NULL;
}

static bool has_namespace(xmlNodePtr node)
{
    return node->type == XML_ELEMENT_NODE && node->ns &&
           !strcmp((char *)node->ns->href, METADATA_NAMESPACE);
}

/* NULL: there is none, or with @error set more than one */
static xmlNodePtr find_element(xmlNodePtr root, GError **error)
{
    xmlNodePtr found = NULL;

    for (xmlNodePtr n = xml_child(root, "metadata"); n; n = n->next) {
        if (n->type != XML_ELEMENT_NODE ||
            strcmp((char *)n->name, "metadata")) {
            continue;
        }
        for (xmlNodePtr m = n->children; m; m = m->next) {
            if (has_namespace(m) && found) {
                set_missing(error, "more than one element of ours");
                return NULL;
            }
            found = has_namespace(m) ? m : found;
        }
    }
    return found;
}

static bool read_found(xmlNodePtr node, DesktopMetadata **desktop,
                       CatalogMetadata **catalog, GError **error)
{
    const char *name = (const char *)node->name;

    if (!strcmp(name, "desktop")) {
        *desktop = read_desktop(node, error);
        return *desktop != NULL;
    }
    if (!strcmp(name, "catalog")) {
        *catalog = read_catalog(node, error);
        return *catalog != NULL;
    }
    return set_error_at(error, node->parent, "unknown element", name);
}

bool metadata_from_domain(const char *xml, DesktopMetadata **desktop,
                          CatalogMetadata **catalog, GError **error)
{
    g_autoptr(XmlDoc) doc = xml_read(xml, XML_MAX_BYTES, error);
    xmlNodePtr root = doc ? xmlDocGetRootElement(doc) : NULL;
    GError *why = NULL;
    xmlNodePtr node;

    *desktop = NULL;
    *catalog = NULL;
    if (!doc) {
        return false;
    }
    if (!root || strcmp((char *)root->name, "domain")) {
        return set_missing(error, "not the XML of a domain");
    }
    node = find_element(root, &why);
    if (why) {
        g_propagate_error(error, why);
        return false;
    }
    return !node || read_found(node, desktop, catalog, error);
}

static void add_attribute(xmlNodePtr root, const MetadataField *f,
                          const char *value)
{
    xmlNodePtr node = root;

    if (f->element) {
        node = xml_child(root, f->element);
        if (!node || f->kind == FIELD_STORES) {
            node = xmlNewChild(root, NULL, BAD_CAST f->element, NULL);
        }
    }
    xmlNewProp(node, BAD_CAST f->name, BAD_CAST value);
}

/* With no namespace: libvirt adds it */
static char *element_text(const char *name, const MetadataField *fields,
                          const void *object)
{
    g_autoptr(XmlDoc) doc = xmlNewDoc(BAD_CAST "1.0");
    xmlNodePtr root = xmlNewNode(NULL, BAD_CAST name);

    xmlDocSetRootElement(doc, root);
    xmlNewProp(root, BAD_CAST "format", BAD_CAST FORMAT);
    for (; fields->name; fields++) {
        g_auto(GStrv) values = metadata_field_get(fields, object);

        for (char **v = values; *v; v++) {
            add_attribute(root, fields, *v);
        }
    }
    return xml_text(root);
}

char *desktop_metadata_text(const DesktopMetadata *d)
{
    return element_text("desktop", metadata_desktop_fields, d);
}

char *catalog_metadata_text(const CatalogMetadata *c)
{
    return element_text("catalog", metadata_catalog_fields, c);
}

void desktop_metadata_free(DesktopMetadata *d)
{
    if (d) {
        metadata_fields_clear(metadata_desktop_fields, d);
        g_free(d);
    }
}

void catalog_metadata_free(CatalogMetadata *c)
{
    if (c) {
        metadata_fields_clear(metadata_catalog_fields, c);
        g_free(c);
    }
}

/*
 * XML that somebody else wrote
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_XML_READ_H
#define CLI_DESKTOP_XML_READ_H

#include <gio/gio.h>
#include <libxml/tree.h>

#define XML_MAX_BYTES           (4 << 20)       /* libvirt's own limit */

typedef xmlDoc XmlDoc;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(XmlDoc, xmlFreeDoc)

/*
 * Parse @xml, UTF-8 of at most @limit bytes. A document type is refused, and
 * with it entities of any kind; nothing outside @xml is read. NULL with @error.
 */
XmlDoc *xml_read(const char *xml, size_t limit, GError **error);

/* First child element of that name, of any namespace; NULL if there is none */
xmlNodePtr xml_child(xmlNodePtr node, const char *name);

/* The element with all that is in it; to be freed with g_free() */
char *xml_text(xmlNodePtr node);

/* Attribute's value, to be freed with g_free(); NULL if it is not there */
char *xml_attribute(xmlNodePtr node, const char *name);

#endif /* CLI_DESKTOP_XML_READ_H */

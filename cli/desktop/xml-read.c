/*
 * XML that somebody else wrote
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "xml-read.h"

#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <string.h>

/*
 * Called before anything in the document type is read: with it go internal and
 * external entities, and what can be built from them.
 */
static void refuse_doctype(void *context, const xmlChar *name,
                           const xmlChar *id, const xmlChar *system)
{
    xmlParserCtxtPtr parser = context;

    parser->_private = GINT_TO_POINTER(TRUE);
    xmlStopParser(parser);
}

static void set_parse_error(GError **error, xmlParserCtxtPtr parser)
{
    const xmlError *last = xmlCtxtGetLastError(parser);
    g_autofree char *said = g_utf8_make_valid(last && last->message
                                              ? last->message : "empty", -1);

    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                "this XML cannot be read: line %d: %s",
                last ? last->line : 0, g_strchomp(said));
}

XmlDoc *xml_read(const char *xml, size_t limit, GError **error)
{
    size_t len = strnlen(xml, limit + 1);
    xmlParserCtxtPtr parser;
    XmlDoc *doc;

    if (len > limit) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "this XML cannot be read: it has more than %zu bytes",
                    limit);
        return NULL;
    }
    parser = xmlNewParserCtxt();
    parser->sax->internalSubset = refuse_doctype;
    /* The encoding is given, so that another one cannot hide anything */
    doc = xmlCtxtReadMemory(parser, xml, len, NULL, "UTF-8",
                            XML_PARSE_NONET | XML_PARSE_NOERROR |
                            XML_PARSE_NOWARNING | XML_PARSE_NOCDATA);
    if (parser->_private) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "this XML cannot be read: it has a document type, which "
                    "is not allowed");
        g_clear_pointer(&doc, xmlFreeDoc);
    } else if (!doc) {
        set_parse_error(error, parser);
    }
    xmlFreeParserCtxt(parser);
    return doc;
}

xmlNodePtr xml_child(xmlNodePtr node, const char *name)
{
    for (xmlNodePtr n = node ? node->children : NULL; n; n = n->next) {
        if (n->type == XML_ELEMENT_NODE && !strcmp((char *)n->name, name)) {
            return n;
        }
    }
    return NULL;
}

char *xml_text(xmlNodePtr node)
{
    xmlBufferPtr buffer = xmlBufferCreate();
    char *text;

    xmlNodeDump(buffer, node->doc, node, 0, 1);
    text = g_strdup((const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    return text;
}

char *xml_attribute(xmlNodePtr node, const char *name)
{
    xmlChar *value = node ? xmlGetNoNsProp(node, BAD_CAST name) : NULL;
    char *text = value ? g_strdup((char *)value) : NULL;

    xmlFree(value);
    return text;
}

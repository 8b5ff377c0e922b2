/*
 * Parts of the making of a desktop's domain: see xml.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_XML_PARTS_H
#define CLI_DESKTOP_XML_PARTS_H

#include "xml-read.h"
#include "xml.h"

/* Each returns false with @error; @master is the master's name */
bool xml_own_devices(xmlNodePtr devices, const char *master,
                     const DesktopPlan *plan, GError **error);
bool xml_own_disk(xmlNodePtr root, xmlNodePtr devices, const DesktopPlan *plan,
                  GError **error);

/* What the plan says, in place of what is there of ours */
bool xml_own_metadata(xmlNodePtr root, const DesktopPlan *plan, GError **error);

/* Sets @error; false */
bool xml_fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* The next sibling of that name */
xmlNodePtr xml_next(xmlNodePtr node, const char *name);
/* NULL is no error */
void xml_remove(xmlNodePtr node);
void xml_set(xmlNodePtr node, const char *name, const char *value);
void xml_unset(xmlNodePtr node, const char *name);
bool xml_is(xmlNodePtr node, const char *name, const char *value);
xmlNodePtr xml_add(xmlNodePtr parent, const char *name);
/* The child of that name, made if there is none */
xmlNodePtr xml_need(xmlNodePtr parent, const char *name);
void xml_set_content(xmlNodePtr node, const char *text);
/* To be freed; "" if @node is NULL */
char *xml_content(xmlNodePtr node);

#endif /* CLI_DESKTOP_XML_PARTS_H */

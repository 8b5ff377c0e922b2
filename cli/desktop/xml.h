/*
 * The domain of a desktop, made from that of its master VM
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_XML_H
#define CLI_DESKTOP_XML_H

#include "metadata.h"

#define DESKTOP_RUN_DIR         "/run/deskcast"     /* a folder for each */
#define DESKTOP_NAME_CHARS      63                  /* it is a host name */

typedef struct DesktopPlan {
    const char *name;           /* desktop_name_valid() */
    const char *uuid;           /* as libvirt writes it */
    const char *emulator;       /* QEMU with our drivers; in-process */
    const char *disk;           /* target of the master's system disk, "vda";
                                   NULL: its only one */
    const char *identity_bus;   /* "sata", "ide", "scsi"; NULL: by machine */
    const char *nvram;          /* file of its UEFI variables, if it has any */
    const DesktopMetadata *metadata;
} DesktopPlan;

/*
 * A letter or digit, then letters, digits and '-', not at the end: it becomes
 * the host name, and a part of file names. False with @error.
 */
bool desktop_name_valid(const char *name, GError **error);

/*
 * Domain XML as virDomainDefineXML() takes it, from the inactive one of the
 * master. What belongs to the master alone is left out or made anew: name,
 * UUID, MACs, ports, sockets, NVRAM, what is in its CD drives. What cannot be
 * shared is an error that says what to do. To be freed with g_free().
 */
char *desktop_xml(const char *master, const DesktopPlan *plan, GError **error);

/* Paths that follow from a desktop's name; to be freed */
char *desktop_monitor_path(const char *name);
char *desktop_vhost_path(const char *name);

#endif /* CLI_DESKTOP_XML_H */

/*
 * What libvirt's domain metadata says of a desktop, a catalog or an update
 *
 * One element in our namespace, docs/interop/domain-metadata.rng:
 *
 *   <deskcast:catalog>  in a master VM: what its desktops are made like, and
 *                       the update that it is in, if there is one
 *   <deskcast:desktop>  in a desktop: the version that is wanted, and where
 *                       its disk is
 *
 * It can be set from afar, whether the domain runs or not. What a desktop
 * really runs on is in its disk's header.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_DESKTOP_METADATA_H
#define CLI_DESKTOP_METADATA_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

#define METADATA_NAMESPACE      "https://deskcast.example.org/xmlns/domain/1"
#define METADATA_PREFIX         "deskcast"
#define METADATA_MAX_BYTES      (64 << 10)

typedef enum DesktopModel {
    MODEL_MCS = 1,              /* local differencing disk over an image */
    MODEL_PVS,                  /* streamed */
} DesktopModel;

typedef enum DesktopLifetime {
    LIFETIME_POOLED = 1,        /* forgets at reset */
    LIFETIME_DEDICATED,         /* keeps, local; mcs only */
    LIFETIME_PRIVATE,           /* keeps, on the store: an update; pvs only */
} DesktopLifetime;

typedef enum DesktopRun {
    RUN_IN_PROCESS = 1,         /* drivers in the desktop's own QEMU */
    RUN_VHOST_USER,             /* in a storage daemon on the host */
} DesktopRun;

/* A version to run on. number 0: none */
typedef struct WantedVersion {
    uint64_t number;
    uint64_t size;              /* bytes */
    char *root;                 /* hexadecimal; pvs */
    char *image;                /* absolute path on the host; mcs */
    char *format;               /* of the image; mcs: "raw" or "qcow2" */
} WantedVersion;

typedef struct DesktopMetadata {
    char *catalog;              /* its name */
    char *vdisk;
    DesktopModel model;
    DesktopLifetime lifetime;
    DesktopRun run;
    char *disk;                 /* path of the layer file on the host */
    char *journal;              /* path of the reconnect buffer; private */
    char *node;                 /* node name of the disk: "disk0" */
    char *monitor;              /* path of the QMP socket for us */
    char *identity;             /* path of the identity disk, or NULL */
    char **stores;              /* pvs: where it reads from, as in a catalog;
                                   needed for vhost-user, else may be NULL */
    char *host_cache;           /* pvs: folder of host caches, or NULL */
    uint64_t write_cache;       /* bytes its layer may take on the host; 0: not
                                   bounded. Counted against the host's cap */
    uint64_t ram;               /* bytes of write-cache-ram */
    uint64_t bandwidth;         /* pvs: bytes a second that it is reckoned with
                                   of its host's relay; 0: not bounded */
    WantedVersion wanted;       /* what it takes at its next reset */
    WantedVersion previous;     /* what it was before the last push: rollback */
} DesktopMetadata;

typedef struct CatalogMetadata {
    char *catalog;              /* its name */
    char *vdisk;
    DesktopModel model;
    DesktopLifetime lifetime;   /* of its desktops */
    DesktopRun run;
    char *store;                /* folder of the store for the administrator */
    char *folder;               /* where disks of desktops are on a host */
    char **stores;              /* pvs: what desktops read from, as URIs:
                                   nbd://HOST:PORT, nbds://…, nbd+unix:///?socket=PATH */
    char *host_cache;           /* pvs: folder of host caches, or NULL */
    uint64_t write_cache, ram;  /* of each desktop, bytes */
    uint64_t bandwidth;         /* and bytes a second */
    uint64_t update;            /* version that the master VM writes; 0: none */
    uint64_t back;              /* version that its last push went back from by
                                   itself; 0: none */
    uint64_t back_released;     /* release date it had, in seconds; 0: none */
} CatalogMetadata;

/* @xml is the element alone. NULL with @error if it is not ours, or wrong. */
DesktopMetadata *desktop_metadata_parse(const char *xml, GError **error);
CatalogMetadata *catalog_metadata_parse(const char *xml, GError **error);

/*
 * Find our element in the XML of a whole domain, as the hook gets it. Exactly
 * one of @desktop and @catalog is set; neither, and true, if there is none.
 */
bool metadata_from_domain(const char *xml, DesktopMetadata **desktop,
                          CatalogMetadata **catalog, GError **error);

/* The element, as virDomainSetMetadata() takes it */
char *desktop_metadata_text(const DesktopMetadata *d);
char *catalog_metadata_text(const CatalogMetadata *c);

void desktop_metadata_free(DesktopMetadata *d);
void catalog_metadata_free(CatalogMetadata *c);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(DesktopMetadata, desktop_metadata_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CatalogMetadata, catalog_metadata_free)

#endif /* CLI_DESKTOP_METADATA_H */

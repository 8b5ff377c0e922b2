/*
 * Where versions are replicated from: the folder of a store, or a server of
 * one ("deskcast store serve")
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_ORIGIN_H
#define CLI_STORE_ORIGIN_H

#include "cli/store/content.h"
#include "cli/store/store.h"

typedef struct OriginTls {
    char *certificates;         /* folder, or NULL */
    char *psk_file;             /* or NULL */
    char *user;                 /* in that file, or NULL */
} OriginTls;

/* For GOptionEntry tables */
#define ORIGIN_TLS_OPTIONS(tls) \
    { "tls-x509", 0, 0, G_OPTION_ARG_FILENAME, &(tls).certificates, \
      "Folder with ca-cert.pem, client-cert.pem, client-key.pem", "DIR" }, \
    { "tls-psk", 0, 0, G_OPTION_ARG_FILENAME, &(tls).psk_file, \
      "File with pre-shared keys", "FILE" }, \
    { "tls-user", 0, 0, G_OPTION_ARG_STRING, &(tls).user, \
      "The user in that file", "NAME" }

void origin_tls_clear(OriginTls *tls);

typedef struct Origin Origin;

/*
 * @from: a folder; nbd://HOST[:PORT], nbds://…, nbd+unix:///?socket=PATH or
 * nbds+unix://…. @tls is for nbds; empty, the host's own certificates, those in
 * DESKTOP_TLS_DIR, are shown. Nothing is connected yet. NULL with @error.
 */
Origin *origin_new(const char *from, const OriginTls *tls, GError **error);
void origin_free(Origin *o);

/* vDisks it has; to be freed by g_strfreev() */
char **origin_vdisks(Origin *o, GError **error);

/* Exports of a server; a folder has none. To be freed by g_strfreev(). */
char **origin_exports(Origin *o, GError **error);

Manifest *origin_manifest(Origin *o, const char *vdisk, GError **error);

/* What a sealed version holds, and its tree file; at least that many bytes */
Content *origin_version(Origin *o, const Manifest *m, const Version *v,
                        GError **error);
Content *origin_tree(Origin *o, const Manifest *m, const Version *v,
                     GError **error);

/* Its boot trace, if it has one; to be freed by g_bytes_unref() */
GBytes *origin_trace(Origin *o, const Manifest *m, const Version *v,
                     GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Origin, origin_free)

#endif /* CLI_STORE_ORIGIN_H */

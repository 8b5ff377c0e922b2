/*
 * Who may come in, and how clients and servers know each other
 *
 * A server with x509 lets in whom it knows by name: that a certificate is
 * signed by the right authority is not enough. With PSK it is the key that
 * counts. The names that are let in can change while it runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_TLS_H
#define CLI_SERVE_TLS_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

#define TLS_CREDENTIALS "tls"       /* id of the object */

/* As options say it */
typedef struct TlsServer {
    char *x509;                 /* folder of certificates, or NULL */
    char **authorise;           /* names of clients, or NULL */
    char *authorise_from;       /* file with more of them, one a line, or NULL */
    char *psk;                  /* folder of keys.psk, or NULL */
    gboolean clear_text;
} TlsServer;

/* Do the options fit together? @local: for a Unix socket. False with @error. */
bool tls_server_valid(const TlsServer *t, bool local, GError **error);

/*
 * Who is let in, as text to compare, and for tls_server_tell(): a JSON array of
 * rules. NULL with @error if the file of names cannot be read; NULL alone
 * without x509. To be freed.
 */
char *tls_server_rules(const TlsServer *t, GError **error);

/* What the daemon needs, added to @arguments, and for its NBD server in @nbd */
void tls_server_arguments(const TlsServer *t, const char *rules,
                          GPtrArray *arguments, GString *nbd);

/* Arguments of qom-set that make @rules count from now on */
JsonObject *tls_server_tell(const char *rules);

/* How we show who we are to a far server; both NULL if it is not to know */
typedef struct TlsClient {
    char *x509;
    char *psk;                  /* folder of keys.psk */
    char *user;                 /* whose key that is */
} TlsClient;

bool tls_client_valid(const TlsClient *t, bool needed, GError **error);
void tls_client_arguments(const TlsClient *t, GPtrArray *arguments);

#endif /* CLI_SERVE_TLS_H */

/*
 * Who may come in, and how clients and servers know each other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "tls.h"

#include <string.h>

#define AUTHORISED      "authorised"    /* id of the list */
#define MAX_LIST        (1 << 20)       /* bytes of a file of names */
#define MAX_NAME        1024            /* bytes of a name */

static bool wrong(GError **error, const char *why)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s", why);
    return false;
}

static bool has_names(const TlsServer *t)
{
    return (t->authorise && t->authorise[0]) || t->authorise_from;
}

bool tls_server_valid(const TlsServer *t, bool local, GError **error)
{
    int ways = !!t->x509 + !!t->psk + !!t->clear_text;

    if (ways > 1) {
        return wrong(error, "only one of --tls-x509, --tls-psk and "
                     "--clear-text can be given");
    }
    if (ways == 0 && !local) {
        return wrong(error, "who listens on the network needs --tls-x509 or "
                     "--tls-psk; --clear-text if everybody may read and change "
                     "what is sent");
    }
    if (t->x509 && !has_names(t)) {
        return wrong(error, "--tls-x509 needs --authorise or --authorise-from: "
                     "the names of the clients that are let in, as their "
                     "certificates have them ('O=Example,CN=host1'), or '*' "
                     "for everybody whose certificate is right");
    }
    if (!t->x509 && has_names(t)) {
        return wrong(error, "--authorise is for --tls-x509");
    }
    return true;
}

/* False with @error if a certificate cannot have that name */
static bool add_rule(JsonArray *rules, const char *name, GError **error)
{
    JsonObject *o;

    if (strlen(name) > MAX_NAME || !g_utf8_validate(name, -1, NULL)) {
        return wrong(error, "a name of a client is too long, or is no UTF-8");
    }
    o = json_object_new();
    json_object_set_string_member(o, "match", name);
    json_object_set_string_member(o, "policy", "allow");
    json_object_set_string_member(o, "format",
                                  strchr(name, '*') ? "glob" : "exact");
    json_array_add_object_element(rules, o);
    return true;
}

/* Lines that are not empty and no comments */
static bool add_file(JsonArray *rules, const char *path, GError **error)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    gsize length;

    if (!g_file_get_contents(path, &text, &length, error)) {
        return false;
    }
    if (length > MAX_LIST || strlen(text) != length) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s: it is no list of names", path);
        return false;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        char *name = g_strstrip(*line);

        if (*name && *name != '#' && !add_rule(rules, name, error)) {
            return false;
        }
    }
    return true;
}

char *tls_server_rules(const TlsServer *t, GError **error)
{
    JsonArray *rules = json_array_new();
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_ARRAY);

    json_node_take_array(root, rules);
    if (!t->x509) {
        return NULL;
    }
    for (char **name = t->authorise; name && *name; name++) {
        if (!add_rule(rules, *name, error)) {
            return NULL;
        }
    }
    if (t->authorise_from && !add_file(rules, t->authorise_from, error)) {
        return NULL;
    }
    return json_to_string(root, FALSE);
}

JsonObject *tls_server_tell(const char *rules)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "path", "/objects/" AUTHORISED);
    json_object_set_string_member(o, "property", "rules");
    json_object_set_member(o, "value", json_from_string(rules, NULL));
    return o;
}

static void add_object(GPtrArray *arguments, JsonObject *object)
{
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);

    json_node_take_object(root, object);
    g_ptr_array_add(arguments, g_strdup("--object"));
    g_ptr_array_add(arguments, json_to_string(root, FALSE));
}

static JsonObject *credentials(const char *type, const char *dir,
                               const char *endpoint)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "qom-type", type);
    json_object_set_string_member(o, "id", TLS_CREDENTIALS);
    json_object_set_string_member(o, "dir", dir);
    json_object_set_string_member(o, "endpoint", endpoint);
    json_object_set_boolean_member(o, "verify-peer", TRUE);
    return o;
}

void tls_server_arguments(const TlsServer *t, const char *rules,
                          GPtrArray *arguments, GString *nbd)
{
    JsonObject *o;

    if (t->psk) {
        add_object(arguments, credentials("tls-creds-psk", t->psk, "server"));
        g_string_append(nbd, ",tls-creds=" TLS_CREDENTIALS);
    }
    if (!t->x509) {
        return;
    }
    add_object(arguments, credentials("tls-creds-x509", t->x509, "server"));
    o = json_object_new();
    json_object_set_string_member(o, "qom-type", "authz-list");
    json_object_set_string_member(o, "id", AUTHORISED);
    json_object_set_string_member(o, "policy", "deny");
    json_object_set_member(o, "rules", json_from_string(rules, NULL));
    add_object(arguments, o);
    g_string_append(nbd, ",tls-creds=" TLS_CREDENTIALS
                    ",tls-authz=" AUTHORISED);
}

bool tls_client_valid(const TlsClient *t, bool needed, GError **error)
{
    if (t->x509 && t->psk) {
        return wrong(error, "only one of --tls-x509 and --tls-psk can be given");
    }
    if (!t->psk != !t->user) {
        return wrong(error, "--tls-psk and --tls-user belong together");
    }
    if (needed && !t->x509 && !t->psk) {
        return wrong(error, "nbds:// needs --tls-x509 or --tls-psk");
    }
    return true;
}

void tls_client_arguments(const TlsClient *t, GPtrArray *arguments)
{
    if (t->x509) {
        add_object(arguments, credentials("tls-creds-x509", t->x509, "client"));
    } else if (t->psk) {
        JsonObject *o = credentials("tls-creds-psk", t->psk, "client");

        json_object_set_string_member(o, "username", t->user);
        add_object(arguments, o);
    }
}

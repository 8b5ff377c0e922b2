/*
 * What a storage daemon has, and what it is to have
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "board.h"
#include "report.h"

/* Calls after which a brief export loses its clients */
#define BRIEF_PATIENCE  10

typedef struct WantedNode {
    char *key, *backing;
    JsonObject *options;
} WantedNode;

typedef struct WantedExport {
    char *name, *key;
    ExportUse use;
} WantedExport;

struct Wanted {
    GHashTable *nodes;          /* key -> WantedNode */
    GHashTable *exports;        /* name -> WantedExport */
    GPtrArray *order;           /* WantedExport, as they came; not owned */
};

typedef struct Node {
    char *key, *name;
    struct Node *backing;       /* or NULL */
    bool used;                  /* by an export, or one above it */
} Node;

typedef struct Export {
    char *name, *id;
    Node *node;
    ExportUse use;
    unsigned tries;             /* to remove it */
} Export;

struct Board {
    Daemon *daemon;
    GHashTable *nodes;          /* key -> Node; not owned */
    GPtrArray *node_order;      /* Node, what is below first */
    GHashTable *exports;        /* name -> Export */
    unsigned counter;           /* of names */
};

static void wanted_node_free(gpointer data)
{
    WantedNode *n = data;

    g_free(n->key);
    g_free(n->backing);
    json_object_unref(n->options);
    g_free(n);
}

static void wanted_export_free(gpointer data)
{
    WantedExport *e = data;

    g_free(e->name);
    g_free(e->key);
    g_free(e);
}

Wanted *wanted_new(void)
{
    Wanted *w = g_new0(Wanted, 1);

    w->nodes = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                     wanted_node_free);
    w->exports = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                       wanted_export_free);
    w->order = g_ptr_array_new();
    return w;
}

void wanted_free(Wanted *w)
{
    if (w) {
        g_ptr_array_unref(w->order);
        g_hash_table_unref(w->exports);
        g_hash_table_unref(w->nodes);
        g_free(w);
    }
}

void wanted_node(Wanted *w, const char *key, JsonObject *options,
                 const char *backing)
{
    WantedNode *n;

    if (g_hash_table_contains(w->nodes, key)) {
        json_object_unref(options);
        return;
    }
    n = g_new0(WantedNode, 1);
    n->key = g_strdup(key);
    n->backing = g_strdup(backing);
    n->options = options;
    g_hash_table_insert(w->nodes, n->key, n);
}

void wanted_export(Wanted *w, const char *name, const char *key, ExportUse use)
{
    WantedExport *e;

    if (g_hash_table_contains(w->exports, name)) {
        return;
    }
    e = g_new0(WantedExport, 1);
    e->name = g_strdup(name);
    e->key = g_strdup(key);
    e->use = use;
    g_hash_table_insert(w->exports, e->name, e);
    g_ptr_array_add(w->order, e);
}

unsigned wanted_exports(const Wanted *w)
{
    return w->order->len;
}

static void node_free(gpointer data)
{
    Node *n = data;

    g_free(n->key);
    g_free(n->name);
    g_free(n);
}

static void export_free(gpointer data)
{
    Export *e = data;

    g_free(e->name);
    g_free(e->id);
    g_free(e);
}

Board *board_new(Daemon *d)
{
    Board *b = g_new0(Board, 1);

    b->daemon = d;
    b->nodes = g_hash_table_new(g_str_hash, g_str_equal);
    b->node_order = g_ptr_array_new_with_free_func(node_free);
    b->exports = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                       export_free);
    return b;
}

void board_forget(Board *b)
{
    g_hash_table_remove_all(b->exports);
    g_hash_table_remove_all(b->nodes);
    g_ptr_array_set_size(b->node_order, 0);
}

void board_free(Board *b)
{
    if (b) {
        board_forget(b);
        g_hash_table_unref(b->exports);
        g_hash_table_unref(b->nodes);
        g_ptr_array_unref(b->node_order);
        g_free(b);
    }
}

/* Execute it; was it done? If not, and @subject is not NULL, say why. */
static bool execute(Board *b, const char *subject, const char *command,
                    JsonObject *arguments)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) value = daemon_command(b->daemon, command, arguments,
                                               &error);

    if (!value && subject &&
        g_error_matches(error, QMP_ERROR, QMP_ERROR_COMMAND)) {
        report_state(subject, error->message);
    }
    return value != NULL;
}

static char *subject_of(const char *export)
{
    return g_strdup_printf("export %s", export);
}

/* A node and those below it; NULL if that failed, and was said of @subject */
static Node *make_node(Board *b, Wanted *w, const char *key,
                       const char *subject)
{
    Node *node = g_hash_table_lookup(b->nodes, key), *backing = NULL;
    WantedNode *want = g_hash_table_lookup(w->nodes, key);
    g_autofree char *name = NULL;
    JsonObject *options;

    if (node) {
        return node;
    }
    if (!want) {
        if (subject) {
            report_state(subject, "an image below it is missing");
        }
        return NULL;
    }
    if (want->backing &&
        !(backing = make_node(b, w, want->backing, subject))) {
        return NULL;
    }
    name = g_strdup_printf("n%u", b->counter++);
    options = json_object_ref(want->options);
    json_object_set_string_member(options, "node-name", name);
    if (backing) {
        json_object_set_string_member(options, "backing", backing->name);
    }
    if (!execute(b, subject, "blockdev-add", options)) {
        return NULL;
    }
    node = g_new0(Node, 1);
    node->key = g_strdup(key);
    node->name = g_steal_pointer(&name);
    node->backing = backing;
    g_hash_table_insert(b->nodes, node->key, node);
    g_ptr_array_add(b->node_order, node);
    return node;
}

/* @quiet: say nothing if it cannot be done */
static bool make_export(Board *b, Wanted *w, const WantedExport *want,
                        bool quiet)
{
    g_autofree char *subject = quiet ? NULL : subject_of(want->name);
    Node *node = make_node(b, w, want->key, subject);
    JsonObject *o;
    Export *e;
    char *id;

    if (!node) {
        return false;
    }
    id = g_strdup_printf("e%u", b->counter++);
    o = json_object_new();
    json_object_set_string_member(o, "type", "nbd");
    json_object_set_string_member(o, "id", id);
    json_object_set_string_member(o, "node-name", node->name);
    json_object_set_string_member(o, "name", want->name);
    if (want->use == EXPORT_WRITE) {
        json_object_set_boolean_member(o, "writable", TRUE);
        json_object_set_boolean_member(o, "exclusive", TRUE);
    }
    if (!execute(b, subject, "block-export-add", o)) {
        g_free(id);
        return false;
    }
    if (subject) {
        report_state(subject, NULL);
    }
    e = g_new0(Export, 1);
    e->name = g_strdup(want->name);
    e->id = id;
    e->node = node;
    e->use = want->use;
    g_hash_table_insert(b->exports, e->name, e);
    return true;
}

/* Is it to stay? */
static bool still_wanted(const Export *e, const Wanted *w)
{
    WantedExport *want = g_hash_table_lookup(w->exports, e->name);

    return want && want->use == e->use && g_str_equal(want->key, e->node->key);
}

/* True if it is gone; false while it has clients */
static bool remove_export(Board *b, Export *e)
{
    bool hard = e->use == EXPORT_BRIEF && ++e->tries > BRIEF_PATIENCE;
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "id", e->id);
    json_object_set_string_member(o, "mode", hard ? "hard" : "safe");
    return execute(b, NULL, "block-export-del", o);
}

static GPtrArray *unwanted_exports(Board *b, const Wanted *w)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, b->exports);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Export *e = value;

        if (!still_wanted(e, w)) {
            g_ptr_array_add(names, g_strdup(e->name));
        }
    }
    return names;
}

static bool remove_exports(Board *b, Wanted *w)
{
    g_autoptr(GPtrArray) names = unwanted_exports(b, w);
    bool all = true;

    for (guint i = 0; i < names->len && daemon_qmp(b->daemon); i++) {
        const char *name = names->pdata[i];
        WantedExport *want = g_hash_table_lookup(w->exports, name);

        if (!remove_export(b, g_hash_table_lookup(b->exports, name))) {
            all = false;
            continue;
        }
        g_hash_table_remove(b->exports, name);
        if (want) {
            /* At once, so that few come meanwhile. It may have to wait for the
             * old node to go. */
            make_export(b, w, want, true);
        }
    }
    return all;
}

static void mark_used(Board *b)
{
    GHashTableIter iter;
    gpointer value;

    for (guint i = 0; i < b->node_order->len; i++) {
        ((Node *)b->node_order->pdata[i])->used = false;
    }
    g_hash_table_iter_init(&iter, b->exports);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        for (Node *n = ((Export *)value)->node; n && !n->used; n = n->backing) {
            n->used = true;
        }
    }
}

/* What no export needs; what is above first */
static bool remove_nodes(Board *b)
{
    bool all = true;

    mark_used(b);
    for (guint i = b->node_order->len; i-- > 0 && daemon_qmp(b->daemon);) {
        Node *n = b->node_order->pdata[i];
        JsonObject *o;

        if (n->used) {
            continue;
        }
        o = json_object_new();
        json_object_set_string_member(o, "node-name", n->name);
        if (execute(b, NULL, "blockdev-del", o)) {
            g_hash_table_remove(b->nodes, n->key);
            g_ptr_array_remove_index(b->node_order, i);
        } else {
            /* Its export is about to go, or a job is */
            all = false;
        }
    }
    return all;
}

bool board_sync(Board *b, Wanted *w)
{
    bool all = remove_exports(b, w);

    all &= remove_nodes(b);
    for (guint i = 0; i < w->order->len && daemon_qmp(b->daemon); i++) {
        const WantedExport *want = w->order->pdata[i];

        if (!g_hash_table_contains(b->exports, want->name)) {
            all &= make_export(b, w, want, false);
        }
    }
    return all && daemon_qmp(b->daemon);
}

const char *board_export_key(const Board *b, const char *name)
{
    Export *e = g_hash_table_lookup(b->exports, name);

    return e ? e->node->key : NULL;
}

bool board_has_node(const Board *b, const char *key)
{
    return g_hash_table_contains(b->nodes, key);
}

const char *board_node_name(const Board *b, const char *key)
{
    Node *n = g_hash_table_lookup(b->nodes, key);

    return n ? n->name : NULL;
}

unsigned board_exports(const Board *b)
{
    return g_hash_table_size(b->exports);
}

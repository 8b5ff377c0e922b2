/*
 * What one vDisk says of itself
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "vdisk-sample.h"

#include "cli/json-member.h"

#include <string.h>

#define VDISKS_MAX  1024        /* of a process */

/* How a member becomes a number */
typedef enum Kind {
    KIND_COUNT,
    KIND_FLAG,
    KIND_SET,                   /* 1 if the member is there, else 0 */
} Kind;

typedef struct Member {
    const char *in;             /* object below "pvs", or NULL: see streamed */
    const char *name;
    Kind kind;
    double unit;                /* of one; 0 is 1 */
    bool streamed;              /* its object is "pvs", or below it */
    bool of_version;
    bool zero;                  /* it is 0 where the member is not there */
} Member;

static const Member members[VDISK_VALUES] = {
    [VALUE_SIZE] = { .name = "virtual-size", .of_version = true },
    [VALUE_LAYER] = { .name = "layer-bytes" },
    [VALUE_RESETS] = { .name = "resets" },
    [VALUE_ADMITS] = { .name = "admits-clients", .kind = KIND_FLAG },
    [VALUE_RAM_SIZE] = { "write-cache-ram", "size" },
    [VALUE_RAM_USED] = { "write-cache-ram", "used" },
    [VALUE_RAM_MEMORY] = { "write-cache-ram", "memory" },
#define PVS .streamed = true
    [VALUE_CACHE_USABLE] = { "host-cache", "usable", KIND_FLAG, PVS },
    [VALUE_CACHE_FULL] = { "host-cache", "full", KIND_FLAG, PVS },
    [VALUE_CACHE_HIT] = { "host-cache", "hit-bytes", PVS },
    [VALUE_CACHE_MISS] = { "host-cache", "miss-bytes", PVS },
    [VALUE_CACHE_FILLED] = { "host-cache", "filled-bytes", PVS },
    [VALUE_LOCAL] = { "budget", "local-bytes", PVS, .of_version = true },
    [VALUE_BOOT] = { "budget", "boot-bytes", PVS, .of_version = true },
    [VALUE_BOOT_LOCAL] = { "budget", "boot-local-bytes", PVS,
                           .of_version = true },
    [VALUE_OUTAGE] = { NULL, "outage-ms", .unit = 0.001, PVS, .zero = true },
    [VALUE_DENIED] = { NULL, "denied-ms", .unit = 0.001, PVS, .zero = true },
    [VALUE_STOPS] = { NULL, "stops-on-error", KIND_FLAG, PVS },
    [VALUE_CORRUPT] = { NULL, "corrupt", PVS },
    [VALUE_FENCED] = { NULL, "fenced", KIND_FLAG, PVS },
    [VALUE_BUFFER_SIZE] = { "buffer", "size", PVS },
    [VALUE_BUFFER_USED] = { "buffer", "used", PVS },
    [VALUE_LAG_BYTES] = { "buffer", "lag-bytes", PVS },
    [VALUE_LAG] = { "buffer", "lag-ms", .unit = 0.001, PVS },
    [VALUE_EPOCHS] = { "buffer", "epochs-shipped", PVS },
    [VALUE_SHIPPED] = { "buffer", "bytes-shipped", PVS },
    [VALUE_BROKEN] = { "buffer", "broken", KIND_FLAG, PVS },
    [VALUE_STUCK] = { "buffer", "stuck", KIND_SET, PVS },
    [VALUE_WINDOW] = { "buffer", "window", KIND_FLAG, PVS },
    [VALUE_RESERVE] = { "buffer", "reserve", PVS },
    [VALUE_STORE_DURABLE] = { "buffer", "store-durable", KIND_FLAG, PVS },
#undef PVS
};

#define GAUGE(name, help)   { "deskcast_" name, help, false }
#define COUNTER(name, help) { "deskcast_" name "_total", help, true }

const Metric vdisk_metrics[VDISK_VALUES] = {
    [VALUE_SIZE] = GAUGE("vdisk_size_bytes", "Size of the disk."),
    [VALUE_LAYER] = GAUGE("layer_bytes",
        "What the disk's file takes on the host."),
    [VALUE_RESETS] = COUNTER("resets",
        "Resets of the disk, since its process was started."),
    [VALUE_ADMITS] = GAUGE("admits_clients",
        "Whether clients of block exports may use the disk."),
    [VALUE_RAM_SIZE] = GAUGE("write_cache_ram_size_bytes",
        "What write-cache-ram can hold of the disk."),
    [VALUE_RAM_USED] = GAUGE("write_cache_ram_used_bytes",
        "What write-cache-ram holds of the disk."),
    [VALUE_RAM_MEMORY] = GAUGE("write_cache_ram_memory_bytes",
        "The host's memory that write-cache-ram takes."),
    [VALUE_CACHE_USABLE] = GAUGE("host_cache_usable",
        "Whether the host cache is there."),
    [VALUE_CACHE_FULL] = GAUGE("host_cache_full",
        "Whether the host cache takes no more."),
    [VALUE_CACHE_HIT] = COUNTER("host_cache_hit_bytes",
        "What the disk read from the host cache."),
    [VALUE_CACHE_MISS] = COUNTER("host_cache_miss_bytes",
        "What was not in the host cache when the disk read it."),
    [VALUE_CACHE_FILLED] = COUNTER("host_cache_filled_bytes",
        "What the disk's process put into the host cache."),
    [VALUE_LOCAL] = GAUGE("budget_local_bytes",
        "What of the version can be read with no store up."),
    [VALUE_BOOT] = GAUGE("budget_boot_bytes",
        "What the version's boot trace lists."),
    [VALUE_BOOT_LOCAL] = GAUGE("budget_boot_local_bytes",
        "What of the boot trace can be read with no store up."),
    [VALUE_OUTAGE] = GAUGE("outage_seconds",
        "How long no store has been up; 0 if one is."),
    [VALUE_DENIED] = GAUGE("denied_seconds",
        "How long it waits for a block that no store has right; 0: it does not."),
    [VALUE_STOPS] = GAUGE("stops_on_error",
        "Whether the device stops the guest on errors, which hides outages."),
    [VALUE_CORRUPT] = COUNTER("corrupt_answers",
        "Answers of stores that were not what was sealed, and thrown away."),
    [VALUE_FENCED] = GAUGE("fenced",
        "Whether somebody else has written to the private vDisk."),
    [VALUE_BUFFER_SIZE] = GAUGE("buffer_size_bytes",
        "What the reconnect buffer has room for."),
    [VALUE_BUFFER_USED] = GAUGE("buffer_used_bytes",
        "What of the reconnect buffer is in use."),
    [VALUE_LAG_BYTES] = GAUGE("buffer_lag_bytes",
        "What was written and is not durable on the store yet."),
    [VALUE_LAG] = GAUGE("buffer_lag_seconds",
        "How long ago the oldest of that was written."),
    [VALUE_EPOCHS] = COUNTER("buffer_epochs_shipped",
        "Epochs that were shipped to the store."),
    [VALUE_SHIPPED] = COUNTER("buffer_shipped_bytes",
        "What was shipped to the store."),
    [VALUE_BROKEN] = GAUGE("buffer_broken",
        "Whether the reconnect buffer's disk failed."),
    [VALUE_STUCK] = GAUGE("buffer_stuck",
        "Whether less is shipped than the guest writes, with the store there."),
    [VALUE_WINDOW] = GAUGE("update_window_open",
        "Whether an update window is open."),
    [VALUE_RESERVE] = GAUGE("update_window_reserve_bytes",
        "What the guest can still write in the window without the store."),
    [VALUE_STORE_DURABLE] = GAUGE("store_durable",
        "Whether flushes of the guest wait for the store, as it was told."),
};

const Metric store_metrics[STORE_VALUES] = {
    [STORE_LATENCY] = GAUGE("store_latency_seconds",
        "Smoothed time of a store's answer; 0 if it is not known."),
    [STORE_READS] = COUNTER("store_reads", "Good answers to reads."),
    [STORE_BYTES] = COUNTER("store_read_bytes", "Bytes in good answers."),
    [STORE_ERRORS] = COUNTER("store_errors",
        "Requests that had no good answer."),
};

const char *const store_healths[STORE_HEALTHS] = { "up", "suspect", "down" };

bool vdisk_value_is_of_version(VdiskValue value)
{
    return members[value].of_version;
}

double vdisk_sample_get(const VdiskSample *s, VdiskValue value)
{
    return s && s->has[value] ? s->value[value] : 0;
}

static bool get_count(JsonObject *o, const char *name, double *value)
{
    int64_t n;

    if (!member_int(o, name, &n)) {
        return false;
    }
    *value = MAX(n, 0);
    return true;
}

static bool get_flag(JsonObject *o, const char *name, double *value)
{
    bool flag;

    if (!member_bool(o, name, &flag)) {
        return false;
    }
    *value = flag;
    return true;
}

/* False if it is not in @o, or @o itself is not there */
static bool get_value(JsonObject *o, const Member *m, double *value)
{
    *value = 0;
    if (!o) {
        return false;
    }
    switch (m->kind) {
    case KIND_SET:
        *value = json_object_has_member(o, m->name);
        return true;
    case KIND_FLAG:
        return get_flag(o, m->name, value);
    default:
        if (!get_count(o, m->name, value)) {
            return m->zero;
        }
        *value *= m->unit > 0 ? m->unit : 1;
        return true;
    }
}

static void read_values(VdiskSample *s, JsonObject *disk, JsonObject *pvs)
{
    for (unsigned i = 0; i < VDISK_VALUES; i++) {
        const Member *m = &members[i];
        JsonObject *o = m->streamed ? pvs : disk;

        if (m->in) {
            o = member_object(o, m->in);
        }
        s->has[i] = get_value(o, m, &s->value[i]);
    }
}

/* With room for "#64" behind it */
static char *bounded(const char *text)
{
    return metric_label_cut(text, METRIC_LABEL_MAX - 4);
}

/*
 * nbd://HOST:PORT/EXPORT and nbd+unix:///EXPORT?socket=PATH without the export,
 * which has the version in it: a store is the same one after a push.
 */
static char *place_of(const char *name)
{
    const char *host = strstr(name, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;
    const char *query = path ? strchr(path, '?') : NULL;
    g_autofree char *place = NULL;

    if (!path) {
        return bounded(name);
    }
    place = query ? g_strdup_printf("%.*s/%s", (int)(path - name), name, query)
                  : g_strndup(name, path - name);
    return bounded(place);
}

static bool is_taken(const GPtrArray *stores, bool tree, const char *name)
{
    for (guint i = 0; i < stores->len; i++) {
        const StoreSample *other = g_ptr_array_index(stores, i);

        if (other->tree == tree && g_str_equal(other->name, name)) {
            return true;
        }
    }
    return false;
}

/*
 * Two exports of one server are two stores. Whatever their names are: a metric
 * must not be there twice.
 */
static void make_distinct(const GPtrArray *stores, StoreSample *store)
{
    char *name = g_strdup(store->name);

    for (unsigned n = 2; is_taken(stores, store->tree, name); n++) {
        g_free(name);
        name = g_strdup_printf("%s#%u", store->name, n);
    }
    g_free(store->name);
    store->name = name;
}

static void store_free(void *data)
{
    StoreSample *store = data;

    g_free(store->name);
    g_free(store);
}

StoreHealth store_health_parse(const char *state)
{
    for (unsigned i = 0; i < STORE_HEALTHS; i++) {
        if (!g_strcmp0(state, store_healths[i])) {
            return i;
        }
    }
    return HEALTH_DOWN;
}

VdiskSample *vdisk_sample_new(void)
{
    VdiskSample *s = g_new0(VdiskSample, 1);

    s->stores = g_ptr_array_new_with_free_func(store_free);
    return s;
}

StoreSample *vdisk_sample_add_store(VdiskSample *s, const char *name)
{
    StoreSample *store = g_new0(StoreSample, 1);

    store->name = metric_label_cut(name, METRIC_LABEL_MAX);
    g_ptr_array_add(s->stores, store);
    return store;
}

static StoreSample *read_store(JsonObject *o)
{
    static const char *const names[] = {
        [STORE_LATENCY] = "latency", [STORE_READS] = "reads",
        [STORE_BYTES] = "bytes", [STORE_ERRORS] = "errors",
    };
    StoreSample *store = g_new0(StoreSample, 1);
    const char *name = member_string(o, "name");

    store->name = place_of(name ? name : "");
    member_bool(o, "tree", &store->tree);
    store->health = store_health_parse(member_string(o, "state"));
    for (unsigned i = 0; i < STORE_VALUES; i++) {
        get_count(o, names[i], &store->value[i]);
    }
    store->value[STORE_LATENCY] /= G_USEC_PER_SEC;
    return store;
}

static void read_stores(VdiskSample *s, JsonArray *stores)
{
    guint n = stores ? json_array_get_length(stores) : 0;

    for (guint i = 0; i < MIN(n, VDISK_STORES_MAX); i++) {
        JsonObject *o = element_object(stores, i);

        if (o) {
            StoreSample *store = read_store(o);

            make_distinct(s->stores, store);
            g_ptr_array_add(s->stores, store);
        }
    }
}

static uint64_t number(JsonObject *o, const char *name)
{
    int64_t n = 0;

    return member_int(o, name, &n) && n > 0 ? n : 0;
}

static char *image_in(JsonObject *disk, const char *name)
{
    return g_strdup(member_string(member_object(disk, name), "filename"));
}

static VdiskSample *read_disk(JsonObject *disk)
{
    VdiskSample *s = vdisk_sample_new();
    JsonObject *pvs = member_object(disk, "pvs");

    s->is_streamed = pvs;
    s->is_private = !g_strcmp0(member_string(pvs, "mode"), "private");
    s->version = number(pvs, "version");
    s->assigned = number(pvs, "assigned-version");
    s->image = image_in(disk, "image");
    s->assigned_image = image_in(disk, "assigned");
    read_values(s, disk, pvs);
    read_stores(s, member_array(pvs, "stores"));
    return s;
}

VdiskSample *vdisk_sample_parse(JsonNode *answer, const char *node)
{
    JsonArray *disks = answer && JSON_NODE_HOLDS_ARRAY(answer)
                       ? json_node_get_array(answer) : NULL;
    guint n = disks ? json_array_get_length(disks) : 0;

    for (guint i = 0; i < MIN(n, VDISKS_MAX); i++) {
        JsonObject *disk = element_object(disks, i);

        if (disk && !g_strcmp0(member_string(disk, "node-name"), node)) {
            return read_disk(disk);
        }
    }
    return NULL;
}

void vdisk_sample_free(VdiskSample *s)
{
    if (s) {
        g_ptr_array_unref(s->stores);
        g_free(s->image);
        g_free(s->assigned_image);
        g_free(s);
    }
}

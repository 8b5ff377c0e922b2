/*
 * deskcast top: what this host's desktops do, again and again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "asker.h"
#include "host-json.h"
#include "rates.h"
#include "top-screen.h"
#include "watch-commands.h"

#include "cli/commands.h"
#include "cli/host/table.h"
#include "cli/units.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define INTERVAL        2       /* s */
#define INTERVAL_MAX    3600

typedef enum Order { BY_STATE, BY_READS, BY_NAME, ORDERS } Order;

typedef struct Top {
    AskerOptions options;
    int interval;
    gboolean once, json;
    Asker *asker;
    HostSample *before, *now;
    Order order;
} Top;

/* A desktop as it is shown */
typedef struct Row {
    const DesktopSample *d;
    Rates rates;
    unsigned badness;
    char *state;
} Row;

/* A store, over all desktops */
typedef struct StoreRow {
    const char *name;
    bool tree;
    unsigned health[STORE_HEALTHS];
    double rate, latency, errors;
} StoreRow;

static void top_clear(Top *t)
{
    asker_options_clear(&t->options);
    g_clear_pointer(&t->before, host_sample_free);
    g_clear_pointer(&t->now, host_sample_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Top, top_clear)

static void row_free(void *data)
{
    Row *r = data;

    g_free(r->state);
    g_free(r);
}

static double seconds_between(const Top *t)
{
    return t->before ? (t->now->time - t->before->time) / 1e6 : 0;
}

static int compare_rows(const void *a, const void *b, void *opaque)
{
    const Row *x = *(Row *const *)a, *y = *(Row *const *)b;
    const Top *t = opaque;

    if (t->order == BY_STATE && x->badness != y->badness) {
        return x->badness > y->badness ? -1 : 1;
    }
    if (t->order != BY_NAME && x->rates.read != y->rates.read) {
        return x->rates.read > y->rates.read ? -1 : 1;
    }
    return strcmp(x->d->name, y->d->name);
}

static GPtrArray *make_rows(Top *t)
{
    GPtrArray *rows = g_ptr_array_new_with_free_func(row_free);

    for (guint i = 0; i < t->now->desktops->len; i++) {
        Row *r = g_new0(Row, 1);

        r->d = g_ptr_array_index(t->now->desktops, i);
        r->rates = rates_of(host_sample_find(t->before, r->d->name), r->d,
                            seconds_between(t));
        r->state = desktop_state(r->d, &r->badness);
        g_ptr_array_add(rows, r);
    }
    g_ptr_array_sort_with_data(rows, compare_rows, t);
    return rows;
}

static char *dash(void)
{
    return g_strdup("-");
}

static char *size_text(double bytes)
{
    return units_format_size(bytes);
}

static char *rate_text(double bytes)
{
    g_autofree char *text = bytes < 0 ? NULL : units_format_size(bytes);

    return text ? g_strconcat(text, "/s", NULL) : dash();
}

static char *share_text(double share)
{
    return share < 0 ? dash() : g_strdup_printf("%.0f%%", floor(share * 100));
}

/* -1 if the disk does not have both, or the whole is nothing */
static double share(const VdiskSample *s, VdiskValue part, VdiskValue whole)
{
    double all = vdisk_sample_get(s, whole);

    return s && s->has[part] && all > 0 ? vdisk_sample_get(s, part) / all : -1;
}

static char *value_text(const VdiskSample *s, VdiskValue value)
{
    return s && s->has[value] ? size_text(s->value[value]) : dash();
}

static char *version_text(const DesktopSample *d)
{
    if (!d->version) {
        return dash();
    }
    if (!d->assigned || d->assigned == d->version) {
        return g_strdup_printf("%" G_GUINT64_FORMAT, d->version);
    }
    return g_strdup_printf("%" G_GUINT64_FORMAT " > %" G_GUINT64_FORMAT,
                           d->version, d->assigned);
}

static char *desktops_text(const GPtrArray *rows)
{
    static const char *const titles[] = {
        "DESKTOP", "VDISK", "VERSION", "STATE", "READ", "HITS", "LOCAL", "BOOT",
        "DISK", "RAM", "LAG", "BUFFER", NULL
    };
    g_autoptr(Table) table = table_new(titles);

    for (guint i = 0; i < rows->len; i++) {
        const Row *r = g_ptr_array_index(rows, i);
        const VdiskSample *s = r->d->disk;

        table_add(table, g_strdup(r->d->name), g_strdup(r->d->vdisk),
                  version_text(r->d), g_strdup(r->state),
                  rate_text(r->rates.read), share_text(r->rates.hit),
                  share_text(share(s, VALUE_LOCAL, VALUE_SIZE)),
                  share_text(share(s, VALUE_BOOT_LOCAL, VALUE_BOOT)),
                  value_text(s, VALUE_LAYER),
                  share_text(share(s, VALUE_RAM_USED, VALUE_RAM_SIZE)),
                  value_text(s, VALUE_LAG_BYTES),
                  share_text(share(s, VALUE_BUFFER_USED, VALUE_BUFFER_SIZE)));
    }
    return table_text(table);
}

static StoreRow *store_row(GPtrArray *stores, const StoreSample *s)
{
    StoreRow *r;

    for (guint i = 0; i < stores->len; i++) {
        r = g_ptr_array_index(stores, i);
        if (r->tree == s->tree && !strcmp(r->name, s->name)) {
            return r;
        }
    }
    r = g_new0(StoreRow, 1);
    r->name = s->name;
    r->tree = s->tree;
    g_ptr_array_add(stores, r);
    return r;
}

static void add_stores(const Top *t, GPtrArray *stores, const DesktopSample *d)
{
    const DesktopSample *before = host_sample_find(t->before, d->name);
    const VdiskSample *was = before ? before->disk : NULL;
    double seconds = seconds_between(t);

    for (guint i = 0; d->disk && i < d->disk->stores->len; i++) {
        const StoreSample *s = g_ptr_array_index(d->disk->stores, i);
        const StoreSample *old = store_sample_find(was, s);
        StoreRow *r = store_row(stores, s);

        r->health[s->health]++;
        r->latency = MAX(r->latency, s->value[STORE_LATENCY]);
        r->errors += s->value[STORE_ERRORS];
        if (old && seconds > 0) {
            r->rate += counter_growth(old->value[STORE_BYTES],
                                      s->value[STORE_BYTES]) / seconds;
        }
    }
}

static char *stores_text(const Top *t)
{
    static const char *const titles[] = {
        "STORE", "UP", "SUSPECT", "DOWN", "READ", "LATENCY", "ERRORS", NULL
    };
    g_autoptr(GPtrArray) stores = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(Table) table = table_new(titles);

    for (guint i = 0; i < t->now->desktops->len; i++) {
        add_stores(t, stores, g_ptr_array_index(t->now->desktops, i));
    }
    for (guint i = 0; i < stores->len; i++) {
        const StoreRow *r = g_ptr_array_index(stores, i);

        table_add(table, g_strdup_printf("%s%s", r->name,
                                         r->tree ? " (tree)" : ""),
                  g_strdup_printf("%u", r->health[HEALTH_UP]),
                  g_strdup_printf("%u", r->health[HEALTH_SUSPECT]),
                  g_strdup_printf("%u", r->health[HEALTH_DOWN]),
                  rate_text(seconds_between(t) > 0 ? r->rate : -1),
                  g_strdup_printf("%.1f ms", r->latency * 1000),
                  g_strdup_printf("%.0f", r->errors));
    }
    return stores->len ? table_text(table) : g_strdup("");
}

static char *head_text(const Top *t, const GPtrArray *rows)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *clock = g_date_time_format(now, "%H:%M:%S");
    unsigned well = 0, off = 0;

    for (guint i = 0; i < rows->len; i++) {
        const Row *r = g_ptr_array_index(rows, i);

        off += !r->d->running;
        well += r->d->running && !r->badness;
    }
    return g_strdup_printf("%s  %s: %u desktops, %u well, %u not, %u off%s%s",
                           clock, g_get_host_name(), rows->len, well,
                           rows->len - well - off, off,
                           t->now->libvirt_up ? "" : "; libvirt: ",
                           t->now->libvirt_up ? "" : t->now->libvirt_trouble);
}

static char *whole_text(Top *t)
{
    g_autoptr(GPtrArray) rows = make_rows(t);
    g_autofree char *head = head_text(t, rows), *desktops = desktops_text(rows);
    g_autofree char *stores = stores_text(t);

    return g_strconcat(head, "\n\n", desktops, *stores ? "\n" : "", stores,
                       NULL);
}

static void look(Top *t)
{
    g_clear_pointer(&t->before, host_sample_free);
    t->before = t->now;
    t->now = asker_ask(t->asker);
}

static void print_json(const Top *t)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *text = NULL;

    json_node_take_object(node, host_sample_json(t->now));
    text = json_to_string(node, FALSE);
    puts(text);
}

static void show_plain(Top *t, bool first)
{
    g_autofree char *text = t->json ? NULL : whole_text(t);

    if (t->json) {
        print_json(t);
    } else {
        printf("%s%s", first ? "" : "\n", text);
    }
    fflush(stdout);
}

/* Rates need two looks */
static int run_once(Top *t)
{
    look(t);
    if (t->json) {
        command_answer(host_sample_json(t->now));
        return COMMAND_DONE;
    }
    g_usleep(t->interval * G_USEC_PER_SEC);
    look(t);
    show_plain(t, true);
    return COMMAND_DONE;
}

/* Until nobody reads it any more: then the next line ends us */
static int run_plain(Top *t)
{
    for (bool first = true; !ferror(stdout); first = false) {
        look(t);
        show_plain(t, first);
        g_usleep(t->interval * G_USEC_PER_SEC);
    }
    return COMMAND_FAILED;
}

static void draw(Top *t)
{
    static const char *const orders[ORDERS] = { "state", "reads", "name" };
    g_autofree char *text = whole_text(t);
    g_autofree char *all = g_strdup_printf(
        "%s\nq: end   s: sorted by %s", text, orders[t->order]);

    screen_draw(all, 2);
}

static int run_screen(Top *t)
{
    int key = SCREEN_NONE;

    screen_open();
    while (key != 'q' && key != SCREEN_END) {
        gint64 next = g_get_monotonic_time() + t->interval * G_USEC_PER_SEC;
        gint64 left;

        look(t);
        do {
            draw(t);
            left = (next - g_get_monotonic_time()) / 1000;
            key = screen_key(MAX(left, 0));
            t->order = (t->order + (key == 's')) % ORDERS;
        } while (key != 'q' && key != SCREEN_END &&
                 g_get_monotonic_time() < next);
    }
    screen_close();
    return COMMAND_DONE;
}

int command_top(int argc, char **argv)
{
    g_auto(Top) t = { .interval = INTERVAL };
    const GOptionEntry entries[] = {
        { "interval", 'i', 0, G_OPTION_ARG_INT, &t.interval,
          "Seconds from one look to the next (default: 2)", "S" },
        { "once", 0, 0, G_OPTION_ARG_NONE, &t.once,
          "Print it once, and end", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &t.json,
          "Print JSON, an object for each look", NULL },
        ASKER_OPTION_ENTRIES(&t.options),
        { NULL }
    };
    g_autoptr(GError) error = NULL;

    if (!command_parse("- see what this host's desktops do", entries, &argc,
                       &argv)) {
        return COMMAND_USAGE;
    }
    if (argc > 1 || t.interval < 1 || t.interval > INTERVAL_MAX) {
        fprintf(stderr, "deskcast: --interval takes 1 to %d seconds, and there "
                "are no arguments\n", INTERVAL_MAX);
        return COMMAND_USAGE;
    }
    t.asker = asker_new(&t.options, &error);
    if (!t.asker) {
        return command_fail(t.json, error);
    }
    return t.once ? run_once(&t)
         : t.json || !screen_is_there() ? run_plain(&t) : run_screen(&t);
}

/*
 * A host's desktops, all asked at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "asker.h"
#include "lister.h"

#include "cli/qmp.h"

#define TIMEOUT_MAX     60              /* s */
#define RELAY_MAX       (4 << 20)       /* bytes of its status */

struct Asker {
    Lister *lister;
    char *relay;
    int timeout_ms;
    GHashTable *silent;         /* names of desktops that did not answer */
};

/* What the threads of one round share */
typedef struct Round {
    gint64 end;                 /* of g_get_monotonic_time() */
    int timeout_ms;
} Round;

void asker_options_clear(AskerOptions *o)
{
    g_clear_pointer(&o->uri, g_free);
    g_clear_pointer(&o->relay, g_free);
}

Asker *asker_new(const AskerOptions *options, GError **error)
{
    Asker *a;

    if (options->timeout < 0 || options->timeout > TIMEOUT_MAX) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--timeout takes 1 to %d seconds", TIMEOUT_MAX);
        return NULL;
    }
    a = g_new0(Asker, 1);
    a->lister = lister_new(options->uri ? options->uri : ASKER_URI);
    a->relay = g_strdup(options->relay ? options->relay : ASKER_RELAY);
    a->timeout_ms = (options->timeout ? options->timeout : ASKER_TIMEOUT) *
                    1000;
    a->silent = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    return a;
}

static JsonNode *query(const char *monitor, gint64 end, GError **error)
{
    int left = (end - g_get_monotonic_time()) / 1000;
    g_autoptr(Qmp) qmp = NULL;

    if (left <= 0) {
        g_set_error(error, QMP_ERROR, QMP_ERROR_TIMEOUT,
                    "there was no time left to ask it");
        return NULL;
    }
    qmp = qmp_connect(monitor, left, error);
    left = MAX((end - g_get_monotonic_time()) / 1000, 0);
    return qmp ? qmp_execute(qmp, left, error, "query-vdisks", NULL) : NULL;
}

/* In a thread of the pool: @data is that thread's alone */
static void ask(void *data, void *opaque)
{
    const Round *round = opaque;
    DesktopSample *d = data;
    gint64 begun = g_get_monotonic_time();
    gint64 end = MIN(begun + round->timeout_ms * INT64_C(1000), round->end);
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = query(d->metadata->monitor, end, &error);

    if (!answer) {
        d->trouble = g_strdup(error->message);
    } else if (desktop_sample_take(d, answer)) {
        d->answer = (g_get_monotonic_time() - begun) / 1e6;
    }
}

static void post(const Asker *a, const HostSample *s, GThreadPool *pool,
                 bool silent)
{
    for (guint i = 0; i < s->desktops->len; i++) {
        DesktopSample *d = g_ptr_array_index(s->desktops, i);

        if (d->running && d->metadata &&
            g_hash_table_contains(a->silent, d->name) == silent) {
            g_thread_pool_push(pool, d, NULL);
        }
    }
}

static void remember(Asker *a, const HostSample *s)
{
    g_hash_table_remove_all(a->silent);
    for (guint i = 0; i < s->desktops->len; i++) {
        const DesktopSample *d = g_ptr_array_index(s->desktops, i);

        if (d->running && !d->up) {
            g_hash_table_add(a->silent, g_strdup(d->name));
        }
    }
}

static void read_relay(const Asker *a, HostSample *s)
{
    g_autofree char *text = NULL;
    gsize length;

    if (g_file_get_contents(a->relay, &text, &length, NULL) &&
        length <= RELAY_MAX) {
        s->relay = relay_sample_parse(text, length);
    }
}

HostSample *asker_ask(Asker *a)
{
    HostSample *s = host_sample_new();
    gint64 begun = g_get_monotonic_time();
    Round round = { .timeout_ms = a->timeout_ms };
    GThreadPool *pool;

    lister_list(a->lister, s, a->timeout_ms);
    round.end = g_get_monotonic_time() +
                a->timeout_ms * INT64_C(1000) * ASKER_ROUNDS;
    pool = g_thread_pool_new(ask, &round, ASKER_THREADS, FALSE, NULL);
    post(a, s, pool, false);
    post(a, s, pool, true);
    g_thread_pool_free(pool, FALSE, TRUE);
    remember(a, s);
    read_relay(a, s);
    s->seconds = (g_get_monotonic_time() - begun) / 1e6;
    return s;
}

/*
 * deskcast update start
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "host-commands.h"
#include "update.h"
#include "update-xml.h"

#include "block/pvs/journal-format.h"
#include "cli/commands.h"
#include "cli/desktop/create-plan.h"
#include "cli/desktop/journal-size.h"
#include "cli/desktop/xml.h"
#include "cli/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct Start {
    Update u;
    char *disk, *emulator, *source, *comment, *reserve, *journal;
    gboolean no_window;
    uint64_t reserve_bytes, journal_bytes;
    uint64_t version, size;
    char **paths, **formats;    /* mcs: its image and all below */
} Start;

static void start_clear(Start *s)
{
    update_clear(&s->u);
    g_free(s->disk);
    g_free(s->emulator);
    g_free(s->source);
    g_free(s->comment);
    g_free(s->reserve);
    g_free(s->journal);
    g_strfreev(s->paths);
    g_strfreev(s->formats);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Start, start_clear)

static bool fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool fail(GError **error, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, text);
    return false;
}

/* The version that is written: a new one, or the one that was begun */
static Version *get_version(Start *s, GError **error)
{
    Update *u = &s->u;
    Version *v = manifest_maintenance(u->manifest);
    VersionPlan plan = {
        .label = u->catalog->model == MODEL_PVS,
        .comment = s->comment,
    };

    if (u->catalog->update) {
        if (v && v->number == u->catalog->update) {
            return v;
        }
        fail(error, "the catalog says that version %" PRIu64 " is written, but "
             "it is not in maintenance: 'deskcast update finish', or 'abort'",
             u->catalog->update);
        return NULL;
    }
    if (v) {
        fail(error, "version %" PRIu64 " of '%s' is in maintenance already: "
             "seal it, or remove it by 'deskcast version rm'", v->number,
             u->catalog->vdisk);
        return NULL;
    }
    return store_version_begin(u->store, u->manifest, &plan, error);
}

/* Of the version and what it is an overlay on */
static void note_chain(Start *s, const Version *v)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new();
    g_autoptr(GPtrArray) formats = g_ptr_array_new();
    const Update *u = &s->u;

    for (; v; v = manifest_version(u->manifest, v->parent)) {
        g_ptr_array_add(paths, store_path(u->store, u->catalog->vdisk,
                                          v->image));
        g_ptr_array_add(formats, g_strdup(v->format));
    }
    g_ptr_array_add(paths, NULL);
    g_ptr_array_add(formats, NULL);
    s->paths = (char **)g_ptr_array_free(g_steal_pointer(&paths), FALSE);
    s->formats = (char **)g_ptr_array_free(g_steal_pointer(&formats), FALSE);
}

/* With the store's lock held */
static bool begin_version(Start *s, GError **error)
{
    Update *u = &s->u;
    Version *v;

    if (!update_open(u, error)) {
        return false;
    }
    if (u->catalog->model == MODEL_MCS && store_on_rbd(u->store)) {
        return fail(error, "the images of this store are on Ceph, which the "
                    "master of an mcs catalog cannot write to");
    }
    v = get_version(s, error);
    if (!v) {
        return false;
    }
    s->version = v->number;
    s->size = v->size;
    note_chain(s, v);
    if (!u->catalog->update && !update_note(u, v->number, error)) {
        u->changed = !store_version_remove(u->store, u->manifest, s->version,
                                           NULL);
        return false;
    }
    u->changed = true;
    update_close(u);
    return true;
}

/* Not a relay's: it only reads */
static const char *writable_source(const Start *s)
{
    char **sources = s->u.catalog->stores;

    if (s->source) {
        return s->source;
    }
    for (char **uri = sources; uri && *uri; uri++) {
        if (!g_str_has_prefix(*uri, "nbd+unix:")) {
            return *uri;
        }
    }
    return sources ? sources[0] : NULL;
}

static char *file_name(const Start *s, const char *end)
{
    g_autofree char *name = g_strconcat(s->u.master->name, "-update.", end,
                                        NULL);

    return g_build_filename(s->u.catalog->folder, name, NULL);
}

static DesktopMetadata *private_disk(const Start *s)
{
    DesktopMetadata *d = g_new0(DesktopMetadata, 1);
    const CatalogMetadata *c = s->u.catalog;
    const char *sources[] = { writable_source(s), NULL };

    d->catalog = g_strdup(c->catalog);
    d->vdisk = g_strdup(c->vdisk);
    d->model = MODEL_PVS;
    d->lifetime = LIFETIME_PRIVATE;
    d->run = RUN_IN_PROCESS;
    d->disk = file_name(s, "copy");
    d->journal = file_name(s, "journal");
    d->node = g_strdup(UPDATE_NODE);
    d->monitor = desktop_monitor_path(s->u.master->name);
    d->stores = g_strdupv((char **)sources);
    d->write_cache = s->journal_bytes;
    d->wanted.number = s->version;
    d->wanted.size = s->size;
    return d;
}

static char *make_xml(const Start *s, const char *master, GError **error)
{
    g_autoptr(DesktopMetadata) d = NULL;
    const char *emulator = s->emulator ? s->emulator
                         : g_getenv("DESKCAST_EMULATOR");

    if (s->u.catalog->model == MODEL_MCS) {
        return update_xml_mcs(master, s->disk, s->paths, s->formats, error);
    }
    d = private_disk(s);
    return update_xml_pvs(master, s->disk, d, emulator ? emulator
                          : DESKTOP_EMULATOR, error);
}

static bool run_master(Start *s, GError **error)
{
    Update *u = &s->u;
    DomainJob *job = domain_job_do(u->survey->fleet, u->master->host,
                                   domain_job_get_xml,
                                   domain_job_of(u->master), error);
    char *xml = job ? make_xml(s, job->xml, error) : NULL;

    if (!xml) {
        g_clear_pointer(&job, domain_job_free);
        return false;
    }
    free(job->xml);
    job->xml = xml;
    job->patience_ms = FLEET_LONG_MS + journal_make_ms(s->journal_bytes);
    return domain_job_run(u->survey->fleet, u->master->host,
                          domain_job_run_xml, job, error);
}

static char *window_command(const Start *s)
{
    g_autofree char *reserve = s->reserve_bytes
        ? g_strdup_printf(",\"reserve\":%" PRIu64, s->reserve_bytes)
        : g_strdup("");

    return g_strdup_printf("{\"execute\":\"vdisk-window-open\",\"arguments\":"
                           "{\"node-name\":\"" UPDATE_NODE "\"%s}}", reserve);
}

static bool open_window(Start *s, GError **error)
{
    g_autofree char *command = window_command(s);
    g_autofree char *answer = NULL;
    bool window = false;
    int64_t lag;

    if (!update_buffer(&s->u, &window, &lag, error)) {
        return false;
    }
    if (window) {
        return true;            /* it came back with the disk */
    }
    answer = update_qmp(&s->u, command, error);
    s->u.changed |= answer != NULL;
    if (!answer || !update_wait_job(&s->u, "making the vDisk local", error) ||
        !update_buffer(&s->u, &window, &lag, error)) {
        return false;
    }
    return window || fail(error, "the update window did not open; see the "
                          "log of the master's QEMU");
}

static bool prepare_window(Start *s, GError **error)
{
    if (s->u.catalog->model == MODEL_PVS && !s->no_window &&
        !open_window(s, error)) {
        g_prefix_error(error, "the master runs on version %" PRIu64 ", but "
                       "there is no update window ('deskcast update start' "
                       "tries again): ", s->version);
        return false;
    }
    return true;
}

/* The master runs: on the version, if a start came that far, perhaps after its
 * command had given up */
static bool go_on(Start *s, GError **error)
{
    const CatalogMetadata *catalog = s->u.catalog;
    bool window;
    int64_t lag;

    if (catalog->model != MODEL_PVS || !catalog->update ||
        !update_buffer(&s->u, &window, &lag, NULL)) {
        return fail(error, "the master VM '%s' runs: shut it down first",
                    s->u.master->name);
    }
    s->version = catalog->update;
    return prepare_window(s, error);
}

static bool holds(uint64_t journal_bytes, uint64_t reserve)
{
    return journal_bytes > JOURNAL_RING_OFFSET &&
           journal_reserve_max(journal_bytes - JOURNAL_RING_OFFSET) >= reserve;
}

/* One in which what is to be reserved finds room */
static bool plan_journal(Start *s, GError **error)
{
    uint64_t need = journal_size_for(s->reserve_bytes);

    if (!s->reserve_bytes) {
        return true;
    }
    if (need > JOURNAL_MAX_BYTES) {
        return fail(error, "no reconnect buffer is large enough for --reserve "
                    "%s", s->reserve);
    }
    if (s->journal && !holds(s->journal_bytes, s->reserve_bytes)) {
        return fail(error, "a reconnect buffer of %s is too small for "
                    "--reserve %s: give --journal %" PRIu64 "M, or none",
                    s->journal, s->reserve, need >> 20);
    }
    if (!s->journal) {
        s->journal_bytes = MAX(JOURNAL_BYTES, need);
    }
    return true;
}

static bool start(Start *s, GError **error)
{
    Update *u = &s->u;

    if (u->master->running) {
        return go_on(s, error);
    }
    if (u->catalog->model == MODEL_PVS && !writable_source(s)) {
        return fail(error, "the catalog has no source: give the address of "
                    "its store by --source");
    }
    if (!plan_journal(s, error) || !begin_version(s, error)) {
        return false;
    }
    if (!run_master(s, error)) {
        g_prefix_error(error, "version %" PRIu64 " is made, but the master did "
                       "not start ('deskcast update start' tries again, "
                       "'abort' gives up): ", s->version);
        return false;
    }
    return prepare_window(s, error);
}

static bool parse_sizes(Start *s, GError **error)
{
    return (!s->reserve ||
            units_parse_size(s->reserve, &s->reserve_bytes, error)) &&
           (!s->journal ||
            units_parse_size(s->journal, &s->journal_bytes, error));
}

int command_update_start(int argc, char **argv)
{
    g_auto(Start) s = { 0 };
    GOptionEntry entries[] = {
        { "disk", 0, 0, G_OPTION_ARG_STRING, &s.disk,
          "The system disk, if the master has several", "TARGET" },
        { "comment", 0, 0, G_OPTION_ARG_STRING, &s.comment,
          "What the version is for", "TEXT" },
        { "source", 0, 0, G_OPTION_ARG_STRING, &s.source,
          "pvs: the store's server (default: the catalog's first that is no "
          "relay)", "URI" },
        { "no-window", 0, 0, G_OPTION_ARG_NONE, &s.no_window,
          "pvs: open no update window", NULL },
        { "reserve", 0, 0, G_OPTION_ARG_STRING, &s.reserve,
          "pvs: what the guest may write in the window", "SIZE" },
        { "journal", 0, 0, G_OPTION_ARG_STRING, &s.journal,
          "pvs: size of the reconnect buffer", "SIZE" },
        { "emulator", 0, 0, G_OPTION_ARG_FILENAME, &s.emulator,
          "pvs: QEMU with our drivers, on the host", "FILE" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &s.u.json, "Answer in JSON", NULL },
        HOST_OPTION_ENTRIES(&s.u.hosts),
        { NULL }
    };
    g_autoptr(GError) error = NULL;

    if (!command_parse("CATALOG - start its master VM on a new version",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2 || !parse_sizes(&s, &error)) {
        fprintf(stderr, "deskcast: %s\n", error ? error->message
                                                : "give one catalog");
        return COMMAND_USAGE;
    }
    if (update_find(&s.u, argv[1], &error)) {
        start(&s, &error);
    }
    return update_end(&s.u, "update start", s.version, "is written by its "
                      "master VM", error);
}

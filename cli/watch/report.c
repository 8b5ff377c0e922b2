/*
 * deskcast report: what was recorded of a host's desktops, as a page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "asker.h"
#include "host-json.h"
#include "report-page.h"
#include "watch-commands.h"

#include "cli/commands.h"
#include "cli/serve/report.h"
#include "cli/serve/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INTERVAL        15          /* s */
#define INTERVAL_MAX    120         /* REPORT_GAP is more than two */
#define LINE_MAX_BYTES  (32 << 20)

typedef struct Recorder {
    AskerOptions options;
    char *record, *output, *title;
    int interval;
    unsigned bad;                   /* lines that are no sample */
    Asker *asker;
    int fd;
    gint64 next;
} Recorder;

static void recorder_clear(Recorder *r)
{
    asker_options_clear(&r->options);
    g_free(r->record);
    g_free(r->output);
    g_free(r->title);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Recorder, recorder_clear)

/* Whole, or not at all: a half line would spoil the one behind it */
static bool write_line(int fd, const char *text, size_t length)
{
    off_t end = lseek(fd, 0, SEEK_END);

    if (write(fd, text, length) == (ssize_t)length) {
        return true;
    }
    return ftruncate(fd, end) == 0 && false;
}

static void tick(void *opaque)
{
    Recorder *r = opaque;
    g_autoptr(HostSample) sample = NULL;
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *text = NULL, *line = NULL;

    if (g_get_monotonic_time() < r->next) {
        return;
    }
    r->next = g_get_monotonic_time() + r->interval * G_USEC_PER_SEC;
    sample = asker_ask(r->asker);
    report_state("libvirt", sample->libvirt_trouble);
    json_node_take_object(node, host_sample_json(sample));
    text = json_to_string(node, FALSE);
    line = g_strconcat(text, "\n", NULL);
    report_state(r->record, write_line(r->fd, line, strlen(line))
                 ? NULL : g_strerror(errno));
}

static int record(Recorder *r)
{
    g_autoptr(GError) error = NULL;

    r->asker = asker_new(&r->options, &error);
    if (!r->asker) {
        return command_fail(false, error);
    }
    r->fd = open(r->record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (r->fd < 0) {
        fprintf(stderr, "deskcast: cannot write %s: %s\n", r->record,
                g_strerror(errno));
        return COMMAND_FAILED;
    }
    report("a look each %d s goes to %s", r->interval, r->record);
    report_ready();
    service_run(tick, tick, r);
    close(r->fd);
    return COMMAND_DONE;
}

static void add_line(Recorder *r, ReportData *data, const char *line,
                     gsize length)
{
    HostSample *s = length && length <= LINE_MAX_BYTES
                    ? host_sample_from_json(line, length, NULL) : NULL;

    if (s) {
        report_data_add(data, s);
    } else {
        r->bad += length > 0;
    }
}

static bool add_file(Recorder *r, ReportData *data, const char *path,
                     GError **error)
{
    g_autoptr(GFile) file = g_file_new_for_path(path);
    g_autoptr(GFileInputStream) in = g_file_read(file, NULL, error);
    g_autoptr(GDataInputStream) lines = NULL;
    g_autoptr(GError) why = NULL;
    char *line;
    gsize length;

    if (!in) {
        return false;
    }
    lines = g_data_input_stream_new(G_INPUT_STREAM(in));
    while ((line = g_data_input_stream_read_line(lines, &length, NULL,
                                                 &why))) {
        add_line(r, data, line, length);
        g_free(line);
    }
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
    }
    return !*error;
}

static bool write_page(const Recorder *r, const ReportData *data,
                       GError **error)
{
    g_autofree char *usual = g_strdup_printf("Desktops on %s",
                                             g_get_host_name());
    g_autofree char *page = report_page(data, r->title ? r->title : usual);

    if (!r->output) {
        fputs(page, stdout);
        return true;
    }
    return g_file_set_contents_full(r->output, page, -1,
                                    G_FILE_SET_CONTENTS_CONSISTENT, 0644,
                                    error);
}

static int draw(Recorder *r, char **files)
{
    g_autoptr(ReportData) data = report_data_new();
    g_autoptr(GError) error = NULL;

    for (; *files; files++) {
        if (!add_file(r, data, *files, &error)) {
            return command_fail(false, error);
        }
    }
    if (r->bad) {
        fprintf(stderr, "deskcast: %u lines are no samples, and were left "
                "out\n", r->bad);
    }
    if (!data->samples) {
        fprintf(stderr, "deskcast: there is no sample; 'deskcast report "
                "--record FILE' writes them\n");
        return COMMAND_FAILED;
    }
    return write_page(r, data, &error) ? COMMAND_DONE
                                       : command_fail(false, error);
}

int command_report(int argc, char **argv)
{
    g_auto(Recorder) r = { .interval = INTERVAL };
    const GOptionEntry entries[] = {
        { "record", 0, 0, G_OPTION_ARG_FILENAME, &r.record,
          "Look again and again, and append what is seen", "FILE" },
        { "interval", 'i', 0, G_OPTION_ARG_INT, &r.interval,
          "Seconds from one look to the next (default: 15)", "S" },
        { "output", 'o', 0, G_OPTION_ARG_FILENAME, &r.output,
          "Where the page goes (default: standard output)", "FILE" },
        { "title", 0, 0, G_OPTION_ARG_STRING, &r.title,
          "Title of the page", "TEXT" },
        ASKER_OPTION_ENTRIES(&r.options),
        { NULL }
    };

    if (!command_parse("[FILE…] - draw what was recorded of desktops", entries,
                       &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if ((argc > 1) == (r.record != NULL) || r.interval < 1 ||
        r.interval > INTERVAL_MAX) {
        fprintf(stderr, "deskcast: give files that were recorded, or --record; "
                "--interval takes 1 to %d seconds\n", INTERVAL_MAX);
        return COMMAND_USAGE;
    }
    return r.record ? record(&r) : draw(&r, argv + 1);
}

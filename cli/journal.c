/*
 * deskcast journal: what a reconnect buffer holds, and getting it out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "audit.h"
#include "commands.h"
#include "disk-commands.h"
#include "journal-file.h"
#include "store/durable.h"
#include "store/source-check.h"
#include "write-lock.h"
#include "block/vdisk/header.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Zeros written at once */
#define ZEROS   (1024 * 1024)

typedef struct Rescue {
    const JournalFile *file;
    uint64_t first, last;       /* epochs */
    bool past_damage;           /* what cannot be read is left out */
    uint64_t writes, bytes, skipped;
} Rescue;

static const char *state_of(const JournalFile *f)
{
    return f->header.broken ? "broken" :
           f->scan.damaged || f->unreadable ? "damaged" : "sound";
}

static char *hex(const uint8_t *bytes, size_t n)
{
    GString *s = g_string_new(NULL);

    for (size_t i = 0; i < n; i++) {
        g_string_append_printf(s, "%02x", bytes[i]);
    }
    return g_string_free(s, false);
}

static const JournalItem *item(const JournalFile *f, guint i)
{
    return &g_array_index(f->items, JournalItem, i);
}

/* Epochs, for people and machines */

static JsonArray *epochs(const JournalFile *f)
{
    JsonArray *all = json_array_new();

    for (guint i = 0, next; i < f->items->len; i = next) {
        uint64_t number = item(f, i)->record.epoch, bytes = 0;
        JsonObject *o = json_object_new();

        for (next = i; next < f->items->len &&
             item(f, next)->record.epoch == number; next++) {
            bytes += item(f, next)->record.length;
        }
        json_object_set_int_member(o, "epoch", number);
        json_object_set_int_member(o, "writes", next - i);
        json_object_set_int_member(o, "bytes", bytes);
        json_object_set_boolean_member(o, "past-damage",
                                       item(f, i)->past_damage);
        json_array_add_object_element(all, o);
    }
    return all;
}

static void print_object(JsonObject *object)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *text = NULL;

    json_node_take_object(root, object);
    json_generator_set_root(generator, root);
    text = json_generator_to_data(generator, NULL);
    printf("%s\n", text);
}

static JsonObject *describe(const JournalFile *f)
{
    const JournalHeader *h = &f->header;
    g_autofree char *content = hex(h->label.content, sizeof(h->label.content));
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "vdisk", h->vdisk);
    json_object_set_int_member(o, "version", h->version);
    json_object_set_int_member(o, "virtual-size", h->virtual_size);
    json_object_set_string_member(o, "state", state_of(f));
    json_object_set_boolean_member(o, "in-use", f->in_use);
    json_object_set_boolean_member(o, "window", h->window);
    json_object_set_string_member(o, "content", content);
    json_object_set_int_member(o, "writer-generation", h->label.writer);
    json_object_set_int_member(o, "size", h->ring_size);
    json_object_set_int_member(o, "used", f->scan.next.pos - h->tail.pos);
    json_object_set_int_member(o, "first-bad-record", f->scan.next.seq);
    json_object_set_int_member(o, "first-bad-offset", JOURNAL_RING_OFFSET +
                               f->scan.next.pos % h->ring_size);
    json_object_set_int_member(o, "known-durable",
                               f->scan.damaged ? f->scan.proof_durable
                                               : f->scan.durable);
    json_object_set_int_member(o, "unreadable", f->unreadable);
    json_object_set_array_member(o, "epochs", epochs(f));
    return o;
}

static void print_text(const JournalFile *f)
{
    const JournalHeader *h = &f->header;
    g_autoptr(JsonArray) list = epochs(f);

    printf("vDisk       %s, version %" PRIu64 ", %" PRIu64 " bytes\n",
           h->vdisk, h->version, h->virtual_size);
    printf("state       %s%s%s\n", state_of(f),
           f->in_use ? ", in use" : "", h->window ? ", update window open" : "");
    printf("label       writer %" PRIu64 "\n", h->label.writer);
    printf("buffer      %" PRIu64 " of %" PRIu64 " bytes in use\n",
           f->scan.next.pos - h->tail.pos, h->ring_size);
    if (f->scan.damaged) {
        printf("damage      record %" PRIu64 " at byte %" PRIu64 " cannot be "
               "read, and %" PRIu64 " were flushed\n", f->scan.next.seq,
               JOURNAL_RING_OFFSET + f->scan.next.pos % h->ring_size,
               f->scan.proof_durable);
    }
    if (f->unreadable) {
        printf("unreadable  %" PRIu64 " bytes, the first of them byte %" PRId64
               "\n", f->unreadable, (int64_t)f->first_unreadable);
    }
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonObject *o = json_array_get_object_element(list, i);

        printf("epoch       %" PRId64 ": %" PRId64 " writes, %" PRId64
               " bytes%s\n", json_object_get_int_member(o, "epoch"),
               json_object_get_int_member(o, "writes"),
               json_object_get_int_member(o, "bytes"),
               json_object_get_boolean_member(o, "past-damage")
               ? ", past the damage" : "");
    }
    if (f->items->len == 0) {
        printf("            nothing that the store does not have\n");
    }
}

int command_journal_show(int argc, char **argv)
{
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Answer in JSON", NULL },
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(JournalFile) f = NULL;

    if (!command_parse("FILE - tell what a reconnect buffer holds", entries,
                       &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2) {
        fprintf(stderr, "deskcast: give one reconnect buffer\n");
        return COMMAND_USAGE;
    }
    f = journal_file_read(argv[1], true, &error);
    if (!f) {
        g_prefix_error(&error, "%s: ", argv[1]);
        return command_fail(json, error);
    }
    if (json) {
        print_object(describe(f));
    } else {
        print_text(f);
    }
    return COMMAND_DONE;
}

/* Rescue */

static bool wanted(const Rescue *r, const JournalItem *it)
{
    return it->record.epoch >= r->first && it->record.epoch <= r->last;
}

static bool write_all(int fd, const uint8_t *buf, size_t bytes, off_t offset,
                      GError **error)
{
    return durable_pwrite(fd, buf, bytes, offset) ||
           journal_file_errno(error, "cannot write");
}

static bool write_zeros(int fd, uint64_t offset, uint64_t bytes, GError **error)
{
    g_autofree uint8_t *zeros = NULL;

    if (fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset,
                  bytes) == 0) {
        return true;
    }
    zeros = g_malloc0(ZEROS);
    while (bytes > 0) {
        uint64_t n = MIN(bytes, ZEROS);

        if (!write_all(fd, zeros, n, offset, error)) {
            return false;
        }
        offset += n;
        bytes -= n;
    }
    return true;
}

/*
 * It could be read a moment ago. Without --past-damage that is the end: what
 * follows is not written over a gap unless that is wanted.
 */
static bool skip(Rescue *r, GError *unreadable, GError **error)
{
    if (!r->past_damage) {
        g_set_error(error, unreadable->domain, unreadable->code,
                    "%s; --past-damage leaves it out", unreadable->message);
        g_error_free(unreadable);
        return false;
    }
    fprintf(stderr, "deskcast: left out: %s\n", unreadable->message);
    g_error_free(unreadable);
    r->skipped++;
    return true;
}

static bool put(Rescue *r, int fd, const JournalItem *it, GError **error)
{
    g_autofree uint8_t *buf = NULL;
    GError *unreadable = NULL;
    bool ok;

    if (it->record.type == JOURNAL_ZERO) {
        ok = write_zeros(fd, it->record.offset, it->record.length, error);
    } else {
        buf = g_malloc(it->record.length);
        if (!journal_file_content(r->file, it, buf, &unreadable)) {
            return skip(r, unreadable, error);
        }
        ok = write_all(fd, buf, it->record.length, it->record.offset, error);
    }
    r->writes += ok;
    r->bytes += ok ? it->record.length : 0;
    return ok;
}

static void progress(const Rescue *r, guint done)
{
    guint all = r->file->items->len;

    if (isatty(STDERR_FILENO) && (done % 256 == 0 || done == all)) {
        fprintf(stderr, "\r%u of %u writes%s", done, all,
                done == all ? "\n" : "");
    }
}

static bool apply_all(Rescue *r, int fd, GError **error)
{
    for (guint i = 0; i < r->file->items->len; i++) {
        if (wanted(r, item(r->file, i)) &&
            !put(r, fd, item(r->file, i), error)) {
            return false;
        }
        progress(r, i + 1);
    }
    return fsync(fd) == 0 || journal_file_errno(error, "cannot flush");
}

/* What it begins like; NULL if it may be raw */
static const char *format_of(int fd)
{
    uint8_t head[512] = {};     /* what cannot be read is met, and told, later */
    ssize_t bytes = MAX(pread(fd, head, sizeof(head), 0), 0);
    VdiskRole role;

    return vdisk_header_probe(head, bytes, &role) ? "a layer or a local copy" :
           journal_header_probe(head, bytes) ? "a reconnect buffer" :
           source_looks_like(head, bytes);
}

/* It is to be written to: nobody else does, and it is what it has to be */
static bool check_target(const Rescue *r, int fd, GError **error)
{
    off_t length = lseek(fd, 0, SEEK_END);
    const char *format = format_of(fd);

    if (format) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "the image is not raw, but %s; make a raw copy of it "
                    "('qemu-img convert -O raw'), and apply to that", format);
    } else if (length < (off_t)r->file->header.virtual_size) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "the image has %" PRId64 " bytes, and the vDisk %" PRIu64,
                    (int64_t)length, r->file->header.virtual_size);
    } else if (!write_lock_take(fd, true)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY, "the image is in use; "
                    "shut down what has it open, or apply to a copy of it");
    } else {
        return true;
    }
    return false;
}

static bool apply_to(Rescue *r, const char *path, GError **error)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool ok;

    if (fd < 0) {
        return journal_file_errno(error, "cannot open the image");
    }
    ok = check_target(r, fd, error) && apply_all(r, fd, error);
    close(fd);
    if (r->writes) {
        audit("journal rescue", r->file->header.vdisk, r->file->header.version,
              "%" PRIu64 " writes into %s%s", r->writes, path,
              ok ? "" : ", not to its end");
    }
    return ok;
}

/* A sparse image of what the epoch wrote, and a list of where that is */
static bool output_epoch(Rescue *r, const char *dir, guint from, guint to,
                         GError **error)
{
    uint64_t number = item(r->file, from)->record.epoch;
    g_autofree char *image = g_strdup_printf("%s/epoch-%" PRIu64 ".raw", dir,
                                             number);
    g_autofree char *list = g_strdup_printf("%s/epoch-%" PRIu64 ".txt", dir,
                                            number);
    g_autoptr(GString) text =
        g_string_new("# sequence  offset  bytes  kind\n");
    int fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && ftruncate(fd, r->file->header.virtual_size) == 0;

    if (!ok) {
        journal_file_errno(error, image);
    }
    for (guint i = from; i < to && ok; i++) {
        const JournalRecord *rec = &item(r->file, i)->record;
        uint64_t skipped = r->skipped;

        ok = put(r, fd, item(r->file, i), error);
        if (r->skipped > skipped) {
            continue;
        }
        g_string_append_printf(text, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n",
                               rec->seq, rec->offset, rec->length,
                               rec->type == JOURNAL_ZERO ? "zero" : "write");
    }
    ok = ok && (fsync(fd) == 0 || journal_file_errno(error, image)) &&
         g_file_set_contents(list, text->str, text->len, error);
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static bool output_to(Rescue *r, const char *dir, GError **error)
{
    const JournalFile *f = r->file;

    if (g_mkdir_with_parents(dir, 0700) < 0) {
        return journal_file_errno(error, dir);
    }
    for (guint i = 0, next; i < f->items->len; i = next) {
        for (next = i; next < f->items->len && item(f, next)->record.epoch ==
             item(f, i)->record.epoch; next++) {
        }
        if (wanted(r, item(f, i)) && !output_epoch(r, dir, i, next, error)) {
            return false;
        }
        progress(r, next);
    }
    return true;
}

/* "A-B", "A-", "-B" or "A" */
static bool parse_epochs(Rescue *r, const char *text)
{
    char *end;

    r->first = 0;
    r->last = UINT64_MAX;
    if (!text) {
        return true;
    }
    if (*text != '-') {
        r->first = g_ascii_strtoull(text, &end, 10);
        if (end == text) {
            return false;
        }
        if (*end == '\0') {
            r->last = r->first;
            return true;
        }
        text = end;
    }
    if (*text++ != '-') {
        return false;
    }
    if (*text) {
        r->last = g_ascii_strtoull(text, &end, 10);
        return *end == '\0' && r->last >= r->first;
    }
    return true;
}

static int report(const Rescue *r, const char *to, bool json)
{
    if (json) {
        JsonObject *o = json_object_new();

        json_object_set_string_member(o, "to", to);
        json_object_set_int_member(o, "writes", r->writes);
        json_object_set_int_member(o, "bytes", r->bytes);
        json_object_set_int_member(o, "left-out", r->skipped);
        json_object_set_string_member(o, "state", state_of(r->file));
        print_object(o);
    } else {
        printf("%s: %" PRIu64 " writes, %" PRIu64 " bytes of a buffer that is "
               "%s\n", to, r->writes, r->bytes, state_of(r->file));
    }
    return COMMAND_DONE;
}

int command_journal_rescue(int argc, char **argv)
{
    g_autofree char *output = NULL, *image = NULL, *only = NULL;
    gboolean json = FALSE, past_damage = FALSE, yes = FALSE;
    GOptionEntry entries[] = {
        { "output", 'o', 0, G_OPTION_ARG_FILENAME, &output,
          "Write an image and a list for each epoch into this folder", "DIR" },
        { "apply", 'a', 0, G_OPTION_ARG_FILENAME, &image,
          "Write the epochs in order into this raw image", "IMAGE" },
        { "epochs", 'e', 0, G_OPTION_ARG_STRING, &only,
          "These only (default: all)", "A-B" },
        { "past-damage", 0, 0, G_OPTION_ARG_NONE, &past_damage,
          "Also what is sound by itself behind what cannot be read", NULL },
        { "yes", 'y', 0, G_OPTION_ARG_NONE, &yes,
          "Change the image of --apply", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Answer in JSON", NULL },
        { NULL }
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(JournalFile) f = NULL;
    Rescue r = {};
    bool ok;

    if (!command_parse("FILE - get out what a reconnect buffer holds",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 2 || !output == !image || !parse_epochs(&r, only)) {
        fprintf(stderr, "deskcast: give one reconnect buffer, and --output or "
                "--apply\n");
        return COMMAND_USAGE;
    }
    if (image && !yes) {
        fprintf(stderr, "deskcast: '%s' would be changed; --yes does it\n",
                image);
        return COMMAND_USAGE;
    }
    f = journal_file_read(argv[1], past_damage, &error);
    r.file = f;
    r.past_damage = past_damage;
    if (f && f->in_use) {
        g_set_error(&error, G_IO_ERROR, G_IO_ERROR_BUSY,
                    "a disk uses it; shut that down first");
    }
    ok = f && !error && (image ? apply_to(&r, image, &error)
                     : output_to(&r, output, &error));
    if (!ok) {
        g_prefix_error(&error, "%s: ", argv[1]);
        return command_fail(json, error);
    }
    return report(&r, image ? image : output, json);
}

/*
 * A reconnect buffer as evidence: read, and never written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "journal-file.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <unistd.h>

/* QEMU's image lock of whoever writes: see layer-file.c */
#define LOCK_WRITER     101
#define WINDOW          (4 * 1024 * 1024)

bool journal_file_errno(GError **error, const char *what)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved), "%s: %s",
                what, g_strerror(saved));
    return false;
}

static bool is_in_use(int fd)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_WRITER,
        .l_len = 1,
    };

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static bool read_at(int fd, void *buf, size_t bytes, off_t offset,
                    GError **error)
{
    ssize_t n = pread(fd, buf, bytes, offset);

    if (n < 0) {
        return journal_file_errno(error, "cannot read it");
    }
    if ((size_t)n < bytes) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                            "it was cut off");
        return false;
    }
    return true;
}

static bool open_file(JournalFile *f, const char *path, GError **error)
{
    uint8_t buf[JOURNAL_HEADER_COPIES * JOURNAL_HEADER_BYTES];
    g_autofree char *why = NULL;

    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0) {
        return journal_file_errno(error, "cannot open it");
    }
    f->in_use = is_in_use(f->fd);
    if (!read_at(f->fd, buf, sizeof(buf), 0, error)) {
        return false;
    }
    if (journal_header_choose(&f->header, buf, &why) < 0) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, why);
        return false;
    }
    return true;
}

static off_t in_file(const JournalFile *f, uint64_t pos)
{
    return JOURNAL_RING_OFFSET + pos % f->header.ring_size;
}

static void add_item(JournalFile *f, const JournalRecord *r, uint64_t payload,
                     bool past_damage)
{
    JournalItem item = {
        .record = *r, .payload = in_file(f, payload),
        .past_damage = past_damage,
    };

    if (r->type == JOURNAL_WRITE || r->type == JOURNAL_ZERO) {
        g_array_append_val(f->items, item);
    }
}

static void valid_record(void *opaque, const JournalRecord *r, uint64_t payload)
{
    add_item(opaque, r, payload, false);
}

/* Reads at @pos of the ring as much as can be at once; 0 with @error set */
static size_t read_ring(const JournalFile *f, uint64_t pos, uint8_t *buf,
                        GError **error)
{
    uint64_t ring = f->header.ring_size;
    uint64_t left = journal_scan_end(&f->scan) - pos;
    size_t n = MIN(MIN(WINDOW, ring - pos % ring), left);

    return read_at(f->fd, buf, n, in_file(f, pos), error) ? n : 0;
}

/* It has a checksum, and is ours; what came before is not known */
static bool looks_valid(const JournalFile *f, const JournalRecord *r,
                        uint64_t rest)
{
    bool range = r->length > 0 && r->length <= f->header.virtual_size &&
                 r->offset <= f->header.virtual_size - r->length;

    return journal_scan_knows(&f->scan, r) &&
           (r->type == JOURNAL_ZERO ? range :
            r->type == JOURNAL_WRITE && range &&
            r->length <= journal_payload_max(f->header.ring_size) &&
            journal_record_space(r, f->header.unit) <= rest);
}

static bool payload_is_right(const JournalFile *f, const JournalRecord *r,
                             uint64_t payload)
{
    g_autofree uint8_t *buf = NULL;

    if (r->type != JOURNAL_WRITE) {
        return true;
    }
    buf = g_malloc(r->length);
    return read_at(f->fd, buf, r->length, in_file(f, payload), NULL) &&
           journal_checksum(buf, r->length) == r->payload;
}

static void look_past(JournalFile *f, uint64_t pos, const uint8_t *buf,
                      size_t n)
{
    uint32_t unit = f->header.unit;

    for (size_t at = 0; at + unit <= n; at += unit) {
        uint64_t rest = f->header.ring_size - (pos + at) % f->header.ring_size;
        JournalRecord r;

        if (journal_record_decode(&r, buf + at) && looks_valid(f, &r, rest) &&
            payload_is_right(f, &r, pos + at + unit)) {
            add_item(f, &r, pos + at + unit, true);
        }
    }
}

/* Until the monotonic time @until: *@whole is false if that comes first */
static bool read_records(JournalFile *f, uint8_t *buf, gint64 until,
                         bool *whole, GError **error)
{
    bool more = true;

    *whole = true;
    journal_scan_init(&f->scan, &f->header);
    while (more && f->scan.next.pos < journal_scan_end(&f->scan) &&
           (*whole = g_get_monotonic_time() <= until)) {
        uint64_t from = f->scan.next.pos;
        size_t n = read_ring(f, from, buf, error);

        if (n == 0) {
            return false;
        }
        more = journal_scan_records(&f->scan, buf, n, valid_record, f) &&
               f->scan.next.pos > from;
    }
    return true;
}

static bool read_rest(JournalFile *f, uint8_t *buf, bool past_damage,
                      GError **error)
{
    uint64_t end = journal_scan_end(&f->scan);
    size_t n;

    for (uint64_t pos = f->scan.next.pos; pos < end; pos += n) {
        n = read_ring(f, pos, buf, error);
        if (n == 0) {
            return false;
        }
        journal_scan_proof(&f->scan, pos, buf, n);
        if (past_damage) {
            look_past(f, pos, buf, n);
        }
    }
    journal_scan_proof(&f->scan, end, buf, 0);
    return true;
}

static int by_sequence(gconstpointer a, gconstpointer b)
{
    const JournalItem *x = a, *y = b;

    return x->record.seq < y->record.seq ? -1 : x->record.seq > y->record.seq;
}

JournalFile *journal_file_read(const char *path, bool past_damage,
                               GError **error)
{
    g_autoptr(JournalFile) f = g_new0(JournalFile, 1);
    g_autofree uint8_t *buf = g_malloc(WINDOW);
    bool whole;

    f->items = g_array_new(false, false, sizeof(JournalItem));
    f->fd = -1;
    if (!open_file(f, path, error) ||
        !read_records(f, buf, G_MAXINT64, &whole, error) ||
        !read_rest(f, buf, past_damage, error)) {
        return NULL;
    }
    g_array_sort(f->items, by_sequence);
    return g_steal_pointer(&f);
}

bool journal_file_lag(const char *path, gint64 until, JournalLag *lag,
                      GError **error)
{
    g_autoptr(JournalFile) f = g_new0(JournalFile, 1);
    g_autofree uint8_t *buf = g_malloc(WINDOW);

    f->items = g_array_new(false, false, sizeof(JournalItem));
    f->fd = -1;
    if (!open_file(f, path, error) ||
        !read_records(f, buf, until, &lag->whole, error)) {
        return false;
    }
    lag->header = f->header;
    lag->bytes = 0;
    for (guint i = 0; i < f->items->len; i++) {
        lag->bytes += g_array_index(f->items, JournalItem, i).record.length;
    }
    return true;
}

void journal_file_close(JournalFile *f)
{
    if (f->fd >= 0) {
        close(f->fd);
    }
    g_array_unref(f->items);
    g_free(f);
}

bool journal_file_content(const JournalFile *f, const JournalItem *item,
                          uint8_t *buf, GError **error)
{
    return read_at(f->fd, buf, item->record.length, item->payload, error);
}

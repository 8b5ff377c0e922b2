/*
 * A reconnect buffer as evidence: read, and never written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "journal-file.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <unistd.h>

/* QEMU's image lock of whoever writes: see layer-file.c */
#define LOCK_WRITER     101
#define WINDOW          (4 * 1024 * 1024)
/* Disks can or cannot read so much at least */
#define SECTOR          512

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

/*
 * As much as can be read, sector by sector; the rest is zeros, so that checksums
 * make it damage. Returns how many bytes that are; *@first is where they begin.
 */
static size_t salvage_at(int fd, uint8_t *buf, size_t bytes, off_t offset,
                         off_t *first)
{
    size_t at = 0, lost = 0, step = bytes;

    while (at < bytes) {
        size_t n = MIN(step, bytes - at);
        ssize_t got = pread(fd, buf + at, n, offset + at);

        if (got > 0) {
            at += got;
        } else if (got < 0 && errno != EINTR && n > SECTOR) {
            step = SECTOR;
        } else if (got == 0 || errno != EINTR) {
            n = got == 0 ? bytes - at : n;      /* it was cut off here */
            *first = lost ? *first : offset + (off_t)at;
            memset(buf + at, 0, n);
            lost += n;
            at += n;
        }
    }
    return lost;
}

static bool read_header(JournalFile *f, GError **error)
{
    uint8_t buf[JOURNAL_HEADER_COPIES * JOURNAL_HEADER_BYTES];
    g_autofree char *why = NULL;
    size_t lost = 0;
    off_t first;

    if (f->salvage) {
        lost = salvage_at(f->fd, buf, sizeof(buf), 0, &first);
    } else if (!read_at(f->fd, buf, sizeof(buf), 0, error)) {
        return false;
    }
    if (journal_header_choose(&f->header, buf, &why) < 0) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                            lost ? "its headers cannot be read, or were cut off"
                                 : why);
        return false;
    }
    if (f->header.incompatible_features) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "it uses features that this version does not know "
                    "(0x%" PRIx64 "); use a newer Deskcast",
                    f->header.incompatible_features);
        return false;
    }
    return true;
}

static bool open_file(JournalFile *f, const char *path, GError **error)
{
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0) {
        return journal_file_errno(error, "cannot open it");
    }
    f->in_use = is_in_use(f->fd);
    f->length = lseek(f->fd, 0, SEEK_END);
    if (f->length < 0) {
        return journal_file_errno(error, "cannot get its length");
    }
    return read_header(f, error);
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

/*
 * Reads at @pos of the ring as much as can be at once; 0 with @error set. In
 * *@lost is what could not be read of it, and was salvaged, from *@first on.
 */
static size_t read_ring(const JournalFile *f, uint64_t pos, uint8_t *buf,
                        size_t *lost, off_t *first, GError **error)
{
    uint64_t ring = f->header.ring_size;
    uint64_t left = journal_scan_end(&f->scan) - pos;
    size_t n = MIN(MIN(WINDOW, ring - pos % ring), left);
    off_t at = in_file(f, pos);

    *lost = 0;
    if (!f->salvage) {
        return read_at(f->fd, buf, n, at, error) ? n : 0;
    }
    *first = at;
    /* What was cut off can be a lot */
    *lost = at >= f->length ? n : salvage_at(f->fd, buf, n, at, first);
    return n;
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
        size_t lost;
        off_t first;
        size_t n = read_ring(f, from, buf, &lost, &first, error);

        if (n == 0) {
            return false;
        }
        more = lost < n &&
               journal_scan_records(&f->scan, buf, n, valid_record, f) &&
               f->scan.next.pos > from;
    }
    return true;
}

static bool read_rest(JournalFile *f, uint8_t *buf, bool past_damage,
                      GError **error)
{
    uint64_t end = journal_scan_end(&f->scan);
    size_t n, lost;
    off_t first;

    for (uint64_t pos = f->scan.next.pos; pos < end; pos += n) {
        n = read_ring(f, pos, buf, &lost, &first, error);
        if (n == 0) {
            return false;
        }
        f->first_unreadable = f->unreadable || !lost ? f->first_unreadable
                                                     : first;
        f->unreadable += lost;
        if (lost == n) {
            continue;
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
    f->salvage = true;
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
    const JournalRecord *r = &item->record;
    bool ok = read_at(f->fd, buf, r->length, item->payload, error);

    if (ok && journal_checksum(buf, r->length) != r->payload) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                            "its checksum is wrong");
        ok = false;
    }
    if (!ok) {
        g_prefix_error(error, "record %" PRIu64 ", at byte %" PRId64 ": ",
                       r->seq, (int64_t)item->payload);
    }
    return ok;
}

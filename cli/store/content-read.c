/*
 * Reading in parallel: each thread has a connection, takes the next run of
 * bytes, reads it and gives it to the sink
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "content-int.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_BYTES    (UINT64_C(1) << 30)     /* asked about at once */
#define STATUS_ENTRIES  4096                    /* of an answer, that we keep */
#define FAR_RUN         65536                   /* lost if the line is cut */
#define BATCH           32                      /* requests at once */

typedef struct Extent {
    uint64_t end;
    bool zero;
} Extent;

/* What a thread does next */
typedef struct Run {
    uint64_t offset, bytes;
    bool zero;
} Run;

typedef struct Reader Reader;

struct Reader {
    /* Never changed while threads run */
    Content *c;
    uint64_t size;
    ContentSink sink;
    void *opaque;
    Progress *progress;
    /* The next run, up to @max bytes of data; called with the lock held */
    bool (*next)(Reader *r, Run *run, uint64_t max);
    const ContentRange *ranges;
    unsigned n_ranges;

    GMutex lock;                /* protects all below */
    uint64_t offset;            /* up to here runs were given out */
    GArray *extents;            /* Extent from extents_start on */
    unsigned extent;            /* the one that @offset is in */
    unsigned range;             /* of ranges */
    uint64_t in_range;
    GError *error;              /* the first one; set: stop */
};

typedef struct Worker {
    Reader *reader;
    unsigned thread;
} Worker;

/*
 * Wait for a request, at most until the deadline. After that the connection is
 * given up: the buffer stays libnbd's while the request is in flight.
 */
static bool await(Content *c, struct nbd_handle *nbd, int64_t cookie)
{
    gint64 end = g_get_monotonic_time() + c->deadline * INT64_C(1000);
    int done;

    if (cookie < 0) {
        return false;
    }
    while ((done = nbd_aio_command_completed(nbd, cookie)) == 0) {
        if (c->deadline && g_get_monotonic_time() > end) {
            nbd_aio_disconnect(nbd, 0);
            return false;
        }
        if (nbd_poll(nbd, 1000) < 0) {
            return false;
        }
    }
    return done > 0;
}

static int64_t send_read(struct nbd_handle *nbd, uint64_t offset, size_t bytes,
                         uint8_t *buf)
{
    return nbd_aio_pread(nbd, buf, bytes, offset, NBD_NULL_COMPLETION, 0);
}

static bool read_error(Content *c, uint64_t offset, size_t bytes,
                       GError **error)
{
    g_autofree char *what = g_strdup_printf("cannot read %zu bytes at %" PRIu64,
                                            bytes, offset);

    return content_nbd_error(c, what, error);
}

bool content_read_at(Content *c, unsigned thread, uint64_t offset,
                     size_t bytes, uint8_t *buf, GError **error)
{
    struct nbd_handle *nbd = c->nbd[thread];

    if (c->wait && !c->wait(c->waiting, offset + bytes, error)) {
        return false;
    }
    if (c->fd >= 0) {
        return content_read_plain(c, offset, bytes, buf, error);
    }
    return await(c, nbd, send_read(nbd, offset, bytes, buf)) ||
           read_error(c, offset, bytes, error);
}

bool content_pread(Content *c, uint64_t offset, size_t bytes, void *to,
                   GError **error)
{
    uint8_t *buf = content_buffer(), *p = to;
    bool ok = true;

    while (ok && bytes) {
        size_t skip = offset % VERITY_BLOCK;
        size_t now = MIN(bytes, CONTENT_RUN - VERITY_BLOCK);

        ok = content_read_at(c, 0, offset - skip, skip + now, buf, error);
        if (ok) {
            memcpy(p, buf + skip, now);
        }
        offset += now;
        p += now;
        bytes -= now;
    }
    free(buf);
    return ok;
}

bool content_pwrite(Content *c, uint64_t offset, size_t bytes,
                    const void *buf, GError **error)
{
    g_autofree char *what = NULL;

    if (nbd_pwrite(c->nbd[0], buf, bytes, offset, 0) == 0) {
        return true;
    }
    what = g_strdup_printf("cannot write %zu bytes at %" PRIu64, bytes,
                           offset);
    return content_nbd_error(c, what, error);
}

bool content_pzero(Content *c, uint64_t offset, uint64_t bytes,
                   GError **error)
{
    while (bytes) {
        uint64_t now = MIN(bytes, STATUS_BYTES);

        if (nbd_zero(c->nbd[0], now, offset, 0) < 0) {
            return content_nbd_error(c, "cannot write zeros", error);
        }
        offset += now;
        bytes -= now;
    }
    return true;
}

/* One part of a server's answer about the range from r->offset on */
static int take_extents(void *opaque, const char *context, uint64_t offset,
                        uint32_t *entries, size_t n, int *error)
{
    Reader *r = opaque;

    (void)error;
    if (!g_str_equal(context, LIBNBD_CONTEXT_BASE_ALLOCATION) ||
        offset != r->offset) {
        return 0;
    }
    for (size_t i = 0; i + 1 < n && r->extents->len < STATUS_ENTRIES; i += 2) {
        offset += entries[i];

        Extent e = { offset, (entries[i + 1] & LIBNBD_STATE_ZERO) != 0 };

        if (entries[i]) {
            g_array_append_val(r->extents, e);
        }
    }
    return 0;
}

/* One hole, or the data up to the next one */
static void plain_status(Reader *r, uint64_t bytes)
{
    uint64_t zeros = content_zeros_at(r->c, r->offset, bytes);
    off_t end = zeros ? -1 : lseek(r->c->fd, r->offset, SEEK_HOLE);
    Extent e = { r->offset + zeros, zeros > 0 };

    if (zeros == 0) {
        e.end = end > (off_t)r->offset ? MIN(end, r->offset + bytes)
                                       : r->offset + bytes;
    }
    g_array_append_val(r->extents, e);
}

/* Ask what is at r->offset; called with the lock held */
static bool ask_status(Reader *r)
{
    nbd_extent_callback each = { .callback = take_extents, .user_data = r };
    uint64_t bytes = MIN(STATUS_BYTES, r->size - r->offset);
    /* Not all servers have exact sizes: the last part counts as data */
    bool ask = r->c->has_status && bytes >= TREE_SPAN;

    g_array_set_size(r->extents, 0);
    r->extent = 0;
    if (ask && r->c->fd < 0 &&
        nbd_block_status(r->c->nbd[CONTENT_STATUS], bytes,
                         r->offset, each, 0) < 0) {
        return content_nbd_error(r->c, "cannot tell what is allocated",
                                 &r->error);
    }
    if (r->c->fd >= 0) {
        plain_status(r, bytes);
    }
    if (r->extents->len == 0) {
        Extent e = { r->offset + bytes, false };

        g_array_append_val(r->extents, e);
    }
    return true;
}

/*
 * Runs begin at spans. One is of zeros where an extent of zeros has whole spans,
 * else it is data, up to CONTENT_RUN of it.
 */
static bool next_by_status(Reader *r, Run *run, uint64_t max)
{
    const Extent *e;
    uint64_t end;

    if (r->offset >= r->size) {
        return false;
    }
    while (r->extent < r->extents->len &&
           g_array_index(r->extents, Extent, r->extent).end <= r->offset) {
        r->extent++;
    }
    if (r->extent == r->extents->len && !ask_status(r)) {
        return false;
    }
    e = &g_array_index(r->extents, Extent, r->extent);
    end = MIN(e->end, r->size);
    run->zero = e->zero && (end == r->size || end - r->offset >= TREE_SPAN);
    run->offset = r->offset;
    if (run->zero) {
        run->bytes = end == r->size ? end - r->offset
                                    : (end - r->offset) / TREE_SPAN * TREE_SPAN;
    } else {
        end = ROUND_UP(MAX(end, r->offset + 1), TREE_SPAN);
        run->bytes = MIN(MIN(end, r->size) - r->offset, max);
    }
    r->offset += run->bytes;
    return true;
}

static bool next_by_range(Reader *r, Run *run, uint64_t max)
{
    const ContentRange *range = &r->ranges[r->range];

    if (r->range == r->n_ranges) {
        return false;
    }
    *run = (Run) {
        .offset = range->offset + r->in_range,
        .bytes = MIN(range->bytes - r->in_range, max),
    };
    r->in_range += run->bytes;
    if (r->in_range == range->bytes) {
        r->range++;
        r->in_range = 0;
    }
    return true;
}

/*
 * Small ranges are taken by the batch, so that a far server has many requests
 * at once. Returns how many runs; 0: there are no more, or there was an error.
 */
static unsigned take_runs(Reader *r, Run runs[BATCH])
{
    uint64_t bytes = 0, most = r->c->server ? FAR_RUN : CONTENT_RUN;
    unsigned n = 0, max = r->ranges ? BATCH : 1;

    g_mutex_lock(&r->lock);
    while (n < max && bytes < CONTENT_RUN / 2 && !r->error &&
           r->next(r, &runs[n], MIN(most, CONTENT_RUN - bytes))) {
        bytes += runs[n++].bytes;
    }
    n = r->error ? 0 : n;
    g_mutex_unlock(&r->lock);
    return n;
}

static void take_error(Reader *r, GError *error)
{
    g_mutex_lock(&r->lock);
    if (r->error) {
        g_error_free(error);
    } else {
        r->error = error;
    }
    g_mutex_unlock(&r->lock);
}

/* Ask for all of them at once, where there is somebody to ask */
static void send_runs(Worker *w, const Run *runs, unsigned n, uint8_t *buf,
                      int64_t cookies[BATCH])
{
    Content *c = w->reader->c;

    for (unsigned i = 0; i < n && c->fd < 0 && !runs->zero; i++) {
        cookies[i] = send_read(c->nbd[w->thread], runs[i].offset,
                               runs[i].bytes, buf);
        buf += runs[i].bytes;
    }
}

static bool receive_run(Worker *w, const Run *run, uint8_t *buf,
                        int64_t cookie, GError **error)
{
    Content *c = w->reader->c;

    if (run->zero) {
        return true;
    }
    if (c->fd >= 0) {
        return content_read_plain(c, run->offset, run->bytes, buf, error);
    }
    return await(c, c->nbd[w->thread], cookie) ||
           read_error(c, run->offset, run->bytes, error);
}

/*
 * Each is given on as it comes: what came before the line was cut counts. Only
 * a run by itself is of zeros.
 */
static bool do_runs(Worker *w, const Run *runs, unsigned n, uint8_t *buf,
                    GError **error)
{
    Reader *r = w->reader;
    int64_t cookies[BATCH] = {};

    send_runs(w, runs, n, buf, cookies);
    for (unsigned i = 0; i < n; i++) {
        if (!receive_run(w, &runs[i], buf, cookies[i], error) ||
            !r->sink(r->opaque, w->thread, runs[i].offset, runs[i].bytes,
                     runs[i].zero ? NULL : buf, error)) {
            return false;
        }
        buf += runs[i].bytes;
        progress_add(r->progress, runs[i].bytes);
    }
    return true;
}

static gpointer work(gpointer opaque)
{
    Worker *w = opaque;
    uint8_t *buf = content_buffer();
    GError *error = NULL;
    Run runs[BATCH];
    unsigned n;

    while ((n = take_runs(w->reader, runs))) {
        if (!do_runs(w, runs, n, buf, &error)) {
            take_error(w->reader, error);
            break;
        }
    }
    free(buf);
    return NULL;
}

static bool run_threads(Reader *r, GError **error)
{
    Worker workers[CONTENT_THREADS];
    GThread *threads[CONTENT_THREADS];

    if (!content_widen(r->c, error)) {
        return false;
    }
    g_mutex_init(&r->lock);
    r->extents = g_array_new(false, false, sizeof(Extent));
    for (unsigned i = 0; i < G_N_ELEMENTS(workers); i++) {
        workers[i] = (Worker) { r, i };
        threads[i] = g_thread_new("content", work, &workers[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(workers); i++) {
        g_thread_join(threads[i]);
    }
    g_array_free(r->extents, true);
    g_mutex_clear(&r->lock);
    if (r->error) {
        g_propagate_error(error, r->error);
        return false;
    }
    return true;
}

bool content_read(Content *c, uint64_t size, ContentSink sink, void *opaque,
                  Progress *progress, GError **error)
{
    Reader r = {
        .c = c, .size = size, .sink = sink, .opaque = opaque,
        .progress = progress, .next = next_by_status,
    };

    if (size > c->size) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s has %" PRIu64 " bytes, not %" PRIu64, c->name, c->size,
                    size);
        return false;
    }
    return run_threads(&r, error);
}

bool content_read_ranges(Content *c, const ContentRange *ranges, unsigned n,
                         ContentSink sink, void *opaque, Progress *progress,
                         GError **error)
{
    Reader r = {
        .c = c, .sink = sink, .opaque = opaque, .progress = progress,
        .next = next_by_range, .ranges = ranges, .n_ranges = n,
    };

    return run_threads(&r, error);
}

/*
 * Reading in parallel: each thread has a connection, takes the next run of
 * bytes, reads it and gives it to the sink
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "content-int.h"

#include <errno.h>

#define STATUS_BYTES    (UINT64_C(1) << 30)     /* asked about at once */
#define STATUS_ENTRIES  4096                    /* of an answer, that we keep */

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
    bool (*next)(Reader *r, Run *run);  /* called with the lock held */
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
    unsigned connection;
} Worker;

/* nbd_pread(), but with an end */
static bool request_deadline(Content *c, struct nbd_handle *nbd,
                             uint64_t offset, size_t bytes, uint8_t *buf)
{
    gint64 end = g_get_monotonic_time() + c->deadline * INT64_C(1000);
    int64_t cookie = nbd_aio_pread(nbd, buf, bytes, offset,
                                   NBD_NULL_COMPLETION, 0);
    int done = cookie < 0 ? -1 : 0;

    while (done == 0) {
        if (nbd_poll(nbd, 1000) < 0) {
            return false;
        }
        done = nbd_aio_command_completed(nbd, cookie);
        if (done == 0 && g_get_monotonic_time() > end) {
            /* The buffer stays libnbd's as long as the request is in flight */
            nbd_aio_disconnect(nbd, 0);
            return false;
        }
    }
    return done > 0;
}

bool content_request(Content *c, unsigned n, uint64_t offset, size_t bytes,
                     uint8_t *buf, GError **error)
{
    g_autofree char *what = NULL;
    bool ok;

    if (c->deadline) {
        ok = request_deadline(c, c->nbd[n], offset, bytes, buf);
    } else {
        ok = nbd_pread(c->nbd[n], buf, bytes, offset, 0) == 0;
    }
    if (ok) {
        return true;
    }
    what = g_strdup_printf("cannot read %zu bytes at %" PRIu64, bytes, offset);
    return content_nbd_error(c, what, error);
}

bool content_pread(Content *c, uint64_t offset, size_t bytes, void *buf,
                   GError **error)
{
    uint8_t *p = buf;

    while (bytes) {
        size_t now = MIN(bytes, CONTENT_RUN);

        if (!content_request(c, 0, offset, now, p, error)) {
            return false;
        }
        offset += now;
        p += now;
        bytes -= now;
    }
    return true;
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

/* Ask what is at r->offset; called with the lock held */
static bool ask_status(Reader *r)
{
    nbd_extent_callback callback = { .callback = take_extents, .user_data = r };
    uint64_t bytes = MIN(STATUS_BYTES, r->size - r->offset);
    /* Not all servers have exact sizes: the last part counts as data */
    bool ask = r->c->has_status && bytes >= TREE_SPAN;

    g_array_set_size(r->extents, 0);
    r->extent = 0;
    if (ask && nbd_block_status(r->c->nbd[CONTENT_CONNECTIONS - 1], bytes,
                                r->offset, callback, 0) < 0) {
        return content_nbd_error(r->c, "cannot tell what is allocated",
                                 &r->error);
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
static bool next_by_status(Reader *r, Run *run)
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
        run->bytes = MIN(MIN(end, r->size) - r->offset, CONTENT_RUN);
    }
    r->offset += run->bytes;
    return true;
}

static bool next_by_range(Reader *r, Run *run)
{
    const ContentRange *range = &r->ranges[r->range];

    if (r->range == r->n_ranges) {
        return false;
    }
    *run = (Run) {
        .offset = range->offset + r->in_range,
        .bytes = MIN(range->bytes - r->in_range, CONTENT_RUN),
    };
    r->in_range += run->bytes;
    if (r->in_range == range->bytes) {
        r->range++;
        r->in_range = 0;
    }
    return true;
}

static bool take_run(Reader *r, Run *run)
{
    bool more;

    g_mutex_lock(&r->lock);
    more = !r->error && r->next(r, run) && !r->error;
    g_mutex_unlock(&r->lock);
    return more;
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

static bool do_run(Worker *w, const Run *run, uint8_t *buf, GError **error)
{
    Reader *r = w->reader;
    uint64_t step = r->ranges ? run->bytes : TREE_SPAN;

    if (run->zero) {
        return r->sink(r->opaque, run->offset, run->bytes, NULL, error);
    }
    if (!content_request(r->c, w->connection, run->offset, run->bytes, buf,
                         error)) {
        return false;
    }
    for (uint64_t at = 0; at < run->bytes; at += step) {
        if (!r->sink(r->opaque, run->offset + at, MIN(step, run->bytes - at),
                     buf + at, error)) {
            return false;
        }
    }
    return true;
}

static gpointer work(gpointer opaque)
{
    Worker *w = opaque;
    g_autofree uint8_t *buf = g_malloc(CONTENT_RUN);
    GError *error = NULL;
    Run run;

    while (take_run(w->reader, &run)) {
        if (!do_run(w, &run, buf, &error)) {
            take_error(w->reader, error);
            break;
        }
        progress_add(w->reader->progress, run.bytes);
    }
    return NULL;
}

/* The last connection is left to block status */
static bool run_threads(Reader *r, GError **error)
{
    Worker workers[CONTENT_CONNECTIONS - 1];
    GThread *threads[CONTENT_CONNECTIONS - 1];

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

/*
 * The content of an image into a raw file, and how far it is on the medium
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "copy.h"
#include "cli/store/content.h"
#include "cli/store/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEP        (UINT64_C(128) << 20)   /* made durable at once, at least */
#define HOLE        (8 * VERITY_BLOCK)      /* zeros that are left out */

/* What was written before what comes before it */
typedef struct Piece {
    uint64_t start, end;
} Piece;

struct Copy {
    /* Never changed after it was made */
    char *source;               /* blockdev definition, as text */
    char *path;
    int fd;                     /* -1: error is set */
    uint64_t bytes;
    GThread *copier, *syncer;

    GMutex lock;                /* protects all below */
    GCond moved;                /* any of it */
    GArray *ahead;              /* Piece */
    uint64_t written, durable;  /* all before them is */
    bool stop;
    GError *error;
};

static const uint8_t zeros[VERITY_BLOCK];

static bool is_zero(const uint8_t *block)
{
    return memcmp(block, zeros, VERITY_BLOCK) == 0;
}

/* Takes @error; the first one counts */
static void fail(Copy *c, GError *error)
{
    g_mutex_lock(&c->lock);
    if (c->error) {
        g_error_free(error);
    } else {
        c->error = error;
    }
    g_cond_broadcast(&c->moved);
    g_mutex_unlock(&c->lock);
}

/*
 * From @at on: where blocks begin that are to be written, and where they end,
 * because HOLE bytes of zeros or the end of @bytes follow. False: there is none.
 */
static bool find_data(const uint8_t *data, size_t bytes, size_t *at,
                      size_t *end)
{
    while (*at < bytes && is_zero(data + *at)) {
        *at += VERITY_BLOCK;
    }
    *end = *at;
    for (size_t next = *at; next < bytes && next - *end < HOLE;
         next += VERITY_BLOCK) {
        if (!is_zero(data + next)) {
            *end = next + VERITY_BLOCK;
        }
    }
    return *at < bytes;
}

/* Whole blocks */
static bool write_blocks(Copy *c, const uint8_t *data, size_t bytes,
                         uint64_t offset, GError **error)
{
    size_t at = 0, end;

    while (find_data(data, bytes, &at, &end)) {
        if (!durable_pwrite(c->fd, data + at, end - at, offset + at)) {
            return durable_errno(error, "write", c->path);
        }
        at = end;
    }
    return true;
}

/* The end of the source may be part of a block */
static bool write_run(Copy *c, const uint8_t *data, size_t bytes,
                      uint64_t offset, GError **error)
{
    uint8_t *padded;
    bool ok;

    if (bytes % VERITY_BLOCK == 0) {
        return write_blocks(c, data, bytes, offset, error);
    }
    padded = content_buffer();
    memcpy(padded, data, bytes);
    memset(padded + bytes, 0, ROUND_UP(bytes, VERITY_BLOCK) - bytes);
    ok = write_blocks(c, padded, ROUND_UP(bytes, VERITY_BLOCK), offset, error);
    free(padded);
    return ok;
}

/* Called with the lock held: what was ahead of it may follow it now */
static void join_pieces(Copy *c)
{
    for (guint i = 0; i < c->ahead->len; i++) {
        const Piece *p = &g_array_index(c->ahead, Piece, i);

        if (p->start == c->written) {
            c->written = p->end;
            g_array_remove_index_fast(c->ahead, i);
            i = -1;             /* from the beginning */
        }
    }
}

/* False if nobody waits for it any more */
static bool note_written(Copy *c, uint64_t start, uint64_t end)
{
    const Piece piece = { start, end };
    bool go_on;

    g_mutex_lock(&c->lock);
    g_array_append_val(c->ahead, piece);
    join_pieces(c);
    g_cond_broadcast(&c->moved);
    go_on = !c->stop && !c->error;
    g_mutex_unlock(&c->lock);
    return go_on;
}

static bool take(void *opaque, unsigned thread, uint64_t offset,
                 uint64_t bytes, const uint8_t *data, GError **error)
{
    Copy *c = opaque;

    if (data && !write_run(c, data, bytes, offset, error)) {
        return false;
    }
    if (!note_written(c, offset, offset + bytes)) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_CANCELLED,
                            "the copy was stopped");
        return false;
    }
    return true;
}

/* The daemon that content_open() starts ends with this thread */
static gpointer copy_all(gpointer opaque)
{
    Copy *c = opaque;
    g_autoptr(JsonNode) node = json_from_string(c->source, NULL);
    g_autoptr(Content) content = NULL;
    GError *error = NULL;

    content = content_open(json_node_get_object(node), &error);
    if (!content || !content_read(content, c->bytes, take, c, NULL, &error)) {
        fail(c, error);
    }
    return NULL;
}

/* Is there enough to sync? Called with the lock held */
static bool has_step(const Copy *c)
{
    return c->written == c->bytes || c->written - c->durable >= STEP;
}

static gpointer sync_steps(gpointer opaque)
{
    Copy *c = opaque;

    g_mutex_lock(&c->lock);
    while (c->durable < c->bytes && !c->stop && !c->error) {
        uint64_t end = c->written;

        if (!has_step(c)) {
            g_cond_wait(&c->moved, &c->lock);
            continue;
        }
        g_mutex_unlock(&c->lock);
        if (fdatasync(c->fd) < 0) {
            GError *error = NULL;

            durable_errno(&error, "make durable", c->path);
            fail(c, error);
            return NULL;
        }
        g_mutex_lock(&c->lock);
        c->durable = end;
        g_cond_broadcast(&c->moved);
    }
    g_mutex_unlock(&c->lock);
    return NULL;
}

/* Not all file systems know O_DIRECT */
static int open_target(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_DIRECT);

    if (fd < 0 && errno == EINVAL) {
        fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    }
    return fd;
}

Copy *copy_start(JsonObject *source, const char *path, uint64_t bytes)
{
    Copy *c = g_new0(Copy, 1);

    g_mutex_init(&c->lock);
    g_cond_init(&c->moved);
    c->ahead = g_array_new(false, false, sizeof(Piece));
    c->source = content_node_text(source);
    c->path = g_strdup(path);
    c->bytes = bytes;
    c->fd = open_target(path);
    if (c->fd < 0) {
        durable_errno(&c->error, "open", path);
        return c;
    }
    c->copier = g_thread_new("copy", copy_all, c);
    c->syncer = g_thread_new("sync", sync_steps, c);
    return c;
}

bool copy_wait(Copy *c, uint64_t end, GError **error)
{
    bool there;

    end = MIN(end, c->bytes);
    g_mutex_lock(&c->lock);
    while (c->durable < end && !c->error) {
        g_cond_wait(&c->moved, &c->lock);
    }
    there = c->durable >= end;
    if (!there) {
        g_propagate_error(error, g_error_copy(c->error));
    }
    g_mutex_unlock(&c->lock);
    return there;
}

static void join(Copy *c, bool stop)
{
    g_mutex_lock(&c->lock);
    c->stop = stop;
    g_cond_broadcast(&c->moved);
    g_mutex_unlock(&c->lock);
    if (c->copier) {
        g_thread_join(c->copier);
        g_thread_join(c->syncer);
    }
}

bool copy_end(Copy *c, bool stop, GError **error)
{
    bool ok;

    join(c, stop);
    ok = !c->error ||
         g_error_matches(c->error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    if (!ok) {
        g_propagate_error(error, g_steal_pointer(&c->error));
    }
    g_clear_error(&c->error);
    if (c->fd >= 0) {
        close(c->fd);
    }
    g_array_unref(c->ahead);
    g_mutex_clear(&c->lock);
    g_cond_clear(&c->moved);
    g_free(c->source);
    g_free(c->path);
    g_free(c);
    return ok;
}

/*
 * Requests to a disk by NBD, none of which waits for ever
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest-io.h"
#include "lab.h"

static bool nbd_failed(GError **error, const char *what)
{
    const char *why = nbd_get_error();

    return lab_error(error, "%s: %s", what, why ? why : "failed");
}

static gint64 deadline(void)
{
    return g_get_monotonic_time() + LAB_WAIT_MS * (gint64)1000;
}

/* Let the connection go on, until @end at most */
static bool turn(struct nbd_handle *nbd, gint64 end, const char *what,
                 GError **error)
{
    gint64 left = (end - g_get_monotonic_time()) / 1000;

    if (left <= 0) {
        return lab_error(error, "%s: no answer in %d s", what,
                         LAB_WAIT_MS / 1000);
    }
    return nbd_poll(nbd, left) >= 0 || nbd_failed(error, what);
}

struct nbd_handle *io_connect(const char *path, const char *name,
                              GError **error)
{
    struct nbd_handle *nbd = nbd_create();
    gint64 end = deadline();
    bool ok = nbd && nbd_set_export_name(nbd, name) == 0 &&
              nbd_aio_connect_unix(nbd, path) == 0;

    if (!ok) {
        nbd_failed(error, path);
    }
    while (ok && nbd_aio_is_connecting(nbd) == 1) {
        ok = turn(nbd, end, path, error);
    }
    if (ok && nbd_aio_is_ready(nbd) != 1) {
        ok = nbd_failed(error, path);
    }
    if (!ok) {
        nbd_close(nbd);
        return NULL;
    }
    return nbd;
}

/* Until the request has its answer */
static bool finish(struct nbd_handle *nbd, int64_t cookie, const char *what,
                   GError **error)
{
    gint64 end = deadline();
    int done;

    if (cookie < 0) {
        return nbd_failed(error, what);
    }
    while ((done = nbd_aio_command_completed(nbd, cookie)) == 0) {
        if (!turn(nbd, end, what, error)) {
            return false;
        }
    }
    return done > 0 || nbd_failed(error, what);
}

bool io_read(struct nbd_handle *nbd, uint64_t offset, size_t bytes, void *buf,
             GError **error)
{
    return finish(nbd, nbd_aio_pread(nbd, buf, bytes, offset,
                                     NBD_NULL_COMPLETION, 0), "read", error);
}

bool io_write(struct nbd_handle *nbd, uint64_t offset, size_t bytes,
              const void *buf, GError **error)
{
    return finish(nbd, nbd_aio_pwrite(nbd, buf, bytes, offset,
                                      NBD_NULL_COMPLETION, 0), "write", error);
}

bool io_flush(struct nbd_handle *nbd, GError **error)
{
    return finish(nbd, nbd_aio_flush(nbd, NBD_NULL_COMPLETION, 0), "flush",
                  error);
}

void io_close(struct nbd_handle *nbd)
{
    if (nbd) {
        nbd_aio_disconnect(nbd, 0);
        nbd_close(nbd);
    }
}

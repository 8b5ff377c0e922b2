/*
 * Power-cut test: a device that is logged, and that may be lost
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qobject/qdict.h"
#include "device.h"

struct DeviceInFlight {
    uint64_t connection, begin;
    int64_t offset, bytes;
    QEMUIOVector *qiov;         /* of a write */
    bool reads, writes;
    bool outage;                /* it was refused in one */
    QLIST_ENTRY(DeviceInFlight) next;
};

static GHashTable *devices;     /* by name */

/* The log */

Log *log_new(void)
{
    Log *log = g_new0(Log, 1);

    log->events = g_array_new(false, false, sizeof(LogEvent));
    return log;
}

void log_free(Log *log)
{
    for (guint i = 0; i < log->events->len; i++) {
        g_free(g_array_index(log->events, LogEvent, i).data);
    }
    g_array_free(log->events, true);
    g_free(log);
}

uint64_t log_tick(Log *log)
{
    return log ? ++log->clock : 0;
}

static void log_add(Device *d, LogEvent e)
{
    if (!d->log) {
        return;
    }
    e.device = d->number;
    e.end = log_tick(d->log);
    g_array_append_val(d->log->events, e);
    if (e.request != DEVICE_FLUSH && e.request != DEVICE_CRASH) {
        g_array_append_val(d->pending, e);
    }
}

/* Content */

static void note_touched(Device *d, int64_t offset, int64_t bytes)
{
    DeviceRange range = { offset, bytes };

    if (d->touched) {
        g_array_append_val(d->touched, range);
    }
}

/* Bytes @from up to @to of the write @f reach the device */
static void put_write(Device *d, DeviceInFlight *f, int64_t from, int64_t to)
{
    LogEvent e = {
        .request = f->qiov ? DEVICE_WRITE : DEVICE_ZERO,
        .offset = f->offset + from,
        .bytes = to - from,
        .begin = f->begin,
    };

    if (f->qiov) {
        qemu_iovec_to_buf(f->qiov, from, d->data + e.offset, e.bytes);
        e.data = d->log ? g_memdup2(d->data + e.offset, e.bytes) : NULL;
    } else {
        memset(d->data + e.offset, 0, e.bytes);
    }
    note_touched(d, e.offset, e.bytes);
    log_add(d, e);
}

static void put_sector(uint8_t *data, const LogEvent *e, int64_t at)
{
    if (e->data) {
        memcpy(data + e->offset + at, e->data + at, SECTOR);
    } else if (e->request == DEVICE_ZERO) {
        memset(data + e->offset + at, 0, SECTOR);
    }
}

/* What had ended before a flush began is durable now */
static void settle(Device *d, uint64_t begin)
{
    guint n = 0;

    if (!d->log) {
        return;
    }
    for (; n < d->pending->len; n++) {
        LogEvent *e = &g_array_index(d->pending, LogEvent, n);

        if (e->end > begin) {
            break;
        }
        for (int64_t at = 0; at < e->bytes; at += SECTOR) {
            put_sector(d->durable, e, at);
        }
    }
    g_array_remove_range(d->pending, 0, n);
}

/* Faults */

/* Requests that nobody will hear of any more may still be done, or in part */
static void cut_off(Device *d)
{
    DeviceInFlight *f;

    QLIST_FOREACH(f, &d->in_flight, next) {
        unsigned percent = 50 * rng_below(&d->rng, 3);

        for (int64_t at = 0; f->writes && at < f->bytes; at += SECTOR) {
            if (rng_chance(&d->rng, percent)) {
                put_write(d, f, at, at + SECTOR);
            }
        }
    }
}

/* Of each sector that is not durable any of its contents may be there */
static void forget(Device *d)
{
    GArray *sectors = g_array_new(false, false, sizeof(DeviceSector));
    unsigned percent = 25 * rng_below(&d->rng, 5);
    LogEvent crash = { .request = DEVICE_CRASH };

    for (guint i = 0; i < d->pending->len; i++) {
        LogEvent *e = &g_array_index(d->pending, LogEvent, i);

        for (int64_t at = 0; at < e->bytes; at += SECTOR) {
            if (rng_chance(&d->rng, percent)) {
                put_sector(d->durable, e, at);
            }
        }
    }
    for (guint i = 0; i < d->pending->len; i++) {
        LogEvent *e = &g_array_index(d->pending, LogEvent, i);

        for (int64_t at = 0; at < e->bytes; at += SECTOR) {
            DeviceSector s = { .offset = e->offset + at };

            memcpy(s.data, d->durable + s.offset, SECTOR);
            memcpy(d->data + s.offset, s.data, SECTOR);
            g_array_append_val(sectors, s);
        }
    }
    g_array_set_size(d->pending, 0);
    crash.begin = d->log->clock;
    crash.bytes = sectors->len;
    crash.data = (uint8_t *)g_array_free(sectors, false);
    log_add(d, crash);
}

static void lose(Device *d)
{
    cut_off(d);
    if (d->fault == FAULT_CRASH && d->log) {
        forget(d);
    }
    d->connection++;
    d->down = true;
    d->refused = 0;
    d->up_at = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + d->fault_ms * SCALE_MS;
}

/* No write fails then: who wrote has to hear of it from the reader */
static bool is_between(Device *d, const DeviceInFlight *f)
{
    DeviceInFlight *other;

    if (!f->reads || !d->log || !d->pending->len) {
        return false;
    }
    QLIST_FOREACH(other, &d->in_flight, next) {
        if (!other->reads) {
            return false;
        }
    }
    return true;
}

/* Who loses the connection hears of it, before there is another one */
static bool refuses(Device *d, const DeviceInFlight *f)
{
    if (d->down && d->refused &&
        qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= d->up_at) {
        d->down = false;
    }
    if (!d->down && d->fault_in && (!d->fault_on_read || is_between(d, f)) &&
        !(f->reads ? d->spares_reads : d->spares_changes) &&
        --d->fault_in == 0) {
        d->faults[d->fault]++;
        if (d->fault == FAULT_ERROR) {
            d->fault_in = d->fault_stays;
            return true;
        }
        lose(d);
    }
    return d->down;
}

void device_plan_fault(Device *d, DeviceFault fault, unsigned in, unsigned ms,
                       bool on_read)
{
    QEMU_LOCK_GUARD(&d->lock);
    d->fault = fault;
    d->fault_in = in;
    d->fault_ms = ms;
    d->fault_on_read = on_read;
}

void device_repair(Device *d)
{
    QEMU_LOCK_GUARD(&d->lock);
    d->fault_in = 0;
    d->up_at = 0;
}

/* The driver */

static Device *device_of(BlockDriverState *bs)
{
    return *(Device **)bs->opaque;
}

static void coroutine_fn device_co_wait(Device *d)
{
    unsigned yields, wait_us;

    qemu_mutex_lock(&d->lock);
    yields = rng_below(&d->rng, d->max_yields + 1);
    wait_us = rng_below(&d->rng, d->max_wait_us + 1);
    if (rng_chance(&d->rng, 4)) {
        /* What comes meanwhile overtakes it */
        yields *= 10;
        wait_us *= 10;
    }
    qemu_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < yields; i++) {
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    if (wait_us) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, wait_us * SCALE_US);
    }
}

/* It is as if it had not come yet */
static void coroutine_fn device_co_hold(Device *d, bool *holds)
{
    if (!*holds) {
        return;
    }
    *holds = false;
    d->held = true;
    while (d->held) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
}

static bool begin_request(Device *d, DeviceInFlight *f)
{
    bool refused;

    QEMU_LOCK_GUARD(&d->lock);
    d->requests++;
    refused = refuses(d, f);
    f->connection = d->connection;
    f->outage = d->down;
    if (refused) {
        return false;
    }
    f->begin = log_tick(d->log);
    QLIST_INSERT_HEAD(&d->in_flight, f, next);
    return true;
}

/* Let a request take its time. If it is 0 it ends now, with the lock held. */
static int coroutine_fn device_co_do(Device *d, DeviceInFlight *f)
{
    bool begun = begin_request(d, f);

    device_co_wait(d);
    qemu_mutex_lock(&d->lock);
    if (!begun) {
        /* Only when it is told of this loss can there be another connection */
        d->refused += f->outage && f->connection == d->connection;
        d->failed_at = d->failed++ ? d->failed_at : log_tick(d->log);
        qemu_mutex_unlock(&d->lock);
        return -EIO;
    }
    QLIST_REMOVE(f, next);
    if (f->connection != d->connection) {
        qemu_mutex_unlock(&d->lock);
        return -EIO;
    }
    return 0;
}

static int coroutine_fn device_co_preadv(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes, QEMUIOVector *qiov,
                                         BdrvRequestFlags flags)
{
    Device *d = device_of(bs);
    DeviceInFlight f = { .offset = offset, .bytes = bytes, .reads = true };
    int ret;

    device_co_hold(d, &d->holds_read);
    ret = device_co_do(d, &f);
    if (ret < 0) {
        return ret;
    }
    qemu_iovec_from_buf(qiov, 0, d->data + offset, bytes);
    qemu_mutex_unlock(&d->lock);
    /* Time for others between reading and using what was read */
    device_co_wait(d);
    return 0;
}

static int coroutine_fn device_co_change(Device *d, DeviceInFlight *f)
{
    int ret;

    f->writes = true;
    ret = device_co_do(d, f);
    if (ret < 0) {
        return ret;
    }
    put_write(d, f, 0, f->bytes);
    qemu_mutex_unlock(&d->lock);
    return 0;
}

static int coroutine_fn device_co_pwritev(BlockDriverState *bs, int64_t offset,
                                          int64_t bytes, QEMUIOVector *qiov,
                                          BdrvRequestFlags flags)
{
    DeviceInFlight f = { .offset = offset, .bytes = bytes, .qiov = qiov };

    device_co_hold(device_of(bs), &device_of(bs)->holds_write);
    return device_co_change(device_of(bs), &f);
}

static int coroutine_fn device_co_pwrite_zeroes(BlockDriverState *bs,
                                                int64_t offset, int64_t bytes,
                                                BdrvRequestFlags flags)
{
    DeviceInFlight f = { .offset = offset, .bytes = bytes };

    return device_co_change(device_of(bs), &f);
}

/* What a medium shows after a discard is not defined: the replay makes it up */
static int coroutine_fn device_co_pdiscard(BlockDriverState *bs,
                                           int64_t offset, int64_t bytes)
{
    Device *d = device_of(bs);
    DeviceInFlight f = { .offset = offset, .bytes = bytes };
    LogEvent e = {
        .request = DEVICE_DISCARD,
        .offset = offset,
        .bytes = bytes,
    };
    int ret = device_co_do(d, &f);

    if (ret < 0) {
        return ret;
    }
    e.begin = f.begin;
    note_touched(d, offset, bytes);
    log_add(d, e);
    qemu_mutex_unlock(&d->lock);
    return 0;
}

static int coroutine_fn device_co_flush_to_disk(BlockDriverState *bs)
{
    Device *d = device_of(bs);
    DeviceInFlight f = {};
    LogEvent e = { .request = DEVICE_FLUSH };
    int ret;

    device_co_hold(d, &d->holds_flush);
    ret = device_co_do(d, &f);
    if (ret < 0) {
        return ret;
    }
    e.begin = f.begin;
    settle(d, e.begin);
    log_add(d, e);
    qemu_mutex_unlock(&d->lock);
    return 0;
}

static int64_t coroutine_fn device_co_getlength(BlockDriverState *bs)
{
    return device_of(bs)->length;
}

static int coroutine_fn device_co_truncate(BlockDriverState *bs, int64_t offset,
                                           bool exact, PreallocMode prealloc,
                                           BdrvRequestFlags flags,
                                           Error **errp)
{
    if (offset > device_of(bs)->length || exact) {
        error_setg(errp, "A device keeps its length");
        return -ENOTSUP;
    }
    return 0;
}

static int device_open(BlockDriverState *bs, QDict *options, int flags,
                       Error **errp)
{
    const char *name = qdict_get_try_str(options, "device");
    Device *d = name ? g_hash_table_lookup(devices, name) : NULL;

    if (!d) {
        error_setg(errp, "There is no such device");
        return -ENOENT;
    }
    qdict_del(options, "device");
    *(Device **)bs->opaque = d;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    return 0;
}

static void device_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = SECTOR;
}

/* Nobody else knows of it */
static bool device_lock_image(BlockDriverState *bs, Error **errp)
{
    return true;
}

static BlockDriver device_driver = {
    .format_name            = "test-store",
    .protocol_name          = "test-store",
    .instance_size          = sizeof(Device *),
    .bdrv_open              = device_open,
    .bdrv_refresh_limits    = device_refresh_limits,
    .bdrv_lock_image        = device_lock_image,
    .bdrv_co_preadv         = device_co_preadv,
    .bdrv_co_pwritev        = device_co_pwritev,
    .bdrv_co_pwrite_zeroes  = device_co_pwrite_zeroes,
    .bdrv_co_pdiscard       = device_co_pdiscard,
    .bdrv_co_flush_to_disk  = device_co_flush_to_disk,
    .bdrv_co_getlength      = device_co_getlength,
    .bdrv_co_truncate       = device_co_truncate,
};

/* Making one */

uint8_t *device_alloc(int64_t length)
{
    uint8_t *data = mmap(NULL, length, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert(data != MAP_FAILED);
    return data;
}

void device_free_data(uint8_t *data, int64_t length)
{
    munmap(data, length);
}

uint8_t *device_dup(const uint8_t *from, int64_t length)
{
    uint8_t *data = device_alloc(length);

    for (int64_t at = 0; at < length; at += GRANULE) {
        int64_t n = MIN(GRANULE, length - at);

        if (!buffer_is_zero(from + at, n)) {
            memcpy(data + at, from + at, n);
        }
    }
    return data;
}

Device *device_new(const char *name, const uint8_t *from, int64_t length,
                   uint64_t seed)
{
    Device *d = g_new0(Device, 1);

    d->name = g_strdup(name);
    d->length = length;
    d->data = device_dup(from, length);
    d->rng.state = seed;
    qemu_mutex_init(&d->lock);
    QLIST_INIT(&d->in_flight);
    assert(!g_hash_table_contains(devices, name));
    g_hash_table_insert(devices, d->name, d);
    return d;
}

void device_start_log(Device *d, Log *log, unsigned number)
{
    d->log = log;
    d->number = number;
    d->pending = g_array_new(false, false, sizeof(LogEvent));
    d->durable = device_dup(d->data, d->length);
}

void device_free(Device *d)
{
    g_hash_table_remove(devices, d->name);
    device_free_data(d->data, d->length);
    if (d->durable) {
        device_free_data(d->durable, d->length);
        g_array_free(d->pending, true);
    }
    if (d->touched) {
        g_array_free(d->touched, true);
    }
    qemu_mutex_destroy(&d->lock);
    g_free(d->name);
    g_free(d);
}

void device_init(void)
{
    devices = g_hash_table_new(g_str_hash, g_str_equal);
    bdrv_register(&device_driver);
}

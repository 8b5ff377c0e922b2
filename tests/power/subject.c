/*
 * Power-cut test: what is under test, and how it is made and opened
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "block/qdict.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "block/pvs/journal-format.h"
#include "block/pvs/private.h"
#include "life.h"

#define DRAIN_SECONDS   60

/* Waiting */

typedef struct Pause {
    unsigned ms;
    bool done;
} Pause;

static void coroutine_fn pause_entry(void *opaque)
{
    Pause *p = opaque;

    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, p->ms * SCALE_MS);
    p->done = true;
    aio_wait_kick();
}

void pause_ms(unsigned ms)
{
    Pause p = { .ms = ms };

    qemu_coroutine_enter(qemu_coroutine_create(pause_entry, &p));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !p.done);
}

bool wait_drained(const Subject *subject, BlockBackend *blk)
{
    int64_t end = g_get_monotonic_time() + DRAIN_SECONDS * G_USEC_PER_SEC;

    while (subject->drained && !subject->drained(blk)) {
        if (g_get_monotonic_time() >= end) {
            return false;
        }
        pause_ms(1);
    }
    return true;
}

static void ends(int sig)
{
    static const char hangs[] = "not ok - power: a life hangs\n";
    static const char aborts[] = "not ok - power: an assertion fails\n";
    const char *line = sig == SIGALRM ? hangs : aborts;

    _exit(write(STDOUT_FILENO, line, strlen(line)) > 0 ? 1 : 2);
}

void watch_for_ends(void)
{
    struct sigaction action = { .sa_handler = ends };
    sigset_t alarms;

    /* The main loop would take it, which does not go round while one hangs */
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
}

/* A desktop in private image mode */

/* What another session left there: nobody may ever see it */
static void fill_with_stale(uint8_t *data, int64_t offset, int64_t bytes)
{
    for (int64_t at = 0; at + SECTOR <= bytes; at += SECTOR) {
        stamp_fill(data + offset + at, at / SECTOR, 1, STAMP_STALE);
    }
}

static void random_uuid(Rng *rng, uint8_t *uuid)
{
    for (int i = 0; i < JOURNAL_UUID_BYTES; i++) {
        uuid[i] = rng_next(rng);
    }
}

static void make_journal(Start *s, Rng *rng)
{
    JournalHeader h = {
        .unit = rng_chance(rng, 70) ? 512 : 4096,
        .ring_size = JOURNAL_RING_MIN,
        .version = 1,
        .vdisk = "v",
    };

    random_uuid(rng, h.journal);
    h.tail.seq = h.tail.epoch = 1;
    s->length[JOURNAL] = JOURNAL_RING_OFFSET + h.ring_size;
    s->device[JOURNAL] = device_alloc(s->length[JOURNAL]);
    for (int i = 0; i < JOURNAL_HEADER_COPIES; i++) {
        h.generation = JOURNAL_HEADER_COPIES - i;
        journal_header_encode(&h, s->device[JOURNAL] +
                              i * JOURNAL_HEADER_BYTES);
    }
    if (rng_chance(rng, 50)) {
        fill_with_stale(s->device[JOURNAL], JOURNAL_RING_OFFSET, h.ring_size);
    }
}

/*
 * Sometimes the file was the copy of another journal's vDisk, and has all of
 * that
 */
static void make_copy(Start *s, Rng *rng)
{
    bool used = rng_chance(rng, 50);
    VdiskHeader h = {
        .role = VDISK_ROLE_LOCAL_COPY,
        .lifetime = VDISK_DEDICATED,
        .base = { .name = "v", .version = 1, .size = s->size },
    };

    vdisk_header_layout(&h, s->size);
    if (used) {
        random_uuid(rng, h.base.root);
    }
    s->length[COPY] = h.file_size;
    s->device[COPY] = device_alloc(h.file_size);
    for (int i = 0; i < VDISK_HEADER_COPIES; i++) {
        h.generation = VDISK_HEADER_COPIES - i;
        vdisk_header_encode(&h, s->device[COPY] + i * VDISK_HEADER_BYTES);
    }
    for (uint64_t g = 0; used && g < s->size / GRANULE; g++) {
        s->device[COPY][h.map_offset + g / 4] |= VDISK_STATE_DATA << g % 4 * 2;
    }
    fill_with_stale(s->device[COPY], h.data_offset,
                    h.file_size - h.data_offset);
}

static void private_make(Start *s, Rng *rng)
{
    make_journal(s, rng);
    make_copy(s, rng);
    s->length[STORE] = label_offset(s->size) + LABEL_BYTES;
    s->device[STORE] = device_alloc(s->length[STORE]);
}

static QDict *device_options(const char *name)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "test-store");
    qdict_put_str(options, "device", name);
    return options;
}

static BlockBackend *open_private(const char *const name[DEVICES],
                                  const char *durability, Error **errp)
{
    QDict *options = qdict_new();
    QList *stores = qlist_new();

    qlist_append(stores, device_options(name[STORE]));
    qdict_put_str(options, "driver", "pvs");
    qdict_put_str(options, "node-name", "d");
    qdict_put_str(options, "mode", "private");
    qdict_put_str(options, "vdisk", "v");
    qdict_put_int(options, "version", 1);
    qdict_put_str(options, "durability", durability);
    qdict_put_int(options, "probe-interval", 50);
    qdict_put(options, "stores", stores);
    qdict_put(options, "file", device_options(name[COPY]));
    qdict_put(options, "journal", device_options(name[JOURNAL]));
    qdict_flatten(options);
    return blk_new_open(NULL, NULL, options, BDRV_O_RDWR | BDRV_O_UNMAP, errp);
}

static BlockBackend *private_open(const char *const name[DEVICES],
                                  int64_t size, Error **errp)
{
    return open_private(name, "local", errp);
}

static BlockBackend *store_open(const char *const name[DEVICES],
                                int64_t size, Error **errp)
{
    return open_private(name, "store", errp);
}

static bool private_drained(BlockBackend *blk)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    p = pvs_private_of(blk_bs(blk));
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->state == PRIVATE_READY && !p->lagging &&
           QSIMPLEQ_EMPTY(&p->journal.epochs);
}

static bool coroutine_fn private_full(BlockBackend *blk)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD();
    p = pvs_private_of(blk_bs(blk));
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->journal.space_waiters > 0;
}

static bool private_label_ok(const uint8_t *store, int64_t size, char **why)
{
    Label l;

    if (!label_decode(&l, store + label_offset(size), why)) {
        return false;
    }
    if (!l.closed || !l.id.writer || l.virtual_size != size ||
        strcmp(l.vdisk, "v")) {
        *why = g_strdup_printf("closed: %d, writer: %" PRIu64 ", vDisk '%s'",
                               l.closed, l.id.writer, l.vdisk);
        return false;
    }
    return true;
}

static bool private_label_closed(const uint8_t *store, int64_t size)
{
    g_autofree char *why = NULL;
    Label l;

    return label_decode(&l, store + label_offset(size), &why) && l.closed;
}

static void private_limit_batches(BlockBackend *blk, uint64_t bytes,
                                  unsigned records)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    p = pvs_private_of(blk_bs(blk));
    QEMU_LOCK_GUARD(&p->waits.lock);
    p->journal.batch_bytes = bytes;
    p->journal.batch_records = records;
}

const Subject subject_private = {
    .name = "power",
    .make = private_make,
    .open = private_open,
    .drained = private_drained,
    .full = private_full,
    .limit_batches = private_limit_batches,
    .label_ok = private_label_ok,
    .label_closed = private_label_closed,
    .discards = true,
};

const Subject subject_store = {
    .name = "durability=store",
    .make = private_make,
    .open = store_open,
    .drained = private_drained,
    .limit_batches = private_limit_batches,
    .label_ok = private_label_ok,
    .label_closed = private_label_closed,
    .durable_store = true,
    .discards = true,
};

/* A client that has nothing but the store, and repeats what failed */

static void stock_make(Start *s, Rng *rng)
{
    s->length[JOURNAL] = s->length[COPY] = GRANULE;
    s->length[STORE] = s->size;
    for (int i = 0; i < DEVICES; i++) {
        s->device[i] = device_alloc(s->length[i]);
    }
}

static BlockBackend *stock_open(const char *const name[DEVICES], int64_t size,
                                Error **errp)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "raw");
    qdict_put(options, "file", device_options(name[STORE]));
    qdict_flatten(options);
    return blk_new_open(NULL, NULL, options, BDRV_O_RDWR | BDRV_O_UNMAP, errp);
}

const Subject subject_stock = {
    .name = "stock",
    .make = stock_make,
    .open = stock_open,
    .retries = true,
};

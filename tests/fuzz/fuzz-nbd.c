/*
 * Fuzz what an NBD server says, through QEMU's client and pvs: the nodes open
 * or do not, every request ends, and a read gives out what was sealed, or sent,
 * or an error
 *
 * The first bytes of the input choose nodes, server and requests; the rest
 * tells a bad server what to make of each message, and what is left out then is
 * as a good one has it: see nbd-garble.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vdisk.h"
#include "qobject/qdict.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "block/aio.h"
#include "block/block.h"
#include "system/block-backend.h"
#include "tests/unit/verity-model.h"
#include "nbd-garble.h"
#include "nbd-server.h"
#include "nbd-world.h"

/* Two levels of a tree, and a last block that is not whole */
#define IMAGE_BYTES     (129 * 4096 + 512)
#define OPS             6
#define OP_BYTES        (1 + READS * 3)
#define READS           4       /* of one op, at once */
/* No request takes longer, ns of its own time */
#define LONGEST         (60 * NANOSECONDS_PER_SECOND)

typedef enum Nodes {
    PLAIN,              /* QEMU's client alone */
    UNSIZED,            /* pvs, which asks for the size; no tree */
    SIZED,              /* pvs without a tree */
    SEALED,             /* pvs, and a good server has the tree */
    BAD_TREE,           /* pvs, and the bad server has the tree too */
    BESIDE,             /* pvs: a good server beside the bad one */
    NODES
} Nodes;

typedef struct Read {
    BlockBackend *blk;
    int64_t offset, bytes;
    uint8_t *buf;
    int64_t pause;      /* before it, ns */
    int ret;
    bool done;
} Read;

static Model *model;
static Nodes kind;

static bool has_tree(void)
{
    return kind >= SEALED;
}

/* Nodes */

static void put_nbd(QDict *options, const char *below, const char *path)
{
    const char *const pairs[][2] = {
        { "driver", "nbd" }, { "server.type", "unix" },
        { "server.path", path }, { "export", kind == PLAIN ? "" : "export" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(pairs); i++) {
        g_autofree char *key = g_strconcat(below, pairs[i][0], NULL);

        qdict_put_str(options, key, pairs[i][1]);
    }
}

static QDict *plain_options(unsigned how)
{
    QDict *options = qdict_new();

    put_nbd(options, "", "bad");
    qdict_put_int(options, "io-timeout", 100);
    qdict_put_int(options, "connect-timeout", 100);
    qdict_put_int(options, "reconnect-interval", 50);
    qdict_put_int(options, "reconnect-delay", how & 1);
    qdict_put_int(options, "open-timeout", how >> 1 & 1);
    if (how & 4) {
        qdict_put_str(options, "x-dirty-bitmap", "qemu:allocation-depth");
    }
    qdict_put_bool(options, "require-flush", how & 8);
    qdict_put_bool(options, "exclusive", how & 16);
    if (how & 32) {
        qdict_put_int(options, "size", IMAGE_BYTES);
    }
    return options;
}

static QDict *pvs_options(unsigned how)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "pvs");
    qdict_put_str(options, "node-name", "disk");
    put_nbd(options, "stores.0.", "bad");
    if (kind == BESIDE) {
        put_nbd(options, "stores.1.", "good");
    }
    if (has_tree()) {
        put_nbd(options, "verity-tree.", kind == BAD_TREE ? "bad-tree"
                                                          : "tree");
        qdict_put_str(options, "verity-root", model->root);
    }
    if (kind != UNSIZED) {
        qdict_put_int(options, "size", IMAGE_BYTES);
    }
    qdict_put_int(options, "request-timeout", 100);
    qdict_put_int(options, "hedge-after", 10);
    qdict_put_int(options, "probe-interval", 50);
    qdict_put_int(options, "connections", 1 + how % 2);
    qdict_put_int(options, "outage-wait", kind == BESIDE ? 20 : how >> 1 & 1);
    qdict_put_str(options, "outage-action", "error");
    return options;
}

static void check_size(BlockBackend *blk)
{
    int64_t size = blk_getlength(blk);

    assert(size >= 0 && size <= INT64_MAX - 511);
    if (kind != PLAIN && kind != UNSIZED) {
        assert(size == IMAGE_BYTES);
    }
    if (!garbled) {
        assert(size == IMAGE_BYTES);
    }
    assert(is_power_of_2(blk_get_request_alignment(blk)));
    assert(blk_get_max_transfer(blk) >= blk_get_request_alignment(blk));
}

static BlockBackend *open_nodes(unsigned how)
{
    Error *err = NULL;
    BlockBackend *blk =
        kind == PLAIN ? blk_new_open(NULL, NULL, plain_options(how),
                                     BDRV_O_RDWR | BDRV_O_AUTO_RDONLY |
                                     BDRV_O_UNMAP, &err)
                      : blk_new_open(NULL, NULL, pvs_options(how), 0, &err);

    assert(!blk == (err != NULL));
    assert(blk || kind == PLAIN || kind == UNSIZED);
    error_free(err);
    return blk;
}

/* Requests */

static void coroutine_fn read_entry(void *opaque)
{
    Read *r = opaque;

    if (r->pause) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, r->pause);
    }
    r->ret = blk_co_pread(r->blk, r->offset, r->bytes, r->buf, 0);
    r->done = true;
}

static void wait_for(const bool *done)
{
    int64_t begin = world_now();

    while (!*done) {
        aio_poll(qemu_get_aio_context(), true);
        assert(world_now() - begin < LONGEST);
    }
}

/* What the guest would get */
static void check_read(const Read *r)
{
    if (r->ret < 0) {
        assert(kind != BESIDE);
        return;
    }
    if (has_tree() || !garbled) {
        assert(r->offset + r->bytes <= IMAGE_BYTES);
        assert(!memcmp(r->buf, model->data + r->offset, r->bytes));
    } else if (!servers_sent_poison()) {
        assert(!memchr(r->buf, POISON, r->bytes));
    }
}

static void read_begin(Read *r, BlockBackend *blk, int64_t size, Input *in)
{
    static const int64_t lengths[] = {
        1, 512, 4096, 4096, 4097, 8192, 65536, 1 << 17,
    };
    int64_t bytes = lengths[input_take(in, 1) % G_N_ELEMENTS(lengths)];
    int64_t offset = input_take(in, 2) * 256 % MAX(size, 1);

    *r = (Read) {
        .blk = blk, .offset = offset, .bytes = MIN(bytes, size - offset),
    };
    r->buf = g_malloc(MAX(r->bytes, 1));
    memset(r->buf, POISON, r->bytes);
    qemu_coroutine_enter(qemu_coroutine_create(read_entry, r));
}

static void read_some(BlockBackend *blk, unsigned n, Input *in)
{
    int64_t size = blk_getlength(blk);
    Read reads[READS];

    for (unsigned i = 0; i < n; i++) {
        read_begin(&reads[i], blk, size, in);
    }
    for (unsigned i = 0; i < n; i++) {
        wait_for(&reads[i].done);
        check_read(&reads[i]);
        g_free(reads[i].buf);
    }
}

/* Each extent begins where the last one ended, and lies in the image */
static void look_for_extents(BlockBackend *blk, int64_t size)
{
    BlockDriverState *bs = blk_bs(blk);
    int64_t n;

    for (int64_t at = 0, i = 0; at < size && i < 8; at += n, i++) {
        int ret;

        bdrv_graph_rdlock_main_loop();
        ret = bdrv_block_status(bs, at, size - at, &n, NULL, NULL);
        bdrv_graph_rdunlock_main_loop();
        if (ret < 0) {
            return;
        }
        assert(n > 0 && n <= size - at);
    }
}

static void do_op(BlockBackend *blk, unsigned op, Input *in)
{
    int64_t size = blk_getlength(blk);
    uint8_t buf[4096] = {};

    switch (op % 8) {
    case 0:
        look_for_extents(blk, size);
        break;
    case 1:
        blk_flush(blk);
        break;
    case 2:
        if (kind == PLAIN && size >= 8192 && blk_is_writable(blk)) {
            blk_pwrite(blk, 4096, sizeof(buf), buf, BDRV_REQ_FUA);
            blk_pwrite_zeroes(blk, 0, 8192, BDRV_REQ_MAY_UNMAP);
            blk_pdiscard(blk, 0, 8192, 0);
        }
        break;
    default:
        read_some(blk, 1 + op / 8 % READS, in);
        break;
    }
}

/* From here on the bad server is a good one: pvs finds that out, and reads */
static void come_back(BlockBackend *blk, Input *in)
{
    int64_t begin = world_now();
    Read r = { .blk = blk, .bytes = 4096, .ret = -1 };

    in->size = 0;
    r.buf = g_malloc(r.bytes);
    while (r.ret < 0) {
        r.done = false;
        memset(r.buf, POISON, r.bytes);
        qemu_coroutine_enter(qemu_coroutine_create(read_entry, &r));
        wait_for(&r.done);
        check_read(&r);
        r.pause = 50 * SCALE_MS;
        assert(world_now() - begin < LONGEST);
    }
    g_free(r.buf);
}

static void use(BlockBackend *blk, Input *ops, unsigned n, Input *in)
{
    for (unsigned i = 0; i < n; i++) {
        do_op(blk, input_take(ops, 1), ops);
    }
    qapi_free_VdiskInfoList(qmp_query_vdisks(&error_abort));
    if (kind >= SIZED) {
        come_back(blk, in);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = { data, size };
    uint8_t buf[OPS * OP_BYTES];
    Input ops = { buf, sizeof(buf) };
    unsigned how, can, n;
    BlockBackend *blk;

    kind = input_take(&in, 1) % NODES;
    how = input_take(&in, 1);
    can = input_take(&in, 1);
    n = input_take(&in, 1) % (OPS + 1);
    input_copy(&in, buf, n * OP_BYTES);
    Server servers[] = {
        { "bad", model->data, IMAGE_BYTES, true },
        { "bad-tree", model->tree, model->tree_bytes, true },
        { "good", model->data, IMAGE_BYTES, false },
        { "tree", model->tree, model->tree_bytes, false },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(servers); i++) {
        Server *s = &servers[i];

        s->oldstyle = s->bad && (can & 64) && kind == PLAIN;
        s->fixed = !s->bad || !(can & 1);
        s->extended = !s->bad || !(can & 2);
        s->structured = !s->bad || !(can & 4);
        s->contexts = !s->bad || !(can & 8);
        s->go = !s->bad || !(can & 16);
    }
    world_begin();
    servers_begin(servers, G_N_ELEMENTS(servers), &in);
    blk = open_nodes(how);
    if (blk) {
        check_size(blk);
        use(blk, &ops, n, &in);
        blk_unref(blk);
    }
    servers_end();
    world_end();
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    module_call_init(MODULE_INIT_QOM);
    world_init();
    model = model_new(IMAGE_BYTES, 32);
    for (uint64_t i = 0; i < model->blocks * BLOCK; i++) {
        model->data[i] = model->data[i] == POISON ? 1 : model->data[i];
    }
    model_seal(model);
    return 0;
}

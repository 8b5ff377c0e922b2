/*
 * NBD servers in the main loop, for fuzz-nbd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "qemu/timer.h"
#include "block/aio.h"
#include "block/nbd.h"
#include "nbd-garble.h"
#include "nbd-server.h"
#include "nbd-world.h"

#define INIT_MAGIC      UINT64_C(0x4e42444d41474943)
#define OPTS_MAGIC      UINT64_C(0x49484156454f5054)
#define OLD_MAGIC       UINT64_C(0x0000420281861253)
#define REP_MAGIC       UINT64_C(0x0003e889045565a9)
#define CONTEXT_ID      7
#define EXCLUSIVE_ID    9
#define FLAGS           (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | \
                         NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | \
                         NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_DF)
/* Chunks of one answer */
#define PARTS           4

typedef struct Peer {
    const Server *server;
    int fd;
    bool structured, extended;
    Then then;
    GByteArray *rx, *tx, *kept;
    QEMUTimer *timer;           /* while it is late */
    QLIST_ENTRY(Peer) next;
} Peer;

typedef struct Request {
    uint16_t type;
    uint64_t cookie, from, bytes;
} Request;

static QLIST_HEAD(, Peer) peers = QLIST_HEAD_INITIALIZER(peers);
static const Server *servers;
static unsigned n_servers;
static Input *script;
static bool sent_poison;

static void peer_readable(void *opaque);
static void peer_writable(void *opaque);

static void peer_close(Peer *p)
{
    aio_set_fd_handler(qemu_get_aio_context(), p->fd, NULL, NULL, NULL, NULL,
                       NULL);
    close(p->fd);
    if (p->timer) {
        timer_free(p->timer);
    }
    g_byte_array_unref(p->rx);
    g_byte_array_unref(p->tx);
    g_byte_array_unref(p->kept);
    QLIST_REMOVE(p, next);
    g_free(p);
}

/* Saying something */

static void put(GByteArray *to, uint64_t value, unsigned bytes)
{
    uint64_t be = cpu_to_be64(value);

    g_byte_array_append(to, (uint8_t *)&be + 8 - bytes, bytes);
}

static bool is_late(const Peer *p)
{
    return p->timer && timer_pending(p->timer);
}

static void peer_watch(Peer *p)
{
    bool write = p->tx->len && !is_late(p);

    aio_set_fd_handler(qemu_get_aio_context(), p->fd, peer_readable,
                       write ? peer_writable : NULL, NULL, NULL, p);
}

static void peer_flush(Peer *p)
{
    while (p->tx->len && !is_late(p)) {
        ssize_t n = send(p->fd, p->tx->data, p->tx->len, MSG_NOSIGNAL);

        if (n <= 0) {
            break;
        }
        g_byte_array_remove_range(p->tx, 0, n);
    }
    if (!p->tx->len && p->then == HANG_UP) {
        shutdown(p->fd, SHUT_WR);
    }
}

static void peer_writable(void *opaque)
{
    peer_flush(opaque);
    peer_watch(opaque);
}

static void peer_be_late(Peer *p, unsigned ms)
{
    if (!p->timer) {
        p->timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                                 SCALE_MS, peer_writable, p);
    }
    timer_mod(p->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

/* Takes @msg */
static void say(Peer *p, Phase phase, GByteArray *msg)
{
    unsigned ms = 0;

    if (p->then == BE_MUTE || p->then == HANG_UP) {
        g_byte_array_unref(msg);
        return;
    }
    if (p->server->bad) {
        p->then = garble(script, phase, msg, p->kept, &ms);
        sent_poison |= msg->len && memchr(msg->data, POISON, msg->len);
    }
    if (p->then == BE_LATE) {
        peer_be_late(p, ms);
    }
    if (p->then != BE_MUTE) {
        g_byte_array_append(p->tx, msg->data, msg->len);
    }
    g_byte_array_unref(msg);
}

/* Handshake */

static void greet(Peer *p)
{
    const Server *s = p->server;
    GByteArray *msg = g_byte_array_new();

    put(msg, INIT_MAGIC, 8);
    if (s->oldstyle) {
        put(msg, OLD_MAGIC, 8);
        put(msg, s->bytes, 8);
        put(msg, FLAGS, 4);
        g_byte_array_set_size(msg, msg->len + 124);
        memset(msg->data + 28, 0, 124);
    } else {
        put(msg, OPTS_MAGIC, 8);
        put(msg, NBD_FLAG_NO_ZEROES |
            (s->fixed ? NBD_FLAG_FIXED_NEWSTYLE : 0), 2);
    }
    say(p, GREETING, msg);
}

/* @body may be NULL; takes it */
static void reply(Peer *p, uint32_t option, uint32_t type, GByteArray *body)
{
    GByteArray *msg = g_byte_array_new();

    put(msg, REP_MAGIC, 8);
    put(msg, option, 4);
    put(msg, type, 4);
    put(msg, body ? body->len : 0, 4);
    if (body) {
        g_byte_array_append(msg, body->data, body->len);
        g_byte_array_unref(body);
    }
    say(p, OPTION, msg);
}

static void reply_go(Peer *p, uint32_t option)
{
    GByteArray *body = g_byte_array_new();

    put(body, NBD_INFO_EXPORT, 2);
    put(body, p->server->bytes, 8);
    put(body, FLAGS, 2);
    reply(p, option, NBD_REP_INFO, body);
    body = g_byte_array_new();
    put(body, NBD_INFO_BLOCK_SIZE, 2);
    put(body, 1, 4);
    put(body, 4096, 4);
    put(body, NBD_MAX_BUFFER_SIZE, 4);
    reply(p, option, NBD_REP_INFO, body);
    reply(p, option, NBD_REP_ACK, NULL);
}

static void reply_context(Peer *p, uint32_t option, uint32_t id,
                          const char *name)
{
    GByteArray *body = g_byte_array_new();

    put(body, id, 4);
    g_byte_array_append(body, (const uint8_t *)name, strlen(name));
    reply(p, option, NBD_REP_META_CONTEXT, body);
}

static bool asks_for(const uint8_t *data, uint32_t bytes, const char *what)
{
    return memmem(data, bytes, what, strlen(what));
}

static void reply_contexts(Peer *p, uint32_t option, const uint8_t *data,
                           uint32_t bytes)
{
    static const char *const names[] = {
        "base:allocation", "qemu:allocation-depth",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (asks_for(data, bytes, names[i])) {
            reply_context(p, option, CONTEXT_ID, names[i]);
        }
    }
    if (asks_for(data, bytes, "qemu:exclusive")) {
        reply_context(p, option, EXCLUSIVE_ID, "qemu:exclusive");
    }
    reply(p, option, NBD_REP_ACK, NULL);
}

static void reply_list(Peer *p, uint32_t option)
{
    GByteArray *body = g_byte_array_new();

    put(body, 6, 4);
    g_byte_array_append(body, (const uint8_t *)"exportdescription", 17);
    reply(p, option, NBD_REP_SERVER, body);
    reply(p, option, NBD_REP_ACK, NULL);
}

static void export_name(Peer *p)
{
    GByteArray *msg = g_byte_array_new();

    put(msg, p->server->bytes, 8);
    put(msg, FLAGS, 2);
    say(p, GREETING, msg);
}

static void take_option(Peer *p, uint32_t option, const uint8_t *data,
                        uint32_t bytes)
{
    const Server *s = p->server;

    if (option == NBD_OPT_EXPORT_NAME) {
        export_name(p);
    } else if (option == NBD_OPT_EXTENDED_HEADERS && s->extended) {
        p->structured = p->extended = true;
        reply(p, option, NBD_REP_ACK, NULL);
    } else if (option == NBD_OPT_STRUCTURED_REPLY && s->structured) {
        p->structured = true;
        reply(p, option, NBD_REP_ACK, NULL);
    } else if (option == NBD_OPT_SET_META_CONTEXT && s->contexts) {
        reply_contexts(p, option, data, bytes);
    } else if ((option == NBD_OPT_GO || option == NBD_OPT_INFO) && s->go) {
        reply_go(p, option);
    } else if (option == NBD_OPT_LIST) {
        reply_list(p, option);
    } else {
        reply(p, option, NBD_REP_ERR_UNSUP, NULL);
    }
}

/* Answers */

/* Takes @body */
static void chunk(Peer *p, const Request *r, unsigned type, bool done,
                  GByteArray *body)
{
    GByteArray *msg = g_byte_array_new();

    put(msg, p->extended ? NBD_EXTENDED_REPLY_MAGIC
                         : NBD_STRUCTURED_REPLY_MAGIC, 4);
    put(msg, done ? NBD_REPLY_FLAG_DONE : 0, 2);
    put(msg, type, 2);
    put(msg, r->cookie, 8);
    if (p->extended) {
        put(msg, r->from, 8);
    }
    put(msg, body->len, p->extended ? 8 : 4);
    g_byte_array_append(msg, body->data, body->len);
    g_byte_array_unref(body);
    say(p, p->extended ? EXTENDED : STRUCTURED, msg);
}

static void chunk_data(Peer *p, const Request *r, uint64_t from,
                       uint64_t bytes, bool done)
{
    GByteArray *body = g_byte_array_new();

    put(body, from, 8);
    g_byte_array_append(body, p->server->data + from, bytes);
    chunk(p, r, NBD_REPLY_TYPE_OFFSET_DATA, done, body);
}

static void chunk_hole(Peer *p, const Request *r, uint64_t from,
                       uint64_t bytes, bool done)
{
    GByteArray *body = g_byte_array_new();

    put(body, from, 8);
    put(body, bytes, 4);
    chunk(p, r, NBD_REPLY_TYPE_OFFSET_HOLE, done, body);
}

static void chunk_error(Peer *p, const Request *r, unsigned error, bool where)
{
    GByteArray *body = g_byte_array_new();

    put(body, error, 4);
    put(body, 2, 2);
    g_byte_array_append(body, (const uint8_t *)"no", 2);
    if (where) {
        put(body, r->from, 8);
    }
    chunk(p, r, where ? NBD_REPLY_TYPE_ERROR_OFFSET : NBD_REPLY_TYPE_ERROR,
          true, body);
}

static void simple(Peer *p, const Request *r, unsigned error,
                   const uint8_t *data, uint64_t bytes)
{
    GByteArray *msg = g_byte_array_new();

    put(msg, NBD_SIMPLE_REPLY_MAGIC, 4);
    put(msg, error, 4);
    put(msg, r->cookie, 8);
    if (!error && data) {
        g_byte_array_append(msg, data, bytes);
    }
    say(p, SIMPLE, msg);
}

/* An answer without data; error is 0 if it is a good one */
static void answer(Peer *p, const Request *r, unsigned error)
{
    if (!p->structured) {
        simple(p, r, error, NULL, 0);
    } else if (error) {
        chunk_error(p, r, error, error & 1);
    } else {
        chunk(p, r, NBD_REPLY_TYPE_NONE, true, g_byte_array_new());
    }
}

/* In parts, of which the script tells where they are and what they are */
static void answer_in_parts(Peer *p, const Request *r)
{
    unsigned n = 1 + input_take(script, 1) % PARTS;
    uint64_t part = DIV_ROUND_UP(r->bytes, n), first;
    unsigned order = input_take(script, 1);

    for (unsigned i = 0; i < n; i++) {
        unsigned k = order & 1 ? n - 1 - i : i;
        unsigned how = order >> (2 + i % 3 * 2);

        if (order & 2) {
            k = k / 2;          /* some twice, some not at all */
        }
        first = MIN(k * part, r->bytes - 1);
        if (how & 1) {
            chunk_hole(p, r, r->from + first, MIN(part, r->bytes - first),
                       false);
        } else {
            chunk_data(p, r, r->from + first, MIN(part, r->bytes - first),
                       false);
        }
    }
    answer(p, r, 0);
}

static void answer_read(Peer *p, const Request *r)
{
    unsigned how = p->server->bad ? input_take(script, 1) % 8 : 0;

    garbled += how != 0;
    if (!p->structured) {
        simple(p, r, how == 5 ? NBD_EIO : 0, p->server->data + r->from,
               r->bytes);
        return;
    }
    switch (how) {
    case 4:
        chunk_data(p, r, r->from, r->bytes, false);
        answer(p, r, NBD_EIO);
        break;
    case 5:
        answer(p, r, NBD_EIO);
        break;
    case 6:
        answer_in_parts(p, r);
        break;
    case 7:
        chunk_data(p, r, r->from, r->bytes, false);
        answer(p, r, 0);
        break;
    default:
        chunk_data(p, r, r->from, r->bytes, true);
        break;
    }
}

static void answer_status(Peer *p, const Request *r)
{
    GByteArray *body = g_byte_array_new();
    unsigned bytes = p->extended ? 8 : 4;
    unsigned how = p->server->bad ? input_take(script, 1) : 0;

    put(body, CONTEXT_ID, 4);
    if (p->extended) {
        put(body, 1, 4);
    }
    put(body, MIN(r->bytes, (how >> 4) * 512 ?: r->bytes), bytes);
    put(body, how & 3, bytes);
    if (how & 4) {              /* of a context that is only a promise */
        GByteArray *other = g_byte_array_new();

        put(other, EXCLUSIVE_ID, 4);
        chunk(p, r, NBD_REPLY_TYPE_BLOCK_STATUS, false, other);
    }
    chunk(p, r, p->extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT
                            : NBD_REPLY_TYPE_BLOCK_STATUS, true, body);
}

static void take_request(Peer *p, const Request *r)
{
    const Server *s = p->server;
    bool inside = r->bytes && r->from < s->bytes &&
                  r->bytes <= s->bytes - r->from;

    switch (r->type) {
    case NBD_CMD_DISC:
        p->then = HANG_UP;
        break;
    case NBD_CMD_READ:
        inside ? answer_read(p, r) : answer(p, r, NBD_EINVAL);
        break;
    case NBD_CMD_BLOCK_STATUS:
        p->structured && inside ? answer_status(p, r)
                                : answer(p, r, NBD_EINVAL);
        break;
    default:
        answer(p, r, 0);
        break;
    }
}

/* Hearing something: each returns how many bytes it took, 0 if it wants more */

static size_t hear_option(Peer *p)
{
    const uint8_t *buf = p->rx->data;
    uint32_t bytes;

    if (p->rx->len < 16) {
        return 0;
    }
    bytes = ldl_be_p(buf + 12);
    assert(ldq_be_p(buf) == OPTS_MAGIC && bytes <= NBD_MAX_BUFFER_SIZE);
    if (p->rx->len - 16 < bytes) {
        return 0;
    }
    take_option(p, ldl_be_p(buf + 8), buf + 16, bytes);
    return 16 + bytes;
}

static size_t hear_request(Peer *p)
{
    const uint8_t *buf = p->rx->data;
    Request r;
    size_t head;

    if (p->rx->len < 28) {
        return 0;
    }
    head = ldl_be_p(buf) == NBD_EXTENDED_REQUEST_MAGIC ? 32 : 28;
    if (p->rx->len < head) {
        return 0;
    }
    assert(head == 32 || ldl_be_p(buf) == NBD_REQUEST_MAGIC);
    r = (Request) {
        .type = lduw_be_p(buf + 6),
        .cookie = ldq_be_p(buf + 8),
        .from = ldq_be_p(buf + 16),
        .bytes = head == 32 ? ldq_be_p(buf + 24) : ldl_be_p(buf + 24),
    };
    if (r.type == NBD_CMD_WRITE) {
        assert(r.bytes <= NBD_MAX_BUFFER_SIZE);
        head += r.bytes;
        if (p->rx->len < head) {
            return 0;
        }
    }
    take_request(p, &r);
    return head;
}

/*
 * What a client says next depends on what it was told, which may be nonsense:
 * its first byte shows what it is
 */
static size_t hear(Peer *p)
{
    if (!p->rx->len) {
        return 0;
    }
    switch (p->rx->data[0]) {
    case 0:                     /* flags of the client */
        return p->rx->len < 4 ? 0 : 4;
    case OPTS_MAGIC >> 56:
        return hear_option(p);
    default:
        return hear_request(p);
    }
}

static void peer_readable(void *opaque)
{
    Peer *p = opaque;
    uint8_t buf[65536];
    ssize_t n = recv(p->fd, buf, sizeof(buf), 0);
    size_t took;

    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        peer_close(p);
        return;
    }
    g_byte_array_append(p->rx, buf, n);
    while ((took = hear(p)) > 0) {
        g_byte_array_remove_range(p->rx, 0, took);
    }
    peer_flush(p);
    peer_watch(p);
}

void world_connected(const char *path, int fd)
{
    Peer *p = g_new0(Peer, 1);

    p->fd = fd;
    p->rx = g_byte_array_new();
    p->tx = g_byte_array_new();
    p->kept = g_byte_array_new();
    for (unsigned i = 0; i < n_servers; i++) {
        if (!strcmp(path, servers[i].path)) {
            p->server = &servers[i];
        }
    }
    assert(p->server);
    QLIST_INSERT_HEAD(&peers, p, next);
    greet(p);
    peer_flush(p);
    peer_watch(p);
}

void servers_begin(const Server *s, unsigned n, Input *in)
{
    servers = s;
    n_servers = n;
    script = in;
    sent_poison = false;
    garbled = 0;
}

/* They hear that nobody is there */
void servers_end(void)
{
    Peer *p, *next;

    QLIST_FOREACH_SAFE(p, &peers, next, next) {
        peer_close(p);
    }
}

bool servers_sent_poison(void)
{
    return sent_poison;
}

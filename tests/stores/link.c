/*
 * A link between clients and a server, with faults: see usage
 *
 * Every byte waits until it is due, so a delay costs no rate: what follows is
 * under way meanwhile. The rate is that of the link, not of a connection.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000
#define NS_PER_S 1000000000ll
/* Of one connection and direction, at most: 200 ms at 2 Gbit/s fit */
#define MAX_HELD (64 << 20)
#define MAX_CHUNK (256 << 10)
/* Small enough that a rate looks smooth */
#define MAX_CHUNK_PACED (32 << 10)
#define MAX_CONNS 256

static const char usage[] =
    "usage: link LISTEN SERVER\n"
    "\n"
    "Each is a path, or ADDRESS:PORT of IPv4. Commands come as lines on\n"
    "standard input, its end ends the program; each is answered by a line.\n"
    "\n"
    "  delay MS      every byte, each way\n"
    "  late MS       and what goes to the client this much more\n"
    "  rate N        bytes a second, each way; 0: no limit\n"
    "  stall 0|1     nothing moves, connections stay\n"
    "  mute 0|1      who connects is left waiting\n"
    "  refuse 0|1    who connects is thrown out\n"
    "  garbage 0|1   what goes to the client is noise\n"
    "  cut           all connections, now\n"
    "  cut-after N   each one when it has got N bytes more; 0: never\n"
    "  cut-to-server N\n"
    "  cut-to-client N\n"
    "                one, when N bytes more went that way; 0: none\n"
    "  count         connections open, connections ever, bytes to server,\n"
    "                bytes to clients\n"
    "  cuts          how many of the last two came, to server, to client\n";

typedef struct Chunk {
    struct Chunk *next;
    int64_t due;
    size_t len, sent;
    uint8_t data[];
} Chunk;

/* One direction of a connection */
typedef struct {
    int from, to;
    Chunk *head, **tail;
    size_t held;
    int64_t last_due;
    bool ended;         /* nothing more comes */
    bool closed;        /* and the receiver was told */
    bool blocked;       /* the receiver takes no more now */
} Pipe;

enum { TO_SERVER, TO_CLIENT };

typedef struct {
    int client, server;
    Pipe pipe[2];
    int64_t left;       /* bytes until it is cut, if > 0 */
} Conn;

static struct {
    int64_t delay, late, rate, cut_after;
    bool stall, mute, refuse, garbage;
    int64_t once[2];    /* bytes that way until one is cut, if > 0 */
    int64_t busy_until[2];
    uint64_t bytes[2], cuts[2], accepted;
} g;

static Conn *conns[MAX_CONNS];
static int n_conns;
static struct sockaddr_storage server_addr;
static socklen_t server_len;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static socklen_t parse_address(const char *text, struct sockaddr_storage *ss)
{
    struct sockaddr_in *in = (struct sockaddr_in *)ss;
    struct sockaddr_un *un = (struct sockaddr_un *)ss;
    const char *colon = strrchr(text, ':');
    char host[64];

    memset(ss, 0, sizeof(*ss));
    if (strchr(text, '/')) {
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof(un->sun_path), "%s", text);
        return sizeof(*un);
    }
    if (!colon) {
        fprintf(stderr, "link: not an address: %s\n", text);
        exit(2);
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    in->sin_family = AF_INET;
    in->sin_port = htons(atoi(colon + 1));
    if (!inet_aton(host, &in->sin_addr)) {
        fprintf(stderr, "link: not an address: %s\n", text);
        exit(2);
    }
    return sizeof(*in);
}

static int listen_at(const char *text)
{
    struct sockaddr_storage ss;
    socklen_t len = parse_address(text, &ss);
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    0);
    int one = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&ss, len) < 0 || listen(fd, 64) < 0) {
        die(text);
    }
    return fd;
}

/* Small packets at once: Nagle's algorithm would be a delay of its own */
static void at_once(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void pipe_init(Pipe *p, int from, int to)
{
    *p = (Pipe) { .from = from, .to = to };
    p->tail = &p->head;
}

static void pipe_clear(Pipe *p)
{
    while (p->head) {
        Chunk *c = p->head;

        p->head = c->next;
        free(c);
    }
}

/* Abruptly: the client gets a reset, not an orderly end */
static void conn_cut(int i)
{
    Conn *c = conns[i];
    struct linger hard = { .l_onoff = 1 };

    for (int way = 0; way < 2; way++) {
        int fd = way ? c->client : c->server;

        pipe_clear(&c->pipe[way]);
        if (fd >= 0) {
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
            close(fd);
        }
    }
    free(c);
    conns[i] = conns[--n_conns];
}

static void cut_all(void)
{
    while (n_conns) {
        conn_cut(0);
    }
}

static int connect_server(void)
{
    int fd = socket(server_addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, (struct sockaddr *)&server_addr, server_len) < 0) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    at_once(fd);
    return fd;
}

static void accept_one(int listener)
{
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int server = -1;
    Conn *c;

    if (client < 0) {
        return;
    }
    g.accepted++;
    if (!g.refuse && !g.mute) {
        server = connect_server();
    }
    if ((server < 0 && !g.mute) || n_conns == MAX_CONNS) {
        close(client);
        return;
    }
    at_once(client);
    c = calloc(1, sizeof(*c));
    c->client = client;
    c->server = server;
    c->left = g.cut_after;
    pipe_init(&c->pipe[TO_SERVER], client, server);
    pipe_init(&c->pipe[TO_CLIENT], server, client);
    conns[n_conns++] = c;
}

static int64_t due_time(Pipe *p, int way, size_t len)
{
    int64_t now = now_ns();
    int64_t due;

    if (g.rate) {
        if (g.busy_until[way] < now) {
            g.busy_until[way] = now;
        }
        g.busy_until[way] += len * NS_PER_S / g.rate;
        now = g.busy_until[way];
    }
    due = now + g.delay + (way == TO_CLIENT ? g.late : 0);
    /* A delay that became shorter lets nothing overtake */
    if (due < p->last_due) {
        due = p->last_due;
    }
    p->last_due = due;
    return due;
}

static void pipe_add(Pipe *p, int way, const uint8_t *data, size_t len)
{
    Chunk *c = malloc(sizeof(*c) + len);

    *c = (Chunk) { .len = len, .due = due_time(p, way, len) };
    memcpy(c->data, data, len);
    *p->tail = c;
    p->tail = &c->next;
    p->held += len;
}

static void pipe_read(Pipe *p, int way)
{
    static uint8_t buffer[MAX_CHUNK];
    ssize_t n = read(p->from, buffer, g.rate ? MAX_CHUNK_PACED : MAX_CHUNK);

    if (n > 0) {
        pipe_add(p, way, buffer, n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        p->ended = true;
    }
}

static void spoil(Chunk *c)
{
    for (size_t i = c->sent; i < c->len; i++) {
        c->data[i] = rand();
    }
}

/* How much of a chunk may go before the connection is to be cut */
static size_t allowed(Conn *c, Chunk *chunk, int way)
{
    size_t len = chunk->len - chunk->sent;

    if (g.once[way] > 0 && len > (size_t)g.once[way]) {
        len = g.once[way];
    }
    return way == TO_CLIENT && c->left > 0 && len > (size_t)c->left ?
           (size_t)c->left : len;
}

/* So many bytes went that way: is the connection to be cut behind them? */
static bool count_sent(Conn *c, int way, size_t n)
{
    bool cut = false;

    g.bytes[way] += n;
    if (g.once[way] > 0) {
        g.once[way] -= n;
        cut = g.once[way] == 0;
        g.cuts[way] += cut;
    }
    if (way == TO_CLIENT && c->left > 0) {
        c->left -= n;
        cut = cut || c->left <= 0;
    }
    return cut;
}

/* False if the connection is at its end */
static bool pipe_send_one(Conn *c, Pipe *p, int way)
{
    Chunk *chunk = p->head;
    ssize_t n;

    if (g.garbage && way == TO_CLIENT) {
        spoil(chunk);
    }
    n = send(p->to, chunk->data + chunk->sent, allowed(c, chunk, way),
             MSG_NOSIGNAL);
    if (n < 0) {
        p->blocked = errno == EAGAIN;
        return p->blocked || errno == EINTR;
    }
    chunk->sent += n;
    if (count_sent(c, way, n)) {
        return false;
    }
    if (chunk->sent == chunk->len) {
        p->head = chunk->next;
        if (!p->head) {
            p->tail = &p->head;
        }
        p->held -= chunk->len;
        free(chunk);
    }
    return true;
}

static bool pipe_send(Conn *c, int way)
{
    Pipe *p = &c->pipe[way];

    while (p->head && !p->blocked && p->head->due <= now_ns()) {
        if (!pipe_send_one(c, p, way)) {
            return false;
        }
    }
    if (p->ended && !p->head && !p->closed) {
        shutdown(p->to, SHUT_WR);
        p->closed = true;
    }
    return !(c->pipe[0].closed && c->pipe[1].closed);
}

/* A link that is well again lets go what it would have held back longer */
static void let_go(void)
{
    for (int i = 0; i < 2 * n_conns; i++) {
        int way = i % 2;
        Pipe *p = &conns[i / 2]->pipe[way];
        int64_t latest = now_ns() + g.delay + (way == TO_CLIENT ? g.late : 0);

        for (Chunk *c = p->head; c; c = c->next) {
            c->due = c->due > latest ? latest : c->due;
        }
        p->last_due = p->last_due > latest ? latest : p->last_due;
        g.busy_until[way] = 0;
    }
}

static void set_cut_after(int64_t n)
{
    g.cut_after = n;
    for (int i = 0; i < n_conns; i++) {
        conns[i]->left = n;
    }
}

static bool set(const char *name, int64_t value)
{
    const struct { const char *name; bool *flag; } flags[] = {
        { "stall", &g.stall }, { "mute", &g.mute }, { "refuse", &g.refuse },
        { "garbage", &g.garbage },
    };

    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
        if (!strcmp(name, flags[i].name)) {
            *flags[i].flag = value;
            return true;
        }
    }
    if (!strcmp(name, "delay")) {
        g.delay = value * NS_PER_MS;
        let_go();
    } else if (!strcmp(name, "late")) {
        g.late = value * NS_PER_MS;
        let_go();
    } else if (!strcmp(name, "rate")) {
        g.rate = value;
        if (!g.rate) {
            let_go();
        }
    } else if (!strcmp(name, "cut-after")) {
        set_cut_after(value);
    } else if (!strcmp(name, "cut-to-server")) {
        g.once[TO_SERVER] = value;
    } else if (!strcmp(name, "cut-to-client")) {
        g.once[TO_CLIENT] = value;
    } else {
        return false;
    }
    return true;
}

static void command(char *line)
{
    char name[16] = "";
    long long value = 0;
    int n = sscanf(line, "%15s %lld", name, &value);

    if (!strcmp(name, "cut")) {
        cut_all();
    } else if (!strcmp(name, "count")) {
        printf("%d %llu %llu %llu\n", n_conns,
               (unsigned long long)g.accepted,
               (unsigned long long)g.bytes[TO_SERVER],
               (unsigned long long)g.bytes[TO_CLIENT]);
        return;
    } else if (!strcmp(name, "cuts")) {
        printf("%llu %llu\n", (unsigned long long)g.cuts[TO_SERVER],
               (unsigned long long)g.cuts[TO_CLIENT]);
        return;
    } else if (n != 2 || value < 0 || !set(name, value)) {
        printf("what? %s\n", line);
        return;
    }
    printf("ok\n");
}

static void read_commands(void)
{
    static char text[4096];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, text + used, sizeof(text) - 1 - used);
    char *end;

    if (n <= 0) {
        exit(0);
    }
    used += n;
    text[used] = 0;
    while ((end = strchr(text, '\n'))) {
        *end = 0;
        command(text);
        used -= end + 1 - text;
        memmove(text, end + 1, used + 1);
    }
    fflush(stdout);
}

/* Add what a connection waits for; the earliest due time so far, or sooner */
static int64_t watch(Conn *c, struct pollfd *fds, int *n, int64_t soonest)
{
    for (int way = 0; way < 2; way++) {
        Pipe *p = &c->pipe[way];
        struct pollfd *in = &fds[*n], *out = &fds[*n + 1];

        *n += 2;
        *in = (struct pollfd) { .fd = -1, .events = POLLIN };
        *out = (struct pollfd) { .fd = -1, .events = POLLOUT };
        if (g.stall || c->server < 0) {
            continue;
        }
        if (!p->ended && p->held < MAX_HELD) {
            in->fd = p->from;
        }
        if (p->blocked) {
            out->fd = p->to;
        } else if (p->head && p->head->due < soonest) {
            soonest = p->head->due;
        }
    }
    return soonest;
}

static void wait_for(struct pollfd *fds, int n, int64_t until)
{
    int64_t left = until == INT64_MAX ? 0 : until - now_ns();
    struct timespec ts;

    left = left < 0 ? 0 : left;
    ts = (struct timespec) { left / NS_PER_S, left % NS_PER_S };
    if (ppoll(fds, n, until == INT64_MAX ? NULL : &ts, NULL) < 0 &&
        errno != EINTR) {
        die("ppoll");
    }
}

/* Backwards, so that one that is cut is replaced by one that was served */
static void serve(struct pollfd *fds)
{
    for (int i = n_conns - 1; i >= 0 && !g.stall; i--) {
        Conn *c = conns[i];
        struct pollfd *fd = &fds[4 * i];
        bool alive = true;

        for (int way = 0; way < 2 && c->server >= 0; way++) {
            if (fd[2 * way].revents) {
                pipe_read(&c->pipe[way], way);
            }
            if (fd[2 * way + 1].revents) {
                c->pipe[way].blocked = false;
            }
            alive = alive && pipe_send(c, way);
        }
        if (!alive) {
            conn_cut(i);
        }
    }
}

int main(int argc, char **argv)
{
    static struct pollfd fds[2 + 4 * MAX_CONNS];
    int listener;

    if (argc != 3) {
        fputs(usage, stderr);
        return 2;
    }
    /* Timers are late by up to 50 us otherwise */
    prctl(PR_SET_TIMERSLACK, 1);
    server_len = parse_address(argv[2], &server_addr);
    listener = listen_at(argv[1]);
    puts("ready");
    fflush(stdout);

    while (true) {
        int64_t soonest = INT64_MAX;
        int n = 2;

        fds[0] = (struct pollfd) { .fd = STDIN_FILENO, .events = POLLIN };
        fds[1] = (struct pollfd) { .fd = listener, .events = POLLIN };
        for (int i = 0; i < n_conns; i++) {
            soonest = watch(conns[i], fds, &n, soonest);
        }
        wait_for(fds, n, soonest);
        serve(fds + 2);
        if (fds[1].revents) {
            accept_one(listener);
        }
        if (fds[0].revents) {
            read_commands();
        }
    }
}

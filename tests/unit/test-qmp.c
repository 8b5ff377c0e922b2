/*
 * The QMP client against a peer that does as it likes
 *
 * The peer is a thread with a script: what it sends, and after which pause or
 * received line.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/json-member.h"
#include "cli/qmp.h"
#include "suite.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define SHORT 150       /* ms that a test lets pass on purpose */
#define LONG 10000      /* ms that nothing takes */

/* One step of a peer, the text first; the end is all zero */
typedef struct Step {
    const char *send;
    bool receive;           /* wait for a line first */
    bool byte_by_byte;
    unsigned pause;         /* ms, before sending */
    gsize repeat;           /* send it that many times */
    bool hang;              /* then keep the socket open till the client goes */
} Step;

#define NEGOTIATION { .send = GREETING }, \
    { .send = "{\"return\": {}, \"id\": 1}\r\n", .receive = true }

typedef struct Peer {
    int fd;
    const Step *steps;
    GThread *thread;
} Peer;

static bool send_bytes(int fd, const char *text, gsize length)
{
    while (length) {
        ssize_t n = send(fd, text, length, MSG_NOSIGNAL);

        if (n <= 0) {
            return false;
        }
        text += n;
        length -= n;
    }
    return true;
}

static void wait_line(int fd)
{
    char c = 0;

    while (c != '\n' && read(fd, &c, 1) == 1) {
        continue;
    }
}

static bool send_step(int fd, const Step *s)
{
    gsize length = strlen(s->send);

    if (s->byte_by_byte) {
        for (gsize i = 0; i < length; i++) {
            if (!send_bytes(fd, s->send + i, 1)) {
                return false;
            }
            g_usleep(300);
        }
        return true;
    }
    for (gsize i = 0; i < MAX(s->repeat, 1); i++) {
        if (!send_bytes(fd, s->send, length)) {
            return false;
        }
    }
    return true;
}

static gpointer peer_main(gpointer opaque)
{
    Peer *p = opaque;

    for (const Step *s = p->steps; s->send || s->hang || s->pause; s++) {
        if (s->receive) {
            wait_line(p->fd);
        }
        g_usleep(s->pause * 1000);
        if (s->send && !send_step(p->fd, s)) {
            break;
        }
        if (s->hang) {
            char c;

            while (read(p->fd, &c, 1) == 1) {
                continue;
            }
        }
    }
    close(p->fd);
    return NULL;
}

/* Connect to a peer with that script; end_peer() afterwards */
static Qmp *with_peer(Peer *p, const Step *steps, int timeout, GError **error)
{
    int fds[2];

    g_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    p->fd = fds[0];
    p->steps = steps;
    p->thread = g_thread_new("peer", peer_main, p);
    return qmp_new_fd(fds[1], "peer", timeout, error);
}

static void end_peer(Peer *p, Qmp *qmp)
{
    qmp_free(qmp);
    g_thread_join(p->thread);
}

static void has_error(GError *error, QmpError code, const char *text)
{
    CU_ASSERT_PTR_NOT_NULL_FATAL(error);
    CU_ASSERT(g_error_matches(error, QMP_ERROR, code));
    CU_ASSERT_PTR_NOT_NULL(strstr(error->message, text));
    if (!strstr(error->message, text)) {
        fprintf(stderr, "said: %s\n", error->message);
    }
    /* Which socket it was */
    CU_ASSERT_PTR_NOT_NULL(strstr(error->message, "peer"));
}

static void expect_return(JsonNode *node, const char *member, int64_t value)
{
    int64_t found = -1;

    CU_ASSERT_PTR_NOT_NULL_FATAL(node);
    CU_ASSERT(member_int(json_node_get_object(node), member, &found));
    CU_ASSERT_EQUAL(found, value);
    json_node_unref(node);
}

static void test_command(void)
{
    static const Step steps[] = {
        NEGOTIATION,
        { .send = "{\"event\": \"A\", \"data\": {\"n\": 1}}\r\n\r\n"
                  "{\"return\": {\"v\": 7}, \"id\": 2}\r\n{\"event\": \"B\"}\r\n",
          .receive = true },
        { .send = "{\"id\": 3, \"error\": {\"class\": \"GenericError\", "
                  "\"desc\": \"no such node\"}}\r\n", .receive = true },
        { .send = "{\"return\": {\"v\": 8}, \"id\": 4}\r\n", .receive = true },
        {},
    };
    g_autoptr(GError) error = NULL;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    expect_return(qmp_execute(q, LONG, &error, "one", "key", "value", NULL),
                  "v", 7);
    CU_ASSERT_PTR_NULL(qmp_command(q, "two", NULL, LONG, &error));
    has_error(error, QMP_ERROR_COMMAND, "two: no such node");
    CU_ASSERT(!qmp_broken(q));
    g_clear_error(&error);
    expect_return(qmp_command(q, "three", NULL, LONG, &error), "v", 8);
    for (const char *name = "A"; name; name = *name == 'A' ? "B" : NULL) {
        g_autoptr(JsonObject) event = qmp_take_event(q);

        CU_ASSERT_PTR_NOT_NULL_FATAL(event);
        CU_ASSERT_STRING_EQUAL(member_string(event, "event"), name);
    }
    CU_ASSERT_PTR_NULL(qmp_take_event(q));
    end_peer(&p, q);
}

static void test_partial_lines(void)
{
    static const Step steps[] = {
        { .send = GREETING, .byte_by_byte = true },
        { .send = "{\"return\": {}, \"id\": 1}\r\n", .receive = true,
          .byte_by_byte = true },
        { .send = "{\"event\": \"X\"}\n{\"return\": {\"v\": 1}, \"id\": 2}\n",
          .receive = true, .byte_by_byte = true },
        {},
    };
    g_autoptr(GError) error = NULL;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    expect_return(qmp_command(q, "one", NULL, LONG, &error), "v", 1);
    end_peer(&p, q);
}

/* Each is what a peer says first, and that is the end of it */
static void test_garbage(void)
{
    static const char *const says[] = {
        "SSH-2.0-OpenSSH_9\r\n", "{\"QMP\": 1}\n", "[]\n", "{}\n", "{\n",
        "{\"QMP\": {}\n", "\x80\xff\n", "{\"return\": {}}\n", "null\n",
        "{\"QMP\": {}} trailing\n",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(says); i++) {
        const Step steps[] = { { .send = says[i], .hang = true }, {} };
        g_autoptr(GError) error = NULL;
        Peer p;
        Qmp *q = with_peer(&p, steps, LONG, &error);

        CU_ASSERT_PTR_NULL(q);
        has_error(error, QMP_ERROR_PROTOCOL, "does not speak QMP");
        end_peer(&p, q);
    }
}

static void test_garbage_later(void)
{
    static const char *const says[] = {
        "{\"id\": 2}\n", "{\"id\": 2, \"error\": 1}\n", "nonsense\n",
        "{\"id\": 2, \"error\": {\"desc\": 5}}\n",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(says); i++) {
        const Step steps[] = {
            NEGOTIATION,
            { .send = says[i], .receive = true, .hang = true }, {} };
        g_autoptr(GError) error = NULL;
        Peer p;
        Qmp *q = with_peer(&p, steps, LONG, &error);

        CU_ASSERT_PTR_NOT_NULL_FATAL(q);
        CU_ASSERT_PTR_NULL(qmp_command(q, "one", NULL, LONG, &error));
        has_error(error, QMP_ERROR_PROTOCOL, "");
        CU_ASSERT(qmp_broken(q));
        g_clear_error(&error);
        CU_ASSERT_PTR_NULL(qmp_command(q, "two", NULL, LONG, &error));
        has_error(error, QMP_ERROR_CLOSED, "broken");
        end_peer(&p, q);
    }
}

/* A parser that recurses would run out of stack */
static void deep_behind(const char *before)
{
    const Step steps[] = {
        { .send = before },
        { .send = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
          .repeat = 10000 },
        { .send = "\n", .hang = true }, {} };
    g_autoptr(GError) error = NULL;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);

    CU_ASSERT_PTR_NULL(q);
    has_error(error, QMP_ERROR_PROTOCOL, "does not speak QMP");
    end_peer(&p, q);
}

static void test_deep(void)
{
    deep_behind(" ");
    /* In a comment a quote would begin no text to json-glib */
    deep_behind("/*\"*/");
    deep_behind("//\"\r");
    deep_behind("#\"\r");
    deep_behind("var x='\"';");
}

static void test_endless_answer(void)
{
    g_autofree char *fill = g_strnfill(100000, 'x');
    const Step steps[] = {
        NEGOTIATION,
        { .send = fill, .receive = true, .repeat = QMP_MAX_LINE }, {} };
    g_autoptr(GError) error = NULL;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    CU_ASSERT_PTR_NULL(qmp_command(q, "one", NULL, 60000, &error));
    has_error(error, QMP_ERROR_PROTOCOL, "too long");
    end_peer(&p, q);
}

static void test_large_answer(void)
{
    const gsize size = 4 << 20;
    g_autofree char *fill = g_strnfill(size, 'y');
    g_autofree char *answer = g_strdup_printf(
        "{\"return\": \"%s\", \"id\": 2}\n", fill);
    const Step steps[] = {
        NEGOTIATION, { .send = answer, .receive = true }, {} };
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) node = NULL;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    node = qmp_command(q, "one", NULL, 60000, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(node);
    CU_ASSERT_EQUAL(strlen(json_node_get_string(node)), size);
    end_peer(&p, q);
}

static double seconds(gint64 since)
{
    return (g_get_monotonic_time() - since) / 1e6;
}

static void test_silence(void)
{
    static const Step says_nothing[] = { { .hang = true }, {} };
    static const Step greets[] = { NEGOTIATION, { .hang = true }, {} };
    g_autoptr(GError) error = NULL;
    gint64 begin = g_get_monotonic_time();
    Peer p;
    Qmp *q = with_peer(&p, says_nothing, SHORT, &error);

    CU_ASSERT_PTR_NULL(q);
    has_error(error, QMP_ERROR_TIMEOUT, "another client");
    CU_ASSERT(seconds(begin) > 0.9 * SHORT / 1e3 && seconds(begin) < 5);
    end_peer(&p, q);
    g_clear_error(&error);

    q = with_peer(&p, greets, LONG, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    begin = g_get_monotonic_time();
    CU_ASSERT_PTR_NULL(qmp_command(q, "one", NULL, SHORT, &error));
    has_error(error, QMP_ERROR_TIMEOUT, "no answer to 'one' within");
    CU_ASSERT(seconds(begin) > 0.9 * SHORT / 1e3 && seconds(begin) < 5);
    CU_ASSERT(!qmp_broken(q));
    end_peer(&p, q);
}

/* Events without end are no answer; they come faster than they are taken in */
static void test_chatter(void)
{
    g_autofree char *fill = g_strnfill(4000, 'n');
    g_autoptr(GString) noise = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    gint64 begin = g_get_monotonic_time();
    Peer p;
    Qmp *q;

    while (noise->len < 1 << 20) {
        g_string_append_printf(noise, "{\"event\": \"%s\"}\n", fill);
    }

    const Step steps[] = {
        NEGOTIATION,
        { .send = noise->str, .receive = true, .repeat = 1000000 }, {} };

    q = with_peer(&p, steps, LONG, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    CU_ASSERT_PTR_NULL(qmp_command(q, "one", NULL, 1000, &error));
    has_error(error, QMP_ERROR_TIMEOUT, "no answer");
    CU_ASSERT(seconds(begin) < 8);
    end_peer(&p, q);
}

static void test_late_answer(void)
{
    static const Step steps[] = {
        NEGOTIATION,
        { .send = "{\"return\": {\"v\": 1}, \"id\": 2}\n", .receive = true,
          .pause = 4 * SHORT },
        { .send = "{\"return\": {\"v\": 2}, \"id\": 3}\n", .receive = true },
        {},
    };
    g_autoptr(GError) error = NULL;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    CU_ASSERT_PTR_NULL(qmp_command(q, "one", NULL, SHORT, &error));
    g_clear_error(&error);
    expect_return(qmp_command(q, "two", NULL, LONG, &error), "v", 2);
    end_peer(&p, q);
}

static void test_closed(void)
{
    static const Step at_once[] = { { .pause = 1 }, {} };
    static const Step in_answer[] = {
        NEGOTIATION,
        { .send = "{\"return\": {\"v\": ", .receive = true }, {} };
    static const Step with_events[] = {
        NEGOTIATION,
        { .send = "{\"event\": \"LAST\"}\n", .receive = true }, {} };
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) event = NULL;
    Peer p;
    Qmp *q = with_peer(&p, at_once, LONG, &error);

    CU_ASSERT_PTR_NULL(q);
    has_error(error, QMP_ERROR_CLOSED, "");
    end_peer(&p, q);
    g_clear_error(&error);

    q = with_peer(&p, in_answer, LONG, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    CU_ASSERT_PTR_NULL(qmp_command(q, "one", NULL, LONG, &error));
    has_error(error, QMP_ERROR_CLOSED, "closed");
    CU_ASSERT(qmp_broken(q));
    end_peer(&p, q);
    g_clear_error(&error);

    q = with_peer(&p, with_events, LONG, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    CU_ASSERT_PTR_NULL(qmp_command(q, "quit", NULL, LONG, &error));
    event = qmp_take_event(q);
    CU_ASSERT_PTR_NOT_NULL(event);
    end_peer(&p, q);
}

static bool is_two(JsonObject *data, const void *opaque)
{
    int64_t n = 0;

    return member_int(data, "n", &n) && n == *(const int *)opaque;
}

static void test_events(void)
{
    static const Step steps[] = {
        NEGOTIATION,
        { .send = "{\"event\": \"E\", \"data\": {\"n\": 1}}\n"
                  "{\"event\": \"E\"}\n{\"event\": \"F\", \"data\": {\"n\": 2}}\n",
          .pause = 20 },
        { .send = "{\"event\": \"E\", \"data\": {\"n\": 2}}\n", .pause = 20,
          .hang = true }, {} };
    const int two = 2;
    g_autoptr(GError) error = NULL;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);
    JsonObject *event;

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    event = qmp_wait_event(q, "E", is_two, &two, LONG, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(event);
    json_object_unref(event);
    /* The others are still there, in order */
    event = qmp_wait_event(q, NULL, NULL, NULL, LONG, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(event);
    CU_ASSERT_PTR_NOT_NULL(member_object(event, "data"));
    json_object_unref(event);
    event = qmp_wait_event(q, "F", NULL, NULL, LONG, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(event);
    json_object_unref(event);
    CU_ASSERT_PTR_NULL(qmp_wait_event(q, "F", NULL, NULL, SHORT, &error));
    has_error(error, QMP_ERROR_TIMEOUT, "no event F");
    end_peer(&p, q);
}

static void count_event(JsonObject *event, void *opaque)
{
    CU_ASSERT_PTR_NOT_NULL(member_string(event, "event"));
    ++*(int *)opaque;
}

static void test_handler_and_poll(void)
{
    static const Step steps[] = {
        NEGOTIATION,
        { .send = "{\"event\": \"E\"}\n", .repeat = 3 }, {} };
    g_autoptr(GError) error = NULL;
    int count = 0;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    qmp_set_handler(q, count_event, &count);
    while (qmp_poll(q, &error)) {
        g_usleep(1000);
    }
    has_error(error, QMP_ERROR_CLOSED, "closed");
    CU_ASSERT_EQUAL(count, 3);
    end_peer(&p, q);
}

static void test_event_bound(void)
{
    static const Step steps[] = {
        NEGOTIATION,
        { .send = "{\"event\": \"E\"}\n", .repeat = QMP_MAX_EVENTS + 10 },
        { .send = "{\"return\": {\"v\": 3}, \"id\": 2}\n", .receive = true },
        {} };
    g_autoptr(GError) error = NULL;
    unsigned kept = 0;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);
    JsonObject *event;

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    expect_return(qmp_command(q, "one", NULL, LONG, &error), "v", 3);
    while ((event = qmp_take_event(q))) {
        json_object_unref(event);
        kept++;
    }
    CU_ASSERT_EQUAL(kept, QMP_MAX_EVENTS);
    CU_ASSERT_EQUAL(qmp_dropped_events(q), 10);
    end_peer(&p, q);
}

/* A peer that reads nothing: the command is larger than all buffers */
static void test_deaf(void)
{
    static const Step steps[] = { NEGOTIATION, { .pause = 10 * SHORT }, {} };
    g_autofree char *large = g_strnfill(1 << 20, 'z');
    g_autoptr(GError) error = NULL;
    Peer p;
    Qmp *q = with_peer(&p, steps, LONG, &error);

    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    CU_ASSERT_PTR_NULL(qmp_execute(q, SHORT, &error, "one", "k", large, NULL));
    has_error(error, QMP_ERROR_TIMEOUT, "takes no commands");
    CU_ASSERT(qmp_broken(q));
    end_peer(&p, q);
}

static int listen_at(const char *path, int backlog)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_strlcpy(a.sun_path, path, sizeof(a.sun_path));
    g_assert(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    g_assert(listen(fd, backlog) == 0);
    return fd;
}

static void test_connect(void)
{
    g_autofree char *dir = g_dir_make_tmp("peer-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "qmp", NULL);
    g_autofree char *fill = g_strnfill(200, 'a');
    g_autofree char *long_path = g_build_filename(dir, fill, NULL);
    g_autoptr(GError) error = NULL;
    gint64 begin;
    int fd;

    CU_ASSERT_PTR_NULL(qmp_connect(path, LONG, &error));
    has_error(error, QMP_ERROR_CONNECT, "No such file");
    g_clear_error(&error);
    CU_ASSERT_PTR_NULL(qmp_connect(long_path, LONG, &error));
    has_error(error, QMP_ERROR_CONNECT, "too long");
    g_clear_error(&error);

    fd = listen_at(path, 0);
    begin = g_get_monotonic_time();
    /* The first is in the listener's queue, the next ones do not even fit */
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_PTR_NULL(qmp_connect(path, SHORT, &error));
        has_error(error, QMP_ERROR_TIMEOUT, path);
        g_clear_error(&error);
    }
    CU_ASSERT(seconds(begin) < 10);
    close(fd);
    CU_ASSERT_PTR_NULL(qmp_connect(path, LONG, &error));
    has_error(error, QMP_ERROR_CONNECT, "refused");
    g_unlink(path);
    g_rmdir(dir);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "command, answer, error", test_command },
        { "lines in pieces", test_partial_lines },
        { "garbage for a greeting", test_garbage },
        { "garbage for an answer", test_garbage_later },
        { "deep nesting", test_deep },
        { "an answer without end", test_endless_answer },
        { "a large answer", test_large_answer },
        { "silence", test_silence },
        { "events without end", test_chatter },
        { "an answer that is late", test_late_answer },
        { "closed in the middle", test_closed },
        { "waiting for events", test_events },
        { "handler, and poll", test_handler_and_poll },
        { "too many events", test_event_bound },
        { "a peer that reads nothing", test_deaf },
        { "connecting", test_connect },
        CU_TEST_INFO_NULL,
    };

    return run_suite("qmp", tests);
}

/*
 * Fuzz the QMP client, and what monitoring makes of query-vdisks, against the
 * peer that a guest would be who has broken out into its QEMU
 *
 * A byte of 0xff in the input parts what the peer sends before it is asked, and
 * after that. Then it is gone: no call waits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/json-read.h"
#include "cli/qmp.h"
#include "cli/watch/vdisk-sample.h"
#include "fuzz.h"

#include <math.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT_MS  10000
#define GREETING    "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n"
#define MOST        65536   /* what a socket's buffer holds in any case */

static void check_labels(const VdiskSample *s)
{
    g_autoptr(MetricPage) page = metric_page_new();
    g_autofree char *text = NULL;

    for (guint i = 0; i < s->stores->len; i++) {
        const StoreSample *store = g_ptr_array_index(s->stores, i);
        const char *labels[] = { "store", store->name, NULL };

        /* What is longer is cut off, and may be another one's then */
        assert(strlen(store->name) <= METRIC_LABEL_MAX);
        assert(store->health < STORE_HEALTHS);
        metric_add(page, &store_metrics[0], store->value[0], labels);
        for (guint k = 0; k < i; k++) {
            const StoreSample *other = g_ptr_array_index(s->stores, k);

            assert(other->tree != store->tree ||
                   strcmp(other->name, store->name));
        }
    }
    text = metric_page_text(page);
    assert(g_utf8_validate(text, -1, NULL));
    /* A line for each, and two that tell what they are: no value made more */
    for (const char *p = text; *p; p += strcspn(p, "\n") + 1) {
        assert(*p == '#' || g_str_has_prefix(p, "deskcast_store_"));
    }
}

static void check_sample(JsonNode *answer)
{
    VdiskSample *s = vdisk_sample_parse(answer, "disk0");

    if (!s) {
        return;
    }
    for (unsigned i = 0; i < VDISK_VALUES; i++) {
        assert(isfinite(s->value[i]) && s->value[i] >= 0);
    }
    assert(s->stores->len <= VDISK_STORES_MAX);
    assert(s->version <= INT64_MAX && s->assigned <= INT64_MAX);
    check_labels(s);
    vdisk_sample_free(s);
}

static void tell(int fd, const void *data, size_t size)
{
    size = MIN(size, MOST);
    assert(send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size);
}

static void command(Qmp *q)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = qmp_execute(q, TIMEOUT_MS, &error,
                                             "query-vdisks", NULL);
    JsonObject *event;

    assert(!answer == (error != NULL));
    assert(!error || *error->message);
    assert(!g_error_matches(error, QMP_ERROR, QMP_ERROR_TIMEOUT));
    if (answer) {
        check_sample(answer);
    }
    while ((event = qmp_take_event(q))) {
        assert(json_object_has_member(event, "event"));
        json_object_unref(event);
    }
}

static void talk(const void *before, size_t n_before, const void *after,
                 size_t n_after)
{
    g_autoptr(GError) error = NULL;
    Qmp *q;
    int fds[2];

    assert(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    tell(fds[0], before, n_before);
    tell(fds[0], after, n_after);
    shutdown(fds[0], SHUT_WR);
    q = qmp_new_fd(fds[1], "peer", TIMEOUT_MS, &error);
    assert(!q == (error != NULL));
    if (q) {
        command(q);
        qmp_free(q);
    }
    close(fds[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *mark = size ? memchr(data, 0xff, size) : NULL;
    g_autoptr(JsonNode) node = json_read((const char *)data, size, NULL);

    /* An answer is the first line of it, of an event or of query-vdisks */
    talk(GREETING, strlen(GREETING), data, size);
    if (mark) {
        talk(data, mark - data, mark + 1, data + size - mark - 1);
    }
    if (node) {
        check_sample(node);
    }
    return 0;
}

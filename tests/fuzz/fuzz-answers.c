/*
 * Fuzz what is read of the answers of qemu-img and rbd, which tell what is in
 * somebody else's image, and of the file that a relay tells its status in
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/image-info.h"
#include "cli/json-strict.h"
#include "cli/store/rbd-answer.h"
#include "cli/watch/host-sample.h"
#include "fuzz.h"

#include <math.h>

/* Either it is taken, or an error tells why it is not */
static void check(bool taken, GError *error)
{
    assert(taken == !error && (taken || *error->message));
    g_clear_error(&error);
}

static void check_image(const char *text, size_t size)
{
    GError *error = NULL;
    uint64_t bytes = 0;

    check(image_info_size(text, size, &bytes, &error), error);
    assert(bytes <= INT64_MAX);
}

static void check_rbd(const char *text)
{
    GError *error = NULL;
    uint64_t bytes = 0;
    unsigned count = 0;

    check(rbd_answer_size(text, &bytes, &error), error);
    assert(bytes <= JSON_STRICT_MAX_NUMBER);
    error = NULL;
    check(rbd_answer_watchers(text, &count, &error), error);
    assert(count <= RBD_WATCHERS_MAX);
}

static void check_relay(const char *text, size_t size)
{
    g_autoptr(HostSample) host = host_sample_new();
    g_autofree char *metrics = NULL;

    host->relay = relay_sample_parse(text, size);
    if (!host->relay) {
        return;
    }
    assert(isfinite(host->relay->size) && host->relay->size >= 0);
    assert(isfinite(host->relay->used) && host->relay->used >= 0);
    assert(host->relay->versions->len <= RELAY_VERSIONS_MAX);
    assert(host->relay->stores->len <= VDISK_STORES_MAX);
    metrics = host_sample_metrics(host);
    assert(g_utf8_validate(metrics, -1, NULL));
    /* Each line is a metric of ours, or tells of one: no name made more */
    for (const char *p = metrics; *p; p += strcspn(p, "\n") + 1) {
        assert(*p == '#' || g_str_has_prefix(p, "deskcast_"));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);

    check_image((const char *)data, size);
    check_rbd(text);
    check_relay((const char *)data, size);
    return 0;
}

/*
 * deskcast-hook: GUEST OPERATION STAGE EXTRA, and the domain's XML on standard
 * input, as libvirt calls what is in hooks/qemu.d/
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hook.h"
#include "cli/desktop/xml-read.h"

#include <errno.h>
#include <libxml/parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

static gint64 deadline;
static int limit_ms;            /* atomic */

/*
 * Whatever hangs: libvirt, and all its other domains, must not wait for it. A
 * thread, as no signal handler runs while a file system does not answer; the
 * end of the process ends that, too.
 */
static void *watch(void *opaque)
{
    gint64 began = g_get_monotonic_time(), left;

    while ((left = began + g_atomic_int_get(&limit_ms) * INT64_C(1000) -
                   g_get_monotonic_time()) > 0) {
        g_usleep(left);
    }
    say_gave_up();
    _exit(EXIT_SUCCESS);
}

void deadline_start(int ms)
{
    deadline = g_get_monotonic_time() + (gint64)ms * 1000 * 9 / 10;
    g_atomic_int_set(&limit_ms, ms);
    g_thread_unref(g_thread_new("deadline", watch, NULL));
}

void deadline_extend(int ms)
{
    deadline += (gint64)ms * 1000;
    g_atomic_int_add(&limit_ms, ms);
}

int deadline_limit(void)
{
    return g_atomic_int_get(&limit_ms);
}

int deadline_left(void)
{
    gint64 left = (deadline - g_get_monotonic_time()) / 1000;

    return left > 0 ? left : 0;
}

gint64 deadline_time(void)
{
    return deadline;
}

static char *read_input(void)
{
    GString *s = g_string_new(NULL);
    char buf[65536];
    ssize_t n;

    while ((n = read(STDIN_FILENO, buf, sizeof(buf))) > 0 ||
           (n < 0 && errno == EINTR)) {
        g_string_append_len(s, buf, MAX(n, 0));
        if (s->len > XML_MAX_BYTES) {
            break;
        }
    }
    return g_string_free(s, FALSE);
}

/* "+64055:+108": QEMU's user, if libvirt runs it as another one */
static void find_user(Hook *h, xmlNodePtr root)
{
    h->uid = -1;
    h->gid = -1;
    for (xmlNodePtr n = root->children; n; n = n->next) {
        g_autofree char *model = NULL, *text = NULL;
        xmlNodePtr label;
        unsigned uid, gid;

        if (n->type != XML_ELEMENT_NODE ||
            strcmp((char *)n->name, "seclabel")) {
            continue;
        }
        model = xml_attribute(n, "model");
        label = xml_child(n, "label");
        text = label && label->children && label->children->content
               ? g_strdup((char *)label->children->content) : g_strdup("");
        if (!g_strcmp0(model, "dac") &&
            sscanf(text, "+%u:+%u", &uid, &gid) == 2) {
            h->uid = uid;
            h->gid = gid;
        }
    }
}

static void find_vhost(Hook *h, xmlNodePtr root)
{
    xmlNodePtr devices = xml_child(root, "devices");

    for (xmlNodePtr n = devices ? devices->children : NULL; n; n = n->next) {
        g_autofree char *type = n->type == XML_ELEMENT_NODE &&
                                !strcmp((char *)n->name, "disk")
                                ? xml_attribute(n, "type") : NULL;

        if (!g_strcmp0(type, "vhostuser") && !h->vhost) {
            h->vhost = xml_attribute(xml_child(n, "source"), "path");
        }
    }
}

/* False if it is no desktop of ours, or cannot be understood */
static bool understand(Hook *h, const char *xml)
{
    g_autoptr(CatalogMetadata) catalog = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(XmlDoc) doc = NULL;
    xmlNodePtr root, uuid;

    if (!metadata_from_domain(xml, &h->d, &catalog, &error)) {
        say(LOG_ERR, MESSAGE_METADATA,
            "%s; the desktop starts without our doing anything",
            error->message);
        return false;
    }
    if (!h->d) {
        return false;
    }
    doc = xml_read(xml, XML_MAX_BYTES, NULL);
    root = doc ? xmlDocGetRootElement(doc) : NULL;
    uuid = root ? xml_child(root, "uuid") : NULL;
    if (!uuid || !uuid->children || !g_uuid_string_is_valid(
            (char *)uuid->children->content)) {
        say(LOG_ERR, MESSAGE_METADATA, "the domain has no UUID");
        return false;
    }
    h->uuid = g_strdup((char *)uuid->children->content);
    find_user(h, root);
    find_vhost(h, root);
    return true;
}

static void tell(bool done, const char *id, const char *what, GError **error)
{
    if (!done) {
        say(LOG_WARNING, id, "%s: %s", what, (*error)->message);
        g_clear_error(error);
    }
}

static int fail(const char *id, const char *what, const GError *error)
{
    say(LOG_ERR, id, "%s: %s", what, error->message);
    return EXIT_FAILURE;
}

/* libvirt looks for the CD next */
static int prepare(const Hook *h)
{
    g_autoptr(GError) error = NULL;

    if (h->d->lifetime == LIFETIME_PRIVATE && !writer_enter(h, &error)) {
        if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY)) {
            return fail(MESSAGE_OTHER_WRITER, "not started", error);
        }
        tell(false, MESSAGE_UNPREPARED, "its writer is not noted", &error);
    }
    tell(place_prepare(h, &error), MESSAGE_UNPREPARED, "its files", &error);
    tell(identity_prepare(h, &error), MESSAGE_UNPREPARED,
         "its identity", &error);
    return EXIT_SUCCESS;
}

/* Only now libvirt tells which user QEMU is to be */
static int start(const Hook *h)
{
    g_autoptr(GError) error = NULL;

    tell(folder_prepare(h, &error), MESSAGE_UNPREPARED, "its sockets", &error);
    if (!disk_prepare(h, &error)) {
        return fail(MESSAGE_NOT_STARTED, "it has no disk", error);
    }
    tell(disk_take_version(h, &error), MESSAGE_STAYS,
         "it stays on the version it has", &error);
    if (h->d->run == RUN_VHOST_USER && !daemon_start(h, &error)) {
        return fail(MESSAGE_NOT_STARTED, "its storage daemon", error);
    }
    return EXIT_SUCCESS;
}

static void release(const Hook *h)
{
    g_autoptr(GError) error = NULL;

    if (h->d->run == RUN_VHOST_USER) {
        tell(daemon_stop(h, &error), MESSAGE_DAEMON,
             "its storage daemon", &error);
    }
    if (h->d->lifetime == LIFETIME_PRIVATE) {
        report_buffer(h);
        writer_leave(h);
    }
}

static bool is_stage(char **argv, const char *operation, const char *stage)
{
    return !strcmp(argv[2], operation) && !strcmp(argv[3], stage);
}

int main(int argc, char **argv)
{
    int status = EXIT_SUCCESS;
    g_autofree char *xml = NULL;
    Hook h = { 0 };
    gint64 begun;

    if (argc < 4) {
        fprintf(stderr, "usage: deskcast-hook GUEST OPERATION STAGE EXTRA\n"
                "libvirt calls it; link it to /etc/libvirt/hooks/qemu.d/\n");
        return 2;
    }
    if (!is_stage(argv, "prepare", "begin") &&
        !is_stage(argv, "start", "begin") &&
        !is_stage(argv, "started", "begin") && !is_stage(argv, "release", "end")) {
        return EXIT_SUCCESS;
    }
    begun = g_get_monotonic_time();
    deadline_start(HOOK_DEADLINE_MS);
    h.guest = argv[1];
    xml = read_input();
    if (!strstr(xml, METADATA_NAMESPACE)) {
        return EXIT_SUCCESS;            /* and not even parsed */
    }
    say_begin(h.guest, !strcmp(argv[2], "prepare"));
    if (!understand(&h, xml)) {
        return EXIT_SUCCESS;
    }
    if (!strcmp(argv[2], "prepare")) {
        status = prepare(&h);
    } else if (!strcmp(argv[2], "start")) {
        status = start(&h);
    } else if (!strcmp(argv[2], "started")) {
        started(&h);
    } else {
        release(&h);
    }
    say(LOG_DEBUG, NULL, "%s took %.1f ms", argv[2],
        (g_get_monotonic_time() - begun) / 1000.0);
    return status;
}

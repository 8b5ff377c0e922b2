/*
 * A desktop's disk in a storage daemon of its own, as a guest would use it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"
#include "guest-io.h"

#include "cli/desktop/blockdev.h"
#include "cli/json-member.h"
#include "cli/program.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NODE            "disk0"
#define MONITOR_FD      3               /* in the daemon */
#define BUFFER_BYTES    "33554432"      /* of a reconnect buffer */
#define PIECE           (1 << 20)       /* of a comparison */
#define SECTOR          512

struct Guest {
    Lab *lab;
    DesktopMetadata *d;         /* what its disk is made from */
    char *socket;               /* where its daemon serves it */
    uint8_t *holds;
    GSubprocess *process;       /* while it runs */
    Qmp *qmp;
    struct nbd_handle *nbd;     /* while it is used */
};

static void copy_version(WantedVersion *to, const WantedVersion *from)
{
    *to = (WantedVersion) {
        .number = from->number,
        .size = from->size,
        .root = g_strdup(from->root),
        .image = g_strdup(from->image),
        .format = g_strdup(from->format),
    };
}

static bool create(const char *const *options, const char *path,
                   const char *size, GError **error)
{
    g_autofree char *program = program_qemu_img();
    g_autofree char *complaint = NULL;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    int status;

    g_ptr_array_add(argv, program);
    g_ptr_array_add(argv, (char *)"create");
    g_ptr_array_add(argv, (char *)"-q");
    for (; *options; options++) {
        g_ptr_array_add(argv, (char *)*options);
    }
    g_ptr_array_add(argv, (char *)path);
    g_ptr_array_add(argv, (char *)size);
    g_ptr_array_add(argv, NULL);
    status = program_run((const char *const *)argv->pdata, NULL, NULL,
                         &complaint, error);
    return status == 0 ||
           (status > 0 && lab_error(error, "qemu-img create: %s", complaint));
}

static bool create_pvs(const DesktopMetadata *d, const char *path,
                       const char *role, const char *size, GError **error)
{
    bool rooted = d->wanted.root && !strcmp(role, "cache");
    g_autofree char *options = g_strdup_printf(
        "role=%s,vdisk=%s,version=%" PRIu64 "%s%s", role, d->vdisk,
        d->wanted.number, rooted ? ",verity-root=" : "",
        rooted ? d->wanted.root : "");

    return create((const char *[]) { "-f", "pvs", "-o", options, NULL }, path,
                  size, error);
}

/* What it begins with */
static bool create_files(const DesktopMetadata *d, GError **error)
{
    const char *lifetime = d->lifetime == LIFETIME_POOLED
        ? "lifetime=pooled" : "lifetime=dedicated";
    g_autofree char *bytes = g_strdup_printf("%d", LAB_BYTES);

    if (d->model == MODEL_MCS) {
        return create((const char *[]) { "-f", "mcs", "-b", d->wanted.image,
            "-F", d->wanted.format, "-o", lifetime, NULL }, d->disk, NULL,
            error);
    }
    if (d->lifetime == LIFETIME_PRIVATE) {
        return create_pvs(d, d->disk, "copy", bytes, error) &&
               create_pvs(d, d->journal, "journal", BUFFER_BYTES, error);
    }
    return create_pvs(d, d->disk, "cache", bytes, error);
}

Guest *guest_new(Lab *lab, const char *name, DesktopModel model,
                 DesktopLifetime lifetime, const char *vdisk,
                 const WantedVersion *version, const char *source,
                 GError **error)
{
    Guest *g = g_new0(Guest, 1);
    DesktopMetadata *d = g->d = g_new0(DesktopMetadata, 1);
    g_autofree char *disk = g_strdup_printf("%s.disk", name);
    g_autofree char *journal = g_strdup_printf("%s.journal", name);
    g_autofree char *socket = g_strdup_printf("%s.socket", name);

    g->lab = lab;
    g->socket = lab_path(lab, socket);
    g->holds = g_malloc(LAB_BYTES);
    d->vdisk = g_strdup(vdisk);
    d->model = model;
    d->lifetime = lifetime;
    d->run = RUN_VHOST_USER;
    d->disk = lab_path(lab, disk);
    d->journal = lab_path(lab, journal);
    d->node = g_strdup(NODE);
    if (source) {
        d->stores = g_strdupv((char *[]) { (char *)source, NULL });
    }
    copy_version(&d->wanted, version);
    guest_expect(g, lab->holds[version->number == 1 ? 1 : 2]);
    if (!create_files(d, error)) {
        guest_free(g);
        return NULL;
    }
    return g;
}

void guest_free(Guest *g)
{
    if (g) {
        guest_kill(g);
        desktop_metadata_free(g->d);
        g_free(g->socket);
        g_free(g->holds);
        g_free(g);
    }
}

void guest_expect(Guest *g, const uint8_t *holds)
{
    memcpy(g->holds, holds, LAB_BYTES);
}

const uint8_t *guest_holds(const Guest *g)
{
    return g->holds;
}

/* @arguments is taken; its answer is thrown away */
static bool command(Guest *g, const char *name, JsonObject *arguments,
                    GError **error)
{
    g_autoptr(JsonNode) answer = qmp_command(g->qmp, name, arguments,
                                             LAB_WAIT_MS, error);

    return answer != NULL;
}

/* The storage daemon, and its monitor */
static bool spawn(Guest *g, GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher =
        g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
    g_autofree char *program = program_qsd();
    g_autofree char *log = g_strconcat(g->socket, ".log", NULL);
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return lab_error(error, "no sockets: %s", g_strerror(errno));
    }
    g_subprocess_launcher_set_stderr_file_path(launcher, log);
    g_subprocess_launcher_take_fd(launcher, pair[1], MONITOR_FD);
    g_subprocess_launcher_set_child_setup(launcher, program_end_with_parent,
                                          NULL, NULL);
    g->process = g_subprocess_launcher_spawn(
        launcher, error, program, "--chardev",
        "socket,id=qmp,fd=" G_STRINGIFY(MONITOR_FD), "--monitor",
        "chardev=qmp", NULL);
    g_clear_object(&launcher);          /* closes the daemon's end */
    if (!g->process) {
        close(pair[0]);
        g_prefix_error(error, "%s: ", program);
        return false;
    }
    g->qmp = qmp_new_fd(pair[0], program, LAB_WAIT_MS, error);
    return g->qmp != NULL;
}

static bool listen_at(Guest *g, GError **error)
{
    JsonObject *arguments = json_object_new();
    JsonObject *address = json_object_new();
    JsonObject *data = json_object_new();

    unlink(g->socket);
    json_object_set_string_member(data, "path", g->socket);
    json_object_set_string_member(address, "type", "unix");
    json_object_set_object_member(address, "data", data);
    json_object_set_object_member(arguments, "addr", address);
    return command(g, "nbd-server-start", arguments, error);
}

static bool add_disk(Guest *g, GError **error)
{
    g_autofree char *text = desktop_blockdev(g->d, error);
    g_autoptr(JsonNode) node = text ? json_from_string(text, error) : NULL;

    return node && command(g, "blockdev-add", json_node_dup_object(node),
                           error);
}

static bool add_export(Guest *g, GError **error)
{
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "type", "nbd");
    json_object_set_string_member(arguments, "id", NODE);
    json_object_set_string_member(arguments, "node-name", NODE);
    json_object_set_boolean_member(arguments, "writable", true);
    return command(g, "block-export-add", arguments, error);
}

static bool use(Guest *g, GError **error)
{
    g->nbd = io_connect(g->socket, NODE, error);
    return g->nbd != NULL;
}

static void stop_using(Guest *g)
{
    g_clear_pointer(&g->nbd, io_close);
}

static bool power_on(void *opaque, GError **error)
{
    Guest *g = opaque;
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "node-name", NODE);
    return command(g, "vdisk-reset", arguments, error);
}

bool guest_reset(Guest *g, GError **error)
{
    stop_using(g);
    /* It is refused until the server has seen that its client has gone */
    return lab_wait(power_on, g, "reset", error) && use(g, error);
}

bool guest_start(Guest *g, GError **error)
{
    bool pooled = g->d->lifetime == LIFETIME_POOLED;

    return spawn(g, error) && listen_at(g, error) && add_disk(g, error) &&
           add_export(g, error) &&
           (pooled ? guest_reset(g, error) : use(g, error));
}

bool guest_quit(Guest *g, GError **error)
{
    stop_using(g);
    if (!command(g, "quit", NULL, error) ||
        !g_subprocess_wait(g->process, NULL, error)) {
        return false;
    }
    guest_kill(g);
    return true;
}

void guest_kill(Guest *g)
{
    lab_kill(&g->process);
    stop_using(g);
    g_clear_pointer(&g->qmp, qmp_free);
}

/* A piece of the disk: whole sectors, seldom whole granules */
static void choose(uint64_t *seed, uint64_t *offset, size_t *bytes)
{
    uint64_t r[2];

    lab_noise(*seed, (uint8_t *)r, sizeof(r));
    *seed = r[0];
    *bytes = SECTOR * (1 + r[0] % 96);
    *offset = (r[1] % ((LAB_BYTES - *bytes) / SECTOR)) * SECTOR;
}

bool guest_work(Guest *g, uint64_t seed, unsigned count, GError **error)
{
    while (count--) {
        uint64_t offset;
        size_t bytes;

        choose(&seed, &offset, &bytes);
        lab_noise(seed, g->holds + offset, bytes);
        if (!io_write(g->nbd, offset, bytes, g->holds + offset, error)) {
            return false;
        }
    }
    return io_flush(g->nbd, error);
}

bool guest_compare(Guest *g, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(PIECE);

    for (unsigned at = 0; at < LAB_BYTES; at += PIECE) {
        unsigned n = 0;

        if (!io_read(g->nbd, at, PIECE, buf, error)) {
            return false;
        }
        while (n < PIECE && buf[n] == g->holds[at + n]) {
            n++;
        }
        if (n < PIECE) {
            return lab_error(error, "byte %u of the disk is not what it has to "
                             "be", at + n);
        }
    }
    return true;
}

bool guest_assign(Guest *g, const WantedVersion *version, GError **error)
{
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "node-name", NODE);
    if (g->d->model == MODEL_MCS) {
        json_object_set_string_member(arguments, "filename", version->image);
        json_object_set_string_member(arguments, "format", version->format);
    } else {
        json_object_set_int_member(arguments, "version", version->number);
        json_object_set_string_member(arguments, "verity-root", version->root);
    }
    return command(g, "vdisk-assign", arguments, error);
}

/* Is it that job's? */
static bool ended(JsonObject *data, const void *opaque)
{
    return !g_strcmp0(member_string(data, "device"), opaque);
}

bool guest_job(Guest *g, const char *name, GError **error)
{
    JsonObject *arguments = json_object_new();
    JsonObject *event, *data;
    const char *why;

    json_object_set_string_member(arguments, "node-name", NODE);
    json_object_set_string_member(arguments, "job-id", name);
    if (!command(g, name, arguments, error)) {
        return false;
    }
    event = qmp_wait_event(g->qmp, "BLOCK_JOB_COMPLETED", ended, name,
                           LAB_WAIT_MS, error);
    if (!event) {
        g_prefix_error(error, "%s: ", name);
        return false;
    }
    data = member_object(event, "data");
    why = data ? member_string(data, "error") : "no data";
    if (why) {
        lab_error(error, "%s: %s", name, why);
    }
    json_object_unref(event);
    return !why;
}

int64_t guest_buffer(Guest *g, const char *member, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_execute(g->qmp, LAB_WAIT_MS, error,
                                             "query-vdisks", NULL);
    JsonArray *vdisks = answer && JSON_NODE_HOLDS_ARRAY(answer)
        ? json_node_get_array(answer) : NULL;
    JsonObject *vdisk = vdisks ? element_object(vdisks, 0) : NULL;
    JsonObject *pvs = vdisk ? member_object(vdisk, "pvs") : NULL;
    JsonObject *buffer = pvs ? member_object(pvs, "buffer") : NULL;
    int64_t value;

    if (!buffer || !member_int(buffer, member, &value)) {
        if (answer) {
            lab_error(error, "query-vdisks tells no %s", member);
        }
        return -1;
    }
    return value;
}

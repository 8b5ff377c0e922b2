/*
 * Where the self-test does its work: a folder, a store, its services
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "lab.h"
#include "guest.h"

#include "cli/json-member.h"
#include "cli/json-read.h"
#include "cli/program.h"

#include <glib/gstdio.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <string.h>
#include <sys/vfs.h>

#define ANSWER_MAX      (1 << 20)       /* of a command, in bytes */

bool lab_error(GError **error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_clear_error(error);
    if (error) {
        *error = g_error_new_valist(G_IO_ERROR, G_IO_ERROR_FAILED, format,
                                    args);
    }
    va_end(args);
    return false;
}

char *lab_path(const Lab *lab, const char *name)
{
    return g_build_filename(lab->folder, name, NULL);
}

/* Live maps are to outlive a relay, but not the host: in memory */
static char *make_map_folder(const Lab *lab)
{
    const char *const places[] = { g_getenv("XDG_RUNTIME_DIR"), "/dev/shm" };

    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *path = g_build_filename(
            places[i] ? places[i] : "", "deskcast-selftest-XXXXXX", NULL);
        struct statfs st;

        if (places[i] && statfs(places[i], &st) == 0 &&
            st.f_type == TMPFS_MAGIC && g_mkdtemp(path)) {
            return g_steal_pointer(&path);
        }
    }
    return lab_path(lab, "maps");       /* the relay says what is wrong */
}

Lab *lab_new(const char *folder, GError **error)
{
    Lab *lab = g_new0(Lab, 1);
    g_autofree char *path = g_build_filename(folder ? folder : g_get_tmp_dir(),
                                             "deskcast-selftest-XXXXXX", NULL);

    if (!g_mkdtemp(path)) {
        lab_error(error, "cannot make a folder in '%s'; name another one with "
                  "--folder", folder ? folder : g_get_tmp_dir());
        g_free(lab);
        return NULL;
    }
    lab->folder = g_steal_pointer(&path);
    lab->maps = make_map_folder(lab);
    lab->self = g_file_read_link("/proc/self/exe", NULL);
    lab->store = lab_path(lab, "store");
    for (unsigned i = 1; i < G_N_ELEMENTS(lab->holds); i++) {
        lab->holds[i] = g_malloc(LAB_BYTES);
    }
    return lab;
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *inner = g_build_filename(path, name, NULL);

        if (g_file_test(inner, G_FILE_TEST_IS_DIR) &&
            !g_file_test(inner, G_FILE_TEST_IS_SYMLINK)) {
            remove_tree(inner);
        } else {
            g_unlink(inner);
        }
    }
    g_rmdir(path);
}

void lab_free(Lab *lab, bool keep)
{
    guest_free(lab->pooled);
    guest_free(lab->dedicated);
    guest_free(lab->streamed);
    guest_free(lab->private);
    lab_kill(&lab->relay);
    lab_kill(&lab->serve);
    remove_tree(lab->maps);
    if (!keep) {
        remove_tree(lab->folder);
    }
    for (unsigned i = 1; i < G_N_ELEMENTS(lab->holds); i++) {
        g_free(lab->holds[i]);
    }
    g_free(lab->folder);
    g_free(lab->maps);
    g_free(lab->self);
    g_free(lab->store);
    g_free(lab);
}

static void add_text(void *opaque, const char *text)
{
    GString *s = opaque;

    if (s->len < ANSWER_MAX) {
        g_string_append(s, text);
    }
}

/* @argv ends with NULL; what it printed */
static char *run(const char *const *argv, GError **error)
{
    g_autoptr(GString) said = g_string_new(NULL);
    g_autofree char *complaint = NULL;
    int status = program_run(argv, add_text, said, &complaint, error);

    if (status > 0) {
        const char *why = g_str_has_prefix(complaint, "deskcast: ")
            ? complaint + strlen("deskcast: ") : complaint;

        lab_error(error, "%s", why);
    }
    return status == 0 ? g_string_free(g_steal_pointer(&said), false) : NULL;
}

bool lab_deskcast(Lab *lab, GError **error, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *said = NULL;
    const char *word;
    va_list args;

    g_ptr_array_add(argv, lab->self);
    va_start(args, error);
    while ((word = va_arg(args, const char *))) {
        g_ptr_array_add(argv, (char *)word);
    }
    va_end(args);
    g_ptr_array_add(argv, NULL);
    said = run((const char *const *)argv->pdata, error);
    if (!said) {
        g_prefix_error(error, "deskcast %s %s: ",
                       (const char *)argv->pdata[1],
                       (const char *)argv->pdata[2]);
    }
    return said != NULL;
}

/* Its entry in "vdisk show"; belongs to @vdisk */
static JsonObject *find_version(JsonObject *vdisk, unsigned number)
{
    JsonArray *versions = member_array(vdisk, "versions");

    for (unsigned i = 0; versions && i < json_array_get_length(versions);
         i++) {
        JsonObject *v = element_object(versions, i);
        int64_t n;

        if (v && member_int(v, "version", &n) && n == number) {
            return v;
        }
    }
    return NULL;
}

bool lab_make_store(Lab *lab, GError **error)
{
    return g_file_test(lab->store, G_FILE_TEST_IS_DIR) ||
           lab_deskcast(lab, error, "store", "create", lab->store, NULL);
}

bool lab_version(Lab *lab, const char *vdisk, unsigned number,
                 WantedVersion *version, GError **error)
{
    const char *const argv[] = { lab->self, "vdisk", "show", vdisk, "--store",
                                 lab->store, "--json", NULL };
    g_autofree char *said = run(argv, error);
    g_autoptr(JsonObject) o = NULL;
    JsonObject *v;

    o = said ? json_read_object(said, strlen(said), error) : NULL;
    if (!o) {
        return false;
    }
    v = find_version(o, number);
    if (!v || !member_string(v, "image") || !member_string(v, "format")) {
        return lab_error(error, "the store does not have %s@%u", vdisk, number);
    }
    *version = (WantedVersion) {
        .number = number,
        .size = LAB_BYTES,
        .root = g_strdup(member_string(v, "root")),
        .image = g_build_filename(lab->store, "vdisks", vdisk,
                                  member_string(v, "image"), NULL),
        .format = g_strdup(member_string(v, "format")),
    };
    return true;
}

void lab_version_clear(WantedVersion *version)
{
    g_clear_pointer(&version->root, g_free);
    g_clear_pointer(&version->image, g_free);
    g_clear_pointer(&version->format, g_free);
}

bool lab_write_image(Lab *lab, const char *name, const uint8_t *holds,
                     GError **error)
{
    g_autofree char *path = lab_path(lab, name);

    return g_file_set_contents(path, (const char *)holds, LAB_BYTES, error);
}

/* Vigna's splitmix64 */
void lab_noise(uint64_t seed, uint8_t *buf, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        memcpy(buf + at, &z, sizeof(z));
    }
}

bool lab_wait(LabReady *ready, void *opaque, const char *what, GError **error)
{
    gint64 end = g_get_monotonic_time() + LAB_WAIT_MS * (gint64)1000;

    for (;;) {
        g_autoptr(GError) why = NULL;

        if (ready(opaque, &why)) {
            return true;
        }
        if (g_get_monotonic_time() > end) {
            return lab_error(error, "%s: not within %d s%s%s", what,
                             LAB_WAIT_MS / 1000, why ? ": " : "",
                             why ? why->message : "");
        }
        g_usleep(20000);
    }
}

/* A service that has begun, and the file that it writes its words to */
typedef struct Service {
    GSubprocess *process;
    char *log;
} Service;

static bool serves(void *opaque, GError **error)
{
    Service *s = opaque;
    g_autofree char *said = NULL;

    if (!g_file_get_contents(s->log, &said, NULL, error)) {
        return false;
    }
    lab_error(error, "it says: %s", said);
    return strstr(said, " exports on ") != NULL;
}

static bool start_service(const Lab *lab, const char *name,
                          const char *const *argv, GSubprocess **process,
                          GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher =
        g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDERR_MERGE);
    g_autofree char *file = g_strdup_printf("%s.log", name);
    g_autofree char *log = lab_path(lab, file);
    Service s = { .log = log };

    g_unlink(log);
    g_subprocess_launcher_set_stdout_file_path(launcher, log);
    g_subprocess_launcher_set_child_setup(launcher, program_end_with_parent,
                                          NULL, NULL);
    s.process = *process = g_subprocess_launcher_spawnv(launcher, argv, error);
    return *process && lab_wait(serves, &s, name, error);
}

bool lab_serve(Lab *lab, GError **error)
{
    g_autofree char *socket = lab_path(lab, "store.socket");

    return start_service(lab, "store serve", (const char *[]) {
        lab->self, "store", "serve", "--store", lab->store, "--socket", socket,
        NULL }, &lab->serve, error);
}

bool lab_relay(Lab *lab, const char *vdisk, GError **error)
{
    g_autofree char *socket = lab_path(lab, "relay.socket");
    g_autofree char *status = lab_path(lab, "relay.json");
    g_autofree char *cache = lab_path(lab, "cache");
    g_autofree char *from = lab_store_uri(lab);

    return start_service(lab, "relay", (const char *[]) {
        lab->self, "relay", "--from", from, "--vdisk", vdisk, "--cache", cache,
        "--size", "256M", "--socket", socket, "--map-folder", lab->maps,
        "--status", status, "--interval", "1", NULL }, &lab->relay, error);
}

void lab_kill(GSubprocess **process)
{
    if (*process) {
        g_subprocess_force_exit(*process);
        g_subprocess_wait(*process, NULL, NULL);
        g_clear_object(process);
    }
}

static char *uri(const Lab *lab, const char *name)
{
    g_autofree char *path = lab_path(lab, name);
    g_autofree char *escaped = g_uri_escape_string(path, "/", false);

    return g_strconcat("nbd+unix:///?socket=", escaped, NULL);
}

char *lab_store_uri(const Lab *lab)
{
    return uri(lab, "store.socket");
}

char *lab_relay_uri(const Lab *lab)
{
    return uri(lab, "relay.socket");
}

typedef struct Hydrated {
    const Lab *lab;
    const char *name;
} Hydrated;

static bool is_hydrated(void *opaque, GError **error)
{
    Hydrated *h = opaque;
    g_autofree char *path = lab_path(h->lab, "relay.json");
    g_autofree char *text = NULL;
    g_autoptr(JsonObject) o = NULL;
    JsonArray *versions;
    bool hydrated = false;
    gsize length;

    o = g_file_get_contents(path, &text, &length, error)
        ? json_read_object(text, length, error) : NULL;
    if (!o) {
        return false;
    }
    versions = member_array(o, "versions");
    for (unsigned i = 0; versions && i < json_array_get_length(versions);
         i++) {
        JsonObject *v = element_object(versions, i);

        if (!g_strcmp0(member_string(v, "export"), h->name)) {
            member_bool(v, "hydrated", &hydrated);
        }
    }
    return hydrated;
}

bool lab_wait_hydrated(Lab *lab, const char *name, GError **error)
{
    Hydrated h = { .lab = lab, .name = name };
    g_autofree char *what = g_strdup_printf("the relay has all of %s", name);

    return lab_wait(is_hydrated, &h, what, error);
}

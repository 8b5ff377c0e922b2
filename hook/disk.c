/*
 * A desktop's files: its disk, its reconnect buffer, its identity
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hook.h"
#include "cli/desktop/identity.h"
#include "cli/desktop/journal-size.h"
#include "cli/desktop/xml.h"
#include "cli/journal-file.h"
#include "cli/layer-file.h"
#include "cli/program.h"
#include "take.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

/* @argv as a shell takes it, but with @path for @new */
static char *as_typed(const GPtrArray *argv, const char *new, const char *path)
{
    g_autoptr(GString) line = g_string_new(NULL);

    for (guint i = 0; argv->pdata[i]; i++) {
        g_autofree char *word = g_shell_quote(argv->pdata[i] == new
                                              ? path : argv->pdata[i]);

        g_string_append_printf(line, "%s%s", i ? " " : "", word);
    }
    return g_string_free(g_steal_pointer(&line), FALSE);
}

/*
 * All of a reconnect buffer is written, which on a slow disk takes longer than
 * libvirt may be kept waiting; it would again at each start.
 */
static void explain_slow(const Hook *h, const char *path, const char *line,
                         GError **error)
{
    g_autofree char *quoted = g_shell_quote(path);
    g_autofree char *owner = h->uid == (uid_t)-1 ? g_strdup("") :
        g_strdup_printf(" && chown %u:%u %s", h->uid, h->gid, quoted);

    g_clear_error(error);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
                "'%s' could not be made in the %d s that a start may take: its "
                "disk is slow, or does not answer. Make it by hand, once, and "
                "start the desktop again: (umask 077; %s%s)", path,
                deadline_limit() / 1000, line, owner);
}

/* Make @path by `qemu-img create`, whole or not at all, and QEMU's own */
static bool make_file(const Hook *h, const char *path,
                      const char *const *options, const char *size,
                      GError **error)
{
    g_autofree char *program = program_qemu_img();
    g_autofree char *new = g_strconcat(path, ".new", NULL);
    g_autofree char *folder = g_path_get_dirname(path);
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    bool made;

    if (g_mkdir_with_parents(folder, 0711) < 0) {
        return hook_errno(error, "make the folder", folder);
    }
    g_ptr_array_add(argv, program);
    g_ptr_array_add(argv, (char *)"create");
    g_ptr_array_add(argv, (char *)"-q");
    for (; *options; options++) {
        g_ptr_array_add(argv, (char *)*options);
    }
    g_ptr_array_add(argv, new);
    g_ptr_array_add(argv, (char *)size);
    g_ptr_array_add(argv, NULL);
    unlink(new);
    made = run_program((const char *const *)argv->pdata, NULL, error) &&
           hook_give(h, new, error);
    if (made && (chmod(new, 0600) < 0 || rename(new, path) < 0)) {
        made = hook_errno(error, "make", path);
    }
    unlink(new);
    if (!made && error && g_error_matches(*error, G_IO_ERROR,
                                          G_IO_ERROR_TIMED_OUT)) {
        g_autofree char *line = as_typed(argv, new, path);

        explain_slow(h, path, line, error);
    }
    if (made) {
        /* Of what a desktop keeps, a second one means that the first is lost */
        say(h->d->lifetime == LIFETIME_DEDICATED ? LOG_WARNING : LOG_INFO,
            MESSAGE_DISK_MADE, "made '%s'%s", path,
            h->d->lifetime == LIFETIME_DEDICATED
            ? ", a new one: right if this is the desktop's first start" : "");
    }
    return made;
}

static bool make_mcs(const Hook *h, GError **error)
{
    const WantedVersion *w = &h->d->wanted;
    g_autofree char *options = g_strdup_printf(
        "lifetime=%s,desktop=%s", h->d->lifetime == LIFETIME_POOLED
        ? "pooled" : "dedicated", h->uuid);

    return make_file(h, h->d->disk, (const char *[]) {
        "-f", "mcs", "-b", w->image, "-F", w->format, "-o", options, NULL },
        NULL, error);
}

static bool make_pvs(const Hook *h, const char *path, const char *role,
                     uint64_t bytes, GError **error)
{
    const WantedVersion *w = &h->d->wanted;
    bool rooted = w->root && !strcmp(role, "cache");
    g_autofree char *size = g_strdup_printf("%" PRIu64, bytes);
    g_autofree char *options = g_strdup_printf(
        "role=%s,vdisk=%s,version=%" PRIu64 ",desktop=%s%s%s", role,
        h->d->vdisk, w->number, h->uuid, rooted ? ",verity-root=" : "",
        rooted ? w->root : "");

    return make_file(h, path, (const char *[]) { "-f", "pvs", "-o", options,
                                                 NULL }, size, error);
}

static bool make_disk(const Hook *h, GError **error)
{
    const DesktopMetadata *d = h->d;

    if (!d->wanted.number) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "'%s' is not there, and no version is wanted that it "
                    "could be made for: push one", d->disk);
        return false;
    }
    return d->model == MODEL_MCS ? make_mcs(h, error) :
           make_pvs(h, d->disk, d->lifetime == LIFETIME_PRIVATE ? "copy"
                                                                : "cache",
                    d->wanted.size, error);
}

/* A link that leads nowhere is there: what it means is elsewhere, or was */
static bool is_there(const char *path)
{
    return faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
           errno != ENOENT;
}

static bool check_link(const char *path, GError **error)
{
    if (access(path, F_OK) == 0 || errno != ENOENT || !is_there(path)) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                "'%s' is a link to what is not there: is its file system "
                "mounted?", path);
    return false;
}

/*
 * Files of an earlier version are in the way of this one. They go once
 * nothing is in them that the store does not have.
 */
static bool clear_old_version(const Hook *h, GError **error)
{
    const DesktopMetadata *d = h->d;
    JournalLag lag;

    if (!d->wanted.number || !is_there(d->journal)) {
        return true;
    }
    if (!journal_file_lag(d->journal, deadline_time(), &lag, error)) {
        return false;
    }
    if (lag.header.version == d->wanted.number &&
        !strcmp(lag.header.vdisk, d->vdisk)) {
        return true;
    }
    if (lag.bytes || !lag.whole || lag.header.broken) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "'%s' holds writes of %s@%" PRIu64 " that its store does "
                    "not have: see 'deskcast journal show', and rescue or "
                    "remove them", d->journal, lag.header.vdisk,
                    lag.header.version);
        return false;
    }
    if (unlink(d->journal) < 0 || (unlink(d->disk) < 0 && errno != ENOENT)) {
        return hook_errno(error, "remove what is left of a version in",
                          d->journal);
    }
    return true;
}

bool disk_prepare(const Hook *h, GError **error)
{
    const DesktopMetadata *d = h->d;
    bool private = d->lifetime == LIFETIME_PRIVATE;

    if (private && !clear_old_version(h, error)) {
        return false;
    }
    if (!check_link(d->disk, error) ||
        (!is_there(d->disk) && !make_disk(h, error))) {
        return false;
    }
    if (!private || is_there(d->journal)) {
        return true;
    }
    deadline_extend(journal_make_ms(d->write_cache));
    return make_pvs(h, d->journal, "journal", d->write_cache ?: JOURNAL_BYTES,
                    error);
}

bool disk_take_version(const Hook *h, GError **error)
{
    const DesktopMetadata *d = h->d;
    g_autoptr(LayerFile) file = NULL;
    VdiskHeader new;

    if (d->lifetime != LIFETIME_POOLED || !d->wanted.number) {
        return true;
    }
    file = layer_file_open(d->disk, error);
    if (!file) {
        return false;
    }
    switch (take_wanted(&file->header, d, &new, error)) {
    case TAKE_NOTHING:
        return true;
    case TAKE_REFUSED:
        return false;
    case TAKE_CHANGED:
        break;
    }
    if (d->model == MODEL_MCS && *new.assigned.name &&
        access(d->wanted.image, R_OK) < 0) {
        return hook_errno(error, "read the image", d->wanted.image);
    }
    if (!layer_file_set_header(file, &new, error)) {
        return false;
    }
    say(LOG_INFO, MESSAGE_TAKES, "takes version %" PRIu64, d->wanted.number);
    return true;
}

/* Where its files are: libvirt makes UEFI variables there */
bool place_prepare(const Hook *h, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(h->d->disk);

    return g_mkdir_with_parents(folder, 0711) == 0 ||
           hook_errno(error, "make the folder", folder);
}

/* A CD that is not there keeps QEMU from starting. What an administrator gave
 * for it is not known here. */
bool identity_prepare(const Hook *h, GError **error)
{
    const Identity identity = { .name = h->guest, .uuid = h->uuid };
    const char *path = h->d->identity;

    if (!path || is_there(path)) {
        return true;
    }
    if (!identity_write(&identity, path, error) ||
        !hook_give(h, path, error)) {
        return false;
    }
    say(LOG_WARNING, MESSAGE_IDENTITY_MADE,
        "'%s' was not there; it was made anew with the host name "
        "only", path);
    return true;
}

/* A folder for sockets, where QEMU can make them, and nobody else look */
bool folder_prepare(const Hook *h, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(h->d->monitor);
    g_autofree char *above = g_path_get_dirname(folder);
    struct stat st;

    if (strcmp(above, DESKTOP_RUN_DIR) != 0) {
        return true;                    /* the administrator's own place */
    }
    if (g_mkdir_with_parents(above, 0755) < 0 ||
        (mkdir(folder, 0700) < 0 && errno != EEXIST) ||
        lstat(folder, &st) < 0) {
        return hook_errno(error, "make the folder", folder);
    }
    if (!S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return hook_errno(error, "use", folder);
    }
    return hook_give(h, folder, error);
}

void report_buffer(const Hook *h)
{
    g_autoptr(GError) error = NULL;
    JournalLag lag;

    if (!journal_file_lag(h->d->journal, deadline_time(), &lag, &error)) {
        say(LOG_ERR, MESSAGE_BUFFER_BAD,
            "its reconnect buffer '%s': %s", h->d->journal,
            error->message);
    } else if (lag.header.broken) {
        say(LOG_ERR, MESSAGE_BUFFER_BAD,
            "its reconnect buffer '%s' is broken: its disk failed. "
            "'deskcast journal rescue' has what it holds", h->d->journal);
    } else if (lag.bytes || !lag.whole) {
        say(LOG_WARNING, MESSAGE_UNSHIPPED,
            "%s%" PRIu64 " bytes were written that the store does "
            "not have yet; they are safe in '%s'. Start the desktop again "
            "with the store there, and they are shipped; do not seal the "
            "version before", lag.whole ? "" : "at least ", lag.bytes,
            h->d->journal);
    } else {
        say(LOG_INFO, MESSAGE_SHIPPED, "the store has all that was written");
    }
}

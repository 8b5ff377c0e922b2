/*
 * The one writer of a private vDisk on this host
 *
 * A file beside the reconnect buffer, named by vDisk and version, says who it
 * is. The store would fence one of two writers, with its writes in its buffer;
 * this is before anything is written. A note counts as long as its host does
 * not prove it void: by another boot, or by a desktop that does not run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hook.h"
#include "cli/desktop/journal-size.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define QEMU_PID_DIR    "/run/libvirt/qemu"
#define NOTE_MAX_BYTES  1024

enum { NOTE_HOST, NOTE_BOOT, NOTE_GUEST, NOTE_UUID, NOTE_LINES };

static char *note_path(const Hook *h)
{
    g_autofree char *folder = g_path_get_dirname(h->d->journal);
    g_autofree char *name = g_strdup_printf(".%s@%" PRIu64 ".writer",
                                            h->d->vdisk,
                                            h->d->wanted.number);

    return g_build_filename(folder, name, NULL);
}

static char *boot_id(void)
{
    char *text = NULL;

    g_file_get_contents("/proc/sys/kernel/random/boot_id", &text, NULL, NULL);
    return text ? g_strchomp(text) : g_strdup("unknown");
}

/* libvirt's file of the process, which goes with it */
static bool runs(const char *guest)
{
    g_autofree char *file = g_strconcat(guest, ".pid", NULL);
    g_autofree char *path = g_build_filename(QEMU_PID_DIR, file, NULL);
    g_autofree char *text = NULL;
    pid_t pid;

    if (strchr(guest, '/') || !g_file_get_contents(path, &text, NULL, NULL)) {
        return false;
    }
    pid = atoi(text);
    return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

/* Seconds from the note until QEMU's pid is there, at most, and as many again:
 * the rest of prepare, and start, which may make a reconnect buffer */
static int starting(const Hook *h)
{
    return 2 * (HOOK_DEADLINE_MS + journal_make_ms(h->d->write_cache)) / 1000;
}

/* Does the note still mean somebody else? */
static bool is_rival(const Hook *h, char **note, const struct stat *st)
{
    g_autofree char *boot = boot_id();

    if (g_strv_length(note) < NOTE_LINES) {
        return false;                   /* torn: the host lost power */
    }
    if (!strcmp(note[NOTE_UUID], h->uuid) &&
        !strcmp(note[NOTE_HOST], g_get_host_name())) {
        return false;
    }
    if (strcmp(note[NOTE_HOST], g_get_host_name()) != 0) {
        return true;                    /* from here nobody can tell */
    }
    return !strcmp(note[NOTE_BOOT], boot) &&
           (runs(note[NOTE_GUEST]) ||
            llabs(time(NULL) - st->st_mtime) < starting(h));
}

static bool read_note(int fd, char ***note, struct stat *st)
{
    char buf[NOTE_MAX_BYTES + 1];
    ssize_t n = pread(fd, buf, NOTE_MAX_BYTES, 0);

    if (n < 0 || fstat(fd, st) < 0) {
        return false;
    }
    buf[n] = '\0';
    *note = g_strsplit(buf, "\n", -1);
    return true;
}

static bool write_note(const Hook *h, int fd)
{
    g_autofree char *boot = boot_id();
    g_autofree char *text = g_strdup_printf("%s\n%s\n%s\n%s\n",
                                            g_get_host_name(), boot, h->guest,
                                            h->uuid);
    size_t len = strlen(text);

    return ftruncate(fd, 0) == 0 &&
           pwrite(fd, text, len, 0) == (ssize_t)len && fdatasync(fd) == 0;
}

static bool refuse(const Hook *h, const char *path, char **note,
                   GError **error)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                "%s@%" PRIu64 " has a writer: desktop '%s' on host '%s'. Shut "
                "that one down; if its host is gone for good, remove '%s'",
                h->d->vdisk, h->d->wanted.number, note[NOTE_GUEST],
                note[NOTE_HOST], path);
    return false;
}

bool writer_enter(const Hook *h, GError **error)
{
    g_autofree char *path = note_path(h);
    g_autofree char *folder = g_path_get_dirname(path);
    g_auto(GStrv) note = NULL;
    struct stat st;
    bool done = false, locked;
    int fd;

    g_mkdir_with_parents(folder, 0711);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return hook_errno(error, "open", path);
    }
    locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno == EWOULDBLOCK) {
        /* Two hooks at once: either may be the first */
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                    "%s@%" PRIu64 " is being given a writer just now: start "
                    "this desktop again", h->d->vdisk, h->d->wanted.number);
    } else if (!locked || !read_note(fd, &note, &st)) {
        hook_errno(error, "lock", path);
    } else if (st.st_size && is_rival(h, note, &st)) {
        refuse(h, path, note, error);
    } else {
        done = write_note(h, fd) || hook_errno(error, "write", path);
    }
    close(fd);
    return done;
}

void writer_leave(const Hook *h)
{
    g_autofree char *path = note_path(h);
    g_auto(GStrv) note = NULL;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0) {
        return;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && read_note(fd, &note, &st) &&
        g_strv_length(note) >= NOTE_LINES &&
        !strcmp(note[NOTE_UUID], h->uuid) &&
        ftruncate(fd, 0) < 0) {
        say(LOG_WARNING, MESSAGE_UNPREPARED, "'%s' cannot be emptied", path);
    }
    close(fd);
}

/*
 * Cut a command short at one of its calls that change a folder
 *
 *   cut FOLDER LOG kill|hold|ERRNO N COMMAND...
 *
 * Runs COMMAND and all its children, and counts system calls that change a
 * file or folder below FOLDER, or make it durable, in the order in which they
 * begin. Before the Nth all processes are killed, or it is held for ever (until
 * somebody ends the machine, or us), or it fails with ERRNO, a number, without
 * being done. 0: none. Each call is a line of LOG, complete up to where it cuts:
 *
 *   NUMBER CALL PATH [PATH]
 *
 * A manifest that is about to be renamed is copied to LOG.NUMBER. Exit status:
 * that of COMMAND; 99 if it was killed by us, 98 for errors of our own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUR_ERROR   98
#define WAS_KILLED  99

/* Where a call says which file it is about */
enum {
    FD = 1,             /* argument 0 is a descriptor */
    PATH = 2,           /* argument 0 is a path */
    AT = 4,             /* arguments 0 and 1: a folder and a path in it */
    TWO = 8,            /* and again as 2 and 3; 1 with PATH */
    FLAGS = 16,         /* behind the path; changing if they create */
    FD2 = 32,           /* argument 2 is the descriptor that is written to */
};

static const struct Call {
    const char *name;
    int number, where;
} calls[] = {
#define CALL(name, where) { #name, SYS_##name, where }
    CALL(open, PATH | FLAGS), CALL(openat, AT | FLAGS), CALL(creat, PATH),
    CALL(write, FD), CALL(pwrite64, FD), CALL(writev, FD), CALL(pwritev, FD),
    CALL(pwritev2, FD), CALL(ftruncate, FD), CALL(fallocate, FD),
    CALL(truncate, PATH), CALL(sendfile, FD), CALL(copy_file_range, FD2),
    CALL(fsync, FD), CALL(fdatasync, FD), CALL(sync_file_range, FD),
    CALL(syncfs, FD), CALL(rename, PATH | TWO), CALL(renameat, AT | TWO),
    CALL(renameat2, AT | TWO), CALL(unlink, PATH), CALL(unlinkat, AT),
    CALL(rmdir, PATH), CALL(mkdir, PATH), CALL(mkdirat, AT),
    CALL(link, PATH | TWO), CALL(linkat, AT | TWO), CALL(chmod, PATH),
    CALL(fchmod, FD), CALL(fchmodat, AT),
#undef CALL
};

#define N_CALLS     (sizeof(calls) / sizeof(calls[0]))

static char folder[PATH_MAX];   /* canonical */
static const char *log_name;
static FILE *log_file;
static unsigned long cut_at, counted;
static int cut_errno;           /* 0: kill, or hold */
static bool hold;

static void die(const char *what)
{
    perror(what);
    exit(OUR_ERROR);
}

/* The command stops at the calls of the table, and at no others */
static void install_filter(void)
{
    struct sock_filter f[N_CALLS + 4];
    struct sock_fprog program = { .filter = f };
    size_t n = 0;

    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                          offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < N_CALLS; i++) {
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                              calls[i].number, N_CALLS - i, 0);
    }
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    program.len = n;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        die("seccomp");
    }
}

/* Which file */

static void read_text(pid_t pid, unsigned long address, char *buf, size_t size)
{
    size_t n = 0;

    /* By the page: the next one may not be there */
    while (n < size - 1) {
        size_t step = 4096 - (address + n) % 4096;
        struct iovec to = { buf + n, step < size - 1 - n ? step : size - 1 - n };
        struct iovec from = { (void *)(address + n), to.iov_len };
        ssize_t got = process_vm_readv(pid, &to, 1, &from, 1, 0);

        if (got <= 0 || memchr(buf + n, 0, got)) {
            break;
        }
        n += got;
    }
    buf[size - 1] = 0;
}

static void read_link(pid_t pid, const char *what, char *to)
{
    char name[64];
    ssize_t n;

    snprintf(name, sizeof(name), "/proc/%d/%s", pid, what);
    n = readlink(name, to, PATH_MAX - 1);
    to[n < 0 ? 0 : n] = 0;
}

static void fd_path(pid_t pid, int fd, char *to)
{
    char what[32];

    snprintf(what, sizeof(what), "fd/%d", fd);
    read_link(pid, fd == AT_FDCWD ? "cwd" : what, to);
}

static void at_path(pid_t pid, int at, unsigned long address, char *to)
{
    char name[PATH_MAX] = "", base[PATH_MAX] = "";

    read_text(pid, address, name, sizeof(name));
    if (*name == '/') {
        strcpy(to, name);
        return;
    }
    fd_path(pid, at, base);
    if (snprintf(to, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) {
        *to = 0;
    }
}

static bool below(const char *path)
{
    size_t n = strlen(folder);

    return !strncmp(path, folder, n) && (path[n] == '/' || !path[n]);
}

/* The paths of a call; false if it changes nothing of ours */
static bool look(pid_t pid, const struct Call *c,
                 const struct user_regs_struct *r, char *a, char *b)
{
    const unsigned long args[] = { r->rdi, r->rsi, r->rdx, r->r10 };
    int path = c->where & AT ? 1 : 0;
    bool flags = !(c->where & FLAGS) ||
                 args[path + 1] & (O_CREAT | O_TRUNC);

    if (c->where & FD) {
        fd_path(pid, args[0], a);
    } else if (c->where & FD2) {
        fd_path(pid, args[2], a);
    } else if (c->where & AT) {
        at_path(pid, args[0], args[1], a);
    } else {
        at_path(pid, AT_FDCWD, args[0], a);
    }
    if (c->where & TWO) {
        at_path(pid, c->where & AT ? (int)args[2] : AT_FDCWD,
                args[c->where & AT ? 3 : 1], b);
    }
    return flags && (below(a) || below(b));
}

static void save_manifest(const char *from)
{
    char to[PATH_MAX], buf[65536];
    int in = open(from, O_RDONLY), out;
    ssize_t n;

    snprintf(to, sizeof(to), "%s.%lu", log_name, counted);
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (in < 0 || out < 0) {
        die(from);
    }
    while ((n = read(in, buf, sizeof(buf))) > 0) {
        if (write(out, buf, n) != n) {
            die(to);
        }
    }
    close(in);
    close(out);
}

/* Processes */

static pid_t tracees[4096];
static size_t n_tracees;

static void add(pid_t pid)
{
    for (size_t i = 0; i < n_tracees; i++) {
        if (tracees[i] == pid) {
            return;
        }
    }
    if (n_tracees == sizeof(tracees) / sizeof(tracees[0])) {
        die("too many processes");
    }
    tracees[n_tracees++] = pid;
}

static void forget(pid_t pid)
{
    for (size_t i = 0; i < n_tracees; i++) {
        if (tracees[i] == pid) {
            tracees[i] = tracees[--n_tracees];
            return;
        }
    }
}

static void kill_all(void)
{
    for (size_t i = 0; i < n_tracees; i++) {
        kill(tracees[i], SIGKILL);
    }
    while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR) {
    }
    exit(WAS_KILLED);
}

/* A call of the table is about to begin */
static void at_call(pid_t pid)
{
    struct user_regs_struct r;
    char a[PATH_MAX] = "", b[PATH_MAX] = "";
    const struct Call *c = calls;

    if (ptrace(PTRACE_GETREGS, pid, 0, &r)) {
        return;                 /* killed meanwhile */
    }
    while ((unsigned long)c->number != r.orig_rax) {
        if (++c == calls + N_CALLS) {
            return;
        }
    }
    if (!look(pid, c, &r, a, b)) {
        return;
    }
    counted++;
    fprintf(log_file, "%lu %s %s%s%s\n", counted, c->name, a, *b ? " " : "", b);
    if (*b && strstr(b, "/manifest.json")) {
        save_manifest(a);
    }
    if (counted == cut_at) {
        fflush(log_file);
        while (hold) {
            pause();
        }
        if (!cut_errno) {
            kill_all();
        }
        r.orig_rax = -1;        /* no call at all, and this is its result */
        r.rax = -cut_errno;
        ptrace(PTRACE_SETREGS, pid, 0, &r);
    }
}

static void on_stop(pid_t pid, int status)
{
    int event = status >> 16, sig = WSTOPSIG(status);
    unsigned long child;

    if (event == PTRACE_EVENT_SECCOMP) {
        at_call(pid);
    } else if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK ||
               event == PTRACE_EVENT_VFORK) {
        if (!ptrace(PTRACE_GETEVENTMSG, pid, 0, &child)) {
            add(child);
        }
    }
    /* The first stop of a child is ours, other signals are its own */
    if (event || sig == SIGSTOP || sig == SIGTRAP) {
        sig = 0;
    }
    ptrace(PTRACE_CONT, pid, 0, (long)sig);
}

static int trace(pid_t root)
{
    int status, result = OUR_ERROR;
    pid_t pid;

    while ((pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
        if (pid < 0) {
            continue;
        }
        if (WIFSTOPPED(status)) {
            add(pid);
            on_stop(pid, status);
            continue;
        }
        forget(pid);
        if (pid == root) {
            result = WIFEXITED(status) ? WEXITSTATUS(status)
                                       : 128 + WTERMSIG(status);
        }
    }
    return result;
}

int main(int argc, char **argv)
{
    int status;
    pid_t root;

    if (argc < 6 || !realpath(argv[1], folder)) {
        fprintf(stderr, "usage: cut FOLDER LOG kill|hold|ERRNO N COMMAND...\n");
        return OUR_ERROR;
    }
    log_name = argv[2];
    log_file = fopen(log_name, "we");
    hold = !strcmp(argv[3], "hold");
    cut_errno = atoi(argv[3]);
    cut_at = strtoul(argv[4], NULL, 10);
    if (!log_file) {
        die(log_name);
    }
    root = fork();
    if (root == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        install_filter();
        execvp(argv[5], argv + 5);
        die(argv[5]);
    }
    if (root < 0 || waitpid(root, &status, 0) != root || !WIFSTOPPED(status) ||
        ptrace(PTRACE_SETOPTIONS, root, 0, PTRACE_O_EXITKILL |
               PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE |
               PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK)) {
        die("ptrace");
    }
    add(root);
    ptrace(PTRACE_CONT, root, 0, 0);
    status = trace(root);
    return fclose(log_file) ? OUR_ERROR : status;
}

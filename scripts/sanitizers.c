/*
 * What the sanitizers do in all that SANITIZE=1 builds, also where a test or
 * libvirt clears the environment
 *
 * Test programs preload libraries of their own; leaks are valgrind's, in the tier
 * unit. REPORTS is where scripts/check looks.
 *
 * A report's file is named after the process. Numbers of processes come again, and
 * with them the file of another one: its report would be lost, and who may not
 * write to it, as it is another user's, does not even start. So the user and the time
 * are in the name, too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE        /* gettid */

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

static char *append(char *end, const char *text)
{
    while (*text) {
        *end++ = *text++;
    }
    *end = '\0';
    return end;
}

static char *append_number(char *end, unsigned long n)
{
    if (n > 9) {
        end = append_number(end, n / 10);
    }
    return append(end, (char[]){ '0' + n % 10, '\0' });
}

/*
 * REPORTS and a name. The sanitizers are not up yet: nothing is called that they have a
 * function of their own for.
 */
static char *append_path(char *end, const char *name)
{
    struct timespec now = { 0 };

    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    end = append(append(append(end, REPORTS "/"), name), "-");
    end = append_number(end, syscall(SYS_getuid));
    end = append_number(append(end, "-"), now.tv_sec);
    return append_number(append(end, "-"), now.tv_nsec);
}

const char *__asan_default_options(void)
{
    static char options[sizeof(REPORTS) + 200];
    char *end = append(options, "detect_leaks=0:verify_asan_link_order=0:log_path=");

    append_path(end, "address");
    return options;
}

const char *__ubsan_default_options(void)
{
    static char options[sizeof(REPORTS) + 200];

    append_path(append(options, "print_stacktrace=1:log_path="), "address");
    return options;
}

/*
 * Both libraries have this function, and libubsan takes that of libasan for its own:
 * what its options say of log_path is for libasan, and its own reports would go to
 * standard error.
 */
__attribute__((constructor)) static void set_report_path(void)
{
    static char path[sizeof(REPORTS) + 200];
    void *library = dlopen("libubsan.so.1", RTLD_LAZY | RTLD_NOLOAD);
    void (*set)(const char *path) = NULL;

    if (library) {
        *(void **)&set = dlsym(library, "__sanitizer_set_report_path");
    }
    if (set) {
        append_path(path, "undefined");
        set(path);
    }
}

static bool sleeps(const char *thread)
{
    char path[64], stat[128] = "";
    const char *name;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%.20s/stat", thread);
    f = fopen(path, "r");
    if (!f) {
        return true;            /* it has ended */
    }
    fread(stat, 1, sizeof(stat) - 1, f);
    fclose(f);
    name = strrchr(stat, ')');  /* which may have anything in it */
    return !name || strncmp(name, ") S", 3) == 0;
}

static bool others_sleep(void)
{
    DIR *folder = opendir("/proc/self/task");
    struct dirent *entry;
    bool all = true;

    while (folder && all && (entry = readdir(folder))) {
        all = entry->d_name[0] == '.' || atol(entry->d_name) == gettid() ||
              sleeps(entry->d_name);
    }
    if (folder) {
        closedir(folder);
    }
    return all;
}

/*
 * In a child of fork(), libasan has the locks as they were, and a thread that was
 * allocating something had one: the child waits for it for ever. QEMU's -daemonize is
 * such a fork, as soon as it has a thread, which allocates as it starts. One
 * that sleeps has none of these locks.
 */
static void before_fork(void)
{
    for (int ms = 0; ms < 2000 && !others_sleep(); ms++) {
        usleep(1000);
    }
}

__attribute__((constructor)) static void look_before_fork(void)
{
    pthread_atfork(before_fork, NULL, NULL);
}

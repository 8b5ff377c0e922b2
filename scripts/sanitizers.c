/*
 * What the sanitizers do in all that SANITIZE=1 builds, also where a test or
 * libvirt clears the environment
 *
 * Test programs preload libraries of their own; leaks are valgrind's, in the tier
 * unit. REPORTS is where scripts/check looks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <dlfcn.h>
#include <stddef.h>

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
    return "detect_leaks=0:verify_asan_link_order=0:log_path=" REPORTS "/address";
}

const char *__ubsan_default_options(void)
{
    return "print_stacktrace=1:log_path=" REPORTS "/address";
}

/*
 * Both libraries have this function, and libubsan takes that of libasan for its own:
 * what its options say of log_path is for libasan, and its own reports would go to
 * standard error.
 */
__attribute__((constructor)) static void set_report_path(void)
{
    void *library = dlopen("libubsan.so.1", RTLD_LAZY | RTLD_NOLOAD);
    void (*set)(const char *path) = NULL;

    if (library) {
        *(void **)&set = dlsym(library, "__sanitizer_set_report_path");
    }
    if (set) {
        set(REPORTS "/undefined");
    }
}

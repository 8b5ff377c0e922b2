/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A volatile write cache in front of one image: what a disk or a server has
 * that acknowledges writes before they are durable.
 *
 * Preloaded into qemu-storage-daemon. What it writes to the image stays in the
 * memory of the process until an fdatasync or fsync of the image succeeds;
 * reads see it, and a process that is killed has forgotten it. The size of the
 * image and its preallocation are kept at once.
 *
 *   VOLATILE_IMAGE  the image; it has to exist
 *   VOLATILE_EVICT  of so many percent of the pages written, the content is
 *                   kept at once (default 0): a cache that makes room keeps
 *                   any subset, in any order
 *   VOLATILE_RATE   a flush takes as long as a disk that writes so many bytes
 *                   a second (default 0: no time)
 *   VOLATILE_HOLD   a file. A write that finds it renames it to NAME.held, and
 *                   is done when that is gone
 *
 * These are the calls of QEMU's file driver with aio=threads. mmap, io_uring,
 * native AIO and plain read and write go past the cache. A page is 4 KiB,
 * beginning at a multiple of that in the image.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <glib.h>

#define PAGE 4096

static struct {
    dev_t dev;
    ino_t ino;
    unsigned evict;         /* percent */
    guint64 rate;           /* bytes a second; 0: any */
    const char *hold;       /* or NULL */
    char *held;
    pthread_mutex_t lock;   /* for what follows, and all access to the image */
    GHashTable *pages;      /* number of a page: its content, or all_zero */
    unsigned seed;
} cache = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Not written to */
static uint8_t all_zero[PAGE];

static struct {
    ssize_t (*pread)(int, void *, size_t, off64_t);
    ssize_t (*pwrite)(int, const void *, size_t, off64_t);
    ssize_t (*preadv)(int, const struct iovec *, int, off64_t);
    ssize_t (*pwritev)(int, const struct iovec *, int, off64_t);
    int (*fallocate)(int, int, off64_t, off64_t);
    int (*ftruncate)(int, off64_t);
    int (*fdatasync)(int);
    int (*fsync)(int);
    off64_t (*lseek)(int, off64_t, int);
    ssize_t (*copy)(int, off64_t *, int, off64_t *, size_t, unsigned);
} real;

static void die(const char *what)
{
    fprintf(stderr, "volatile: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void free_page(void *page)
{
    if (page != all_zero) {
        g_free(page);
    }
}

static __attribute__((constructor)) void init(void)
{
    const char *image = getenv("VOLATILE_IMAGE");
    const char *evict = getenv("VOLATILE_EVICT");
    const char *rate = getenv("VOLATILE_RATE");
    struct stat st;

    real.pread = dlsym(RTLD_NEXT, "pread64");
    real.pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real.preadv = dlsym(RTLD_NEXT, "preadv64");
    real.pwritev = dlsym(RTLD_NEXT, "pwritev64");
    real.fallocate = dlsym(RTLD_NEXT, "fallocate64");
    real.ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real.fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real.fsync = dlsym(RTLD_NEXT, "fsync");
    real.lseek = dlsym(RTLD_NEXT, "lseek64");
    real.copy = dlsym(RTLD_NEXT, "copy_file_range");
    if (!image || stat(image, &st) < 0) {
        die(image ? image : "VOLATILE_IMAGE");
    }
    cache.dev = st.st_dev;
    cache.ino = st.st_ino;
    cache.evict = evict ? atoi(evict) : 0;
    cache.rate = rate ? strtoull(rate, NULL, 10) : 0;
    cache.hold = getenv("VOLATILE_HOLD");
    cache.held = g_strconcat(cache.hold ? cache.hold : "", ".held", NULL);
    cache.seed = getpid();
    cache.pages = g_hash_table_new_full(NULL, NULL, NULL, free_page);
}

static bool is_image(int fd, struct stat *st)
{
    return cache.pages && fstat(fd, st) == 0 &&
           st->st_dev == cache.dev && st->st_ino == cache.ino;
}

/* Called with the lock held */
static uint8_t *find(uint64_t number)
{
    return g_hash_table_lookup(cache.pages, (void *)(uintptr_t)number);
}

/* Called with the lock held. Takes the content. */
static void put(uint64_t number, uint8_t *content)
{
    g_hash_table_replace(cache.pages, (void *)(uintptr_t)number, content);
}

static size_t iov_size(const struct iovec *iov, int n)
{
    size_t size = 0;

    for (int i = 0; i < n; i++) {
        size += iov[i].iov_len;
    }
    return size;
}

/* Copy between len bytes that begin at pos of the vector, and a buffer */
static void iov_copy(const struct iovec *iov, size_t pos, uint8_t *buffer,
                     size_t len, bool to_vector)
{
    for (; len; iov++) {
        size_t n = iov->iov_len > pos ? iov->iov_len - pos : 0;
        uint8_t *at = (uint8_t *)iov->iov_base + pos;

        n = n > len ? len : n;
        if (n) {
            memcpy(to_vector ? at : buffer, to_vector ? buffer : at, n);
        }
        buffer += n;
        len -= n;
        pos = n ? 0 : pos - iov->iov_len;
    }
}

/* How much of len bytes from off lies in off's page */
static size_t in_page(off64_t off, size_t len)
{
    size_t left = PAGE - off % PAGE;

    return len < left ? len : left;
}

static ssize_t read_image(int fd, const struct iovec *iov, int n, off64_t off)
{
    ssize_t got, done;

    pthread_mutex_lock(&cache.lock);
    got = real.preadv(fd, iov, n, off);
    for (done = 0; done < got; done += in_page(off + done, got - done)) {
        uint8_t *page = find((off + done) / PAGE);

        if (page) {
            iov_copy(iov, done, page + (off + done) % PAGE,
                     in_page(off + done, got - done), true);
        }
    }
    pthread_mutex_unlock(&cache.lock);
    return got;
}

/* A copy of a page as reads see it. Called with the lock held. */
static uint8_t *copy_page(int fd, uint64_t number)
{
    uint8_t *copy = g_malloc0(PAGE);
    const uint8_t *page = find(number);

    if (page) {
        memcpy(copy, page, PAGE);
    } else if (real.pread(fd, copy, PAGE, number * PAGE) < 0) {
        g_free(copy);
        return NULL;
    }
    return copy;
}

/*
 * Write a page to the image; called with the lock held. The end of the image
 * may lie in it.
 */
static int keep_page(int fd, uint64_t number, const uint8_t *page)
{
    struct stat st;
    off64_t left;

    if (fstat(fd, &st) < 0) {
        return -1;
    }
    left = st.st_size - (off64_t)number * PAGE;
    if (left <= 0) {
        return 0;
    }
    left = left < PAGE ? left : PAGE;
    return real.pwrite(fd, page, left, number * PAGE) == left ? 0 : -1;
}

/* Called with the lock held */
static int evict_some(int fd, uint64_t number)
{
    if (rand_r(&cache.seed) % 100 >= cache.evict) {
        return 0;
    }
    if (keep_page(fd, number, find(number)) < 0) {
        return -1;
    }
    g_hash_table_remove(cache.pages, (void *)(uintptr_t)number);
    return 0;
}

/* Called with the lock held */
static int grow(int fd, off64_t end)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return -1;
    }
    return end > st.st_size ? real.ftruncate(fd, end) : 0;
}

/* iov == NULL: zeroes. Called with the lock held. */
static int write_locked(int fd, const struct iovec *iov, off64_t off,
                        size_t len)
{
    size_t done, n;

    if (grow(fd, off + len) < 0) {
        return -1;
    }
    for (done = 0; done < len; done += n) {
        uint64_t number = (off + done) / PAGE;
        uint8_t *page;

        n = in_page(off + done, len - done);
        page = !iov && n == PAGE ? all_zero : copy_page(fd, number);
        if (!page) {
            return -1;
        }
        if (iov) {
            iov_copy(iov, done, page + (off + done) % PAGE, n, false);
        } else if (n < PAGE) {
            memset(page + (off + done) % PAGE, 0, n);
        }
        put(number, page);
        if (evict_some(fd, number) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A disk on which one write takes long, and no other has to wait for it */
static void hold(void)
{
    if (!cache.hold || rename(cache.hold, cache.held) < 0) {
        return;
    }
    while (access(cache.held, F_OK) == 0) {
        g_usleep(1000);
    }
}

static ssize_t write_image(int fd, const struct iovec *iov, int n, off64_t off)
{
    size_t len = iov_size(iov, n);
    int ret;

    hold();
    pthread_mutex_lock(&cache.lock);
    ret = write_locked(fd, iov, off, len);
    pthread_mutex_unlock(&cache.lock);
    return ret < 0 ? -1 : (ssize_t)len;
}

static int compare(const void *a, const void *b)
{
    uintptr_t x = *(uintptr_t *)a, y = *(uintptr_t *)b;

    return x < y ? -1 : x > y;
}

/*
 * Zeroes become a hole where the file system has holes. Called with the lock
 * held.
 */
static int keep_zeroes(int fd, uint64_t first, uint64_t count)
{
    if (real.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                       first * PAGE, count * PAGE) == 0) {
        return 0;
    }
    for (; count; count--, first++) {
        if (keep_page(fd, first, all_zero) < 0) {
            return -1;
        }
    }
    return 0;
}

/*
 * How many pages without a gap are zeroes, from the first of these. Called
 * with the lock held.
 */
static unsigned count_zeroes(const uintptr_t *numbers, unsigned count)
{
    unsigned n = 0;

    while (n < count && numbers[n] == numbers[0] + n &&
           find(numbers[n]) == all_zero) {
        n++;
    }
    return n;
}

/* Called with the lock held */
static int keep_all(int fd)
{
    unsigned count, n;
    uintptr_t *numbers;
    int ret = 0;

    numbers = (uintptr_t *)g_hash_table_get_keys_as_array(cache.pages, &count);
    qsort(numbers, count, sizeof(*numbers), compare);
    for (unsigned i = 0; i < count && ret == 0; i += n ? n : 1) {
        n = count_zeroes(numbers + i, count - i);
        ret = n ? keep_zeroes(fd, numbers[i], n) :
                  keep_page(fd, numbers[i], find(numbers[i]));
    }
    g_free(numbers);
    return ret;
}

/*
 * What was not kept because of an error stays in memory: a later flush that
 * succeeds keeps it
 */
static int flush_image(int fd, int (*flush)(int))
{
    guint64 bytes;
    int ret;

    pthread_mutex_lock(&cache.lock);
    bytes = (guint64)g_hash_table_size(cache.pages) * PAGE;
    ret = keep_all(fd);
    if (ret == 0) {
        ret = flush(fd);
    }
    if (ret == 0) {
        g_hash_table_remove_all(cache.pages);
    }
    pthread_mutex_unlock(&cache.lock);
    if (cache.rate) {
        g_usleep(bytes * G_USEC_PER_SEC / cache.rate);
    }
    return ret;
}

static int zero_image(int fd, int mode, off64_t off, off64_t len,
                      off64_t size)
{
    int ret;

    if (mode & FALLOC_FL_KEEP_SIZE) {
        len = off >= size ? 0 : off + len > size ? size - off : len;
    }
    pthread_mutex_lock(&cache.lock);
    ret = write_locked(fd, NULL, off, len);
    pthread_mutex_unlock(&cache.lock);
    return ret;
}

static gboolean behind(gpointer number, gpointer page, gpointer end)
{
    (void)page;
    return (uintptr_t)number >= *(uint64_t *)end;
}

static int truncate_image(int fd, off64_t size)
{
    uint64_t end = (size + PAGE - 1) / PAGE;
    uint8_t *last;
    int ret;

    pthread_mutex_lock(&cache.lock);
    ret = real.ftruncate(fd, size);
    if (ret == 0) {
        g_hash_table_foreach_remove(cache.pages, behind, &end);
        last = size % PAGE ? find(size / PAGE) : NULL;
        if (last && last != all_zero) {
            memset(last + size % PAGE, 0, PAGE - size % PAGE);
        }
    }
    pthread_mutex_unlock(&cache.lock);
    return ret;
}

/* While there is anything in memory all counts as data, which never is wrong */
static off64_t seek_image(int fd, off64_t off, int whence, off64_t size)
{
    bool empty;

    pthread_mutex_lock(&cache.lock);
    empty = g_hash_table_size(cache.pages) == 0;
    pthread_mutex_unlock(&cache.lock);
    if (empty || off >= size) {
        return real.lseek(fd, off, whence);
    }
    return whence == SEEK_DATA ? off : size;
}

/* What QEMU calls */

ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
    struct iovec iov = { buf, len };
    struct stat st;

    return is_image(fd, &st) ? read_image(fd, &iov, 1, off) :
                               real.pread(fd, buf, len, off);
}

ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t off)
{
    struct stat st;

    return is_image(fd, &st) ? read_image(fd, iov, n, off) :
                               real.preadv(fd, iov, n, off);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
    struct iovec iov = { (void *)buf, len };
    struct stat st;

    return is_image(fd, &st) ? write_image(fd, &iov, 1, off) :
                               real.pwrite(fd, buf, len, off);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t off)
{
    struct stat st;

    return is_image(fd, &st) ? write_image(fd, iov, n, off) :
                               real.pwritev(fd, iov, n, off);
}

int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
    struct stat st;

    if (!is_image(fd, &st) || !(mode & ~FALLOC_FL_KEEP_SIZE)) {
        return real.fallocate(fd, mode, off, len);
    }
    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE |
                 FALLOC_FL_ZERO_RANGE)) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return zero_image(fd, mode, off, len, st.st_size);
}

int ftruncate64(int fd, off64_t size)
{
    struct stat st;

    return is_image(fd, &st) ? truncate_image(fd, size) :
                               real.ftruncate(fd, size);
}

int fdatasync(int fd)
{
    struct stat st;

    return is_image(fd, &st) ? flush_image(fd, real.fdatasync) :
                               real.fdatasync(fd);
}

int fsync(int fd)
{
    struct stat st;

    return is_image(fd, &st) ? flush_image(fd, real.fsync) : real.fsync(fd);
}

off64_t lseek64(int fd, off64_t off, int whence)
{
    struct stat st;

    return (whence == SEEK_DATA || whence == SEEK_HOLE) && is_image(fd, &st) ?
           seek_image(fd, off, whence, st.st_size) :
           real.lseek(fd, off, whence);
}

ssize_t copy_file_range(int in, off64_t *in_off, int out, off64_t *out_off,
                        size_t len, unsigned flags)
{
    struct stat st;

    if (is_image(in, &st) || is_image(out, &st)) {
        errno = ENOSYS;
        return -1;
    }
    return real.copy(in, in_off, out, out_off, len, flags);
}

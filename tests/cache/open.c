/*
 * Test of the host cache: what is found when it is opened, and what goes wrong
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "cache.h"

#define SCAN_WAIT_MS    20000

static void test_fill(Place *p)
{
    PvsCache *c, *desk, *second;
    Error *err = NULL;
    Survey s;

    place_clear(p);
    c = place_own(p);
    desk = place_attach(p);
    s = survey(desk);
    report(s.missing == GRANULES, "a new cache is empty");
    for (uint64_t g = 0; g < GRANULES; g += MAX_RUN) {
        fill(c, g, MIN(MAX_RUN, GRANULES - g));
    }
    s = survey(desk);
    report(s.data + s.zero == GRANULES && !s.wrong && s.zero > 100,
           "all of it is read, tree and last granule too: %" PRIu64 " data, %"
           PRIu64 " zero, %" PRIu64 " wrong", s.data, s.zero, s.wrong);
    second = pvs_cache_own(p->data, p->map, &p->id, 0, &p->ops, p, &err);
    report(!second && strstr(error_get_pretty(err), "another relay"),
           "a second owner is refused");
    error_free(err);
    pvs_cache_close(c);
    s = survey(desk);
    report(s.data + s.zero == GRANULES, "its owner gone, it is read on");
    pvs_cache_close(desk);
}

/* Half of it filled by an owner that has ended properly */
static Survey clean_stop(Place *p)
{
    PvsCache *c;
    Survey s;

    place_clear(p);
    c = place_own(p);
    for (uint64_t g = 0; g < GRANULES - MAX_RUN; g += 2 * MAX_RUN) {
        fill(c, g, MAX_RUN);
    }
    s = survey(c);
    pvs_cache_close(c);
    return s;
}

static Survey reopened(Place *p)
{
    PvsCache *c = place_own(p);
    Survey s = survey(c);

    pvs_cache_close(c);
    return s;
}

/* Until the scan has come to its end: nothing changes for a while */
static Survey scanned(Place *p, PvsCache *c)
{
    uint64_t before = UINT64_MAX;

    for (int ms = 0; ms < SCAN_WAIT_MS && before != p->verified; ms += 300) {
        before = p->verified;
        poll_ms(300);
    }
    return survey(c);
}

static bool same(Survey a, Survey b)
{
    return a.data == b.data && a.zero == b.zero && a.wrong + b.wrong == 0;
}

static void test_restart(Place *p)
{
    Survey before = clean_stop(p), s = reopened(p);

    report(same(before, s) && !p->verified,
           "same boot: goes on with the same map");
    unlink(p->map);
    s = reopened(p);
    report(same(before, s) && !p->verified,
           "another boot after a clean stop: %" PRIu64 " of %" PRIu64
           " are lost, %" PRIu64 " verified", before.data - s.data,
           before.data, p->verified);
}

/* As an owner leaves it that is killed between two words of the map */
static void forget_granule(Place *p, uint64_t g)
{
    off_t at = LIVE_MAP_HEADER_BYTES + g / 32 * sizeof(uint64_t);
    int fd = open(p->map, O_RDWR);
    uint64_t word;

    g_assert(pread(fd, &word, sizeof(word), at) == sizeof(word));
    word &= ~(UINT64_C(3) << g % 32 * 2);
    g_assert(pwrite(fd, &word, sizeof(word), at) == sizeof(word));
    close(fd);
}

/* Half of the tree's head is of no use; nobody may ask for the other half */
static void test_half_head(Place *p)
{
    uint64_t missing[3];        /* without its one half, the other, neither */

    for (unsigned i = 0; i < ARRAY_SIZE(missing); i++) {
        PvsCache *c;

        place_clear(p);
        c = place_own(p);
        fill(c, IMAGE_GRANULES, TREE_GRANULES);
        pvs_cache_close(c);
        if (i < 2) {
            forget_granule(p, IMAGE_GRANULES + i);
        }
        missing[i] = reopened(p).missing;
    }
    report(missing[0] == IMAGE_GRANULES + 2 && missing[1] == missing[0] &&
           missing[2] == IMAGE_GRANULES,
           "half of the tree's head is none: %" PRIu64 ", %" PRIu64 ", %" PRIu64
           " granules are missing", missing[0], missing[1], missing[2]);
}

static int open_data(Place *p)
{
    return open(p->data, O_RDWR | O_CLOEXEC);
}

static VdiskHeader read_header(Place *p, int *copy)
{
    uint8_t buf[2 * VDISK_HEADER_BYTES];
    g_autofree char *why = NULL;
    int fd = open_data(p);
    VdiskHeader h;
    unsigned bad;

    g_assert(pread(fd, buf, sizeof(buf), 0) == sizeof(buf));
    *copy = vdisk_header_choose(&h, buf, &bad, &why);
    g_assert(*copy >= 0);
    close(fd);
    return h;
}

/* What @change does to the header of a cache that is there */
static void change_header(Place *p, void (*change)(VdiskHeader *h))
{
    uint8_t buf[VDISK_HEADER_BYTES];
    int copy, fd = open_data(p);
    VdiskHeader h = read_header(p, &copy);

    change(&h);
    h.generation++;
    vdisk_header_encode(&h, buf);
    g_assert(pwrite(fd, buf, sizeof(buf), copy * sizeof(buf)) == sizeof(buf));
    close(fd);
}

static void no_token(VdiskHeader *h)
{
    memset(h->token, 0, sizeof(h->token));
}

static void newer_bits(VdiskHeader *h)
{
    no_token(h);
    h->autoclear_features = 0x30;
    h->compatible_features = 0xff;
}

/* Bits of a newer release that nobody keeps up are gone before it is filled */
static void test_newer_bits(Place *p)
{
    VdiskHeader h;
    PvsCache *c;
    int copy;

    clean_stop(p);
    change_header(p, newer_bits);
    unlink(p->map);
    c = place_own(p);
    h = read_header(p, &copy);
    report(h.autoclear_features == 0 && h.compatible_features == 0xff,
           "features of a newer release are cleared as the format says");
    pvs_cache_close(c);
}

static void longest(VdiskHeader *h)
{
    h->file_size = INT64_MAX;
}

/* Its length and what is never written behind it are no sum in 63 bits */
static void test_longest(Place *p)
{
    Survey s;

    clean_stop(p);
    change_header(p, longest);
    s = reopened(p);
    report(s.missing == GRANULES,
           "a file that should have 2^63 - 1 bytes was cut off: made anew");
}

static void flip_bits(Place *p, uint64_t offset, uint64_t bytes, Rng *rng,
                      unsigned times)
{
    int fd = open_data(p);

    while (times--) {
        uint64_t at = offset + rng_below(rng, bytes);
        uint8_t byte;

        g_assert(pread(fd, &byte, 1, at) == 1);
        byte ^= 1 << rng_below(rng, 8);
        g_assert(pwrite(fd, &byte, 1, at) == 1);
    }
    close(fd);
}

static void test_scan(Place *p, Rng *rng)
{
    Survey before = clean_stop(p), s;
    PvsCache *c;
    int copy;
    VdiskHeader h = read_header(p, &copy);

    change_header(p, no_token);
    unlink(p->map);
    c = place_own(p);
    s = survey(c);
    report(s.missing == GRANULES, "unclean stop, another boot: empty at first");
    s = scanned(p, c);
    report(s.data == before.data && !s.wrong && p->verified,
           "all %" PRIu64 " granules come back by verifying them", s.data);
    pvs_cache_close(c);
    s = reopened(p);
    report(s.data == before.data, "which holds after that");

    change_header(p, no_token);
    unlink(p->map);
    flip_bits(p, h.data_offset, GRANULES * GRANULE / 2, rng, 200);
    c = place_own(p);
    s = scanned(p, c);
    report(s.data < before.data && s.data > before.data - 201 && !s.wrong,
           "what was damaged meanwhile does not: %" PRIu64 " of %" PRIu64
           ", %" PRIu64 " wrong", s.data, before.data, s.wrong);
    pvs_cache_close(c);
}

static void test_scan_stopped(Place *p)
{
    Survey before = clean_stop(p), s;
    PvsCache *c;

    change_header(p, no_token);
    unlink(p->map);
    pvs_cache_close(place_own(p));      /* stopped before it has begun */
    c = place_own(p);
    s = scanned(p, c);
    report(s.data == before.data, "a scan that was stopped goes on: %" PRIu64
           " of %" PRIu64, s.data, before.data);
    pvs_cache_close(c);
}

static void test_damaged_map(Place *p, Rng *rng)
{
    Survey before = clean_stop(p), s;
    PvsCache *c;
    int copy;
    VdiskHeader h = read_header(p, &copy);

    unlink(p->map);
    flip_bits(p, h.map_offset, GRANULES / 4, rng, 40);
    c = place_own(p);
    s = scanned(p, c);
    report(!s.wrong && s.data == before.data && p->verified,
           "a saved map that was damaged is not trusted: %" PRIu64 " wrong",
           s.wrong);
    pvs_cache_close(c);
}

/* A new file that got the old one's inode: the old map does not count for it */
static void test_inode(Place *p)
{
    struct stat old, now;
    bool reused = false;
    uint64_t missing = GRANULES;
    uint64_t wrong = 0;

    for (int i = 0; i < 20 && !reused; i++) {
        Survey s;

        clean_stop(p);
        g_assert(stat(p->data, &old) == 0);
        unlink(p->data);
        s = reopened(p);
        g_assert(stat(p->data, &now) == 0);
        reused = old.st_ino == now.st_ino;
        missing = MIN(missing, s.missing);
        wrong += s.wrong;
    }
    report(missing == GRANULES && !wrong,
           "a new file is empty, whatever its inode: %" PRIu64 " wrong%s",
           wrong, reused ? "" : " # SKIP the file system uses no inode again");
}

static void test_cut(Place *p)
{
    off_t size;
    PvsCache *c, *desk;
    struct stat st;
    Survey s;

    clean_stop(p);
    c = place_own(p);
    desk = place_attach(p);
    g_assert(stat(p->data, &st) == 0);
    size = st.st_size - (GRANULES / 2) * GRANULE;
    g_assert(truncate(p->data, size) == 0);
    s = survey(desk);
    report(s.failed > 0 && !s.wrong && s.data > 0,
           "cut off under a desktop: %" PRIu64 " misses, %" PRIu64 " wrong",
           s.failed, s.wrong);
    fill(c, GRANULES - 2, 2);
    s = survey(desk);
    report(!s.wrong, "and filled behind that: %" PRIu64 " wrong", s.wrong);
    pvs_cache_close(desk);
    pvs_cache_close(c);
    s = reopened(p);
    report(s.missing == GRANULES, "made anew by the next owner");
}

/* Errors in writing back */

static int coroutine_fn co_sync_entry(void *opaque)
{
    return pvs_cache_co_sync(opaque);
}

typedef struct Background {
    PvsCache *c;
    bool done;
} Background;

static void coroutine_fn background_sync(void *opaque)
{
    Background *b = opaque;

    co_sync_entry(b->c);
    b->done = true;
    aio_wait_kick();
}

static void test_sync_error(Place *p)
{
    PvsCache *c;
    Survey s;

    place_clear(p);
    c = place_own(p);
    fill(c, 1, 6);
    sync_cache(c);
    fill(c, 701, 6);
    fail_syncs = 1;
    sync_cache(c);
    s = survey(c);
    report(s.data == 6 && state_of(c, 1) == VDISK_STATE_DATA,
           "a failed sync takes back what came after the last good one");
    fill(c, 701, 6);
    sync_cache(c);
    report(survey(c).data == 12, "which can be filled again");
    fill(c, 1401, 6);
    fail_syncs = 1;
    pvs_cache_close(c);
    s = reopened(p);
    report(s.data == 12, "so does one that fails at the end: %" PRIu64, s.data);
}

/* The kernel tells one of two about an error */
static void test_two_syncs(Place *p)
{
    Background b[2] = {};
    PvsCache *c;
    Survey s;

    place_clear(p);
    c = place_own(p);
    b[0].c = b[1].c = c;
    fill(c, 1, 6);
    hold_syncs_ms = 200;
    fail_syncs = 1;
    qemu_coroutine_enter(qemu_coroutine_create(background_sync, &b[0]));
    poll_ms(50);
    fill(c, 701, 6);
    qemu_coroutine_enter(qemu_coroutine_create(background_sync, &b[1]));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !b[0].done || !b[1].done);
    hold_syncs_ms = 0;
    s = survey(c);
    report(s.data == 0, "two syncs at once, one error: %" PRIu64
           " granules are taken for durable", s.data);
    pvs_cache_close(c);
}

/* Room */

static void test_no_space(Place *p)
{
    PvsCache *c;
    Survey s;

    place_clear(p);
    c = place_own(p);
    fill(c, 1, 6);
    fail_writes = ENOSPC;
    report(fill(c, 701, 6) == -ENOSPC, "no space: a fill says so");
    s = survey(c);
    report(s.data == 6 && !s.wrong, "and what is there is read");
    poll_ms(14000);
    fill(c, 701, 6);
    poll_ms(2500);
    report(p->full == 1 && p->room == 0,
           "it was told once, and tried again: %u, %u", p->full, p->room);
    fail_writes = 0;
    for (int i = 0; i < 8 && !p->room; i++) {
        poll_ms(2500);
        fill(c, 701, 6);
    }
    s = survey(c);
    report(p->room == 1 && s.data == 12, "with room again it is filled");
    pvs_cache_close(c);
}

static void test_limit(Place *p)
{
    const uint64_t limit = 4 * 1024 * 1024;
    struct stat st;
    PvsCache *c;

    place_clear(p);
    c = pvs_cache_own(p->data, p->map, &p->id, limit, &p->ops, p, &error_abort);
    for (uint64_t g = 0; g < GRANULES; g += MAX_RUN) {
        fill(c, g, MIN(MAX_RUN, GRANULES - g));
    }
    sync_cache(c);
    poll_ms(2500);
    g_assert(stat(p->data, &st) == 0);
    report((uint64_t)st.st_blocks * 512 <= limit && p->full == 1 &&
           (uint64_t)st.st_blocks * 512 > limit / 2,
           "a limit of %" PRIu64 " KiB holds: %" PRIu64 " KiB, told %u times",
           limit / 1024, (uint64_t)st.st_blocks / 2, p->full);
    pvs_cache_close(c);
}

/* What is not taken */

static void refuse(Place *p, const char *what, const char *expect)
{
    Error *err = NULL;
    PvsCache *c = pvs_cache_attach(p->data, p->map, &p->id, &err);

    report(!c && strstr(error_get_pretty(err), expect),
           "a desktop does not take %s: %s", what,
           c ? "it did" : error_get_pretty(err));
    pvs_cache_close(c);
    error_free(err);
}

static void refuse_own(Place *p, const char *map, const char *what,
                       const char *expect)
{
    Error *err = NULL;
    PvsCache *c = pvs_cache_own(p->data, map, &p->id, 0, &p->ops, p, &err);

    report(!c && strstr(error_get_pretty(err), expect),
           "a relay does not take %s: %s", what,
           c ? "it did" : error_get_pretty(err));
    pvs_cache_close(c);
    error_free(err);
}

static void newer_format(VdiskHeader *h)
{
    h->incompatible_features = 4;
}

static void other_role(VdiskHeader *h)
{
    h->role = VDISK_ROLE_WRITE_CACHE;
    h->lifetime = VDISK_POOLED;
}

static void test_other_version(Place *p)
{
    Place other = *p;
    uint8_t root[VDISK_ROOT_BYTES] = { 1 };
    PvsCache *c;

    clean_stop(p);
    other.id.root = root;
    refuse(&other, "another root hash", "another image");
    refuse_own(&other, p->map, "another root hash", "another image");
    other = *p;
    other.id.image_bytes += 512;
    refuse(&other, "another size", "another image");

    /* Without a tree: as large, and nothing but the number differs */
    place_clear(p);
    other = *p;
    other.id.root = NULL;
    other.id.tree_bytes = 0;
    c = place_own(&other);
    other.id.version = 13;
    refuse(&other, "another version without a tree", "version 12");
    pvs_cache_close(c);
}

static void test_headers(Place *p)
{
    clean_stop(p);
    change_header(p, newer_format);
    refuse(p, "a newer format", "does not know");
    refuse_own(p, p->map, "a newer format", "does not know");
    clean_stop(p);
    change_header(p, other_role);
    refuse(p, "a write cache", "not a host cache");
    refuse_own(p, p->map, "a write cache", "not a host cache");
    clean_stop(p);
    g_assert(g_file_set_contents(p->data, "mine", 4, NULL));
    refuse(p, "some file", "not a host cache");
    refuse_own(p, p->map, "some file", "not a host cache");
}

static void flip_map(Place *p, off_t offset)
{
    int fd = open(p->map, O_RDWR);
    uint8_t byte;

    g_assert(pread(fd, &byte, 1, offset) == 1);
    byte ^= 1;
    g_assert(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

/* As it would be had the host been started since: with a valid checksum */
static void other_boot(Place *p)
{
    uint8_t buf[LIVE_MAP_HEADER_BYTES];
    int fd = open(p->map, O_RDWR);
    char *why = NULL;
    struct stat st;
    LiveMap m;

    g_assert(fstat(fd, &st) == 0);
    g_assert(pread(fd, buf, sizeof(buf), 0) == sizeof(buf));
    g_assert(live_map_decode(&m, buf, st.st_size, &why));
    m.boot[3] ^= 1;
    live_map_encode(&m, buf);
    g_assert(pwrite(fd, buf, sizeof(buf), 0) == sizeof(buf));
    close(fd);
}

static void test_maps(Place *p)
{
    g_autofree char *on_disk = g_strdup_printf("%s.map", p->data);
    struct stat st;

    clean_stop(p);
    unlink(p->map);
    refuse(p, "no live map", "No such file");
    reopened(p);
    flip_map(p, 60);
    refuse(p, "a damaged live map", "checksum");
    reopened(p);
    other_boot(p);
    refuse(p, "a map of another boot", "before the host was started");
    reopened(p);
    flip_map(p, LIVE_MAP_DEAD);
    refuse(p, "a dead map", "given it up");
    reopened(p);
    g_assert(stat(p->map, &st) == 0 && truncate(p->map, st.st_size - 1) == 0);
    refuse(p, "a map that was cut off", "cut off");
    unlink(p->map);
    g_assert(g_file_set_contents(p->map, "mine", 4, NULL));
    refuse_own(p, p->map, "a file that is no map", "not a live map");
    unlink(p->map);
    refuse_own(p, on_disk, "a map on a disk", "not on a tmpfs");
    g_assert(access(on_disk, F_OK) < 0);
}

static void test_names(Place *p)
{
    Place other = *p;

    place_clear(p);
    refuse(p, "no cache", "No such file");
    /* Never a file of the system's: what fails here would replace it */
    g_assert(mkfifo(p->data, 0600) == 0);
    refuse_own(p, p->map, "a pipe", "regular file");
    unlink(p->data);
    other.data = (char *)"/proc/cache";
    refuse_own(&other, p->map, "a place where nothing can be made",
               "Could not create");
    other = *p;
    other.id.vdisk = "";
    refuse_own(&other, p->map, "no name", "needs the name");
}

void test_open(Place *p, Rng *rng)
{
    test_fill(p);
    test_restart(p);
    test_half_head(p);
    test_scan(p, rng);
    test_scan_stopped(p);
    test_damaged_map(p, rng);
    test_newer_bits(p);
    test_inode(p);
    test_longest(p);
    test_cut(p);
    test_sync_error(p);
    test_two_syncs(p);
    test_other_version(p);
    test_headers(p);
    test_maps(p);
    test_names(p);
    test_limit(p);
    test_no_space(p);
}

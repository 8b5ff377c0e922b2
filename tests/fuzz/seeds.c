/*
 * What is valid, for a fuzzer to begin with: "seeds DIR NAME" writes into the
 * folder DIR/NAME.corpus
 *
 * Zeros at the end are left out, as the targets fill up with zeros.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/boot-trace.h"
#include "block/pvs/label.h"
#include "block/pvs/live-map.h"
#include "block/vdisk/header.h"
#include "tests/unit/journal-sample.h"
#include "tests/unit/verity-model.h"

static const char *folder, *wanted;

static void seed(const char *target, const char *name, const void *what,
                 size_t bytes)
{
    g_autofree char *file = g_strdup_printf("%s/%s.corpus/seed-%s", folder,
                                            target, name);
    const char *p = what;

    if (strcmp(target, wanted)) {
        return;
    }
    while (bytes > 0 && !p[bytes - 1]) {
        bytes--;
    }
    if (!g_file_set_contents(file, what, bytes, NULL)) {
        g_error("cannot write %s", file);
    }
}

static void layer_headers(void)
{
    static const struct {
        const char *name;
        VdiskRole role;
        VdiskLifetime lifetime;
        const char *base, *format, *assigned;
        uint64_t version;
    } all[] = {
        { "mcs", VDISK_ROLE_MCS, VDISK_DEDICATED, "a.raw", "raw", "", 0 },
        { "pooled", VDISK_ROLE_MCS, VDISK_POOLED, "a", "qcow2", "b", 0 },
        { "none", VDISK_ROLE_MCS, VDISK_DEDICATED, "", "", "", 0 },
        { "cache", VDISK_ROLE_WRITE_CACHE, VDISK_POOLED, "win", "", "win", 3 },
        { "host", VDISK_ROLE_HOST_CACHE, VDISK_DEDICATED, "win", "", "", 3 },
        { "copy", VDISK_ROLE_LOCAL_COPY, VDISK_DEDICATED, "win", "", "", 9 },
    };
    uint8_t buf[VDISK_HEADER_BYTES];

    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        VdiskHeader h = { .generation = i + 1, .role = all[i].role,
                          .lifetime = all[i].lifetime };
        g_autofree char *why = NULL;

        vdisk_header_layout(&h, (i + 1) * 10 * 512);
        g_strlcpy(h.base.name, all[i].base, sizeof(h.base.name));
        g_strlcpy(h.base.format, all[i].format, sizeof(h.base.format));
        h.base.version = all[i].version;
        if (*all[i].assigned) {
            h.assigned = h.base;
            g_strlcpy(h.assigned.name, all[i].assigned,
                      sizeof(h.assigned.name));
        }
        vdisk_header_encode(&h, buf);
        if (!vdisk_header_valid(&h, &why)) {
            g_error("layer header %s: %s", all[i].name, why);
        }
        seed("fuzz-layer-header", all[i].name, buf, sizeof(buf));
    }
}

static void live_maps(void)
{
    LiveMap m = { .dev = 1, .ino = 2, .image_bytes = 1 << 20,
                  .tree_bytes = 3 * 4096, .data_offset = 1 << 20 };
    uint8_t buf[8 + LIVE_MAP_HEADER_BYTES];
    uint64_t bytes = GUINT64_TO_LE(live_map_file_bytes(&m));
    g_autofree char *why = NULL;
    LiveMap out;

    memcpy(buf, &bytes, sizeof(bytes));
    live_map_encode(&m, buf + 8);
    if (!live_map_decode(&out, buf + 8, live_map_file_bytes(&m), &why)) {
        g_error("live map: %s", why);
    }
    seed("fuzz-live-map", "tree", buf, sizeof(buf));
}

static void boot_traces(void)
{
    BootTraceId id = { .image_bytes = 1 << 30, .root = { 7 } };
    BootTrace *t = boot_trace_new(&id);
    uint8_t *buf;
    size_t bytes;

    for (unsigned i = 0; i < 5; i++) {
        buf = boot_trace_encode(t, &bytes);
        seed("fuzz-boot-trace", (char[]){ '0' + i, 0 }, buf, bytes);
        g_free(buf);
        boot_trace_add(t, i * 1000 % 777, i + 1);
    }
    boot_trace_free(t);
}

/* As the target takes them: the image's bytes, the file's, superblock, root */
static void trees(void)
{
    static const unsigned blocks[] = { 1, 2, 128, 129 };

    for (size_t i = 0; i < G_N_ELEMENTS(blocks); i++) {
        Model *m = model_new(blocks[i] * (uint64_t)BLOCK, 32 * i);
        uint8_t buf[16 + VERITY_SUPER_BYTES + 64];
        uint64_t sizes[2];
        g_autofree char *why = NULL;

        model_seal(m);
        if (!model_accepted(m, &why)) {
            g_error("tree: %s", why);
        }
        sizes[0] = GUINT64_TO_LE(m->bytes);
        sizes[1] = GUINT64_TO_LE(m->tree_bytes);
        memcpy(buf, sizes, sizeof(sizes));
        memcpy(buf + 16, m->tree, VERITY_SUPER_BYTES);
        memcpy(buf + 16 + VERITY_SUPER_BYTES, m->root, 64);
        seed("fuzz-verity", (char[]){ 'a' + i, 0 }, buf, sizeof(buf));
        model_free(m);
    }
}

static void journals(void)
{
    JournalHeader h = sample();
    Label l = { .id = { .content = { 2 }, .writer = 3 },
                .virtual_size = DISK, .version = 13 };
    uint8_t buf[JOURNAL_HEADER_BYTES], label[LABEL_BYTES];
    g_autofree char *why = NULL;
    JournalHeader out;
    Label other;

    g_strlcpy(l.vdisk, "win", sizeof(l.vdisk));
    journal_header_encode(&h, buf);
    label_encode(&l, label);
    if (!journal_header_decode(&out, buf, &why) ||
        !label_decode(&other, label, &why)) {
        g_error("reconnect buffer: %s", why);
    }
    seed("fuzz-journal-header", "header", buf, sizeof(buf));
    seed("fuzz-journal-header", "label", label, sizeof(label));
}

static void put_be(uint8_t *p, uint64_t value, unsigned bytes)
{
    while (bytes--) {
        p[bytes] = value;
        value >>= 8;
    }
}

static void put_le(uint8_t *p, uint64_t value, unsigned bytes)
{
    for (; bytes--; value >>= 8) {
        *p++ = value;
    }
}

/* As the target takes them: which format, the file's length, its begin */
static void sources(void)
{
    static const char flat[] = "# Disk DescriptorFile\nparentCID=ffffffff\n"
                               "createType=\"monolithicFlat\"\n"
                               "RW 8 FLAT \"a\" 0\nRW 8 SPARSE \"b\"\n";
    uint8_t all[2053] = {}, *p = all + 5;

    all[0] = 1;
    memcpy(p, "QFI\xfb", 4);
    put_be(p + 4, 3, 4);
    seed("fuzz-source", "qcow2", all, 5 + 104);

    memset(all, 0, sizeof(all));
    all[0] = 2;
    memcpy(p, "conectix", 8);
    put_be(p + 16, 512, 8);
    put_be(p + 60, 3, 4);
    memcpy(p + 512, "cxsparse", 8);
    put_be(p + 512 + 16, 1536, 8);
    put_be(p + 512 + 28, 4, 4);
    put_be(p + 512 + 32, 2 << 20, 4);
    put_be(p + 2044, 1, 4);
    seed("fuzz-source", "vhd", all, sizeof(all));

    memset(all, 0, sizeof(all));
    all[0] = 4;
    memcpy(p, flat, sizeof(flat) - 1);
    seed("fuzz-source", "vmdk", all, 5 + sizeof(flat) - 1);

    memset(all, 0, sizeof(all));
    all[0] = 4;
    memcpy(p, "KDMV", 4);
    put_le(p + 12, 8, 8);
    put_le(p + 28, 1, 8);
    put_le(p + 36, 1, 8);
    memcpy(p + 512, "parentCID=ffffffff\n", 19);
    seed("fuzz-source", "sparse", all, sizeof(all));

    memset(all, 0, sizeof(all));
    all[0] = 5;
    memcpy(p + 0x40, "\x7f\x10\xda\xbe", 4);
    put_le(p + 0x4c, 1, 4);
    put_le(p + 0x158, 512, 4);
    put_le(p + 0x178, 1 << 20, 4);
    p[0x188] = 1;
    seed("fuzz-source", "vdi", all, sizeof(all));

    /* The table of regions is the first half of what follows */
    memset(all, 0, sizeof(all));
    all[0] = 3;
    memcpy(p, "regi", 4);
    p[8] = 2;
    memcpy(p + 16, "\x66\x77\xc2\x2d\x23\xf6\x00\x42"
           "\x9d\x64\x11\x5e\x9b\xfd\x4a\x08", 16);
    put_le(p + 32, 65536, 8);
    put_le(p + 40, 64, 4);
    memcpy(p + 48, "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b"
           "\xb8\xfe\x57\x5f\x05\x0f\x88\x6e", 16);
    put_le(p + 64, 65536, 8);
    put_le(p + 72, 65536, 4);
    memcpy(p + 1024, "metadata", 8);
    p[1024 + 10] = 1;
    memcpy(p + 1024 + 32, "\x37\x67\xa1\xca\x36\xfa\x43\x4d"
           "\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 16);
    put_le(p + 1024 + 48, 512, 4);
    put_le(p + 1024 + 512, 1 << 20, 4);
    p[2047] = 1;
    seed("fuzz-source", "vhdx", all, 5 + 2048);
}

/*
 * Courses of those targets that take their input for a list of things to do: each
 * number with the bytes that the target takes for it
 */
typedef struct Number {
    uint64_t value;
    unsigned bytes;
} Number;

static void course(const char *target, const char *name, const Number *numbers)
{
    uint8_t all[256] = {}, *p = all;

    for (; numbers->bytes; p += numbers++->bytes) {
        g_assert(p + numbers->bytes <= all + sizeof(all));
        put_le(p, numbers->value, numbers->bytes);
    }
    seed(target, name, all, p - all);
}

/* Granules; then load, set, grow, trim, take, clear */
static void maps(void)
{
    course("fuzz-map", "all", (Number[]) {
        { 20000, 2 },
        { 0, 1 }, { 0, 1 }, { 0x6699aa5500006666, 8 }, { 7, 2 }, { 0, 1 },
        { 1, 1 }, { 1, 1 }, { 0x5555555555555555, 8 }, { 0, 2 }, { 0, 1 },
        { 6, 1 }, { 16000, 2 }, { 900, 2 }, { 2, 1 },
        { 4, 1 }, { 9000, 2 },
        { 3, 1 }, { 1, 1 },
        { 2, 1 }, { 1, 1 },
        { 7, 1 }, { 1, 2 }, { 31, 2 }, { 1, 1 }, {},
    });
    course("fuzz-map", "bad", (Number[]) {
        { 1000, 2 },
        { 0, 1 }, { 0, 1 }, { 0, 8 }, { 100, 2 }, { 3 << 4, 1 },
        { 6, 1 }, { 400, 2 }, { 4, 2 }, { 1, 1 }, {},
    });
    course("fuzz-map", "clear", (Number[]) {
        { 16384, 2 },
        { 6, 1 }, { 0, 2 }, { 16384, 2 }, { 1, 1 },
        { 5, 1 },
        { 6, 1 }, { 63, 2 }, { 2, 2 }, { 2, 1 },
        { 2, 1 }, { 0, 1 }, {},
    });
}

/*
 * Unit, begin, what was durable, what is there; then records. Of their first
 * byte the rest by 7 is the type, and 0x20 says that all so far are durable.
 */
static void rings(void)
{
    course("fuzz-journal-scan", "all", (Number[]) {
        { 1, 1 }, { 1, 2 }, { 0, 1 }, { 0, 1 },
        { 5, 1 }, { 0, 2 }, { 0, 1 },           /* start */
        { 1, 1 }, { 8, 2 }, { 8, 1 },           /* write */
        { 3, 1 }, { 0, 2 }, { 0, 1 },           /* commit */
        { 2, 1 }, { 64, 2 }, { 128, 1 },        /* zero */
        { 38, 1 }, { 0, 2 }, { 0, 1 },          /* commit */
        { 4, 1 }, { 0, 2 }, { 7, 1 },           /* pad */
        { 8, 1 }, { 100, 2 }, { 1, 1 }, {},     /* write */
    });
    course("fuzz-journal-scan", "torn", (Number[]) {
        { 0, 1 }, { 254, 2 }, { 1, 1 }, { 0, 1 },
        { 1, 1 }, { 8, 2 }, { 8, 1 },
        { 0x40 | 0x02, 1 }, { 8, 2 }, { 8, 1 },
        { 0x40 | 0x07, 1 }, { 8, 2 }, { 8, 1 },
        { 1, 1 }, { 8, 2 }, { 8, 1 }, {},
    });
    course("fuzz-journal-scan", "rot", (Number[]) {
        { 1, 1 }, { 2, 2 }, { 2, 1 }, { 0, 1 },
        { 1, 1 }, { 8, 2 }, { 8, 1 },
        { 36, 1 }, { 16, 2 }, { 8, 1 },
        { 0xf0, 1 }, { 1, 2 }, { 8, 1 }, { 0, 1 }, { 9000, 8 },
        { 3, 1 }, { 0, 2 }, { 0, 1 }, {},
    });
}

/* Insert, or 1: remove, or 2: zeros; where, how much less 1, sequence less 1 */
static void indices(void)
{
    course("fuzz-journal-index", "over", (Number[]) {
        { 0, 1 }, { 10, 1 }, { 99, 1 }, { 0, 1 },
        { 0, 1 }, { 50, 1 }, { 9, 1 }, { 1, 1 },
        { 2, 1 }, { 0, 1 }, { 19, 1 }, { 2, 1 },
        { 0, 1 }, { 100, 1 }, { 155, 1 }, { 3, 1 },
        { 0, 1 }, { 0, 1 }, { 255, 1 }, { 1, 1 }, {},
    });
    course("fuzz-journal-index", "shipped", (Number[]) {
        { 0, 1 }, { 0, 1 }, { 63, 1 }, { 0, 1 },
        { 2, 1 }, { 32, 1 }, { 63, 1 }, { 1, 1 },
        { 1, 1 }, { 0, 1 }, { 63, 1 }, { 0, 1 },
        { 1, 1 }, { 40, 1 }, { 7, 1 }, { 1, 1 },
        { 0, 1 }, { 44, 1 }, { 1, 1 }, { 9, 1 }, {},
    });
}

/*
 * Sizes of both, what is cut off, salt; edits; damage, to the older by 1; what is
 * not held of the older; blocks that are read, with what is wrong in them
 */
static void pairs(void)
{
    course("fuzz-verity-diff", "same", (Number[]) {
        { 9, 1 }, { 9, 1 }, { 0, 1 }, { 32, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 },
        { 257, 2 }, { 0, 2 }, { 0, 1 }, { 3, 2 }, { 4095, 2 }, { 1, 1 }, {},
    });
    course("fuzz-verity-diff", "edits", (Number[]) {
        { 7, 1 }, { 9, 1 }, { 3, 1 }, { 0, 1 },
        { 2, 1 }, { 5, 2 }, { 3, 1 }, { 9, 1 }, { 126, 2 }, { 31, 1 }, { 7, 1 },
        { 0, 1 }, { 1, 1 }, { 2, 8 }, { 128, 2 }, { 9, 2 }, { 1, 1 }, {},
    });
    course("fuzz-verity-diff", "damage", (Number[]) {
        { 8, 1 }, { 8, 1 }, { 0, 1 }, { 16, 1 },
        { 1, 1 }, { 128, 2 }, { 1, 1 }, { 77, 1 },
        { 2, 1 }, { 1, 1 }, { 40, 3 }, { 1, 1 }, { 0, 1 }, { 5000, 3 }, { 4, 1 },
        { 0, 1 }, { 128, 2 }, { 0, 2 }, { 0, 1 }, {},
    });
}

/*
 * Of fuzz-nbd: nodes, their options, what the server cannot do, and requests.
 * All of them with good answers, and each garbled in each way, sooner and later.
 */
static void nbd_servers(void)
{
    static const uint8_t cannot[] = { 0, 2, 6, 8, 16, 1, 64 };
    static const uint8_t ops[] = {
        27, 2, 0, 0, 6, 16, 0, 7, 0, 0, 4, 10, 4,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        3, 7, 0, 0,
    };
    uint8_t buf[128] = { 0 };

    buf[3] = 4;
    memcpy(buf + 4, ops, sizeof(ops));
    for (unsigned nodes = 0; nodes < 6; nodes++) {
        buf[0] = nodes;
        for (size_t i = 0; i < sizeof(cannot); i++) {
            buf[2] = cannot[i];
            seed("fuzz-nbd", (char[]){ 'a' + nodes, 'a' + i, 0 }, buf,
                 sizeof(buf));
        }
        buf[2] = 0;
        for (unsigned at = 0; at < 16; at += 3) {
            for (unsigned kind = 1; kind < 16; kind++) {
                uint8_t *p = buf + 4 + 4 * 13 + at;

                p[0] = kind;
                p[1] = 3;
                p[2] = 2;
                seed("fuzz-nbd", (char[]){ 'a' + nodes, 'A' + at, 'a' + kind,
                                           0 }, buf, sizeof(buf));
                memset(p, 0, 3);
            }
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        g_printerr("usage: seeds DIR NAME\n");
        return 2;
    }
    folder = argv[1];
    wanted = argv[2];
    layer_headers();
    live_maps();
    boot_traces();
    trees();
    journals();
    sources();
    maps();
    rings();
    indices();
    pairs();
    nbd_servers();
    return 0;
}

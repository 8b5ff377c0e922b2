/*
 * The header codec: what each role of a layer has, and forged headers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/header.h"
#include "header-sample.h"
#include "suite.h"

static void test_round_trip_streamed(void)
{
    static const VdiskRole roles[] = {
        VDISK_ROLE_WRITE_CACHE, VDISK_ROLE_HOST_CACHE, VDISK_ROLE_LOCAL_COPY,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(roles); i++) {
        VdiskHeader h = streamed(roles[i]);
        VdiskHeader out = {};
        uint8_t buf[VDISK_HEADER_BYTES];
        char *why = NULL;

        vdisk_header_encode(&h, buf);
        CU_ASSERT_FATAL(vdisk_header_decode(&out, buf, &why));
        CU_ASSERT_EQUAL(out.role, roles[i]);
        CU_ASSERT(vdisk_image_same(&out.base, &h.base));
        CU_ASSERT(vdisk_image_same(&out.assigned, &h.assigned));
        CU_ASSERT_EQUAL(out.base.size, h.base.size);
        CU_ASSERT_EQUAL(out.assigned.size, h.assigned.size);
        CU_ASSERT_EQUAL(out.base.version, 12);
        CU_ASSERT_EQUAL(out.assigned.version, h.assigned.version);
        CU_ASSERT_EQUAL(memcmp(out.base.root, h.base.root, 32), 0);
        CU_ASSERT_EQUAL(memcmp(out.assigned.root, h.assigned.root, 32), 0);
    }
}

static uint64_t field(const uint8_t *buf, size_t offset)
{
    uint64_t value;

    memcpy(&value, buf + offset, sizeof(value));
    return GUINT64_FROM_LE(value);
}

static bool all_bytes(const uint8_t *buf, size_t n, uint8_t value)
{
    for (size_t i = 0; i < n; i++) {
        if (buf[i] != value) {
            return false;
        }
    }
    return true;
}

static void test_layout_streamed(void)
{
    VdiskHeader h = streamed(VDISK_ROLE_WRITE_CACHE);
    uint8_t buf[VDISK_HEADER_BYTES];

    vdisk_header_encode(&h, buf);
    CU_ASSERT_EQUAL(buf[100], 2);
    CU_ASSERT_EQUAL(buf[104], 2);
    CU_ASSERT_EQUAL(field(buf, 144), 1024 * 1024);
    CU_ASSERT_EQUAL(field(buf, 152), 12);
    CU_ASSERT(all_bytes(buf + 160, 32, 0x66));
    CU_ASSERT_EQUAL(field(buf, 192), VDISK_MAX_VERSION);
    CU_ASSERT(all_bytes(buf + 200, 32, 0x77));
    CU_ASSERT_EQUAL(field(buf, 232), 2 * 1024 * 1024);
    CU_ASSERT(all_bytes(buf + 240, 16 + 32 + 32, 0));
    CU_ASSERT_STRING_EQUAL((char *)buf + 320, "win-11.x_64");
    CU_ASSERT_STRING_EQUAL((char *)buf + 1344, "win-11.x_64");
    CU_ASSERT(all_bytes(buf + 2368, 1728, 0));
}

/* Two drivers share the magic, so the role tells whose a file is */
static void test_probe(void)
{
    VdiskHeader mcs = sample();
    VdiskHeader cache = streamed(VDISK_ROLE_HOST_CACHE);
    uint8_t buf[VDISK_HEADER_BYTES];
    VdiskRole role;

    vdisk_header_encode(&mcs, buf);
    CU_ASSERT(vdisk_header_probe(buf, 512, &role));
    CU_ASSERT_EQUAL(role, VDISK_ROLE_MCS);
    CU_ASSERT_FALSE(vdisk_header_probe(buf, 7, &role));
    /* Too short to tell */
    for (size_t len = 8; len < 104; len++) {
        CU_ASSERT(vdisk_header_probe(buf, len, &role));
        CU_ASSERT_EQUAL(role, 0);
    }
    vdisk_header_encode(&cache, buf);
    CU_ASSERT(vdisk_header_probe(buf, 104, &role));
    CU_ASSERT_EQUAL(role, VDISK_ROLE_HOST_CACHE);
    memset(buf + 100, 0xff, 4);
    CU_ASSERT(vdisk_header_probe(buf, 512, &role));
    CU_ASSERT_PTR_NULL(vdisk_role_driver(role));
    buf[7]++;
    CU_ASSERT_FALSE(vdisk_header_probe(buf, 512, &role));
    CU_ASSERT_STRING_EQUAL(vdisk_role_driver(VDISK_ROLE_MCS), "mcs");
    CU_ASSERT_STRING_EQUAL(vdisk_role_driver(VDISK_ROLE_WRITE_CACHE), "pvs");
    CU_ASSERT_STRING_EQUAL(vdisk_role_driver(VDISK_ROLE_HOST_CACHE), "pvs");
    CU_ASSERT_STRING_EQUAL(vdisk_role_driver(VDISK_ROLE_LOCAL_COPY), "pvs");
    CU_ASSERT_PTR_NULL(vdisk_role_driver(0));
}

#define REFUSE_STREAMED(r, field, value) do { \
        VdiskHeader h_ = streamed(r); \
        CU_ASSERT_FALSE(refused(&h_)); \
        h_.field = value; \
        CU_ASSERT(refused(&h_)); \
    } while (0)

/* What belongs to one role must not come with another */
static void test_roles(void)
{
    VdiskHeader h;

    REFUSE(role, VDISK_ROLE_WRITE_CACHE);
    REFUSE(role, VDISK_ROLE_HOST_CACHE);
    REFUSE(base.version, 1);
    REFUSE(base.root[31], 1);
    REFUSE(base.name[0], 0);            /* its format and size are there */
    REFUSE(assigned.version, 1);
    REFUSE(assigned.root[0], 1);
    REFUSE(assigned.size, VDISK_MAX_SIZE + 1);
    REFUSE(assigned.name[0], 0);

    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, role, VDISK_ROLE_MCS);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, role, VDISK_ROLE_HOST_CACHE);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, lifetime, VDISK_DEDICATED);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, base.name[0], 0);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, base.version, 0);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, base.format[0], 'r');
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, base.size, VDISK_MAX_SIZE + 1);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, assigned.name[0], 0);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, assigned.name[0], 'W');
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, assigned.version, 0);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, assigned.format[0], 'r');
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, assigned.size, UINT64_MAX);
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, base.version,
                    VDISK_MAX_VERSION + UINT64_C(1));
    REFUSE_STREAMED(VDISK_ROLE_WRITE_CACHE, assigned.version, UINT64_MAX);
    REFUSE_STREAMED(VDISK_ROLE_HOST_CACHE, base.version, UINT64_MAX);
    REFUSE_STREAMED(VDISK_ROLE_HOST_CACHE, base.size, 1000);
    REFUSE_STREAMED(VDISK_ROLE_HOST_CACHE, lifetime, VDISK_POOLED);
    REFUSE_STREAMED(VDISK_ROLE_HOST_CACHE, assigned, h_.base);
    REFUSE_STREAMED(VDISK_ROLE_HOST_CACHE, assigned.root[3], 1);

    REFUSE_STREAMED(VDISK_ROLE_LOCAL_COPY, base.version, 0);
    REFUSE_STREAMED(VDISK_ROLE_LOCAL_COPY, lifetime, VDISK_POOLED);
    REFUSE_STREAMED(VDISK_ROLE_LOCAL_COPY, assigned, h_.base);

    h = streamed(VDISK_ROLE_HOST_CACHE);
    h.base.version = 0;
    CU_ASSERT_FALSE(refused(&h));
    memset(h.base.root, 0, sizeof(h.base.root));
    h.base.size = 0;
    CU_ASSERT_FALSE(refused(&h));
    h = streamed(VDISK_ROLE_WRITE_CACHE);
    memset(&h.assigned, 0, sizeof(h.assigned));
    CU_ASSERT_FALSE(refused(&h));
}

static bool name_is_refused(const char *name)
{
    VdiskHeader h = streamed(VDISK_ROLE_HOST_CACHE);
    char *why = NULL;
    bool valid = vdisk_name_valid(name, &why);

    CU_ASSERT_EQUAL(valid, why == NULL);
    g_free(why);
    memset(h.base.name, 0, sizeof(h.base.name));
    g_strlcpy(h.base.name, name, sizeof(h.base.name));
    CU_ASSERT_EQUAL(refused(&h), !valid);
    return !valid;
}

static void test_vdisk_names(void)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    char *longest = g_strnfill(VDISK_NAME_CHARS, 'x');
    char *longer = g_strnfill(VDISK_NAME_CHARS + 1, 'x');
    char name[] = "x?";

    for (int c = 1; c < 256; c++) {
        bool ok = strchr(allowed, c);

        name[0] = 'x';
        name[1] = c;
        CU_ASSERT_EQUAL(name_is_refused(name), !ok);
        name[0] = c;
        name[1] = 'x';
        CU_ASSERT_EQUAL(name_is_refused(name), !ok || c == '.' || c == '-');
    }
    CU_ASSERT(name_is_refused(""));
    CU_ASSERT(name_is_refused(".."));
    CU_ASSERT(name_is_refused("json:{}"));
    CU_ASSERT(name_is_refused("win11@12"));
    CU_ASSERT_FALSE(name_is_refused("w"));
    CU_ASSERT_FALSE(name_is_refused(longest));
    CU_ASSERT(name_is_refused(longer));
    g_free(longest);
    g_free(longer);
}

static void test_same_image(void)
{
    VdiskHeader h = streamed(VDISK_ROLE_WRITE_CACHE);
    VdiskImageName other = h.base;
    char *text = vdisk_image_text(&h.base);

    CU_ASSERT_STRING_EQUAL(text, "win-11.x_64@12");
    g_free(text);
    h = sample();
    text = vdisk_image_text(&h.base);
    CU_ASSERT_STRING_EQUAL(text, "master.qcow2");
    g_free(text);

    h = streamed(VDISK_ROLE_WRITE_CACHE);
    other.size = 0;
    CU_ASSERT(vdisk_image_same(&h.base, &other));
    other.version++;
    CU_ASSERT_FALSE(vdisk_image_same(&h.base, &other));
    other = h.base;
    other.root[31]++;
    CU_ASSERT_FALSE(vdisk_image_same(&h.base, &other));
    other = h.base;
    other.name[0]++;
    CU_ASSERT_FALSE(vdisk_image_same(&h.base, &other));
    other = h.base;
    other.format[0]++;
    CU_ASSERT_FALSE(vdisk_image_same(&h.base, &other));
}

/* What is behind the end of a name must not come back with the name */
static void test_behind_names(void)
{
    VdiskHeader h = streamed(VDISK_ROLE_HOST_CACHE), out;
    uint8_t buf[VDISK_HEADER_BYTES];
    char *why = NULL;

    vdisk_header_encode(&h, buf);
    strcpy((char *)buf + 320 + strlen(h.base.name) + 1, "/../secret");
    reseal(buf);
    CU_ASSERT_FATAL(vdisk_header_decode(&out, buf, &why));
    CU_ASSERT_EQUAL(memcmp(&out.base, &h.base, sizeof(h.base)), 0);
}

/* Everything that a driver relies on without looking again */
static bool is_bounded(const VdiskHeader *h)
{
    uint64_t map = DIV_ROUND_UP(DIV_ROUND_UP(h->virtual_size, 4096), 4);
    char *why = NULL;
    bool ok = h->virtual_size % 512 == 0 && h->virtual_size <= VDISK_MAX_SIZE &&
              h->map_offset >= 8192 && h->map_offset % 4096 == 0 &&
              h->map_capacity >= map && h->map_capacity % 4096 == 0 &&
              h->data_offset >= h->map_offset + h->map_capacity &&
              h->data_offset <= VDISK_MAX_SIZE && h->data_offset % 4096 == 0 &&
              h->file_size <= INT64_MAX &&
              h->base.size <= VDISK_MAX_SIZE &&
              h->assigned.size <= VDISK_MAX_SIZE &&
              strlen(h->base.name) < sizeof(h->base.name) &&
              strlen(h->assigned.name) < sizeof(h->assigned.name);

    switch (h->role) {
    case VDISK_ROLE_MCS:
        ok &= !h->base.version && !h->assigned.version &&
              vdisk_image_name_valid(h->base.name, h->base.format, &why) &&
              vdisk_image_name_valid(h->assigned.name, h->assigned.format,
                                     &why);
        break;
    case VDISK_ROLE_WRITE_CACHE:
        ok &= h->lifetime == VDISK_POOLED && h->base.version &&
              vdisk_name_valid(h->base.name, &why) &&
              (!h->assigned.name[0] ? !h->assigned.version :
               h->assigned.version &&
               !strcmp(h->assigned.name, h->base.name));
        break;
    case VDISK_ROLE_HOST_CACHE:
        ok &= h->lifetime == VDISK_DEDICATED &&
              vdisk_name_valid(h->base.name, &why) && !h->assigned.name[0];
        break;
    case VDISK_ROLE_LOCAL_COPY:
        ok &= h->lifetime == VDISK_DEDICATED && h->base.version &&
              vdisk_name_valid(h->base.name, &why) && !h->assigned.name[0];
        break;
    default:
        ok = false;
    }
    g_free(why);
    return ok;
}

/* Values that have been the end of a check somewhere */
static uint64_t nasty(GRand *rand)
{
    static const uint64_t values[] = {
        0, 1, 2, 3, 4, 511, 512, 4096, 8192, 65536, UINT64_C(1) << 31,
        UINT64_C(1) << 32, UINT64_C(1) << 61, UINT64_C(1) << 62,
        UINT64_C(1) << 63, UINT64_MAX,
    };
    uint64_t value = values[g_rand_int_range(rand, 0, G_N_ELEMENTS(values))];

    return GUINT64_TO_LE(value + g_rand_int_range(rand, -1, 2) *
                         (g_rand_boolean(rand) ? 1 : 4096));
}

/* Damage a few fields, with a checksum that matches */
static void damage(GRand *rand, uint8_t *buf)
{
    for (int n = g_rand_int_range(rand, 1, 4); n > 0; n--) {
        /* Mostly numbers; the heads of names and their ends as well */
        static const int strings[] = { 256, 288, 320, 1344, 1340, 2360 };
        int kind = g_rand_int_range(rand, 0, 8);
        int at = 16 + 4 * g_rand_int_range(rand, 0, (256 - 16) / 4 - 1);
        uint64_t value = nasty(rand);

        if (kind == 0) {
            at = strings[g_rand_int_range(rand, 0, G_N_ELEMENTS(strings))];
        } else if (kind == 1) {
            at = g_rand_int_range(rand, 16, VDISK_HEADER_BYTES - 8);
            value = g_rand_int(rand);
        }
        memcpy(buf + at, &value, g_rand_boolean(rand) ? 8 : 1);
    }
    reseal(buf);
}

static void test_damaged(void)
{
    GRand *rand = g_rand_new_with_seed(20);
    int rounds = getenv("UNIT_SHORT") ? 10000 : 300000;
    int taken = 0, unbounded = 0, changed = 0;

    for (int i = 0; i < rounds; i++) {
        VdiskRole role = i % 4 + 1;
        VdiskHeader h = role == VDISK_ROLE_MCS ? sample() : streamed(role);
        uint8_t buf[VDISK_HEADER_BYTES];
        VdiskHeader out, again;
        char *why = NULL;

        vdisk_header_encode(&h, buf);
        damage(rand, buf);
        if (!vdisk_header_decode(&out, buf, &why)) {
            g_free(why);
            continue;
        }
        taken++;
        unbounded += !is_bounded(&out);
        /* What was taken can be written again, and is the same */
        vdisk_header_encode(&out, buf);
        changed += !vdisk_header_decode(&again, buf, &why) ||
                   memcmp(&out, &again, sizeof(out)) != 0;
        g_free(why);
    }
    CU_ASSERT_EQUAL(unbounded, 0);
    CU_ASSERT_EQUAL(changed, 0);
    /* Else all of it was about headers that nobody would take */
    CU_ASSERT(taken > rounds / 30);
    g_rand_free(rand);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "what is encoded is decoded", test_round_trip_streamed },
        { "fields are where the specification says", test_layout_streamed },
        { "a file is told by its first bytes", test_probe },
        { "each role has its own fields", test_roles },
        { "names of vDisks", test_vdisk_names },
        { "the same image", test_same_image },
        { "nothing behind a name comes with it", test_behind_names },
        { "damaged fields under a good checksum", test_damaged },
        CU_TEST_INFO_NULL,
    };

    return run_suite("header-roles", tests);
}

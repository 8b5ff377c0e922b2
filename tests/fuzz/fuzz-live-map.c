/*
 * Fuzz the header of a host cache's live map, as it came and with a checksum that
 * fits: all that is read by it lies in its file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/live-map.h"
#include "block/vdisk/map.h"
#include "fuzz.h"

#define FIELDS      144     /* bytes that are under the checksum, and it */

static bool decode(LiveMap *m, const uint8_t *buf, uint64_t file_bytes)
{
    g_autofree char *why = NULL;
    bool valid = live_map_decode(m, buf, file_bytes, &why);

    assert(valid == !why);
    return valid;
}

/* Nothing passes the file's end, and nothing wraps */
static void check_regions(const LiveMap *m, uint64_t file_bytes)
{
    uint64_t granules = DIV_ROUND_UP(m->image_bytes, 4096) +
                        m->tree_bytes / 4096;
    uint64_t unsynced = live_map_unsynced_offset(m);

    assert(m->image_bytes && m->image_bytes % 512 == 0);
    assert(m->image_bytes <= INT64_MAX && m->tree_bytes <= INT64_MAX);
    assert(m->tree_bytes % 4096 == 0 && m->data_offset % 4096 == 0);
    assert(granules == live_map_granules(m));
    /* Two bits for each, then one */
    assert(unsynced % 4096 == 0 && live_map_unsynced_bytes(m) % 4096 == 0);
    assert(unsynced >= 4096 && (unsynced - 4096) * 4 >= granules);
    assert(live_map_unsynced_bytes(m) * 8 >= granules);
    assert(live_map_file_bytes(m) == unsynced + live_map_unsynced_bytes(m));
    assert(live_map_file_bytes(m) <= file_bytes);
    /* In the data file */
    assert(m->data_offset <= INT64_MAX - granules * 4096);
    assert(granules <= INT64_MAX / 4096);
}

static bool matches(const LiveMap *found, const LiveMap *wanted)
{
    g_autofree char *why = NULL;
    bool same = live_map_matches(found, wanted, &why);

    assert(same == !why);
    return same;
}

static void check_matches(const LiveMap *m, Input *in)
{
    uint64_t change = input_take(in, 1) + 1;
    LiveMap other = *m;

    assert(matches(m, m));
    switch (input_take(in, 1) % 8) {
    case 0:
        other.dev ^= change;
        break;
    case 1:
        other.ino ^= change;
        break;
    case 2:
        other.image_bytes ^= change;
        break;
    case 3:
        other.tree_bytes ^= change;
        break;
    case 4:
        other.data_offset ^= change;
        break;
    default:
        other.boot[change % sizeof(other.boot)] ^= 1;
    }
    assert(!matches(&other, m));
    other = *m;
    other.root[change % sizeof(other.root)] ^= 1;
    assert(!matches(m, &other));
    other = *m;
    other.file_id[change % sizeof(other.file_id)] ^= 1;
    assert(!matches(m, &other));
}

static void check(const uint8_t *buf, uint64_t file_bytes, Input *in)
{
    uint8_t again[LIVE_MAP_HEADER_BYTES];
    LiveMap m, other;

    if (!decode(&m, buf, file_bytes)) {
        return;
    }
    assert(live_map_probe(buf, LIVE_MAP_HEADER_BYTES));
    check_regions(&m, file_bytes);
    check_matches(&m, in);
    live_map_encode(&m, again);
    /* Reserved bytes are nobody's; no flag is set in a new one */
    assert(decode(&other, again, live_map_file_bytes(&m)));
    assert(matches(&m, &other));
    for (size_t i = FIELDS; i < sizeof(again); i++) {
        assert(!again[i]);
    }
    assert(!decode(&other, again, live_map_file_bytes(&m) - 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t buf[LIVE_MAP_HEADER_BYTES];
    Input in = { data, size };
    uint64_t file_bytes = input_take(&in, 8);

    input_copy(&in, buf, FIELDS);
    memset(buf + FIELDS, 0, sizeof(buf) - FIELDS);
    live_map_probe(data, size);
    check(buf, file_bytes, &in);
    input_sign(buf, 16, FIELDS);
    check(buf, file_bytes, &in);
    check(buf, INT64_MAX, &in);
    return 0;
}

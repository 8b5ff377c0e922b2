/*
 * Fuzz the granule map: pages as they come from a file, and what is done with
 * them, against an array
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/map.h"
#include "fuzz.h"

#define PAGES       3
#define CAPACITY    (PAGES * (uint64_t)VDISK_MAP_PAGE_GRANULES)
#define MOST_STEPS  64

typedef struct Model {
    VdiskMap map;
    uint8_t state[CAPACITY];    /* also of what lies past the end */
    bool dirty[PAGES];
} Model;

static uint64_t pages_of(const Model *m)
{
    return DIV_ROUND_UP(m->map.granules, VDISK_MAP_PAGE_GRANULES);
}

/* A page of a file: eight bytes, again and again, but for one of them */
static void load(Model *m, Input *in)
{
    uint64_t page = input_take(in, 1) % pages_of(m);
    uint64_t pattern = GUINT64_TO_LE(input_take(in, 8));
    uint8_t buf[VDISK_MAP_PAGE], *state = m->state + page * sizeof(buf) * 4;
    bool bad = false;

    for (size_t i = 0; i < sizeof(buf); i += sizeof(pattern)) {
        memcpy(buf + i, &pattern, sizeof(pattern));
    }
    buf[input_take(in, 2) % sizeof(buf)] ^= input_take(in, 1);
    for (size_t i = 0; i < sizeof(buf) * 4; i++) {
        state[i] = buf[i / 4] >> (i % 4 * 2) & 3;
        bad |= state[i] == VDISK_STATE_BAD;
    }
    assert(vdisk_map_load(&m->map, page, buf) == !bad);
}

static void set(Model *m, Input *in)
{
    uint64_t g = input_take(in, 2) % m->map.granules;
    uint64_t asked = input_take(in, 2), n = MIN(asked, m->map.granules - g);
    VdiskState state = input_take(in, 1) % 3;

    vdisk_map_set(&m->map, g, n, state);
    for (uint64_t i = g; i < g + n; i++) {
        m->dirty[i / VDISK_MAP_PAGE_GRANULES] |= m->state[i] != state;
        m->state[i] = state;
    }
    assert(vdisk_map_all(&m->map, g, n, state));
}

/* As it goes to a file: what was loaded or set, and the page is clean */
static void take(Model *m, Input *in)
{
    uint64_t page = input_take(in, 1) % pages_of(m);
    uint8_t buf[VDISK_MAP_PAGE], *state = m->state + page * sizeof(buf) * 4;

    vdisk_map_take(&m->map, page, buf);
    m->dirty[page] = false;
    for (size_t i = 0; i < sizeof(buf) * 4; i++) {
        assert(state[i] == (buf[i / 4] >> (i % 4 * 2) & 3));
    }
}

static void trim(Model *m, Input *in)
{
    uint64_t end = pages_of(m) * VDISK_MAP_PAGE_GRANULES, past = 0;
    bool fix = input_take(in, 1) & 1;

    for (uint64_t i = m->map.granules; i < end; i++) {
        past += m->state[i] != 0;
        if (fix && m->state[i]) {
            m->state[i] = 0;
            m->dirty[i / VDISK_MAP_PAGE_GRANULES] = true;
        }
    }
    assert(vdisk_map_trim(&m->map, fix) == past);
}

static void clear(Model *m)
{
    vdisk_map_clear(&m->map);
    memset(m->state, 0, sizeof(m->state));
    memset(m->dirty, 0, sizeof(m->dirty));
}

static void grow(Model *m, Input *in)
{
    uint64_t asked = m->map.granules + input_take(in, 2);

    vdisk_map_grow(&m->map, MIN(asked, CAPACITY));
}

static void step(Model *m, Input *in)
{
    switch (input_take(in, 1) % 8) {
    case 0:
    case 1:
        load(m, in);
        break;
    case 2:
        take(m, in);
        break;
    case 3:
        trim(m, in);
        break;
    case 4:
        grow(m, in);
        break;
    case 5:
        clear(m);
        break;
    default:
        set(m, in);
    }
}

static uint64_t run_length(const Model *m, uint64_t g)
{
    uint64_t n = 1;

    while (g + n < m->map.granules && m->state[g + n] == m->state[g]) {
        n++;
    }
    return n;
}

static void compare(const Model *m)
{
    uint64_t count[4] = {}, counted[4], bad = m->map.granules, n;
    VdiskState state;

    for (uint64_t g = 0; g < m->map.granules; g += n) {
        n = run_length(m, g);
        assert(vdisk_map_run(&m->map, g, m->map.granules - g, &state) == n);
        assert(state == m->state[g]);
        assert(vdisk_map_run(&m->map, g, 1, &state) == 1);
        count[state] += n;
        if (state == VDISK_STATE_BAD) {
            bad = MIN(bad, g);
        }
    }
    vdisk_map_count(&m->map, counted);
    assert(!memcmp(count, counted, sizeof(count)));
    assert(vdisk_map_next_bad(&m->map, 0) == bad);
    for (uint64_t page = 0; page < pages_of(m); page++) {
        uint64_t dirty = vdisk_map_next_dirty(&m->map, page);

        assert((dirty == page) == m->dirty[page]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Model m;
    Input in = { data, size };
    uint64_t granules = 1 + input_take(&in, 2) % CAPACITY;

    memset(&m, 0, sizeof(m));
    assert(vdisk_map_init(&m.map, granules, CAPACITY));
    assert(vdisk_map_capacity(&m.map) == CAPACITY);
    for (int i = 0; in.size && i < MOST_STEPS; i++) {
        step(&m, &in);
    }
    compare(&m);
    vdisk_map_destroy(&m.map);
    return 0;
}

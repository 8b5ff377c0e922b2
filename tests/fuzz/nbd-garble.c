/*
 * What a bad NBD server makes of the messages of a good one: fields with other
 * values, messages longer or shorter than they say, left out, said twice, too
 * late, cut off, or joined by another one that nobody asked for
 *
 * tests/stores/garble.py does the same between real programs, at random.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "block/nbd.h"
#include "nbd-garble.h"

typedef struct Field {
    unsigned at, bytes;
} Field;

#define FIELDS      6

/* The last one is the length, but for those that have none */
static const Field fields[][FIELDS] = {
    [GREETING] = { { 0, 8 }, { 8, 8 }, { 16, 2 } },
    [OPTION] = { { 0, 8 }, { 8, 4 }, { 12, 4 }, { 16, 4 } },
    [SIMPLE] = { { 0, 4 }, { 4, 4 }, { 8, 8 } },
    [STRUCTURED] = { { 0, 4 }, { 4, 2 }, { 6, 2 }, { 8, 8 }, { 16, 4 } },
    [EXTENDED] = { { 0, 4 }, { 4, 2 }, { 6, 2 }, { 8, 8 }, { 16, 8 },
                   { 24, 8 } },
};

static const struct {
    unsigned fields, head;
    bool sized;
} phases[] = {
    [GREETING] = { 3, 18, false },
    [OPTION] = { 4, 20, true },
    [SIMPLE] = { 3, 16, false },
    [STRUCTURED] = { 5, 20, true },
    [EXTENDED] = { 6, 32, true },
};

/* What is near a limit of somebody's */
static const uint64_t values[] = {
    0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 0xff, 511, 512, 4095, 4096, 4097, 0x7fff,
    0x8000, 0x8001, 0x8002, 0xffff, NBD_MAX_BUFFER_SIZE,
    NBD_MAX_BUFFER_SIZE + 1, NBD_MAX_BUFFER_SIZE + 9, 0x7fffffff, 0x80000000,
    0x80000001, 0x80000003, 0x80000006, 0xffffffff, INT64_MAX - 511, INT64_MAX,
    UINT64_C(1) << 63, UINT64_MAX,
};

static const int64_t steps[] = { -4096, -512, -8, -1, 1, 8, 512, 4096 };

unsigned garbled;

static void put(GByteArray *msg, unsigned at, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes && at + i < msg->len; i++) {
        msg->data[at + i] = value >> (8 * (bytes - 1 - i));
    }
}

static uint64_t get(const GByteArray *msg, unsigned at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes && at + i < msg->len; i++) {
        value = value << 8 | msg->data[at + i];
    }
    return value;
}

/* It says how long it is now */
static void resized(Phase phase, GByteArray *msg)
{
    Field f = fields[phase][phases[phase].fields - 1];

    if (phases[phase].sized && msg->len >= phases[phase].head) {
        put(msg, f.at, f.bytes, msg->len - phases[phase].head);
    }
}

static uint64_t limit(Input *script)
{
    return values[input_take(script, 1) % G_N_ELEMENTS(values)];
}

static Field field(Input *script, Phase phase)
{
    return fields[phase][input_take(script, 1) % phases[phase].fields];
}

/* Any place of its first 64 KiB */
static unsigned place(Input *script, const GByteArray *msg)
{
    uint64_t at = input_take(script, 2);

    return msg->len ? at % msg->len : 0;
}

/* So many bytes of the script, or what is there of them */
static void append(Input *script, GByteArray *msg, size_t bytes)
{
    size_t n = MIN(bytes, script->size);

    g_byte_array_append(msg, script->data, n);
    script->data += n;
    script->size -= n;
}

/* What is behind the header of @msg is a field, or two */
static void change_body(Input *script, Phase phase, GByteArray *msg)
{
    unsigned bytes = 1 << input_take(script, 1) % 4;
    unsigned at = phases[phase].head + input_take(script, 1) % 32;
    unsigned which = input_take(script, 1);

    if (which < 128) {
        put(msg, at, bytes, values[which % G_N_ELEMENTS(values)]);
    } else {
        put(msg, at, bytes, get(msg, at, bytes) +
            steps[which % G_N_ELEMENTS(steps)]);
    }
}

/* Another message before it, of which the script has the body */
static void precede(Input *script, Phase phase, GByteArray *msg)
{
    unsigned head = phases[phase].head;
    g_autoptr(GByteArray) other = g_byte_array_new();

    g_byte_array_append(other, msg->data, MIN(head, msg->len));
    put(other, fields[phase][1].at, fields[phase][1].bytes,
        input_take(script, phase == OPTION ? 4 : 1));
    put(other, fields[phase][2].at, fields[phase][2].bytes,
        limit(script));
    append(script, other, input_take(script, 1));
    resized(phase, other);
    g_byte_array_prepend(msg, other->data, other->len);
}

static void move(GByteArray *from, GByteArray *to)
{
    g_byte_array_append(to, from->data, from->len);
    g_byte_array_set_size(from, 0);
}

static void longer(Input *script, Phase phase, GByteArray *msg)
{
    unsigned was = msg->len, n = input_take(script, 2) % 4096;

    g_byte_array_set_size(msg, was + n);
    memset(msg->data + was, n, n);
    resized(phase, msg);
}

static void shorter(Input *script, Phase phase, GByteArray *msg)
{
    unsigned head = phases[phase].head;

    if (msg->len > head) {
        g_byte_array_set_size(msg, head + input_take(script, 2) %
                              (msg->len - head));
        resized(phase, msg);
    }
}

static void raw(Input *script, GByteArray *msg)
{
    unsigned at = place(script, msg);
    unsigned n = input_take(script, 1) % 16;

    for (unsigned i = at; i < at + n && i < msg->len; i++) {
        msg->data[i] = input_take(script, 1);
    }
}

/* The kinds that change one message */
static void change(Input *script, unsigned kind, Phase phase, GByteArray *msg)
{
    Field f;

    switch (kind) {
    case 1:
        f = field(script, phase);
        put(msg, f.at, f.bytes, limit(script));
        break;
    case 2:
        f = field(script, phase);
        put(msg, f.at, f.bytes, get(msg, f.at, f.bytes) +
            steps[input_take(script, 1) % G_N_ELEMENTS(steps)]);
        break;
    case 3:
        change_body(script, phase, msg);
        break;
    case 4:
        longer(script, phase, msg);
        break;
    case 5:
        shorter(script, phase, msg);
        break;
    case 6:
        precede(script, phase, msg);
        break;
    case 7:
        g_byte_array_set_size(msg, 0);
        append(script, msg, input_take(script, 1));
        break;
    default:
        raw(script, msg);
        break;
    }
}

Then garble(Input *script, Phase phase, GByteArray *msg, GByteArray *kept,
            unsigned *ms)
{
    unsigned kind = input_take(script, 1) % 16;
    g_autoptr(GBytes) twice = NULL;

    garbled += kind != 0;
    switch (kind) {
    case 0:
        break;
    case 9:                     /* said twice */
        twice = g_bytes_new(msg->data, msg->len);
        g_byte_array_append(msg, g_bytes_get_data(twice, NULL),
                            g_bytes_get_size(twice));
        break;
    case 10:                    /* behind the next one, or never */
        move(msg, kept);
        return GO_ON;
    case 11:                    /* not at all */
        g_byte_array_set_size(msg, 0);
        break;
    case 12:
        g_byte_array_set_size(msg, place(script, msg));
        return HANG_UP;
    case 13:
        return BE_MUTE;
    case 14:
        *ms = input_take(script, 1);
        return BE_LATE;
    case 15:
        return HANG_UP;
    default:
        change(script, kind, phase, msg);
        break;
    }
    move(kept, msg);
    return GO_ON;
}

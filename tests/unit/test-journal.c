/*
 * The reconnect buffer: its format, and recovery
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdlib.h>
#include "block/pvs/journal-scan.h"
#include "cli/desktop/journal-size.h"
#include "journal-sample.h"
#include "suite.h"

/* Headers */

static bool header_taken(const uint8_t *buf)
{
    JournalHeader out;
    g_autofree char *why = NULL;
    bool ok = journal_header_decode(&out, buf, &why);

    CU_ASSERT_EQUAL(ok, why == NULL);
    return ok;
}

static bool taken(const JournalHeader *h)
{
    uint8_t buf[JOURNAL_HEADER_BYTES];

    journal_header_encode(h, buf);
    return header_taken(buf);
}

static void test_header_round_trip(void)
{
    JournalHeader h = sample(), out;
    uint8_t buf[JOURNAL_HEADER_BYTES];
    char *why = NULL;

    journal_header_encode(&h, buf);
    CU_ASSERT(journal_header_probe(buf, sizeof(buf)));
    CU_ASSERT_FALSE(journal_header_probe(buf, 7));
    CU_ASSERT_FATAL(journal_header_decode(&out, buf, &why));
    CU_ASSERT_EQUAL(memcmp(&h, &out, sizeof(h)), 0);
    h.broken = true;
    h.window = false;
    journal_header_encode(&h, buf);
    CU_ASSERT_FATAL(journal_header_decode(&out, buf, &why));
    CU_ASSERT(out.broken);
    CU_ASSERT_FALSE(out.window);
    CU_ASSERT(journal_label_same(&out.label, &h.label));
    CU_ASSERT(journal_label_is_set(&out.label));
}

static void test_header_damage(void)
{
    JournalHeader h = sample();
    uint8_t buf[JOURNAL_HEADER_BYTES];

    journal_header_encode(&h, buf);
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] ^= 1 << (i % 8);
        CU_ASSERT_FALSE(header_taken(buf));
        buf[i] ^= 1 << (i % 8);
    }
    CU_ASSERT(header_taken(buf));
    buf[0] = 'X';
    CU_ASSERT_FALSE(journal_header_probe(buf, sizeof(buf)));
}

#define REFUSE(field, value) do { \
        JournalHeader h_ = sample(); \
        h_.field = value; \
        CU_ASSERT_FALSE(taken(&h_)); \
    } while (0)

#define TAKE(field, value) do { \
        JournalHeader h_ = sample(); \
        h_.field = value; \
        CU_ASSERT(taken(&h_)); \
    } while (0)

static void test_header_bounds(void)
{
    TAKE(unit, 4096);
    REFUSE(unit, 0);
    REFUSE(unit, 1024);
    REFUSE(ring_size, RING - 4096);
    REFUSE(ring_size, RING + 512);
    REFUSE(ring_size, (uint64_t)JOURNAL_RING_MAX + 4096);
    TAKE(virtual_size, 0);
    REFUSE(virtual_size, VDISK_MAX_SIZE + 512);
    REFUSE(virtual_size, 100);
    REFUSE(reserve, RING + 1);
    REFUSE(tail.pos, 100);
    REFUSE(tail.pos, UINT64_C(1) << 63);
    REFUSE(tail.seq, 0);
    REFUSE(tail.seq, UINT64_MAX);
    REFUSE(tail.epoch, 0);
    REFUSE(tail.epoch, UINT64_MAX);
    REFUSE(durable, UINT64_MAX);
    REFUSE(version, 0);
    REFUSE(version, UINT64_MAX);
    REFUSE(vdisk[0], 0);
    REFUSE(vdisk[1], '/');
}

/* A field that encoding sets by itself, with a checksum that fits */
static void forge(uint8_t *buf, size_t offset, uint8_t value)
{
    uint64_t sum;

    buf[offset] = value;
    memset(buf + 8, 0, 8);
    sum = GUINT64_TO_LE(journal_checksum(buf, JOURNAL_HEADER_BYTES));
    memcpy(buf + 8, &sum, sizeof(sum));
}

static bool forged(size_t offset, uint8_t value)
{
    JournalHeader h = sample();
    uint8_t buf[JOURNAL_HEADER_BYTES];

    journal_header_encode(&h, buf);
    forge(buf, offset, value);
    return header_taken(buf);
}

static void test_header_forged(void)
{
    CU_ASSERT(forged(16, 1));
    CU_ASSERT_FALSE(forged(16, 2));             /* version */
    CU_ASSERT_FALSE(forged(64, 1));             /* ring_offset */
    CU_ASSERT_FALSE(forged(512 + 127, 'x'));    /* a name without its end */
}

static int choose(const JournalHeader *a, const JournalHeader *b)
{
    uint8_t buf[2 * JOURNAL_HEADER_BYTES] = {};
    JournalHeader out;
    g_autofree char *why = NULL;

    if (a) {
        journal_header_encode(a, buf);
    }
    if (b) {
        journal_header_encode(b, buf + JOURNAL_HEADER_BYTES);
    }
    return journal_header_choose(&out, buf, &why);
}

static void test_header_choose(void)
{
    JournalHeader old = sample(), new = sample();

    new.generation++;
    CU_ASSERT_EQUAL(choose(NULL, NULL), -1);
    CU_ASSERT_EQUAL(choose(&old, NULL), 0);
    CU_ASSERT_EQUAL(choose(NULL, &old), 1);
    CU_ASSERT_EQUAL(choose(&new, &old), 0);
    CU_ASSERT_EQUAL(choose(&old, &new), 1);
}

/* Of another version: what it says may have changed what the other copy says */
static void test_header_version(void)
{
    JournalHeader h = sample(), out;
    uint8_t buf[2 * JOURNAL_HEADER_BYTES];

    for (int i = 0; i < 2; i++) {
        uint8_t *copy = buf + i * JOURNAL_HEADER_BYTES;
        g_autofree char *why = NULL;

        journal_header_encode(&h, buf);
        journal_header_encode(&h, buf + JOURNAL_HEADER_BYTES);
        forge(copy, 16, 2);
        CU_ASSERT_EQUAL(journal_header_choose(&out, buf, &why), -1);
        CU_ASSERT_PTR_NOT_NULL_FATAL(why);
        CU_ASSERT_PTR_NOT_NULL(strstr(why, "another version"));
        copy[100] ^= 1;         /* damaged, it says nothing */
        g_clear_pointer(&why, g_free);
        CU_ASSERT_EQUAL(journal_header_choose(&out, buf, &why), !i);
    }
}

/* Records */

static void test_record(void)
{
    JournalRecord r = {
        .type = JOURNAL_WRITE, .seq = 1, .epoch = 2, .link = 3, .durable = 4,
        .offset = 5, .length = 6, .payload = 7, .flags = 8,
    }, out;
    uint8_t buf[JOURNAL_RECORD_BYTES];

    memset(r.nonce, 9, sizeof(r.nonce));
    memset(r.next_nonce, 10, sizeof(r.next_nonce));
    journal_record_encode(&r, buf);
    CU_ASSERT_FATAL(journal_record_decode(&out, buf));
    CU_ASSERT_EQUAL(memcmp(&r, &out, sizeof(r)), 0);
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] ^= 0x40;
        /* Four bytes are not used */
        CU_ASSERT_EQUAL(journal_record_decode(&out, buf), i >= 4 && i < 8);
        buf[i] ^= 0x40;
    }
    r.type = 0;
    journal_record_encode(&r, buf);
    CU_ASSERT_FALSE(journal_record_decode(&out, buf));
    r.type = JOURNAL_START + 1;
    journal_record_encode(&r, buf);
    CU_ASSERT_FALSE(journal_record_decode(&out, buf));
}

static void test_space(void)
{
    JournalRecord r = { .type = JOURNAL_WRITE, .length = 513 };

    CU_ASSERT_EQUAL(journal_record_space(&r, 512), 512 + 1024);
    CU_ASSERT_EQUAL(journal_record_space(&r, 4096), 8192);
    r.type = JOURNAL_PAD;
    CU_ASSERT_EQUAL(journal_record_space(&r, 512), 513);
    r.type = JOURNAL_COMMIT;
    CU_ASSERT_EQUAL(journal_record_space(&r, 512), 512);
    CU_ASSERT_EQUAL(journal_payload_max(RING), 65536);
    CU_ASSERT_EQUAL(journal_payload_max(UINT64_C(1) << 40),
                    JOURNAL_PAYLOAD_MAX);
}

/* A ring that is written here, as the driver does it */
typedef struct Ring {
    JournalHeader h;
    JournalTail head;
    uint64_t durable;
    uint8_t *bytes;
    JournalScan scan;
    unsigned writes;            /* that the scan told of */
} Ring;

static Ring *ring_new(void)
{
    Ring *r = g_new0(Ring, 1);

    r->h = sample();
    r->h.durable = 0;
    r->head = r->h.tail;
    r->bytes = g_malloc0(RING);
    return r;
}

static void ring_free(Ring *r)
{
    g_free(r->bytes);
    g_free(r);
}

static void ring_put(Ring *r, JournalRecord *rec)
{
    uint8_t *at = r->bytes + r->head.pos % RING;

    memcpy(rec->nonce, r->head.nonce, sizeof(rec->nonce));
    rec->seq = r->head.seq;
    rec->epoch = rec->epoch ?: r->head.epoch;
    rec->link = r->head.link;
    rec->durable = r->durable;
    if (rec->type == JOURNAL_WRITE) {
        memset(at + UNIT, rec->seq, rec->length);
        rec->payload = journal_checksum(at + UNIT, rec->length);
    }
    journal_record_encode(rec, at);
    r->head.pos += journal_record_space(rec, UNIT);
    r->head.seq++;
    r->head.epoch = rec->epoch;
    r->head.link = rec->checksum;
    if (rec->type == JOURNAL_START) {
        memcpy(r->head.nonce, rec->next_nonce, sizeof(rec->next_nonce));
    }
}

static void put_write(Ring *r, uint64_t length)
{
    JournalRecord rec = {
        .type = JOURNAL_WRITE, .offset = r->head.seq * 4096, .length = length,
    };

    ring_put(r, &rec);
}

static void put_type(Ring *r, JournalType type)
{
    JournalRecord rec = { .type = type, .epoch = r->head.epoch };

    if (type == JOURNAL_ZERO) {
        rec.length = 4096;
    } else if (type == JOURNAL_PAD) {
        rec.length = RING - r->head.pos % RING;
    } else if (type == JOURNAL_START) {
        memset(rec.next_nonce, r->head.seq, sizeof(rec.next_nonce));
        rec.epoch++;
    }
    ring_put(r, &rec);
}

static void count_writes(void *opaque, const JournalRecord *rec,
                         uint64_t payload)
{
    Ring *r = opaque;

    if (rec->type == JOURNAL_WRITE) {
        CU_ASSERT_EQUAL(r->bytes[payload % RING], rec->seq & 0xff);
        r->writes++;
    }
}

/* As the driver reads it, @step bytes at a time; returns how many records */
static uint64_t ring_scan(Ring *r, size_t step)
{
    JournalScan *s = &r->scan;
    bool more = true;

    r->writes = 0;
    journal_scan_init(s, &r->h);
    while (more) {
        uint64_t at = s->next.pos % RING;
        uint64_t left = journal_scan_end(s) - s->next.pos;
        uint64_t before = s->next.pos;

        more = journal_scan_records(s, r->bytes + at,
                                    MIN(MIN(step, RING - at), left),
                                    count_writes, r);
        more = more && s->next.pos > before;
    }
    for (uint64_t pos = s->next.pos; pos < journal_scan_end(s); pos += UNIT) {
        journal_scan_proof(s, pos, r->bytes + pos % RING, UNIT);
    }
    journal_scan_proof(s, journal_scan_end(s), r->bytes, 0);
    return s->records;
}

static void test_scan(void)
{
    Ring *r = ring_new();

    CU_ASSERT_EQUAL(ring_scan(r, RING), 0);
    CU_ASSERT_FALSE(r->scan.damaged);
    put_type(r, JOURNAL_START);
    CU_ASSERT_EQUAL(ring_scan(r, RING), 1);
    CU_ASSERT(r->scan.ends_with_start);
    CU_ASSERT_EQUAL(r->scan.before_start.pos, 4096);
    ring_put(r, &(JournalRecord) { .type = JOURNAL_PAD, .length = 3584 });
    CU_ASSERT_EQUAL(ring_scan(r, RING), 2);
    CU_ASSERT(r->scan.ends_with_start);
    put_write(r, 4096);
    put_type(r, JOURNAL_ZERO);
    put_type(r, JOURNAL_COMMIT);
    CU_ASSERT_EQUAL(ring_scan(r, journal_scan_window(&r->h)), 5);
    CU_ASSERT_FALSE(r->scan.ends_with_start);
    CU_ASSERT_FALSE(r->scan.damaged);
    CU_ASSERT_EQUAL(r->writes, 1);
    CU_ASSERT_EQUAL(memcmp(&r->scan.next, &r->head, sizeof(r->head)), 0);
    ring_free(r);
}

/* Up to the last byte, and many times around */
static void test_rounds(void)
{
    Ring *r = ring_new();

    for (int i = 0; i < 2000; i++) {
        uint64_t rest = RING - r->head.pos % RING;
        uint64_t length = 512 * (1 + i % 100);

        if (length + UNIT > rest) {
            put_type(r, JOURNAL_PAD);
        }
        if (r->head.pos + length + UNIT > r->h.tail.pos + RING) {
            /* All of it was shipped; begin where the head is */
            CU_ASSERT(ring_scan(r, journal_scan_window(&r->h)) > 1);
            CU_ASSERT_EQUAL(r->scan.next.pos, r->head.pos);
            r->h.tail = r->head;
        }
        put_write(r, length);
        r->durable = r->head.seq - 1;
    }
    ring_scan(r, RING);
    CU_ASSERT_EQUAL(r->scan.next.seq, r->head.seq);
    CU_ASSERT_FALSE(r->scan.damaged);
    ring_free(r);
}

static void test_full(void)
{
    Ring *r = ring_new();

    for (uint64_t n = 0; n < RING / UNIT; n++) {
        put_type(r, JOURNAL_COMMIT);
    }
    CU_ASSERT_EQUAL(ring_scan(r, RING), RING / UNIT);
    CU_ASSERT_EQUAL(r->scan.next.pos, journal_scan_end(&r->scan));
    CU_ASSERT_FALSE(r->scan.damaged);
    ring_free(r);
}

/* Is a last record with these fields taken? */
#define LAST(type_, field, value) ({ \
        Ring *r_ = ring_new(); \
        JournalRecord rec_ = { \
            .type = type_, .length = type_ == JOURNAL_PAD ? 512 : 4096, \
        }; \
        put_write(r_, 4096); \
        rec_.field = value; \
        ring_put(r_, &rec_); \
        uint64_t n_ = ring_scan(r_, RING); \
        ring_free(r_); \
        n_ == 2; })

static void test_fields(void)
{
    CU_ASSERT(LAST(JOURNAL_WRITE, offset, 0));
    CU_ASSERT(LAST(JOURNAL_WRITE, offset, DISK - 4096));
    CU_ASSERT_FALSE(LAST(JOURNAL_WRITE, offset, DISK));
    CU_ASSERT_FALSE(LAST(JOURNAL_WRITE, offset, 100));
    CU_ASSERT_FALSE(LAST(JOURNAL_WRITE, length, 0));
    CU_ASSERT_FALSE(LAST(JOURNAL_WRITE, length, 65536 + 512));
    CU_ASSERT(LAST(JOURNAL_ZERO, length, DISK));
    CU_ASSERT_FALSE(LAST(JOURNAL_ZERO, length, DISK + 512));
    CU_ASSERT_FALSE(LAST(JOURNAL_ZERO, length, 0));
    CU_ASSERT_FALSE(LAST(JOURNAL_PAD, length, 0));
    CU_ASSERT_FALSE(LAST(JOURNAL_PAD, length, 100));
    CU_ASSERT_FALSE(LAST(JOURNAL_PAD, length, RING));
    CU_ASSERT(LAST(JOURNAL_PAD, length, 512));
    CU_ASSERT(LAST(JOURNAL_COMMIT, epoch, 4));
    CU_ASSERT_FALSE(LAST(JOURNAL_COMMIT, epoch, 5));
    CU_ASSERT_FALSE(LAST(JOURNAL_COMMIT, epoch, 2));
}

/* The second of three is changed, with a checksum that fits */
static uint64_t changed(void (*change)(JournalRecord *rec))
{
    Ring *r = ring_new();
    JournalRecord rec;
    uint8_t *at;
    uint64_t n;

    put_write(r, 512);
    at = r->bytes + r->head.pos;
    put_write(r, 512);
    put_write(r, 512);
    journal_record_decode(&rec, at);
    change(&rec);
    journal_record_encode(&rec, at);
    n = ring_scan(r, RING);
    ring_free(r);
    return n;
}

static void change_nothing(JournalRecord *rec) {}
static void change_nonce(JournalRecord *rec) { rec->nonce[0]++; }
static void change_seq(JournalRecord *rec) { rec->seq++; }
static void change_link(JournalRecord *rec) { rec->link++; }
static void change_durable(JournalRecord *rec) { rec->durable = rec->seq; }
static void change_payload(JournalRecord *rec) { rec->payload++; }
static void change_offset(JournalRecord *rec) { rec->offset += 512; }

static void test_chain(void)
{
    CU_ASSERT_EQUAL(changed(change_nothing), 3);
    CU_ASSERT_EQUAL(changed(change_nonce), 1);
    CU_ASSERT_EQUAL(changed(change_seq), 1);
    CU_ASSERT_EQUAL(changed(change_link), 1);
    CU_ASSERT_EQUAL(changed(change_durable), 1);
    CU_ASSERT_EQUAL(changed(change_payload), 1);
    /* Valid by itself, but not what the next one follows */
    CU_ASSERT_EQUAL(changed(change_offset), 2);
}

/* Shown bytes that it is not to look at: does it take more of them than @n? */
static void scan_at_end(Ring *r, const uint8_t *buf, size_t len, uint64_t n)
{
    CU_ASSERT_FALSE(journal_scan_records(&r->scan, buf, len, count_writes, r));
    CU_ASSERT_EQUAL(r->scan.records, n);
}

/* A record that would go round the end, or over the tail, is none */
static void test_ends(void)
{
    Ring *r = ring_new();
    uint8_t kept[UNIT], over[UNIT + 1024];

    r->h.tail.pos = r->head.pos = RING - 1024;
    put_write(r, 512);
    CU_ASSERT_EQUAL(ring_scan(r, RING), 1);
    r->head = r->h.tail;
    r->bytes = g_realloc(r->bytes, 2 * RING);
    put_write(r, 1024);
    CU_ASSERT_EQUAL(ring_scan(r, RING), 0);
    journal_scan_init(&r->scan, &r->h);
    scan_at_end(r, r->bytes + RING - 1024, sizeof(over), 0);

    r->h.tail.pos = r->head.pos = 1024;
    r->head = r->h.tail;
    put_type(r, JOURNAL_PAD);
    memcpy(kept, r->bytes + 1024, UNIT);
    put_write(r, 1024);
    memcpy(over, r->bytes, sizeof(over));
    memcpy(r->bytes + 1024, kept, UNIT);
    CU_ASSERT_EQUAL(ring_scan(r, RING), 1);
    scan_at_end(r, over, sizeof(over), 1);
    ring_free(r);
}

/* Rot in what was flushed is told from a torn tail */
static void test_damage(void)
{
    Ring *r = ring_new();
    uint64_t rot;

    put_write(r, 4096);
    rot = r->head.pos + UNIT + 5;
    put_write(r, 4096);
    put_write(r, 4096);
    r->bytes[rot] ^= 1;
    CU_ASSERT_EQUAL(ring_scan(r, RING), 1);
    CU_ASSERT_FALSE(r->scan.damaged);       /* nobody says it was durable */
    r->h.durable = 6;
    ring_scan(r, RING);
    CU_ASSERT(r->scan.damaged);
    CU_ASSERT_EQUAL(r->scan.proof_pos, UINT64_MAX);
    r->h.durable = 5;
    ring_scan(r, RING);
    CU_ASSERT_FALSE(r->scan.damaged);
    r->durable = 7;
    put_type(r, JOURNAL_COMMIT);
    CU_ASSERT_EQUAL(ring_scan(r, RING), 1);
    CU_ASSERT(r->scan.damaged);
    CU_ASSERT_EQUAL(r->scan.proof_durable, 7);
    CU_ASSERT_EQUAL(r->scan.next.seq, 6);
    put_type(r, JOURNAL_COMMIT);            /* the first proof stays */
    ring_scan(r, RING);
    CU_ASSERT_EQUAL(r->scan.proof_pos % RING,
                    (r->head.pos - 2 * UNIT) % RING);
    ring_free(r);
}

/* The start is lost behind which all was written: the header knows its nonce */
static void test_damage_start(void)
{
    Ring *r = ring_new();
    uint64_t rot;

    put_write(r, 512);
    r->durable = r->head.seq - 1;
    rot = r->head.pos + 20;
    put_type(r, JOURNAL_START);
    put_write(r, 512);
    r->durable = r->head.seq - 1;
    put_type(r, JOURNAL_COMMIT);
    r->bytes[rot] ^= 1;
    CU_ASSERT_EQUAL(ring_scan(r, RING), 1);
    CU_ASSERT_FALSE(r->scan.damaged);
    memcpy(r->h.newest, r->head.nonce, sizeof(r->h.newest));
    CU_ASSERT_EQUAL(ring_scan(r, RING), 1);
    CU_ASSERT(r->scan.damaged);
    ring_free(r);
}

/* Of another generation, or an older round, is no proof */
static void test_no_proof(void)
{
    Ring *r = ring_new();
    JournalTail before;

    put_write(r, 512);
    before = r->head;
    r->durable = 5;
    put_write(r, 512);
    r->durable = 6;
    put_write(r, 512);
    put_write(r, 512);
    r->head = before;                       /* the power failed here */
    r->durable = 0;
    put_type(r, JOURNAL_START);
    CU_ASSERT_EQUAL(ring_scan(r, RING), 2);
    CU_ASSERT_FALSE(r->scan.damaged);
    ring_free(r);
}

/*
 * Any order in which the sectors of what was not flushed reach the disk: all
 * that was flushed is found, and nothing is called damaged
 */
static void test_torn(void)
{
    GRand *rand = g_rand_new_with_seed(1);

    for (int round = 0; round < 200; round++) {
        Ring *r = ring_new();
        uint64_t flushed = r->head.seq, from = r->head.pos;

        for (int i = g_rand_int_range(rand, 1, 30); i > 0; i--) {
            put_write(r, 512 * g_rand_int_range(rand, 1, 9));
            if (g_rand_boolean(rand)) {
                put_type(r, JOURNAL_COMMIT);
                r->durable = r->head.seq - 1;
                flushed = r->head.seq;
                from = r->head.pos;
            }
        }
        for (uint64_t pos = from; pos < r->head.pos; pos += 512) {
            if (g_rand_boolean(rand)) {
                memset(r->bytes + pos % RING, round, 512);
            }
        }
        ring_scan(r, journal_scan_window(&r->h));
        CU_ASSERT(r->scan.next.seq >= flushed);
        CU_ASSERT_FALSE(r->scan.damaged);
        ring_free(r);
    }
    g_rand_free(rand);
}

/* What may be reserved fits, and the tool makes a buffer in which it may be */
static void test_reserve(void)
{
    static const uint64_t rings[] = {
        JOURNAL_RING_MIN, RING, 3 * JOURNAL_RING_MIN + 4096, UINT64_C(4) << 30,
        JOURNAL_RING_MAX,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rings); i++) {
        uint64_t max = journal_reserve_max(rings[i]);

        CU_ASSERT(max > rings[i] / 4 && max % 4096 == 0);
        CU_ASSERT(journal_reserve_space(rings[i], max) <= rings[i]);
        CU_ASSERT(journal_reserve_space(rings[i], 1) > 3 * JOURNAL_ALIGN);
        CU_ASSERT(journal_reserve_max(journal_size_for(max) -
                                      JOURNAL_RING_OFFSET) >= max);
    }
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "headers: what is encoded is decoded", test_header_round_trip },
        { "headers: every damaged byte is noticed", test_header_damage },
        { "headers: fields are bounded", test_header_bounds },
        { "headers: forged ones", test_header_forged },
        { "headers: the newer copy counts", test_header_choose },
        { "headers: a copy of another version", test_header_version },
        { "records: every damaged byte is noticed", test_record },
        { "records: space", test_space },
        { "update windows: what can be reserved", test_reserve },
        { "recovery: records, and a start without any", test_scan },
        { "recovery: many rounds", test_rounds },
        { "recovery: a full ring", test_full },
        { "recovery: fields are bounded", test_fields },
        { "recovery: a record follows the one before", test_chain },
        { "recovery: the ends of the ring", test_ends },
        { "recovery: rot in what was flushed", test_damage },
        { "recovery: rot in a start", test_damage_start },
        { "recovery: what is no proof of that", test_no_proof },
        { "recovery: torn tails", test_torn },
        CU_TEST_INFO_NULL
    };

    return run_suite("journal", tests);
}

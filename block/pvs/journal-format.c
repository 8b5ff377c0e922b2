/*
 * The reconnect buffer's format: its header and its records
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/pvs/journal-format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define HEADER_MAGIC    "DSKJRNAL"
#define HEADER_VERSION  1
#define RECORD_MAGIC    "DJRC"
#define FLAG_BROKEN     1
#define FLAG_WINDOW     2
/* A payload is at most this part of the ring */
#define PAYLOAD_PART    16

typedef struct QEMU_PACKED DiskLabel {
    uint8_t content[JOURNAL_UUID_BYTES];
    uint64_t writer;
    uint8_t nonce[JOURNAL_NONCE_BYTES];
} DiskLabel;

/* As on disk: little-endian */
typedef struct QEMU_PACKED DiskHeader {
    char magic[8];
    uint64_t checksum;
    uint32_t version;
    uint32_t unit;
    uint64_t generation;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint64_t virtual_size;
    uint64_t ring_offset;
    uint64_t ring_size;
    uint8_t journal[JOURNAL_UUID_BYTES];
    uint64_t tail_pos;
    uint64_t tail_seq;
    uint64_t tail_epoch;
    uint64_t tail_link;
    uint8_t tail_nonce[JOURNAL_NONCE_BYTES];
    uint64_t durable;
    uint32_t flags;
    uint32_t reserved;
    uint64_t reserve;
    uint64_t vdisk_version;
    uint8_t desktop[JOURNAL_UUID_BYTES];
    DiskLabel label;
    DiskLabel intent;
    uint8_t newest[JOURNAL_NONCE_BYTES];
    uint8_t reserved2[224];
    char vdisk[VDISK_NAME_CHARS + 1];
    uint8_t reserved3[3456];
} DiskHeader;

QEMU_BUILD_BUG_ON(sizeof(DiskHeader) != JOURNAL_HEADER_BYTES);
QEMU_BUILD_BUG_ON(offsetof(DiskHeader, label) != 192);
QEMU_BUILD_BUG_ON(offsetof(DiskHeader, newest) != 272);
QEMU_BUILD_BUG_ON(offsetof(DiskHeader, vdisk) != 512);

typedef struct QEMU_PACKED DiskRecord {
    char magic[4];
    uint32_t reserved;
    uint64_t checksum;
    uint8_t nonce[JOURNAL_NONCE_BYTES];
    uint64_t seq;
    uint64_t epoch;
    uint64_t link;
    uint64_t durable;
    uint64_t offset;
    uint64_t length;
    uint64_t payload;
    uint64_t flags;
    uint8_t next_nonce[JOURNAL_NONCE_BYTES];
    uint32_t type;
    uint8_t reserved2[12];
} DiskRecord;

QEMU_BUILD_BUG_ON(sizeof(DiskRecord) != JOURNAL_RECORD_BYTES);
QEMU_BUILD_BUG_ON(offsetof(DiskRecord, offset) != 64);

uint64_t journal_payload_max(uint64_t ring_size)
{
    return MIN(ring_size / PAYLOAD_PART, JOURNAL_PAYLOAD_MAX);
}

uint64_t journal_record_space(const JournalRecord *r, uint32_t unit)
{
    switch (r->type) {
    case JOURNAL_WRITE:
        return unit + ROUND_UP(r->length, unit);
    case JOURNAL_PAD:
        return r->length;
    default:
        return unit;
    }
}

/*
 * The least write that counts in a reserve, and what it takes at worst: alone
 * in its batch it fills a page more, with its header, and so does the commit of
 * a flush that comes right behind it. A larger one takes less for each byte.
 */
#define WRITE           4096
#define WRITE_SPACE     (WRITE + 2 * JOURNAL_ALIGN)
/*
 * The part of the ring that is set aside: for what a write leaves free (J7),
 * for what stays empty at the ring's end, and for a start of each opening
 */
#define ASIDE_PART      16
/*
 * Of that, what may be there although all is shipped, for it stays until
 * something follows it: a pad, the commit of an epoch that the driver had
 * closed, and a start, each in a page of its own
 */
#define LEFT_SPACE      (3 * JOURNAL_ALIGN)

uint64_t journal_reserve_max(uint64_t ring_size)
{
    return (ring_size - ring_size / ASIDE_PART) / WRITE_SPACE * WRITE;
}

uint64_t journal_reserve_space(uint64_t ring_size, uint64_t bytes)
{
    return DIV_ROUND_UP(bytes, WRITE) * WRITE_SPACE + ring_size / ASIDE_PART -
           LEFT_SPACE;
}

uint64_t journal_checksum(const void *buf, size_t bytes)
{
    return XXH3_64bits(buf, bytes);
}

bool journal_label_same(const JournalLabel *a, const JournalLabel *b)
{
    return a->writer == b->writer &&
           !memcmp(a->content, b->content, sizeof(a->content)) &&
           !memcmp(a->nonce, b->nonce, sizeof(a->nonce));
}

static void label_encode(DiskLabel *d, const JournalLabel *l)
{
    memcpy(d->content, l->content, sizeof(d->content));
    memcpy(d->nonce, l->nonce, sizeof(d->nonce));
    d->writer = GUINT64_TO_LE(l->writer);
}

static void label_decode(JournalLabel *l, const DiskLabel *d)
{
    memcpy(l->content, d->content, sizeof(d->content));
    memcpy(l->nonce, d->nonce, sizeof(d->nonce));
    l->writer = GUINT64_FROM_LE(d->writer);
}

static const char *ring_fault(const JournalHeader *h)
{
    if (h->unit != 512 && h->unit != JOURNAL_UNIT_MAX) {
        return "its unit is neither 512 nor 4096 bytes";
    }
    if (h->ring_size < JOURNAL_RING_MIN || h->ring_size > JOURNAL_RING_MAX ||
        h->ring_size % JOURNAL_UNIT_MAX) {
        return "its ring has an impossible size";
    }
    if (h->virtual_size > VDISK_MAX_SIZE || h->virtual_size % 512) {
        return "its vDisk has an impossible size";
    }
    if (h->reserve > h->ring_size) {
        return "its update window is larger than the ring";
    }
    return NULL;
}

static const char *tail_fault(const JournalHeader *h)
{
    const JournalTail *t = &h->tail;

    if (t->pos % h->unit || t->pos > INT64_MAX || t->seq == 0 ||
        t->seq > INT64_MAX || t->epoch == 0 || t->epoch > INT64_MAX) {
        return "its tail is impossible";
    }
    if (h->durable > INT64_MAX) {
        return "its sequence is impossible";
    }
    return NULL;
}

bool journal_header_valid(const JournalHeader *h, char **why)
{
    const char *fault = ring_fault(h) ?: tail_fault(h);

    if (fault) {
        *why = g_strdup(fault);
        return false;
    }
    if (h->version == 0 || h->version > VDISK_MAX_VERSION) {
        *why = g_strdup("its version is impossible");
        return false;
    }
    return vdisk_name_valid(h->vdisk, why);
}

void journal_header_encode(const JournalHeader *h,
                           uint8_t buf[JOURNAL_HEADER_BYTES])
{
    DiskHeader d = {
        .version = GUINT32_TO_LE(HEADER_VERSION),
        .unit = GUINT32_TO_LE(h->unit),
        .generation = GUINT64_TO_LE(h->generation),
        .incompatible_features = GUINT64_TO_LE(h->incompatible_features),
        .compatible_features = GUINT64_TO_LE(h->compatible_features),
        .autoclear_features = GUINT64_TO_LE(h->autoclear_features),
        .virtual_size = GUINT64_TO_LE(h->virtual_size),
        .ring_offset = GUINT64_TO_LE(JOURNAL_RING_OFFSET),
        .ring_size = GUINT64_TO_LE(h->ring_size),
        .tail_pos = GUINT64_TO_LE(h->tail.pos),
        .tail_seq = GUINT64_TO_LE(h->tail.seq),
        .tail_epoch = GUINT64_TO_LE(h->tail.epoch),
        .tail_link = GUINT64_TO_LE(h->tail.link),
        .durable = GUINT64_TO_LE(h->durable),
        .flags = GUINT32_TO_LE((h->broken ? FLAG_BROKEN : 0) |
                               (h->window ? FLAG_WINDOW : 0)),
        .reserve = GUINT64_TO_LE(h->reserve),
        .vdisk_version = GUINT64_TO_LE(h->version),
    };

    memcpy(d.magic, HEADER_MAGIC, sizeof(d.magic));
    memcpy(d.journal, h->journal, sizeof(d.journal));
    memcpy(d.tail_nonce, h->tail.nonce, sizeof(d.tail_nonce));
    memcpy(d.desktop, h->desktop, sizeof(d.desktop));
    label_encode(&d.label, &h->label);
    label_encode(&d.intent, &h->intent);
    memcpy(d.newest, h->newest, sizeof(d.newest));
    g_strlcpy(d.vdisk, h->vdisk, sizeof(d.vdisk));
    d.checksum = GUINT64_TO_LE(journal_checksum(&d, sizeof(d)));
    memcpy(buf, &d, sizeof(d));
}

static const char other_version[] =
    "its format is of another version; use a newer Deskcast";

/* What tells other files, other versions and damage apart */
static const char *header_fault(DiskHeader *d)
{
    uint64_t checksum = GUINT64_FROM_LE(d->checksum);

    if (memcmp(d->magic, HEADER_MAGIC, sizeof(d->magic))) {
        return "it is no reconnect buffer";
    }
    d->checksum = 0;
    if (journal_checksum(d, sizeof(*d)) != checksum) {
        return "its checksum is wrong";
    }
    if (GUINT32_FROM_LE(d->version) != HEADER_VERSION) {
        return other_version;
    }
    if (GUINT64_FROM_LE(d->ring_offset) != JOURNAL_RING_OFFSET ||
        d->vdisk[VDISK_NAME_CHARS]) {
        return "its fields are impossible";
    }
    return NULL;
}

static void header_decode(JournalHeader *h, const DiskHeader *d)
{
    uint32_t flags = GUINT32_FROM_LE(d->flags);

    *h = (JournalHeader) {
        .unit = GUINT32_FROM_LE(d->unit),
        .generation = GUINT64_FROM_LE(d->generation),
        .incompatible_features = GUINT64_FROM_LE(d->incompatible_features),
        .compatible_features = GUINT64_FROM_LE(d->compatible_features),
        .autoclear_features = GUINT64_FROM_LE(d->autoclear_features),
        .virtual_size = GUINT64_FROM_LE(d->virtual_size),
        .ring_size = GUINT64_FROM_LE(d->ring_size),
        .tail.pos = GUINT64_FROM_LE(d->tail_pos),
        .tail.seq = GUINT64_FROM_LE(d->tail_seq),
        .tail.epoch = GUINT64_FROM_LE(d->tail_epoch),
        .tail.link = GUINT64_FROM_LE(d->tail_link),
        .durable = GUINT64_FROM_LE(d->durable),
        .broken = flags & FLAG_BROKEN,
        .window = flags & FLAG_WINDOW,
        .reserve = GUINT64_FROM_LE(d->reserve),
        .version = GUINT64_FROM_LE(d->vdisk_version),
    };
    memcpy(h->journal, d->journal, sizeof(d->journal));
    memcpy(h->tail.nonce, d->tail_nonce, sizeof(d->tail_nonce));
    memcpy(h->desktop, d->desktop, sizeof(d->desktop));
    label_decode(&h->label, &d->label);
    label_decode(&h->intent, &d->intent);
    memcpy(h->newest, d->newest, sizeof(d->newest));
    memcpy(h->vdisk, d->vdisk, sizeof(d->vdisk));
}

bool journal_header_decode(JournalHeader *h,
                           const uint8_t buf[JOURNAL_HEADER_BYTES], char **why)
{
    DiskHeader d;
    const char *fault;

    memcpy(&d, buf, sizeof(d));
    fault = header_fault(&d);
    if (fault) {
        *why = g_strdup(fault);
        return false;
    }
    header_decode(h, &d);
    return journal_header_valid(h, why);
}

static bool is_other_version(const uint8_t *buf)
{
    DiskHeader d;

    memcpy(&d, buf, sizeof(d));
    return header_fault(&d) == other_version;
}

int journal_header_choose(JournalHeader *h, const uint8_t *buf, char **why)
{
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;
    JournalHeader a, b;
    bool a_ok = journal_header_decode(&a, buf, &first);
    bool b_ok = journal_header_decode(&b, buf + JOURNAL_HEADER_BYTES, &second);

    if (is_other_version(buf) || is_other_version(buf + JOURNAL_HEADER_BYTES)) {
        *why = g_strdup(other_version);
        return -1;
    }
    if (!a_ok && !b_ok) {
        *why = g_strdup(first);
        return -1;
    }
    if (!b_ok || (a_ok && a.generation > b.generation)) {
        *h = a;
        return 0;
    }
    *h = b;
    return 1;
}

bool journal_header_probe(const uint8_t *buf, size_t len)
{
    return len >= sizeof(HEADER_MAGIC) - 1 &&
           !memcmp(buf, HEADER_MAGIC, sizeof(HEADER_MAGIC) - 1);
}

/* Of what follows the field */
static uint64_t record_checksum(const DiskRecord *d)
{
    size_t from = offsetof(DiskRecord, nonce);

    return journal_checksum((const uint8_t *)d + from, sizeof(*d) - from);
}

void journal_record_encode(JournalRecord *r, uint8_t buf[JOURNAL_RECORD_BYTES])
{
    DiskRecord d = {
        .type = GUINT32_TO_LE(r->type),
        .seq = GUINT64_TO_LE(r->seq),
        .epoch = GUINT64_TO_LE(r->epoch),
        .link = GUINT64_TO_LE(r->link),
        .durable = GUINT64_TO_LE(r->durable),
        .offset = GUINT64_TO_LE(r->offset),
        .length = GUINT64_TO_LE(r->length),
        .payload = GUINT64_TO_LE(r->payload),
        .flags = GUINT64_TO_LE(r->flags),
    };

    memcpy(d.magic, RECORD_MAGIC, sizeof(d.magic));
    memcpy(d.nonce, r->nonce, sizeof(d.nonce));
    memcpy(d.next_nonce, r->next_nonce, sizeof(d.next_nonce));
    r->checksum = record_checksum(&d);
    d.checksum = GUINT64_TO_LE(r->checksum);
    memcpy(buf, &d, sizeof(d));
}

bool journal_record_decode(JournalRecord *r,
                           const uint8_t buf[JOURNAL_RECORD_BYTES])
{
    DiskRecord d;

    /* Most of what is looked at is none: do not copy it */
    if (memcmp(buf, RECORD_MAGIC, sizeof(d.magic))) {
        return false;
    }
    memcpy(&d, buf, sizeof(d));
    *r = (JournalRecord) {
        .type = GUINT32_FROM_LE(d.type),
        .checksum = GUINT64_FROM_LE(d.checksum),
        .seq = GUINT64_FROM_LE(d.seq),
        .epoch = GUINT64_FROM_LE(d.epoch),
        .link = GUINT64_FROM_LE(d.link),
        .durable = GUINT64_FROM_LE(d.durable),
        .offset = GUINT64_FROM_LE(d.offset),
        .length = GUINT64_FROM_LE(d.length),
        .payload = GUINT64_FROM_LE(d.payload),
        .flags = GUINT64_FROM_LE(d.flags),
    };
    memcpy(r->nonce, d.nonce, sizeof(d.nonce));
    memcpy(r->next_nonce, d.next_nonce, sizeof(d.next_nonce));
    return r->type >= JOURNAL_WRITE && r->type <= JOURNAL_START &&
           record_checksum(&d) == r->checksum;
}

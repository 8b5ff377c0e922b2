/*
 * The reconnect buffer's format: its header and its records
 *
 * As specified in docs/interop/reconnect-buffer.rst. All that is decoded is
 * bounded. Sizes and offsets are in bytes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_JOURNAL_FORMAT_H
#define BLOCK_PVS_JOURNAL_FORMAT_H

#include "block/vdisk/header.h"

#define JOURNAL_HEADER_BYTES    4096
#define JOURNAL_HEADER_COPIES   2
#define JOURNAL_RING_OFFSET     65536
#define JOURNAL_RING_MIN        (INT64_C(1) << 20)
#define JOURNAL_RING_MAX        (INT64_C(1) << 50)
/* Of a record that is encoded; its first unit holds it, the rest is zero */
#define JOURNAL_RECORD_BYTES    128
#define JOURNAL_UNIT_MAX        4096
/*
 * What is written at once begins and ends at multiples of this: no page of
 * memory or sector of the medium has old records and new ones
 */
#define JOURNAL_ALIGN           4096
#define JOURNAL_PAYLOAD_MAX     (1024 * 1024)
#define JOURNAL_NONCE_BYTES     16
#define JOURNAL_UUID_BYTES      16

/* Who wrote to the store last: see label.h */
typedef struct JournalLabel {
    uint8_t content[JOURNAL_UUID_BYTES];
    uint64_t writer;                    /* generation; 0: there is none */
    uint8_t nonce[JOURNAL_NONCE_BYTES];
} JournalLabel;

typedef struct JournalTail {
    uint64_t pos;                       /* bytes since the first record ever */
    uint64_t seq;                       /* of the record that is there */
    uint64_t epoch;                     /* the lowest that it can be in */
    uint64_t link;                      /* checksum of the one before */
    uint8_t nonce[JOURNAL_NONCE_BYTES];
} JournalTail;

typedef struct JournalHeader {
    uint32_t unit;
    uint64_t generation;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint64_t virtual_size;              /* 0: not bound to a vDisk yet */
    uint64_t ring_size;
    uint8_t journal[JOURNAL_UUID_BYTES];
    JournalTail tail;
    uint64_t durable;                   /* sequence */
    bool broken;
    bool window;
    uint64_t reserve;
    uint64_t version;
    uint8_t desktop[JOURNAL_UUID_BYTES];
    JournalLabel label, intent;
    uint8_t newest[JOURNAL_NONCE_BYTES];    /* nonce of the last generation */
    char vdisk[VDISK_NAME_CHARS + 1];
} JournalHeader;

typedef enum JournalType {
    JOURNAL_WRITE = 1,
    JOURNAL_ZERO = 2,
    JOURNAL_COMMIT = 3,
    JOURNAL_PAD = 4,
    JOURNAL_START = 5,
} JournalType;

#define JOURNAL_FLAG_UNMAP  1           /* of JOURNAL_ZERO */

typedef struct JournalRecord {
    JournalType type;
    uint64_t checksum;                  /* set by encoding */
    uint8_t nonce[JOURNAL_NONCE_BYTES];
    uint64_t seq;
    uint64_t epoch;
    uint64_t link;
    uint64_t durable;
    uint64_t offset;
    uint64_t length;
    uint64_t payload;                   /* checksum */
    uint64_t flags;
    uint8_t next_nonce[JOURNAL_NONCE_BYTES];
} JournalRecord;

/* Largest payload of one write in a ring of this size */
uint64_t journal_payload_max(uint64_t ring_size);

/* Bytes of the ring that a record of this type and length takes */
uint64_t journal_record_space(const JournalRecord *r, uint32_t unit);

/*
 * What an update window can reserve at most in a ring of this size: bytes that
 * a guest writes, even if by 4 KiB each and flushed each time
 */
uint64_t journal_reserve_max(uint64_t ring_size);

/* Bytes of the ring that have to be free for @bytes of such writes */
uint64_t journal_reserve_space(uint64_t ring_size, uint64_t bytes);

uint64_t journal_checksum(const void *buf, size_t bytes);

/* Would it be read again? False with *@why set (to be freed) if not. */
bool journal_header_valid(const JournalHeader *h, char **why);

void journal_header_encode(const JournalHeader *h,
                           uint8_t buf[JOURNAL_HEADER_BYTES]);

/* False, and in *@why what is wrong (to be freed). Features are not judged. */
bool journal_header_decode(JournalHeader *h,
                           const uint8_t buf[JOURNAL_HEADER_BYTES], char **why);

/*
 * Choose among the copies, one behind the other in @buf. Returns which, or -1
 * with *@why set; also if one of them is of another version, which may have
 * changed what the other copy speaks of.
 */
int journal_header_choose(JournalHeader *h, const uint8_t *buf, char **why);

/* Does @buf, of @len bytes, begin like a reconnect buffer? */
bool journal_header_probe(const uint8_t *buf, size_t len);

/* Sets @r->checksum too */
void journal_record_encode(JournalRecord *r, uint8_t buf[JOURNAL_RECORD_BYTES]);

/* Is it a record by magic, type and checksum? Nothing else is judged. */
bool journal_record_decode(JournalRecord *r,
                           const uint8_t buf[JOURNAL_RECORD_BYTES]);

static inline bool journal_label_is_set(const JournalLabel *l)
{
    return l->writer != 0;
}

bool journal_label_same(const JournalLabel *a, const JournalLabel *b);

#endif /* BLOCK_PVS_JOURNAL_FORMAT_H */

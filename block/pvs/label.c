/*
 * The label of a private vDisk: who wrote to it last
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/pvs/label.h"

#define LABEL_MAGIC     "DSKLABEL"
#define LABEL_VERSION   1
#define STATE_OPEN      1
#define STATE_CLOSED    2

/* As on disk: little-endian */
typedef struct QEMU_PACKED DiskLabel {
    char magic[8];
    uint64_t checksum;
    uint32_t version;
    uint32_t state;
    uint8_t content[JOURNAL_UUID_BYTES];
    uint64_t writer;
    uint8_t nonce[JOURNAL_NONCE_BYTES];
    uint64_t virtual_size;
    uint64_t vdisk_version;
    char vdisk[VDISK_NAME_CHARS + 1];
    uint8_t reserved[3888];
} DiskLabel;

QEMU_BUILD_BUG_ON(sizeof(DiskLabel) != LABEL_BYTES);

void label_encode(const Label *l, uint8_t buf[LABEL_BYTES])
{
    DiskLabel d = {
        .version = GUINT32_TO_LE(LABEL_VERSION),
        .state = GUINT32_TO_LE(l->closed ? STATE_CLOSED : STATE_OPEN),
        .writer = GUINT64_TO_LE(l->id.writer),
        .virtual_size = GUINT64_TO_LE(l->virtual_size),
        .vdisk_version = GUINT64_TO_LE(l->version),
    };

    memcpy(d.magic, LABEL_MAGIC, sizeof(d.magic));
    memcpy(d.content, l->id.content, sizeof(d.content));
    memcpy(d.nonce, l->id.nonce, sizeof(d.nonce));
    g_strlcpy(d.vdisk, l->vdisk, sizeof(d.vdisk));
    d.checksum = GUINT64_TO_LE(journal_checksum(&d, sizeof(d)));
    memcpy(buf, &d, sizeof(d));
}

static bool is_zero(const uint8_t *buf, size_t n)
{
    return buf[0] == 0 && !memcmp(buf, buf + 1, n - 1);
}

static const char *label_fault(DiskLabel *d)
{
    uint64_t checksum = GUINT64_FROM_LE(d->checksum);

    if (memcmp(d->magic, LABEL_MAGIC, sizeof(d->magic))) {
        return "there is no label behind the vDisk: the image has to end in "
               "4096 bytes of zeros, or in this vDisk's label";
    }
    d->checksum = 0;
    if (journal_checksum(d, sizeof(*d)) != checksum) {
        return "the label is damaged: bring the image back from a copy, or "
               "rescue what the reconnect buffer holds";
    }
    if (GUINT32_FROM_LE(d->version) != LABEL_VERSION) {
        return "the label is of another version; use a newer Deskcast";
    }
    if (d->writer == 0 || d->vdisk[VDISK_NAME_CHARS]) {
        return "the label's fields are impossible";
    }
    return NULL;
}

bool label_decode(Label *l, const uint8_t buf[LABEL_BYTES], char **why)
{
    DiskLabel d;
    const char *fault;

    *l = (Label) {};
    if (is_zero(buf, LABEL_BYTES)) {
        return true;
    }
    memcpy(&d, buf, sizeof(d));
    fault = label_fault(&d);
    if (fault) {
        *why = g_strdup(fault);
        return false;
    }
    l->id.writer = GUINT64_FROM_LE(d.writer);
    memcpy(l->id.content, d.content, sizeof(d.content));
    memcpy(l->id.nonce, d.nonce, sizeof(d.nonce));
    l->closed = GUINT32_FROM_LE(d.state) == STATE_CLOSED;
    l->virtual_size = GUINT64_FROM_LE(d.virtual_size);
    l->version = GUINT64_FROM_LE(d.vdisk_version);
    memcpy(l->vdisk, d.vdisk, sizeof(d.vdisk));
    return true;
}

static LabelVerdict fenced(char **why, const char *what, const char *advice)
{
    *why = g_strdup_printf("%s%s", what, advice);
    return LABEL_FENCED;
}

static bool is_own(const LabelQuestion *q, const Label *l)
{
    const JournalHeader *h = q->h;

    if (!journal_label_is_set(&l->id)) {
        /* We were about to claim it */
        return q->first && !journal_label_is_set(&h->label) &&
               journal_label_is_set(&h->intent);
    }
    return journal_label_same(&l->id, &h->label) ||
           (q->first && journal_label_same(&l->id, &h->intent));
}

/* An image that was brought back from a copy, say */
static bool is_older(const JournalHeader *h, const Label *l)
{
    return l->id.writer < h->label.writer &&
           !memcmp(l->id.content, h->label.content, sizeof(l->id.content));
}

static LabelVerdict judge_other(const LabelQuestion *q, const Label *l,
                                char **why)
{
    const char *what = is_older(q->h, l)
                       ? "the store has an older state of the vDisk"
                       : "somebody else has written to the vDisk";

    if (!q->first) {
        return fenced(why, what, " since it was opened; what is in the "
                      "reconnect buffer can be rescued");
    }
    if (!q->empty) {
        return fenced(why, what, ", and the reconnect buffer has writes for "
                      "what it was before; rescue them, and begin with a new "
                      "one");
    }
    if (!q->take_over) {
        return fenced(why, what, "; if no other host uses it, 'take-over' "
                      "makes it this one's");
    }
    return LABEL_TAKE;
}

LabelVerdict label_judge(const LabelQuestion *q, const Label *l, char **why)
{
    const JournalHeader *h = q->h;
    bool bound = journal_label_is_set(&h->label) ||
                 journal_label_is_set(&h->intent);

    if (journal_label_is_set(&l->id) &&
        (l->virtual_size != h->virtual_size || l->version != h->version ||
         strcmp(l->vdisk, h->vdisk))) {
        return fenced(why, "the store has another vDisk or version",
                      "; name the export of this one");
    }
    if (is_own(q, l)) {
        return journal_label_is_set(&l->id) ? LABEL_OWN : LABEL_CLAIM;
    }
    if (!bound && !journal_label_is_set(&l->id)) {
        return LABEL_CLAIM;
    }
    return judge_other(q, l, why);
}

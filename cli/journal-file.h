/*
 * A reconnect buffer as evidence: read, and never written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_JOURNAL_FILE_H
#define CLI_JOURNAL_FILE_H

#include "block/pvs/journal-scan.h"

/* A write or a zero; its content is at @payload in the file if it is a write */
typedef struct JournalItem {
    JournalRecord record;
    off_t payload;
    bool past_damage;           /* behind a record that cannot be read */
} JournalItem;

typedef struct JournalFile {
    int fd;
    bool in_use;                /* a process writes to it */
    bool salvage;               /* what cannot be read is taken for zeros */
    off_t length;
    uint64_t unreadable;        /* bytes of the ring, where more may have been */
    off_t first_unreadable;
    JournalHeader header;
    JournalScan scan;
    GArray *items;              /* JournalItem, by sequence */
} JournalFile;

/*
 * Read all of @path, of any state: broken, damaged, fenced, cut off, on a disk
 * that cannot read all of it. With @past_damage also what looks valid behind
 * damage. NULL with @error set; to be closed.
 */
JournalFile *journal_file_read(const char *path, bool past_damage,
                               GError **error);
void journal_file_close(JournalFile *file);

/* How much a buffer holds that its store does not have */
typedef struct JournalLag {
    JournalHeader header;
    uint64_t bytes;
    bool whole;                 /* false: there are more */
} JournalLag;

/*
 * Only the records, without looking for damage behind them, which takes as long
 * as reading all of the file. Until the monotonic time @until, in microseconds.
 * False with @error set.
 */
bool journal_file_lag(const char *path, gint64 until, JournalLag *lag,
                      GError **error);

/* Read the content of @item, a write. False with @error set, which names it. */
bool journal_file_content(const JournalFile *file, const JournalItem *item,
                          uint8_t *buf, GError **error);

/* Sets @error from errno; false */
bool journal_file_errno(GError **error, const char *what);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(JournalFile, journal_file_close)

#endif /* CLI_JOURNAL_FILE_H */

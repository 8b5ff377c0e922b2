/*
 * A desktop's disk in a storage daemon of its own, as a guest would use it
 *
 *   we ==libnbd==> qemu-storage-daemon (mcs or pvs) --> store, relay, files
 *
 * It is defined as `deskcast desktop create` and the hook define it. What the
 * guest should read is known: every write is noted, and every reading compared.
 * No call waits for longer than LAB_WAIT_MS.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SELFTEST_GUEST_H
#define CLI_SELFTEST_GUEST_H

#include "lab.h"

#include "cli/qmp.h"

typedef struct Guest Guest;

/*
 * A desktop @name of @vdisk with its new disk; @version is copied. It reads
 * from @source, a URI, unless it is MODEL_MCS.
 */
Guest *guest_new(Lab *lab, const char *name, DesktopModel model,
                 DesktopLifetime lifetime, const char *vdisk,
                 const WantedVersion *version, const char *source,
                 GError **error);
void guest_free(Guest *g);

/* Begin its process, with a pooled disk that has been reset */
bool guest_start(Guest *g, GError **error);

/* End it: in order, as at a shutdown; at once, as by a loss of power */
bool guest_quit(Guest *g, GError **error);
void guest_kill(Guest *g);

/* What it holds from now on is @holds, LAB_BYTES; copied */
void guest_expect(Guest *g, const uint8_t *holds);

/* Write @count pieces of odd sizes, told apart by @seed, and flush */
bool guest_work(Guest *g, uint64_t seed, unsigned count, GError **error);

/* Read all of it, and compare */
bool guest_compare(Guest *g, GError **error);

/* What it should hold */
const uint8_t *guest_holds(const Guest *g);

/* Have it take @version at its next reset */
bool guest_assign(Guest *g, const WantedVersion *version, GError **error);

/* As when it is switched off and on: a pooled disk forgets */
bool guest_reset(Guest *g, GError **error);

/* A block job on its disk, to its end */
bool guest_job(Guest *g, const char *command, GError **error);

/* A number of pvs.buffer in query-vdisks; -1 with @error */
int64_t guest_buffer(Guest *g, const char *member, GError **error);

#endif /* CLI_SELFTEST_GUEST_H */

/*
 * What the pure files of the vDisk drivers need from their surroundings
 *
 * Pure files do no I/O and know nothing of the block layer. Inside QEMU they
 * use QEMU's headers; unit tests, fuzzers and deskcast(1) define
 * VDISK_STANDALONE and need GLib only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_PURE_H
#define BLOCK_VDISK_PURE_H

#ifdef VDISK_STANDALONE

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <glib.h>

#define qatomic_read(p)         __atomic_load_n(p, __ATOMIC_RELAXED)
#define qatomic_load_acquire(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define qatomic_set(p, v)       __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define qatomic_fetch_xor(p, v) __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST)
#define qatomic_fetch_or(p, v)  __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST)
#define qatomic_fetch_and(p, v) __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST)

#define QEMU_BUILD_BUG_ON(x)    G_STATIC_ASSERT(!(x))
#define DIV_ROUND_UP(n, d)      (((n) + (d) - 1) / (d))
#define ROUND_UP(n, d)          (DIV_ROUND_UP(n, d) * (d))
#define QEMU_PACKED             __attribute__((packed))

#else

#include "qemu/osdep.h"
#include "qemu/atomic.h"

#endif

#define VDISK_GRANULE_BITS  12
#define VDISK_GRANULE       (1 << VDISK_GRANULE_BITS)

#endif /* BLOCK_VDISK_PURE_H */

/*
 * MESSAGE_IDs in the journal: a kind of message keeps its own for ever
 *
 * packaging/journal/deskcast.catalog explains each: journalctl -x. A new one is
 * made by `systemd-id128 new`; numbers of what is not said any more are not
 * given to anything else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_MESSAGE_ID_H
#define CLI_MESSAGE_ID_H

/* A command has changed something: DESKCAST_ACTION, _VDISK, _VERSION, _USER */
#define MESSAGE_COMMAND         "7c1f4d0e9ab24c65b1a3d8f2065e47cb"

/* Services: DESKCAST_SUBJECT is not well, and is again */
#define MESSAGE_TROUBLE         "8c3ea218ef5448f4afb000292e57861a"
#define MESSAGE_WELL            "e4d7ff22e33e46c58b3bbbd48865316c"

/* The hook: DESKCAST_DESKTOP */
#define MESSAGE_OTHER_WRITER    "bbf43f07e9bf454b808b33ca31f507ee"
#define MESSAGE_NOT_STARTED     "543ffbd832e242ad949363f7adac04e0"
#define MESSAGE_METADATA        "dfd9a87bf4334546b6423f98f0b7a46a"
#define MESSAGE_UNPREPARED      "3de961fa7dde4ea5a042a275f36fca73"
#define MESSAGE_TAKES           "3acc4c237b114313828fb6bab6ab37ac"
#define MESSAGE_STAYS           "e33c159f392f4b8b93d3f43060f825bb"
#define MESSAGE_DISK_MADE       "7d526512668d479ba558e6e7ea57299d"
#define MESSAGE_IDENTITY_MADE   "2671a61e87c6450ea2dc7d8b47b479b5"
#define MESSAGE_DAEMON          "01ca70f2761c4cc5b2bbe3d196f7f7e8"
#define MESSAGE_UNSHIPPED       "a28e4f002b7146d883a9b4e5e5a78422"
#define MESSAGE_SHIPPED         "2a976490e1684e928675f88200e70fe4"
#define MESSAGE_BUFFER_BAD      "c50cf205e2f3463b8e4dc71474f83842"

/* The exporter: DESKCAST_DESKTOP, of a store DESKCAST_STORE */
#define MESSAGE_SILENT          "1c5fb13e59da4e48873daa441ac617b4"
#define MESSAGE_ANSWERS         "10deb9117c7f43a68c97cb28dba3e1f7"
#define MESSAGE_OUTAGE          "8a1a2e129e89460cb1ac95d19687461a"
#define MESSAGE_OUTAGE_OVER     "d5faa3f3cd114470b6374e5a1732ef02"
#define MESSAGE_STORE_DOWN      "b85a9e29186f46de88a4e12b3476b8ee"
#define MESSAGE_STORE_UP        "476180b96b194261bc096973a7f0d1dc"
#define MESSAGE_CORRUPT         "3119f7956dca4ea29d19495c9b4ce1e8"
#define MESSAGE_VERSION         "3e1c29d8f2e1422aaf27d17dec0247ad"
#define MESSAGE_BROKEN          "356cefb758554b59b4b714bd22e0c232"
#define MESSAGE_FENCED          "f15f77156aac4b908d6840d2f9858262"

#endif /* CLI_MESSAGE_ID_H */

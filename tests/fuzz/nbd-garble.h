/*
 * What a bad NBD server makes of the messages of a good one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_FUZZ_NBD_GARBLE_H
#define TESTS_FUZZ_NBD_GARBLE_H

#include "fuzz.h"

typedef enum Phase {
    GREETING,
    OPTION,
    SIMPLE,
    STRUCTURED,
    EXTENDED,
} Phase;

/* What follows a message */
typedef enum Then {
    GO_ON,
    BE_MUTE,            /* for good */
    HANG_UP,
    BE_LATE,            /* say nothing for a while, this message included */
} Then;

/*
 * Change @msg as the next bytes of @script say, or leave it as it is; they are
 * 0 once there are none, which leaves all as it is. @kept is what the same
 * server holds back. *@ms is for BE_LATE.
 */
Then garble(Input *script, Phase phase, GByteArray *msg, GByteArray *kept,
            unsigned *ms);

/* How many messages were changed since it was set to 0 */
extern unsigned garbled;

#endif /* TESTS_FUZZ_NBD_GARBLE_H */

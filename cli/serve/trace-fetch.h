/*
 * A version's boot trace, fetched from far stores to a file
 *
 * Nobody vouches for it: it is checked to be one of this version, and no more
 * is made of it than a hint. All of this blocks: it is for a thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_TRACE_FETCH_H
#define CLI_SERVE_TRACE_FETCH_H

#include "far.h"

typedef struct TraceFetch {
    char *path;                 /* of the trace */
    char *export;               /* its name at the stores */
    char *root;                 /* of the version; hexadecimal */
    uint64_t size;              /* bytes of the version */
    GPtrArray *stores;          /* Far, one at least; asked in order */
} TraceFetch;

/*
 * Fetch it, in place of what is there if that is another one. False with
 * @error, which names the last store that was asked.
 */
bool trace_fetch(const TraceFetch *t, GError **error);

#endif /* CLI_SERVE_TRACE_FETCH_H */

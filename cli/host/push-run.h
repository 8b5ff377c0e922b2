/*
 * A push or rollback that is carried out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_PUSH_RUN_H
#define CLI_HOST_PUSH_RUN_H

#include "rollout.h"
#include "survey.h"

typedef struct PushDesktop {
    Found *found;
    DesktopMetadata *before;    /* to go back to */
    DesktopMetadata *after;     /* to be written */
} PushDesktop;

typedef struct Push {
    Survey *survey;
    GPtrArray *desktops;        /* PushDesktop, in their order */
    RolloutOptions options;     /* times in µs */
    bool now;                   /* reset those that run, and watch them */
    bool quiet;
    uint64_t version;           /* to be told; 0: each its own */
    uint64_t released;          /* its release date; 0: none */
    bool held;                  /* follow: it went back before, and is left */
    guint already;              /* that need not be changed */
    Rollout *rollout;           /* afterwards: what became of them */
} Push;

void push_init(Push *push, Survey *survey);
void push_clear(Push *push);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Push, push_clear)

/* @found is to be changed to @after, which is taken */
void push_add(Push *push, Found *found, DesktopMetadata *after);

/*
 * Carry it out. SIGINT and SIGTERM keep it from beginning anything new.
 * Returns when all is at its end, or lost.
 */
void push_run(Push *push);

#endif /* CLI_HOST_PUSH_RUN_H */

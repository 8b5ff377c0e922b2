/*
 * A push, desktop by desktop: what is done next, and when to go back
 *
 * Nothing here does I/O; whoever drives it carries out an action and tells
 * what came of it.
 *
 *   waiting --ASSIGN--> assigning --> (RESET) resetting --> (LOOK) coming up
 *      |                  |   |           |                  |   |
 *      v                  |   v           v                  |   v
 *    left                 | failed <-----------(too late)----+  done
 *                         +-------> done (switched off, or --when reset)
 *
 * With as many failures as allowed, nothing new is begun, and all that took the
 * version (assigned, reset, done, failed after that) goes back by RESTORE:
 * restored, or not restored. A desktop whose host is lost: left if nothing was
 * begun, else unknown; that is no failure of the version. One that does not
 * answer, on a host that does, is unknown, too; it counts as a failure, because
 * a version may be what its QEMU hangs in, and the others' would.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_ROLLOUT_H
#define CLI_HOST_ROLLOUT_H

#include <glib.h>
#include <stdbool.h>

typedef enum RolloutState {
    ROLLOUT_WAITING,
    ROLLOUT_ASSIGNING,
    ROLLOUT_RESETTING,
    ROLLOUT_COMING_UP,
    ROLLOUT_RESTORING,
    /* these are final, but for a roll back */
    ROLLOUT_DONE,
    ROLLOUT_FAILED,
    ROLLOUT_LEFT,
    ROLLOUT_UNKNOWN,
    ROLLOUT_RESTORED,
    ROLLOUT_NOT_RESTORED,
    ROLLOUT_STATES
} RolloutState;

typedef enum RolloutAction {
    ROLLOUT_ASSIGN,             /* then rollout_answer() */
    ROLLOUT_RESET,              /* then rollout_answer() */
    ROLLOUT_LOOK,               /* then rollout_looked() */
    ROLLOUT_RESTORE,            /* then rollout_answer() */
    ROLLOUT_WAIT,               /* for answers, or for rollout_due() */
    ROLLOUT_FINISHED,
} RolloutAction;

typedef struct RolloutOptions {
    guint batch;                /* desktops at once; 0: all */
    guint stop_after;           /* failures; 0: never */
    gint64 come_up;             /* time a desktop has for that */
    gint64 look_every;          /* both in the unit of @now */
} RolloutOptions;

typedef struct RolloutDesktop {
    guint host;
    bool needs_reset;           /* is reset, and watched as it comes up */
    /* The machine's own */
    RolloutState state;
    bool busy;                  /* an action was begun */
    bool took;                  /* the version was assigned */
    bool was_reset;             /* or tried to be */
    bool unanswered;            /* by a host that is there */
    gint64 due, next_look;
    char *why;                  /* what went wrong, or NULL */
} RolloutDesktop;

typedef struct Rollout Rollout;

Rollout *rollout_new(const RolloutOptions *options);
void rollout_free(Rollout *r);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Rollout, rollout_free)

/* In the order in which they take it; before the first rollout_next() */
void rollout_add(Rollout *r, guint host, bool needs_reset);

/* Before that: @desktop is unknown, and nothing is done to it */
void rollout_skip(Rollout *r, guint desktop, const char *why);

/* What is to be done now; for all but the last two, with *@desktop */
RolloutAction rollout_next(Rollout *r, gint64 now, guint *desktop);

/* When to call rollout_next() again without an answer; G_MAXINT64: never */
gint64 rollout_due(const Rollout *r);

/* What came of an action. @why: NULL if it is well */
void rollout_answer(Rollout *r, guint desktop, gint64 now, const char *why);
void rollout_looked(Rollout *r, guint desktop, gint64 now, bool up);

/*
 * The host of @desktop was lost while it was acted on. Desktops of the host
 * whose turn has not come are left out.
 */
void rollout_lost(Rollout *r, guint desktop, const char *why);

/* An action on @desktop was not answered in time, and its host was heard */
void rollout_unanswered(Rollout *r, guint desktop, const char *why);

/* Begin nothing new; what is begun is brought to its end, nothing goes back */
void rollout_stop(Rollout *r, const char *why);

guint rollout_length(const Rollout *r);
const RolloutDesktop *rollout_desktop(const Rollout *r, guint desktop);
guint rollout_count(const Rollout *r, RolloutState state);
/* Did it go back? */
bool rollout_went_back(const Rollout *r);
const char *rollout_state_text(RolloutState state);

#endif /* CLI_HOST_ROLLOUT_H */

/*
 * A push, desktop by desktop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/host/rollout.h"
#include "suite.h"

static const RolloutOptions of_three = {
    .batch = 3, .stop_after = 2, .come_up = 100, .look_every = 10,
};

static Rollout *make(const RolloutOptions *o, guint n, bool needs_reset)
{
    Rollout *r = rollout_new(o);

    for (guint i = 0; i < n; i++) {
        rollout_add(r, 0, needs_reset);
    }
    return r;
}

static void expect(Rollout *r, gint64 now, RolloutAction action, guint desktop)
{
    guint d = G_MAXUINT;

    CU_ASSERT_EQUAL_FATAL(rollout_next(r, now, &d), action);
    if (action < ROLLOUT_WAIT) {
        CU_ASSERT_EQUAL_FATAL(d, desktop);
    }
}

static RolloutState state(Rollout *r, guint i)
{
    return rollout_desktop(r, i)->state;
}

/* Assigned, reset, and up at @now */
static void bring(Rollout *r, guint i, gint64 now)
{
    expect(r, now, ROLLOUT_ASSIGN, i);
    rollout_answer(r, i, now, NULL);
    expect(r, now, ROLLOUT_RESET, i);
    rollout_answer(r, i, now, NULL);
    expect(r, now, ROLLOUT_WAIT, 0);
    CU_ASSERT_EQUAL(rollout_due(r), now + 10);
    expect(r, now + 10, ROLLOUT_LOOK, i);
    rollout_looked(r, i, now + 10, true);
}

static void test_off(void)
{
    g_autoptr(Rollout) r = make(&of_three, 4, false);

    for (guint i = 0; i < 3; i++) {
        expect(r, 0, ROLLOUT_ASSIGN, i);
    }
    expect(r, 0, ROLLOUT_WAIT, 0);      /* the fourth is of the next batch */
    rollout_answer(r, 1, 0, NULL);
    rollout_answer(r, 2, 0, NULL);
    expect(r, 0, ROLLOUT_WAIT, 0);
    rollout_answer(r, 0, 0, NULL);
    expect(r, 0, ROLLOUT_ASSIGN, 3);
    rollout_answer(r, 3, 0, NULL);
    expect(r, 0, ROLLOUT_FINISHED, 0);
    CU_ASSERT_EQUAL(rollout_count(r, ROLLOUT_DONE), 4);
}

static void test_empty(void)
{
    g_autoptr(Rollout) r = make(&of_three, 0, false);

    expect(r, 0, ROLLOUT_FINISHED, 0);
}

static void test_watches(void)
{
    RolloutOptions one = { .batch = 1, .come_up = 100, .look_every = 10 };
    g_autoptr(Rollout) r = make(&one, 2, true);

    bring(r, 0, 0);
    CU_ASSERT_EQUAL(state(r, 0), ROLLOUT_DONE);
    bring(r, 1, 50);
    expect(r, 60, ROLLOUT_FINISHED, 0);
}

static void test_too_late(void)
{
    RolloutOptions one = { .batch = 1, .come_up = 100, .look_every = 60 };
    g_autoptr(Rollout) r = make(&one, 1, true);

    expect(r, 0, ROLLOUT_ASSIGN, 0);
    rollout_answer(r, 0, 0, NULL);
    expect(r, 0, ROLLOUT_RESET, 0);
    rollout_answer(r, 0, 0, NULL);
    expect(r, 60, ROLLOUT_LOOK, 0);
    expect(r, 200, ROLLOUT_WAIT, 0);    /* the answer may be good news */
    rollout_looked(r, 0, 200, false);
    expect(r, 200, ROLLOUT_FINISHED, 0);
    CU_ASSERT_EQUAL(state(r, 0), ROLLOUT_FAILED);
    CU_ASSERT_FALSE(rollout_went_back(r));      /* no limit was set */
}

/* One has come up; the next one has been told to be reset */
static void bring_one_reset_next(Rollout *r)
{
    bring(r, 0, 0);
    expect(r, 20, ROLLOUT_ASSIGN, 1);
    rollout_answer(r, 1, 20, NULL);
    expect(r, 20, ROLLOUT_RESET, 1);
}

static void test_goes_back(void)
{
    RolloutOptions one = { .batch = 1, .stop_after = 1, .come_up = 100,
                           .look_every = 10 };
    g_autoptr(Rollout) r = make(&one, 3, true);

    bring_one_reset_next(r);
    rollout_answer(r, 1, 20, "no reset");
    expect(r, 20, ROLLOUT_RESTORE, 0);
    expect(r, 20, ROLLOUT_RESTORE, 1);
    CU_ASSERT_TRUE(rollout_desktop(r, 0)->was_reset);
    /* Nobody knows how far it came */
    CU_ASSERT_TRUE(rollout_desktop(r, 1)->was_reset);
    CU_ASSERT_FALSE(rollout_desktop(r, 2)->was_reset);
    rollout_answer(r, 0, 20, NULL);
    expect(r, 20, ROLLOUT_WAIT, 0);
    rollout_answer(r, 1, 20, "refused");
    expect(r, 20, ROLLOUT_FINISHED, 0);
    CU_ASSERT_EQUAL(state(r, 0), ROLLOUT_RESTORED);
    CU_ASSERT_EQUAL(state(r, 1), ROLLOUT_NOT_RESTORED);
    CU_ASSERT_EQUAL(state(r, 2), ROLLOUT_LEFT);
    CU_ASSERT_STRING_EQUAL(rollout_desktop(r, 1)->why, "refused");
}

/* One that refused the version has nothing to go back from */
static void test_refused(void)
{
    g_autoptr(Rollout) r = make(&of_three, 3, false);

    for (guint i = 0; i < 3; i++) {
        expect(r, 0, ROLLOUT_ASSIGN, i);
    }
    rollout_answer(r, 0, 0, "no such image");
    rollout_answer(r, 1, 0, "no such image");
    expect(r, 0, ROLLOUT_WAIT, 0);      /* for the third */
    rollout_answer(r, 2, 0, NULL);
    expect(r, 0, ROLLOUT_RESTORE, 2);
    rollout_answer(r, 2, 0, NULL);
    expect(r, 0, ROLLOUT_FINISHED, 0);
    CU_ASSERT_EQUAL(state(r, 0), ROLLOUT_FAILED);
    CU_ASSERT_EQUAL(state(r, 2), ROLLOUT_RESTORED);
}

/* A host that is lost says nothing of the version */
static void test_lost(void)
{
    RolloutOptions o = { .batch = 1, .stop_after = 1 };
    g_autoptr(Rollout) r = rollout_new(&o);

    rollout_add(r, 7, false);
    rollout_add(r, 7, false);
    rollout_add(r, 8, false);
    expect(r, 0, ROLLOUT_ASSIGN, 0);
    rollout_lost(r, 0, "gone");
    CU_ASSERT_EQUAL(state(r, 0), ROLLOUT_UNKNOWN);
    CU_ASSERT_EQUAL(state(r, 1), ROLLOUT_LEFT);
    expect(r, 0, ROLLOUT_ASSIGN, 2);
    rollout_answer(r, 2, 0, NULL);
    expect(r, 0, ROLLOUT_FINISHED, 0);
    CU_ASSERT_FALSE(rollout_went_back(r));
    CU_ASSERT_EQUAL(state(r, 2), ROLLOUT_DONE);
}

/* One that hangs, on a host that answers: the version may be why */
static void test_unanswered(void)
{
    RolloutOptions one = { .batch = 1, .stop_after = 1, .come_up = 100,
                           .look_every = 10 };
    g_autoptr(Rollout) r = make(&one, 3, true);

    bring_one_reset_next(r);
    rollout_unanswered(r, 1, "hangs");
    CU_ASSERT_EQUAL(state(r, 1), ROLLOUT_UNKNOWN);
    expect(r, 20, ROLLOUT_RESTORE, 0);
    expect(r, 20, ROLLOUT_RESTORE, 1);
    rollout_answer(r, 0, 20, NULL);
    rollout_unanswered(r, 1, "hangs on");
    expect(r, 20, ROLLOUT_FINISHED, 0);
    CU_ASSERT_EQUAL(state(r, 0), ROLLOUT_RESTORED);
    CU_ASSERT_EQUAL(state(r, 1), ROLLOUT_NOT_RESTORED);
    CU_ASSERT_EQUAL(state(r, 2), ROLLOUT_LEFT);
}

/* Nothing is done to one that is known to hang, and it counts for nothing */
static void test_skip(void)
{
    RolloutOptions one = { .batch = 1, .stop_after = 1 };
    g_autoptr(Rollout) r = make(&one, 3, false);

    rollout_skip(r, 1, "hangs");
    expect(r, 0, ROLLOUT_ASSIGN, 0);
    rollout_answer(r, 0, 0, NULL);
    expect(r, 0, ROLLOUT_ASSIGN, 2);
    rollout_answer(r, 2, 0, NULL);
    expect(r, 0, ROLLOUT_FINISHED, 0);
    CU_ASSERT_FALSE(rollout_went_back(r));
    CU_ASSERT_EQUAL(state(r, 1), ROLLOUT_UNKNOWN);
}

static void test_stop(void)
{
    g_autoptr(Rollout) r = make(&of_three, 5, true);

    expect(r, 0, ROLLOUT_ASSIGN, 0);
    rollout_stop(r, "interrupted");
    rollout_answer(r, 0, 0, NULL);
    expect(r, 0, ROLLOUT_RESET, 0);     /* what is begun comes to its end */
    rollout_answer(r, 0, 0, NULL);
    expect(r, 10, ROLLOUT_LOOK, 0);
    rollout_looked(r, 0, 10, true);
    expect(r, 10, ROLLOUT_FINISHED, 0);
    CU_ASSERT_EQUAL(rollout_count(r, ROLLOUT_LEFT), 4);
}

/* Random answers */

typedef struct Sim {
    GRand *rand;
    RolloutOptions o;
    Rollout *r;
    GArray *begun;              /* guint: desktops with an action */
    RolloutAction actions[64];
    bool lost[4];
    guint failures;
    bool over;                  /* the limit was reached */
} Sim;

static void check(Sim *s)
{
    guint in_hand = 0, sum = 0;

    for (guint i = 0; i < rollout_length(s->r); i++) {
        const RolloutDesktop *d = rollout_desktop(s->r, i);

        in_hand += d->state == ROLLOUT_ASSIGNING ||
                   d->state == ROLLOUT_RESETTING ||
                   d->state == ROLLOUT_COMING_UP;
    }
    CU_ASSERT_FATAL(!s->o.batch || in_hand <= s->o.batch);
    for (int i = 0; i < ROLLOUT_STATES; i++) {
        sum += rollout_count(s->r, i);
    }
    CU_ASSERT_EQUAL_FATAL(sum, rollout_length(s->r));
}

static void answer_one(Sim *s, gint64 now)
{
    guint k = g_rand_int_range(s->rand, 0, s->begun->len);
    guint i = g_array_index(s->begun, guint, k);
    RolloutAction action = s->actions[i];
    bool bad = g_rand_int_range(s->rand, 0, 6) == 0;

    g_array_remove_index_fast(s->begun, k);
    if (s->lost[rollout_desktop(s->r, i)->host]) {
        rollout_lost(s->r, i, "lost");
    } else if (g_rand_int_range(s->rand, 0, 50) == 0) {
        rollout_unanswered(s->r, i, "hangs");
        s->failures += action != ROLLOUT_RESTORE;
    } else if (action == ROLLOUT_LOOK) {
        rollout_looked(s->r, i, now, !bad);
    } else {
        rollout_answer(s->r, i, now, bad ? "bad" : NULL);
        s->failures += bad && action != ROLLOUT_RESTORE;
    }
}

static void simulate(Sim *s)
{
    gint64 now = 0;

    for (int step = 0; step < 100000; step++) {
        guint i = 0;
        RolloutAction action = rollout_next(s->r, now, &i);

        check(s);
        if (action == ROLLOUT_FINISHED) {
            CU_ASSERT_EQUAL_FATAL(s->begun->len, 0);
            return;
        }
        if (action == ROLLOUT_WAIT) {
            if (s->begun->len) {
                answer_one(s, now);
            } else {
                CU_ASSERT_FATAL(rollout_due(s->r) < G_MAXINT64);
                now = MAX(now, rollout_due(s->r));
            }
            continue;
        }
        CU_ASSERT_FATAL(action == ROLLOUT_RESTORE ||
                        !rollout_went_back(s->r));
        s->actions[i] = action;
        g_array_append_val(s->begun, i);
        if (g_rand_int_range(s->rand, 0, 100) == 0) {
            s->lost[g_rand_int_range(s->rand, 0, 4)] = true;
        }
        if (g_rand_int_range(s->rand, 0, 2)) {
            answer_one(s, now);
        }
        now += g_rand_int_range(s->rand, 0, 30);
    }
    CU_FAIL_FATAL("does not come to its end");
}

static void check_end(Sim *s)
{
    bool back = rollout_went_back(s->r);

    CU_ASSERT_EQUAL_FATAL(rollout_count(s->r, ROLLOUT_WAITING), 0);
    if (s->o.stop_after && s->failures >= s->o.stop_after) {
        CU_ASSERT_FATAL(back);
    }
    if (!s->o.stop_after) {
        CU_ASSERT_FATAL(!back);
    }
    if (back) {
        CU_ASSERT_EQUAL_FATAL(rollout_count(s->r, ROLLOUT_DONE), 0);
    }
    for (guint i = 0; i < rollout_length(s->r); i++) {
        const RolloutDesktop *d = rollout_desktop(s->r, i);

        /* Whoever has the version was told to go back, or is told of */
        if (back && d->took) {
            CU_ASSERT_FATAL(d->state == ROLLOUT_RESTORED ||
                            d->state == ROLLOUT_NOT_RESTORED ||
                            d->state == ROLLOUT_UNKNOWN);
        }
        CU_ASSERT_FATAL(d->state != ROLLOUT_FAILED || d->why);
    }
}

static void test_random(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(6);

    for (int run = 0; run < 3000; run++) {
        Sim s = {
            .rand = rand,
            .o = {
                .batch = g_rand_int_range(rand, 0, 8),
                .stop_after = g_rand_int_range(rand, 0, 5),
                .come_up = g_rand_int_range(rand, 1, 300),
                .look_every = g_rand_int_range(rand, 1, 50),
            },
            .begun = g_array_new(FALSE, FALSE, sizeof(guint)),
        };
        guint n = g_rand_int_range(rand, 0, 64);

        s.r = rollout_new(&s.o);
        for (guint i = 0; i < n; i++) {
            rollout_add(s.r, g_rand_int_range(rand, 0, 4),
                        g_rand_boolean(rand));
        }
        simulate(&s);
        check_end(&s);
        rollout_free(s.r);
        g_array_unref(s.begun);
    }
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "switched off: in batches", test_off },
        { "none", test_empty },
        { "the next batch waits until the last is up", test_watches },
        { "too late is a failure", test_too_late },
        { "goes back past the limit", test_goes_back },
        { "what refused it is left alone", test_refused },
        { "a lost host is no failure", test_lost },
        { "no answer is a failure", test_unanswered },
        { "what hangs already is left alone", test_skip },
        { "interrupted", test_stop },
        { "random answers", test_random },
        CU_TEST_INFO_NULL
    };

    return run_suite("rollout", tests);
}

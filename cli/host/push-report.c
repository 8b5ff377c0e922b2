/*
 * What became of a push
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "push-report.h"

#include "cli/commands.h"

#include <stdio.h>

static const char *host_name(const Push *push, const PushDesktop *d)
{
    return survey_host(push->survey, d->found->host)->name;
}

static void add_desktop(const Push *push, guint i, JsonArray *desktops)
{
    const PushDesktop *d = g_ptr_array_index(push->desktops, i);
    const RolloutDesktop *r = rollout_desktop(push->rollout, i);
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "desktop", d->found->name);
    json_object_set_string_member(o, "host", host_name(push, d));
    json_object_set_string_member(o, "state", rollout_state_text(r->state));
    json_object_set_int_member(o, "version", d->after->wanted.number);
    json_object_set_int_member(o, "before", d->before->wanted.number);
    if (r->why) {
        json_object_set_string_member(o, "reason", r->why);
    }
    json_array_add_object_element(desktops, o);
}

static JsonArray *silent_hosts(const Survey *s)
{
    JsonArray *hosts = json_array_new();

    for (guint i = 0; i < s->hosts->len; i++) {
        const GError *lost = fleet_lost(s->fleet, i);
        const char *why = s->silent[i] ? s->silent[i]
                        : lost ? lost->message : NULL;

        if (why) {
            JsonObject *o = json_object_new();

            json_object_set_string_member(o, "host", survey_host(s, i)->name);
            json_object_set_string_member(o, "reason", why);
            json_array_add_object_element(hosts, o);
        }
    }
    return hosts;
}

static JsonObject *describe(const Push *push, const char *what,
                            const char *catalog)
{
    JsonObject *o = json_object_new();
    JsonArray *desktops = json_array_new();

    for (guint i = 0; i < push->desktops->len; i++) {
        add_desktop(push, i, desktops);
    }
    json_object_set_string_member(o, "command", what);
    json_object_set_string_member(o, "catalog", catalog);
    if (push->version) {
        json_object_set_int_member(o, "version", push->version);
    }
    json_object_set_boolean_member(o, "held", push->held);
    json_object_set_boolean_member(o, "went-back",
                                   rollout_went_back(push->rollout));
    json_object_set_int_member(o, "already", push->already);
    json_object_set_int_member(o, "done",
                               rollout_count(push->rollout, ROLLOUT_DONE));
    json_object_set_array_member(o, "desktops", desktops);
    json_object_set_array_member(o, "lost-hosts", silent_hosts(push->survey));
    return o;
}

/* Names of the desktops in a state, some at least */
static void print_state(const Push *push, RolloutState state, const char *what)
{
    guint count = rollout_count(push->rollout, state), shown = 0;
    const char *why = NULL;

    if (!count) {
        return;
    }
    printf("  %u %s:", count, what);
    for (guint i = 0; i < push->desktops->len && shown < 8; i++) {
        const PushDesktop *d = g_ptr_array_index(push->desktops, i);
        const RolloutDesktop *r = rollout_desktop(push->rollout, i);

        if (r->state == state) {
            printf("%s %s", shown++ ? "," : "", d->found->name);
            why = why ? why : r->why;
        }
    }
    printf("%s%s%s%s\n", shown < count ? ", …" : "", why ? " (" : "",
           why ? why : "", why ? ")" : "");
}

static void print_text(const Push *push, const char *what, const char *catalog)
{
    const Rollout *r = push->rollout;

    printf("%s: %s", catalog, what);
    if (push->version) {
        printf(" of version %" G_GUINT64_FORMAT, push->version);
    }
    printf(": %u of %u desktops done", rollout_count(r, ROLLOUT_DONE),
           push->desktops->len);
    if (push->already) {
        printf(", %u had it already", push->already);
    }
    printf("%s\n", rollout_went_back(r) ? "; it went back" : "");
    print_state(push, ROLLOUT_FAILED, "failed");
    print_state(push, ROLLOUT_RESTORED, "are back on what they had");
    print_state(push, ROLLOUT_NOT_RESTORED, "could not go back");
    print_state(push, ROLLOUT_UNKNOWN, "are not known of");
    print_state(push, ROLLOUT_LEFT, "were left out");
    if (rollout_count(r, ROLLOUT_UNKNOWN) || rollout_count(r, ROLLOUT_LEFT)) {
        printf("The command can be repeated.\n");
    }
}

int push_report(const Push *push, const char *what, const char *catalog,
                bool json, JsonArray *list)
{
    if (list) {
        json_array_add_object_element(list, describe(push, what, catalog));
    } else if (json) {
        command_answer(describe(push, what, catalog));
    } else {
        print_text(push, what, catalog);
    }
    if (rollout_went_back(push->rollout)) {
        return PUSH_WENT_BACK;
    }
    return rollout_count(push->rollout, ROLLOUT_DONE) == push->desktops->len &&
           !survey_silent(push->survey) ? COMMAND_DONE : COMMAND_FAILED;
}

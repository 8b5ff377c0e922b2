/*
 * deskcast selftest: do the programs on this machine work together?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "stories.h"

#include "cli/commands.h"

#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    const Step *steps;
} stories[] = {
    { "mcs", mcs_story },
    { "pvs", pvs_story },
};

typedef struct Selftest {
    Lab *lab;
    bool json;
    JsonArray *steps;
    unsigned done, failed, skipped;
} Selftest;

static void note(Selftest *t, const char *story, const Step *step,
                 const char *result, gint64 ms, const GError *error)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "story", story);
    json_object_set_string_member(o, "step", step->text);
    json_object_set_string_member(o, "result", result);
    json_object_set_int_member(o, "ms", ms);
    if (error) {
        json_object_set_string_member(o, "error", error->message);
    }
    json_array_add_object_element(t->steps, o);
    if (!t->json) {
        printf("%-4s  %-7s  %s (%.1f s)\n", story, result, step->text,
               ms / 1000.0);
        if (error) {
            printf("               %s\n", error->message);
        }
        fflush(stdout);
    }
}

/* Steps build on each other: after one that failed the others are skipped */
static void tell(Selftest *t, const char *name, const Step *step)
{
    bool well = true;

    for (; step->text; step++) {
        g_autoptr(GError) error = NULL;
        gint64 began = g_get_monotonic_time();
        const char *result = "ok";

        if (!well) {
            t->skipped++;
            result = "skipped";
        } else if (step->run(t->lab, &error)) {
            t->done++;
        } else {
            t->failed++;
            well = false;
            result = "failed";
        }
        note(t, name, step, result,
             (g_get_monotonic_time() - began) / 1000, error);
    }
}

static int finish(Selftest *t, gint64 began, bool keep)
{
    double seconds = (g_get_monotonic_time() - began) / 1e6;

    if (t->json) {
        JsonObject *o = json_object_new();

        json_object_set_array_member(o, "steps", t->steps);
        json_object_set_int_member(o, "done", t->done);
        json_object_set_int_member(o, "failed", t->failed);
        json_object_set_int_member(o, "skipped", t->skipped);
        json_object_set_double_member(o, "seconds", seconds);
        if (keep) {
            json_object_set_string_member(o, "folder", t->lab->folder);
        }
        command_answer(o);
    } else {
        json_array_unref(t->steps);
        printf("%u steps done, %u failed, %u skipped, in %.1f s\n", t->done,
               t->failed, t->skipped, seconds);
        if (keep) {
            printf("Its files, and what its services said: %s\n",
                   t->lab->folder);
        }
    }
    return t->failed ? COMMAND_FAILED : COMMAND_DONE;
}

/* All of them, or the one that is @only */
static void tell_stories(Selftest *t, const char *only)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(stories); i++) {
        if (!only || !strcmp(only, stories[i].name)) {
            tell(t, stories[i].name, stories[i].steps);
        }
    }
}

static bool is_story(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(stories); i++) {
        if (!strcmp(name, stories[i].name)) {
            return true;
        }
    }
    fprintf(stderr, "deskcast: '%s' is neither mcs nor pvs\n", name);
    return false;
}

int command_selftest(int argc, char **argv)
{
    g_autofree char *folder = NULL;
    gboolean json = FALSE, keep = FALSE;
    GOptionEntry entries[] = {
        { "folder", 'd', 0, G_OPTION_ARG_FILENAME, &folder,
          "Work in a new folder below this one (default: $TMPDIR, or /tmp)",
          "DIR" },
        { "keep", 'k', 0, G_OPTION_ARG_NONE, &keep,
          "Leave the files", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Answer in JSON", NULL },
        { NULL }
    };
    gint64 began = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;
    Selftest t = {};
    int status;

    if (!command_parse("[mcs|pvs] - see that deskcast and its QEMU work on "
                       "this machine", entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc > 2) {
        fprintf(stderr, "deskcast: '%s' is too much\n", argv[2]);
        return COMMAND_USAGE;
    }
    if (argc > 1 && !is_story(argv[1])) {
        return COMMAND_USAGE;
    }
    t.json = json;
    t.lab = lab_new(folder, &error);
    if (!t.lab) {
        return command_fail(json, error);
    }
    t.steps = json_array_new();
    tell_stories(&t, argc > 1 ? argv[1] : NULL);
    status = finish(&t, began, keep);
    lab_free(t.lab, keep);
    return status;
}

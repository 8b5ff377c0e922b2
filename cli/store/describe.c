/*
 * Versions and vDisks, for people and machines
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/describe.h"
#include "cli/json-strict.h"
#include "cli/units.h"

#include <stdio.h>
#include <sys/stat.h>

static Version *nth(const Manifest *m, guint i)
{
    return g_ptr_array_index(m->versions, i);
}

static void set_time(JsonObject *o, const char *name, int64_t t)
{
    g_autofree char *text = units_format_time(t);

    if (t) {
        json_object_set_string_member(o, name, text);
    }
}

JsonObject *describe_version(const Manifest *m, const Version *v, int64_t now)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "vdisk", m->vdisk);
    json_object_set_int_member(o, "version", v->number);
    json_object_set_string_member(o, "access", version_access_text(v->access));
    json_object_set_boolean_member(o, "current",
                                   v == manifest_current(m, now));
    json_object_set_int_member(o, "parent", v->parent);
    json_object_set_int_member(o, "size", v->size);
    json_object_set_boolean_member(o, "label", v->label);
    json_object_set_string_member(o, "image", v->image);
    json_object_set_string_member(o, "format", v->format);
    if (v->tree) {
        g_autofree char *root = version_root_text(v);

        json_object_set_string_member(o, "tree", v->tree);
        json_object_set_string_member(o, "root", root);
    }
    if (v->trace) {
        json_object_set_string_member(o, "trace", v->trace);
    }
    set_time(o, "created", v->created);
    set_time(o, "sealed", v->sealed);
    set_time(o, "released", v->released);
    set_time(o, "failed", v->failed);
    if (v->comment) {
        json_object_set_string_member(o, "comment", v->comment);
    }
    return o;
}

uint64_t describe_allocated(const Store *s, const Manifest *m,
                            const Version *v)
{
    g_autofree char *path = store_path(s, m->vdisk, v->image);
    struct stat st;

    return !store_on_rbd(s) && stat(path, &st) == 0
        ? (uint64_t)st.st_blocks * 512 : 0;
}

JsonObject *describe_vdisk(const Store *s, const Manifest *m, int64_t now,
                           bool all)
{
    const Version *current = manifest_current(m, now);
    const Version *last = m->versions->len ? nth(m, m->versions->len - 1)
                                           : NULL;
    JsonObject *o = json_object_new();
    JsonArray *list = json_array_new();
    uint64_t allocated = 0;

    for (guint i = 0; i < m->versions->len; i++) {
        const Version *v = nth(m, i);

        allocated += describe_allocated(s, m, v);
        if (all) {
            json_array_add_object_element(list, describe_version(m, v, now));
        } else {
            json_array_add_int_element(list, v->number);
        }
    }
    json_object_set_string_member(o, "vdisk", m->vdisk);
    json_object_set_string_member(o, "uuid", m->uuid);
    json_object_set_int_member(o, "revision", m->revision);
    json_object_set_int_member(o, "size", last ? last->size : 0);
    json_object_set_int_member(o, "allocated", allocated);
    json_object_set_int_member(o, "current", current ? current->number : 0);
    json_object_set_array_member(o, "versions", list);
    return o;
}

char *describe_access(const Manifest *m, const Version *v, int64_t now)
{
    g_autofree char *when = units_format_local(v->released);

    if (v->failed) {
        return g_strdup_printf("%s, damaged", version_access_text(v->access));
    }
    if (v == manifest_current(m, now)) {
        return g_strdup("production, current");
    }
    if (v->access == ACCESS_PRODUCTION && v->released > now) {
        return g_strdup_printf("production from %s", when);
    }
    return g_strdup(version_access_text(v->access));
}

void describe_print(const Store *s, const Manifest *m, int64_t now)
{
    printf("%-8s %-7s %10s %10s  %-16s  %s\n", "VERSION", "PARENT", "SIZE",
           "ON DISK", "SEALED", "ACCESS");
    for (guint i = 0; i < m->versions->len; i++) {
        const Version *v = nth(m, i);
        g_autofree char *size = units_format_size(v->size);
        g_autofree char *disk = units_format_size(describe_allocated(s, m, v));
        g_autofree char *sealed = v->sealed ? units_format_local(v->sealed)
                                            : g_strdup("-");
        g_autofree char *access = describe_access(m, v, now);
        g_autofree char *parent = v->parent
            ? g_strdup_printf("%" PRIu64, v->parent) : g_strdup("-");

        printf("%-8" PRIu64 " %-7s %10s %10s  %-16s  %s%s%s\n", v->number,
               parent, size, store_on_rbd(s) ? "-" : disk, sealed, access,
               v->comment ? ": " : "", v->comment ? v->comment : "");
    }
}

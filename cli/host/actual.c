/*
 * What a desktop's disk really runs on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "actual.h"

#include <errno.h>
#include <json-glib/json-glib.h>
#include <string.h>

#define ANSWER_MAX_BYTES    (16 << 20)

void actual_clear(Actual *a)
{
    g_free(a->image);
    g_free(a->assigned_image);
    *a = (Actual){ 0 };
}

/* .../NAME/12.qcow2 is version 12 of NAME, as stores name them */
static uint64_t number_in_name(const char *image, const char *vdisk)
{
    g_autofree char *folder = g_path_get_dirname(image);
    g_autofree char *parent = g_path_get_basename(folder);
    g_autofree char *name = g_path_get_basename(image);
    uint64_t number;
    char *end;

    if (g_strcmp0(parent, vdisk) || !g_ascii_isdigit(name[0])) {
        return 0;
    }
    errno = 0;
    number = g_ascii_strtoull(name, &end, 10);
    return errno || *end != '.' ? 0 : number;
}

static uint64_t number_of(const char *image, const DesktopMetadata *d)
{
    if (!image) {
        return 0;
    }
    if (!g_strcmp0(image, d->wanted.image)) {
        return d->wanted.number;
    }
    if (!g_strcmp0(image, d->previous.image)) {
        return d->previous.number;
    }
    return number_in_name(image, d->vdisk);
}

/* NULL if it is not there or is something else */
static JsonObject *get_object(JsonObject *o, const char *name)
{
    JsonNode *node = json_object_get_member(o, name);

    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node)
                                                : NULL;
}

static uint64_t get_number(JsonObject *o, const char *name)
{
    JsonNode *node = json_object_get_member(o, name);

    return node && JSON_NODE_HOLDS_VALUE(node) &&
           json_node_get_value_type(node) == G_TYPE_INT64
           ? json_node_get_int(node) : 0;
}

static const char *get_text(JsonObject *o, const char *name)
{
    JsonNode *node = json_object_get_member(o, name);

    return node && JSON_NODE_HOLDS_VALUE(node) &&
           json_node_get_value_type(node) == G_TYPE_STRING
           ? json_node_get_string(node) : NULL;
}

static JsonObject *find_node(JsonNode *root, const char *name)
{
    JsonObject *answer = root && JSON_NODE_HOLDS_OBJECT(root)
                         ? json_node_get_object(root) : NULL;
    JsonNode *list = answer ? json_object_get_member(answer, "return") : NULL;
    JsonArray *disks = list && JSON_NODE_HOLDS_ARRAY(list)
                       ? json_node_get_array(list) : NULL;

    for (guint i = 0; disks && i < json_array_get_length(disks); i++) {
        JsonNode *disk = json_array_get_element(disks, i);

        if (JSON_NODE_HOLDS_OBJECT(disk) &&
            !g_strcmp0(get_text(json_node_get_object(disk), "node-name"),
                       name)) {
            return json_node_get_object(disk);
        }
    }
    return NULL;
}

static char *image_of(JsonObject *disk, const char *member)
{
    JsonObject *image = get_object(disk, member);

    return image ? g_strdup(get_text(image, "filename")) : NULL;
}

static void read_pvs(Actual *a, JsonObject *disk, JsonObject *pvs)
{
    JsonObject *budget = get_object(pvs, "budget");
    JsonNode *stops = json_object_get_member(pvs, "stops-on-error");

    a->version = get_number(pvs, "version");
    a->assigned = get_number(pvs, "assigned-version");
    a->size = get_number(disk, "virtual-size");
    a->in_outage = json_object_has_member(pvs, "outage-ms");
    a->outage_ms = get_number(pvs, "outage-ms");
    a->unprotected = stops && JSON_NODE_HOLDS_VALUE(stops) &&
                     json_node_get_value_type(stops) == G_TYPE_BOOLEAN &&
                     !json_node_get_boolean(stops);
    if (budget) {
        a->has_budget = true;
        a->local_bytes = get_number(budget, "local-bytes");
        a->has_boot = json_object_has_member(budget, "boot-bytes");
        a->boot_bytes = get_number(budget, "boot-bytes");
        a->boot_local_bytes = get_number(budget, "boot-local-bytes");
    }
}

static void read_disk(Actual *a, JsonObject *disk, const DesktopMetadata *d)
{
    JsonObject *pvs = get_object(disk, "pvs");

    a->known = true;
    a->resets = get_number(disk, "resets");
    if (pvs) {
        read_pvs(a, disk, pvs);
        return;
    }
    a->image = image_of(disk, "image");
    a->assigned_image = image_of(disk, "assigned");
    a->version = number_of(a->image, d);
    a->assigned = number_of(a->assigned_image, d);
}

bool actual_from_qmp(Actual *a, const char *json, const DesktopMetadata *d,
                     GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    size_t length = strnlen(json, ANSWER_MAX_BYTES + 1);
    JsonObject *disk;

    actual_clear(a);
    if (length > ANSWER_MAX_BYTES) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "an answer of more than %d MiB", ANSWER_MAX_BYTES >> 20);
        return false;
    }
    if (!json_parser_load_from_data(parser, json, length, error)) {
        return false;
    }
    disk = find_node(json_parser_get_root(parser), d->node);
    if (!disk) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "its QEMU has no vDisk '%s'", d->node);
        return false;
    }
    read_disk(a, disk, d);
    return true;
}

void actual_from_header(Actual *a, const VdiskHeader *h,
                        const DesktopMetadata *d)
{
    actual_clear(a);
    a->known = true;
    if (h->role == VDISK_ROLE_MCS) {
        a->image = g_strdup(h->base.name);
        a->assigned_image = h->assigned.name[0] ? g_strdup(h->assigned.name)
                                                : NULL;
        a->version = number_of(a->image, d);
        a->assigned = number_of(a->assigned_image, d);
    } else {
        a->version = h->base.version;
        a->assigned = h->assigned.version;
    }
}

bool actual_is(const Actual *a, const DesktopMetadata *d,
               const WantedVersion *w)
{
    if (!a->known || !w->number) {
        return false;
    }
    return d->model == MODEL_MCS ? !g_strcmp0(a->image, w->image)
                                 : a->version == w->number;
}

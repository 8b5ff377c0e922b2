/*
 * What a desktop's disk really runs on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "actual.h"

#include "cli/json-member.h"
#include "cli/json-read.h"

#include <errno.h>
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
    uint64_t version;
    char *end;

    if (g_strcmp0(parent, vdisk) || !g_ascii_isdigit(name[0])) {
        return 0;
    }
    errno = 0;
    version = g_ascii_strtoull(name, &end, 10);
    return errno || *end != '.' ? 0 : version;
}

uint64_t actual_number_of(const char *image, const DesktopMetadata *d)
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

static uint64_t number(JsonObject *o, const char *name)
{
    int64_t value = 0;

    return member_int(o, name, &value) && value > 0 ? value : 0;
}

static JsonObject *find_node(JsonNode *root, const char *name)
{
    JsonObject *answer = root && JSON_NODE_HOLDS_OBJECT(root)
                         ? json_node_get_object(root) : NULL;
    JsonArray *disks = member_array(answer, "return");

    for (guint i = 0; disks && i < json_array_get_length(disks); i++) {
        JsonObject *disk = element_object(disks, i);

        if (!g_strcmp0(member_string(disk, "node-name"), name)) {
            return disk;
        }
    }
    return NULL;
}

static char *image_of(JsonObject *disk, const char *member)
{
    return g_strdup(member_string(member_object(disk, member), "filename"));
}

static void read_pvs(Actual *a, JsonObject *disk, JsonObject *pvs)
{
    JsonObject *budget = member_object(pvs, "budget");
    bool stops = true;

    a->version = number(pvs, "version");
    a->assigned = number(pvs, "assigned-version");
    a->size = number(disk, "virtual-size");
    a->in_outage = json_object_has_member(pvs, "outage-ms");
    a->outage_ms = number(pvs, "outage-ms");
    a->denied_ms = number(pvs, "denied-ms");
    member_bool(pvs, "stops-on-error", &stops);
    a->unprotected = !stops;
    if (budget) {
        a->has_budget = true;
        a->local_bytes = number(budget, "local-bytes");
        a->has_boot = json_object_has_member(budget, "boot-bytes");
        a->boot_bytes = number(budget, "boot-bytes");
        a->boot_local_bytes = number(budget, "boot-local-bytes");
    }
}

static void read_disk(Actual *a, JsonObject *disk, const DesktopMetadata *d)
{
    JsonObject *pvs = member_object(disk, "pvs");

    a->known = true;
    a->resets = number(disk, "resets");
    if (pvs) {
        read_pvs(a, disk, pvs);
        return;
    }
    a->image = image_of(disk, "image");
    a->assigned_image = image_of(disk, "assigned");
    a->version = actual_number_of(a->image, d);
    a->assigned = actual_number_of(a->assigned_image, d);
}

bool actual_from_qmp(Actual *a, const char *json, const DesktopMetadata *d,
                     GError **error)
{
    g_autoptr(JsonNode) root = NULL;
    size_t length = strnlen(json, ANSWER_MAX_BYTES + 1);
    JsonObject *disk;

    actual_clear(a);
    if (length > ANSWER_MAX_BYTES) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "an answer of more than %d MiB", ANSWER_MAX_BYTES >> 20);
        return false;
    }
    root = json_read(json, length, error);
    if (!root) {
        return false;
    }
    disk = find_node(root, d->node);
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
        a->version = actual_number_of(a->image, d);
        a->assigned = actual_number_of(a->assigned_image, d);
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

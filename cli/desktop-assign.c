/*
 * deskcast desktop assign: push an image to powered-off desktops
 *
 * One process for any number of desktops: a push to a thousand of them is a
 * thousand header updates, and starting a QEMU tool costs more than one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "audit.h"
#include "commands.h"
#include "disk-commands.h"
#include "image-info.h"
#include "layer-file.h"

#include <json-glib/json-glib.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Assign {
    /* From the command line */
    const char *image;          /* absolute */
    const char *format;         /* NULL: that of each desktop's own image */

    /* Of the image, by the format it was looked at with */
    char *checked_format;
    uint64_t size;
    struct stat st;
} Assign;

/* Once for each format: nearly always once */
static bool check_image(Assign *a, const char *format, GError **error)
{
    g_autofree char *why = NULL;

    if (g_strcmp0(a->checked_format, format) == 0) {
        return true;
    }
    if (!vdisk_image_name_valid(a->image, format, &why)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "cannot assign '%s': %s", a->image, why);
        return false;
    }
    if (!image_virtual_size(a->image, format, &a->size, error)) {
        return false;
    }
    g_free(a->checked_format);
    a->checked_format = g_strdup(format);
    return true;
}

static bool check_fits(Assign *a, const LayerFile *file, GError **error)
{
    const VdiskHeader *h = &file->header;
    const char *bad = NULL;

    if (h->lifetime != VDISK_POOLED) {
        bad = "dedicated: what it keeps belongs to the image it was written "
              "over";
    } else if (a->st.st_dev == file->device && a->st.st_ino == file->inode) {
        bad = "is the image itself";
    } else if (a->size < h->virtual_size) {
        bad = "larger than the image, and a disk cannot shrink";
    } else if (a->size > vdisk_header_max_size(h) || a->size % 512) {
        bad = "has no room for a disk as large as the image";
    }
    if (bad) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                            bad);
    }
    return !bad;
}

static bool assign_one(Assign *a, const char *path, GError **error)
{
    g_autoptr(LayerFile) file = layer_file_open(path, error);
    const char *format;
    VdiskHeader h;

    if (!file) {
        return false;
    }
    if (file->header.role != VDISK_ROLE_MCS) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                            "belongs to the driver 'pvs', which takes versions "
                            "of a vDisk and not images");
        return false;
    }
    format = a->format ? a->format : file->header.base.format;
    if (!check_image(a, format, error) || !check_fits(a, file, error)) {
        return false;
    }
    h = file->header;
    memset(&h.assigned, 0, sizeof(h.assigned));
    g_strlcpy(h.assigned.name, a->image, sizeof(h.assigned.name));
    g_strlcpy(h.assigned.format, format, sizeof(h.assigned.format));
    h.assigned.size = a->size;
    return layer_file_set_header(file, &h, error);
}

static void progress(int done, int all)
{
    if (isatty(STDERR_FILENO) && (done % 16 == 0 || done == all)) {
        fprintf(stderr, "\r%d of %d desktops%s", done, all,
                done == all ? "\n" : "");
    }
}

static void print_json(const Assign *a, int all, JsonArray *failures)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *text = NULL;
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "image", a->image);
    json_object_set_int_member(object, "desktops", all);
    json_object_set_int_member(object, "assigned",
                               all - (int)json_array_get_length(failures));
    json_object_set_array_member(object, "failed", json_array_ref(failures));
    json_node_take_object(root, object);
    json_generator_set_root(generator, root);
    text = json_generator_to_data(generator, NULL);
    printf("%s\n", text);
}

static JsonArray *assign_all(Assign *a, char **files, int all, bool json)
{
    JsonArray *failures = json_array_new();

    for (int i = 0; i < all; i++) {
        g_autoptr(GError) error = NULL;
        JsonObject *failure;

        if (!assign_one(a, files[i], &error)) {
            failure = json_object_new();
            json_object_set_string_member(failure, "file", files[i]);
            json_object_set_string_member(failure, "reason", error->message);
            json_array_add_object_element(failures, failure);
            if (!json) {
                fprintf(stderr, "%s: %s\n", files[i], error->message);
            }
        }
        if (!json) {
            progress(i + 1, all);
        }
    }
    return failures;
}

int command_desktop_assign(int argc, char **argv)
{
    g_autofree char *image = NULL, *format = NULL, *absolute = NULL;
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        { "image", 'i', 0, G_OPTION_ARG_FILENAME, &image,
          "The image that the desktops take when they are next reset",
          "IMAGE" },
        { "format", 'f', 0, G_OPTION_ARG_STRING, &format,
          "Its format (default: that of the image a desktop has now)",
          "FORMAT" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Answer in JSON", NULL },
        { NULL }
    };
    g_autoptr(JsonArray) failures = NULL;
    Assign a = {};
    int all, failed;

    if (!command_parse("FILE… - assign an image to powered-off pooled desktops",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (!image || argc < 2) {
        fprintf(stderr, "deskcast: give an --image and the desktops' files\n");
        return COMMAND_USAGE;
    }
    absolute = g_canonicalize_filename(image, NULL);
    if (stat(absolute, &a.st) < 0) {
        g_autoptr(GError) error = g_error_new(
            G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "there is no image '%s'",
            absolute);

        return command_fail(json, error);
    }
    a.image = absolute;
    a.format = format;
    all = argc - 1;
    failures = assign_all(&a, argv + 1, all, json);
    failed = json_array_get_length(failures);
    if (failed < all) {
        audit("desktop assign", NULL, 0, "%s to %d of %d desktops", absolute,
              all - failed, all);
    }
    if (json) {
        print_json(&a, all, failures);
    } else {
        printf("%s: assigned to %d of %d desktops\n", absolute, all - failed,
               all);
    }
    g_free(a.checked_format);
    return failed ? COMMAND_FAILED : COMMAND_DONE;
}

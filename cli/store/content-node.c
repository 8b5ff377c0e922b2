/*
 * Blockdev definitions of images
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "content-int.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Does the file system, tmpfs for one, know O_DIRECT? */
static bool can_direct(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

    if (fd < 0) {
        return errno != EINVAL;
    }
    close(fd);
    return true;
}

JsonObject *content_file_node(const char *path, bool direct)
{
    JsonObject *node = json_object_new();
    struct stat st;
    bool device = stat(path, &st) == 0 && S_ISBLK(st.st_mode);

    json_object_set_string_member(node, "driver",
                                  device ? "host_device" : "file");
    json_object_set_string_member(node, "filename", path);
    if (direct && can_direct(path)) {
        JsonObject *cache = json_object_new();

        json_object_set_boolean_member(cache, "direct", true);
        json_object_set_object_member(node, "cache", cache);
    }
    return node;
}

static bool has_backing(const char *format)
{
    return g_str_equal(format, "qcow2") || g_str_equal(format, "vmdk");
}

JsonObject *content_format_node(const char *format, JsonObject *protocol,
                                JsonObject *backing)
{
    JsonObject *node = json_object_new();

    json_object_set_string_member(node, "driver", format);
    json_object_set_object_member(node, "file", protocol);
    if (backing) {
        json_object_set_object_member(node, "backing", backing);
    } else if (has_backing(format)) {
        json_object_set_null_member(node, "backing");
    }
    return node;
}

char *content_node_text(JsonObject *definition)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    json_node_set_object(node, definition);
    return json_to_string(node, false);
}

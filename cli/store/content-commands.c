/*
 * Commands on what is in the store's versions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/audit.h"
#include "cli/commands.h"
#include "cli/store/command-util.h"
#include "cli/store/content.h"
#include "cli/store/content-commands.h"
#include "cli/store/export.h"
#include "cli/store/import.h"
#include "cli/store/source-check.h"
#include "cli/store/tree-file.h"
#include "cli/store/verify.h"
#include "cli/store/version.h"
#include "cli/units.h"
#include "block/vdisk/header.h"

#include <stdio.h>
#include <string.h>

int content_usage(const char *text)
{
    fprintf(stderr, "deskcast: %s\n", text);
    return COMMAND_USAGE;
}

void content_print_json(JsonBuilder *b)
{
    g_autoptr(JsonNode) root = json_builder_get_root(b);
    g_autofree char *text = json_to_string(root, true);

    puts(text);
}

/* NULL with @error if it is not there, or not sealed */
static Version *sealed_version(const Manifest *m, uint64_t number,
                               GError **error)
{
    Version *v = manifest_version(m, number);

    if (!v || !version_sealed(v)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    v ? "version %" PRIu64 " of '%s' is in maintenance: seal "
                    "it first" : "there is no version %" PRIu64 " of '%s'",
                    number, m->vdisk);
        return NULL;
    }
    return v;
}

static bool check_name(const char *vdisk)
{
    g_autofree char *why = NULL;

    if (vdisk_name_valid(vdisk, &why)) {
        return true;
    }
    fprintf(stderr, "deskcast: %s\n", why);
    return false;
}

static bool parse_version(const char *text, uint64_t *number)
{
    guint64 n;

    if (!g_ascii_string_to_unsigned(text, 10, 1, MANIFEST_MAX_NUMBER, &n,
                                    NULL)) {
        fprintf(stderr, "deskcast: '%s' is not the number of a version\n",
                text);
        return false;
    }
    *number = n;
    return true;
}

/* An object about a version; @vdisk NULL, @number 0: not known which */
static void begin_version(JsonBuilder *b, const char *vdisk, uint64_t number)
{
    json_builder_begin_object(b);
    if (vdisk) {
        json_builder_set_member_name(b, "vdisk");
        json_builder_add_string_value(b, vdisk);
    }
    if (number) {
        json_builder_set_member_name(b, "version");
        json_builder_add_int_value(b, number);
    }
}

static void print_imported(const Manifest *m, const Version *v, bool json)
{
    g_autofree char *root = version_root_text(v);
    g_autofree char *size = units_format_size(v->size);
    g_autoptr(JsonBuilder) b = NULL;

    if (!json) {
        printf("%s: version %" PRIu64 ", %s, root hash %s, in %s\n", m->vdisk,
               v->number, size, root, version_access_text(v->access));
        return;
    }
    b = json_builder_new();
    begin_version(b, m->vdisk, v->number);
    json_builder_set_member_name(b, "size");
    json_builder_add_int_value(b, v->size);
    json_builder_set_member_name(b, "root");
    json_builder_add_string_value(b, root);
    json_builder_end_object(b);
    content_print_json(b);
}

static int vdisk_import(int argc, char **argv)
{
    g_auto(StoreOptions) o = {};
    g_autofree char *format = NULL, *comment = NULL;
    GOptionEntry entries[] = {
        STORE_OPTION(o),
        { "format", 'f', 0, G_OPTION_ARG_STRING, &format,
          "raw, qcow2, vpc (VHD), vhdx, vmdk or vdi; else by the name's suffix",
          "FORMAT" },
        { "comment", 0, 0, G_OPTION_ARG_STRING, &comment, "what it is",
          "TEXT" },
        JSON_OPTION(o),
        {}
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(Source) source = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Manifest) m = NULL;

    if (!command_parse("SOURCE NAME - bring an image into the store", entries,
                       &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 3) {
        return content_usage("a source and a name for the vDisk are needed");
    }
    if (!check_name(argv[2])) {
        return COMMAND_USAGE;
    }
    source = source_new(argv[1], format, &error);
    store = source ? store_from(&o, STORE_CHANGE, &error) : NULL;
    m = store ? store_import(store, source, argv[2], comment, o.json, &error)
              : NULL;
    if (!m) {
        return command_error(&o, error);
    }
    audit("vdisk import", m->vdisk, 1, "from %s", argv[1]);
    print_imported(m, manifest_newest(m), o.json);
    return COMMAND_DONE;
}

static void print_ranges(GArray *ranges, const char *what)
{
    for (unsigned i = 0; i < ranges->len; i++) {
        const VerifyRange *r = &g_array_index(ranges, VerifyRange, i);

        printf("  %s: bytes %" PRIu64 " to %" PRIu64 "%s%s\n", what, r->offset,
               r->offset + r->bytes - 1, r->file ? " in " : "",
               r->file ? r->file : "");
    }
}

static void print_verification(const Manifest *m, const Version *v,
                               const Verification *r)
{
    printf("%s version %" PRIu64 ": %s\n", m->vdisk, v->number,
           r->content && r->tree ? "as it was sealed" :
           r->content ? "as it was sealed, but its tree is damaged" :
           "DAMAGED");
    print_ranges(r->bad, "not what was sealed");
    print_ranges(r->unknown, "perhaps not what was sealed");
    print_ranges(r->bad_tree, "damage of the tree");
    if (r->tree_why) {
        printf("  the tree: %s\n", r->tree_why);
    }
}

static void add_ranges(JsonBuilder *b, const char *name, GArray *ranges)
{
    json_builder_set_member_name(b, name);
    json_builder_begin_array(b);
    for (unsigned i = 0; i < ranges->len; i++) {
        const VerifyRange *r = &g_array_index(ranges, VerifyRange, i);

        json_builder_begin_object(b);
        json_builder_set_member_name(b, "offset");
        json_builder_add_int_value(b, r->offset);
        json_builder_set_member_name(b, "bytes");
        json_builder_add_int_value(b, r->bytes);
        if (r->file) {
            json_builder_set_member_name(b, "file");
            json_builder_add_string_value(b, r->file);
        }
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
}

static void add_verification(JsonBuilder *b, const Manifest *m,
                             const Version *v, const Verification *r)
{
    begin_version(b, m->vdisk, v->number);
    json_builder_set_member_name(b, "content");
    json_builder_add_boolean_value(b, r->content);
    json_builder_set_member_name(b, "tree");
    json_builder_add_boolean_value(b, r->tree);
    add_ranges(b, "bad", r->bad);
    add_ranges(b, "unknown", r->unknown);
    add_ranges(b, "bad-tree", r->bad_tree);
    json_builder_end_object(b);
}

/* A version that is not what it was must not be promoted: note it */
static bool note_failed(const StoreOptions *o, const char *vdisk,
                        uint64_t number, bool failed, GError **error)
{
    g_autoptr(Store) s = store_from(o, STORE_CHANGE, error);
    g_autoptr(Manifest) m = s ? store_manifest(s, vdisk, error) : NULL;

    if (!m || !store_version_set_failed(s, m, number, failed, error)) {
        return false;
    }
    audit("vdisk verify", vdisk, number, "%s@%" PRIu64 " %s", vdisk, number,
          failed ? "is damaged, and marked so"
                 : "is as it was sealed, and not marked any more");
    return true;
}

typedef struct VerifyRun {
    const StoreOptions *options;
    Store *store;
    JsonBuilder *json;          /* or NULL */
    bool damaged, failed;
} VerifyRun;

/* @number: a version, or 0 */
static void cannot_verify(VerifyRun *run, const char *vdisk, uint64_t number,
                          const GError *error)
{
    run->failed = true;
    command_fail(false, error);
    if (!run->json) {
        return;
    }
    begin_version(run->json, vdisk, number);
    json_builder_set_member_name(run->json, "error");
    json_builder_add_string_value(run->json, error->message);
    json_builder_end_object(run->json);
}

static void verify_version(VerifyRun *run, const Manifest *m, const Version *v)
{
    g_autofree char *what = g_strdup_printf("verifying %s version %" PRIu64,
                                            m->vdisk, v->number);
    g_autoptr(Progress) progress = progress_new(what, v->size, true,
                                                run->json != NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(Verification) r = store_verify(run->store, m, v, progress,
                                             &error);
    bool failed;

    if (!r) {
        cannot_verify(run, m->vdisk, v->number, error);
        return;
    }
    progress_done(progress);
    g_clear_pointer(&progress, progress_free);
    if (run->json) {
        add_verification(run->json, m, v, r);
    } else {
        print_verification(m, v, r);
    }
    failed = !r->content || !r->tree;
    run->damaged |= failed;
    if (failed != (v->failed != 0) &&
        !note_failed(run->options, m->vdisk, v->number, failed, &error)) {
        cannot_verify(run, m->vdisk, v->number, error);
    }
}

/* @number: a version, or 0 for all of them */
static void verify_vdisk(VerifyRun *run, const char *vdisk, uint64_t number)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Manifest) m = store_manifest(run->store, vdisk, &error);
    Version *one = m && number ? sealed_version(m, number, &error) : NULL;

    if (error) {
        cannot_verify(run, vdisk, number, error);
        return;
    }
    /* There is an error without one: NOLINTNEXTLINE(*.NullDereference) */
    for (unsigned i = 0; !one && i < m->versions->len; i++) {
        Version *v = g_ptr_array_index(m->versions, i);

        if (version_sealed(v)) {
            verify_version(run, m, v);
        }
    }
    if (one) {
        verify_version(run, m, one);
    }
}

static void verify_all(VerifyRun *run)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) names = store_vdisks(run->store, &error);

    if (!names) {
        cannot_verify(run, NULL, 0, error);
        return;
    }
    for (char **name = names; *name; name++) {
        verify_vdisk(run, *name, 0);
    }
}

static int vdisk_verify(int argc, char **argv)
{
    g_auto(StoreOptions) o = {};
    GOptionEntry entries[] = { STORE_OPTION(o), JSON_OPTION(o), {} };
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(JsonBuilder) b = NULL;
    g_autofree char *vdisk = NULL;
    VerifyRun run = { .options = &o };
    uint64_t number = 0;

    if (!command_parse("[NAME [VERSION]] - compare versions with their trees",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc > 1 && !version_arguments(argc, argv, &vdisk, &number, &error)) {
        return content_usage(error->message);
    }
    run.store = store = store_from(&o, STORE_READ, &error);
    if (!store) {
        return command_error(&o, error);
    }
    if (o.json) {
        run.json = b = json_builder_new();
        json_builder_begin_object(b);
        json_builder_set_member_name(b, "versions");
        json_builder_begin_array(b);
    }
    if (vdisk) {
        verify_vdisk(&run, vdisk, number);
    } else {
        verify_all(&run);
    }
    if (o.json) {
        json_builder_end_array(b);
        json_builder_end_object(b);
        content_print_json(b);
    }
    return run.damaged || run.failed ? COMMAND_FAILED : COMMAND_DONE;
}

static void print_exported(const Manifest *m, const Version *v,
                           const char *file, const char *format, bool json)
{
    g_autoptr(JsonBuilder) b = json_builder_new();

    if (!json) {
        printf("%s: version %" PRIu64 " of '%s', as %s\n", file, v->number,
               m->vdisk, format);
        return;
    }
    begin_version(b, m->vdisk, v->number);
    json_builder_set_member_name(b, "file");
    json_builder_add_string_value(b, file);
    json_builder_set_member_name(b, "format");
    json_builder_add_string_value(b, format);
    json_builder_end_object(b);
    content_print_json(b);
}

static int vdisk_export(int argc, char **argv)
{
    g_auto(StoreOptions) o = {};
    g_autofree char *given = NULL;
    gboolean force = false;
    GOptionEntry entries[] = {
        STORE_OPTION(o),
        { "format", 'f', 0, G_OPTION_ARG_STRING, &given,
          "raw, qcow2, vpc (VHD), vhdx, vmdk or vdi; else by the name's suffix",
          "FORMAT" },
        { "force", 0, 0, G_OPTION_ARG_NONE, &force, "replace FILE", NULL },
        JSON_OPTION(o),
        {}
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Manifest) m = NULL;
    const char *format;
    uint64_t number;
    Version *v;

    if (!command_parse("NAME VERSION FILE - take a version out of the store",
                       entries, &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 4) {
        return content_usage("a vDisk, a version and a file are needed");
    }
    format = given ? source_format_known(given) : source_format_of_name(argv[3]);
    if (!format) {
        return content_usage("no format is known by that name; see --format");
    }
    if (!check_name(argv[1]) || !parse_version(argv[2], &number)) {
        return COMMAND_USAGE;
    }
    store = store_from(&o, STORE_READ, &error);
    m = store ? store_manifest(store, argv[1], &error) : NULL;
    v = m ? sealed_version(m, number, &error) : NULL;
    if (!v || !store_export(store, m, v, argv[3], format, force, o.json,
                            &error)) {
        return command_error(&o, error);
    }
    print_exported(m, v, argv[3], format, o.json);
    return COMMAND_DONE;
}

static void print_diff(const Manifest *m, const Version *a, const Version *b,
                       GArray *ranges, bool list)
{
    g_autofree char *size = units_format_size(b->size), *moved = NULL;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < ranges->len; i++) {
        const ContentRange *r = &g_array_index(ranges, ContentRange, i);

        bytes += r->bytes;
        if (list) {
            printf("%" PRIu64 " %" PRIu64 "\n", r->offset, r->bytes);
        }
    }
    moved = units_format_size(bytes);
    if (!list) {
        printf("%s: version %" PRIu64 " has %s, in %u ranges, that version %"
               PRIu64 " has not: %.2f %% of %s\n", m->vdisk, b->number, moved,
               ranges->len, a->number, 100.0 * bytes / b->size, size);
    }
}

static void print_diff_json(const Manifest *m, const Version *from,
                            const Version *to, GArray *ranges)
{
    g_autoptr(JsonBuilder) b = json_builder_new();

    json_builder_begin_object(b);
    json_builder_set_member_name(b, "vdisk");
    json_builder_add_string_value(b, m->vdisk);
    json_builder_set_member_name(b, "from");
    json_builder_add_int_value(b, from->number);
    json_builder_set_member_name(b, "to");
    json_builder_add_int_value(b, to->number);
    json_builder_set_member_name(b, "ranges");
    json_builder_begin_array(b);
    for (unsigned i = 0; i < ranges->len; i++) {
        const ContentRange *r = &g_array_index(ranges, ContentRange, i);

        json_builder_begin_object(b);
        json_builder_set_member_name(b, "offset");
        json_builder_add_int_value(b, r->offset);
        json_builder_set_member_name(b, "bytes");
        json_builder_add_int_value(b, r->bytes);
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
    json_builder_end_object(b);
    content_print_json(b);
}

static GArray *diff_versions(Store *s, const Manifest *m, Version *a,
                             Version *b, GError **error)
{
    g_autoptr(TreeFile) older = tree_file_of(s, m, a, error);
    g_autoptr(TreeFile) newer = older ? tree_file_of(s, m, b, error) : NULL;

    return newer ? tree_file_diff(older, newer, error) : NULL;
}

static int version_diff(int argc, char **argv)
{
    g_auto(StoreOptions) o = {};
    gboolean list = false;
    GOptionEntry entries[] = {
        STORE_OPTION(o),
        { "list", 'l', 0, G_OPTION_ARG_NONE, &list,
          "each range, as its first byte and its length", NULL },
        JSON_OPTION(o),
        {}
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Manifest) m = NULL;
    g_autoptr(GArray) ranges = NULL;
    uint64_t from, to;
    Version *a, *b;

    if (!command_parse("NAME A B - what version B has that A has not", entries,
                       &argc, &argv)) {
        return COMMAND_USAGE;
    }
    if (argc != 4) {
        return content_usage("a vDisk and two versions of it are needed");
    }
    if (!check_name(argv[1]) || !parse_version(argv[2], &from) ||
        !parse_version(argv[3], &to)) {
        return COMMAND_USAGE;
    }
    store = store_from(&o, STORE_READ, &error);
    m = store ? store_manifest(store, argv[1], &error) : NULL;
    a = m ? sealed_version(m, from, &error) : NULL;
    b = a ? sealed_version(m, to, &error) : NULL;
    ranges = b ? diff_versions(store, m, a, b, &error) : NULL;
    if (!ranges) {
        return command_error(&o, error);
    }
    if (o.json) {
        print_diff_json(m, a, b, ranges);
    } else {
        print_diff(m, a, b, ranges, list);
    }
    return COMMAND_DONE;
}

const Command content_commands[] = {
    { "vdisk", "import",
      "bring an image into the store as a new vDisk", vdisk_import },
    { "vdisk", "verify",
      "compare versions with their trees", vdisk_verify },
    { "vdisk", "export",
      "take a version out of the store as a file", vdisk_export },
    { "version", "diff",
      "tell what one version has that another has not", version_diff },
    { "store", "replicate",
      "bring versions from another store", command_store_replicate },
    {}
};

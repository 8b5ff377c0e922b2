/*
 * mcs: desktops with disks of their own over a master image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"
#include "stories.h"

#include "cli/store/content.h"

#include <string.h>

#define VDISK       "gold"
#define PIECES      64          /* that a desktop writes */
/* What an update changes */
#define UPDATE_AT   (2 << 20)
#define UPDATE      (1 << 20)

static bool import(Lab *lab, GError **error)
{
    g_autofree char *image = lab_path(lab, "gold.raw");

    lab_noise(1, lab->holds[1], LAB_BYTES);
    memcpy(lab->holds[2], lab->holds[1], LAB_BYTES);
    lab_noise(2, lab->holds[2] + UPDATE_AT, UPDATE);
    return lab_make_store(lab, error) &&
           lab_write_image(lab, "gold.raw", lab->holds[1], error) &&
           lab_deskcast(lab, error, "vdisk", "import", image, VDISK, "--store",
                        lab->store, NULL) &&
           lab_deskcast(lab, error, "version", "promote", VDISK, "--store",
                        lab->store, NULL);
}

static bool begin(Lab *lab, Guest **guest, const char *name,
                  DesktopLifetime lifetime, GError **error)
{
    WantedVersion first;

    if (!lab_version(lab, VDISK, 1, &first, error)) {
        return false;
    }
    *guest = guest_new(lab, name, MODEL_MCS, lifetime, VDISK, &first, NULL,
                       error);
    lab_version_clear(&first);
    return *guest && guest_start(*guest, error) &&
           guest_compare(*guest, error);
}

static bool two_desktops(Lab *lab, GError **error)
{
    return begin(lab, &lab->pooled, "pooled", LIFETIME_POOLED, error) &&
           begin(lab, &lab->dedicated, "dedicated", LIFETIME_DEDICATED, error);
}

static bool work(Lab *lab, GError **error)
{
    return guest_work(lab->pooled, 3, PIECES, error) &&
           guest_work(lab->dedicated, 4, PIECES, error) &&
           guest_compare(lab->pooled, error) &&
           guest_compare(lab->dedicated, error);
}

/* As a master VM does: into the new version's image */
static bool install(Lab *lab, const WantedVersion *base,
                    const WantedVersion *version, GError **error)
{
    JsonObject *definition = content_format_node(
        version->format, content_file_node(version->image, false),
        content_format_node(base->format, content_file_node(base->image, false),
                            NULL));
    Content *c = content_open_writable(definition, error);
    bool done;

    json_object_unref(definition);
    done = c && content_pwrite(c, UPDATE_AT, UPDATE, lab->holds[2] + UPDATE_AT,
                               error) && content_finish(c, error);
    content_close(c);
    return done;
}

static bool update(Lab *lab, GError **error)
{
    WantedVersion base = {}, version = {};
    bool done;

    done = lab_deskcast(lab, error, "version", "new", VDISK, "--for", "mcs",
                        "--store", lab->store, NULL) &&
           lab_version(lab, VDISK, 1, &base, error) &&
           lab_version(lab, VDISK, 2, &version, error) &&
           install(lab, &base, &version, error) &&
           lab_deskcast(lab, error, "version", "seal", VDISK, "--store",
                        lab->store, NULL) &&
           lab_deskcast(lab, error, "version", "promote", VDISK, "--store",
                        lab->store, NULL);
    lab_version_clear(&base);
    lab_version_clear(&version);
    return done;
}

static bool assign(Lab *lab, unsigned number, GError **error)
{
    WantedVersion version;
    bool done;

    if (!lab_version(lab, VDISK, number, &version, error)) {
        return false;
    }
    done = guest_assign(lab->pooled, &version, error);
    lab_version_clear(&version);
    return done;
}

static bool push(Lab *lab, GError **error)
{
    return assign(lab, 2, error) && guest_compare(lab->pooled, error);
}

static bool reset(Lab *lab, GError **error)
{
    guest_expect(lab->pooled, lab->holds[2]);
    return guest_reset(lab->pooled, error) &&
           guest_compare(lab->pooled, error);
}

static bool roll_back(Lab *lab, GError **error)
{
    if (!assign(lab, 1, error) || !guest_work(lab->pooled, 5, PIECES, error)) {
        return false;
    }
    guest_expect(lab->pooled, lab->holds[1]);
    return guest_reset(lab->pooled, error) &&
           guest_compare(lab->pooled, error);
}

static bool lose_power(Lab *lab, GError **error)
{
    guest_kill(lab->dedicated);
    return guest_start(lab->dedicated, error) &&
           guest_compare(lab->dedicated, error);
}

static bool shut_down(Lab *lab, GError **error)
{
    return guest_quit(lab->pooled, error) &&
           guest_quit(lab->dedicated, error) &&
           lab_deskcast(lab, error, "vdisk", "verify", VDISK, "--store",
                        lab->store, NULL);
}

const Step mcs_story[] = {
    { "an image is imported into a store", import },
    { "two desktops run from it, one pooled, one dedicated", two_desktops },
    { "each reads what it wrote", work },
    { "an update is written, sealed and promoted", update },
    { "it is pushed, and the running desktop notices nothing", push },
    { "at its reset the pooled desktop forgets, and takes it", reset },
    { "a rollback: at the next reset it is as it was", roll_back },
    { "the dedicated one loses its power, and nothing it flushed", lose_power },
    { "no version has changed meanwhile", shut_down },
    {}
};

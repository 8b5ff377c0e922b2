/*
 * pvs: desktops that stream, and an update that needs no network
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"
#include "guest-io.h"
#include "stories.h"

#include <string.h>

#define VDISK       "office"
#define PIECES      64          /* that a desktop writes */

static bool serve(Lab *lab, GError **error)
{
    g_autofree char *image = lab_path(lab, "office.raw");

    lab_noise(11, lab->holds[1], LAB_BYTES);
    return lab_make_store(lab, error) &&
           lab_write_image(lab, "office.raw", lab->holds[1], error) &&
           lab_deskcast(lab, error, "vdisk", "import", image, VDISK, "--store",
                        lab->store, NULL) &&
           lab_deskcast(lab, error, "version", "promote", VDISK, "--store",
                        lab->store, NULL) &&
           lab_serve(lab, error) && lab_relay(lab, VDISK, error);
}

/* An export that comes within a second or two */
typedef struct Export {
    const char *socket, *name;
} Export;

static bool is_there(void *opaque, GError **error)
{
    Export *e = opaque;
    struct nbd_handle *nbd = io_connect(e->socket, e->name, error);

    io_close(nbd);
    return nbd;
}

static bool wait_export(Lab *lab, const char *socket, const char *name,
                        GError **error)
{
    g_autofree char *path = lab_path(lab, socket);
    Export e = { .socket = path, .name = name };

    return lab_wait(is_there, &e, name, error);
}

static bool stream(Lab *lab, GError **error)
{
    g_autofree char *relay = lab_relay_uri(lab);
    WantedVersion first;

    if (!wait_export(lab, "relay.socket", VDISK "@1", error) ||
        !wait_export(lab, "relay.socket", VDISK "@1.tree", error) ||
        !lab_version(lab, VDISK, 1, &first, error)) {
        return false;
    }
    lab->streamed = guest_new(lab, "streamed", MODEL_PVS, LIFETIME_POOLED,
                              VDISK, &first, relay, error);
    lab_version_clear(&first);
    return lab->streamed && guest_start(lab->streamed, error) &&
           guest_compare(lab->streamed, error) &&
           guest_work(lab->streamed, 12, PIECES, error) &&
           guest_compare(lab->streamed, error);
}

static bool hydrate(Lab *lab, GError **error)
{
    return lab_wait_hydrated(lab, VDISK "@1", error);
}

static bool lose_store(Lab *lab, GError **error)
{
    lab_kill(&lab->serve);
    guest_expect(lab->streamed, lab->holds[1]);
    return guest_reset(lab->streamed, error) &&
           guest_compare(lab->streamed, error);
}

static bool open_private(Lab *lab, GError **error)
{
    g_autofree char *store = lab_store_uri(lab);
    WantedVersion second;

    if (!lab_serve(lab, error) ||
        !lab_deskcast(lab, error, "version", "new", VDISK, "--for", "pvs",
                      "--store", lab->store, NULL) ||
        !wait_export(lab, "store.socket", VDISK "@2.label", error) ||
        !lab_version(lab, VDISK, 2, &second, error)) {
        return false;
    }
    memcpy(lab->holds[2], lab->holds[1], LAB_BYTES);
    lab->private = guest_new(lab, "private", MODEL_PVS, LIFETIME_PRIVATE,
                             VDISK, &second, store, error);
    lab_version_clear(&second);
    return lab->private && guest_start(lab->private, error) &&
           guest_work(lab->private, 13, PIECES, error) &&
           guest_compare(lab->private, error);
}

static bool open_window(Lab *lab, GError **error)
{
    return guest_job(lab->private, "vdisk-window-open", error);
}

/* What is flushed now is in the reconnect buffer only */
static bool outage(Lab *lab, GError **error)
{
    int64_t lag;

    lab_kill(&lab->serve);
    if (!guest_work(lab->private, 14, 2 * PIECES, error) ||
        !guest_compare(lab->private, error)) {
        return false;
    }
    lag = guest_buffer(lab->private, "lag-bytes", error);
    return lag > 0 ||
           (lag == 0 && lab_error(error, "nothing waits for the store, which "
                                  "is away"));
}

static bool lose_power(Lab *lab, GError **error)
{
    guest_kill(lab->private);
    return guest_start(lab->private, error) &&
           guest_compare(lab->private, error);
}

static bool drain(Lab *lab, GError **error)
{
    int64_t lag;

    if (!lab_serve(lab, error) ||
        !guest_job(lab->private, "vdisk-window-close", error) ||
        !guest_job(lab->private, "vdisk-drain", error)) {
        return false;
    }
    lag = guest_buffer(lab->private, "lag-bytes", error);
    return lag == 0 || (lag > 0 && lab_error(error, "the store still lacks "
                                             "%" G_GINT64_FORMAT " bytes", lag));
}

static bool seal(Lab *lab, GError **error)
{
    memcpy(lab->holds[2], guest_holds(lab->private), LAB_BYTES);
    return guest_quit(lab->private, error) &&
           lab_deskcast(lab, error, "version", "seal", VDISK, "--wait", "30",
                        "--store", lab->store, NULL) &&
           lab_deskcast(lab, error, "version", "promote", VDISK, "--store",
                        lab->store, NULL);
}

static bool take(Lab *lab, unsigned number, GError **error)
{
    WantedVersion version;
    bool done;

    if (!lab_version(lab, VDISK, number, &version, error)) {
        return false;
    }
    done = guest_assign(lab->streamed, &version, error) &&
           guest_compare(lab->streamed, error);
    lab_version_clear(&version);
    guest_expect(lab->streamed, lab->holds[number]);
    return done && guest_reset(lab->streamed, error) &&
           guest_compare(lab->streamed, error);
}

static bool push(Lab *lab, GError **error)
{
    return wait_export(lab, "relay.socket", VDISK "@2", error) &&
           wait_export(lab, "relay.socket", VDISK "@2.tree", error) &&
           take(lab, 2, error);
}

static bool roll_back(Lab *lab, GError **error)
{
    return take(lab, 1, error) && guest_quit(lab->streamed, error) &&
           lab_deskcast(lab, error, "vdisk", "verify", VDISK, "--store",
                        lab->store, NULL);
}

const Step pvs_story[] = {
    { "a store serves an image, and a relay fetches it", serve },
    { "a desktop streams it, and reads what it wrote", stream },
    { "the relay has all of it", hydrate },
    { "the store is killed, and the desktop starts anew without it",
      lose_store },
    { "the store is back; an update begins in private image mode",
      open_private },
    { "the update window opens: all that it needs is local", open_window },
    { "the store is killed; the update goes on writing", outage },
    { "its host loses its power, and nothing that was flushed", lose_power },
    { "the store is back, and gets everything", drain },
    { "the update is sealed and promoted", seal },
    { "the desktop takes it at its reset, by content", push },
    { "a rollback: at the next reset it is as it was", roll_back },
    {}
};

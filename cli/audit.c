/*
 * The journal's line for a command that changes something
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "audit.h"
#include "message-id.h"

#include <inttypes.h>
#include <pwd.h>
#include <syslog.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION    /* of no use to administrators */
#include <systemd/sd-journal.h>

#define PASSWD_BYTES    65536   /* a user's line, the longest */

/* Names come from the environment of whoever runs us: no line breaks */
static char *clean(const char *name)
{
    return g_strdelimit(g_strndup(name, 64), "\n\r\t", '?');
}

static char *name_of(uid_t uid)
{
    struct passwd pw, *found = NULL;
    g_autofree char *buf = g_malloc(PASSWD_BYTES);

    return getpwuid_r(uid, &pw, buf, PASSWD_BYTES, &found) == 0 && found
        ? clean(found->pw_name) : g_strdup_printf("uid %u", uid);
}

char *audit_user(void)
{
    const char *sudo = g_getenv("SUDO_USER"), *pkexec = g_getenv("PKEXEC_UID");

    /* Only root can be somebody else's tool */
    if (geteuid() == 0 && sudo && *sudo) {
        return clean(sudo);
    }
    if (geteuid() == 0 && pkexec && *pkexec) {
        return name_of(g_ascii_strtoull(pkexec, NULL, 10));
    }
    return name_of(getuid());
}

void audit(const char *action, const char *vdisk, uint64_t version,
           const char *format, ...)
{
    g_autofree char *user = audit_user();
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    sd_journal_send("MESSAGE=%s: %s%s%s", action, text, *text ? ", by " : "by ",
                    user, "MESSAGE_ID=" MESSAGE_COMMAND,
                    "PRIORITY=%d", LOG_NOTICE, "SYSLOG_IDENTIFIER=deskcast",
                    "DESKCAST_ACTION=%s", action,
                    "DESKCAST_VDISK=%s", vdisk ? vdisk : "",
                    "DESKCAST_VERSION=%" PRIu64, version,
                    "DESKCAST_USER=%s", user, NULL);
}

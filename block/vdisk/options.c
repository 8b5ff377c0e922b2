/*
 * Options that the drivers of vDisks share: those of pooled disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/option.h"
#include "qobject/qdict.h"
#include "block/vdisk/options.h"

static QemuOptsList pooled_opts = {
    .name = "vdisk-pooled",
    .head = QTAILQ_HEAD_INITIALIZER(pooled_opts.head),
    .desc = {
        {
            .name = VDISK_OPT_RESET_ON,
            .type = QEMU_OPT_STRING,
            .help = "Resets at which a pooled disk forgets: 'reboot' for all, "
                    "'start' for the first of the process only",
        },
        {
            .name = VDISK_OPT_WRITE_CACHE_RAM,
            .type = QEMU_OPT_SIZE,
            .help = "Memory in which a pooled disk keeps what was written "
                    "last (default: 0)",
        },
        {
            .name = VDISK_OPT_KEEP_SPACE,
            .type = QEMU_OPT_BOOL,
            .help = "Keep the space of the last session for the next one "
                    "(default: off)",
        },
        { /* end of list */ }
    },
};

static bool apply(VdiskLayer *l, QemuOpts *opts, Error **errp)
{
    uint64_t ram = qemu_opt_get_size(opts, VDISK_OPT_WRITE_CACHE_RAM, 0);
    Error *err = NULL;
    int value = qapi_enum_parse(&VdiskResetOn_lookup,
                                qemu_opt_get(opts, VDISK_OPT_RESET_ON),
                                VDISK_RESET_ON_REBOOT, &err);

    if (err) {
        error_propagate(errp, err);
        return false;
    }
    l->reset_on_start = value == VDISK_RESET_ON_START;
    l->keep_space = qemu_opt_get_bool(opts, VDISK_OPT_KEEP_SPACE, false);
    if (ram && !l->pooled) {
        error_setg(errp, "A dedicated disk keeps what was written in its file, "
                   "so it cannot have a write-cache-ram");
        return false;
    }
    return ram == 0 || (vdisk_tier_size_valid(ram, errp) &&
                        vdisk_tier_open(l, ram, errp));
}

bool vdisk_take_pooled_options(VdiskLayer *l, QDict *options, Error **errp)
{
    QemuOpts *opts = qemu_opts_create(&pooled_opts, NULL, 0, &error_abort);
    bool ok = qemu_opts_absorb_qdict(opts, options, errp) &&
              apply(l, opts, errp);

    qemu_opts_del(opts);
    return ok;
}

bool vdisk_has_pooled_options(const QDict *options)
{
    for (const QemuOptDesc *d = pooled_opts.desc; d->name; d++) {
        if (qdict_haskey(options, d->name)) {
            return true;
        }
    }
    return false;
}

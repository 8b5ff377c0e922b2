/*
 * Test of the host cache: a job that would fill one that does not keep anything
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vdisk.h"
#include "qemu/job.h"
#include "qobject/qdict.h"
#include "block/pvs/image.h"
#include "block/pvs/resume.h"
#include "cache.h"

#define JOB_WAIT_MS     20000

static void make_image(const char *name)
{
    g_autofree uint8_t *buf = g_malloc(IMAGE_GRANULES * GRANULE);

    for (uint64_t g = 0; g < IMAGE_GRANULES; g++) {
        content(g, buf + g * GRANULE);
    }
    g_assert(g_file_set_contents(name, (char *)buf, IMAGE_BYTES, NULL));
}

/* A relay's node, whose only store is the file @image */
static BlockDriverState *open_node(Place *p, const char *image)
{
    QDict *o = qdict_new();

    qdict_put_str(o, "driver", "pvs");
    qdict_put_str(o, "node-name", "disk");
    qdict_put_str(o, "vdisk", p->id.vdisk);
    qdict_put_int(o, "version", p->id.version);
    qdict_put_str(o, "stores.0.driver", "file");
    qdict_put_str(o, "stores.0.filename", image);
    qdict_put_str(o, "host-cache", p->data);
    qdict_put_str(o, "host-cache-map", p->map);
    return bdrv_open(NULL, NULL, o, 0, &error_abort);
}

static PvsImage *image_of(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return pvs_image_of(bs);
}

static bool is_over(Job *job)
{
    JOB_LOCK_GUARD();
    return job_is_completed_locked(job);
}

/* How the job ends; 1 if it does not */
static int hydrate(void)
{
    Job *job;
    int ret = 1;

    qmp_vdisk_hydrate("job", "disk", false, 0, NULL, &error_abort);
    WITH_JOB_LOCK_GUARD() {
        job = job_get_locked("job");
        g_assert(job);
        job_ref_locked(job);
    }
    for (int ms = 0; ms < JOB_WAIT_MS && !is_over(job); ms += 10) {
        poll_ms(10);
    }
    WITH_JOB_LOCK_GUARD() {
        if (job_is_completed_locked(job)) {
            ret = job->ret;
        } else {
            job_cancel_sync_locked(job, true);
        }
        job_unref_locked(job);
    }
    return ret;
}

void test_hydrate(Place *p)
{
    g_autofree char *image = g_build_filename(p->dir, "image", NULL);
    BlockDriverState *bs;
    PvsImage *img;
    uint64_t bytes;
    int ret;

    place_clear(p);
    make_image(image);
    bs = open_node(p, image);
    img = image_of(bs);
    fail_writes = EIO;
    ret = hydrate();
    bytes = pvs_pool_store(img->stores, 0).bytes;
    report(ret == -EIO && bytes > 0 && bytes <= IMAGE_BYTES,
           "a hydrate job into a disk with errors ends: %d, %" PRIu64
           " bytes were fetched of %d", ret, bytes, IMAGE_BYTES);
    fail_writes = 0;
    ret = hydrate();
    report(ret == 0 && pvs_image_missing(img) == 0,
           "and succeeds when they are over: %d", ret);
    bdrv_unref(bs);
    unlink(image);
}

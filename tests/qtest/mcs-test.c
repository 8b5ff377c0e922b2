/*
 * QTest for mcs: what a desktop's disk keeps and what it forgets
 *
 * All I/O goes through the virtqueues of a virtio-blk device, as a guest's
 * does. Every sector tells by its content where it came from.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/libqos-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio-pci.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_ids.h"

#define DISK_BYTES      (2 * MiB)
#define BASE_BYTE       0x11
#define TIMEOUT_US      (30 * 1000 * 1000)
#define SLOT_A          5
#define SLOT_B          6
/* A request in guest memory: header, data, status */
#define REQ_HEADER      16

static char *dir;

typedef struct Disk {
    QOSState *qs;
    int slot;
    QVirtioPCIDevice *dev;
    QVirtQueue *vq;
} Disk;

/* Images */

static char *image(const char *name)
{
    return g_strdup_printf("%s/%s", dir, name);
}

static void make_base(void)
{
    g_autofree char *path = image("base.raw");
    g_autofree char *content = g_malloc(DISK_BYTES);

    memset(content, BASE_BYTE, DISK_BYTES);
    g_assert_true(g_file_set_contents(path, content, DISK_BYTES, NULL));
}

static void make_disk(const char *name, const char *lifetime)
{
    g_autofree char *command =
        g_strdup_printf("%s create -q -f mcs -b base.raw -F raw "
                        "-o lifetime=%s %s/%s", getenv("QTEST_QEMU_IMG"),
                        lifetime, dir, name);
    int status;

    g_assert_true(g_spawn_command_line_sync(command, NULL, NULL, &status,
                                            NULL));
    g_assert_cmpint(status, ==, 0);
}

static void remove_images(void)
{
    static const char *const names[] = { "base.raw", "a.mcs", "b.mcs" };

    for (int i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *path = image(names[i]);

        unlink(path);
    }
}

/* -blockdev for a disk, and the device on top of it */
static char *drive_args(const char *node, const char *name, int slot,
                        const char *more)
{
    return g_strdup_printf("-blockdev driver=mcs,node-name=%s,file.driver=file,"
                           "file.filename=%s/%s%s "
                           "-device virtio-blk-pci,id=dev-%s,drive=%s,"
                           "addr=%d.0%s ",
                           node, dir, name, more ? more : "", node, node, slot,
                           strcmp(node, "io") == 0 ? ",iothread=thread" : "");
}

/* The device */

static void disk_start(Disk *d)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(d->slot, 0) };
    uint64_t features;

    d->dev = virtio_pci_new(d->qs->pcibus, &addr);
    g_assert_nonnull(d->dev);
    g_assert_cmpint(d->dev->vdev.device_type, ==, VIRTIO_ID_BLOCK);
    qvirtio_pci_device_enable(d->dev);
    qvirtio_start_device(&d->dev->vdev);
    features = qvirtio_get_features(&d->dev->vdev);
    features &= ~(QVIRTIO_F_BAD_FEATURE | (1u << VIRTIO_RING_F_INDIRECT_DESC) |
                  (1u << VIRTIO_RING_F_EVENT_IDX) | (1u << VIRTIO_BLK_F_SCSI));
    qvirtio_set_features(&d->dev->vdev, features);
    d->vq = qvirtqueue_setup(&d->dev->vdev, &d->qs->alloc, 0);
    qvirtio_set_driver_ok(&d->dev->vdev);
}

/* Forget the device as a guest's driver does when the system is reset */
static void disk_stop(Disk *d)
{
    qvirtqueue_cleanup(d->dev->vdev.bus, d->vq, &d->qs->alloc);
    qpci_iounmap(d->dev->pdev, d->dev->bar);
    qos_object_destroy((QOSGraphObject *)d->dev);
    d->dev = NULL;
}

static Disk disk_open(QOSState *qs, int slot)
{
    Disk d = { .qs = qs, .slot = slot };

    disk_start(&d);
    return d;
}

static uint64_t request_make(Disk *d, uint32_t type, uint64_t offset,
                             size_t bytes, int byte)
{
    uint64_t addr = guest_alloc(&d->qs->alloc, REQ_HEADER + bytes + 1);
    uint32_t head[4] = { cpu_to_le32(type), 0 };
    uint64_t sector = cpu_to_le64(offset / 512);

    memcpy(head + 2, &sector, sizeof(sector));
    qtest_memwrite(d->qs->qts, addr, head, sizeof(head));
    if (type == VIRTIO_BLK_T_OUT) {
        qtest_memset(d->qs->qts, addr + REQ_HEADER, byte, bytes);
    }
    qtest_writeb(d->qs->qts, addr + REQ_HEADER + bytes, 0xff);
    return addr;
}

static uint32_t request_queue(Disk *d, uint64_t addr, uint32_t type,
                              size_t bytes)
{
    QTestState *qts = d->qs->qts;
    uint32_t head = qvirtqueue_add(qts, d->vq, addr, REQ_HEADER, false, true);

    if (bytes) {
        qvirtqueue_add(qts, d->vq, addr + REQ_HEADER, bytes,
                       type == VIRTIO_BLK_T_IN, true);
    }
    qvirtqueue_add(qts, d->vq, addr + REQ_HEADER + bytes, 1, true, false);
    return head;
}

/* Returns the request in guest memory, which has succeeded */
static uint64_t request_do(Disk *d, uint32_t type, uint64_t offset,
                           size_t bytes, int byte)
{
    QTestState *qts = d->qs->qts;
    uint64_t addr = request_make(d, type, offset, bytes, byte);
    uint32_t head = request_queue(d, addr, type, bytes);

    qvirtqueue_kick(qts, &d->dev->vdev, d->vq, head);
    qvirtio_wait_used_elem(qts, &d->dev->vdev, d->vq, head, NULL, TIMEOUT_US);
    g_assert_cmpint(qtest_readb(qts, addr + REQ_HEADER + bytes), ==, 0);
    return addr;
}

static void disk_write(Disk *d, uint64_t offset, size_t bytes, int byte)
{
    guest_free(&d->qs->alloc,
               request_do(d, VIRTIO_BLK_T_OUT, offset, bytes, byte));
}

static void disk_flush(Disk *d)
{
    guest_free(&d->qs->alloc, request_do(d, VIRTIO_BLK_T_FLUSH, 0, 0, 0));
}

/* The range consists of @byte, all of it */
static void disk_expect(Disk *d, uint64_t offset, size_t bytes, int byte)
{
    uint64_t addr = request_do(d, VIRTIO_BLK_T_IN, offset, bytes, 0);
    g_autofree uint8_t *buf = g_malloc(bytes);

    qtest_memread(d->qs->qts, addr + REQ_HEADER, buf, bytes);
    for (size_t i = 0; i < bytes; i++) {
        if (buf[i] != byte) {
            g_error("0x%02x instead of 0x%02x at byte %" PRIu64, buf[i], byte,
                    offset + i);
        }
    }
    guest_free(&d->qs->alloc, addr);
}

/*
 * The addresses that BARs get are not given back by libqos: begin again, since
 * the reset has disabled them all.
 */
static void system_reset(QOSState *qs)
{
    static uint64_t pio, mmio;

    if (!mmio) {
        QPCIBus *fresh = qpci_new_pc(qs->qts, &qs->alloc);

        pio = fresh->pio_alloc_ptr;
        mmio = fresh->mmio_alloc_ptr;
        qpci_free_pc(fresh);
    }
    qtest_system_reset(qs->qts);
    qs->pcibus->pio_alloc_ptr = pio;
    qs->pcibus->mmio_alloc_ptr = mmio;
}

static void disk_reset(Disk *d)
{
    system_reset(d->qs);
    disk_stop(d);
    disk_start(d);
}

/* The tests */

static void test_dedicated(void)
{
    g_autofree char *args = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "dedicated");
    args = drive_args("a", "a.mcs", SLOT_A, NULL);
    qs = qtest_pc_boot("%s", args);
    d = disk_open(qs, SLOT_A);
    disk_expect(&d, 0, 64 * KiB, BASE_BYTE);
    disk_write(&d, 0, 64 * KiB, 0x22);
    disk_write(&d, 1 * MiB + 512, 1024, 0x33);
    disk_flush(&d);
    disk_reset(&d);
    disk_expect(&d, 0, 64 * KiB, 0x22);
    disk_expect(&d, 1 * MiB, 512, BASE_BYTE);
    disk_expect(&d, 1 * MiB + 512, 1024, 0x33);
    disk_expect(&d, 1 * MiB + 1536, 2560, BASE_BYTE);
    disk_stop(&d);
    qtest_shutdown(qs);

    /* And over the end of the process */
    qs = qtest_pc_boot("%s", args);
    d = disk_open(qs, SLOT_A);
    disk_expect(&d, 0, 64 * KiB, 0x22);
    disk_expect(&d, 1 * MiB + 512, 1024, 0x33);
    disk_stop(&d);
    qtest_shutdown(qs);
}

static void test_pooled(void)
{
    g_autofree char *args = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "pooled");
    args = drive_args("a", "a.mcs", SLOT_A, NULL);
    qs = qtest_pc_boot("%s", args);
    d = disk_open(qs, SLOT_A);
    for (int i = 0; i < 3; i++) {
        disk_expect(&d, 0, 128 * KiB, BASE_BYTE);
        disk_write(&d, 0, 64 * KiB, 0x22 + i);
        disk_write(&d, 100 * KiB + 512, 512, 0x22 + i);
        disk_flush(&d);
        disk_expect(&d, 0, 64 * KiB, 0x22 + i);
        disk_expect(&d, 100 * KiB, 512, BASE_BYTE);
        disk_expect(&d, 100 * KiB + 512, 512, 0x22 + i);
        disk_reset(&d);
    }
    /* A partial write finds the base around it, not what was there before */
    disk_write(&d, 512, 512, 0x77);
    disk_expect(&d, 0, 512, BASE_BYTE);
    disk_expect(&d, 512, 512, 0x77);
    disk_expect(&d, 1024, 127 * KiB, BASE_BYTE);
    disk_stop(&d);
    qtest_shutdown(qs);

    /* What was flushed last is not there for the next process either */
    qs = qtest_pc_boot("%s", args);
    d = disk_open(qs, SLOT_A);
    disk_expect(&d, 0, 128 * KiB, BASE_BYTE);
    disk_stop(&d);
    qtest_shutdown(qs);
}

static void test_reset_on_start(void)
{
    g_autofree char *args = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "pooled");
    args = drive_args("a", "a.mcs", SLOT_A, ",reset-on=start");
    for (int i = 0; i < 2; i++) {
        qs = qtest_pc_boot("%s", args);
        d = disk_open(qs, SLOT_A);
        disk_expect(&d, 0, 64 * KiB, BASE_BYTE);
        disk_write(&d, 0, 64 * KiB, 0x22);
        disk_reset(&d);
        disk_expect(&d, 0, 64 * KiB, 0x22);
        disk_reset(&d);
        disk_expect(&d, 0, 64 * KiB, 0x22);
        disk_stop(&d);
        qtest_shutdown(qs);
    }
}

static void test_two(void)
{
    g_autofree char *args_a = NULL;
    g_autofree char *args_b = NULL;
    QOSState *qs;
    Disk a, b;

    make_disk("a.mcs", "pooled");
    make_disk("b.mcs", "pooled");
    args_a = drive_args("a", "a.mcs", SLOT_A, NULL);
    args_b = drive_args("b", "b.mcs", SLOT_B, NULL);
    qs = qtest_pc_boot("%s %s", args_a, args_b);
    a = disk_open(qs, SLOT_A);
    b = disk_open(qs, SLOT_B);
    disk_write(&a, 0, 64 * KiB, 0x22);
    disk_write(&b, 32 * KiB, 64 * KiB, 0x33);
    disk_expect(&a, 64 * KiB, 64 * KiB, BASE_BYTE);
    disk_expect(&b, 0, 32 * KiB, BASE_BYTE);
    system_reset(qs);
    disk_stop(&a);
    disk_stop(&b);
    disk_start(&a);
    disk_start(&b);
    disk_expect(&a, 0, 128 * KiB, BASE_BYTE);
    disk_expect(&b, 0, 128 * KiB, BASE_BYTE);
    disk_stop(&a);
    disk_stop(&b);
    qtest_shutdown(qs);
}

/* Sleep (ACPI S3) through the power management of the PIIX4, and wake up */
static void sleep_and_wake(QOSState *qs)
{
    QPCIDevice *pm = qpci_device_find(qs->pcibus, QPCI_DEVFN(1, 3));

    g_assert_nonnull(pm);
    qpci_config_writel(pm, 0x40, 0x601);        /* I/O base */
    qpci_config_writeb(pm, 0x80, 1);            /* enabled */
    qtest_outw(qs->qts, 0x604, 1 << 10 | 1 << 13);
    qtest_qmp_eventwait(qs->qts, "SUSPEND");
    qtest_qmp_assert_success(qs->qts, "{'execute': 'system_wakeup'}");
    qtest_qmp_eventwait(qs->qts, "WAKEUP");
    g_free(pm);
}

static void test_sleep(void)
{
    g_autofree char *args = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "pooled");
    args = drive_args("a", "a.mcs", SLOT_A, NULL);
    qs = qtest_pc_boot("%s", args);
    d = disk_open(qs, SLOT_A);
    disk_write(&d, 0, 64 * KiB, 0x22);
    sleep_and_wake(qs);
    disk_stop(&d);
    disk_start(&d);
    disk_expect(&d, 0, 64 * KiB, 0x22);
    disk_reset(&d);
    disk_expect(&d, 0, 64 * KiB, BASE_BYTE);
    disk_stop(&d);
    qtest_shutdown(qs);
}

/* The guest hangs, and its watchdog resets it */
static void test_watchdog(void)
{
    g_autofree char *args = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "pooled");
    args = drive_args("a", "a.mcs", SLOT_A, NULL);
    qs = qtest_pc_boot("-device ib700 -action watchdog=reset %s", args);
    d = disk_open(qs, SLOT_A);
    disk_write(&d, 0, 64 * KiB, 0x22);
    qtest_outb(qs->qts, 0x443, 14);     /* in two seconds */
    qtest_clock_step(qs->qts, 5 * NANOSECONDS_PER_SECOND);
    qtest_qmp_eventwait(qs->qts, "WATCHDOG");
    qtest_qmp_eventwait(qs->qts, "VDISK_RESET");
    disk_reset(&d);                     /* for libqos to find its devices */
    disk_expect(&d, 0, 64 * KiB, BASE_BYTE);
    disk_stop(&d);
    qtest_shutdown(qs);
}

/* Saved by a migration, and not by anything that leaves the disk in use */
static void test_migration(void)
{
    g_autofree char *args = NULL;
    g_autofree char *reply = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "pooled");
    args = drive_args("a", "a.mcs", SLOT_A, NULL);
    qs = qtest_pc_boot("%s", args);
    d = disk_open(qs, SLOT_A);
    disk_write(&d, 0, 64 * KiB, 0x22);
    reply = qtest_hmp(qs->qts, "savevm now");
    g_test_message("%s", reply);
    g_assert_nonnull(strstr(reply, "Error"));
    disk_expect(&d, 0, 64 * KiB, 0x22);
    disk_stop(&d);
    qtest_qmp_assert_success(qs->qts, "{'execute': 'migrate', 'arguments': "
                             "{'uri': 'exec:cat >/dev/null'}}");
    qtest_qmp_eventwait(qs->qts, "STOP");
    qtest_shutdown(qs);
}

/*
 * Writes that are under way when the system is reset end before the disk
 * forgets, or are never begun: none appears afterwards.
 */
static void test_in_flight(void)
{
    const int requests = 40;            /* three descriptors each */
    const size_t bytes = 3 * KiB;       /* one granule, read around it */
    int rounds = g_test_quick() ? 500 : 5000;
    g_autofree char *args = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "pooled");
    args = drive_args("io", "a.mcs", SLOT_A, NULL);
    qs = qtest_pc_boot("-object iothread,id=thread %s", args);
    d = disk_open(qs, SLOT_A);
    for (int round = 0; round < rounds; round++) {
        uint64_t addr[40];
        uint32_t head = 0;

        for (int i = 0; i < requests; i++) {
            addr[i] = request_make(&d, VIRTIO_BLK_T_OUT, i * 4 * KiB, bytes,
                                   0x20 + round % 0xd0);
            head = request_queue(&d, addr[i], VIRTIO_BLK_T_OUT, bytes);
            /* In several bunches, some of them begun before the reset */
            if (i % 8 == round % 8) {
                qvirtqueue_kick(qs->qts, &d.dev->vdev, d.vq, head);
            }
        }
        qvirtqueue_kick(qs->qts, &d.dev->vdev, d.vq, head);
        disk_reset(&d);
        disk_expect(&d, 0, requests * 4 * KiB, BASE_BYTE);
        for (int i = 0; i < requests; i++) {
            guest_free(&qs->alloc, addr[i]);
        }
    }
    disk_stop(&d);
    qtest_shutdown(qs);
}

static void add_node(QTestState *qts, const char *node, const char *name)
{
    qtest_qmp_assert_success(qts, "{'execute': 'blockdev-add', 'arguments': "
                             "{'driver': 'mcs', 'node-name': %s, "
                             "'file': {'driver': 'file', "
                             "'filename': %s}}}", node, name);
}

static void test_hotplug(void)
{
    g_autofree char *path = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "pooled");
    path = image("a.mcs");
    qs = qtest_pc_boot("-nodefaults");
    for (int i = 0; i < 2; i++) {
        add_node(qs->qts, "a", path);
        qtest_qmp_device_add(qs->qts, "virtio-blk-pci", "dev-a",
                             "{'drive': 'a', 'addr': '6.0'}");
        d = disk_open(qs, SLOT_B);
        disk_expect(&d, 0, 64 * KiB, BASE_BYTE);
        disk_write(&d, 0, 64 * KiB, 0x22);
        disk_reset(&d);
        disk_expect(&d, 0, 64 * KiB, BASE_BYTE);
        disk_write(&d, 0, 64 * KiB, 0x33);
        disk_stop(&d);
        qpci_unplug_acpi_device_test(qs->qts, "dev-a", SLOT_B);
        qtest_qmp_assert_success(qs->qts, "{'execute': 'blockdev-del', "
                                 "'arguments': {'node-name': 'a'}}");
        /* Nothing is left that a reset could touch */
        system_reset(qs);
    }
    qtest_shutdown(qs);
}

static void add_inactive_node(QTestState *qts, const char *name)
{
    qtest_qmp_assert_success(qts, "{'execute': 'blockdev-add', 'arguments': "
                             "{'driver': 'mcs', 'node-name': 'a', "
                             "'active': false, 'file': {'driver': 'file', "
                             "'filename': %s}}}", name);
}

static void set_active(QTestState *qts, bool active)
{
    qtest_qmp_assert_success(qts, "{'execute': 'blockdev-set-active', "
                             "'arguments': {'node-name': 'a', 'active': %i}}",
                             active);
}

/* Resets that the one vDisk has seen */
static int64_t resets(QTestState *qts)
{
    QDict *answer = qtest_qmp(qts, "{'execute': 'query-vdisks'}");
    QDict *disk = qobject_to(QDict, qlist_peek(qdict_get_qlist(answer,
                                                               "return")));
    int64_t n = qdict_get_int(disk, "resets");

    qobject_unref(answer);
    return n;
}

/* The file of an inactive node belongs to another process: no reset */
static void test_inactive(void)
{
    g_autofree char *path = NULL;
    QOSState *qs;
    Disk d;

    make_disk("a.mcs", "pooled");
    path = image("a.mcs");
    qs = qtest_pc_boot("-nodefaults");
    add_inactive_node(qs->qts, path);
    system_reset(qs);
    g_assert_cmpint(resets(qs->qts), ==, 0);
    set_active(qs->qts, true);
    set_active(qs->qts, false);
    system_reset(qs);
    g_assert_cmpint(resets(qs->qts), ==, 0);
    set_active(qs->qts, true);
    qtest_qmp_device_add(qs->qts, "virtio-blk-pci", "dev-a",
                         "{'drive': 'a', 'addr': '6.0'}");
    d = disk_open(qs, SLOT_B);
    disk_write(&d, 0, 64 * KiB, 0x22);
    disk_expect(&d, 0, 64 * KiB, 0x22);
    disk_reset(&d);
    g_assert_cmpint(resets(qs->qts), ==, 2);   /* activated, then reset */
    disk_expect(&d, 0, 64 * KiB, BASE_BYTE);
    disk_stop(&d);
    qtest_shutdown(qs);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    if (!have_qemu_img()) {
        g_test_message("QTEST_QEMU_IMG not set or qemu-img missing");
        return 0;
    }
    dir = g_dir_make_tmp("mcs-test-XXXXXX", NULL);
    g_assert_nonnull(dir);
    make_base();

    qtest_add_func("/mcs/dedicated", test_dedicated);
    qtest_add_func("/mcs/pooled", test_pooled);
    qtest_add_func("/mcs/reset-on-start", test_reset_on_start);
    qtest_add_func("/mcs/two", test_two);
    qtest_add_func("/mcs/sleep", test_sleep);
    qtest_add_func("/mcs/watchdog", test_watchdog);
    qtest_add_func("/mcs/migration", test_migration);
    qtest_add_func("/mcs/in-flight", test_in_flight);
    qtest_add_func("/mcs/hotplug", test_hotplug);
    qtest_add_func("/mcs/inactive", test_inactive);
    ret = g_test_run();

    remove_images();
    rmdir(dir);
    g_free(dir);
    return ret;
}

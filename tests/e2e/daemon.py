# SPDX-License-Identifier: GPL-2.0-or-later
"""Desktops whose disks are in a storage daemon, behind Debian's own QEMU.

The daemon is ours and exports vhost-user-blk; the QEMU that runs the guest
knows nothing of mcs. One guest has a pooled system disk and a dedicated one
for data, so that few boots show what each of them keeps.
"""

import json
import pathlib
import socket
import subprocess
import time

from guest import Guest, GuestError, Qmp, mcs_disk

STOCK_QEMU = "/usr/bin/qemu-system-x86_64"
FILE = "/root/secret"
MIB = 1 << 20
MASTER_MIB = 1024
LARGER_MIB = 1280
DATA_MIB = 16
# In seconds. A front end whose QEMU has ended is gone at once, seen from outside.
GONE_TIMEOUT = 10


class Daemon:
    """A qemu-storage-daemon that exports two disks; for use in a with statement."""

    nodes = ("system", "data")

    def __init__(self, program, folder):
        self.program = program
        self.folder = pathlib.Path(folder)
        self.log = self.folder / "daemon.log"
        self.process = None

    def path(self, node):
        return self.folder / f"{node}.vhost"

    def blockdev(self, node):
        return mcs_disk(node, self.folder / f"{node}.mcs")

    def disk_args(self, node):
        return ["--blockdev", json.dumps(self.blockdev(node)),
                "--export", f"vhost-user-blk,id={node},node-name={node},writable=on,"
                f"addr.type=unix,addr.path={self.path(node)}"]

    def start(self):
        ours, peer = socket.socketpair()
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", str(self.program),
                 *[arg for node in self.nodes for arg in self.disk_args(node)],
                 "--chardev", f"socket,id=qmp,fd={peer.fileno()}",
                 "--monitor", "chardev=qmp"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[peer.fileno()])
        peer.close()
        self.qmp = Qmp(ours)
        self.qmp.handshake()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.qmp.lines.close()
        for node in self.nodes:
            self.path(node).unlink(missing_ok=True)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def reset(self):
        """As the host's hook does at power-on."""
        deadline = time.monotonic() + GONE_TIMEOUT
        while True:
            try:
                return self.qmp.command("vdisk-reset", **{"node-name": "system"})
            except GuestError as error:
                if "uses the disk" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def refusal(self, command, **arguments):
        return refusal(self.qmp, command, **arguments)

    def waits_to_say(self, text):
        deadline = time.monotonic() + GONE_TIMEOUT
        while text not in self.log.read_text():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def refusal(qmp, command, **arguments):
    """What QMP says against it, or an empty string if it does it."""
    try:
        qmp.command(command, **arguments)
        return ""
    except GuestError as error:
        return str(error)


class VhostGuest(Guest):
    """A guest in Debian's QEMU, with disks of a Daemon."""

    def __init__(self, daemon, log, accel):
        super().__init__(STOCK_QEMU, daemon, log, accel)

    def machine_args(self, memory):
        # The daemon reads and writes the guest's memory.
        return [*super().machine_args(memory),
                "-object", f"memory-backend-memfd,id=ram,size={memory}M,share=on",
                "-machine", "memory-backend=ram"]

    def disk_args(self, disk):
        return [arg for node in disk.nodes for arg in (
            "-chardev", f"socket,id={node},path={disk.path(node)},reconnect=1",
            "-device", f"vhost-user-blk-pci,chardev={node}")]


def make_disks(world):
    """The disks, and a larger image that the pooled one is to switch to."""
    folder = world.folder
    larger, empty = folder / "larger.qcow2", folder / "empty.raw"
    world.image("create", "-f", "raw", empty, f"{DATA_MIB}M")
    for name, master, lifetime in (("system", world.master, "pooled"),
                                   ("data", empty, "dedicated")):
        world.image("create", "-f", "mcs", "-b", master, "-F", "raw",
                    "-o", f"lifetime={lifetime}", folder / f"{name}.mcs")
    world.image("create", "-f", "qcow2", "-b", world.master, "-F", "raw", larger,
                f"{LARGER_MIB}M")
    return larger


def write(guest):
    """Something in a file and on the data disk, durably; return the file's sum."""
    guest.run(f"dd if=/dev/urandom of={FILE} bs=1M count=4; "
              f"dd if={FILE} of=/dev/vdb bs=1M oflag=direct conv=fsync; sync; "
              "echo 3 > /proc/sys/vm/drop_caches")
    return system_sum(guest)


def system_sum(guest):
    return guest.run(f"test ! -e {FILE} || sha256sum < {FILE}")


def data_sum(guest):
    return guest.run("dd if=/dev/vdb bs=1M count=4 iflag=direct | sha256sum")


def disk_mib(guest):
    return int(guest.run("cat /sys/block/vda/size")) * 512 // MIB


def first_session(tap, daemon, guest):
    """Write; a reboot of the guest is not the end of its session."""
    guest.wait_boot()
    tap.ok(disk_mib(guest) == MASTER_MIB, "daemon: a desktop boots in Debian's QEMU")
    why = refusal(guest.qmp, "migrate", uri="fd:none")
    tap.ok("VHOST_F_LOG_ALL" in why, "daemon: a pooled disk's guest does not migrate", why)
    blockers = guest.qmp.command("query-migrate").get("blocked-reasons", [])
    tap.ok(len(blockers) == 1, "daemon: the dedicated disk has no part in that", str(blockers))
    content = write(guest)
    why = daemon.refusal("vdisk-reset", **{"node-name": "system"})
    tap.ok("A client of export 'system'" in why, "daemon: no reset under a running guest", why)
    guest.reboot()
    tap.ok(system_sum(guest) == content and data_sum(guest) == content,
           "daemon: a reboot of the guest keeps both disks")
    return content


def second_session(tap, guest, content):
    guest.wait_boot()
    tap.ok(system_sum(guest) == "", "daemon: pooled: the file is gone after vdisk-reset")
    tap.ok(data_sum(guest) == content, "daemon: dedicated: content is the same")
    tap.ok(disk_mib(guest) == LARGER_MIB, "daemon: the guest sees the larger image's size")


def daemon_dies(tap, daemon):
    """A guest that runs on must not find a clean disk in its session."""
    daemon.kill()
    daemon.start()
    tap.ok(daemon.waits_to_say("'system' waits for vdisk-reset"),
           "daemon: restarted under a guest, it does not let it in again")


def run_tests(tap, world):
    larger = make_disks(world)
    with Daemon(world.program("storage-daemon/qemu-storage-daemon"), world.folder) as daemon:
        daemon.reset()
        with VhostGuest(daemon, world.folder / "vhost-1.console", world.how) as guest:
            content = first_session(tap, daemon, guest)
            daemon.qmp.command("vdisk-assign", filename=str(larger), format="qcow2",
                               **{"node-name": "system"})
            guest.shutdown()
        daemon.reset()
        with VhostGuest(daemon, world.folder / "vhost-2.console", world.how) as guest:
            second_session(tap, guest, content)
            daemon_dies(tap, daemon)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks that upgrade.py is played with: stock ones on NBD, and pvs."""

import pathlib
import shutil
import sys
import time

from daemon import STOCK_QEMU

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from stores.nbd import VolatileStorageDaemon            # noqa: E402
from stores.process import StoreError, program, run     # noqa: E402

# In seconds: longer than any outage here, so that a stock client waits
RECONNECT = 600
# In bytes: of the label behind a private vDisk; of its journal, and of what the
# update window reserves of that
LABEL = 4096
JOURNAL = 384 << 20
RESERVE = 112 << 20


class Row:
    """A disk on a store, over TCP.

    master    raw image that the store's is made from
    volatile  False: the store forgets nothing, as a control

    elsewhere: whether the image is booted in standard image mode in the end
    """

    qemu = STOCK_QEMU
    elsewhere = False

    def __init__(self, master, folder, volatile=True):
        self.master = master
        self.folder = pathlib.Path(folder)
        self.image = self.folder / "store.image"
        self.make_image()
        self.store = self.make_store(volatile)

    def make_image(self):
        run(program("qemu-img"), "convert", "-f", "raw", "-O", "raw", self.master, self.image)

    def make_store(self, volatile):
        return VolatileStorageDaemon(self.image, tcp=True, volatile=volatile)

    def prepare(self):
        """What has to be made once the store is up."""

    def disk(self):
        """BlockdevOptions, node-name disk0."""
        raise NotImplementedError

    def before(self, guest, tell):
        """Before the upgrade begins."""

    def away(self, guest, tell):
        """The store is about to come back."""

    def after(self, guest, tell):
        """The guest is switched off, its disk is still open."""

    def nbd(self):
        return self.store.options(**{"reconnect-delay": RECONNECT})

    def check_image(self):
        """What is wrong with the image's format, or nothing."""
        return ""

    def raw_image(self, path):
        """What the store holds, as a raw image. The store is not up."""
        shutil.move(self.image, path)
        return path


class NbdRaw(Row):
    name = "nbd-raw"
    title = "stock QEMU, raw over NBD"

    def disk(self):
        return {"driver": "raw", "node-name": "disk0", "file": self.nbd()}


class NbdQcow2(Row):
    name = "nbd-qcow2"
    title = "stock QEMU, qcow2 over NBD"

    def make_image(self):
        run(program("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", self.master, self.image)
        # An NBD export does not grow
        with open(self.image, "r+b") as file:
            file.truncate(pathlib.Path(self.master).stat().st_size * 3 // 2)

    def disk(self):
        return {"driver": "qcow2", "node-name": "disk0", "file": self.nbd()}

    def check_image(self):
        try:
            run(program("qemu-img"), "check", "-f", "qcow2", self.image)
            return ""
        except StoreError as error:
            return str(error)

    def raw_image(self, path):
        run(program("qemu-img"), "convert", "-f", "qcow2", "-O", "raw", self.image, path)
        return path


class Pvs(Row):
    """pvs in private image mode: one store, a local copy, a reconnect buffer."""

    name = "pvs"
    title = "pvs, private image mode"
    qemu = program("qemu-system-x86_64")
    elsewhere = True

    def make_image(self):
        super().make_image()
        self.size = self.image.stat().st_size
        with open(self.image, "r+b") as file:
            file.truncate(self.size + LABEL)

    def make_store(self, volatile):
        return VolatileStorageDaemon(self.image, tcp=True, volatile=volatile, exclusive=True)

    def prepare(self):
        for role, size in (("copy", self.size), ("journal", JOURNAL)):
            run(program("qemu-img"), "create", "-f", "pvs", "-o",
                f"role={role},vdisk=debian,version=2", self.folder / f"{role}.pvs", size)

    def disk(self):
        files = {role: {"driver": "file", "filename": str(self.folder / f"{role}.pvs")}
                 for role in ("copy", "journal")}
        return {"driver": "pvs", "node-name": "disk0", "mode": "private", "vdisk": "debian",
                "version": 2, "stores": [self.store.options()], "file": files["copy"],
                "journal": files["journal"], "discard": "unmap"}

    def buffer(self, guest):
        return guest.qmp.command("query-vdisks")[0]["pvs"]["buffer"]

    def before(self, guest, tell):
        guest.job("vdisk-window-open", **{"node-name": "disk0", "reserve": RESERVE})
        tell("the update window is open: the guest needs no store until it has "
             f"written {RESERVE >> 20} MiB")

    def away(self, guest, tell):
        now = self.buffer(guest)
        tell(f"the buffer holds {now['lag-bytes'] >> 20} MiB that the store does not have, "
             f"for {now['lag-ms'] / 1000:.0f} s")

    def after(self, guest, tell):
        begin = time.monotonic()
        guest.job("vdisk-window-close", **{"node-name": "disk0"})
        guest.job("vdisk-drain", **{"node-name": "disk0"})
        now = self.buffer(guest)
        if now["lag-bytes"] or now["window"]:
            raise StoreError(f"not drained: {now}")
        tell(f"the update window is closed after {time.monotonic() - begin:.1f} s: the store "
             "has everything")

    def raw_image(self, path):
        path = super().raw_image(path)
        with open(path, "r+b") as file:
            file.truncate(self.size)
        return path


ROWS = {row.name: row for row in (NbdRaw, NbdQcow2, Pvs)}

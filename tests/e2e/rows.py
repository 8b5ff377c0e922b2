# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks that upgrade.py is played with: stock ones on NBD, and pvs."""

import pathlib
import shutil
import sys

from daemon import STOCK_QEMU

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from stores.nbd import VolatileStorageDaemon    # noqa: E402
from stores.process import program, run         # noqa: E402

# In seconds: longer than any outage here, so that a stock client waits
RECONNECT = 600


class Row:
    """A disk on a store, over TCP.

    master    raw image that the store's is made from
    volatile  False: the store forgets nothing, as a control
    """

    qemu = STOCK_QEMU

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

    def after(self, guest, tell):
        """The guest is switched off, its disk is still open."""

    def nbd(self):
        return self.store.options(**{"reconnect-delay": RECONNECT})

    def raw_image(self, path):
        """What the store holds, as a raw image."""
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

    def raw_image(self, path):
        run(program("qemu-img"), "convert", "-f", "qcow2", "-O", "raw", self.image, path)
        return path


ROWS = {row.name: row for row in (NbdRaw, NbdQcow2)}

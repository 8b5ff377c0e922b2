# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes a desktop somebody (UEFI variables, TPM, identity disk) outlives what
makes it forget: resets, pushes and rollbacks. By content."""

import hashlib
import os
import pathlib
import re
import shutil
import time

import definitions
import office
from sanitized import SLOWER

SIZE = 8 << 20
FIRMWARE = f"<loader readonly='yes' type='pflash'>{definitions.LOADER}</loader><nvram>{{}}</nvram>"
# Emulated on a busy machine
POWER_ON = 120 * SLOWER


def sums(world, name):
    """SHA-256 of each file that belongs to the desktop, by what it is."""
    uuid = re.search("<uuid>(.*)</uuid>", world.host.xml(name)).group(1)
    tpm = world.host.folder / "lib" / "swtpm" / uuid
    files = {"UEFI variables": world.vdi / f"{name}.nvram",
             "identity disk": world.vdi / f"{name}.cidata",
             **{f"TPM: {f.name}": f for f in sorted(tpm.rglob("*"))
                if f.is_file() and not f.name.startswith(".")}}
    return {what: hashlib.sha256(file.read_bytes()).hexdigest() for what, file in files.items()}


def differences(before, after):
    return [f"{what}: {before.get(what)} became {after.get(what)}"
            for what in sorted(before | after) if before.get(what) != after.get(what)]


def firmware_writes(desktop, file, master):
    """Power it on until its firmware has written variables; it writes some at each
    start. False if it does not."""
    desktop.start()
    end = time.monotonic() + POWER_ON
    while file.read_bytes() == master and time.monotonic() < end:
        time.sleep(0.2)
    desktop.destroy()
    return file.read_bytes() != master


class Place:
    """A store with two versions; a master VM with UEFI and a TPM."""

    def __init__(self, world):
        self.world = world
        self.store = office.Store(world.folder / "own-store", "own")
        self.master = pathlib.Path(definitions.VARIABLES).read_bytes()
        self.variables = world.folder / "own.fd"
        self.variables.write_bytes(self.master)
        for number in (1, 2):
            image = self.store.vdisk / f"{number}.raw"
            image.write_bytes(os.urandom(SIZE))
            self.store.add(image.name, SIZE, "raw")

    def image(self, number):
        return str(self.store.vdisk / f"{number}.raw")

    def desktop(self, run, name, bus):
        catalog = f"own-{run}"
        master = office.master_xml(
            f"{catalog}-gold", self.world.how, self.image(1), self.world.folder,
            devices=definitions.TPM, firmware=FIRMWARE.format(self.variables))
        office.make_catalog(self.world.host, master, office.catalog_xml(
            catalog, "own", self.store.folder, self.world.vdi, run=run))
        self.world.create(catalog, name, "--version", "1", bus=bus)
        return self.world.desktop(name)


def reset(desktop, run):
    """Its own way to forget; true if it has."""
    before = desktop.disk()["resets"]
    if run == "vhost-user":
        desktop.destroy()
        desktop.start("--paused")
        return desktop.disk()["resets"] == 1
    desktop.host.virsh("reset", desktop.name)
    end = time.monotonic() + 20
    while desktop.disk()["resets"] == before:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def outlive(tap, here, run, name, bus):
    world, catalog = here.world, f"own-{run}"
    desktop = here.desktop(run, name, bus)
    tap.ok(firmware_writes(desktop, world.vdi / f"{name}.nvram", here.master),
           f"{run}: the firmware writes UEFI variables of the desktop's own")
    before = sums(world, name)
    tap.ok(len(before) >= 3 and any(what.startswith("TPM") for what in before),
           f"{run}: it has UEFI variables, an identity disk and the state of a TPM", before)
    # Paused: what changes now is not changed by the guest
    desktop.start("--paused")
    for what, command, number in (("a reset", None, 1), ("a push", ("push", catalog, "2"), 2),
                                  ("a rollback", ("rollback", catalog), 1)):
        said = world.command(*command).stdout if command else ""
        forgot = reset(desktop, run)
        disk = desktop.disk()
        tap.ok(forgot and disk["image"]["filename"] == here.image(number),
               f"{run}: {what}: it has forgotten, and is on version {number}",
               f"{said}{disk}\n{world.host.said(name)}")
        wrong = differences(before, sums(world, name))
        tap.ok(not wrong, f"{run}: {what}: all that belongs to it is as it was, by SHA-256",
               "\n".join(wrong))
    desktop.destroy()
    wrong = differences(before, sums(world, name))
    tap.ok(not wrong, f"{run}: switched off, too", "\n".join(wrong))
    world.command("desktop", "rm", name)


def run_tests(tap, world):
    if not (os.path.exists(definitions.LOADER) and shutil.which("swtpm")):
        tap.skip("what belongs to a desktop", "no ovmf, or no swtpm")
        return
    here = Place(world)
    for run, name, bus in (("in-process", "o1", "scsi"), ("vhost-user", "o2", "sata")):
        outlive(tap, here, run, name, bus)

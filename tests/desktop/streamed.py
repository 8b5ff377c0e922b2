# SPDX-License-Identifier: GPL-2.0-or-later
"""Desktops that stream: the wanted version goes into the write cache's header."""

import os
import re

import host as hosts
import office

SIZE = 8 << 20


def seal(store, number):
    """Content and tree of a version; its root hash."""
    image, tree = store.vdisk / f"{number}.raw", store.vdisk / f"{number}.tree"
    image.write_bytes(os.urandom(SIZE))
    said = hosts.run("/usr/sbin/veritysetup", "format", "--salt", "00", image, tree).stdout
    return re.search(r"Root hash:\s+(\w+)", said).group(1)


def serve(world, store, numbers):
    """The store's exports, as `deskcast store serve` names them."""
    argv = []
    for number in numbers:
        for end, name in (("raw", ""), ("tree", ".tree")):
            node = f"{end}{number}"
            argv += ["--blockdev", f"file,node-name={node},read-only=on,"
                     f"filename={store.vdisk / f'{number}.{end}'}", "--export",
                     f"nbd,id={node},node-name={node},name=film@{number}{name}"]
    return hosts.StorageDaemon(world.programs["qemu-storage-daemon"],
                               world.folder / "streamed.sock", *argv)


def runs_on(desktop):
    desktop.start("--paused")
    info = desktop.disk()["pvs"]
    desktop.destroy()
    return info["version"], info.get("verity-root")


def want(world, name, number, root):
    text = re.sub("<(wanted|previous)[^>]*/>", "", world.host.metadata(name))
    world.host.set_metadata(name, text.replace(
        "</desktop>", f"<wanted number='{number}' size='{SIZE}' root='{root}'/></desktop>"))


def run_tests(tap, world):
    store = office.Store(world.folder / "film-store", "film")
    roots = {}
    for number in (1, 2):
        roots[number] = seal(store, number)
        store.add(f"{number}.raw", SIZE, "raw", root=roots[number])
    source = f"<source uri='nbd+unix:///?socket={world.folder}/streamed.sock'/>"
    with serve(world, store, (1, 2)) as server:
        for run, name, bus in (("in-process", "s1", "scsi"), ("vhost-user", "s2", "sata")):
            office.make_catalog(
                world.host, office.master_xml(f"gold-{name}", world.how, store.vdisk / "1.raw",
                                              world.folder),
                office.catalog_xml(f"film-{run}", "film", store.folder, world.vdi, model="pvs",
                                   run=run, content=source))
            world.create(f"film-{run}", name, "--version", "1", bus=bus)
            desktop = world.desktop(name)
            found = runs_on(desktop)
            tap.ok(found == (1, roots[1]), f"pvs, {run}: it starts on the version, verified",
                   str(found) + world.host.said(name))
            want(world, name, 2, roots[2])
            found = runs_on(desktop)
            tap.ok(found == (2, roots[2]), f"pvs, {run}: after a push it starts on the next one",
                   str(found) + world.host.said(name))
            want(world, name, 3, "ab" * 32)
            found = runs_on(desktop)
            tap.ok(found == (2, roots[2]), f"pvs, {run}: a version that no store has: it stays",
                   str(found) + world.host.said(name))
            want(world, name, 1, roots[1])
            found = runs_on(desktop)
            tap.ok(found == (1, roots[1]), f"pvs, {run}: and goes back when told",
                   str(found) + world.host.said(name))
        assert server.process.poll() is None
    world.command("desktop", "rm", "s1", "s2")

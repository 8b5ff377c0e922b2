# SPDX-License-Identifier: GPL-2.0-or-later
"""The formulas of docs/operations/sizing.rst, against files that are made."""

import json
import os
import pathlib
import re
import subprocess
import tempfile

import manual

BUILD = pathlib.Path(os.environ.get("DESKCAST_BUILD") or manual.TOP / "build")
QEMU_IMG = BUILD / "qemu/qemu-img"
QSD = BUILD / "qemu/storage-daemon/qemu-storage-daemon"
DESKCAST = BUILD / "deskcast/cli/deskcast"
PAGE = manual.DOCS / "operations/sizing.rst"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def run(*argv, **kwargs):
    return subprocess.run([str(a) for a in argv], check=True, text=True, timeout=120,
                          stdin=kwargs.pop("stdin", subprocess.DEVNULL), capture_output=True,
                          env={**os.environ, "DESKCAST_QEMU_IMG": str(QEMU_IMG),
                               "DESKCAST_QSD": str(QSD)}, **kwargs).stdout


def qmp(blockdev, *commands):
    """What the storage daemon answers to commands with that node"""
    lines = [{"execute": "qmp_capabilities"}, *commands, {"execute": "quit"}]
    said = run(QSD, "--blockdev", json.dumps(blockdev), "--chardev", "stdio,id=m",
               "--monitor", "chardev=m", stdin=None,
               input="".join(json.dumps(c) + "\n" for c in lines))
    answers = [json.loads(line) for line in said.splitlines()]
    return [a for a in answers if "return" in a or "error" in a][1:-1]


def says(formula):
    """The page has it"""
    if formula not in " ".join(PAGE.read_text(encoding="utf-8").split()):
        return [f"the page does not have '{formula}' any more"]
    return []


def tree_bytes(size):
    return -(-size // 127 // 4096) * 4096 + 8 * KIB


def make_store(folder, size):
    """A store with one sparse version; its tree"""
    store, image = folder / f"store-{size}", folder / f"{size}.raw"
    with open(image, "wb") as f:
        f.truncate(size)
    run(DESKCAST, "store", "create", store)
    run(DESKCAST, "vdisk", "import", image, "gold", "--store", store)
    version = json.loads(run(DESKCAST, "vdisk", "show", "gold", "1", "--json", "--store", store))
    return store / "vdisks/gold/1.tree", version["root"]


def trees(folder):
    """a tree takes what the page says, or less by a block or two"""
    wrong = says("*D* / 127, rounded up to 4 KiB, and 8 KiB")
    for size in (4 * MIB, 160 * MIB):
        tree, _ = make_store(folder, size)
        made = tree.stat().st_size
        if not tree_bytes(size) - 12 * KIB <= made <= tree_bytes(size):
            wrong.append(f"{size}: {made}, not {tree_bytes(size)}")
    return wrong


def volumes(folder):
    """a desktop's disk on a volume takes what the page says"""
    wrong = says("*D* + 65 MiB, for up to 256 GiB")
    for size in (GIB, 256 * GIB):
        disk = folder / f"{size}.mcs"
        run(QEMU_IMG, "create", "-f", "mcs", disk, size)
        made = disk.stat().st_size
        if made != size + 65 * MIB:
            wrong.append(f"{size}: {made}")
    return wrong


def live_maps(folder):
    """a live map takes what the page says"""
    wrong = says("3 × (*D* + *T*) / 32768 + 4 KiB")
    size = 160 * MIB
    tree = folder / f"store-{size}/vdisks/gold/1.tree"
    shown = json.loads(run(DESKCAST, "vdisk", "show", "gold", "1", "--json", "--store",
                           folder / f"store-{size}"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("DESKCAST_SHM", "/dev/shm")) as shm:
        live = pathlib.Path(shm) / "map"
        node = {"driver": "pvs", "node-name": "n", "read-only": True, "vdisk": "gold",
                "version": 1, "size": size, "verity-root": shown["root"],
                "verity-tree": {"driver": "file", "filename": str(tree)},
                "stores": [{"driver": "file", "filename": str(tree.with_name("1.raw"))}],
                "host-cache": str(folder / "cache"), "host-cache-map": str(live)}
        qmp(node, {"execute": "query-vdisks"})
        made = live.stat().st_size
    told = 3 * (size + tree.stat().st_size) / 32768 + 4 * KIB
    # Both maps are whole pages
    if not told <= made < told + 8 * KIB:
        wrong.append(f"{made}, not {told}")
    return wrong


def reserves(folder):
    """what can be reserved of a reconnect buffer is what the page says"""
    wrong = says("*S* × 5/16")
    buffer, image, size = 16 * MIB, folder / "private.raw", 4 * MIB
    with open(image, "wb") as f:
        f.truncate(size + 4096)
    for role, length in (("copy", size), ("journal", buffer)):
        run(QEMU_IMG, "create", "-f", "pvs", "-o", f"role={role},vdisk=gold,version=2",
            folder / role, length)
    node = {"driver": "pvs", "node-name": "n", "mode": "private",
            "stores": [{"driver": "file", "filename": str(image), "locking": "on"}],
            "file": {"driver": "file", "filename": str(folder / "copy")},
            "journal": {"driver": "file", "filename": str(folder / "journal")}}
    open_window = {"execute": "vdisk-window-open",
                   "arguments": {"node-name": "n", "reserve": buffer}}
    said = qmp(node, open_window)[0]["error"]["desc"]
    if int(re.search(r"can hold (\d+) bytes", said)[1]) != buffer * 5 // 16:
        wrong.append(said)
    return wrong


def tests(folder):
    return manual.bind("sizes", folder, trees, volumes, live_maps, reserves)

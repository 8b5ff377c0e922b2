# SPDX-License-Identifier: GPL-2.0-or-later
"""A private vDisk has one writer; and what it has not shipped is told."""

import fcntl
import os
import pathlib
import re
import time

import host as hosts
import office

SIZE = 64 << 20
LABEL = 4096


def serve(world, image):
    """A store that serves the maintenance version to one writer."""
    return hosts.StorageDaemon(
        world.programs["qemu-storage-daemon"], world.folder / "store.sock",
        "--blockdev", f"file,node-name=f,filename={image}",
        "--export", "nbd,id=w,node-name=f,name=app@1,writable=on,exclusive=on",
        "--export", "nbd,id=r,node-name=f,name=app@1.label")


def make_catalog(world):
    store = office.Store(world.folder / "private-store", "app")
    image = store.vdisk / "1.raw"
    with open(image, "wb") as file:
        file.truncate(SIZE + LABEL)
    store.add("1.raw", SIZE, "raw", access="maintenance", label=True)
    office.make_catalog(
        world.host,
        office.master_xml("private-gold", world.how, image, world.folder),
        office.catalog_xml("private", "app", store.folder, world.vdi, model="pvs",
                           lifetime="private",
                           content=f"<source uri='nbd+unix:///?socket={world.folder}/store.sock'/>"
                           "<each write-cache='67108864'/>"))
    return image


def one_writer(tap, world):
    one, two = world.desktop("p1"), world.desktop("p2")
    one.start("--paused")
    info = one.disk()["pvs"]
    tap.ok(info["mode"] == "private" and info["buffer"]["size"] > 60 << 20,
           "it starts with a local copy and a reconnect buffer, which the hook makes", info)
    done = world.host.virsh("start", "p2", "--paused", check=False)
    tap.ok(done.returncode and "app@1 has a writer: desktop 'p1' on host" in done.stderr,
           "a second writer is refused, and told who the first one is", done.stderr)
    one.destroy()
    tap.ok("the store has all that was written" in world.host.said("p1"),
           "at its end the hook says that nothing is left to ship", world.host.said("p1"))
    two.start("--paused")
    tap.ok(two.disk()["pvs"]["mode"] == "private", "then the second one may")
    two.destroy()
    return world.vdi / ".app@1.writer"


def notes(tap, world, note):
    """Whom a note keeps out: not everybody for ever."""
    one = world.desktop("p1")
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    here = os.uname().nodename
    other = "11111111-2222-3333-4444-555555555555"
    for text, age, said, may in (
            (f"{here}\n{boot}\nnobody\n{other}\n", 3600, "a desktop that does not run", True),
            (f"{here}\n{boot}\nnobody\n{other}\n", 36, "a desktop whose buffer is made", False),
            (f"{here}\n{other}\np2\n{other}\n", 3600, "an earlier boot of the host", True),
            (f"{here}\n{boot}", 3600, "a note that is torn", True),
            (f"far\n{boot}\np2\n{other}\n", 3600, "a desktop on another host", False)):
        note.write_text(text)
        os.utime(note, (time.time() - age, time.time() - age))
        done = world.host.virsh("start", "p1", "--paused", check=False)
        tap.ok((done.returncode == 0) == may, f"the note of {said}: "
               f"{'it starts' if may else 'it does not start'}", done.stderr)
        if may:
            one.destroy()
    note.unlink()


def at_once(tap, world, note):
    """Two are started at the same time: the hook of the other one has the note."""
    note.touch()
    with open(note, "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = world.host.virsh("start", "p1", "--paused", check=False)
        tap.ok(done.returncode and "is being given a writer just now" in done.stderr,
               "while another one is being started, none starts", done.stderr)
    one = world.desktop("p1")
    one.start("--paused")
    one.destroy()
    note.unlink()


def slow_disk(tap, world):
    """A reconnect buffer is written whole, and has more time than all else. On a slow
    disk that is not enough: the hook is over in time, and says what helps."""
    real, fake = world.host.libexec / "real" / "qemu-img", world.host.libexec / "qemu-img"
    real.parent.mkdir()
    real.parent.chmod(0o755)
    fake.rename(real)
    fake.write_text(f"""#!/bin/sh
case $* in
*role=journal*) exec strace -f -qq -o /dev/null -e trace=write \\
    -e inject=write:delay_enter=500000 {real} "$@" ;;
*) exec {real} "$@" ;;
esac
""")
    fake.chmod(0o755)
    done = world.host.virsh("start", "p3", "--paused", check=False)
    real.rename(fake)
    took = re.search(r"start took ([0-9.]+) ms", world.host.said("p3"))
    seconds = float(took.group(1)) / 1000 if took else 0
    tap.ok(done.returncode and 20 < seconds < 30 and "'%s/p3.journal' could not be made in the 30 s" %
           world.vdi in done.stderr, "a disk too slow for its reconnect buffer: refused after "
           f"{seconds:.1f} s, and told why", done.stderr + world.host.said("p3"))
    left = sorted(f.name for f in world.vdi.iterdir() if f.name.startswith("p3.j"))
    tap.ok(not left, "nothing half made is left", left)
    line = re.search(r"once, and start the desktop again: (\(.*\))$", done.stderr, re.M)
    hosts.run("sh", "-c", line.group(1) if line else "exit 1")
    three = world.desktop("p3")
    three.start("--paused")
    info = three.disk()["pvs"]
    tap.ok(info["mode"] == "private" and info["buffer"]["size"] > 60 << 20,
           "made by the command that it says, the desktop starts on it", info)
    three.destroy()


def undrained(tap, world):
    """The store goes away; the guest writes; the desktop ends."""
    one = world.desktop("p1")
    journal = world.vdi / "p1.journal"
    with serve(world, world.image):
        one.start("--paused")
        one.destroy()
    hosts.run(world.programs["qemu-io"], "-c", "write -P 0x5a 1M 256k", "-c", "flush",
              "json:" + blockdev(world, "p1"))
    one.start("--paused")
    one.destroy()
    shown = hosts.run(world.deskcast, "journal", "show", journal).stdout
    tap.ok("262144 bytes were written that the store does not have" in world.host.said("p1"),
           "with the store away, the hook says how much is left, and what to do",
           world.host.said("p1") + shown)


def blockdev(world, name):
    """The disk as QEMU gets it, without what needs a device."""
    line = world.host.xml(name)
    text = line.split("-blockdev'/>")[1].split("value='")[1].split("'/>")[0]
    return text.replace("&quot;", '"')


def run_tests(tap, world):
    world.image = make_catalog(world)
    world.create("private", "p1", "p2", "p3")
    with serve(world, world.image):
        note = one_writer(tap, world)
        notes(tap, world, note)
        at_once(tap, world, note)
        slow_disk(tap, world)
    undrained(tap, world)
    world.command("desktop", "rm", "--yes", "p1", "p2", "p3")
    left = [f.name for f in world.vdi.iterdir() if f.name.startswith("p")]
    tap.ok(not left, "rm --yes takes all of them away", left)

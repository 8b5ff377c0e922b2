# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook: a disk at the first start, the wanted version at each; and what goes
wrong does not keep a desktop from starting."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time


def want(world, name, number, image, size, form):
    text = re.sub("<(wanted|previous)[^>]*/>", "", world.host.metadata(name))
    world.host.set_metadata(name, text.replace(
        "</desktop>", f"<wanted number='{number}' size='{size}' image='{image}' "
        f"format='{form}'/></desktop>"))


def runs_on(desktop):
    """Start it, see what it runs on, end it."""
    desktop.start("--paused")
    disk = desktop.disk()
    desktop.destroy()
    return disk["image"]["filename"]


def in_qemu(tap, world, first, second, size):
    one = world.desktop("w1")
    started = time.monotonic()
    one.start("--paused")
    tap.diag(f"the first start took {time.monotonic() - started:.2f} s")
    tap.ok("made" in world.host.said("w1"), "the hook makes the disk at the first start",
           world.host.said("w1"))
    disk = one.disk()
    tap.ok(disk["image"]["filename"] == first and disk["lifetime"] == "pooled" and
           disk["resets"] >= 1, "it runs on the version that is wanted", disk)
    line = world.host.command_line("w1")
    sandbox = line[line.index("-sandbox") + 1]
    tap.ok("spawn=deny" in sandbox and "elevateprivileges=deny" in sandbox and
           world.host.sandboxed("w1"),
           "QEMU is in its sandbox", sandbox)
    one.destroy()
    want(world, "w1", 2, second, size, "qcow2")
    tap.ok(runs_on(one) == second, "after a push it starts on the new version",
           world.host.said("w1"))
    want(world, "w1", 1, first, world.size, "raw")
    tap.ok(runs_on(one) == second, "it cannot shrink, and stays on what it has")
    tap.ok("smaller than the disk" in world.host.said("w1"), "and says so",
           world.host.said("w1"))


def not_in_the_way(tap, world, first, second, size):
    """Each failure of the hook, and the desktop starts on what it has."""
    two = world.desktop("w2")
    runs_on(two)
    want(world, "w2", 3, "/nowhere/3.raw", size, "raw")
    tap.ok(runs_on(two) == first and "cannot read the image" in world.host.said("w2"),
           "an image that is not there: it stays on the old one", world.host.said("w2"))
    good = world.host.metadata("w2")
    for text, said in (("<desktop format='2'/>", "newer"), ("<desktop format='1'/>", "needs"),
                       (good.replace("node=", "nose="), "nose")):
        world.host.set_metadata("w2", text)
        tap.ok(runs_on(two) == first and said in world.host.said("w2"),
               f"metadata that says '{text[:24]}…': it starts all the same",
               world.host.said("w2"))
    world.host.set_metadata("w2", good)
    want(world, "w2", 2, second, size, "qcow2")
    (world.host.libexec / "qemu-img").rename(world.host.libexec / "away")
    tap.ok(runs_on(two) == second, "without qemu-img: a desktop that has its disk starts")
    done = world.host.virsh("start", "w3", check=False)
    tap.ok(done.returncode and "it has no disk" in done.stderr,
           "and one that has none is told why", done.stderr)
    (world.host.libexec / "away").rename(world.host.libexec / "qemu-img")
    (world.vdi / "w3.cidata").unlink()
    tap.ok(runs_on(world.desktop("w3")) == first and "made anew" in world.host.said("w3"),
           "an identity disk that was lost is made again", world.host.said("w3"))


def stuck(tap, world):
    """A program of the hook that never ends is given up in time."""
    (world.vdi / "w2.cidata").unlink()
    real, fake = world.host.libexec / "deskcast-hook", world.host.libexec / "hook"
    real.rename(fake)
    real.write_text(f"#!/bin/sh\nexec env PATH={world.folder}/slow:$PATH {fake} \"$@\"\n")
    real.chmod(0o755)
    slow = world.folder / "slow"
    slow.mkdir()
    (slow / "xorriso").write_text("#!/bin/sh\nexec sleep 60\n")
    (slow / "xorriso").chmod(0o755)
    began = time.monotonic()
    done = world.host.virsh("start", "w2", "--paused", check=False)
    took = time.monotonic() - began
    tap.ok(took < 8, f"a hook that hangs is over after {took:.1f} s", done.stderr)
    fake.replace(real)
    world.host.virsh("destroy", "w2", check=False)
    tap.ok(runs_on(world.desktop("w2")), "and the desktop starts when the cause is gone")


def elsewhere(tap, world):
    """Its disk is a link to another file system, which is mounted or is not."""
    disk, away = world.vdi / "w2.mcs", world.folder / "w2.away"
    disk.rename(away)
    disk.symlink_to(away)
    tap.ok(runs_on(world.desktop("w2")), "a disk that is a link: it starts")
    away.rename(world.folder / "w2.gone")
    done = world.host.virsh("start", "w2", "--paused", check=False)
    tap.ok(done.returncode and "is its file system mounted?" in done.stderr and disk.is_symlink(),
           "a link to what is not there: no new disk takes its place", done.stderr)
    disk.unlink()
    (world.folder / "w2.gone").rename(disk)


def hook_under_fuse(world, xml, folder, *how):
    """The hook's call before a start, with a FUSE of mutefs.py's on the folder."""
    folder.mkdir()
    os.makedirs("/run/deskcast", exist_ok=True)
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c",
         f"mount --bind {world.host.folder}/deskcast /run/deskcast && exec \"$@\"", "sh",
         sys.executable, pathlib.Path(__file__).with_name("mutefs.py"), *how, folder,
         world.host.libexec / "deskcast-hook", "w2", "start", "begin", "-"],
        input=xml, text=True, capture_output=True, check=False)
    return done, time.monotonic() - began


def mute(tap, world):
    """The disk is on a server that is gone: not even a signal gets through."""
    if not os.path.exists("/dev/fuse"):
        tap.skip("a file system that does not answer", "no FUSE here")
        return
    folder = world.folder / "mute"
    xml = world.host.xml("w2").replace(f"{world.vdi}/w2.mcs", f"{folder}/w2.mcs")
    done, took = hook_under_fuse(world, xml, folder)
    tap.ok(done.returncode == 0 and 4 < took < 8 and "gave up" in world.host.said("w2"),
           f"a file system that does not answer: the hook is over after {took:.1f} s, and "
           "lets libvirt go on", f"{done}\n{world.host.said('w2')}")


def sunk(tap, world):
    """A program of the hook waits for a disk that hangs, and cannot even be killed."""
    if not os.path.exists("/dev/fuse"):
        tap.skip("a program that cannot be killed", "no FUSE here")
        return
    folder, disk, away = (world.folder / "sunk", world.vdi / "w2.mcs", world.folder / "w2.away")
    real, fake = world.host.libexec / "away", world.host.libexec / "qemu-img"
    fake.rename(real)
    fake.write_text(f"#!/bin/sh\nexec cat {folder}/x\n")
    fake.chmod(0o755)
    disk.rename(away)
    done, took = hook_under_fuse(world, world.host.xml("w2"), folder, "--sunk")
    away.rename(disk)
    real.rename(fake)
    tap.ok(done.returncode == 1 and took < 8 and "could not be made in the 5 s" in done.stderr,
           f"a program that cannot be killed: the hook is over after {took:.1f} s, and says what "
           "it did not make", f"{done}\n{world.host.said('w2')}")


def behind(tap, world, first, second, size):
    """The same with a storage daemon."""
    pid = world.host.folder / "deskcast" / "b1" / "daemon.pid"
    one = world.desktop("b1")
    one.start("--paused")
    number = int(pid.read_text())
    disk = one.disk()
    tap.ok(disk["image"]["filename"] == first and disk["admits-clients"] and
           disk["resets"] == 1, "vhost-user: a daemon has the disk, and has reset it", disk)
    user = hostuid(number)
    tap.ok(user == hostuid(world.host.pid("b1")) and user != 0,
           "vhost-user: it runs as QEMU's user", user)
    one.destroy()
    tap.ok(not pid.exists() and ends(number), "vhost-user: it ends with the desktop",
           world.host.said("b1"))
    want(world, "b1", 2, second, size, "qcow2")
    tap.ok(runs_on(one) == second, "vhost-user: after a push it starts on the new version",
           world.host.said("b1"))
    one.start("--paused")
    number = int(pid.read_text())
    world.host.virsh("destroy", "b1")
    tap.ok(ends(number), "vhost-user: a second session ends, too")
    one.start("--paused")
    number = int(pid.read_text())
    os.kill(number, signal.SIGSTOP)
    world.host.virsh("destroy", "b1")
    tap.ok(alive(number) and "its storage daemon: " in world.host.said("b1"),
           "vhost-user: of a daemon that hangs the hook says so", world.host.said("b1"))
    tap.ok(runs_on(one) == second and ends(number),
           "vhost-user: it is ended when the desktop starts again", world.host.said("b1"))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def ends(pid):
    """Its pid file goes before it does, but not long before."""
    deadline = time.monotonic() + 5
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def hostuid(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"Uid:\s+(\d+)", file.read()).group(1))


def run_tests(tap, world):
    first = str(world.store.vdisk / "1.raw")
    world.catalog("wave")
    world.create("wave", "w1", "w2", "w3", "--version", "1")
    world.catalog("wall", run="vhost-user")
    world.create("wall", "b1", "--version", "1", bus="sata")
    image, _, size = world.second_version()
    in_qemu(tap, world, first, str(image), size)
    not_in_the_way(tap, world, first, str(image), size)
    stuck(tap, world)
    elsewhere(tap, world)
    mute(tap, world)
    sunk(tap, world)
    behind(tap, world, first, str(image), size)
    world.command("desktop", "rm", "w1", "w2", "w3", "b1")

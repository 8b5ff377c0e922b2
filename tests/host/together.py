# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands at the same time: none undoes what another has done."""

import fcntl
import os
import re
import stat
import subprocess

import lab
from lab import check, until

MASTER = """<domain type='qemu'><name>{name}</name><metadata>{element}</metadata>
  <memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices><emulator>{emulator}</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='{image}'/><target dev='vda' bus='virtio'/></disk>
  </devices></domain>"""


class Office(lab.Lab):
    def __init__(self):
        super().__init__()
        self.make_store("win11", {12: "production"})
        host = self.kvm1 = self.host("kvm1")
        self.define("master", self.catalog_element(),
                    'write-cache="4294967296"')
        self.define("streamed", self.catalog_element("lab", model="pvs"),
                    'bandwidth="4194304"')
        self.define("unbounded", self.catalog_element("open", model="pvs"), "")
        host.start()
        self.list_hosts()

    def define(self, name, element, each):
        end = "</deskcast:catalog>"
        if each:
            element = element.replace(end, f"<deskcast:each {each}/>{end}")
        self.kvm1.define(name, MASTER.format(
            name=name, element=element, emulator=lab.QEMU,
            image=self.image("win11", 12)))

    def begin(self, *args, **env):
        return subprocess.Popen(
            [lab.DESKCAST, *args], stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "DESKCAST_EMULATOR": lab.QEMU, **env})

    def create(self, *names):
        return self.begin("desktop", "create", "office", *names, "--hosts",
                          self.hosts_file)

    def files(self):
        return sorted(os.listdir(os.path.join(self.folder, "desktops")))

    def desktops(self):
        return sorted(set(self.kvm1.virsh("list", "--all", "--name").stdout
                          .split()) - {"master", "streamed", "unbounded"})


class Held:
    """The list of hosts is locked; what begins meanwhile waits for it"""

    def __init__(self, office):
        self.path = office.hosts_file

    def __enter__(self):
        self.file = open(self.path, encoding="utf-8")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        self.file.close()

    def wait_for(self, *processes):
        for process in processes:
            said = process.stderr.readline()
            check("waiting for it" in said, said)


def ends(processes):
    """(status, what it said) of each"""
    said = [p.communicate(timeout=90) for p in processes]
    return [(p.returncode, out + err) for p, (out, err) in zip(processes, said)]


def drains(o):
    def test():
        """hosts drained at the same time: the list has them all"""
        names = [f"h{i}" for i in range(6)]
        o.list_hosts(more="# kept\n" + "".join(
            f"[{n}]\nuri=test:///default\n" for n in names))
        with Held(o) as held:
            processes = [o.begin("host", "drain", n, "--hosts", o.hosts_file)
                         for n in names]
            held.wait_for(*processes)
        for status, said in ends(processes):
            check(status == 0, said)
        with open(o.hosts_file, encoding="utf-8") as f:
            text = f.read()
        check(text.count("drained=true") == len(names), text)
        check("# kept" in text, text)
        o.list_hosts()
    return test


def stays_a_link(o):
    def test():
        """a list that is a link stays one, and its mode stays"""
        real = os.path.join(o.folder, "real.conf")
        os.rename(o.hosts_file, real)
        os.symlink("real.conf", o.hosts_file)
        os.chmod(real, 0o640)
        o.run("host", "drain", "kvm1").expect(0)
        mode = stat.S_IMODE(os.stat(real).st_mode)
        check(os.path.islink(o.hosts_file) and mode == 0o640, oct(mode))
        o.run("desktop", "create", "office", "none").expect(1, "is drained")
        o.run("host", "undrain", "kvm1").expect(0)
        os.unlink(o.hosts_file)
        os.rename(real, o.hosts_file)
    return test


def caps(o):
    def test():
        """desktops made at the same time do not break the cap of a host"""
        o.list_hosts(more="write-cache=10G\n")
        with Held(o) as held:
            processes = [o.create(f"cap{i}") for i in range(3)]
            held.wait_for(*processes)
        found = ends(processes)
        check(sorted(s for s, _ in found) == [0, 0, 1], found)
        check(all("10 GiB of disk" in said for s, said in found if s), found)
        check(len(o.desktops()) == 2, o.desktops())
        o.run("desktop", "rm", *o.desktops()).expect(0)
    return test


def relay_cap(o):
    def test():
        """streamed desktops do not break the cap of their host's relay"""
        env = {"DESKCAST_EMULATOR": lab.QEMU}
        o.list_hosts(more="relay-bandwidth=10M\n")
        o.run("desktop", "create", "lab", "s1", "s2", **env).expect(0)
        o.run("desktop", "create", "lab", "s3", **env).expect(
            1, "10 MiB of relay bandwidth a second", "8 MiB of it is taken")
        o.run("desktop", "create", "open", "s3", **env).expect(1, "--bandwidth")
        o.run("host", "list").expect(0, "8 MiB of 10 MiB")
        o.run("desktop", "rm", "s1", "s2").expect(0)
        o.list_hosts()
        o.run("desktop", "create", "open", "s3", **env).expect(0)
        o.run("desktop", "rm", "s3").expect(0)
    return test


def slow_xorriso(o, name):
    """Waits for the file "go", and says that it does"""
    folder = os.path.join(o.folder, name)
    os.makedirs(folder)
    path = os.path.join(folder, "xorriso")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"#!/bin/sh\n: >{folder}/waits.$$\n"
                f"while [ ! -e {folder}/go ]; do sleep 0.05; done\n"
                'PATH=${PATH#*:} exec xorriso "$@"\n')
    os.chmod(path, 0o755)
    return folder


def one_name(o):
    def test():
        """two make a desktop of one name: the second leaves the first's files"""
        slow = slow_xorriso(o, "slow-twin")
        processes = [o.begin("desktop", "create", "office", "twin", "--connect",
                             o.kvm1.uri, PATH=f"{slow}:{os.environ['PATH']}")
                     for _ in range(2)]
        until("two that make an identity disk", lambda: len(
            [n for n in os.listdir(slow) if n.startswith("waits")]) == 2)
        open(os.path.join(slow, "go"), "w", encoding="utf-8").close()
        found = ends(processes)
        check(sorted(s for s, _ in found) == [0, 1], found)
        check(any("is there already" in said or "of that name" in said
                  for s, said in found if s), found)
        check(o.files() == ["twin.cidata"], o.files())
        uuid = o.kvm1.virsh("domuuid", "twin").stdout.strip()
        with open(os.path.join(o.folder, "desktops/twin.cidata"), "rb") as f:
            identity = re.findall(rb"instance-id: (\S+)", f.read())
        check(identity == [uuid.encode()], identity, uuid)
        o.run("desktop", "rm", "twin").expect(0)
        check(not o.files(), o.files())
    return test


def refused_name(o):
    def test():
        """a name that libvirt refuses leaves no identity disk behind"""
        slow = slow_xorriso(o, "slow-late")
        process = o.begin("desktop", "create", "office", "late", "--connect",
                          o.kvm1.uri, PATH=f"{slow}:{os.environ['PATH']}")
        until("one that makes an identity disk",
              lambda: len(os.listdir(slow)) > 1)
        path = os.path.join(o.folder, "late.xml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(lab.domain("late"))
        o.kvm1.virsh("define", path)
        open(os.path.join(slow, "go"), "w", encoding="utf-8").close()
        (status, said), = ends([process])
        check(status == 1 and "libvirt does not take it" in said, said)
        check(not o.files(), o.files())
    return test


def main():
    with Office() as o:
        return lab.run_tests(make(o) for make in (
            drains, stays_a_link, caps, relay_cap, one_name, refused_name))

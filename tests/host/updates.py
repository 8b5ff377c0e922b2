# SPDX-License-Identifier: GPL-2.0-or-later
"""Both update stories: a master VM writes a version, which is pushed.

The master's guest is a boot sector that writes itself to sector 2: that is
what it installs. All other bytes stay as they are.
"""

import os
import subprocess
import threading
import time

import lab
from lab import check, deskcast, until

SIZE = 1 << 20


class Site(lab.Lab):
    """A store with version 1 in production, one host, a master VM"""

    def __init__(self):
        super().__init__()
        deskcast("store", "create", self.store).expect(0)
        self.content = lab.guest(True).ljust(SIZE, b"\0")
        # Of the guest alone: with what it installs, all but that is the same
        self.installed = bytearray(self.content)
        self.installed[1024:1536] = self.content[:512]
        with open(self.path("source.raw"), "wb") as f:
            f.write(self.content)
        deskcast("vdisk", "import", self.path("source.raw"), "deb", "--store",
                 self.store).expect(0)
        deskcast("version", "promote", "deb", "--store", self.store).expect(0)
        self.kvm1 = self.host("kvm1")
        os.makedirs(self.path("desktops"))

    def path(self, name):
        return os.path.join(self.folder, name)

    def master(self):
        """Its own disk is another one: it must not be touched"""
        with open(self.path("own.raw"), "wb") as f:
            f.write(lab.guest(False).ljust(SIZE, b"\0"))
        disk = (f"<disk type='file' device='disk'><driver name='qemu' "
                f"type='raw'/><source file='{self.path('own.raw')}'/>"
                f"<target dev='vda' bus='virtio'/><boot order='1'/></disk>")
        return lab.domain("master").replace("<controller", disk +
                                            "<controller", 1)

    def begin(self):
        self.kvm1.define("master", self.master())
        self.kvm1.start()
        self.list_hosts()

    def version(self, number):
        """Its content, as it is read through the store"""
        target = self.path(f"export-{number}.raw")
        deskcast("vdisk", "export", "deb", str(number), target, "--store",
                 self.store).expect(0)
        with open(target, "rb") as f:
            return f.read()

    def access(self):
        answer = deskcast("vdisk", "show", "deb", "--json", "--store",
                          self.store).expect(0).json()
        return {v["version"]: v["access"] for v in answer["versions"]}

    def update(self, *args, status=0, texts=(), **kwargs):
        return self.run("update", *args, **kwargs).expect(status, *texts)

    def is_running(self):
        return "running" in self.kvm1.virsh("domstate", "master").stdout

    def untouched(self):
        with open(self.path("own.raw"), "rb") as f:
            check(f.read() == lab.guest(False).ljust(SIZE, b"\0"),
                  "the master's own disk was written to")


class McsSite(Site):
    def create(self):
        self.begin()
        self.run("catalog", "create", "office", "--master", "master",
                 "--vdisk", "deb", "--model", "mcs", "--store", self.store,
                 "--folder", self.path("desktops")).expect(0)
        image = os.path.join(self.store, "vdisks/deb/1.raw")
        self.make_disk("desk1", image)
        element = self.desktop_element("desk1", 1, vdisk="deb")
        with open(self.path("desk1.xml"), "w", encoding="utf-8") as f:
            f.write(lab.domain("desk1", element, self.disk("desk1")))
        self.kvm1.virsh("define", self.path("desk1.xml"))

    def installed_in(self, number):
        image = os.path.join(self.store, f"vdisks/deb/{number}.qcow2")
        out = subprocess.run(
            [os.path.join(os.path.dirname(lab.QEMU), "qemu-io"), "-U", "-r",
             "-f", "qcow2", "-c", "read -P 0x31 1024 1", image],
            capture_output=True, text=True, check=False).stdout
        return "failed" not in out and "read 1/1" in out


def mcs(o):
    def start():
        """mcs: update start runs the master on a new version; it can be resumed"""
        o.create()
        o.update("finish", "office", status=1, texts=("no update",))
        o.update("start", "office", texts=("version 2",))
        check(o.access() == {1: "production", 2: "maintenance"}, o.access())
        o.run("catalog", "list").expect(0)
        answer = o.run("catalog", "list", "--json").expect(0).json()
        check(answer["catalogs"][0]["update"] == 2, answer)
        o.update("start", "office", status=1, texts=("runs",))
        o.update("finish", "office", status=1, texts=("runs",))
        o.update("abort", "office", status=1, texts=("--force",))
        until("the installation", lambda: o.installed_in(2))
        o.kvm1.virsh("destroy", "master")
        o.update("start", "office", texts=("version 2",))
        check(o.is_running(), "started again")
        o.kvm1.virsh("destroy", "master")

    def finish():
        """mcs: update finish seals it: content is what the guest wrote"""
        o.update("finish", "office", texts=("in test",))
        check(o.access() == {1: "production", 2: "test"}, o.access())
        check(o.version(2) == bytes(o.installed), "content of version 2")
        check(o.version(1) == o.content, "content of version 1")
        o.update("finish", "office", status=1, texts=("no update",))
        o.untouched()

    def push():
        """mcs: the pilot has it, then it is promoted, and follow brings it"""
        o.run("push", "office", "2").expect(1, "is in test")
        o.run("push", "office", "2", "--pilot", "desk1").expect(0, "1 of 1")
        o.run("rollback", "office").expect(0, "1 of 1")
        check(o.run("follow").expect(0).out == "", "in test, and it follows")
        deskcast("version", "promote", "deb", "--store", o.store).expect(0)
        check(o.run("follow").expect(0).out == "", "it was gone back from")
        o.run("push", "office", "--when", "now").expect(0, "1 of 1")
        o.kvm1.virsh("start", "desk1")
        until("desk1", o.is_up)

    def gone():
        """mcs: update abort leaves the store and the master as they were"""
        o.update("start", "office", texts=("version 3",))
        o.update("abort", "office", "--force", texts=("gone",))
        check(o.access() == {1: "production", 2: "production"}, o.access())
        check(not o.is_running(), "the master is off")
        o.update("start", "office", texts=("version 4",))
        o.kvm1.virsh("destroy", "master")
        o.update("finish", "office", "--promote", "--release",
                 "2999-01-01T00:00:00", texts=("in production",))
        o.run("push", "office", "4").expect(1, "not released yet")
        o.untouched()

    def stage():
        """mcs: stage brings versions to hosts' own stores, here and by ssh"""
        own, far = o.path("own-store"), o.path("far-store")
        for store in (own, far):
            deskcast("store", "create", store).expect(0)
        with open(o.hosts_file, "w", encoding="utf-8") as f:
            f.write(f"[kvm1]\nuri={o.kvm1.uri}\nstore={own}\n"
                    f"[far]\nuri=qemu+ssh://user@nosuch/system\nstore={far}\n")
        far_end = o.far_end()
        o.run("push", "office", "1").expect(1, "stage it first")
        o.run("stage", "office", "--from", o.store,
              **{**far_end, "DESKCAST_SSH": "/bin/false"}).expect(1, "failed")
        o.run("stage", "office", "--from", o.store, **far_end).expect(0)
        for store in (own, far):
            answer = deskcast("vdisk", "verify", "deb", "--store", store)
            answer.expect(0)
            for name in ("1.raw", "2.qcow2"):
                check(os.path.exists(os.path.join(store, "vdisks/deb", name)),
                      store, name)
        answer = o.run("push", "office", "1", "--json").expect(1).json()
        check(answer["lost-hosts"][0]["host"] == "far", answer)
        text = o.kvm1.metadata("desk1")
        check(f"{own}/vdisks/deb/1.raw" in text, text)
        o.list_hosts()

    o.is_up = lambda: "running" in o.kvm1.virsh("domstate", "desk1").stdout
    return [start, finish, push, gone, stage]


class PvsSite(Site):
    def create(self):
        self.begin()
        self.socket = self.path("store.sock")
        self.start_server()
        self.run("catalog", "create", "stream", "--master", "master",
                 "--vdisk", "deb", "--model", "pvs", "--store", self.store,
                 "--folder", self.path("desktops"), "--source",
                 f"nbd+unix:///?socket={self.socket}").expect(0)

    def start_server(self):
        with open(self.path("serve.log"), "ab") as log:
            self.server = subprocess.Popen(
                [lab.DESKCAST, "store", "serve", "--store", self.store,
                 "--socket", self.socket], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
                env={**os.environ, "DESKCAST_QSD": lab.QSD})
        until("the server", lambda: os.path.exists(self.socket))

    def stop_server(self):
        self.server.terminate()
        self.server.wait()

    def __exit__(self, *args):
        super().__exit__(*args)
        self.stop_server()

    def make_files(self, number):
        """What the hook makes at the start"""
        for end, role, size in (("copy", "copy", "1M"),
                                ("journal", "journal", "64M")):
            path = self.path(f"desktops/master-update.{end}")
            if os.path.exists(path):
                os.unlink(path)
            subprocess.run([lab.QEMU_IMG, "create", "-q", "-f", "pvs", "-o",
                            f"role={role},vdisk=deb,version={number}", path,
                            size], check=True)
        os.makedirs("/run/deskcast/master", exist_ok=True)

    def buffer(self):
        return self.kvm1.virsh("qemu-monitor-command", "master",
                               '{"execute":"query-vdisks"}').stdout


def pvs(o):
    def start():
        """pvs: update start opens a window; with the server away it goes on"""
        o.create()
        o.make_files(2)
        o.update("start", "stream", "--emulator", lab.QEMU, "--reserve",
                 "1M", texts=("version 2",))
        check('"window":true' in o.buffer(), o.buffer())
        check(o.access() == {1: "production", 2: "maintenance"}, o.access())
        until("the installation", lambda: '"lag-bytes":0' in o.buffer() and
              '"bytes-shipped":0' not in o.buffer())
        o.stop_server()
        o.kvm1.virsh("reset", "master")
        until("writes without a store", lambda: '"lag-bytes":0' not in
              o.buffer())
        check("running" in o.kvm1.virsh("domstate", "master").stdout, "paused")
        o.start_server()
        until("the store has them", lambda: '"lag-bytes":0' in o.buffer())

    def finish():
        """pvs: update finish --shutdown ships, and seals what the guest wrote"""
        result = {}
        thread = threading.Thread(target=lambda: result.update(
            r=o.run("update", "finish", "stream", "--shutdown", "--promote")))
        thread.start()
        until("the end of the window", lambda: '"window":false' in o.buffer())
        time.sleep(2)       # it looks at the job each half a second
        o.kvm1.virsh("destroy", "master")   # this guest knows no ACPI
        thread.join()
        result["r"].expect(0, "in production")
        check(o.access() == {1: "production", 2: "production"}, o.access())
        check(o.version(2) == bytes(o.installed), "content of version 2")
        check(o.version(1) == o.content, "content of version 1")
        o.untouched()

    def slow():
        """pvs: a slow start is waited for; start again opens what was not"""
        o.make_files(3)
        slow = o.make_emulator("slow", 'case "$*" in *disk0*) sleep 8 ;; esac')
        o.update("start", "stream", "--journal", "15G", "--reserve", "5G", status=1,
                 texts=("too small for --reserve 5G", "--journal 16385M"))
        check(o.access() == {1: "production", 2: "production"}, o.access())
        o.update("start", "stream", "--emulator", slow, "--no-window", "--reserve", "5G",
                 "--timeout", "4", texts=("version 3",))
        xml = o.kvm1.virsh("dumpxml", "master").stdout
        check(f'write-cache="{(16 << 30) + (1 << 20)}"' in xml.replace("'", '"'), xml)
        check('"window":false' in o.buffer(), o.buffer())
        for _ in range(2):      # the second time nothing is left to do
            o.update("start", "stream", "--reserve", "1M",
                     texts=("version 3",))
            check('"window":true' in o.buffer(), o.buffer())

    def gone():
        """pvs: update abort leaves the store as it was"""
        o.update("abort", "stream", "--force", texts=("gone",))
        check(o.access() == {1: "production", 2: "production"}, o.access())

    return [start, finish, slow, gone]


def main():
    failed = 0
    for site, tests in ((McsSite, mcs), (PvsSite, pvs)):
        with site() as o:
            failed += lab.run_tests(tests(o))
    return failed

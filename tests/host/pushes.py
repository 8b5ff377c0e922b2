# SPDX-License-Identifier: GPL-2.0-or-later
"""Desktops that run, in real QEMUs: pushes at once, in batches, and back.

The guest is a boot sector that writes to its disk, or one that stands still:
that version does not come up.
"""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import lab
from lab import check, until

GOOD, BAD, NEXT, LATE, BUSY = 12, 13, 14, 18, 11
COUNT = 4
ACCESS = {BUSY: "production", GOOD: "production", BAD: "production", NEXT: "production", 15: "test",
          16: "retired", 17: "maintenance"}


class Office(lab.Lab):
    def __init__(self):
        super().__init__()
        self.make_store(
            "win11", ACCESS,
            {BUSY: lab.guest(True, True), GOOD: lab.guest(True, often=True), BAD: lab.guest(False),
             NEXT: lab.guest(True, often=True), 15: lab.guest(True, often=True)})
        host = self.host("kvm1")
        host.define("master", lab.domain("master", self.catalog_element()))
        self.names = [f"desk{i}" for i in range(COUNT)]
        for name in self.names:
            self.make_disk(name, self.image("win11", GOOD))
            host.define(name, lab.domain(
                name, self.desktop_element(name, GOOD), self.disk(name)))
        host.start()
        self.kvm1 = host
        self.list_hosts()
        for name in self.names:
            host.virsh("start", name)
        self.wait_for_guests([0] * COUNT)

    def writes(self):
        """Of each guest; its BIOS writes nothing"""
        counts = []
        for name in self.names:
            disks = self.qmp(name, "query-blockstats")
            counts.append(sum(d["stats"]["wr_operations"] for d in disks))
        return counts

    def wait_for_guests(self, before):
        """A reset of a BIOS that is not through can make it reset once more"""
        until("guests that came up", lambda: all(
            a > b for a, b in zip(self.writes(), before)))

    def qmp(self, name, command):
        text = self.kvm1.virsh("qemu-monitor-command", name,
                               json.dumps({"execute": command})).stdout
        return json.loads(text)["return"]

    def resets(self):
        return [self.qmp(name, "query-vdisks")[0]["resets"]
                for name in self.names]

    def status(self):
        answer = self.run("status", "office", "--json").expect(0).json()
        return {d["desktop"]: d for d in answer["desktops"]}

    def versions(self):
        """name: (wanted, actual, assigned)"""
        return {name: (d["wanted"], d.get("actual"), d.get("assigned"))
                for name, d in self.status().items()}

    def all_are(self, *what):
        found = self.versions()
        check(found == {name: what for name in self.names}, found,
              "not", what)

    def all_up_on(self, version):
        until(f"all on {version}", lambda: self.versions() == {
            name: (version, version, None) for name in self.names})


def push(o, version, *args, status=0, texts=()):
    return o.run("push", "office", str(version), *args).expect(status, *texts)


def at_reset(o):
    def test():
        """--when reset: running desktops take it at their reset, not before"""
        push(o, NEXT, texts=("4 of 4",))
        o.all_are(NEXT, GOOD, NEXT)
        before = o.writes()
        for name in o.names:
            o.kvm1.virsh("reset", name)
        o.all_up_on(NEXT)
        o.wait_for_guests(before)
    return test


def back_before_reset(o):
    def test():
        """a rollback before the reset: they stay on what they run on"""
        push(o, GOOD)
        o.all_are(GOOD, NEXT, GOOD)
        o.run("push", "office", str(NEXT)).expect(0)
        o.all_are(NEXT, NEXT, None)
    return test


def now_in_batches(o):
    def test():
        """--when now: each batch is up before the next begins"""
        o.run("rollback", "office", "--when", "now").expect(0)
        o.all_up_on(GOOD)
        begin = time.monotonic()
        result = push(o, NEXT, "--when", "now", "--batch", "2",
                      texts=("4 of 4",))
        o.all_are(NEXT, NEXT, None)
        check(time.monotonic() - begin >= 2, "two batches, each looked at")
        check(result.seconds < 60, result.seconds)
        resets = o.resets()
        push(o, NEXT, "--when", "now")      # nobody is reset again
        check(resets == o.resets(), resets, o.resets())
    return test


def goes_back(o):
    def test():
        """a version that does not come up: the push goes back by itself"""
        push(o, GOOD, "--when", "now")
        answer = o.run("push", "office", str(BAD), "--when", "now", "--batch",
                       "2", "--stop-after-failures", "2", "--come-up", "4",
                       "--json").expect(3).json()
        states = sorted(d["state"] for d in answer["desktops"])
        check(answer["went-back"] and states == ["left", "left", "restored",
                                                 "restored"], answer)
        for d in answer["desktops"]:
            if d["state"] == "restored":
                check("did not come up" in d["reason"], d)
        o.all_up_on(GOOD)
    return test


def writes_to_the_end(o):
    def test():
        """what the guest writes until it is reset does not count as coming up"""
        args = ("--pilot", "desk1", "--when", "now", "--come-up", "6")
        push(o, BUSY, *args, texts=("1 of 1",))
        for _ in range(3):
            push(o, BAD, *args, status=3, texts=("did not come up",))
        push(o, GOOD, *args)
        o.all_up_on(GOOD)
    return test


def tolerates(o):
    def test():
        """fewer failures than allowed: it goes on, and says who failed"""
        subprocess.run(["rm", o.image("win11", NEXT)], check=True)
        o.run("push", "office", str(NEXT)).expect(1, "has no image")
        o.all_are(GOOD, GOOD, None)
        with open(o.image("win11", NEXT), "wb") as f:   # too small: refused
            f.write(lab.guest(True, often=True))
        answer = o.run("push", "office", str(NEXT), "--stop-after-failures",
                       "0", "--json").expect(1).json()
        check([d["state"] for d in answer["desktops"]] == ["failed"] * 4,
              answer)
        check("smaller" in answer["desktops"][0]["reason"], answer)
        o.all_are(GOOD, GOOD, None)
        with open(o.image("win11", NEXT), "ab") as f:
            f.truncate(1 << 20)
    return test


def not_written(o):
    def test():
        """a configuration that cannot be written: it failed, and all is as it was"""
        folder = o.kvm1.definitions
        os.chmod(folder, 0o555)
        try:
            answer = o.run("push", "office", str(NEXT), "--stop-after-failures",
                           "0", "--json").expect(1).json()
        finally:
            os.chmod(folder, 0o755)
        check([d["state"] for d in answer["desktops"]] == ["failed"] * 4,
              answer)
        check("its metadata" in answer["desktops"][0]["reason"], answer)
        o.all_are(GOOD, GOOD, None)
    return test


def follow(o, status, *texts):
    return o.run("follow", "office", "--when", "now", "--batch", "1",
                 "--come-up", "4").expect(status, *texts)


def held(o):
    return o.run("status", "office", "--json").expect(0).json()["held"]


def went_back(o):
    """One desktop tried it; its guest is up again, not in its BIOS"""
    before = o.writes()[0]
    follow(o, 3, "it went back")
    o.all_up_on(GOOD)
    until("the guest that went back", lambda: o.writes()[0] > before)


def stays_back(o):
    def test():
        """follow leaves what went back, until it is released again or pushed"""
        with open(o.image("win11", LATE), "wb") as f:
            f.write(lab.guest(False))
            f.truncate(1 << 20)
        late = {GOOD: "production", LATE: "production"}
        o.set_access("win11", late, {LATE: "2026-01-01T00:00:00Z"})
        check(held(o) == [], held(o))
        went_back(o)
        resets = o.resets()
        follow(o, 0, "went back and is left")
        answer = o.run("follow", "--when", "now", "--json").expect(0).json()
        check(answer["catalogs"][0]["held"], answer)
        check(resets == o.resets(), "reset again", resets, o.resets())
        check(held(o) == [{"catalog": "office", "version": LATE}], held(o))
        o.run("status").expect(0, "office: a push of version 18 went back")
        push(o, GOOD)                       # an older one changes nothing
        follow(o, 0, "went back and is left")
        o.set_access("win11", late, {LATE: "2026-01-02T00:00:00Z"})
        went_back(o)
        push(o, LATE, texts=("4 of 4",))    # at their next reset
        check(held(o) == [], held(o))
        o.run("rollback", "office").expect(0)
        o.all_are(GOOD, GOOD, None)
        push(o, LATE, "--pilot", "desk1", "--when", "now", "--come-up", "4",
             status=3)
        check(held(o) == [], "by a pilot", held(o))
        o.all_up_on(GOOD)
        o.set_access("win11", ACCESS)
    return test


def pilots(o):
    def test():
        """a version in test goes to pilots only"""
        push(o, 15, status=1, texts=("is in test", "--pilot"))
        push(o, 16, "--pilot", "desk1", status=1, texts=("retired",))
        push(o, 17, "--pilot", "desk1", status=1, texts=("being written",))
        push(o, 99, status=1, texts=("not in the store",))
        push(o, 15, "--pilot", "desk1", "--pilot", "desk7", status=1,
             texts=("no desktop 'desk7'",))
        o.all_are(GOOD, GOOD, None)
        push(o, 15, "--pilot", "desk1", "--when", "now", texts=("1 of 1",))
        found = o.versions()
        check(found.pop("desk1") == (15, 15, None), found)
        check(set(found.values()) == {(GOOD, GOOD, None)}, found)
        o.run("rollback", "office", "--pilot", "desk1", "--when",
              "now").expect(0)
        o.all_up_on(GOOD)
    return test


def session_ends(o):
    def test():
        """the administrator's session ends: what was begun goes on, or back"""
        push(o, GOOD, "--when", "now")
        for number, end in ((signal.SIGHUP, "its terminal"), (None, "its reader")):
            process = subprocess.Popen(
                [lab.DESKCAST, "push", "office", str(BAD), "--when", "now",
                 "--batch", "1", "--come-up", "6", "--hosts", o.hosts_file],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
            until("the first desktop", lambda: any(
                d.get("actual") == BAD for d in o.status().values()))
            process.stdout.close()
            if number:
                process.send_signal(number)
            check(process.wait(60) == 3, end, process.returncode)
            o.all_up_on(GOOD)
    return test


def two_at_once(o):
    def test():
        """a second push is refused while one is going on, and says whose it is"""
        first = {}
        thread = threading.Thread(target=lambda: first.update(
            r=o.run("push", "office", str(BAD), "--when", "now", "--come-up",
                    "6")))
        thread.start()
        until("the first push", lambda: any(
            d.get("actual") == BAD for d in o.status().values()))
        refused = o.run("push", "office", str(NEXT)).expect(
            1, "another push of the catalog 'office'", "process")
        check(refused.seconds < 3, refused.seconds)
        o.run("rollback", "office").expect(1, "another push")
        thread.join()
        first["r"].expect(3)
        o.all_up_on(GOOD)
        push(o, NEXT, "--when", "now")
        o.all_up_on(NEXT)
    return test


def hangs(o):
    def test():
        """a QEMU that hangs is told of; the others of its host are pushed to"""
        with open(o.kvm1.pid_file("desk1"), encoding="ascii") as f:
            pid = int(f.read())
        os.kill(pid, signal.SIGSTOP)
        try:
            answer = o.run("push", "office", str(GOOD), "--when", "now", "--batch", "1",
                           "--timeout", "5", "--json").expect(1).json()
        finally:
            os.kill(pid, signal.SIGCONT)
        states = {d["desktop"]: d["state"] for d in answer["desktops"]}
        check(states.pop("desk1") == "unknown", answer)
        check(set(states.values()) == {"done"}, answer)
        check(not answer["lost-hosts"] and not answer["went-back"], answer)
        push(o, GOOD, "--when", "now", texts=("4 of 4",))
        push(o, NEXT, "--when", "now")
        o.all_up_on(NEXT)
    return test


def beside_update(o):
    def test():
        """what an update notes while a push goes back is kept, and so is what it notes"""
        answer = {}
        thread = threading.Thread(target=lambda: answer.update(
            r=o.run("push", "office", str(LATE), "--when", "now", "--come-up", "10")))
        o.set_access("win11", {GOOD: "production", LATE: "production"})
        thread.start()
        until("the version", lambda: o.status()["desk1"].get("actual") == LATE)
        o.kvm1.set_metadata("master", o.catalog_element().replace(
            "</deskcast:catalog>", '<deskcast:update version="5"/></deskcast:catalog>'))
        thread.join()
        answer["r"].expect(3)
        catalogs = o.run("catalog", "list", "--json").expect(0).json()["catalogs"]
        check(catalogs[0]["update"] == 5, catalogs)
        check(held(o) == [{"catalog": "office", "version": LATE}], held(o))
        o.kvm1.set_metadata("master", o.catalog_element())
        o.set_access("win11", ACCESS)
    return test


class Behind(threading.Thread):
    """A desktop behind vhost-user, but for the hook: at each power-on it gets
    a storage daemon on what is wanted, to whose disk its guest may write"""

    def __init__(self, o, name):
        super().__init__(daemon=True)
        self.o, self.name, self.writes = o, name, False
        self.monitor = f"{o.folder}/{name}.qmp"
        self.nbd = f"{o.folder}/{name}.nbd"
        self.qsd = self.power_on = None
        self.over = threading.Event()

    def start_daemon(self, number):
        image = self.o.image("win11", number)
        disk = f"{self.o.folder}/{self.name}.{number}"
        subprocess.run([lab.QEMU_IMG, "create", "-q", "-f", "mcs", "-b", image, "-F",
                        "raw", "-o", "lifetime=pooled", disk], check=True)
        self.qsd = subprocess.Popen(
            [lab.QSD, "--blockdev", "driver=mcs,node-name=disk0,file.driver=file,"
             f"file.filename={disk}", "--chardev",
             f"socket,id=m,path={self.monitor},server=on,wait=off",
             "--monitor", "chardev=m", "--nbd-server",
             f"addr.type=unix,addr.path={self.nbd}", "--export",
             "nbd,id=e,node-name=disk0,name=d,writable=on"])

    def stop_daemon(self):
        if self.qsd:
            self.qsd.kill()
            self.qsd.wait()

    def wanted(self):
        text = self.o.kvm1.metadata(self.name)
        return int(re.search("<wanted number=.([0-9]+)", text).group(1))

    def id(self):
        return self.o.kvm1.virsh("domid", self.name, check_it=False).stdout.strip()

    def write(self):
        """As its guest would: a QMP reset first, which lets clients in"""
        qmp = [{"execute": "qmp_capabilities"},
               {"execute": "vdisk-reset", "arguments": {"node-name": "disk0"}}]

        def answers(s):
            try:
                s.connect(self.monitor)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True
        with socket.socket(socket.AF_UNIX) as s:
            until("a daemon", lambda: answers(s))
            s.sendall("".join(json.dumps(q) for q in qmp).encode())
            time.sleep(0.2)
        if self.writes:
            subprocess.run([os.path.join(os.path.dirname(lab.QEMU), "qemu-io"), "-f", "raw",
                            "-c", "write -q 4k 512", f"nbd+unix:///d?socket={self.nbd}"],
                           check=True)

    def run(self):
        while not self.over.wait(0.1):
            now = self.id()
            if now not in ("", "-", self.power_on):
                self.stop_daemon()
                for path in (self.monitor, self.nbd):
                    if os.path.exists(path):
                        os.unlink(path)
                self.start_daemon(self.wanted())
                self.power_on = now
                self.write()
        self.stop_daemon()


def crashes(o):
    def test():
        """one whose QEMU ends in the new version is switched on again"""
        answer = {}
        thread = threading.Thread(target=lambda: answer.update(
            r=o.run("push", "office", str(BAD), "--pilot", "desk1", "--when",
                    "now", "--come-up", "8")))
        thread.start()
        until("the version", lambda: o.status()["desk1"].get("actual") == BAD)
        o.kvm1.virsh("destroy", "desk1")
        thread.join()
        answer["r"].expect(3, "1 are back")
        check("running" in o.kvm1.virsh("domstate", "desk1").stdout,
              "restored, it says, and it is off")
        # No hook is here that would have had it take the version as it started
        push(o, NEXT, "--when", "now")
        o.all_up_on(NEXT)
    return test


def behind(o):
    def test():
        """vhost-user without an agent: up when its guest has written, and back if not"""
        fails = os.path.join(o.folder, "fails-once")
        emulator = o.make_emulator("once", f"rm {fails} 2>/dev/null && exit 1")
        element = o.desktop_element("behind", GOOD, catalog="far").replace(
            'run="in-process"', 'run="vhost-user"')
        for name, text in (("far-master", o.catalog_element("far")), ("behind", element)):
            path = os.path.join(o.folder, name + ".xml")
            with open(path, "w", encoding="utf-8") as f:
                f.write(lab.domain(name, text).replace(lab.QEMU, emulator))
            o.kvm1.virsh("define", path)
        o.kvm1.virsh("start", "behind")
        desktop = Behind(o, "behind")
        desktop.start()

        def push_it(number, come_up):
            return o.run("push", "far", str(number), "--when", "now", "--come-up",
                         come_up, "--timeout", "60")
        try:
            until("its daemon", lambda: o.run("status", "far", "--json").json()[
                "desktops"][0].get("actual") == GOOD)
            push_it(NEXT, "5").expect(3, "did not come up in time")
            until("its way back", lambda: o.run("status", "far", "--json").json()[
                "desktops"][0].get("actual") == GOOD)
            open(fails, "w", encoding="ascii").close()
            push_it(NEXT, "5").expect(3, "switching it off and on")
            check("running" in o.kvm1.virsh("domstate", "behind").stdout,
                  "restored, it says, and it is off")
            until("its way back", lambda: o.run("status", "far", "--json").json()[
                "desktops"][0].get("actual") == GOOD)
            desktop.writes = True
            push_it(NEXT, "60").expect(0, "1 of 1")
        finally:
            desktop.over.set()
            desktop.join()
            o.kvm1.virsh("destroy", "behind", check_it=False)
    return test


def switched_off(o):
    def test():
        """one that is off takes it when it is told; one that is started stays"""
        o.kvm1.virsh("destroy", "desk0")
        o.run("rollback", "office").expect(0, "4 of 4")
        found = o.versions()
        check(found["desk0"] == (GOOD, NEXT, None), found)
        check(found["desk1"] == (GOOD, NEXT, GOOD), found)
    return test


def main():
    with Office() as o:
        return lab.run_tests(make(o) for make in (
            at_reset, back_before_reset, now_in_batches, goes_back,
            writes_to_the_end, tolerates, not_written, stays_back, pilots,
            session_ends, two_at_once, hangs, crashes, beside_update, behind,
            switched_off))

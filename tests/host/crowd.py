# SPDX-License-Identifier: GPL-2.0-or-later
"""A thousand desktops that run, on libvirt's test driver behind a libvirtd.

Each has a storage daemon that answers by QMP as ours does: what it runs on,
and whether its guest has written. When libvirt starts the desktop its daemon is
a new one, on the version that is wanted then, as by the hook.
"""

import asyncio
import json
import os
import re
import subprocess
import threading

import lab
from lab import check, until

DESKTOPS = 1000
NODE = "disk0"
STARTED = re.compile(r"for domain '(desk-\d+)': Started")
GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10},
                                "package": ""}, "capabilities": []}}


class Daemons:
    """@wanted(name): the version that a daemon begins with"""

    def __init__(self, folder, names):
        self.version = dict.fromkeys(names, 12)
        self.bad = set()        # versions whose guests do not come up
        self.starts = 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        threading.Thread(target=self.run, args=(folder,), daemon=True).start()
        check(self.ready.wait(60), "no daemons")

    def run(self, folder):
        async def listen():
            for name in self.version:
                await asyncio.start_unix_server(
                    lambda r, w, name=name: self.serve(name, r, w),
                    os.path.join(folder, name + ".qmp"))
            self.ready.set()
        self.loop.run_until_complete(listen())
        self.loop.run_forever()

    def answer(self, name, command):
        if command == "query-vdisks":
            return [{"node-name": NODE, "driver": "pvs", "resets": 0,
                     "virtual-size": 1 << 20,
                     "pvs": {"version": self.version[name],
                             "stops-on-error": True}}]
        if command == "query-blockstats":
            up = self.version[name] not in self.bad
            return [{"node-name": NODE,
                     "stats": {"wr_highest_offset": 4096 if up else 0}}]
        return {}

    async def serve(self, name, reader, writer):
        writer.write(json.dumps(GREETING).encode() + b"\n")
        while line := await reader.readline():
            asked = json.loads(line)
            said = {"return": self.answer(name, asked["execute"])}
            if "id" in asked:
                said["id"] = asked["id"]
            writer.write(json.dumps(said).encode() + b"\n")
        writer.close()


class Office(lab.Lab):
    def __init__(self):
        super().__init__()
        self.make_store("win11", dict.fromkeys((12, 13, 14), "production"))
        self.names = [f"desk-{i:04}" for i in range(DESKTOPS)]
        self.daemons = Daemons(self.folder, self.names)
        self.kvm = self.host("kvm1")
        self.kvm.start()
        self.uri = f"test+unix:///default?socket={self.kvm.socket}"
        self.programs = []
        # What the driver has lasts as long as somebody is connected
        self.define()
        self.follow()

    def __exit__(self, *args):
        for program in self.programs:
            program.kill()
            program.wait()
        super().__exit__(*args)

    def virsh(self, *words, **kwargs):
        program = subprocess.Popen(["virsh", "-q", "-c", self.uri, *words],
                                   text=True, **kwargs)
        self.programs.append(program)
        return program

    def domain(self, name, element):
        path = os.path.join(self.folder, name + ".xml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"<domain type='test'><name>{name}</name><metadata>"
                    f"{element}</metadata><memory>8192</memory>"
                    "<os><type>hvm</type></os></domain>")
        return path

    def define(self):
        shell = self.virsh(stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        source = '<deskcast:source uri="nbd+unix:///?socket=/run/none"/>'
        master = self.domain("master", self.catalog_element(
            model="pvs").replace("in-process", "vhost-user"))
        shell.stdin.write(f"define {master}\n")
        for name in self.names:
            element = self.desktop_element(name, 12, model="pvs").replace(
                "in-process", "vhost-user").replace(
                    "<deskcast:wanted", source + "<deskcast:wanted")
            shell.stdin.write(f"define {self.domain(name, element)}\n"
                              f"start {name}\n")
        shell.stdin.flush()
        until("desktops", lambda: len(self.running()) == DESKTOPS, 120)

    def running(self):
        done = subprocess.run(["virsh", "-q", "-c", self.uri, "list",
                               "--name"], text=True, capture_output=True,
                              check=False)
        return [n for n in done.stdout.split() if n.startswith("desk-")]

    def wanted_of(self, name):
        """As the hook reads it, of the definition"""
        text = subprocess.run(
            ["virsh", "-q", "-c", self.uri, "metadata", name, "--uri",
             lab.NAMESPACE, "--config"], text=True, capture_output=True,
            check=True).stdout
        return int(re.search(r"<wanted [^>]*number=.(\d+)", text)[1])

    def follow(self):
        events = self.virsh("event", "--loop", "--event", "lifecycle",
                            stdout=subprocess.PIPE)

        def watch():
            for line in events.stdout:
                found = STARTED.search(line)
                if found:
                    self.daemons.version[found[1]] = self.pushed
                    self.daemons.starts += 1
        self.pushed = 12
        threading.Thread(target=watch, daemon=True).start()
        # It listens once it tells of a start
        until("events", self.is_told, 60)
        self.daemons.starts = 0

    def is_told(self):
        for verb in ("destroy", "start"):
            subprocess.run(["virsh", "-q", "-c", self.uri, verb, "desk-0000"],
                           check=True, capture_output=True)
        return self.daemons.starts > 0

    def run(self, *args, **kwargs):
        return lab.deskcast(*args, "--connect", self.uri, **kwargs)

    def counts(self):
        counts = {}
        for d in self.run("status", "--json").expect(0).json()["desktops"]:
            key = (d["state"], d["wanted"], d["actual"])
            counts[key] = counts.get(key, 0) + 1
        return counts

    def expect(self, wanted, actual):
        found = self.counts()
        check(found == {("running", wanted, actual): DESKTOPS}, found)


def status(o):
    def test():
        """status of 1,000 desktops that run asks each what it runs on"""
        o.expect(12, 12)
        seconds = min(o.run("status").expect(0).seconds for _ in range(3))
        print(f"# status {seconds:.2f} s")
    return test


def at_reset(o):
    def test():
        """push to 1,000 desktops that run: they take it when they start next"""
        o.pushed = 13
        result = o.run("push", "office", "13").expect(0, "1000 of 1000")
        print(f"# push {result.seconds:.2f} s")
        o.expect(13, 12)
        check(o.daemons.starts == 0, o.daemons.starts, "were started anew")
        for name in (o.names[0], o.names[-1]):
            check(o.wanted_of(name) == 13, name)
        o.pushed = 12
        o.run("rollback", "office").expect(0, "1000 of 1000")
        o.expect(12, 12)
    return test


def now(o):
    def test():
        """push in batches of 250, now: each is up before the next begins; back"""
        for verb, number in (("push", 13), ("rollback", 12)):
            o.pushed, o.daemons.starts = number, 0
            words = [verb, "office"] + (["13"] if verb == "push" else [])
            result = o.run(*words, "--when", "now", "--batch", "250",
                           "--timeout", "60").expect(0, "1000 of 1000")
            print(f"# {verb} {result.seconds:.2f} s")
            check(o.daemons.starts == DESKTOPS, o.daemons.starts)
            o.expect(number, number)
    return test


def bad(o):
    def test():
        """a version on which nobody comes up stops after three, and goes back"""
        o.daemons.bad.add(14)
        o.pushed, o.daemons.starts = 14, 0

        def turn():
            """Those that start after the push went back"""
            until("starts", lambda: o.daemons.starts >= 5, 60)
            o.pushed = 12
        back = threading.Thread(target=turn)
        back.start()
        answer = o.run("push", "office", "14", "--when", "now", "--batch", "5",
                       "--stop-after-failures", "3", "--come-up", "6",
                       "--json").expect(3).json()
        back.join()
        check(answer["went-back"], answer)
        states = [d["state"] for d in answer["desktops"]]
        check(states.count("restored") == 5, states)
        check(states.count("left") == DESKTOPS - 5, states)
        o.expect(12, 12)
    return test


def main():
    with Office() as o:
        return lab.run_tests([status(o), at_reset(o), now(o), bad(o)])

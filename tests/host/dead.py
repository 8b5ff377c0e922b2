# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that do not answer, and connections that die."""

import os
import subprocess
import time

import lab
import proxy
from lab import check

COUNT = 100         # on each host
TIMEOUT = 4
ROUNDS = 12         # of connections that break, spread over a push


class Office(lab.Lab):
    def __init__(self):
        super().__init__()
        self.make_store("win11", {12: "production", 13: "production"})
        for name in ("kvm1", "kvm2"):
            host = self.host(name)
            for i in range(COUNT):
                desktop = f"{name}-{i:03}"
                host.define(desktop, lab.domain(
                    desktop, self.desktop_element(desktop, 12)))
        self.hosts[0].define("master", lab.domain("master",
                                                  self.catalog_element()))
        self.hosts[1].define("other", lab.domain("other", self.desktop_element(
            "other", 3, catalog="stream", vdisk="deb", model="pvs")))
        for host in self.hosts:
            host.start()
        self.list_hosts()

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def wanted(self):
        answer = self.run("status", "office", "--json").json()
        counts = {}
        for d in answer["desktops"]:
            key = (d["host"], d.get("wanted"))
            counts[key] = counts.get(key, 0) + 1
        return counts

    def list_with(self, socket):
        """kvm2 behind that socket"""
        self.list_hosts(self.hosts[0], more=f"[kvm2]\nuri=qemu+unix:///session"
                        f"?socket={socket}\n")


def mute(o):
    def test():
        """a host that is mute is reported; nobody waits for it"""
        path = o.path("mute.sock")
        with lab.mute_socket(path):
            o.list_hosts(more=f"[kvm3]\nuri=qemu+unix:///system?socket={path}\n"
                         f"[kvm4]\nuri=qemu+unix:///system?socket={path}.no\n")
            for args in (("status",), ("push", "office")):
                r = o.run(*args, "--timeout", str(TIMEOUT)).expect(
                    1, "kvm3", "does not answer within 4 s", "kvm4",
                    "no connection")
                # push asks twice: for the catalog, then for its desktops
                check(r.seconds < 2 * TIMEOUT + 8, *args, r.seconds)
        o.list_hosts()
        check(o.wanted() == {("kvm1", 13): COUNT, ("kvm2", 13): COUNT},
              o.wanted())
        o.run("rollback", "office").expect(0, "200 of 200")
    return test


def nobody(o):
    def test():
        """if the catalog's own host is silent, that is said"""
        path = o.path("alone.sock")
        with lab.mute_socket(path):
            o.list_hosts(o.hosts[1],
                         more=f"[kvm1]\nuri=qemu+unix:///system?socket={path}\n")
            o.run("push", "office", "--timeout", "1").expect(
                1, "no catalog 'office' on the hosts that answer", "kvm1")
        o.list_hosts()
        o.run("push", "nosuch").expect(1, "there is no catalog 'nosuch'\n")
    return test


def dies(o, is_mute):
    def test():
        path = o.path(f"proxy-{is_mute}.sock")
        way = proxy.Proxy(path, o.hosts[1].socket, 10 ** 9, is_mute)
        o.list_with(path)
        o.run("push", "office", "12").expect(0, "200 had it already")
        # What a push costs until its first desktop, and some desktops more
        begun = way.passed
        way.limit = way.passed + begun + 30 * 1200
        begin = time.monotonic()
        answer = o.run("push", "office", "13", "--batch", "7", "--json",
                       "--timeout", str(TIMEOUT)).expect(1).json()
        check(way.fired, "the connection died")
        check(time.monotonic() - begin < 3 * TIMEOUT + 8, "waited too long")
        states = {}
        for d in answer["desktops"]:
            key = (d["host"], d["state"])
            states[key] = states.get(key, 0) + 1
        print(f"# {states}")
        check(states.pop(("kvm1", "done")) == COUNT, states)
        check(states.get(("kvm2", "done"), 0) > 0, states)
        check(states.get(("kvm2", "left"), 0) > 0, states)
        check(0 < states.get(("kvm2", "unknown"), 0) <= 7, states)
        check(sum(states.values()) == COUNT, states)
        check([h["host"] for h in answer["lost-hosts"]] == ["kvm2"], answer)
        check(not answer["went-back"], "a lost host is no bad version")
        # What is said to be done is done, what was left is as it was
        o.list_hosts()
        found = {d["desktop"]: d["wanted"]
                 for d in o.run("status", "--json").json()["desktops"]}
        for d in answer["desktops"]:
            expected = {"done": 13, "left": 12}.get(d["state"])
            check(expected in (None, found[d["desktop"]]), d)
        o.run("push", "office").expect(0)
        check(o.wanted() == {("kvm1", 13): COUNT, ("kvm2", 13): COUNT},
              o.wanted())
        o.run("rollback", "office").expect(0)
        check(o.wanted() == {("kvm1", 12): COUNT, ("kvm2", 12): COUNT},
              o.wanted())

    def whole():
        try:
            test()
        finally:
            o.list_hosts()
    whole.__doc__ = ("a connection that %s in the middle: told, and repeated"
                    % ("falls silent" if is_mute else "breaks"))
    return whole


def breaks_often(o):
    def test():
        """connections that break at any moment end no command by a signal"""
        way = proxy.Proxy(o.path("proxy-whole.sock"), o.hosts[1].socket, 10 ** 9)
        o.list_with(way.path)
        o.run("push", "office", "13").expect(0)
        whole, fired = way.passed, 0
        for i in range(ROUNDS):
            limit = whole * (i + 1) // (ROUNDS + 1)
            way = proxy.Proxy(o.path(f"proxy-at-{i}.sock"), o.hosts[1].socket,
                              limit)
            o.list_with(way.path)
            number = 12 + i % 2
            r = o.run("push", "office", str(number), "--timeout", str(TIMEOUT))
            fired += way.fired
            check(r.status in (0, 1), "after", limit, "bytes it ended with",
                  r.status, r.err)
            # What the host that answers has is what was pushed, or all was left
            o.list_hosts()
            check(o.wanted().get(("kvm1", number), 0) in (0, COUNT), o.wanted())
            o.run("push", "office", str(number)).expect(0)
        check(fired >= ROUNDS / 2, "only", fired, "connections broke")
        o.run("push", "office", "13").expect(0)
        o.run("rollback", "office").expect(0)

    def whole():
        try:
            test()
        finally:
            o.list_hosts()
    whole.__doc__ = test.__doc__
    return whole


def other_model(o):
    def test():
        """a push to a catalog with a desktop of the other model is refused"""
        host = o.hosts[1]
        element = o.desktop_element("kvm2-007", 12, model="pvs")
        host.set_metadata("kvm2-007", element)
        o.run("push", "office").expect(1, "1 desktops of 'office'",
                                       "'kvm2-007'", "model pvs",
                                       "Nothing was done")
        check(("kvm1", 13) not in o.wanted(), o.wanted())
        host.virsh("metadata", "kvm2-007", "--config", "--uri", lab.NAMESPACE,
                   "--remove")
    return test


def bad_metadata(o):
    def test():
        """metadata that somebody edited wrongly is told of, and harms no other"""
        o.hosts[1].virsh("metadata", "kvm2-008", "--config", "--uri",
                         lab.NAMESPACE, "--key", "deskcast", "--set",
                         '<desktop format="1" catalog="../x"/>')
        answer = o.run("status", "--json").expect(0).json()
        bad = [d for d in answer["desktops"] if d["desktop"] == "kvm2-008"]
        check(len(bad) == 1 and "trouble" in bad[0], bad)
        o.run("push", "office").expect(0)
        check(o.wanted()[("kvm1", 13)] == COUNT, o.wanted())
    return test


def no_store(o):
    def test():
        """a rollback needs no store; what keeps a lock from being had is told"""
        lock = os.path.join(o.store, "push.office.lock")
        no_lock = ["strace", "-f", "-qq", "-o", o.path("strace"), "-P", lock, "-e",
                   "trace=fcntl", "-e", "inject=fcntl:error=ENOLCK"]
        o.run("push", "office", "13").expect(0)
        for args, status in ((("push", "office", "12"), 1), (("rollback", "office"), 0)):
            done = subprocess.run(no_lock + [lab.DESKCAST, *args, "--hosts", o.hosts_file],
                                  capture_output=True, text=True, check=False)
            check(done.returncode == status and "No locks available" in done.stderr and
                  "another push" not in done.stderr, args, done.returncode, done.stderr)
        o.run("push", "office", "13").expect(0)
        os.rename(o.store, o.store + ".away")
        try:
            o.run("push", "office", "12").expect(1, "cannot lock the catalog")
            o.run("rollback", "office").expect(0, "200 of 200", "cannot lock the catalog",
                                               "going back all the same")
        finally:
            os.rename(o.store + ".away", o.store)
        check(o.wanted() == {("kvm1", 12): COUNT, ("kvm2", 12): COUNT}, o.wanted())
    return test


def drain(o):
    def test():
        """host drain notes it in the list, and says what runs there"""
        o.hosts[1].virsh("start", "kvm2-001")
        o.run("host", "drain", "kvm2").expect(0, "1 still run", "kvm2-001")
        with open(o.hosts_file, encoding="utf-8") as f:
            text = f.read()
        check("drained=true" in text and "[kvm1]" in text, text)
        o.run("host", "list").expect(0, "drained")
        lab.deskcast("host", "list", DESKCAST_HOSTS=o.hosts_file).expect(
            0, "drained")
        lab.deskcast("host", "list", "--hosts", o.hosts_file,
                     DESKCAST_HOSTS="/nowhere").expect(0, "drained")
        answer = o.run("host", "list", "--json").json()
        check([h["drained"] for h in answer["hosts"]] == [False, True], answer)
        check([h["running"] for h in answer["hosts"]] == [0, 1], answer)
        o.run("host", "undrain", "kvm2").expect(0)
        check(not any(h["drained"] for h in
                      o.run("host", "list", "--json").json()["hosts"]), text)
        o.run("host", "drain", "kvm9").expect(1, "no host 'kvm9'")
    return test


def catalogs(o):
    def test():
        """catalog create, list and show"""
        o.hosts[0].virsh("define", o.write("m2.xml", lab.domain("m2")))
        create = ("catalog", "create", "--vdisk", "win11", "--store", o.store,
                  "--folder", "/vdi/lab", "--master")
        o.run(*create, "m2", "--model", "pvs", "lab").expect(1, "--source")
        o.run(*create, "m2", "--model", "mcs", "../lab").expect(1)
        o.run(*create, "m2", "--model", "mcs", "office").expect(
            1, "there already")
        o.run(*create, "m3", "--model", "mcs", "lab").expect(1, "'m3'")
        o.run(*create, "master", "--model", "mcs", "lab").expect(
            1, "of a catalog already")
        o.run(*create, "m2", "--model", "mcs", "--write-cache", "20G",
              "lab").expect(0)
        answer = o.run("catalog", "list", "--json").expect(0).json()
        names = {c["catalog"]: c for c in answer["catalogs"]}
        check(set(names) == {"office", "lab"}, names)
        check(names["lab"]["master"] == "m2", names)
        check(names["office"]["current"] == 13, names)
        o.run("catalog", "show", "lab").expect(0, "20 GiB", "/vdi/lab")
    return test


def main():
    with Office() as o:
        return lab.run_tests([
            mute(o), nobody(o), dies(o, False), dies(o, True), breaks_often(o),
            no_store(o), other_model(o), bad_metadata(o), drain(o), catalogs(o)])

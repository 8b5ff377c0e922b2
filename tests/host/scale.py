# SPDX-License-Identifier: GPL-2.0-or-later
"""A thousand desktops, as libvirtd has them: defined, and switched off."""

import os
import time

import lab
from lab import check
from sanitized import SLOWER

DESKTOPS = 1000


class Office(lab.Lab):
    """Two hosts with 500 desktops each, on version 12 of 13"""

    def __init__(self):
        super().__init__()
        self.make_store("win11", {12: "production", 13: "production"})
        self.desktops = {}
        for name in ("kvm1", "kvm2"):
            self.host(name)
        self.hosts[0].define("master", lab.domain("master",
                                                  self.catalog_element()))
        self.make_disk("model", self.image("win11", 12))
        with open(self.disk("model"), "rb") as f:
            header = f.read(65536)
        size = os.path.getsize(self.disk("model"))
        for i in range(DESKTOPS):
            name, host = f"desk-{i:04}", self.hosts[i % 2]
            host.define(name, lab.domain(
                name, self.desktop_element(name, 12)))
            with open(self.disk(name), "wb") as f:      # a sparse copy
                f.write(header)
                f.truncate(size)
            self.desktops[name] = host
        for host in self.hosts:
            host.start()
        self.list_hosts()


def best(function, times=3):
    return min(function() for _ in range(times))


def virsh_seconds(office):
    begin = time.monotonic()
    for host in office.hosts:
        host.virsh("list", "--all")
    return time.monotonic() - begin


def wanted(office):
    answer = office.run("status", "--json").expect(0).json()
    counts = {}
    for d in answer["desktops"]:
        counts[d["wanted"]] = counts.get(d["wanted"], 0) + 1
    return counts


def tests(office):
    def status():
        """status of 1,000 desktops takes less than 1 s"""
        answer = office.run("status", "--json").expect(0).json()
        check(len(answer["desktops"]) == DESKTOPS, len(answer["desktops"]))
        for d in answer["desktops"]:
            check(d["wanted"] == 12 and d["actual"] == 12, d)
            check(d["state"] == "off" and d["catalog"] == "office", d)
            check(office.desktops[d["desktop"]].name == d["host"], d)
        seconds = best(lambda: office.run("status").expect(0).seconds)
        virsh = best(lambda: virsh_seconds(office))
        print(f"# status {seconds:.3f} s, virsh list --all {virsh:.3f} s: "
              f"{seconds / virsh:.1f} times as long")
        check(seconds < 1 * SLOWER, seconds)

    def often():
        """status says the same each time that it is asked"""
        for _ in range(40):
            check(wanted(office) == {12: DESKTOPS}, wanted(office))

    def push():
        """push to 1,000 powered-off desktops takes less than 5 s"""
        result = office.run("push", "office").expect(0, "1000 of 1000")
        print(f"# push {result.seconds:.2f} s")
        check(result.seconds < 5 * SLOWER, result.seconds)
        check(wanted(office) == {13: DESKTOPS}, wanted(office))
        for name in ("desk-0000", "desk-0999"):
            text = office.desktops[name].metadata(name)
            check('number="13"' in text or "number='13'" in text, text)
            check("previous" in text, text)

    def again():
        """a push that is repeated changes nothing, and a rollback still works"""
        result = office.run("push", "office").expect(0, "1000 had it already")
        result = office.run("rollback", "office").expect(0, "1000 of 1000")
        print(f"# rollback {result.seconds:.2f} s")
        check(wanted(office) == {12: DESKTOPS}, wanted(office))
        office.run("rollback", "office").expect(0, "1000 had it already")
        check(wanted(office) == {12: DESKTOPS}, wanted(office))

    def follow():
        """follow does not bring back what was gone back from"""
        office.run("follow").expect(0)
        check(wanted(office) == {12: DESKTOPS}, wanted(office))

    def released():
        """a version is pushed by follow when its release date has come"""
        versions = {12: "production", 13: "production", 14: "production"}
        open(office.image("win11", 14), "w", encoding="utf-8").close()
        office.set_access("win11", versions, {14: "2999-01-01T00:00:00Z"})
        office.run("follow").expect(0)
        check(wanted(office) == {12: DESKTOPS}, wanted(office))
        office.run("push", "office", "14").expect(1, "not released yet")
        office.set_access("win11", versions, {14: "2026-01-01T00:00:00Z"})
        office.run("follow", "office").expect(0, "1000 of 1000")
        check(wanted(office) == {14: DESKTOPS}, wanted(office))

    def batches():
        """push in batches takes them all"""
        result = office.run("push", "office", "13", "--batch", "50").expect(
            0, "1000 of 1000")
        print(f"# push in batches of 50 {result.seconds:.2f} s")
        check(wanted(office) == {13: DESKTOPS}, wanted(office))

    return [status, often, push, again, follow, released, batches]


def main():
    with Office() as office:
        return lab.run_tests(tests(office))

# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands on hosts leave in the journal: who did what, to which version."""

import os
import sys

import lab
from lab import check, deskcast, until
from pushes import BAD, GOOD, NEXT, Office
from updates import McsSite

sys.path.insert(0, os.path.join(lab.TOP, "tests"))
from store.journal import heard                     # noqa: E402


def entries(*words, status=0):
    """What a command, given by ada, leaves in the journal"""
    environment = {**os.environ, "DESKCAST_QEMU_IMG": lab.QEMU_IMG,
                   "DESKCAST_QSD": lab.QSD, "SUDO_USER": "ada"}
    (ended, out, err, found), = heard([[lab.DESKCAST, *words]], environment)
    check(ended == status, *words, "ended with", ended, out, err)
    return found


def expect(site, command, more, *lines, status=0, vdisk=""):
    """Each line: (version, what its message has)"""
    found = entries(*command.split(), *more, "--hosts", site.hosts_file,
                    status=status)
    told = [(e["DESKCAST_ACTION"], e["DESKCAST_USER"], e["DESKCAST_VDISK"],
             e["DESKCAST_VERSION"]) for e in found]
    check(told == [(command, "ada", vdisk, str(number)) for number, _ in lines],
          command, more, "left", found)
    for entry, (_, text) in zip(found, lines):
        check(text in entry["MESSAGE"], repr(text), "is not in", entry)


def pushes(o):
    def test():
        """push, rollback and follow: a line for each version, and for going back"""
        def line(command, *more, **kwargs):
            expect(o, command, ("office", *more), **kwargs, vdisk="win11")

        def lines(command, more, *told, **kwargs):
            expect(o, command, ("office", *more), *told, vdisk="win11", **kwargs)

        lines("follow", (), (NEXT, "4 desktops to version 14, at their"))
        lines("rollback", (), (GOOD, "4 desktops to version 12, at their"))
        lines("push", (str(NEXT), "--pilot", "desk1", "--when", "now"),
              (NEXT, "1 desktops to version 14, now"))
        lines("push", (str(GOOD), "--pilot", "desk1"), (GOOD, "1 desktops"))
        # Two pushed from 14 and two from 12: each is back on its own
        lines("push", (str(NEXT), "--pilot", "desk2", "--pilot", "desk3"),
              (NEXT, "2 desktops"))
        lines("push", (str(BAD), "--when", "now", "--come-up", "4"),
              (BAD, "4 desktops to version 13, now"),
              (GOOD, "2 desktops went back by themselves to version 12, 0"),
              (NEXT, "2 desktops went back by themselves to version 14, 0"),
              status=3)
        line("follow")                  # nothing is new: no line
        line("push", "99", status=1)    # refused: none
    return [test]


def updates(o):
    def run(command, *more, version=None, text="", **kwargs):
        told = () if version is None else ((version, text),)
        expect(o, command, more, *told, **kwargs)

    def office():
        """catalogs, desktops and hosts: one line each"""
        o.begin()
        run("catalog create", "office", "--master", "master", "--vdisk", "deb",
            "--model", "mcs", "--store", o.store, "--folder",
            o.path("desktops"), version=0, text="catalog office", vdisk="deb")
        run("desktop create", "office", "desk1", "--emulator", lab.QEMU, version=1, text="desk1",
            vdisk="deb")
        run("desktop rm", "desk1", version=1, text="desk1", vdisk="deb")
        run("host drain", "kvm1", version=0, text="host kvm1")
        run("host undrain", "kvm1", version=0, text="host kvm1")

    def update():
        """update start, abort, start again, finish: with the version"""
        run("update start", "office", "--disk", "none", status=1, version=2,
            text="not to its end: version 2 is made", vdisk="deb")
        run("update start", "office", version=2, text="written", vdisk="deb")
        run("update start", "office", status=1)         # refused: none
        run("update abort", "office", status=1)
        run("update abort", "office", "--force", version=2, text="gone",
            vdisk="deb")
        run("update start", "office", version=3, text="written", vdisk="deb")
        until("the installation", lambda: o.installed_in(3))
        run("update finish", "office", status=1)
        o.kvm1.virsh("destroy", "master")
        run("update finish", "office", "--promote", "--release",
            "2999-01-01T00:00:00", version=3, text="in production", vdisk="deb")

    def half():
        """update finish that cannot note its end: a line that says so"""
        run("update start", "office", version=4, text="written", vdisk="deb")
        until("the installation", lambda: o.installed_in(4))
        o.kvm1.virsh("destroy", "master")
        os.chmod(o.kvm1.definitions, 0o555)
        try:
            run("update finish", "office", status=1, version=4,
                text="not to its end", vdisk="deb")
        finally:
            os.chmod(o.kvm1.definitions, 0o755)

    def stage():
        """stage: one for the catalog, and one of the store that gets a version"""
        own = o.path("own-store")
        deskcast("store", "create", own).expect(0)
        o.list_hosts(more=f"store={own}\n")
        found = entries("stage", "office", "--hosts", o.hosts_file)
        told = {(e["DESKCAST_ACTION"], e["DESKCAST_VDISK"],
                 e["DESKCAST_VERSION"], e["DESKCAST_USER"]) for e in found}
        check(told == {("stage", "deb", "0", "ada"),
                       ("store replicate", "deb", "4", "ada")}, found)

    return [office, update, half, stage]


def main():
    with Office() as o:
        failed = lab.run_tests(pushes(o))
    with McsSite() as o:
        return failed + lab.run_tests(updates(o))

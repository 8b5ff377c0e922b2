# SPDX-License-Identifier: GPL-2.0-or-later
"""The story of an update with MCS: desktops with disks of their own over an image."""

import package

DEB = f"/media/{package.NAME}_{package.OLD}_all.deb"
CD = "modprobe isofs sr_mod && mount -o ro /dev/sr0 /media"
NOTE = "/root/note"


class Mcs:
    """site, the sums of what packages bring, and whom to tell: .note(), .check()"""

    def __init__(self, site, image, sums, tell):
        self.site, self.image, self.sums, self.tell = site, image, sums, tell
        self.names = ["desk01", "desk02"]

    def chapters(self):
        return [
            ("A store, a vDisk, a catalog, two desktops.",
             """The master's disk is imported as version 1: converted, and compared byte by
             byte with what is read back from the medium.""", self.begin),
            ("They start. The hook makes their disks.", "", self.start),
            ("The update: the master VM runs on version 2, and a package is installed.",
             "It is the system disk of the master VM for that time; the desktops go on.",
             self.update),
            ("Sealed, and in production.", "", self.finish),
            ("Pushed, with users at work.",
             """QEMU of each desktop opens and checks the version at once; it is taken at
             the next reset. Nobody's session ends.""", self.push),
            ("The users choose Restart.", "", self.restart),
            ("It was no good: back.",
             "With --when now they are reset, and watched until they are up.", self.rollback),
        ]

    def guests(self):
        return [self.site.desktop(name) for name in self.names]

    def begin(self):
        self.site.master("gold", self.image, 384)
        self.site.type("deskcast store create /srv/deskcast")
        self.site.type("deskcast vdisk import /srv/gold.raw deb --comment 'as installed'")
        self.site.type("deskcast version promote deb")
        self.site.type("deskcast catalog create office --master gold --vdisk deb --model mcs "
                       "--folder /var/lib/deskcast/desktops/office")
        self.site.type(f"deskcast desktop create office {' '.join(self.names)} "
                       "--identity-bus scsi")

    def start(self):
        for name in self.names:
            self.site.type(f"virsh start {name}")
        for guest in self.guests():
            guest.wait_boot(600)
            self.tell.check(not guest.has_package(), f"{guest.name} is up, without the package")
            self.tell.check("made" in self.site.said(guest.name),
                            f"{guest.name}: the hook made its disk", self.site.said(guest.name))
            guest.run(f"echo unsaved > {NOTE}; sync")
        sandbox = self.site.command_line("desk01")
        sandbox = sandbox[sandbox.index("-sandbox") + 1]
        self.tell.check("spawn=deny" in sandbox and self.site.sandboxed("desk01"),
                        "QEMU is in its sandbox", sandbox)

    def update(self):
        self.site.type(f"deskcast update start office --comment '{package.NAME} {package.OLD}'")
        gold = self.site.desktop("gold")
        gold.wait_boot(600)
        gold.run(CD)
        self.site.within("gold", f"dpkg -i {DEB}")
        self.tell.check(not gold.holds(self.sums[package.OLD]), "the master VM has its files")
        gold.run("umount /media; sync")
        self.tell.check(not any(g.has_package() for g in self.guests()),
                        "the desktops have nothing of it")
        self.site.type("virsh shutdown gold")
        gold.wait_off()

    def finish(self):
        self.site.type("deskcast update finish office --promote")
        self.site.type("deskcast vdisk show deb")

    def push(self):
        self.site.type("deskcast push office")
        for guest in self.guests():
            said = guest.run(f"cat {NOTE}")
            self.tell.check(said == "unsaved\n" and not guest.has_package(),
                            f"{guest.name} works on, on the old version", said)
        self.site.type("deskcast status office")

    def are_on(self, version):
        """By content, in the guests"""
        for guest in self.guests():
            if version:
                self.tell.check(guest.installed() == version, f"{guest.name} has {package.NAME} "
                                f"{version}", guest.installed())
                wrong = guest.holds(self.sums[version])
                self.tell.check(not wrong, f"{guest.name}: each of its files has its SHA-256",
                                wrong)
            else:
                there = guest.run(f"ls -d {package.FOLDER} 2>/dev/null || :")
                self.tell.check(not guest.has_package() and not there,
                                f"{guest.name} is without the package", there)

    def restart(self):
        before = {g.name: g.boot_id() for g in self.guests()}
        for name in self.names:
            self.site.type(f"virsh reset {name}")
        for guest in self.guests():
            guest.wait_other_boot(before[guest.name], 600)
        self.are_on(package.OLD)
        for guest in self.guests():
            self.tell.check(guest.run(f"ls {NOTE} 2>/dev/null || echo gone") == "gone\n",
                            f"{guest.name} has forgotten what its user left")
        self.site.type("deskcast status office")

    def rollback(self):
        self.site.type("deskcast rollback office --when now --come-up 600")
        self.are_on("")
        self.site.type("deskcast status office")
        for name in self.names:
            self.site.type(f"virsh destroy {name}")
        self.is_documented()

    def is_documented(self):
        """The page for beginners has the commands that were typed."""
        page = (self.site.top / "docs/operations/begin.rst").read_text().replace("\\\n", "")
        shown = [" ".join(line.split()) for line in page.splitlines()
                 if line.startswith("    deskcast ")]
        untried = [line for line in shown
                   if not any(typed.startswith(line) for typed in self.site.typed)]
        self.tell.check(len(shown) > 8 and not untried,
                        "docs/operations/begin.rst has these commands", untried)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The story of an update with PVS: desktops that stream, and an update that takes the
guest's network down while the store is killed."""

import json
import re
import socket
import textwrap
import time

import package
from guest import GuestError
from upgrade import Beats, Reports

import mcs
from premises import KILL_ROUND, STORE

AWAY = 60
NEW_DEB = f"/media/{package.NAME}_{package.NEW}_all.deb"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Pvs(mcs.Mcs):
    def __init__(self, site, image, sums, tell):
        super().__init__(site, image, sums, tell)
        self.names = ["lab01", "lab02"]
        self.port = free_port()
        self.far = f"nbds://{STORE}:{self.port}"
        self.durable = {}
        self.killed = self.away = 0.0

    def chapters(self):
        return [
            ("The store's server, a relay on the host, a catalog, two desktops.",
             """Certificates first, as docs/operations/serving.rst has them: the store lets in
             whom it knows, over TLS. The relay fetches each block once, checks it, and keeps
             it for all desktops of its host.""", self.begin),
            ("They start, and stream.", "", self.start),
            ("The update: private image mode, with an update window.",
             """The master VM writes to a reconnect buffer on its host, which is shipped to
             the store. When the command is done, the guest needs nothing from the
             network until it has written what is reserved.""", self.update),
            ("An upgrade without its network, and without its store.",
             f"""dpkg takes the guest's network down for {package.DOWN} seconds; meanwhile the
             store's server is killed, and stays away for {AWAY} seconds.""", self.upgrade),
            ("Shipped, sealed, in test.", "", self.finish),
            ("A pilot tries it.", "", self.pilot),
            ("Into production, for all others.", "", self.promote),
            ("It was no good: back.", "", self.rollback),
        ]

    def begin(self):
        self.site.master("labgold", self.image, 384)
        if not (self.site.srv / "deskcast").exists():
            self.site.type("deskcast store create /srv/deskcast")
            self.site.type("deskcast vdisk import /srv/labgold.raw deb")
            self.site.type("deskcast version promote deb")
        self.certify()
        self.serve()
        self.site.type("deskcast catalog create lab --master labgold --vdisk deb --model pvs "
                       "--folder /var/lib/deskcast/desktops/lab --host-cache /srv/cache "
                       "--source nbd+unix:///?socket=/run/deskcast/relay "
                       f"--source {self.far}")
        self.site.type(f"deskcast desktop create lab {' '.join(self.names)} --identity-bus scsi")
        answer = json.loads(self.site.type("deskcast vdisk show deb --json", quiet=True))
        self.first = answer["current"]
        self.wait_here(self.first)

    def certify(self):
        """By the commands of the page: an authority, the store, the host."""
        page = (self.site.top / "docs/operations/serving.rst").read_text()
        part = page.split("\nCertificates\n")[1].split("\nThe store\n")[0]
        blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", part)
        for block in blocks:
            self.site.type(textwrap.dedent(block), quiet=True)
        name = re.search(r"^    (O=.*)$", page, re.M)[1]
        self.site.type(f"echo {name} > /etc/deskcast/clients")

    def serve(self):
        self.store = self.site.service(
            f"deskcast store serve --listen 127.0.0.1:{self.port} --tls-x509 /etc/deskcast/tls "
            "--authorise-from /etc/deskcast/clients", "store.log")
        self.store.start()
        said = self.site.type(f"qemu-img info nbd://{STORE}:{self.port}/deb@1", 1)
        self.tell.check("TLS" in said, "who comes without TLS is turned away", said)
        self.site.service(
            f"deskcast relay --from {self.far} --tls-x509 /etc/deskcast/tls --vdisk deb "
            "--cache /srv/cache --size 4G --socket /run/deskcast/relay --group libvirt-qemu "
            "--status /run/deskcast/relay.json", "relay.log").start()

    def wait_here(self, number):
        """Until the relay has all of that version."""
        began = time.monotonic()
        status = self.site.root / "run/deskcast/relay.json"
        while True:
            text = status.read_text() if status.exists() else '{"versions": []}'
            if any(v["export"] == f"deb@{number}" and v.get("hydrated")
                   for v in json.loads(text)["versions"]):
                break
            if time.monotonic() - began > 300:
                raise GuestError(f"the relay does not fetch version {number}: {text}")
            time.sleep(0.5)
        self.tell.note(f"the relay has all of version {number} after "
                       f"{time.monotonic() - began:.1f} s")

    def start(self):
        for name in self.names:
            self.site.type(f"virsh start {name}")
        for guest in self.guests():
            guest.wait_boot(600)
            disk = guest.disk()["pvs"]
            cache = disk.get("host-cache", {})
            self.tell.check(self.site.sandboxed(guest.name), f"{guest.name} is in its sandbox")
            self.tell.check(disk["version"] == self.first and cache.get("hit-bytes", 0) > 1 << 20,
                            f"{guest.name} is up, on version {self.first}, and has read "
                            f"{cache.get('hit-bytes', 0) >> 20} MiB from the host's cache", disk)
        self.old = self.guests()[0].installed()

    def buffer(self):
        return self.gold.disk()["pvs"]["buffer"]

    def update(self):
        self.site.type("deskcast update start lab --reserve 256M --journal 1G "
                       f"--comment '{package.NAME} {package.NEW}'")
        self.gold = self.site.desktop("labgold")
        self.gold.wait_boot(600)
        self.tell.check(self.buffer()["window"], "the update window is open", self.buffer())
        self.tell.check(self.site.sandboxed("labgold"), "the private desktop is in its sandbox")
        disk = [word for word in self.site.command_line("labgold") if '"journal"' in word]
        self.tell.check(len(disk) == 1 and '"tls-creds"' in disk[0],
                        "the master VM writes to the store over TLS", disk)
        self.gold.run(mcs.CD)
        if not self.old:
            self.site.within("labgold", f"dpkg -i {mcs.DEB}")

    def watch_network(self):
        self.beats = Beats()
        self.gold.run("systemctl restart systemd-networkd; systemd-run --quiet bash -c 'while :; "
                      f"do echo . >/dev/udp/10.0.2.2/{self.beats.port}; sleep 0.5; done'")
        end = time.monotonic() + 120
        while not self.beats.times:
            if time.monotonic() > end:
                raise GuestError("nothing comes over the guest's network")
            time.sleep(0.1)

    def on_line(self, line):
        """In the thread of the reports"""
        if line == "down":
            self.tell.note("the guest's network is down")
        if line == f"written {KILL_ROUND}" and not self.killed:
            self.store.kill()
            self.killed = time.monotonic()
            self.tell.note("the store's server is killed")
            self.reports.say("go on")

    def wait_line(self, text):
        end = time.monotonic() + 600
        while not self.reports.when(text):
            if time.monotonic() > end:
                raise GuestError(f"the upgrade does not say '{text}'")
            time.sleep(0.1)

    def upgrade(self):
        self.watch_network()
        self.reports = Reports(self.site.report_port("labgold"), self.on_line)
        self.gold.run(f"systemd-run --quiet --unit upgrade --property RemainAfterExit=yes "
                      f"sh -c 'dpkg -i {NEW_DEB} >/run/upgrade.log 2>&1'")
        self.tell.note(f"labgold# dpkg -i {NEW_DEB}")
        self.wait_line(f"written {KILL_ROUND}")
        while not self.killed:
            time.sleep(0.05)
        self.without_store()
        self.store.start()
        self.away = time.monotonic() - self.killed
        self.after_upgrade()

    def without_store(self):
        self.wait_line("end")
        alone = time.monotonic() - self.killed
        state = self.site.virsh("domstate", "labgold").stdout.strip()
        self.tell.check(self.store.process.poll() is not None and state == "running",
                        f"the upgrade went on, and ended {alone:.0f} s after the store was "
                        "killed, without it", state)
        for guest in self.guests():
            self.tell.check(guest.run("echo 3 > /proc/sys/vm/drop_caches; ls /usr/bin | wc -l",
                                      120).strip().isdigit(), f"{guest.name} works on, too")
        time.sleep(max(0, self.killed + AWAY - time.monotonic()))
        lag = self.buffer()["lag-bytes"]
        self.tell.check(lag > 1 << 20, f"after {AWAY} s the reconnect buffer has "
                        f"{lag >> 20} MiB that the store lacks", lag)

    def after_upgrade(self):
        state = self.gold.run("until systemctl show -p SubState upgrade | grep -v running; do "
                              "sleep 0.2; done; cat /run/upgrade.log; systemctl show -P "
                              "ExecMainStatus upgrade", 300)
        self.beats.close()
        self.tell.note(f"the store's server is back after {self.away:.0f} s")
        gap = self.beats.longest_gap()
        self.tell.check(gap >= package.DOWN - 1, "the guest's network was down for "
                        f"{gap:.0f} s", gap)
        self.tell.check(state.endswith("\n0\n"), "dpkg ended with status 0", state)
        self.durable = {**self.sums[package.NEW], **self.reports.durable()}
        self.tell.check(self.gold.installed() == package.NEW and
                        not self.gold.holds(self.durable),
                        f"labgold has {package.NAME} {package.NEW}, and {len(self.durable)} files "
                        "that it was told are durable")
        self.gold.run("umount /media")

    def finish(self):
        self.site.type("deskcast update finish lab --shutdown")
        self.site.type("deskcast vdisk show deb")
        said = self.site.said("labgold")
        self.tell.check("the store has all that was written" in said,
                        "the hook: the store has all that was written", said)
        self.new = self.first + 1
        self.wait_here(self.new)

    def is_new(self, guest):
        wrong = guest.holds(self.durable)
        self.tell.check(guest.installed() == package.NEW and not wrong,
                        f"{guest.name} has {package.NAME} {package.NEW}, each file with its "
                        "SHA-256", wrong)

    def is_old(self, guest):
        there = guest.run(f"ls -d {package.FOLDER}/data 2>/dev/null || :")
        wrong = guest.holds(self.sums[self.old]) if self.old else ""
        self.tell.check(guest.installed() == self.old and not there and not wrong,
                        f"{guest.name} has {package.NAME} {self.old}, and nothing of the new one"
                        if self.old else f"{guest.name} has nothing of {package.NAME}",
                        there + wrong)

    def pilot(self):
        self.site.type(f"deskcast push lab {self.new} --pilot lab01 --when now --come-up 600")
        one, two = self.guests()
        self.is_new(one)
        self.is_old(two)

    def promote(self):
        one, two = self.guests()
        boot = one.boot_id()
        self.site.type(f"deskcast version promote deb {self.new}")
        self.site.type("deskcast push lab --when now --come-up 600")
        self.is_new(two)
        self.tell.check(one.boot_id() == boot, "lab01, which has it already, was left alone")
        self.site.type("deskcast status lab")

    def rollback(self):
        self.site.type("deskcast version revert deb")
        self.site.type("deskcast rollback lab --when now --come-up 600")
        for guest in self.guests():
            self.is_old(guest)
        self.site.type("deskcast status lab")
        for name in self.names:
            self.site.type(f"virsh destroy {name}")

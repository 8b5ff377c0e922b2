# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of docs/operations, typed in their order on one host: a libvirtd with the hook,
a store, its server and a relay, in a mount namespace, as tests/story has them.

Guests are a boot sector, which comes up in a second: it writes to its disk now and then, as a
system does, and switches off when its power button is pressed. tests/story does the same with
real guests.
"""

import functools
import json
import re
import shutil
import sys
import textwrap
import time
import xml.etree.ElementTree as xml

import commands
import confined
import manual
import shown
from sizes import BUILD

sys.path.insert(0, str(manual.TOP / "tests/story"))
sys.path.insert(0, str(manual.TOP / "tests/host"))

import examples  # noqa: E402
import premises  # noqa: E402
import lab  # noqa: E402

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
OPERATIONS = manual.DOCS / "operations"
SIZE = 4 << 20
# What has another size or place here than where a person types it
HERE = [("/var/cache/deskcast", "/srv/cache"),
        ("--reserve 6G", "--journal 64M --reserve 8M"),
        ("--size 200G", "--size 1G"), ("2026-12-01T06:00:00", "2099-12-01T06:00:00")]
# What is of the whole machine has a root of its own here
ROOT = "/srv/root"
HERE += [("systemctl enable --now", "systemctl enable"),
         ("systemctl enable", f"systemctl --root={ROOT} enable"),
         ("journalctl --update-catalog", f"journalctl --root={ROOT} --update-catalog"),
         *((f" {p}", f" {ROOT}{p}") for p in (
             "/etc/systemd", "/usr/share/deskcast", "/usr/lib/systemd")),
         (">>/etc/apparmor.d", f">>{ROOT}/etc/apparmor.d"),
         (" packaging/", f" {manual.TOP}/packaging/")]
# Not to be run, and why
ASIDE = re.compile("|".join(e[0] for e in shown.UNTYPED))
# What desktops take versions by, and the catalog
PUSH = re.compile(r"deskcast (?:push|rollback|follow)\b ?(\w*)")
ENABLE_BUTTON = "fb ba0206 b80001 ef"               # of ACPI, at SeaBIOS's place for it
WAIT_BUTTON = "f4f4f4f4 ba0006 ed f6c401 74dc"      # four ticks, look; write again, all of it
SWITCH_OFF = "ba0406 b80020 ef"


def guest():
    """lab's boot sector that works, with a power button"""
    sector = bytearray(lab.guest(True))
    halt = sector.index(bytes.fromhex("f4ebfd"))
    more = bytes.fromhex(ENABLE_BUTTON + WAIT_BUTTON + SWITCH_OFF + "f4ebfd")
    assert halt + len(more) <= 0x40
    sector[halt:halt + len(more)] = more
    return bytes(sector)


MASTER = """<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='/srv/{name}.raw'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class Site(premises.Site):
    """A host, and what an administrator types there"""

    def __init__(self, folder):
        qemu = BUILD / "qemu"
        ours = BUILD / "deskcast"
        self.log = []
        self.private = []
        self.versions = []      # after each push: what desktops want, and run on
        self.far = ""           # where the store's server listens
        super().__init__(folder, {
            "deskcast": ours / "cli/deskcast", "deskcast-hook": ours / "hook/deskcast-hook",
            "qemu-img": qemu / "qemu-img", "qemu-system-x86_64": qemu / "qemu-system-x86_64",
            "qemu-storage-daemon": qemu / "storage-daemon/qemu-storage-daemon"}, "tcg",
            lambda line, said, seconds: self.log.append((line, said, seconds)))
        for folder in ("systemd/system", "apparmor.d/local/abstractions"):
            (self.srv / "root/etc" / folder).mkdir(parents=True)
        for unit in (manual.TOP / "packaging/systemd").iterdir():
            shutil.copy(unit, self.srv / "root/etc/systemd/system")

    def gold(self, name):
        """A master VM"""
        (self.srv / f"{name}.raw").write_bytes(guest().ljust(SIZE, b"\0"))
        self.define(MASTER.format(name=name, emulator=self.libexec / "qemu-system-x86_64"))

    @staticmethod
    def wait(holds, why):
        end = time.monotonic() + premises.BOOT
        while not holds():
            if time.monotonic() > end:
                raise premises.hosts.CommandError(why)
            time.sleep(0.1)

    def wait_state(self, name, state):
        self.wait(lambda: state in self.virsh("domstate", name).stdout, f"{name} is not {state}")

    def is_up(self, name):
        """Its guest has written to a disk"""
        said = self.virsh("qemu-monitor-command", name, '{"execute":"query-blockstats"}').stdout
        return any(device["stats"]["wr_operations"] for device in json.loads(said)["return"])

    def wait_up(self):
        """All guests: their power buttons do something then"""
        for name in self.virsh("list", "--name").stdout.split():
            self.wait(functools.partial(self.is_up, name), f"{name} does not come up")
        time.sleep(0.2)

    def one(self, line):
        """A line of a block"""
        if "shutdown" in line:
            self.wait_up()
        self.type(line)
        pushed = PUSH.match(line)
        if pushed:
            self.versions.append(on_versions(self, pushed[1]))
        self.note_private(line)
        switched_off = re.match(r"virsh shutdown (\S+)", line)
        if switched_off:
            self.wait_state(switched_off[1], "shut off")

    def note_private(self, line):
        """How the master runs that writes a version of a streamed vDisk"""
        if line.startswith("deskcast update start lab ") and not self.private:
            self.private = self.command_line("deb-master")
            self.saved("deb-master")

    def saved(self, name):
        """The end of pvs-private.rst: a private desktop is saved, and goes on"""
        page = manual.DOCS / "system/pvs-private.rst"
        *_, block = commands.blocks(page, "Limits")
        for chunk in shown.chunks(block[1]):
            if "managedsave" in chunk:
                self.wait(lambda: not self.desktop(name).disk()["pvs"]["buffer"]["lag-bytes"],
                          f"{name} has something to ship")
            self.one(re.sub(r"\bmaster\b", name, chunk))
            shown.note(page, block[0], chunk)
        self.type(f"virsh start {name} && virsh domstate {name} | grep paused && "
                  f"virsh resume {name}")

    @staticmethod
    def here(text, changes=()):
        """The same, for this host"""
        for old, new in [*HERE, *changes]:
            text = text.replace(old, new) if "\\b" not in old else re.sub(old, new, text)
        return text

    def page(self, name, changes=(), part=""):
        """Type all blocks of a page, or of a part with this title; how many commands"""
        return sum(self.block(manual.DOCS / name, block, changes)
                   for block in commands.blocks(manual.DOCS / name, part))

    def block(self, path, block, changes=()):
        """Type a block of a page, as commands.blocks has it; how many commands"""
        number, text = block
        typed = [c for c in shown.chunks(text) if not ASIDE.match(c)]
        for chunk in typed:
            self.one(self.here(chunk, changes))
            shown.note(path, number, chunk)
        return len(typed)


def typed_all(count, least):
    return [] if count >= least else [f"only {count} commands were found"]


def on_versions(site, catalog):
    """Of each desktop, by name: (version that it wants, and that it runs on)"""
    said = json.loads(site.type(f"deskcast status {catalog} --json", quiet=True))
    return [(d["wanted"], d.get("actual")) for d in
            sorted(said["desktops"], key=lambda d: d["desktop"])]


def pushed_to(site, *expected):
    """What is wrong with the versions after each push since the last call"""
    found, site.versions = site.versions, []
    return [] if found == list(expected) else [f"after each push {found}, not {expected}"]


def begin(site):
    """begin.rst: from nothing to a push and back"""
    site.gold("gold")
    wrong = typed_all(site.page("operations/begin.rst"), 13)
    return wrong + pushed_to(site, [(2, 1)] * 2, [(1, 1)] * 2)


def updates_mcs(site):
    """updates.rst: MCS, with pilots, batches and a rollback"""
    here = [(r"\b13\b", "2"), ("office", "house")]
    site.gold("win11-master")
    site.type("deskcast vdisk import /srv/win11-master.raw win11")
    site.type("deskcast version promote win11")
    wrong = typed_all(site.page("operations/updates.rst", here, "MCS"), 14)
    new = [(2, 2), (2, 2), (2, None)]       # the third one is off
    return wrong + pushed_to(site, [(2, 2), (2, 2), (1, None)], new, new,
                             [(1, 2), (1, 2), (1, None)], [(1, 1), (1, 1), (1, None)])


def serve(site):
    """The store's server and a relay, by the commands of serving.rst"""
    far = f"store1:{premises.hosts.free_port()}"
    for title in ("Certificates", "The store", "Without certificates"):
        site.page("operations/serving.rst", part=title)
    conf, status = commands.blocks(OPERATIONS / "serving.rst", "The host")
    site.block(OPERATIONS / "serving.rst", conf)
    given = dict(re.findall(r"^(\w+)_OPTIONS=(.*)$", "\n".join(
        b for _, b in commands.blocks(OPERATIONS / "serving.rst")), re.M))
    site.service("deskcast store serve " + given["SERVE"].replace(":10809", far), "store.log"
                 ).start()
    site.service("deskcast relay --cache /srv/cache --socket /run/deskcast/relay --status "
                 "/run/deskcast/relay.json --interval 1 " + site.here(given["RELAY"], [
                     ("store1:10809", far), ("win11", "deb")]), "relay.log").start()
    site.block(OPERATIONS / "serving.rst", status)
    site.far = far
    return far


def hydrated(site, number):
    """Until the relay has that version of deb"""
    def there():
        versions = json.loads(site.type("cat /run/deskcast/relay.json", quiet=True))["versions"]
        return any(v["export"] == f"deb@{number}" and v.get("hydrated") for v in versions)
    site.wait(there, f"deb@{number} is not on the host")


def updates_pvs(site):
    """updates.rst: PVS, with an update window, a release date and a rollback"""
    site.gold("deb-master")
    first = json.loads(site.type("deskcast vdisk show deb --json", quiet=True))["current"]
    new = json.loads(site.type("deskcast vdisk show deb --json", quiet=True))["versions"][-1][
        "version"] + 1
    far = serve(site)
    here = [("lab 8 ", f"lab {new} "), ("deb 8 ", f"deb {new} "), ("store1:10809", far),
            ("deskcast follow", "deskcast follow lab")]
    page = OPERATIONS / "updates.rst"
    once, update, rest = commands.blocks(page, "PVS")
    hydrated(site, first)
    site.block(page, once, here)
    count = 0
    for block in (update, rest):
        count += site.block(page, block, here)
        hydrated(site, new)
    pilot = [(new, new), (first, None)]
    return typed_all(count, 6) + pushed_to(site, pilot, pilot, [(first, new), (first, None)])


def looking(site):
    """troubleshooting.rst, outages.rst: what is looked at, and events"""
    here = [("virsh qemu-monitor-event desk01 --loop",
             "(sleep 1; virsh reset desk01 >&2) & virsh qemu-monitor-event desk01 "
             "--event VDISK_RESET --timeout 60")]
    count = sum(site.page(f"operations/{name}.rst", here) for name in (
        "troubleshooting", "outages"))
    events = [said for line, said, _ in site.log if "qemu-monitor-event" in line]
    return typed_all(count, 8) + [e for e in events if '"node-name":"disk0"' not in e]


def desktops(site):
    """desktops.rst: a host is set up, and desktops are made on it"""
    here = [("/usr/lib/deskcast", "/srv/lib"), ("/usr/bin/", "/srv/bin/"),
            ("/etc/libvirt/hooks", "/srv/hooks"), (" build/", f" {BUILD}/"),
            ("desk01", "desk11"), ("desk02", "desk12")]
    site.type("mkdir -p /srv/bin", quiet=True)
    count = site.page("operations/desktops.rst", here)
    said = site.type("/srv/bin/deskcast --help; /srv/hooks/qemu.d/deskcast x migrate begin -; "
                     "cat /srv/lib/qemu-img /srv/lib/qemu-storage-daemon | wc -c", quiet=True)
    return typed_all(count, 6) + ([] if "desktop create" in said else [said])


def words_of(block):
    """[(option, value)] of QEMU's command line, JSON as such"""
    lines = block.splitlines()
    return [(o, json.loads(v) if v.startswith("{") else v) for o, v in zip(lines[::2], lines[1::2])]


def arguments_of(site, name):
    """The same, of a domain"""
    root = xml.fromstring(site.xml(name))
    found = [a.get("value") for a in root.iter(QEMU + "arg")]
    return words_of("\n".join(found))


def contains(element, shown):
    """Has an element all that is shown?"""
    return element.tag == shown.tag and shown.attrib.items() <= element.attrib.items() and \
        all(any(contains(e, s) for e in element) for s in shown)


def domain_xml(site):
    """integrator/domain-xml.rst is what desktops are made with"""
    page = manual.DOCS / "integrator/domain-xml.rst"
    (_, mcs), (_, pvs), (_, tls), *behind = commands.blocks(page)
    wrong = []
    for option, value in words_of(mcs):
        if isinstance(value, dict):
            value.pop("addr", None)
        made = [{k: v for k, v in m.items() if k != "addr"} if isinstance(m, dict) else m
                for o, m in arguments_of(site, "desk01") if o == option]
        wrong += [] if value in made else [f"desk01: {option} {value} is not in {made}"]
    port = next(m for o, m in arguments_of(site, "lab01")
                if o == "-blockdev")["stores"][1]["server"]["port"]
    for option, value in words_of("\n".join(
            site.here(b, [("10809", port)]) for b in (pvs, tls))):
        made = [m for o, m in arguments_of(site, "lab01") if o == option]
        wrong += [] if value in made else [f"lab01: {option} {value} is not in {made}"]
    site.gold("goldv")
    site.type("deskcast catalog create behind --master goldv --vdisk deb --model mcs "
              "--folder /var/lib/deskcast/desktops/behind --run vhost-user")
    site.type("deskcast desktop create behind vd01")
    root = xml.fromstring(site.xml("vd01"))
    for _, block in behind:
        part = xml.fromstring(block.replace("/desk01/", "/vd01/"))
        wrong += [] if any(contains(e, part) for e in root.iter(part.tag)) else \
            [f"vd01: {block} is not in {site.xml('vd01')}"]
    for number, block in commands.blocks(page):
        shown.note_block(page, number, block)
    return wrong


def confinement(site):
    """what every kind of desktop opens, the rules for desktops of AppArmor allow"""
    site.type("virsh start vd01")
    pid = site.type("cat /run/deskcast/vd01/daemon.pid", quiet=True).strip()
    kinds = {"mcs": (site.command_line("desk01"), 2), "pvs": (site.command_line("lab01"), 5),
             "private": (site.private, 4),
             "vhost-user": (site.command_line("vd01"), 1),
             "its daemon": (site.words_of(pid), 2)}
    site.type("virsh destroy vd01")
    return [why for kind, (words, least) in kinds.items() for why in confined.not_allowed(
        kind, [w.replace("/srv/cache", "/var/cache/deskcast") for w in words], least)]


PAGES = (begin, updates_mcs, updates_pvs, looking, desktops, domain_xml, confinement)


class Typing:
    """The pages, one after the other on one host, which the first one makes"""

    def __init__(self, folder):
        self.folder = folder / "host"
        self.site = self.failed = None

    def test(self, page):
        def run():
            if self.failed:
                return [f"not tried, because of {self.failed}"]
            self.failed = page.__doc__
            if not self.site:
                self.folder.parent.chmod(0o755)
                self.site = Site(self.folder)
                self.site.__enter__()       # pylint: disable=unnecessary-dunder-call
            wrong = page(self.site)
            self.failed = ""
            return wrong
        run.__doc__ = f"typed: {page.__doc__}"
        return run

    def tests(self):
        """And its end, which is no test"""
        return [self.test(page) for page in (*PAGES, *examples.PAGES)]

    def end(self):
        if self.site:
            for line, said, seconds in self.site.log if self.failed else []:
                print(f"# {seconds:.1f} s  {line}\n" + textwrap.indent(said, "#     "))
            self.site.__exit__()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The EXAMPLES of manual pages, and what pages on operations show besides updates, typed on the
host that typed.py has set up: with the catalogs office, house (of win11) and lab (of deb)."""

import json
import re

import commands
import manual
import premises
import shown
from sizes import BUILD

# Where a command goes on until it is stopped; in seconds
LOOK = 1
GOES_ON = re.compile(r"deskcast (exporter(?!.*--once)|report --record|top(?!.*--once))")


def one(site, line):
    """As typed.Site does it; a command that goes on is stopped"""
    if GOES_ON.match(line):
        site.type(f"timeout {LOOK} {line}", 124)
    else:
        site.one(line)


def page(site, name, changes=(), part="", number=None):
    """Type what a page shows, or one block of it; what was printed"""
    path, said = manual.DOCS / name, len(site.log)
    found = commands.blocks(path, part)
    for line, block in found if number is None else [found[number]]:
        for chunk in shown.chunks(block):
            if not any(re.match(e[0], chunk) for e in shown.UNTYPED):
                one(site, site.here(chunk, changes))
                shown.note(path, line, chunk)
    return "".join(text for _, text, _ in site.log[said:])


def examples(site, command, changes=(), number=None):
    return page(site, f"man/deskcast-{command}.rst", changes, "EXAMPLES", number)


def lacks(said, *texts):
    return [f"'{t}' was not said: {said}" for t in texts if t not in said]


def newest(site, vdisk):
    return json.loads(site.type(f"deskcast vdisk show {vdisk} --json", quiet=True))["versions"][
        -1]["version"]


def monitoring(site):
    """monitoring.rst: the exporter, a report, the journal, the files of the package"""
    port = premises.hosts.free_port()
    path = "operations/monitoring.rst"
    exporter = site.service(f"deskcast exporter --listen 127.0.0.1:{port}", "exporter.log")
    exporter.start(ready="")
    listens = f"curl -s http://127.0.0.1:{port} || echo refused"
    site.wait(lambda: "refused" not in site.type(listens, quiet=True),
              "the exporter does not listen")
    metrics = page(site, path, [("10810", str(port))], "Prometheus", 0)
    exporter.end()
    page(site, path, [("/tmp/", "/srv/"), (r"(--record\b.*)", r"\1 --interval 1")],
         "Without Prometheus")
    page(site, path, part="The journal")
    page(site, path, part="Without the package")
    said = site.type("cat /srv/desktops.html; journalctl --root=/srv/root --list-catalog")
    return lacks(metrics, 'deskcast_desktop_up{desktop="desk01"') + \
        lacks(said, "desk01", "7c1f4d0e9ab24c65b1a3d8f2065e47cb")


def who_and_what(site):
    """updates.rst, upgrades.rst: who did what, and what runs of an older package"""
    page(site, "operations/updates.rst", part="If something goes wrong")
    lib = site.folder / "libexec"
    program = lib / "qemu-system-x86_64"
    content = lib / "new"
    content.write_bytes(program.read_bytes())
    content.chmod(0o755)
    content.replace(program)
    said = page(site, "operations/upgrades.rst", [("/usr/lib/deskcast", "/libexec")], "Packages", 1)
    return lacks(said, "qemu-system-x86_64 (deleted)")


def looking(site):
    """deskcast-status(1), -top, -exporter, -report, -host: what is looked at"""
    here = [("/tmp/", "/srv/"), ("/var/lib/prometheus/node-exporter", "/srv"),
            ("prometheus", "libvirt-qemu"), ("--interval 10", "--interval 1"),
            ("--interval 5", "--interval 1"), ("kvm2", "kvm1"), ("store1:10809", site.far)]
    said = "".join(examples(site, c, here) for c in ("status", "top", "exporter", "report", "host"))
    made = site.type("cat /srv/deskcast.prom /srv/desktops.txt /srv/desktops.html; "
                     "deskcast host undrain kvm1")
    return lacks(said, "kvm1 takes no new desktops") + lacks(
        made, "deskcast_desktop_up", "desktops, ", "<td>desk01</td>")


def catalogs(site):
    """deskcast-catalog(1), deskcast-desktop(1): made, started, listed, removed"""
    for name in ("first-master", "second-master"):
        site.gold(name)
    (site.srv / "Unattend.xml").write_text("<unattend xmlns='urn:schemas-microsoft-com:unattend'/>")
    here = [("office", "works"), ("lab", "class"), ("win11-master", "first-master"),
            ("deb-master", "second-master"), ("store1:10809", site.far)]
    said = examples(site, "catalog", here)
    site.gold("third-master")
    site.type("deskcast catalog create sales --master third-master --vdisk win11 --model mcs "
              "--folder /var/lib/deskcast/desktops/sales")
    said += examples(site, "desktop", [
        ("office", "works"), ("desk0", "desk2"), ("qemu+ssh://kvm1/", "qemu:///"),
        ("Unattend.xml", "/srv/Unattend.xml")])
    site.type("virsh destroy desk21")
    return lacks(said, "works", "desk22", "win01", "desk23: removed")


def selftest(site):
    """deskcast-selftest(1)"""
    return lacks(examples(site, "selftest", [("selftest", "selftest --folder /srv")]),
                 "21 steps done, 0 failed", "12 steps done, 0 failed")


def stores(site):
    """deskcast-store(1), deskcast-serve(1): a second site"""
    far = f"store1:{premises.hosts.free_port()}"
    here = [("nbds://store1.example", f"nbds://{site.far}"),
            ("/etc/deskcast/pki", "/etc/deskcast/tls"), ("/srv/deskcast", "/srv/second")]
    said = examples(site, "store", here)
    path = manual.DOCS / "man/deskcast-serve.rst"
    (line, block), = commands.blocks(path, "EXAMPLES")
    first, second = shown.chunks(block)
    changes = [("--listen :10809", f"--store /srv/second --listen {far}"),
               ("store1:10809", site.far), ("store2:10809", far),
               ("/run/deskcast/relay", "/run/deskcast/relay2"), ("/srv/cache", "/srv/cache2")]
    services = []
    for chunk in (first, second):
        services.append(site.service(site.here(chunk, changes), f"second-{len(services)}.log"))
        services[-1].start()
        shown.note(path, line, chunk)
    for service in services[::-1]:
        service.end()
    return lacks(said, "win11", "/srv/second")


def updates(site):
    """deskcast-update(1), deskcast-push(1): both stories in short"""
    wrong = []
    stories = ("house", "win11", "13"), ("lab", "deb", "8")
    for number, (catalog, vdisk, shows) in enumerate(stories):
        new = newest(site, vdisk) + 1
        examples(site, "update", [("office", catalog), (rf"\b{shows}\b", str(new))], number)
        wrong += lacks(site.type(f"deskcast vdisk show {vdisk}"), f"\n{new} ")
    examples(site, "push", [("office", "house"), (r"\b13\b", str(newest(site, "win11")))])
    return wrong


def vdisks(site):
    """deskcast-vdisk(1): shown, imported, verified, and found to be damaged"""
    site.type("qemu-img convert -O vhdx /srv/gold.raw /srv/golden.vhdx")
    here = [("golden.vhdx win11", "/srv/golden.vhdx win11b"), ("verify win11", "verify win11b")]
    said = examples(site, "vdisk", here, 0) + examples(site, "vdisk", here, 1)
    path = manual.DOCS / "man/deskcast-vdisk.rst"
    line, block = commands.blocks(path, "EXAMPLES")[2]
    site.type("printf x | dd of=/srv/deskcast/vdisks/win11b/1.raw conv=notrunc bs=1 seek=65536")
    damaged, = shown.chunks(block)
    said += site.type(damaged.replace("win11 3", "win11b 1"), 1)
    shown.note(path, line, damaged)
    root = examples(site, "vdisk", here, 3)
    return lacks(said, "VERSION  PARENT", "win11b: version 1,",
                 "win11b version 1: as it was sealed", "win11b version 1: DAMAGED\n"
                 "  not what was sealed: bytes 65536 to 69631 in 1.raw") + \
        ([] if re.search(r"\n[0-9a-f]{64}\n", f"\n{root}") else [root])


def versions(site):
    """deskcast-version(1): a disk of a master VM, a trace, and what is got rid of"""
    site.type("deskcast vdisk import /srv/gold.raw win12; deskcast version promote win12")
    said = page(site, "man/deskcast-version.rst", part="JOURNAL")
    here = [(r"\bwin11\b", "win12"), ("2027-01-14", "2099-01-14"), (r"\b13\b", "1"),
            ("/tmp/", "/srv/")]
    said += examples(site, "version", here, 0)
    said += examples(site, "version", here, 1)
    shows = json.loads(site.type("deskcast vdisk show win12 --json", quiet=True))["versions"][0]
    trace = BUILD / "deskcast/tests/store/boot-trace"
    site.type(f"{trace} {shows['size']} {shows['root']} 0 3 >/srv/pilot.trace")
    said += examples(site, "version", here, 2)
    site.type("deskcast version promote win12 2")
    # The server has it open until it has looked at the manifest
    here.append((r"\b(deskcast version rm .*)",
                 r"timeout 60 sh -c 'until \1; do sleep 0.3; done'"))
    said += examples(site, "version", here, 3)
    left = json.loads(site.type("deskcast vdisk show win12 --json", quiet=True))["versions"]
    return lacks(said, "win12@1") + ([] if [v["version"] for v in left] == [2] else [str(left)])


PAGES = (monitoring, who_and_what, looking, catalogs, selftest, stores, updates, vdisks, versions)

# SPDX-License-Identifier: GPL-2.0-or-later
"""AppArmor's rules: they fit into Debian's profiles, and are rules."""

import pathlib
import shutil

import host as hosts

PROFILES = pathlib.Path("/etc/apparmor.d")
OURS = hosts.TOP / "packaging" / "apparmor"
# Ours: where it goes, the profile that takes it in
PLACES = (("libvirt-qemu", "local/abstractions/libvirt-qemu", "libvirt/deskcast-test"),
          ("libvirtd", "local/usr.sbin.libvirtd", "usr.sbin.libvirtd"))


def parse(base, profile, *options):
    return hosts.run("/usr/sbin/apparmor_parser", "--base", base, "-Q", "-K", "-T", *options,
                     base / profile, check=False)


def run_tests(tap, world):
    if not (PROFILES / "libvirt" / "TEMPLATE.qemu").exists():
        tap.skip("AppArmor", "this machine's libvirt has no profiles")
        return
    base = world.folder / "apparmor.d"
    shutil.copytree(PROFILES, base, symlinks=True)
    template = (base / "libvirt" / "TEMPLATE.qemu").read_text()
    (base / "libvirt" / "deskcast-test").write_text(
        template.replace("LIBVIRT_TEMPLATE", "libvirt-0123"))
    for name, place, profile in PLACES:
        shutil.copy(OURS / name, base / place)
        done = parse(base, profile)
        tap.ok(done.returncode == 0, f"{name}: the parser takes {profile} with it", done.stderr)
        shown = parse(base, profile, "-p").stdout
        lines = [line.strip() for line in (OURS / name).read_text().splitlines()
                 if line.strip() and not line.lstrip().startswith("#")]
        missing = [line for line in lines if line not in shown]
        tap.ok(lines and not missing, f"{name}: its {len(lines)} rules are in the profile",
               missing)
    broken = base / PLACES[0][1]
    broken.write_text(broken.read_text() + "\n  /run/deskcast/x rw\n")
    tap.ok(parse(base, PLACES[0][2]).returncode != 0, "the parser would notice a mistake")

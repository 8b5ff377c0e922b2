# SPDX-License-Identifier: GPL-2.0-or-later
"""What `desktop create` defines, and what it refuses."""

import json
import os
import re

import host as hosts
import office

SCHEMA = hosts.TOP / "docs" / "interop" / "domain-metadata.rng"
LOADER = "/usr/share/OVMF/OVMF_CODE_4M.fd"
VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.fd"
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"


def ours(xml):
    """Our element of a domain, with its namespace."""
    return re.search(r"<deskcast:desktop.*</deskcast:desktop>", xml, re.S).group()


def judge(tap, world, name, what):
    xml = world.host.xml(name)
    tap.ok(not (why := office.validate(xml, "domain", world.folder)),
           f"{what}: libvirt's schema takes the domain", why)
    tap.ok(not (why := office.validate(ours(xml), SCHEMA, world.folder)),
           f"{what}: our schema takes its metadata", why)
    return xml


def refusal(world, *argv, **how):
    done = world.create(*argv, check=False, **how)
    return done.stderr if done.returncode == 1 else f"status {done.returncode}: {done.stdout}"


def identity_disk(tap, world):
    """Two identity disks, as the host reads them."""
    content = []
    for name in ("d1", "d2"):
        out = hosts.run("xorriso", "-indev", world.vdi / f"{name}.cidata", "-osirrox", "on",
                        "-extract", "/", world.folder / f"{name}.id")
        tap.ok("Volume id    : 'CIDATA'" in out.stderr, f"{name}: its identity disk has the label",
               out.stderr)
        content.append({file.name: file.read_text()
                        for file in (world.folder / f"{name}.id").iterdir()})
    one, two = content
    tap.ok("local-hostname: d1\n" in one["meta-data"] and
           "local-hostname: d2\n" in two["meta-data"], "each has its host name", content)
    tap.ok(one["vendor-data"] != two["vendor-data"] and "ssh_keys:" in one["vendor-data"],
           "each has its machine id and SSH host key", content)
    tap.ok(one["user-data"] == "#cloud-config\nhostname: d1\n" and
           one["Unattend.xml"] == "<ComputerName>d1</ComputerName>",
           "what the administrator gave is filled in", content)


def private_from_the_start(tap, world):
    """Nobody else may read an identity disk while it is being made."""
    slow = world.folder / "slow-xorriso"
    slow.mkdir()
    masks = slow / "masks"
    (slow / "xorriso").write_text(f"#!/bin/sh\numask >>{masks}\n"
                                  f"exec {hosts.shutil.which('xorriso')} \"$@\"\n")
    (slow / "xorriso").chmod(0o755)
    environment = dict(os.environ, PATH=f"{slow}:{os.environ['PATH']}")
    done = hosts.run(world.deskcast, "desktop", "create", "office", "d7", "--emulator",
                     world.emulator, "--connect", world.host.uri, env=environment)
    tap.ok(masks.read_text() == "0077\n", "an identity disk is private from its first byte",
           masks.read_text() + done.stderr)
    world.command("desktop", "rm", "d7")


def refusals(tap, world):
    for text, argv in (
            ("there is a domain of that name", ("office", "d1")),
            ("there is no catalog 'none'", ("none", "d9")),
            ("cannot be a desktop's name", ("office", "a/b")),
            ("cannot be a desktop's name", ("office", "x" * 300)),
            ("named twice", ("office", "d8", "d8")),
            ("no disk 'vdz'", ("office", "d9", "--disk", "vdz")),
            ("is not in the store", ("office", "d9", "--version", "99"))):
        why = refusal(world, *argv)
        tap.ok(text in why, f"refused: {text}", why)
    left = [d.name for d in world.vdi.iterdir() if d.name.startswith(("d8", "d9"))]
    tap.ok(not left, "what was refused leaves nothing behind", left)


def caps(tap, world):
    conf = world.folder / "hosts.conf"
    conf.write_text(f"[here]\nuri={world.host.uri}\nwrite-cache=10G\nram=1G\n")
    world.catalog("capped", content="<each write-cache='4294967296' ram='1048576'/>")
    argv = (world.deskcast, "desktop", "create", "capped", "--hosts", conf, "--emulator",
            world.emulator)
    done = hosts.run(*argv, "c1", "c2", check=False)
    tap.ok(done.returncode == 0, "desktops within the host's cap are made", done.stderr)
    done = hosts.run(*argv, "c3", check=False)
    tap.ok(done.returncode == 1 and "has 10 GiB of disk for write caches" in done.stderr,
           "one that would break the cap is refused", done.stderr)
    conf.write_text(conf.read_text() + "drained=true\n")
    done = hosts.run(*argv, "c3", check=False)
    tap.ok("is drained" in done.stderr, "a drained host takes none", done.stderr)


def firmware(tap, world):
    """UEFI variables and a TPM of its own for each."""
    gold = world.folder / "gold.fd"
    if not (hosts.pathlib.Path(LOADER).exists() and hosts.shutil.which("swtpm")):
        tap.skip("UEFI variables and TPM", "no ovmf, or no swtpm")
        return
    gold.write_bytes(hosts.pathlib.Path(VARIABLES).read_bytes()[:-8] + b"deskcast")
    world.catalog("uefi", devices=TPM, run="vhost-user", firmware=f"<loader readonly='yes' type='pflash'>{LOADER}"
                  f"</loader><nvram>{gold}</nvram>")
    world.create("uefi", "u1", "u2", bus="sata")
    judge(tap, world, "u1", "UEFI")
    for name in ("u1", "u2"):
        world.desktop(name).start("--paused")
        file = world.vdi / f"{name}.nvram"
        tap.ok(file.exists() and file.read_bytes()[-8:] == b"deskcast",
               f"{name} has UEFI variables of its own, from the master's")
    states = sorted((world.host.folder / "lib" / "swtpm").iterdir())
    tap.ok(len(states) == 2, "each has a TPM of its own", states)
    line = " ".join(world.host.command_line("u1"))
    tap.ok("tpm-crb" in line and str(world.vdi / "u1.nvram") in line, "QEMU has both", line)
    for name in ("u1", "u2"):
        world.desktop(name).destroy()
    world.command("desktop", "rm", "u1", "u2")
    left = [f.name for f in world.vdi.iterdir() if f.name.startswith("u")]
    tap.ok(not left, "rm takes all of it away", left)


def far(tap, world):
    """A host that is reached by an address gets files by way of libvirt."""
    uri = world.host.far_uri
    argv = ("desktop", "create", "office", "f1", "--emulator", world.emulator, "--connect", uri)
    done = hosts.run(world.deskcast, *argv, check=False)
    file = world.vdi / "f1.cidata"
    tap.ok(done.returncode == 0 and file.exists() and b"CIDATA" in file.read_bytes()[:40000],
           "far: the identity disk is carried to the host", done.stderr)
    tap.ok(not world.host.virsh("pool-list", "--all").stdout.strip(),
           "far: no storage pool is left")
    done = hosts.run(world.deskcast, "desktop", "rm", "f1", "--connect", uri, check=False)
    tap.ok(done.returncode == 0 and not file.exists(), "far: and taken away", done.stderr)


def manual(tap, world):
    """The manual page has every option, and no other."""
    page = (hosts.TOP / "docs" / "man" / "deskcast-desktop.rst").read_text()
    named = set(re.findall(r"\*\*(--[a-z-]+)\*\*", page))
    there = set()
    for command in ("create", "list", "rm", "assign"):
        said = hosts.run(world.deskcast, "desktop", command, "--help").stdout
        there |= set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]*)", said, re.M)) - {"--help"}
    missing = there - named
    tap.ok(there and not missing, "the manual page has every option", missing)
    tap.ok(not named - there, "and no other", named - there)


def run_tests(tap, world):
    manual(tap, world)
    world.catalog("office")
    user, answer = world.folder / "user", world.folder / "Unattend.xml"
    user.write_text("#cloud-config\nhostname: @@NAME@@\n")
    answer.write_text("<ComputerName>@@NAME@@</ComputerName>")
    world.create("office", "d1", "d2", "--ssh-host-keys", "--user-data", user,
                 "--answer-file", answer)
    xml = judge(tap, world, "d1", "in QEMU")
    tap.ok("<x:other" in xml, "other metadata of the master is kept")
    uuids = {re.search("<uuid>(.*)</uuid>", world.host.xml(n)).group(1) for n in ("d1", "d2")}
    macs = {re.search("mac address='(.*)'", world.host.xml(n)).group(1) for n in ("d1", "d2")}
    tap.ok(len(uuids) == 2 and len(macs | {"52:54:00:11:22:33"}) == 3, "UUID and MAC are its own")
    identity_disk(tap, world)
    world.catalog("behind", run="vhost-user")
    world.create("behind", "v1", bus="sata")
    judge(tap, world, "v1", "vhost-user")
    listed = json.loads(world.command("desktop", "list", "--json").stdout)["desktops"]
    page = (hosts.TOP / "docs/man/deskcast-desktop.rst").read_text(encoding="utf-8")
    missing = {n for d in listed for n in d if f"*{n}*" not in page}
    tap.ok(listed and not missing, "what desktop list --json has is in the manual", missing)
    tap.ok({d["name"] for d in listed} == {"d1", "d2", "v1"}, "list has them", listed)
    private_from_the_start(tap, world)
    refusals(tap, world)
    caps(tap, world)
    far(tap, world)
    firmware(tap, world)
    done = world.command("desktop", "rm", "d1", "d2", "nobody", check=False)
    tap.ok(done.returncode == 1 and "no such desktop" in done.stderr and
           "d1: removed" in done.stdout, "rm removes what is there, and says what is not",
           done.stdout + done.stderr)

# SPDX-License-Identifier: GPL-2.0-or-later
"""AppArmor: what the manual has people type, and what desktops open, is what the profiles allow.

The rules are read here, as far as ours go; no kernel is asked. tests/desktop has them parsed.
"""

import json
import re

import commands
import manual

RULES = manual.TOP / "packaging/apparmor"
RULE = re.compile(r"^ +(?P<path>/\S+) (?P<rights>[a-zA-Z]+),$", re.M)
GLOB = {"**": ".+", "*": "[^/]*", "{": "(?:", "}": ")", ",": "|"}
# What a desktop does with each file: its own are written, all others are only read
OWN, SHARED, SOCKET, KEY = "rwk", "rk", "rw", "r"


def pattern(path):
    """Of AppArmor's, as a regular expression; a folder with a slash is that folder alone"""
    parts = re.findall(r"\*\*|[*{},]|[^*{},]+", path)
    return re.compile("".join(GLOB.get(p) or re.escape(p) for p in parts))


def rules(profile):
    """[(pattern, rights)]"""
    text = (RULES / profile).read_text(encoding="utf-8")
    return [(pattern(m["path"]), set(m["rights"])) for m in RULE.finditer(text)]


def denied(profile, path, rights):
    """What of these rights no rule gives"""
    given = set().union(*(r for p, r in rules(profile) if p.fullmatch(path)))
    return "".join(sorted(set(rights) - given))


def files_of(option, value):
    """[(profile, file, rights)]: what will be opened because of an option that was typed"""
    if option == "--folder":
        return [("libvirt-qemu", f"{value}/desk01.{end}", OWN)
                for end in ("mcs", "pvs", "copy", "journal")]
    if option == "--host-cache":
        return [("libvirt-qemu", f"{value}/{'0' * 64}.cache", SHARED),
                ("deskcast-relay", f"{value}/{'0' * 64}.cache", OWN)]
    if option == "--source" and "socket=" in value:
        return [("libvirt-qemu", value.partition("socket=")[2], SOCKET),
                ("deskcast-relay", value.partition("socket=")[2], SOCKET)]
    if option in ("store create", "--store"):
        return [("libvirt-qemu", f"{value}/vdisks/deb/1.raw", SHARED),
                ("deskcast-store", f"{value}/vdisks/deb/2.qcow2", OWN),
                ("deskcast-store", f"{value}/vdisks/deb/manifest.json", SHARED)]
    if option == "--tls-x509":
        return [(p, f"{value}/client-key.pem", KEY) for p in
                ("libvirt-qemu", "deskcast-store", "deskcast-relay")]
    return []


def typed_options(text):
    """[(option, value)] of the command lines of deskcast in a block"""
    for line in commands.command_lines(text):
        words = commands.words(line) or []
        if words[:3] == ["deskcast", "store", "create"]:
            yield "store create", words[3]
        if re.match(r"(deskcast|SERVE_OPTIONS=|RELAY_OPTIONS=)", line):
            yield from zip(words, words[1:])


def examples(_):
    """each folder that commands are given, for stores, desktops and caches, is in a profile"""
    wrong, seen = [], 0
    paths = [manual.DOCS / "operations" / f"{n}.rst" for n in ("begin", "updates", "serving")]
    for path in [*paths, manual.DOCS / "man/deskcast-catalog.rst"]:
        for line, block in commands.blocks(path):
            for option, value in typed_options(block):
                for profile, file, rights in files_of(option, value):
                    seen += 1
                    no = denied(profile, file, rights)
                    wrong += [f"{path.name}:{line}: {option} {value}: {profile} does not allow "
                              f"{no} of {file}"] if no else []
    return wrong + ([] if seen > 30 else [f"only {seen} files were found"])


def others(_):
    """what no rule is for is found to be denied"""
    return [f"{profile} allows {file}" for profile, file, rights in (
        ("libvirt-qemu", "/vdi/office/desk01.mcs", OWN),
        ("libvirt-qemu", "/srv/deskcast/vdisks/deb/1.raw", OWN),
        ("libvirt-qemu", "/run/deskcast/a/b/qmp", SOCKET),
        ("libvirt-qemu", "/etc/deskcast/authority/ca-key.pem", KEY),
        ("deskcast-store", "/srv/deskcast/vdisks/deb/1.tree", OWN),
        ("deskcast-relay", "/srv/deskcast/vdisks/deb/1.raw", KEY)) if not denied(
            profile, file, rights)]


def opened(node, own=True):
    """[(file, rights)] of a node of -blockdev and those below it"""
    if node.get("driver") == "file":
        yield node["filename"], OWN if own else SHARED
    if "host-cache" in node:
        yield node["host-cache"], SHARED
    if node.get("type") == "unix":
        yield node["path"], SOCKET
    for key, value in node.items():
        # The image below a layer, which is not in the layer's own file
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                yield from opened(child, own and key not in ("backing", "verity-tree"))


def of_words(words):
    """The same, of the command line of a QEMU or a storage daemon"""
    for option, value in zip(words, words[1:]):
        if option.lstrip("-") == "blockdev":
            yield from opened(json.loads(value))
        if option.lstrip("-") == "object" and '"tls-creds-x509"' in value:
            yield json.loads(value)["dir"] + "/client-key.pem", KEY
        if option.lstrip("-") == "chardev" and "path=" in value:
            yield re.search("path=([^,]+)", value)[1], SOCKET


def not_allowed(what, words, least):
    """What is wrong with the files of a command line"""
    found = list(of_words(words))
    wrong = [f"{what}: {no} of {file}" for file, rights in found
             if (no := denied("libvirt-qemu", file, rights))]
    return wrong + ([] if len(found) >= least else [f"{what}: only {found}"])


def tests(folder):
    return manual.bind("confined", folder, examples, others)

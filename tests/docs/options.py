# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual pages against the programs: each command and option, and no other."""

import functools
import os
import re
import subprocess

import manual
from commands import blocks
from sizes import DESKCAST

OPTION = r"--[a-z][a-z0-9-]*[a-z0-9]"


@functools.lru_cache(None)
def asked(*words):
    """What a command says to --help"""
    done = subprocess.run([DESKCAST, *words, "--help"], text=True, check=True, timeout=60,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8"})
    return done.stdout


@functools.lru_cache(None)
def commands():
    return re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", asked(), re.M)


def options(command):
    """Of a command, as it tells them"""
    return set(re.findall(rf"^ +(?:-\w, )?({OPTION})", asked(*command.split()), re.M)) - {"--help"}


@functools.lru_cache(None)
def pages():
    """{page: (text, its commands)}: those in its synopsis"""
    found = {}
    for path in sorted((manual.DOCS / "man").glob("deskcast-*.rst")):
        text = path.read_text(encoding="utf-8")
        synopsis = text.partition("SYNOPSIS\n")[2].partition("DESCRIPTION\n")[0]
        found[path.stem] = text, [c for c in commands() if f"**deskcast {c}**" in synopsis]
    return found


def every_command(_):
    """each command stands in the synopsis of one manual page, and in the table of the first"""
    told = [c for _, mine in pages().values() for c in mine]
    first = (manual.DOCS / "man/deskcast.rst").read_text(encoding="utf-8")
    return [f"{c}: in {told.count(c)}" for c in commands() if told.count(c) != 1] + \
        [f"{c.split()[0]} is not in deskcast(1)" for c in commands()
         if f"**{c.split()[0]}**" not in first] + \
        ([] if len(commands()) > 30 else ["there are too few commands"])


def every_option(_):
    """each option of a command is on its manual page"""
    return [f"{page}: {command} {option}" for page, (text, mine) in pages().items()
            for command in mine for option in sorted(options(command))
            if not re.search(rf"{option}(?![\w-])", text)]


def none_invented(_):
    """each option that a manual page explains is one of its commands'"""
    wrong, seen = [], 0
    for page, (text, mine) in pages().items():
        known = set().union(*(options(c) for c in mine))
        terms = [line for line in text.splitlines() if line.lstrip().startswith("**-")]
        for option in set(re.findall(rf"\*\*({OPTION})\*\*", "\n".join(terms))) - {"--help"}:
            seen += 1
            if option not in known:
                wrong.append(f"{page}: {option}")
    return wrong if seen > 60 else [f"only {seen} were found"]


def parts(_):
    """each manual page tells its exit status, and has examples"""
    return [f"{page}: no {part}" for page, (text, _) in pages().items()
            for part in ("EXIT STATUS", "EXAMPLES") if f"\n{part}\n" not in text]


STORY = ["update start", "update finish", "push", "version promote", "push", "rollback"]


def stories(_):
    """deskcast-update(1) has both kinds of update, from the master VM to a rollback"""
    page = manual.DOCS / "man/deskcast-update.rst"
    told = [re.findall(r"^deskcast ((?:update|version)? ?\w+)", block, re.M)
            for _, block in blocks(page, "EXAMPLES")]
    pvs = (manual.DOCS / "operations/updates.rst").read_text(encoding="utf-8").partition(
        "\nPVS:")[2]
    return ([] if told == [STORY] * 2 else [f"{told}"]) + \
        ([] if ":doc:`serving`" in pvs else ["updates.rst: PVS does not name serving.rst"])


def tests(folder):
    return manual.bind("options", folder, every_command, every_option, none_invented, parts,
                       stories)

# SPDX-License-Identifier: GPL-2.0-or-later
"""bash completion knows all commands, and the options of those on hosts and of the
journal; tests/docs has the manual pages."""

import functools
import os
import re
import subprocess

import lab
from lab import check

SCRIPT = os.path.join(lab.TOP, "packaging/bash-completion/deskcast")
FIRST_WORDS = {"status", "push", "rollback", "follow", "stage", "catalog", "host",
               "update", "journal", "exporter", "selftest", "top", "report"}


def complete(*words):
    """What is offered for the last of @words"""
    quoted = " ".join(f"'{w}'" for w in (lab.DESKCAST,) + words)
    script = (f". '{SCRIPT}'; COMP_WORDS=({quoted}); "
              f"COMP_CWORD={len(words)}; _deskcast; "
              'printf "%s\\n" "${COMPREPLY[@]}"')
    out = subprocess.run(["bash", "-c", script], capture_output=True,
                         text=True, check=True).stdout
    return set(out.split())


@functools.lru_cache(None)
def commands():
    said = lab.deskcast("--help").expect(0).out
    return re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", said, re.M)


@functools.lru_cache(None)
def options(command):
    said = lab.deskcast(*command.split(), "--help").expect(0).out
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z0-9-]*)", said, re.M))


def all_commands():
    """completion offers every command, and no other"""
    found = commands()
    check(len(found) > 20 and "push" in found, found)
    firsts = {c.split()[0] for c in found}
    check(complete("") == firsts, complete(""), firsts)
    for group in firsts - set(found):
        expected = {c.split()[1] for c in found if c.split()[0] == group}
        check(complete(group, "") == expected, group, complete(group, ""))


def all_options():
    """completion offers every option of commands on hosts"""
    for command in commands():
        if command.split()[0] not in FIRST_WORDS:
            continue            # tests/cli has those
        check(complete(*command.split(), "--") == options(command), command,
              complete(*command.split(), "--"))


def values():
    """completion offers the values of an option"""
    check(complete("push", "x", "--when", "") == {"reset", "now"},
          complete("push", "x", "--when", ""))
    check(complete("push", "x", "--when", "n") == {"now"}, "of one letter")


def main():
    return lab.run_tests([all_commands, all_options, values])

# SPDX-License-Identifier: GPL-2.0-or-later
"""bash completion and manual pages know all commands of hosts, of the journal,
and options."""

import functools
import os
import re
import subprocess

import lab
from lab import check

SCRIPT = os.path.join(lab.TOP, "packaging/bash-completion/deskcast")
MAN = os.path.join(lab.TOP, "docs/man")
PAGES = {"status": "status", "push": "push", "rollback": "push",
         "follow": "push", "stage": "host", "catalog": "catalog",
         "host": "host", "update": "update", "journal": "journal",
         "exporter": "exporter"}


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
        if command.split()[0] not in PAGES:
            continue            # tests/cli has those
        check(complete(*command.split(), "--") == options(command), command,
              complete(*command.split(), "--"))


def values():
    """completion offers the values of an option"""
    check(complete("push", "x", "--when", "") == {"reset", "now"},
          complete("push", "x", "--when", ""))
    check(complete("push", "x", "--when", "n") == {"now"}, "of one letter")


def pages():
    """every command stands in the synopsis of a manual page"""
    synopses = ""
    for name in sorted(os.listdir(MAN)):
        with open(os.path.join(MAN, name), encoding="utf-8") as f:
            text = f.read()
        synopses += text.partition("SYNOPSIS")[2].partition("DESCRIPTION")[0]
    for command in commands():
        check(f"**deskcast {command}**" in synopses, command, "has no page")


def manual():
    """manual pages of hosts tell every option, and no other"""
    for command in commands():
        page = PAGES.get(command.split()[0])
        if not page:
            continue
        with open(os.path.join(MAN, f"deskcast-{page}.rst"),
                  encoding="utf-8") as f:
            text = f.read()
        check(f"deskcast {command}" in text, command, "is not in", page)
        for option in options(command) - {"--help"}:
            check(option in text, command, option, "is not in", page)
    for page in sorted(set(PAGES.values())):
        with open(os.path.join(MAN, f"deskcast-{page}.rst"),
                  encoding="utf-8") as f:
            text = f.read()
        known = set().union(*(options(c) for c in commands()))
        for option in set(re.findall(r"--[a-z][a-z0-9-]+", text)):
            check(option in known, option, "is in", page, "and in no command")
        check("EXIT STATUS" in text and "EXAMPLES" in text, page)


def examples():
    """every example in manuals and docs/operations is a command with its options"""
    seen = 0
    pages = [os.path.join(MAN, f"deskcast-{p}.rst") for p in PAGES.values()]
    pages.append(os.path.join(lab.TOP, "docs/operations/updates.rst"))
    for page in set(pages):
        with open(page, encoding="utf-8") as f:
            lines = re.findall(r"(?:^    |``)deskcast ([^#`\n]*)", f.read(), re.M)
        for line in lines:
            words = line.split()
            command = words[0] if words[0] in commands() else " ".join(words[:2])
            check(command in commands(), line, "in", page)
            for word in words:
                check(not word.startswith("--") or word in options(command),
                      word, "of", line, "in", page)
            seen += 1
    check(seen > 30, seen)


def main():
    return lab.run_tests([all_commands, all_options, values, pages, manual,
                          examples])

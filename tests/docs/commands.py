# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in the manual, by the parsers of those who would run them.

Each command line of deskcast goes through its own parser, with '--help' behind
it, which takes the options before it and does nothing; each QMP command, and each node of our
drivers, is compared with the schema.
"""

import json
import os
import re
import shlex
import subprocess
import sys

import manual
from sizes import DESKCAST

sys.path.insert(0, str(manual.DOCS / "sphinx"))

BLOCK = re.compile(r"::\n\n((?:(?P<indent> +)\S.*\n(?:(?P=indent).*\n|\n)*))")
# What ends a command
ENDS = {"|", ">", ">>", "<<", "&&", ";", "&"}


def blocks(path, part=""):
    """[(line, text)] of what is shown letter by letter, in the part with this title"""
    text = path.read_text(encoding="utf-8")
    begin, end = 0, len(text)
    if part:
        begin = re.search(rf"^{re.escape(part)}[^\n]*\n=+\n", text, re.M).start()
        after = re.compile(r"^[^\n]+\n=+\n", re.M).search(text, text.index("\n=", begin) + 2)
        end = after.start() if after else end
    found = []
    for match in BLOCK.finditer(text, begin, end):
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match[1].rstrip().splitlines()]
        found.append((text.count("\n", 0, match.start(1)) + 1, "\n".join(lines)))
    return found


def command_lines(block):
    """Lines with what follows a backslash, without prompts"""
    for line in block.replace("\\\n", " ").splitlines():
        yield re.sub(r"^(\$|#) ", "", line).strip()


def words(line):
    """The words of a command, up to its end; None if it is no command"""
    try:
        parts = shlex.split(line, comments=True)
    except ValueError:
        return None
    for end, word in enumerate(parts):
        if word in ENDS or word.startswith(("<<", ">")):
            return parts[:end]
    return parts


def refused(argv):
    """What the parser of deskcast says against a command line, or nothing"""
    done = subprocess.run([DESKCAST, *argv[1:], "--help"], text=True, check=False, timeout=60,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8"})
    known = done.returncode == 0 and "sage:" in done.stdout
    return "" if known else (done.stderr or done.stdout).strip().splitlines()[0]


def deskcast_parses(_):
    """each command line of deskcast in a block is taken by its parser"""
    wrong, seen = [], 0
    for page in manual.sources():
        for number, block in blocks(page):
            for line in command_lines(block):
                argv = words(line) if line.startswith("deskcast ") else None
                if argv:
                    seen += 1
                    why = refused(argv)
                    wrong += [f"{page.name}:{number}: {line}: {why}"] if why else []
    return wrong if seen > 75 else [f"only {seen} were found"]


def inline_exists(_):
    """each command of deskcast that a sentence names is there, with the options it names"""
    wrong, seen = [], 0
    for page in manual.sources():
        text = page.read_text(encoding="utf-8")
        for quoted in re.findall(r"``deskcast\s+([^`]+)``|\*\*deskcast\s+([^*]+)\*\*", text):
            argv = (quoted[0] or quoted[1]).split()
            if "|" in argv:
                continue            # a cell of a table, in several lines
            seen += 1
            value = ["X"] if argv[-1].startswith("-") else []
            why = refused(["deskcast", *argv]) and refused(["deskcast", *argv, *value])
            wrong += [f"{page.name}: deskcast {' '.join(argv)}: {why}"] if why else []
    return wrong if seen > 60 else [f"only {seen} were found"]


def objects(text):
    """Each JSON object that begins a line, after arrows and quotes"""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"(?m)(?:^|'|-> |<- ) *(\{)", text):
        try:
            yield decoder.raw_decode(text[match.start(1):])[0]
        except ValueError:
            continue


def judge_command(shown, known):
    """A QMP command against the schema"""
    entity = known.get(shown["execute"])
    if not entity:
        return [] if shown["execute"].startswith(("q", "block", "job", "sys")) else ["unknown"]
    given = shown.get("arguments", {})
    names = {n.lstrip("*"): n for n in entity.types}
    return [f"argument {a}" for a in given if a not in names] + \
        [f"lacks {n}" for n, full in names.items() if full == n and n not in given]


def judge_node(node, known):
    """A node of our drivers against the schema"""
    entity = known[f"BlockdevOptions{node['driver'].capitalize()}"]
    general = {"driver", "node-name", "discard", "read-only", "file", "backing"}
    names = {n.lstrip("*") for n in entity.types} | general
    return [f"option {o}" for o in node if o not in names] + \
        (["lacks stores"] if node["driver"] == "pvs" and "stores" not in node else [])


def json_fits(_):
    """each QMP command, and each node of mcs and pvs, fits the schema"""
    import vdisk_qapi       # pylint: disable=import-outside-toplevel,import-error
    known, wrong, seen = vdisk_qapi.entities(), [], 0
    for page in manual.sources():
        for number, block in blocks(page):
            for shown in objects(block):
                why = judge_command(shown, known) if "execute" in shown else \
                    judge_node(shown, known) if shown.get("driver") in ("mcs", "pvs") else None
                seen += why is not None
                wrong += [f"{page.name}:{number}: {w} in {shown}" for w in why or []]
    return wrong if seen > 10 else [f"only {seen} were found"]


def units_exist(_):
    """each unit that it names is one of ours, or libvirt's"""
    ours = {p.name for p in (manual.TOP / "packaging/systemd").iterdir()}
    text = "".join(p.read_text(encoding="utf-8") for p in manual.sources())
    named = re.findall(r"\b(?:systemctl|journalctl)(?: (?:enable|status|reload|restart|-u|--now))+"
                       r" ([\w.-]+)", text)
    return [n for n in set(named) if not ours & {n, f"{n}.service"} and n != "libvirtd"] + \
        ([] if len(named) > 8 else [f"only {len(named)} were found"])


def readme(_):
    """each program of the repository that README.md shows is there, and has its options"""
    text = (manual.TOP / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    (?:[A-Z_]+=\S+ )?((?:scripts|packaging)/\S.*)$", text, re.M)
    wrong = []
    for argv in (words(line) for line in lines):
        program = manual.TOP / argv[0]
        said = program.read_text(encoding="utf-8") if program.is_file() else ""
        wrong += [] if said else [f"{argv[0]} is not there"]
        wrong += [f"{argv[0]} has no {w}" for w in argv[1:] if w.startswith("-") and w not in said]
        wrong += [f"there is no tier {w}" for w in argv[1:] if argv[0] == "scripts/check" and
                  not w.startswith("-") and not (manual.TOP / "tests" / w / "run").exists()]
    return wrong if len(lines) > 12 else [f"only {len(lines)} were found"]


def tests(folder):
    return manual.bind("commands", folder, deskcast_parses, inline_exists, json_fits,
                       units_exist, readme)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Names in the manual are those of QEMU's schema: none is missing, none is invented."""

import functools
import re

import manual

# Their page is made from the schema
OF_QMP = re.compile(r"(?<![\w/.-])(vdisk-[a-z][a-z-]*[a-z]|query-vdisks|VDISK_[A-Z_]+)(?![\w./-])")


@functools.lru_cache(None)
def schema_names():
    """By a parser that knows no more than how a definition begins"""
    text = (manual.TOP / "qapi/vdisk.json").read_text(encoding="utf-8")
    text += (manual.TOP / "patches/10.0/0002-qapi-block-core-add-mcs-and-pvs.patch").read_text()
    return set(re.findall(r"^\+?\{ '(?:command|event|struct|enum)': '([\w-]+)'", text, re.M))


def all_there(folder):
    """each command, event and type of the schema has its place in it"""
    ids = set().union(*(p.ids for p in manual.pages(folder).values()))
    names = schema_names()
    missing = [n for n in sorted(names)
               if f"qapi-{n}".lower().replace("_", "-") not in ids]
    return missing if len(names) > 35 else ["the schema was not found"]


def none_invented(_):
    """each command and event that it names is in the schema"""
    known, seen, wrong = schema_names(), 0, []
    for page in manual.sources():
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            for name in OF_QMP.findall(line):
                seen += 1
                if name not in known and not name.startswith("vdisk-qapi"):
                    wrong.append(f"{page.relative_to(manual.TOP)}:{number}: {name}")
    return wrong if seen > 30 else [f"only {seen} names"]


def told(_):
    """each command and event is told of on a page for people, too"""
    text = "".join(p.read_text(encoding="utf-8") for p in manual.sources())
    known = {n for n in schema_names() if OF_QMP.fullmatch(n)}
    return sorted(known - set(OF_QMP.findall(text)))


def tests(folder):
    return manual.bind("names", folder, all_there, none_invented, told)

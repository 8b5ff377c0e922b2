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


def patches(sign="+"):
    """What those for NBD add, or take away, each as one text"""
    pattern = re.compile(rf"^[{sign}](?![-+]{{2}})(.*)$", re.M)
    return ["\n".join(pattern.findall(p.read_text(encoding="utf-8")))
            for p in sorted((manual.TOP / "patches/10.0").glob("*nbd*.patch"))]


def new_options():
    """Names, each as often as there is a type that got it"""
    def members(text):
        return re.findall(r"'\*([\w-]+)': '\w+'", text)
    return [n for new, old in zip(patches(), patches("-"))
            for n in members(new) if n not in members(old)]


def nbd_options(folder):
    """each option that patches add to NBD is explained, and has its unit and default"""
    page = (manual.DOCS / "integrator/nbd.rst").read_text(encoding="utf-8")
    made = (folder / "html/integrator/nbd.html").read_text(encoding="utf-8")
    explained = re.findall(r"<dt>(?:<[^>]+>)+([\w-]+)<", made)
    found = new_options()
    wrong = [f"{n} is not in the table" for n in found if not re.search(rf"^``{n}`` ", page, re.M)]
    wrong += [f"{n} is explained {explained.count(n)} times, not {found.count(n)}"
              for n in set(found) if explained.count(n) != found.count(n)]
    return wrong if len(found) > 6 else [f"only {len(found)} were found"]


def nbd_messages(_):
    """each message of NBD that it tells is one of the patches'"""
    page = (manual.DOCS / "integrator/nbd.rst").read_text(encoding="utf-8")
    refused = page.partition("What is refused\n")[2].partition("\nWhat ")[0]
    told = [" ".join(m.split()) for m in re.findall(r"``([^`]+)``", refused) if " " in m]
    hole = r"%(?:llu|s|\x22\s*PRI\w+\s*\x22)|…|\b\d{2,}"
    said = re.sub(r'"\s*"', "", re.sub(hole, "", "\n".join(patches())))
    return [t for t in told if re.sub(hole, "", t) not in said] + \
        ([] if len(told) > 10 else [f"only {len(told)} were found"])


def fuzz_targets(_):
    """each target of the fuzzers stands in the table of what is tried, and no other"""
    page = (manual.DOCS / "developer/testing.rst").read_text(encoding="utf-8")
    told = set(re.findall(r"``(fuzz-[\w-]+)``", page))
    there = {p.stem for p in (manual.TOP / "tests/fuzz").glob("fuzz-*.c")}
    return sorted(told ^ there) if there else ["there are none"]


def tests(folder):
    return manual.bind("names", folder, all_there, none_invented, told, nbd_options,
                       nbd_messages, fuzz_targets)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The page on compatibility has the formats and numbers of the code."""

import re

import manual

PAGE = manual.DOCS / "interop/compatibility.rst"
ROW = re.compile(r"^``([\w-]+)`` +(\d+) ", re.M)
# JSON and XML: what has the number, and where
MEMBERS = {"deskcast-store": ("cli/store/store.h", "STORE_FORMAT"),
           "deskcast-manifest": ("cli/store/manifest.h", "MANIFEST_FORMAT"),
           "format": ("cli/desktop/metadata.c", "FORMAT")}


def number(path, name):
    """Of a definition in C"""
    text = (manual.TOP / path).read_text(encoding="utf-8")
    return int(re.search(rf'#define {name}\s+"?(\d+)', text)[1])


def of_code():
    """{what a format begins with, or its member: its number}"""
    found = {}
    for path in sorted((manual.TOP / "block").rglob("*.c")):
        text = path.read_text(encoding="utf-8")
        for magic in re.findall(r'#define \w*MAGIC\s+"(DSK\w+)"', text):
            found[magic] = number(path, r"(?:HEADER|MAP|TRACE|LABEL)_VERSION")
    return found | {k: number(*v) for k, v in MEMBERS.items()}


def numbers(_):
    """each format of the code is in its table, with its number, and no other"""
    told = {k: int(v) for k, v in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    code = of_code()
    return [f"{k}: {told.get(k)} in the page, {code.get(k)} in the code"
            for k in sorted(told | code) if told.get(k) != code.get(k)]


def tests(folder):
    return manual.bind("formats", folder, numbers)

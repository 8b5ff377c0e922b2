# SPDX-License-Identifier: GPL-2.0-or-later
"""The threat model: each sentence names a test that is there, or says that it has none."""

import re

import manual

PAGE = manual.DOCS / "operations/security.rst"
NAMED = re.compile(r"``tests/([\w-]+): ([^`]+)``")


def items(text):
    """What is said of each party"""
    return [" ".join(i.split()) for i in re.findall(r"^\* (.*(?:\n  .*)*)", text, re.M)]


def sources(folder):
    """All that a tier's tests say and are called, as one text; strings that go on in the next
    line are one"""
    tier = manual.TOP / "tests" / folder
    text = " ".join(p.read_text(encoding="utf-8", errors="replace") + f" {p.name}"
                    for p in sorted(tier.rglob("*")) if p.is_file() and p.suffix != ".pyc")
    return " ".join(text.split())


def each_named(_):
    """each sentence of the threat model has its test, or says that it has none"""
    found = items(PAGE.read_text(encoding="utf-8"))
    wrong = [i for i in found if not re.search(r"\*\*(can|cannot)\*\*", i)]
    wrong += [i for i in found if not NAMED.search(i) and "ntested" not in i]
    return wrong if len(found) > 30 else [f"only {len(found)} sentences"]


def each_there(_):
    """each test that the threat model names is there"""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    return [f"tests/{tier}: {name}" for tier, name in NAMED.findall(text)
            if name not in sources(tier)]


def tests(folder):
    return manual.bind("claims", folder, each_named, each_there)

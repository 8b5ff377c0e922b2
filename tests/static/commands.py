# SPDX-License-Identifier: GPL-2.0-or-later
"""How our files are compiled, as meson noted it, for tools that read C."""

import json
import os
import shlex

# What the tools need to see the same code; gcc's own switches mean nothing to them
WITH_VALUE = ("-I", "-D", "-isystem", "-iquote", "-include")


class Unit:
    """A file below TOP, and how it is compiled, from which FOLDER."""

    def __init__(self, entry, top):
        self.folder = entry["directory"]
        self.source = os.path.realpath(os.path.join(self.folder, entry["file"]))
        self.name = os.path.relpath(self.source, top)
        self.flags = list(kept(shlex.split(entry["command"])))


def kept(words):
    words = iter(words)
    for word in words:
        if word in WITH_VALUE:
            yield word
            yield next(words)
        elif word.startswith(WITH_VALUE) or word.startswith("-std="):
            yield word


def units(build, top, folders):
    """Those below FOLDERS of TOP, each once."""
    found = {}
    top = os.path.realpath(top)
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        for entry in json.load(file):
            unit = Unit(entry, top)
            if unit.name.startswith(folders) and unit.name.endswith(".c"):
                found.setdefault(unit.name, unit)
    return [found[name] for name in sorted(found)]

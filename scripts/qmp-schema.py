#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Bring QMP schemas into a form that diff can compare.

  qmp-schema.py generated FILE    FILE is qapi-introspect.c made with real type
                                  names; print it sorted, without what needs
                                  CONFIG_VDISK or CONFIG_PVS
  qmp-schema.py live FILE         FILE is a QMP session with the answer to
                                  query-qmp-schema; print its entries with
                                  types numbered by use, which forgets how
                                  QEMU numbered them
"""

import json
import re
import sys

OURS = {"CONFIG_VDISK", "CONFIG_PVS"}


def needs_ours(condition):
    """True if condition cannot hold with our drivers disabled."""
    names = set(re.findall(r"CONFIG_\w+", condition))
    if not names & OURS:
        return False

    def value(others):
        python = re.sub(r"defined\((\w+)\)",
                        lambda m: str(m[1] not in OURS and others), condition)
        for c_op, py_op in (("&&", " and "), ("||", " or "), ("!", " not ")):
            python = python.replace(c_op, py_op)
        return eval(python, {"__builtins__": {}})

    if value(True) != value(False):
        sys.exit(f"cannot tell with the drivers disabled: #if {condition}")
    return not value(True)


def without_ours(lines):
    """Drop the blocks that need our drivers; other conditions stay as text."""
    dropped = []
    for line in lines:
        if line.startswith("#if"):
            dropped.append(needs_ours(line[3:].strip()))
        if not any(dropped):
            yield line
        if line.startswith("#endif"):
            dropped.pop()


def entries(lines):
    """Split at top-level entries, each with the conditions around it."""
    entry, depth = [], 0
    for line in lines:
        depth += line.startswith("#if")
        depth -= line.startswith("#endif")
        entry.append(line)
        closed = line.startswith("    })),") or line.startswith("#endif")
        if closed and not depth:
            yield "".join(entry)
            entry = []


def generated(path):
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    begin = next(i for i, text in enumerate(lines) if "_qmp_schema_qlit = " in text)
    for entry in sorted(entries(without_ours(lines[begin + 1:]))):
        print(entry, end="")


def schema_of(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            answer = json.loads(line).get("return")
            if isinstance(answer, list):
                return answer
    sys.exit(f"no schema in {path}")


def refs(node):
    """Yield (container, key) of each type name in an entry."""
    if isinstance(node, list):
        for item in node:
            yield from refs(item)
    elif isinstance(node, dict):
        for key, item in node.items():
            if key in ("type", "arg-type", "ret-type", "element-type"):
                yield node, key
            else:
                yield from refs(item)


def sort_members(node):
    if isinstance(node, list):
        node = [sort_members(item) for item in node]
        # A list of values or members: QMP gives their order no meaning.
        return sorted(node, key=lambda n: json.dumps(
            {k: v for k, v in n.items() if not k.endswith("type")}
            if isinstance(n, dict) else n, sort_keys=True))
    if isinstance(node, dict):
        return {key: sort_members(item) for key, item in node.items()}
    return node


def live(path):
    schema = sort_members(schema_of(path))
    # Masked names: a number, or a number in brackets for an array.
    types = {e["name"]: e for e in schema if re.fullmatch(r"\[?\d+\]?", e["name"])}
    alias = {}
    queue = sorted((e for e in schema if e["name"] not in types),
                   key=lambda e: (e["meta-type"], e["name"]))
    for entry in queue:
        for container, key in refs(entry):
            name = container[key]
            if name in types and name not in alias:
                alias[name] = f"t{len(alias)}"
                queue.append(types[name])
    for entry in queue:
        for container, key in refs(entry):
            container[key] = alias.get(container[key], container[key])
        entry["name"] = alias.get(entry["name"], entry["name"])
        print(json.dumps(entry, sort_keys=True))


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("generated", "live"):
        sys.exit(__doc__)
    {"generated": generated, "live": live}[sys.argv[1]](sys.argv[2])


if __name__ == "__main__":
    main()

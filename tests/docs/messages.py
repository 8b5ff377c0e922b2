# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages: the manual has all that the drivers, the hook and the services say, with what to
do, and no other."""

import functools
import re

import manual

PAGE = manual.DOCS / "operations/messages.rst"

# Whose messages end in a log, far from who could ask what they mean. A function: which of
# its texts count
SAID = {
    "block": ("error_setg", "error_setg_errno", "error_report", "warn_report",
              "warn_reportf_err"),
    "hook": ("say", "g_set_error", "g_set_error_literal"),
    "cli/serve": ("report", "report_state", "say_state", "g_set_error", "fail"),
}
QUIET = re.compile(r"LOG_(INFO|DEBUG)")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
COMMENT = re.compile(r"/\*.*?\*/", re.S)
# Parts of a format that differ: one for a conversion, as "PRIu64" ends a string
HOLE = "…"


def call(text, begin):
    """The arguments of a call, whose '(' is before @begin"""
    depth, at, quoted = 1, begin, False
    while depth:
        c = text[at]
        if quoted:
            at += c == "\\"
            quoted = c != '"'
        else:
            quoted = c == '"'
            depth += (c == "(") - (c == ")")
        at += 1
    return text[begin:at - 1]


def plain(parts):
    """A format, with a hole for each part that differs"""
    text = re.sub(r"%%|%[-+0-9.*]*(?:(?:l|ll|z|j)?[a-zA-Z]|\0)",
                  lambda m: "%" if m[0] == "%%" else HOLE, "".join(parts))
    return text.replace("\\n", "").replace('\\"', '"')


def first_with_text(arguments):
    """The argument that is the format, or chooses one"""
    depth = last = 0
    for part in re.finditer(STRING.pattern + r"|[(),]", arguments):
        depth += (part[0] == "(") - (part[0] == ")")
        if part[0] == "," and not depth:
            if '"' in arguments[last:part.start()]:
                return arguments[last:part.start()]
            last = part.end()
    return arguments[last:]


def texts(arguments):
    """Each text of the format: strings that follow each other are one"""
    joined, last = [], 0
    arguments = re.sub(r"\bPRI\w+|\bG_GU?INT64_FORMAT|\bG_GS?SIZE_FORMAT", '"\0"',
                       first_with_text(arguments))
    for found in STRING.finditer(arguments):
        if joined and not arguments[last:found.start()].strip():
            joined[-1].append(found[1])
        else:
            joined.append([found[1]])
        last = found.end()
    return [plain(parts) for parts in joined]


@functools.lru_cache(None)
def said():
    """{text: where}"""
    found = {}
    for folder, functions in SAID.items():
        begin = re.compile(rf"\b({'|'.join(functions)})\(")
        for path in sorted((manual.TOP / folder).rglob("*.c")):
            code = COMMENT.sub("", path.read_text(encoding="utf-8"))
            for match in begin.finditer(code):
                arguments = call(code, match.end())
                if not QUIET.match(arguments):
                    for text in texts(arguments):
                        if len(re.sub("[^a-z]", "", text)) > 3 and " " in text:
                            found[text] = path.relative_to(manual.TOP)
    return found


def told():
    """{text: line} of the page: what stands alone in an item of a list, as ``text``"""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    found = {}
    for number, line in enumerate(lines):
        match = re.match(r" *\* ``(.*)", line)
        if match:
            text = match[1]
            while not text.endswith("``"):
                number += 1
                text += " " + lines[number].strip()
            found[text[:-2]] = number + 1
    return found


def same(text):
    return re.sub(rf"[\s.:]*$|({HOLE})+", lambda m: HOLE if m[1] else "", text)


def none_missing(_):
    """each message of a driver, the hook or a service is told of"""
    known = {same(t) for t in told()}
    missing = [f"{where}: {t}" for t, where in said().items() if same(t) not in known]
    return missing if len(said()) > 200 else [f"only {len(said())} were found"]


def none_invented(_):
    """each message that it tells of is in the sources"""
    known = {same(t) for t in said()}
    return [f"line {line}: {t}" for t, line in told().items() if same(t) not in known]


def tests(folder):
    return manual.bind("messages", folder, none_missing, none_invented)

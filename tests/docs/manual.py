# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual by itself: HTML and manual pages. Each test lists what is wrong."""

import functools
import html.parser
import pathlib
import re
import subprocess
import urllib.parse

TOP = pathlib.Path(__file__).resolve().parents[2]
DOCS = TOP / "docs"


class Page(html.parser.HTMLParser):
    """What a page links to, and the places that can be linked to"""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.ids = path, [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get("id"):
            self.ids.add(attrs["id"])
        if attrs.get("href") and tag in ("a", "link"):
            self.links.append(attrs["href"])
        if attrs.get("src"):
            self.links.append(attrs["src"])

    def local(self):
        """(file, place in it) of links into the manual"""
        for link in self.links:
            parts = urllib.parse.urlsplit(link)
            if not parts.scheme and not parts.netloc:
                target = (self.path.parent / parts.path).resolve() if parts.path else self.path
                yield target, urllib.parse.unquote(parts.fragment)


def pages(folder):
    """{path: Page} of the HTML"""
    return {p: Page(p) for p in sorted((folder.resolve() / "html").rglob("*.html"))}


def sources():
    """The pages as they were written"""
    return sorted(p for p in DOCS.rglob("*.rst"))


def builds(folder):
    """it builds, as HTML and as manual pages, without a warning"""
    done = subprocess.run([TOP / "scripts/docs", "--to", folder], text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    said = [line for line in done.stdout.splitlines() if not re.match(r"==> |    \S+: ", line)]
    return said or ([f"status {done.returncode}"] if done.returncode else [])


def links(folder):
    """every link into the manual leads to a place that is there"""
    found = pages(folder)
    wrong, seen = [], 0
    for page in found.values():
        for target, place in page.local():
            seen += 1
            there = target in found and (not place or place in found[target].ids) \
                or target.suffix != ".html" and target.is_file()
            if not there:
                wrong.append(f"{page.path.name}: {target.name}#{place}")
    return wrong if seen > 500 else [f"only {seen} links"]


def reachable(folder):
    """every page can be reached from the first one"""
    found = pages(folder)
    first = folder.resolve() / "html/index.html"
    if first not in found:
        return ["there is no first page"]
    todo, known = [first], {first}
    while todo:
        new = {t for t, _ in found[todo.pop()].local() if t in found} - known
        known |= new
        todo += new
    names = {p.relative_to(DOCS).with_suffix(".html") for p in sources()}
    reached = {p.relative_to(first.parent) for p in known}
    return [f"{n} cannot be reached" for n in sorted(names - reached)]


def man_pages(folder):
    """manual pages are what man(1) takes, and have the usual parts"""
    wrong, files = [], sorted((folder / "man").glob("*.1"))
    for file in files:
        said = subprocess.run(["groff", "-man", "-Kutf8", "-ww", "-z", file], text=True,
                              check=False, capture_output=True)
        wrong += (said.stdout + said.stderr).splitlines()
        text = file.read_text(encoding="utf-8")
        wrong += [f"{file.name}: no {part}" for part in
                  ("NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO") if f'.SH "{part}"' not in text
                  and f".SH {part}" not in text]
        if not re.search(r"^\.SH NAME\n\S+ \\- \S", text, re.M):
            wrong.append(f"{file.name}: NAME does not tell what it is")
    expected = {p.stem for p in (DOCS / "man").glob("deskcast*.rst")}
    made = {f.stem for f in files}
    return wrong + [f"{n}.1 was not made" for n in sorted(expected - made)] + \
        ([] if len(made) > 10 else ["there are too few"])


def bind(name, folder, *functions):
    """Tests of that name, which look at what was made in the folder"""
    def bound(function):
        made = functools.partial(function, folder)
        made.__doc__ = f"{name}: {function.__doc__}"
        return made
    return [bound(f) for f in functions]


def tests(folder):
    return bind("manual", folder, builds, links, reachable, man_pages)

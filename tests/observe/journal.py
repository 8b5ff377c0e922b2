# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages in the systemd journal: their numbers, what explains them, and what
the hook and the exporter send.

A socket stands in for journald, in a mount namespace with a /run of its own.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import lab
from crowd import Crowd
from lab import check
from scrape import Exporter

TOP = pathlib.Path(lab.TOP)
CATALOG = TOP / "packaging/journal/deskcast.catalog"
HOOK = os.path.join(lab.BUILD, "deskcast/hook/deskcast-hook")
# What is sent: a line of JSON for each entry, to the file that argv names.
# JOURNAL_STREAM tells the program that its standard error is the journal.
STUB = '''
import json, os, pathlib, socket, subprocess, sys, threading
journal = pathlib.Path('/run/systemd/journal')
journal.mkdir(parents=True)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(str(journal / 'socket'))
def receive():
    with open(sys.argv[1], 'a') as out:
        while True:
            entry = s.recv(65536).decode()
            if not entry:
                return
            fields = dict(f.split('=', 1) for f in entry.splitlines())
            print(json.dumps(fields), file=out, flush=True)
thread = threading.Thread(target=receive, daemon=True)
thread.start()
st = os.fstat(2)
os.environ['JOURNAL_STREAM'] = f'{st.st_dev}:{st.st_ino}'
done = subprocess.run(['setpriv', '--pdeathsig', 'KILL', '--', *sys.argv[2:]])
# What it sent before it ended may not be written yet
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'', s.getsockname())
thread.join()
sys.exit(done.returncode)
'''
INSIDE = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs run /run && exec "$@"',
          "sh", sys.executable, "-c", STUB]


def numbers():
    """{name: number} of message-id.h"""
    text = (TOP / "cli/message-id.h").read_text(encoding="utf-8")
    return dict(re.findall(r'#define (MESSAGE_\w+)\s+"([0-9a-f]{32})"', text))


def sources():
    return "".join(p.read_text(encoding="utf-8") for f in ("cli", "hook")
                   for p in (TOP / f).rglob("*.[ch]")
                   if p.name != "message-id.h")


def all_numbers():
    """each kind of message has a number of its own, is said, and is explained"""
    known, code = numbers(), sources()
    check(len(known) > 20 and len(set(known.values())) == len(known), known)
    for name in known:
        check(re.search(rf"\b{name}\b", code), name, "is not said by anybody")
    told = re.findall(r"^-- (\w+)$", CATALOG.read_text(encoding="utf-8"), re.M)
    check(sorted(told) == sorted(known.values()),
          set(told) ^ set(known.values()))
    listed = re.findall(r"^``(\w{32})``", (
        TOP / "docs/operations/monitoring.rst").read_text(encoding="utf-8"),
                        re.M)
    check(sorted(listed) == sorted(known.values()), "in the manual:",
          set(listed) ^ set(known.values()))


def fields():
    """what explains a message uses fields that messages have"""
    used = set(re.findall(r"@(\w+)@", CATALOG.read_text(encoding="utf-8")))
    sent = set(re.findall(r'"(DESKCAST_\w+)=', sources()))
    check(len(used) > 5 and used <= sent, used - sent)


def catalog():
    """journalctl takes the catalog, and has all of it"""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for sub in ("usr/lib", "var/lib"):
            (root / sub / "systemd/catalog").mkdir(parents=True)
        (root / "usr/lib/systemd/catalog" / CATALOG.name).write_bytes(
            CATALOG.read_bytes())

        def journalctl(what):
            return subprocess.run(
                ["journalctl", what, f"--root={folder}"], check=True,
                stdin=subprocess.DEVNULL, capture_output=True, text=True)
        said = journalctl("--update-catalog")
        check(not said.stderr and not said.stdout, said.stderr)
        listed = journalctl("--list-catalog").stdout
        for name, number in numbers().items():
            check(re.search(rf"^{number} Deskcast: \S", listed, re.M), name)
        for entry in journalctl("--dump-catalog").stdout.split("\n-- "):
            page = re.search(r"^Documentation: man:(deskcast-?\w*)\(1\)$",
                             entry, re.M)
            check(page and (TOP / f"docs/man/{page[1]}.rst").exists(), entry)
            check(len(entry.partition("\n\n")[2].strip()) > 20, entry)


def entries(path):
    """What was sent until now"""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def hook():
    """the hook sends a number and the desktop's name with what it says"""
    element = (f'<deskcast:desktop xmlns:deskcast="{lab.NAMESPACE}" format="1" '
               'catalog="office" vdisk="win11" model="{model}" '
               'lifetime="{lifetime}" run="in-process"><deskcast:disk '
               'path="/nonexistent/d" node="disk0"/>{more}<deskcast:monitor '
               'path="/nonexistent/m"/></deskcast:desktop>')
    journal = '<deskcast:journal path="/nonexistent/j"/>'
    kinds = numbers()
    for stage, model, lifetime, more, kind, level in (
            (("start", "begin"), "mcs", "pooled", "", "NOT_STARTED", "3"),
            (("release", "end"), "pvs", "private", journal, "BUFFER_BAD", "3"),
            (("start", "begin"), "amiga", "pooled", "", "METADATA", "3")):
        xml = lab.domain("desk1", element.format(
            model=model, lifetime=lifetime, more=more)).replace(
                "<memory", "<uuid>11111111-2222-4333-8444-555555555555</uuid>"
                "<memory", 1)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "entries")
            subprocess.run([*INSIDE, path, HOOK, "desk1", *stage, "-"],
                           input=xml, text=True, capture_output=True,
                           check=False, timeout=60)
            lab.until(f"a message of {kind}", lambda p=path: entries(p))
            got = [(e.get("MESSAGE_ID"), e["PRIORITY"], e["DESKCAST_DESKTOP"])
                   for e in entries(path)]
            check((kinds["MESSAGE_" + kind], level, "desk1") in got, kind,
                  entries(path))


def streamed(state):
    """What a streamed disk says that is in this state"""
    def answer(_):
        return {"node-name": "disk0", "driver": "pvs", "virtual-size": 1 << 30,
                "layer-bytes": 0, "resets": 0, "admits-clients": True,
                "pvs": {"mode": "standard", "version": state["version"],
                        "outage-action": "wait", "corrupt": 0,
                        "budget": {"local-bytes": 0},
                        "stores": [{"name": "nbd://store1:10809/win11@12",
                                    "tree": False, "state": state["store"],
                                    "latency": 0, "reads": 0, "bytes": 0,
                                    "errors": 0}],
                        **({"outage-ms": 5000} if state["outage"] else {})}}
    return answer


def exporter():
    """the exporter tells of outages, stores, versions and silence, once each"""
    state = {"version": 12, "store": "up", "outage": False}
    steps = [({}, []),
             ({"store": "down", "outage": True}, ["OUTAGE", "STORE_DOWN"]),
             ({}, []),
             ({"store": "up", "outage": False}, ["OUTAGE_OVER", "STORE_UP"]),
             ({"version": 13}, ["VERSION"])]
    with Crowd(1, 0, streamed(state)) as crowd:
        path = os.path.join(crowd.folder, "entries")
        with Exporter(crowd, before=[*INSIDE, path]) as e:
            for change, kinds in steps:
                state.update(change)
                before = len(entries(path))
                e.metrics()
                expect(path, before, kinds)
            crowd.mute.add("crowd000")
            e.metrics()
            expect(path, 5, ["SILENT"])
            check("outage" not in e.said() and "no store" not in e.said(),
                  "it is on standard error, too:", e.said())


def expect(path, before, kinds):
    """These are sent, in this order, and no other"""
    lab.until(f"{kinds}", lambda: len(entries(path)) >= before + len(kinds))
    new = entries(path)[before:]
    known = numbers()
    check([e["MESSAGE_ID"] for e in new] ==
          [known["MESSAGE_" + k] for k in kinds], kinds, new)
    for e, kind in zip(new, kinds):
        check(e["DESKCAST_DESKTOP"] == "crowd000" and
              e["DESKCAST_VDISK"] == "win11" and
              e["SYSLOG_IDENTIFIER"] == "deskcast", e)
        check(("DESKCAST_STORE" in e) == kind.startswith("STORE"), e)


def may_mount():
    """Can this user have a /run of his own?"""
    return subprocess.run([*INSIDE[:5], "sh", "true"], check=False,
                          capture_output=True).returncode == 0


def main():
    tests = [all_numbers, fields, catalog]
    if may_mount():
        return lab.run_tests(tests + [hook, exporter])
    for test in (hook, exporter):
        print(f"ok - {test.__doc__} # SKIP no mount namespace for this user")
    return lab.run_tests(tests)

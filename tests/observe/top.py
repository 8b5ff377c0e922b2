# SPDX-License-Identifier: GPL-2.0-or-later
"""deskcast top: in a terminal, in a pipe, once, and in JSON."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import lab
from crowd import Crowd
from lab import check, until

MIB = 1 << 20


class Busy:
    """Streamed disks: each reads 1 MiB from its store at each look. One has no
    store, one does not reach one of two."""

    def __init__(self):
        self.looks = {}

    def __call__(self, number):
        self.looks[number] = self.looks.get(number, 0) + 1
        looks = self.looks[number]
        stores = [{"name": f"nbd://store{n}/win11@12", "tree": False,
                   "state": "down" if number == n else "up", "latency": 1500,
                   "reads": looks, "bytes": n * looks * MIB, "errors": 0}
                  for n in (1, 2)]
        return {"node-name": "disk0", "driver": "pvs", "virtual-size": 4 * MIB,
                "layer-bytes": 65536, "resets": 1, "admits-clients": True,
                "pvs": {"mode": "standard", "version": 12,
                        **({"assigned-version": 13} if number == 0 else {}),
                        "stores": stores, "outage-action": "wait",
                        "corrupt": 0, "budget": {"local-bytes": MIB},
                        "host-cache": {"filename": "/c", "owner": False,
                                       "usable": True, "full": False,
                                       "hit-bytes": 3 * looks * MIB,
                                       "miss-bytes": looks * MIB,
                                       "filled-bytes": 0},
                        **({"outage-ms": 65000} if number == 2 else {})}}


def rows(text):
    """{desktop: its line}"""
    return {line.split()[0]: line for line in text.splitlines()
            if line.startswith("crowd")}


def once():
    """--once: states, the worst first, rates, hit rates and shares"""
    with Crowd(4, 1, Busy()) as crowd:
        crowd.mute = {"crowd003"}
        said = lab.deskcast("top", "--once", "--interval", "1", "--timeout",
                            "4", "--connect", crowd.uri).expect(0).out
    found = rows(said)
    check(list(found) == ["crowd003", "crowd002", "crowd001", "crowd000"], said)
    for name, text in (("crowd003", "silent"),
                       ("crowd002", "no store, 1 min 5 s"),
                       ("crowd001", "a store is down"), ("crowd000", "well")):
        check(text in found[name], text, said)
    check("12 > 13" in found["crowd000"] and " 75% " in found["crowd000"] and
          " 25% " in found["crowd000"], said)
    # 3 MiB from one look to the next, which are a second apart or more
    rate = re.search(r"([\d.]+) [KM]iB/s", found["crowd000"])
    check(rate and float(rate[1]) > 0, said)
    check("4 desktops, 1 well, 3 not, 0 off" in said, said)
    store = re.search(r"^nbd://store1 +(\d) +(\d) +(\d) .* 1\.5 ms", said, re.M)
    check(store and store.groups() == ("2", "0", "1"), said)


def in_json():
    """--json: an object for each look, with the names of the metrics"""
    with Crowd(2, 0, Busy()) as crowd:
        one = lab.deskcast("top", "--once", "--json", "--connect",
                           crowd.uri).expect(0).json()
        with subprocess.Popen(
                [lab.DESKCAST, "top", "--json", "--interval", "1", "--connect",
                 crowd.uri], stdout=subprocess.PIPE, text=True) as process:
            lines = [json.loads(process.stdout.readline()) for _ in range(2)]
            process.stdout.close()      # nobody reads on: it ends
            process.wait(30)
    names = {line.split()[0].removeprefix("deskcast_") for line in
             lab.deskcast("exporter", "--list").expect(0).out.splitlines()}
    for answer in (one, *lines):
        d = answer["desktops"][0]
        check(d["desktop"] == "crowd000" and d["up"] and d["version"] == 12, d)
        values = set(d) & names
        check(len(values) > 8 and d["outage_seconds"] == 0, d)
        check(set(d["stores"][0]) & names, d)
    check(lines[0]["time"] < lines[1]["time"], lines)


def in_a_pipe():
    """in a pipe: plain lines again and again, without control characters"""
    with Crowd(2, 0, Busy()) as crowd, subprocess.Popen(
            [lab.DESKCAST, "top", "--interval", "1", "--connect", crowd.uri],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            text=True) as process:
        said = ""
        while said.count("STORE") < 2:
            said += process.stdout.readline()
        process.stdout.close()
        process.wait(30)
    check("\033" not in said and said.count("DESKTOP") == 2, repr(said))


@contextlib.contextmanager
def terminal(*argv, size=(24, 100)):
    """A terminal with a program: master, slave, process"""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave)
    try:
        yield master, slave, process
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def read_until(master, pattern, seconds=30):
    """What comes until the pattern is in it"""
    said, end = "", time.monotonic() + seconds
    while not re.search(pattern, said, re.S):
        left = end - time.monotonic()
        check(left > 0, pattern, "did not come, but", repr(said[-2000:]))
        if select.select([master], [], [], left)[0]:
            said += os.read(master, 65536).decode()
    return said


def on_a_terminal():
    """on a terminal: drawn in its size, sorted by key, and all is as before then"""
    with Crowd(3, 0, Busy()) as crowd, terminal(
            lab.DESKCAST, "top", "--interval", "1", "--connect",
            crowd.uri) as (master, slave, process):
        before = termios.tcgetattr(slave)
        said = read_until(master, "sorted by state")
        check("\033[?1049h" in said, repr(said))
        order = re.findall(r"(crowd00\d)", said)
        check(order[:3] == ["crowd002", "crowd001", "crowd000"], order)
        os.write(master, b"ss")
        said = read_until(master, r"sorted by name")
        last = said[said.rindex("\033[H"):]
        check(re.findall(r"(crowd00\d)", last)[:3] ==
              ["crowd000", "crowd001", "crowd002"], repr(last))
        fcntl.ioctl(slave, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 5, 20, 0, 0))
        process.send_signal(28)
        said = read_until(master, r"\033\[H(?:(?!\033\[J).)*\033\[J.*"
                          r"\033\[H(?:(?!\033\[J).)*\033\[J")
        last = re.findall(r"\033\[H((?:(?!\033\[J).)*)\033\[J", said, re.S)[-1]
        lines = [re.sub(r"\033\[\w*", "", line) for line in last.split("\r\n")]
        check(len(lines) == 5 and all(len(line) <= 20 for line in lines), lines)
        os.write(master, b"q")
        read_until(master, r"\033\[\?1049l")
        until("its end", lambda: process.poll() is not None)
        check(process.returncode == 0, process.returncode)
        check(termios.tcgetattr(slave) == before, "the terminal is not as it was")


def wrong():
    """command lines that are wrong"""
    lab.deskcast("top", "--interval", "0").expect(2)
    lab.deskcast("top", "more").expect(2)
    lab.deskcast("top", "--once", "--timeout", "99").expect(1, "--timeout")


def main():
    return lab.run_tests([once, in_json, in_a_pipe, on_a_terminal, wrong])

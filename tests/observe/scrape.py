# SPDX-License-Identifier: GPL-2.0-or-later
"""The exporter as a process, and what it serves"""

import contextlib
import os
import re
import socket
import subprocess
import sys

import lab
from lab import check
from stores.process import Process, fetch, free_port

LINE = re.compile(r'^([a-z_]+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """A page: get(name, label=value...) is the one value with these labels"""

    def __init__(self, text):
        self.text = text
        self.samples = []
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            match = LINE.match(line)
            check(match, "no sample:", line)
            self.samples.append((match[1], dict(LABEL.findall(match[2] or "")),
                                 float(match[3])))
        self.names = {name for name, _, _ in self.samples}

    def all(self, name, **labels):
        name = "deskcast_" + name
        return [(is_, value) for n, is_, value in self.samples
                if n == name and labels.items() <= is_.items()]

    def get(self, name, **labels):
        found = self.all(name, **labels)
        check(len(found) == 1, name, labels, "is there", len(found), "times")
        return found[0][1]


def once(office, *args):
    """What --once prints"""
    return Metrics(lab.deskcast(
        "exporter", "--once", "--connect", office.uri, "--relay-status",
        os.path.join(office.folder, "relay.json"), *args).expect(0).out)


def request(address, text, timeout=60):
    """Status, headers and body of the answer to a request"""
    with socket.socket(socket.AF_UNIX if isinstance(address, str)
                       else socket.AF_INET) as s:
        s.settimeout(timeout)
        s.connect(address)
        s.sendall(text.encode())
        said = b""
        while data := s.recv(65536):
            said += data
    head, _, body = said.decode().partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    return (int(status.split()[1]),
            {k.lower(): v for k, v in (h.split(": ", 1) for h in headers)}, body)


def get(address, path="/metrics", method="GET"):
    return request(address, f"{method} {path} HTTP/1.1\r\nHost: x\r\n"
                   "Connection: close\r\n\r\n")


class Exporter:
    """Serves at .address; for use in a with statement. argv: before its own"""

    def __init__(self, office, *args, unix=False, before=()):
        self.path = os.path.join(office.folder, "exporter")
        self.log = os.path.join(office.folder, "exporter.log")
        self.address = self.path if unix else ("127.0.0.1", free_port())
        where = ["--socket", self.path] if unix else \
            ["--listen", f"127.0.0.1:{self.address[1]}"]
        self.argv = [*before, lab.DESKCAST, "exporter", "--connect",
                     office.uri, "--relay-status",
                     os.path.join(office.folder, "relay.json"), *where, *args]

    def __enter__(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.log)
        self.process = Process(self.argv, self.log)
        lab.until("an exporter", self.ready)
        return self

    def ready(self):
        check(self.process.running(), "it ended:", self.said())
        return "metrics on" in self.said()

    def __exit__(self, *_):
        self.process.stop()

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def metrics(self):
        status, headers, body = get(self.address)
        check(status == 200, status, body)
        check(headers["content-type"] ==
              "text/plain; version=0.0.4; charset=utf-8", headers)
        return Metrics(body)


def promtool(*args, text=None):
    """What it says, and its exit status"""
    done = subprocess.run([fetch("prometheus") / "usr/bin/promtool", *args],
                          input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=120)
    return done.stdout, done.returncode


if __name__ == "__main__":
    sys.exit("tests/observe/run runs it")

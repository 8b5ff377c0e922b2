# SPDX-License-Identifier: GPL-2.0-or-later
"""Stores and a relay, and what goes wrong with them: the weather.

A place is a server with a link in front of it, as of stores/faults.py, which has
most of the faults. It knows when anything was wrong with it.
"""

import collections
import os
import random
import signal
import threading
import time
import types

from serve.env import Relay, Serve, exports
from stores import faults
from stores.link import Link
from stores.process import StoreError, free_port, until
from stores.nbd import VolatileStorageDaemon

READY = 60                  # seconds until a service is there again
LONGEST = 8.0               # seconds that a fault may take
# Each several times as often as the next line's
KINDS = ['cut'] * 3 + ['cut-answers', 'refuse', 'stall', 'kill', 'freeze'] * 2 \
    + ['mute', 'garbage', 'late', 'slow', 'delay']


class Service:
    """A store's server, or a relay, with the verbs of stores/process.Store"""

    before = 0              # how often it had said that it serves

    def served(self):
        return self.said().count(' exports on ')

    def start(self, wait=False):
        self.before = self.served() if os.path.exists(self.log) else 0
        super().start()
        if wait:
            self.wait_ready()

    def pids(self):
        """Of it and its daemon, those that there are"""
        pid = self.process.pid
        try:
            with open(f'/proc/{pid}/task/{pid}/children',
                      encoding='ascii') as f:
                return [pid, *map(int, f.read().split())]
        except FileNotFoundError:
            return [pid]

    def send(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def freeze(self):
        self.send(signal.SIGSTOP)

    def thaw(self):
        self.send(signal.SIGCONT)

    def kill(self):
        """Both; a daemon that has just come follows by itself"""
        pids = self.pids()
        self.send(signal.SIGKILL)
        self.process.kill()
        until(lambda: not any(os.path.exists(f'/proc/{p}') for p in pids),
              READY, 'it has ended')

    def kill_daemon(self):
        for pid in self.pids()[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def wait_ready(self):
        def ready():
            if not self.process.running():
                raise StoreError(f'it ended: {self.said()[-2000:]}')
            return self.served() > self.before
        until(ready, READY, 'it serves', 0.05)


class Server(Service, Serve):
    """Of a store"""


class Between(Service, Relay):
    """The relay"""


class Place:
    """For use in a with statement. It has what stores/faults.py wants.

    server   in front of which the link is
    """

    def __init__(self, name, server, findings, kinds=None):
        self.name, self.server, self.findings = name, server, findings
        self.kinds = kinds or {k: faults.STREAM[k] for k in KINDS}
        self.chosen = list(self.kinds) if kinds else KINDS
        self.settings = {}
        self.link = None
        self.lock = threading.Lock()
        self.bad, self.began = False, 0.0
        self.spans = collections.deque(maxlen=1000)     # by the clock on the wall

    def linked(self, address):
        """A link of its own, for use in a with statement, on TCP"""
        self.link = Link(types.SimpleNamespace(
            address=address, image=None, objects=lambda: [], export='disk'),
            tcp=('127.0.0.1', free_port()))
        return self.link

    def address(self):
        host, port = self.link.address
        return {'type': 'inet', 'host': host, 'port': str(port)}

    def was_bad(self, moment, seconds):
        """At that time, or so long before"""
        return self.bad and moment >= self.began or any(
            begin <= moment <= end + seconds for begin, end in self.spans)

    def suffer(self, kind, seconds):
        """A fault, from its beginning to its end"""
        begin, end = self.kinds[kind]
        with self.lock:
            self.findings.count(f'fault {kind}')
            self.findings.note(self.name, f'{kind} for {seconds:.1f} s')
            self.began = time.time()
            self.bad = True
            try:
                begin(self)
                self.findings.sleep(seconds)
            finally:
                end(self)
                self.spans.append((self.began, time.time()))
                self.bad = False
            self.findings.note(self.name, f'{kind} is over')


def restarted(place):
    place.server.start()
    place.server.wait_ready()


def daemon_again(place):
    """It says so only when it was started itself"""
    def serves():
        try:
            return exports(place.server.path)
        except (OSError, EOFError):
            return False
    until(serves, READY, 'it serves again', 0.1)


RELAY = {
    'relay-kill': (lambda p: p.server.kill(), restarted),
    'relay-kill-daemon': (lambda p: p.server.kill_daemon(), daemon_again),
    'relay-freeze': (lambda p: p.server.freeze(), lambda p: p.server.thaw()),
}


class Weather(threading.Thread):
    """Faults of one place, one after the other. It starts processes, so it has
    to live as long as they have to."""

    def __init__(self, place, seed, pause, gone):
        super().__init__(daemon=True, name=f'weather of {place.name}')
        self.place, self.pause = place, pause
        self.gone, self.finished = gone, False
        self.rng = random.Random(f'{seed}/{place.name}')

    def run(self):
        while not self.place.findings.ending.wait(
                self.rng.uniform(0.3, 1) * self.pause):
            self.one()
        self.finished = True
        self.gone.wait()

    def one(self):
        top = LONGEST if self.rng.random() < 0.3 else 1
        kind = self.rng.choice(self.place.chosen)
        try:
            self.place.suffer(kind, self.rng.uniform(0.05, top))
        except Exception as e:      # pylint: disable=broad-except
            if not self.place.findings.over.is_set():
                self.place.findings.find(self.place.name,
                                         f'after {kind}: {e!r}')


def private_store(image, seed):
    """One that forgets what was not flushed"""
    return VolatileStorageDaemon(image, exclusive=True,
                                 evict=random.Random(seed).choice((0, 30)))

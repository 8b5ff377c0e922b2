# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong with stores, at random, and the same again by its seed.

A Place is a server, a Link in front of it and, where namespaces can be had, a
Wire to its clients; they reach it by TCP, as a store on another host. A fault of
a Place has a beginning and an end; a schedule is a list of faults that can be
printed, kept and run again.
"""

import contextlib
import json
import random
import time

from .link import Link
from .nbd import StorageDaemon
from .process import free_port

SLOW = 64 * 1024            # bytes a second
NBD_PORT = 10809


class Place:
    """For use in a with statement; options() is for clients in .netns.

    wire      a Wire of netns.py, or None: then it is on the loopback interface
    settings  of the link while nothing is wrong with it
    """

    def __init__(self, image, wire=None, server=StorageDaemon, **settings):
        self.wire = wire
        self.image = image
        self.server = server(image)
        self.settings = settings
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        tcp = (self.wire.address, NBD_PORT) if self.wire else \
            ('127.0.0.1', free_port())
        netns = self.wire.server if self.wire else None
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.server)
            self.link = stack.enter_context(
                Link(self.server, tcp, netns, **self.settings))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def objects(self):
        return self.link.objects()

    def options(self, **more):
        return self.link.options(**more)


def toggled(name, value):
    """A setting of the link that is made and taken back."""
    return (lambda p: p.link.set(**{name: value}),
            lambda p: p.link.set(**{name: p.settings.get(name, 0)}))


def refuse(place):
    place.link.set(refuse=1)
    place.link.cut()


def mute(place):
    place.link.set(mute=1)
    place.link.cut()


def unmute(place):
    place.link.set(mute=0)
    place.link.cut()        # those that were left waiting stay so otherwise


def restart(place):
    place.server.start(wait=False)
    place.server.wait_ready()


# Name: how it begins, how it ends
STREAM = {
    'freeze': (lambda p: p.server.freeze(), lambda p: p.server.thaw()),
    'kill': (lambda p: p.server.kill(), restart),
    'stall': toggled('stall', 1),
    'cut': (lambda p: p.link.cut(), lambda p: None),
    'cut-answers': toggled('cut_after', 6000),
    'refuse': (refuse, lambda p: p.link.set(refuse=0)),
    'mute': (mute, unmute),
    'garbage': toggled('garbage', 1),
    'late': toggled('late', 700),
    'slow': toggled('rate', SLOW),
    'delay': toggled('delay', 50),
}
WIRE = {
    'unplug': (lambda p: p.wire.down(), lambda p: p.wire.up()),
    'drop': (lambda p: p.wire.drop(), lambda p: p.wire.pass_on()),
}
# Where the server has fail() and good(), as an nbd.Failing
SERVER = {'errors': (lambda p: p.server.fail(), lambda p: p.server.good())}
ALL = {**STREAM, **WIRE, **SERVER}
EIGHT = 8
# After these nothing at all comes from a store until their end
DEAD = ('freeze', 'kill', 'stall', 'refuse', 'mute', 'garbage', 'unplug', 'drop')


def schedule(seed, count, places=1, kinds=tuple(STREAM), shortest=0.05,
             longest=1.0, pause=0.2, peace=0):
    """A list of faults, one after the other: which place it is, what, for how
    many seconds, and seconds of peace after it. Half of them are short. After
    one in EIGHT there are at least so many seconds of peace."""
    rng = random.Random(seed)
    faults = []
    for n in range(count):
        top = longest if rng.random() < 0.5 else min(longest, 3 * shortest)
        faults.append({'place': rng.randrange(places),
                       'kind': rng.choice(kinds),
                       'seconds': round(rng.uniform(shortest, top), 3),
                       'pause': round(max(rng.uniform(0, pause), 0 if n % EIGHT
                                          else peace), 3)})
    return faults


def as_json(faults):
    return '\n'.join(json.dumps(f) for f in faults)


class Run:
    """Runs a schedule; log is a list of (begin, end, fault), by the clock of
    time.monotonic(). whole=True heals the place when it is left in between."""

    def __init__(self, places, faults):
        self.places = places
        self.faults = faults
        self.log = []

    def run(self, check=lambda: True):
        """True if all were run; check() false ends it early."""
        for fault in self.faults:
            self.one(fault)
            time.sleep(fault['pause'])
            if not check():
                return False
        return True

    def one(self, fault):
        place = self.places[fault['place']]
        start, end = ALL[fault['kind']]
        begin = time.monotonic()
        start(place)
        try:
            time.sleep(fault['seconds'])
        finally:
            end(place)
        self.log.append((begin, time.monotonic(), fault))

    def during(self, moment, length=0.0):
        """The faults that overlap that span of time, for a message."""
        return [f for b, e, f in self.log
                if b <= moment + length and moment <= e + 0.5]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Two stores, a relay, stores of private vDisks, and all who work with them."""

import contextlib
import os
import pathlib
import random
import shutil
import threading
import time

from serve.env import VdiskStore
from stores.process import guest_image, new_folder, scratch

from . import guests
from .checks import Checker
from .content import Version
from .desktops import MIB, Dedicated, McsPooled, OnStore, Streamed
from .findings import Control
from .places import RELAY, Between, Place, Server, Weather, private_store
from .updates import Library, Master, Office

SIZE = 16 * MIB
# Of the relay's caches: not all versions have room
CACHE = 40 * MIB
GUESTS = 512 * MIB         # and more for that of real guests
LABEL = 4096
MIX = [Streamed, McsPooled, Master, OnStore, Dedicated, Streamed, McsPooled,
       Streamed, OnStore, Dedicated, McsPooled, Streamed, OnStore, Dedicated,
       McsPooled, Streamed]
BLACKOUT = 4.0              # seconds at most


class World:
    """For use in a with statement. clock is that of time.monotonic()."""

    clock = staticmethod(time.monotonic)

    def __init__(self, args, findings):
        self.args, self.seed, self.findings = args, args.seed, findings
        self.size, self.cache_limit = SIZE, CACHE
        self.streamed = ['deb']
        if args.guests:
            self.streamed.append(guests.VDISK)
            self.cache_limit += GUESTS
        self.rng = random.Random(f'{self.seed}/world')
        scratch()           # before TMPDIR is that of the programs
        self.dir = new_folder('soak')
        self.desks, self.tmp = self.dir / 'desks', self.dir / 'tmp'
        self.versions = {'win': {}, 'deb': {}}
        self.closing, self.gone = threading.Event(), threading.Event()
        self.parent = self.office = None
        self.everybody, self.pooled, self.private = [], [], []
        self.guests = []
        self.weather = []
        self.stack = contextlib.ExitStack()
        self.old_tmp = os.environ.get('TMPDIR')

    def __enter__(self):
        try:
            self.desks.mkdir()
            self.tmp.mkdir()
            os.environ['TMPDIR'] = str(self.tmp)
            self.control = self.stack.enter_context(
                Control(self.findings.over))
            self.make_store()
            self.make_places()
            self.make_desks()
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.findings.over.set()
        self.findings.ending.set()
        self.closing.set()
        limit = time.monotonic() + 5
        for desk in self.everybody:
            while desk.is_alive() and not desk.finished and \
                    time.monotonic() < limit:
                time.sleep(0.02)
            if desk.machine:
                desk.machine.kill()
        self.stack.close()
        self.gone.set()
        if self.old_tmp is None:
            os.environ.pop('TMPDIR', None)
        else:
            os.environ['TMPDIR'] = self.old_tmp
        shutil.rmtree(self.dir, ignore_errors=True)

    def make_store(self):
        self.store, self.replica = VdiskStore(), VdiskStore()
        for store in (self.store, self.replica):
            self.stack.callback(store.remove)
        self.library = Library(self)
        for vdisk in self.versions:
            self.library.first(vdisk)
        if self.args.guests:
            self.store.command('vdisk', 'import', guest_image(), guests.VDISK)
            self.store.command('version', 'promote', guests.VDISK)
        for vdisk in self.streamed:
            self.library.replicate(vdisk)

    def make_places(self):
        enter = self.stack.enter_context
        self.first, self.second = [
            Place(name, Server(store), self.findings) for name, store in
            (('store 1', self.store), ('store 2', self.replica))]
        for place in (self.first, self.second):
            enter(place.server)
            enter(place.linked(place.server.path))
        uris = [f'nbd://127.0.0.1:{p.link.address[1]}'
                for p in (self.first, self.second)]
        self.relay = Place('relay', Between(uris, self.streamed,
                                            size=self.cache_limit),
                           self.findings, RELAY)
        enter(self.relay.server)
        self.relay.server.wait('deb@1')

    def make_private(self, number):
        """A store of its own, for one desktop"""
        image = self.dir / f'own-{number}'
        rng = random.Random(f'{self.seed}/own-{number}')
        data = rng.randbytes(self.size)
        image.write_bytes(data + bytes(LABEL))
        base = pathlib.Path(f'{image}.base')
        base.write_bytes(data)
        server = private_store(image, f'{self.seed}/{number}')
        place = Place(f'private store {number}', server, self.findings)
        place.version = Version('own', 1, base, image, 'raw', None)
        self.stack.enter_context(server)
        self.stack.enter_context(place.linked(server.address))
        self.private.append(place)

    def make_desks(self):
        seen = {}
        for n in range(self.args.desktops):
            kind = MIX[n % len(MIX)]
            if kind is Master and n >= len(MIX):
                kind = Streamed
            nth = seen[kind] = seen.get(kind, -1) + 1
            how = {'steady': nth == 0, 'ram': nth % 2,
                   'outage': ('pause', 'wait')[nth % 2]}
            if kind is OnStore:
                self.make_private(nth)
                how['store'] = nth
            how['lasts'] = self.args.update
            name = f'{kind.kind.replace(" ", "-")}-{n + 1:02}'
            self.everybody.append(kind(name, n + 1, self, **how))
        self.guests = [guests.Real(n + 1, self)
                       for n in range(self.args.guests)]
        self.pooled = [d for d in self.everybody
                       if isinstance(d, (McsPooled, Streamed))]

    def begin(self):
        self.checker = Checker(self)
        self.office = Office(self, self.args.update / 3)
        self.places = [self.first, self.second, self.relay, *self.private]
        for desk in (*self.everybody, *self.guests):
            desk.start()
        self.checker.start()
        self.office.start()
        if not self.args.calm:
            self.weather = [Weather(p, self.seed, self.args.pause *
                                    (2 if p is self.relay else 1), self.gone)
                            for p in self.places]
            for weather in self.weather:
                weather.start()

    def current(self, vdisk):
        told = self.store.manifest(vdisk)['versions']
        if vdisk not in self.versions:
            return self.library.unread(vdisk, told[0])
        return self.versions[vdisk][max(
            v['version'] for v in told if v['access'] == 'production')]

    def processes(self):
        """Their numbers, with what they are"""
        for guest in self.guests:
            if guest.pid:
                yield guest.pid, guest.name
        for desk in self.everybody:
            m = desk.machine
            if m and m.alive:
                yield m.popen.pid, desk.name
        for place in self.places:
            process = place.server.process
            if not process or place.bad:
                continue
            pids = place.server.pids() if hasattr(place.server, 'pids') \
                else [process.pid]
            for n, pid in enumerate(pids):
                yield pid, f'{place.name}, process {n}'

    def blackout(self):
        """Relay and stores at once: nothing is streamed"""
        seconds = self.rng.uniform(1, BLACKOUT)
        self.findings.count('fault blackout')
        threads = [threading.Thread(target=p.suffer, args=(kind, seconds))
                   for p, kind in ((self.relay, 'relay-freeze'),
                                   (self.first, 'refuse'),
                                   (self.second, 'refuse'))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def end(self):
        """The time is up: no more faults; everybody compares all that there is."""
        self.findings.ending.set()
        self.wait_for(self.weather, 120)
        self.closing.set()
        self.wait_for([*self.everybody, self.office], 300)
        self.wait_for(self.guests, 1800)
        self.growth = self.checker.growth()

    def wait_for(self, threads, seconds):
        limit = time.monotonic() + seconds
        for thread in threads:
            while not thread.finished and not self.findings.over.is_set():
                if time.monotonic() > limit:
                    self.findings.find(thread.name,
                                       'it does not come to its end')
                time.sleep(0.05)

    def put_away(self):
        """In order, and what is left then is looked at."""
        for desk in self.everybody:
            status = desk.machine.quit() if desk.machine.alive else 0
            if status:
                self.findings.find(desk.name, f'it ended with {status}: '
                                   f'{desk.machine.said()}')
        for place in (self.relay, self.first, self.second):
            status = place.server.finish(60)
            if status:
                self.findings.find(place.name, f'it ended with {status}: '
                                   f'{place.server.said()[-1000:]}')
        self.checker.leftovers()

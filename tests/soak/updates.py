# SPDX-License-Identifier: GPL-2.0-or-later
"""Updates of both kinds, pushes, rollbacks, and what is done with old versions."""

import hashlib
import queue
import random
import threading
import time
import types

from serve.env import deskcast, noise
from stores.process import StoreError, program, run, until
from stores.reader import Connection

from .content import GRANULE, Content, Version
from .desktops import MIB, Private, nbd
from .machine import Machine

VERSIONS = 12               # of a vDisk that a store has at most
APPEARS = 120               # seconds until a change of the store shows, with faults


def digest(path):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


class Library:
    """A store, and what each of its versions has to be. admin: one changes the
    store at a time."""

    def __init__(self, world):
        self.world, self.store, self.copy = world, world.store, world.replica
        self.admin = threading.Lock()
        self.hashes = {}        # of each sealed version's image

    def __getitem__(self, vdisk):
        return self.world.versions[vdisk]

    def told(self, vdisk, number):
        return self.store.version(vdisk, number)

    def first(self, vdisk):
        """Version 1, by an import"""
        path = self.world.dir / f'{vdisk}-1.raw'
        data = noise(f'{self.world.seed}/{vdisk}', self.world.size * 3 // 4)
        path.write_bytes(data + bytes(self.world.size - len(data)))
        self.store.command('vdisk', 'import', path, vdisk)
        self.store.command('version', 'promote', vdisk)
        self.add(vdisk, 1, path)

    def add(self, vdisk, number, path):
        """A sealed version, with what it has to be"""
        told = self.told(vdisk, number)
        image = self.store.folder(vdisk) / told['image']
        version = Version(vdisk, number, path, image, told['format'],
                          told['root'])
        self.hashes[version] = digest(image)
        self.world.versions[vdisk][number] = version
        return version

    def unread(self, vdisk, told):
        """One whose content nobody here knows"""
        return types.SimpleNamespace(
            vdisk=vdisk, number=told['version'], form=told['format'],
            image=self.store.folder(vdisk) / told['image'], root=told['root'],
            size=told['size'])

    def is_sealed_right(self, version):
        """What is read through the store, without its servers"""
        out = self.world.dir / 'exported.raw'
        self.store.command('vdisk', 'export', version.vdisk, version.number,
                           out, '--force')
        same = out.read_bytes() == version.map[:]
        out.unlink()
        if not same:
            self.world.findings.find(str(version), 'what was sealed is not '
                                     'what was written')

    def replicate(self, vdisk):
        deskcast('store', 'replicate', '--from', self.store.path, '--to',
                 self.copy.path, '--vdisk', vdisk)

    def tidy(self, vdisk, used):
        """Versions that nobody uses go, and parents that are in the way of it
        are merged away. What cannot be done now is done later."""
        current = self.world.current(vdisk)
        drop = [v for v in list(self[vdisk].values())
                if v not in used and v is not current]
        for store in (self.store, self.copy):
            for v in drop:
                self.remove(store, v)
        there = {v['version'] for v in self.store.manifest(vdisk)['versions']}
        for v in drop:
            if v.number not in there:
                del self[vdisk][v.number]
                self.hashes.pop(v, None)
                v.drop()
        if len(there) > VERSIONS:
            self.world.findings.find('store', f'{vdisk} has versions {there}, '
                                     f'where {[str(v) for v in used]} are used')

    def remove(self, store, version):
        """Of one store; it may not have it"""
        try:
            told = store.manifest(version.vdisk)['versions']
        except FileNotFoundError:
            return
        this = next((v for v in told if v['version'] == version.number), None)
        if not this:
            return
        where = f'{version.vdisk}@{version.number}'
        try:
            if this['access'] != 'retired':
                store.command('version', 'retire', where)
                self.world.findings.count('retired')
            for child in told:
                if child['parent'] == version.number:
                    self.merge(store, version.vdisk, child['version'])
            store.command('version', 'rm', where)
            self.world.findings.count('removed')
        except StoreError as e:
            self.world.findings.note(where, f'not removed: {e}')

    def merge(self, store, vdisk, number):
        store.command('version', 'merge', f'{vdisk}@{number}')
        self.world.findings.count('merges')
        version = self[vdisk].get(number)
        if store is self.store and version:
            self.hashes[version] = digest(version.image)


class Office(threading.Thread):
    """The administrator: mcs updates, pushes of both kinds, back again."""

    def __init__(self, world, pause):
        super().__init__(daemon=True, name='office')
        self.world, self.pause = world, pause
        self.library, self.findings = world.library, world.findings
        self.rng = random.Random(f'{world.seed}/office')
        self.sealed = queue.Queue()     # versions that the master has written
        self.finished = False

    def run(self):
        try:
            while not self.findings.ending.wait(
                    self.rng.uniform(0.3, 1) * self.pause):
                self.one()
        except Exception as e:          # pylint: disable=broad-except
            if not self.findings.over.is_set():
                self.findings.find('office', f'{type(e).__name__}: {e}')
        self.finished = True
        self.world.gone.wait()

    def one(self):
        with self.library.admin:
            if not self.sealed.empty():
                self.publish(self.sealed.get())
            elif self.rng.random() < 0.6:
                self.update()
            else:
                self.back(self.rng.choice(('win', 'deb')))
        for vdisk in self.world.versions:
            with self.library.admin:
                self.library.tidy(vdisk, self.used(vdisk))

    def desks(self, vdisk):
        return [d for d in self.world.pooled if d.vdisk == vdisk]

    def used(self, vdisk):
        return {v for d in self.world.pooled if d.vdisk == vdisk
                for v in (d.on, d.assigned, d.wanted)} | \
            {d.on for d in self.world.everybody if d.keeps} | \
            {self.world.parent, *self.sealed.queue,
             *self.production(vdisk)[-2:]}

    def production(self, vdisk):
        return [self.library[vdisk][v['version']] for v in
                self.library.store.manifest(vdisk)['versions']
                if v['access'] == 'production']

    def update(self):
        """mcs: the master VM writes the image"""
        store, vdisk = self.library.store, 'win'
        store.command('version', 'new', vdisk)
        told = store.manifest(vdisk)['versions'][-1]
        number, parent = told['version'], self.library[vdisk][told['parent']]
        path = self.world.dir / f'{vdisk}-{number}.raw'
        data = bytearray(parent.map[:])
        writes = []
        for n in range(self.rng.randint(1, 12)):
            at = self.rng.randrange(self.world.size // GRANULE - 64) * GRANULE
            new = noise(f'{number}/{n}', self.rng.choice((1, 16, 64)) * GRANULE)
            data[at:at + len(new)] = new
            piece = self.world.dir / f'piece-{n}'
            piece.write_bytes(new)
            writes += ['-c', f'write -q -s {piece} {at} {len(new)}']
        path.write_bytes(data)
        run(program('qemu-io'), '-f', told['format'], *writes,
            store.folder(vdisk) / told['image'])
        store.command('version', 'seal', vdisk)
        self.findings.count('mcs updates')
        self.publish(self.library.add(vdisk, number, path))

    def publish(self, version):
        """Into production, and to the desktops"""
        self.library.is_sealed_right(version)
        self.library.store.command('version', 'promote',
                                   f'{version.vdisk}@{version.number}')
        self.findings.note('office', f'{version} is in production')
        if version.vdisk == 'deb':
            self.library.replicate('deb')
            until(lambda: self.findings.over.is_set() or
                  self.world.relay.server.of(str(version)).get('served'),
                  APPEARS, f'the relay serves {version}', 0.2)
        self.push(version)

    def push(self, version):
        """To all, or to some first"""
        desks = self.desks(version.vdisk)
        if self.rng.random() < 0.3:
            desks = self.rng.sample(desks, -(-len(desks) // 2))
        for desk in desks:
            desk.wanted = version

    def back(self, vdisk):
        """The newest was no good: all go back to the one before."""
        production = self.production(vdisk)
        if len(production) < 2:
            return
        self.library.store.command('version', 'revert', vdisk)
        self.findings.count('rollbacks')
        version = production[-2]
        self.findings.note('office', f'back to {version}')
        for desk in self.desks(vdisk):
            desk.wanted = version


class Master(Private):
    """Installs updates into new versions of the streamed vDisk: private image
    mode, through the server of the first store."""

    kind = 'pvs update'

    def begin(self):
        self.library = self.world.library
        self.place_of = self.world.first
        self.path = None
        self.next()

    def next(self):
        """A version in maintenance, and a desktop that writes it"""
        store, vdisk = self.library.store, 'deb'
        with self.library.admin:
            store.command('version', 'new', vdisk, '--for', 'pvs')
            told = store.manifest(vdisk)['versions'][-1]
            self.on = self.library[vdisk][told['parent']]
            self.world.parent = self.on
        self.version = told['version']
        export = f'{vdisk}@{self.version}'
        until(lambda: self.findings.over.is_set() or self.is_there(export),
              APPEARS, f'{export} is there to be written', 0.2)
        where = self.place_of.address()
        disk = self.options(vdisk, self.version, [nbd(where, export)],
                            32 * MIB, label=nbd(where, f'{export}.label'))
        self.assigned = self.wanted = self.on
        self.content = Content(self.number, self.world.size, self.on)
        self.machine = Machine(self.name, self.folder, disk, self.world, True)
        self.machine.start()
        self.until = time.monotonic() + self.rng.uniform(0.5, 1) * \
            self.how['lasts']
        self.findings.note(self.name, f'installs into {export}')
        if self.rng.random() < 0.7:
            self.with_window()

    def is_there(self, export):
        try:
            Connection(self.place_of.server.path, f'{export}.label', 5).close()
            return True
        except (OSError, EOFError):
            return False

    def step(self):
        super().step()
        if time.monotonic() > self.until:
            self.install()
            self.next()

    def install(self):
        """It is shut down, with all of it on the store, and sealed."""
        self.flush(True)
        if self.window:
            self.window = 0.0
            self.job('vdisk-window-close')
        self.drain()
        super().end()           # so that nothing is unsure
        self.end_it()
        path = self.world.dir / f'deb-{self.version}.raw'
        path.write_bytes(self.content.whole())
        limit = time.monotonic() + APPEARS
        while not self.seal(path):
            if time.monotonic() > limit:
                self.wrong(f'version {self.version} cannot be sealed')
            # The store was away when it ended: its label does not say closed
            self.machine.start()
            self.drain()
            self.end_it()
        self.findings.count('pvs updates')

    def end_it(self):
        status = self.machine.quit()
        if status:
            self.wrong(f'it ended with {status}: {self.machine.said()}')

    def seal(self, path):
        """True, or the reason is noted. It waits until the server has seen that
        its writer went; and that may be away just now."""
        with self.library.admin:
            try:
                self.library.store.command('version', 'seal', 'deb', '--wait',
                                           20)
            except StoreError as e:
                self.findings.note(self.name, f'not sealed: {e}')
                return False
            self.world.office.sealed.put(
                self.library.add('deb', self.version, path))
        return True

    def end(self):
        self.install()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Desktops of each kind, but for the one that installs updates."""

import time

from stores.node import GuestError
from stores.process import program, run

from .desk import Desk, Pooled

MIB = 1 << 20
RAM = 2 * MIB


def nbd(server, export):
    return {'driver': 'nbd', 'server': server, 'export': export}


def file_node(path):
    return {'driver': 'file', 'filename': str(path), 'discard': 'unmap'}


def create(path, size, driver, options, *more):
    path.unlink(missing_ok=True)
    run(program('qemu-img'), 'create', '-q', '-f', driver, *more, '-o',
        ','.join(f'{k}={v}' for k, v in options.items()), path, size)


class Mcs:
    """Its disk is over an image of the store."""

    vdisk = 'win'

    def make(self):
        path = self.folder / f'{self.name}.mcs'
        self.on = self.assigned = self.wanted = self.world.current(self.vdisk)
        create(path, self.on.size, 'mcs',
               {'lifetime': 'dedicated' if self.keeps else 'pooled'},
               '-b', self.on.image, '-F', self.on.form)
        ram = {'write-cache-ram': RAM} if self.how.get('ram') and \
            not self.keeps else {}
        return {'driver': 'mcs', 'node-name': 'disk0', 'discard': 'unmap',
                'file': file_node(path), **ram}


class McsPooled(Mcs, Pooled):
    kind = 'mcs pooled'

    def assignment(self, version):
        return {'filename': str(version.image), 'format': version.form}

    def running(self, info):
        return next(v for v in list(self.versions().values())
                    if str(v.image) == info['image']['filename'])


class Dedicated(Mcs, Desk):
    """It keeps what was flushed."""

    kind = 'mcs dedicated'
    keeps = True


class Streamed(Pooled):
    """pvs in standard image mode: a relay, and two stores behind it"""

    kind = 'pvs standard'
    vdisk = 'deb'

    def make(self):
        path, world = self.folder / f'{self.name}.pvs', self.world
        v = self.on = self.assigned = self.wanted = world.current(self.vdisk)
        create(path, v.size, 'pvs', {
            'role': 'cache', 'vdisk': self.vdisk, 'version': v.number,
            'verity-root': v.root})
        relay = world.relay.server
        here = {'type': 'unix', 'path': relay.path}
        servers = [here, world.first.address(), world.second.address()]
        ram = {'write-cache-ram': RAM} if self.how.get('ram') else {}
        return {'driver': 'pvs', 'node-name': 'disk0', 'discard': 'unmap',
                'file': file_node(path),
                'stores': [nbd(s, f'{self.vdisk}@%v') for s in servers],
                'verity-tree': nbd(here, f'{self.vdisk}@%v.tree'),
                'host-cache': str(relay.cache / '%r.cache'),
                'host-cache-map': str(relay.maps / '%r.cache.map'),
                'request-timeout': 1000, 'probe-interval': 100,
                'outage-wait': 1,
                'outage-action': self.how.get('outage', 'pause'), **ram}

    def excused_at(self, moment, seconds):
        """The relay has the tree, and needs one of the stores."""
        w = self.world
        return w.relay.was_bad(moment, seconds) or \
            w.first.was_bad(moment, seconds) and \
            w.second.was_bad(moment, seconds)

    def assignment(self, version):
        return {'version': version.number, 'verity-root': version.root}

    def running(self, info):
        return self.versions()[info['pvs']['version']]


class Private(Desk):
    """It writes a vDisk on a store, through a reconnect buffer. A subclass says
    which one."""

    keeps = durable = True
    place_of = None             # the Place of its store

    def excused_at(self, moment, seconds):
        return not 0 < self.window < moment and \
            self.place_of.was_bad(moment, seconds)

    def options(self, vdisk, number, stores, buffer, **more):
        files = {role: self.folder / f'{self.name}.{role}'
                 for role in ('copy', 'journal')}
        for role, path in files.items():
            create(path, self.world.size if role == 'copy' else buffer, 'pvs',
                   {'role': role, 'vdisk': vdisk, 'version': number})
        return {'driver': 'pvs', 'mode': 'private', 'node-name': 'disk0',
                'discard': 'unmap', 'file': file_node(files['copy']),
                'journal': file_node(files['journal']), 'stores': stores,
                'request-timeout': 500, 'probe-interval': 100,
                'outage-wait': 1,
                'outage-action': self.how.get('outage', 'pause'), **more}

    def buffer(self):
        return self.machine.vdisk()['pvs']['buffer']

    def alive(self):
        """While a job is waited for"""
        self.meanwhile(0, True)

    def job(self, name, seconds=180, **arguments):
        error = self.machine.job(name, seconds, self.alive, **arguments)
        if error:
            self.wrong(f'{name}: {error}')
        self.findings.note(self.name, f'{name} is done')

    def drain(self):
        """All of it is on the store then, and is looked at there."""
        self.job('vdisk-drain')
        self.findings.count('drains')
        lag = self.buffer()['lag-bytes']
        if lag:
            self.wrong(f'{lag} bytes are left after a drain')

    def with_window(self):
        """As long as it is open, the store may do what it likes."""
        try:
            self.job('vdisk-window-open', reserve=4 * MIB)
        except GuestError as e:
            self.wrong(f'vdisk-window-open: {e}')
        self.window = time.time()
        self.findings.count('update windows')


class OnStore(Private):
    """A desktop that keeps what it writes on a store which forgets what was not
    flushed: there its image is, with a label behind it"""

    kind = 'pvs private'

    def make(self):
        place = self.place_of = self.world.private[self.how['store']]
        self.on = self.assigned = self.wanted = place.version
        stores = [nbd(place.address(), 'disk')]
        return self.options('own', 1, stores, 32 * MIB)

    def actions(self):
        return {**super().actions(), self.drained: 30, self.update: 20}

    def drained(self):
        self.flush(True)
        self.drain()
        self.compare_store()

    def compare_store(self):
        """Nothing is written meanwhile. What is unsure is read first."""
        if self.content.unsure:
            super().end()
        with open(self.place_of.server.image, 'rb') as f:
            held = f.read(self.world.size)
        why = self.content.differs(0, held)
        if why:
            self.wrong(f'on the store after a drain: {why}')
        self.findings.count('whole stores compared')

    def update(self):
        self.with_window()
        for _ in range(self.rng.randrange(30)):
            self.work()
        self.flush()
        self.window = 0.0
        self.job('vdisk-window-close')

    def end(self):
        super().end()
        self.drained()

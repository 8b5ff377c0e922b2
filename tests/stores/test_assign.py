# SPDX-License-Identifier: GPL-2.0-or-later
"""A version is assigned to a running machine, and taken when that is reset:
other stores, another tree, another cache. And pushes that are wrong."""

import contextlib
import pathlib
import tempfile
import time

from . import images, nbd
from .process import MEMORY, program, run, until
from .reader import Connection
from .test_commands import GuestError, Machine, SOON, reset
from .test_pvs import MIB, node_of, verity

VERSIONS = (1, 2)


class Vdisk:
    """Two versions, each with a store and a tree of its own; the machine."""

    def __init__(self, folder, **more):
        self.dir = pathlib.Path(folder) / 'assign'
        self.dir.mkdir(exist_ok=True)
        self.images = {v: images.make(folder, f'version-{v}')
                       for v in VERSIONS}
        self.size = self.images[1].stat().st_size
        self.roots = {v: self.seal(v) for v in VERSIONS}
        self.more = more
        self.stack = contextlib.ExitStack()

    def seal(self, v):
        pinned = verity(self.images[v])
        tree = self.dir / f'tree-{v}'
        tree.unlink(missing_ok=True)
        tree.symlink_to(pinned['verity-tree']['filename'])
        return pinned['verity-root']

    def store(self, v, image=None):
        """Its server, which others may be in the place of."""
        return nbd.StorageDaemon(image or self.images[v],
                                 str(self.dir / f'store-{v}'))

    def disk(self):
        layer = self.dir / 'desktop.pvs'
        run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
            f'role=cache,vdisk=disk,version=1,verity-root={self.roots[1]}',
            layer, self.size)
        return {'driver': 'pvs', 'node-name': 'disk0',
                'verity-tree': {'driver': 'file',
                                'filename': f'{self.dir}/tree-%v'},
                'stores': [{'driver': 'nbd', 'export': 'disk',
                            'server': nbd.server_options(
                                f'{self.dir}/store-%v')}],
                'host-cache': f'{self.dir}/%r.cache',
                'host-cache-map': f'{self.dir}/%r.map',
                'file': {'driver': 'file', 'filename': str(layer)},
                **self.more}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.stores = {v: stack.enter_context(self.store(v))
                           for v in VERSIONS}
            self.machine = stack.enter_context(
                Machine(self.dir, 'assign', self.disk()))
            self.socket = str(self.dir / 'export')
            pathlib.Path(self.socket).unlink(missing_ok=True)
            self.machine.ask('nbd-server-start', addr={
                'type': 'unix', 'data': {'path': self.socket}})
            self.machine.ask('block-export-add', type='nbd', id='e', **{
                'node-name': 'disk0'})
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def assign(self, **what):
        self.machine.ask('vdisk-assign', **{'node-name': 'disk0', **what})

    def info(self):
        return self.machine.ask('query-vdisks')[0]['pvs']

    def events(self, name):
        self.machine.ask('query-status')
        return [e['data'] for e in self.machine.qmp.log if e['event'] == name]

    def shows(self, v):
        """Every byte, and what query-vdisks says."""
        now = self.info()
        with contextlib.closing(Connection(self.socket, 'disk0', 20)) as c:
            data = b''.join(c.read(at, MIB) for at in range(0, c.size, MIB))
        return data == self.images[v].read_bytes() and now['version'] == v \
            and now['verity-root'] == self.roots[v] and \
            self.roots[v] in now['host-cache']['filename']


def taken(folder):
    """At the reset, not before, and all of it at once."""
    with Vdisk(folder) as d:
        if not d.shows(1):
            return 'it does not begin with version 1'
        d.assign(version=2, **{'verity-root': d.roots[2]})
        if not d.shows(1) or d.info()['assigned-version'] != 2:
            return 'it changed before the reset'
        reset(d.machine)
        if not d.shows(2) or 'assigned-version' in d.info():
            return f'not version 2 after the reset: {d.info()}'
        told = [(e['switched'], e['version'])
                for e in d.events('VDISK_RESET')][-1]
        d.assign(version=1, **{'verity-root': d.roots[1]})
        reset(d.machine)
        return None if d.shows(1) and told == (True, 2) else \
            f'not back; {told}'


def refused(d, expected, **what):
    begin = time.monotonic()
    try:
        d.assign(**what)
    except GuestError as e:
        took = time.monotonic() - begin
        return None if expected in str(e) and took < SOON else \
            f'{took:.1f} s: {e}'
    return f'taken, not refused with "{expected}"'


def stays(d):
    """After all that, a reset leaves it on the version that it has."""
    reset(d.machine)
    return None if d.shows(1) and not d.info().get('assigned-version') else \
        f'it is not what it was: {d.info()}'


def bad_push(folder):
    """What cannot be right is refused when it is pushed."""
    with Vdisk(folder) as d:
        root = d.roots[2]
        for expected, what in (
                ('does not fit', {'verity-root': d.roots[1]}),
                ('64 hexadecimal', {'verity-root': 'ab'}),
                ('no root hash', {}),
                *(('instead of', {'verity-root': root, 'size': d.size + by})
                  for by in (MIB, -MIB))):
            why = refused(d, expected, version=2, **what)
            if why:
                return f'{what}: {why}'
        return stays(d)


def bad_content(folder):
    """Neither the tree of a server nor what the stores hold is believed."""
    with Vdisk(folder) as d:
        d.stores[2].kill()
        with d.store(2, d.images[1]):
            why = refused(d, 'not what was sealed', version=2,
                          **{'verity-root': d.roots[2]})
        return why or stays(d)


def tree_server(folder, v):
    return nbd.StorageDaemon(pathlib.Path(folder) / f'version-{v}.tree',
                             str(pathlib.Path(folder) / 'assign' /
                                 f'trees-{v}'))


def bad_tree(folder):
    """The tree of a server is not believed either."""
    where = nbd.server_options(f'{folder}/assign/trees-%v')
    tree = {'driver': 'nbd', 'export': 'disk', 'server': where}
    d = Vdisk(folder, **{'verity-tree': tree})
    with tree_server(folder, 1), tree_server(folder, 2) as second, d:
        why = refused(d, 'tree', version=2, **{
            'verity-root': f'{int(d.roots[2], 16) ^ 1:064x}'})
        if why:
            return why
        second.freeze()
        why = refused(d, 'tree', version=2, **{'verity-root': d.roots[2]})
        second.thaw()
        if why:
            return f'frozen: {why}'
        why = stays(d)
        if why:
            return why
        d.assign(version=2, **{'verity-root': d.roots[2]})
        reset(d.machine)
        return None if d.shows(2) else 'the right one was not taken'


def gone(folder):
    """Gone at the reset: the desktop starts as it was, and this is told; it
    is taken at the next one."""
    with Vdisk(folder) as d:
        d.assign(version=2, **{'verity-root': d.roots[2]})
        d.stores[2].kill()
        time.sleep(1)
        begin = time.monotonic()
        reset(d.machine)
        took = time.monotonic() - begin
        told = d.events('VDISK_ASSIGN_FAILED')
        if not d.shows(1) or took > SOON or not told or \
                told[-1]['version'] != 2:
            return f'{took:.1f} s: {told}'
        d.stores[2].start()
        time.sleep(1)
        reset(d.machine)
        return None if d.shows(2) else 'not taken at the next reset'


def stands(folder):
    """Stopped for want of its store, it is reset to a version that is there,
    and goes on with that by itself."""
    with Vdisk(folder, **{'outage-action': 'pause', 'outage-wait': 1}) as d:
        d.assign(version=2, **{'verity-root': d.roots[2]})
        d.stores[1].kill()
        time.sleep(1)
        d.machine.ask('cont')
        d.machine.qmp.wait_event('STOP', 30)
        d.machine.answers()
        if d.machine.status() != 'io-error':
            return f'it is not stopped: {d.machine.status()}'
        reset(d.machine)
        until(lambda: d.machine.status() == 'running', 20, 'it goes on')
        return None if d.shows(2) else 'it does not show version 2'


def in_outage(folder):
    """A version that is all here is taken while its store is away, which is told
    then and not before; and so is its end."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        where = {'host-cache': f'{memory}/%r.cache',
                 'host-cache-map': f'{memory}/%r.map'}
        with Vdisk(folder, **where) as d:
            root = d.roots[2]
            cache = {k: v.replace('%r', root) for k, v in where.items()}
            tree = {'driver': 'file', 'filename': f'{d.dir}/tree-2'}
            with node_of(d.images[2], d.stores[2], version=2, **cache, **{
                    'verity-root': root, 'verity-tree': tree}) as relay:
                relay.command('vdisk-hydrate', **{'node-name': 'disk'})
                until(lambda: not relay.command('query-jobs'), 30,
                      'it is here')
                relay.end()
            d.stores[2].kill()
            d.assign(version=2, **{'verity-root': root})
            time.sleep(2)

            def told():
                return [e['active'] for e in d.events('VDISK_OUTAGE')]

            early = told()
            reset(d.machine)
            until(told, 20, 'an outage is told')
            shown = d.shows(2)
            d.stores[2].start()
            until(lambda: told()[-1:] == [False], 20, 'its end is told')
            return None if shown and not early and told() == [True, False] \
                else f'shown: {shown}; told: {early}, then {told()}'


def tests(folder, _args):
    yield 'assign: taken at a system reset', taken, folder
    yield 'assign: bad roots and sizes', bad_push, folder
    yield 'assign: a store with another image', bad_content, folder
    yield 'assign: a tree that is not to be believed', bad_tree, folder
    yield 'assign: a store that is gone at the reset', gone, folder
    yield 'assign: to a guest that stands still', stands, folder
    yield 'assign: taken during an outage', in_outage, folder

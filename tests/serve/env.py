# SPDX-License-Identifier: GPL-2.0-or-later
"""A store made by deskcast's own commands, and the services as processes."""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import tempfile
import time

from store.env import boot_trace
from stores.damage import receive
from stores.node import Node
from stores.process import (MEMORY, OURS, Process, StoreError, new_folder,
                            program, run, until)
from stores.reader import Connection, Readers

MIB = 1 << 20
GRANULE = 4096
DESKCAST = str(OURS / 'cli/deskcast')
ENV = {'DESKCAST_QSD': program('storage-daemon/qemu-storage-daemon'),
       'DESKCAST_QEMU_IMG': program('qemu-img')}
# Seconds until a change of the store shows, at most; it is about one
SHOWS = 10


def deskcast(*argv):
    return run(DESKCAST, *argv, env={**os.environ, **ENV})


def noise(seed, size):
    """Bytes that occur nowhere else"""
    return random.Random(seed).randbytes(size)


class VdiskStore:
    """A store in a folder of its own. content[vdisk, number] is what each
    version has to be, as the path of a raw file."""

    def __init__(self):
        self.dir = new_folder('store')
        self.path = self.dir / 'store'
        self.content = {}
        deskcast('store', 'create', self.path)

    def command(self, group, name, *argv):
        return deskcast(group, name, '--store', self.path, *argv)

    def manifest(self, vdisk):
        return json.loads((self.folder(vdisk) / 'manifest.json').read_text())

    def version(self, vdisk, number):
        return next(v for v in self.manifest(vdisk)['versions']
                    if v['version'] == number)

    def folder(self, vdisk):
        return self.path / 'vdisks' / vdisk

    def make(self, vdisk, changes, size=0, promote=True):
        """A new sealed version: changes is {offset: bytes}. Its number."""
        sizes = ['--size', size] if size else []
        self.command('version', 'new', vdisk, *sizes)
        newest = self.manifest(vdisk)['versions'][-1]
        number = newest['version']
        raw = self.dir / f'{vdisk}-{number}.raw'
        if newest['parent']:
            shutil.copyfile(self.content[vdisk, newest['parent']], raw)
        with open(raw, 'r+b' if newest['parent'] else 'wb') as f:
            f.truncate(newest['size'])
            for offset, data in changes.items():
                f.seek(offset)
                f.write(data)
        run(program('qemu-img'), 'convert', '-n', '-f', 'raw', '-O',
            newest['format'], raw, self.folder(vdisk) / newest['image'])
        self.content[vdisk, number] = raw
        self.command('version', 'seal', vdisk)
        if promote:
            self.command('version', 'promote', vdisk)
        return number

    def trace(self, vdisk, number, *granules):
        """Give a version a boot trace of these; its path"""
        path = boot_trace(self.dir / 'trace', self.version(vdisk, number),
                          *granules)
        self.command('version', 'trace', f'{vdisk}@{number}', path)
        return path

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Service:
    """store serve, or relay, for use in a with statement.

    argv    after the name of the command
    """

    def __init__(self, command, *argv, env=None, stderr=None):
        self.argv = [DESKCAST, *command, *argv]
        self.dir = new_folder(command[-1])
        self.log = stderr or self.dir / 'log'
        self.env = {**ENV, **(env or {})}
        self.process = None

    def start(self):
        self.process = Process(self.argv, self.log, env=self.env)

    def wait_ready(self):
        def ready():
            if not self.process.running():
                raise StoreError(f'it ended: {self.said()}')
            return ' exports on ' in self.said()
        until(ready, 30, 'it is ready')

    def __enter__(self):
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, kind=None, *_):
        if self.process:
            self.process.stop()
        if kind:
            print(''.join(f'# {line}\n' for line in self.said().split('\n')))
        shutil.rmtree(self.dir, ignore_errors=True)

    def said(self):
        return pathlib.Path(self.log).read_text(errors='replace')

    def daemon(self):
        """The process id of its storage daemon"""
        pid = self.process.pid
        children = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
        return int(until(lambda: children.read_text().split(), 10,
                         'there is a daemon')[0])

    def kill_daemon(self):
        before = self.daemon()
        os.kill(before, signal.SIGKILL)
        until(lambda: not os.path.exists(f'/proc/{before}'), 10,
              'the daemon is gone')

    def kill(self):
        """It alone; and its daemon follows."""
        daemon = self.daemon()
        self.process.kill()
        until(lambda: not os.path.exists(f'/proc/{daemon}'), 30,
              'the daemon has ended by itself')

    def finish(self, seconds=30):
        """SIGTERM; the exit status"""
        self.process.signal(signal.SIGTERM)
        return self.process.popen.wait(seconds)


class Serve(Service):
    """On a Unix socket, .path, unless listen= says where"""

    def __init__(self, store, *argv, listen=None, env=None):
        super().__init__(('store', 'serve'), '--store', store.path, *argv,
                         env=env)
        self.path = str(self.dir / 'socket')
        self.listen = listen
        self.argv += ['--listen', f'{listen[0]}:{listen[1]}'] if listen else \
            ['--socket', self.path]

    @property
    def uri(self):
        return f'nbd+unix:///?socket={self.path}'


class Relay(Service):
    """.path is its socket; .status() what it tells of itself."""

    def __init__(self, uris, vdisks, *argv, size='1G', interval=1, cache=None,
                 env=None):
        super().__init__(('relay',), env=env)
        self.path = str(self.dir / 'socket')
        self.cache = pathlib.Path(cache or self.dir / 'cache')
        self.maps = pathlib.Path(tempfile.mkdtemp(prefix='dk-', dir=MEMORY))
        self.argv += [a for u in uris for a in ('--from', u)]
        self.argv += [a for v in vdisks for a in ('--vdisk', v)]
        self.argv += ['--cache', self.cache, '--size', size, '--socket',
                      self.path, '--map-folder', self.maps, '--interval',
                      interval, '--status', self.dir / 'status', *argv]

    def __exit__(self, *args):
        super().__exit__(*args)
        shutil.rmtree(self.maps, ignore_errors=True)

    @property
    def uri(self):
        return f'nbd+unix:///?socket={self.path}'

    def status(self):
        try:
            return json.loads((self.dir / 'status').read_text())
        except FileNotFoundError:
            return {'versions': [], 'stores': []}

    def of(self, export):
        """What is told of a version; {} if nothing is"""
        return next((v for v in self.status()['versions']
                     if v['export'] == export), {})

    def wait(self, export, what='served', seconds=30):
        try:
            until(lambda: self.of(export).get(what), seconds,
                  f'{export} is {what}', 0.05)
        except StoreError as e:
            raise StoreError(f'{e}\n{self.status()}') from None

    def options(self, root):
        """Of a desktop that reads its cache"""
        return {'host-cache': str(self.cache / f'{root}.cache'),
                'host-cache-map': str(self.maps / f'{root}.cache.map')}


def nbd(path, export):
    return {'driver': 'nbd', 'export': export,
            'server': {'type': 'unix', 'path': path}}


class Desktop(Node):
    """A pooled desktop's disk, with a write cache. It trusts the root hash
    alone."""

    def __init__(self, store, paths, vdisk, number, **more):
        version = store.version(vdisk, number)
        export = f'{vdisk}@{number}'
        super().__init__({
            'driver': 'pvs', 'read-only': False,
            'verity-tree': nbd(paths[0], f'{export}.tree'),
            'stores': [nbd(path, export) for path in paths],
            'request-timeout': 1000, 'probe-interval': 50, **more})
        layer = self.dir / 'layer'
        run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
            f'role=cache,vdisk={vdisk},version={number},'
            f'verity-root={version["root"]}', layer, version['size'])
        self.options['file'] = {'driver': 'file', 'filename': str(layer)}

    def add(self):
        self.qmp.command('blockdev-add', **self.options)
        self.qmp.command('vdisk-reset', **{'node-name': 'disk'})
        self.qmp.command('block-export-add', type='nbd', id='e', writable=True,
                         **{'node-name': 'disk'})


def content(path, export='disk', timeout=60):
    """All of an export"""
    c = Connection(path, export, timeout)
    try:
        return b''.join(c.read(at, min(MIB, c.size - at))
                        for at in range(0, c.size, MIB))
    finally:
        c.close()


def same(path, image, export='disk'):
    """None, or what differs"""
    data = content(path, export)
    want = pathlib.Path(image).read_bytes()
    if data == want:
        return None
    if len(data) != len(want):
        return f'{export}: {len(data)} bytes instead of {len(want)}'
    at = next(i for i in range(0, len(want), 512)
              if data[i:i + 512] != want[i:i + 512])
    return f'{export}: another content from byte {at} on'


def exports(path):
    """The names that a server lists"""
    names = []
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(path)
        receive(s, 18)
        s.sendall(struct.pack('>IQII', 1, 0x49484156454f5054, 3, 0))
        while True:
            _, _, kind, length = struct.unpack('>QIII', receive(s, 20))
            data = receive(s, length)
            if kind != 2:
                return names
            size, = struct.unpack('>I', data[:4])
            names.append(data[4:4 + size].decode())


def shows(path, *names, gone=(), seconds=SHOWS):
    """Wait until the server has these exports, and not those."""
    def as_it_should():
        try:
            now = exports(path)
        except OSError:
            return False
        return set(names) <= set(now) and not set(gone) & set(now)
    until(as_it_should, seconds, f'{path} has {names}, without {gone}', 0.05)


__all__ = ['Connection', 'Readers', 'StoreError', 'time']

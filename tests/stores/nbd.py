# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD servers: our qemu-storage-daemon, and nbdkit with its filters."""

import json
import os

from .process import OURS, Store, answers, free_port, need, program

PSK_USER = 'desktop'


def server_options(address):
    """SocketAddress of a path, or of a host and a port."""
    if isinstance(address, str):
        return {'type': 'unix', 'path': address}
    host, port = address
    return {'type': 'inet', 'host': host, 'port': str(port)}


class NbdStore(Store):
    """A server on a Unix socket, or on TCP where address is ('host', port),
    or True for any free port of the loopback interface."""

    export = 'disk'

    def __init__(self, image, tcp=False, netns=None):
        super().__init__(image, netns)
        if tcp is True:
            tcp = ('127.0.0.1', free_port())
        self.address = tcp or str(self.dir / 'socket')

    def ready(self):
        if isinstance(self.address, str):
            return os.path.exists(self.address) and answers(self.address)
        return self.netns.listens(self.address[1]) if self.netns else \
            answers(self.address)

    def start(self, wait=True):
        if isinstance(self.address, str) and os.path.exists(self.address):
            os.unlink(self.address)     # its owner was killed
        super().start(wait)

    def options(self, **more):
        """more: of BlockdevOptionsNbd, such as reconnect-delay"""
        return {'driver': 'nbd', 'server': server_options(self.address),
                'export': self.export, **more}

    @property
    def uri(self):
        if isinstance(self.address, str):
            return f'nbd+unix:///{self.export}?socket={self.address}'
        return f'nbd://{self.address[0]}:{self.address[1]}/{self.export}'


class StorageDaemon(NbdStore):
    """Our qemu-storage-daemon.

    psk     clients show a pre-shared key, and TLS protects what is read
    format  of the image: raw, qcow2
    """

    name = 'qsd'

    def __init__(self, image, tcp=False, psk=False, netns=None, format='raw'):
        super().__init__(image, tcp, netns)
        self.psk = psk
        self.format = format

    def prepare(self):
        if self.psk:
            with open(self.dir / 'keys.psk', 'x', encoding='ascii') as f:
                os.fchmod(f.fileno(), 0o600)
                f.write(f'{PSK_USER}:{os.urandom(32).hex()}\n')

    def credentials(self, endpoint):
        more = {'username': PSK_USER} if endpoint == 'client' else {}
        return {'qom-type': 'tls-creds-psk', 'id': f'{self.dir.name}-{endpoint}',
                'endpoint': endpoint, 'dir': str(self.dir), **more}

    def objects(self):
        return [self.credentials('client')] if self.psk else []

    def options(self, **more):
        if self.psk:
            more = {'tls-creds': f'{self.dir.name}-client', **more}
        return super().options(**more)

    def server_args(self):
        text = json.dumps({
            'addr': server_options(self.address), 'max-connections': 0,
            **({'tls-creds': f'{self.dir.name}-server'} if self.psk else {})})
        tls = ['--object', json.dumps(self.credentials('server'))]
        return (tls if self.psk else []) + ['--nbd-server', flat(text)]

    def argv(self):
        disk = {'driver': self.format, 'node-name': 'disk', 'read-only': True,
                'file': {'driver': 'file', 'filename': str(self.image),
                         'locking': 'off', 'read-only': True}}
        return [program('storage-daemon/qemu-storage-daemon'),
                '--blockdev', json.dumps(disk), *self.server_args(),
                '--export', f'nbd,id=e,node-name=disk,name={self.export}']


class VolatileStorageDaemon(StorageDaemon):
    """A writable store with a volatile cache, volatile.c: kill() forgets what
    was written and not flushed.

    volatile   False: it is an ordinary store, whose writes the kernel keeps
    exclusive  the export promises that a new writer comes in only when the
               requests of the one before have ended
    reading    the name of a second, read-only export of the same image
    evict      of so many percent of what is written, the cache keeps nothing
               back: any subset of it survives
    rate       bytes a second that a flush takes; 0: it takes no time
    """

    name = 'volatile'

    def __init__(self, image, tcp=False, volatile=True, exclusive=False,
                 reading=None, evict=0, rate=0, **more):
        super().__init__(image, tcp, **more)
        self.rate = rate
        self.volatile = volatile
        self.exclusive = exclusive
        self.reading = reading
        self.evict = evict
        self.hold = self.dir / 'hold'

    def env(self):
        return {'LD_PRELOAD': str(OURS / 'tests/stores/volatile.so'),
                'VOLATILE_IMAGE': str(self.image),
                'VOLATILE_EVICT': str(self.evict),
                'VOLATILE_RATE': str(self.rate),
                'VOLATILE_HOLD': str(self.hold)} if self.volatile else {}

    def holds(self):
        """The next write takes until release()."""
        self.hold.touch()

    def held(self):
        return self.hold.with_name('hold.held')

    def release(self):
        self.held().unlink()

    def exports(self):
        yield {'name': self.export, 'writable': True,
               **({'exclusive': True} if self.exclusive else {})}
        if self.reading:
            yield {'name': self.reading, 'writable': False}

    def argv(self):
        disk = {'driver': self.format, 'node-name': 'disk', 'discard': 'unmap',
                'file': {'driver': 'file', 'filename': str(self.image),
                         'discard': 'unmap', 'aio': 'threads',
                         'locking': 'on',
                         'cache': {'direct': False}}}
        exports = [a for n, e in enumerate(self.exports()) for a in (
            '--export', json.dumps({'type': 'nbd', 'id': f'e{n}',
                                    'node-name': 'disk', **e}))]
        return [program('storage-daemon/qemu-storage-daemon'),
                '--blockdev', json.dumps(disk), *self.server_args(), *exports]


def flat(text):
    """JSON as the dotted keys that --nbd-server wants."""
    def walk(prefix, value):
        for key, v in value.items():
            if isinstance(v, dict):
                yield from walk(f'{prefix}{key}.', v)
            else:
                yield f'{prefix}{key}={str(v).replace(",", ",,")}'
    return ','.join(walk('', json.loads(text)))


class Nbdkit(NbdStore):
    """nbdkit: filters is a list of names, parameters go to them, as in
    Nbdkit(image, ['delay'], ['rdelay=20ms']). It serves the image file, or
    what plugin names instead: ['nbd', 'socket=...']."""

    name = 'nbdkit'
    export = ''

    def __init__(self, image, filters=(), parameters=(), tcp=False, netns=None,
                 threads=16, simple=False, plugin=None, tmpdir=None):
        super().__init__(image, tcp, netns)
        self.tmpdir = tmpdir or self.dir
        self.filters = filters
        self.parameters = parameters
        self.threads = threads
        self.simple = simple
        self.plugin = plugin

    def env(self):
        return {'TMPDIR': str(self.tmpdir)}

    def argv(self):
        if isinstance(self.address, str):
            where = ['--unix', self.address]
        else:
            where = ['--ipaddr', self.address[0], '--port', self.address[1]]
        return [need('nbdkit'), '--foreground', '--readonly', *where,
                '--threads', self.threads,
                *(['--no-sr'] if self.simple else []),
                *[f'--filter={f}' for f in self.filters],
                *(self.plugin or ['file', self.image]), *self.parameters]


class Failing(Nbdkit):
    """nbdkit that answers all reads with EIO from fail() to good()."""

    def __init__(self, image, tcp=False, netns=None):
        super().__init__(image, ['error'], tcp=tcp, netns=netns)
        self.control = self.dir / 'fail'
        self.parameters = ['error=EIO', 'error-rate=100%',
                           f'error-file={self.control}']

    def fail(self):
        self.control.touch()

    def good(self):
        self.control.unlink()

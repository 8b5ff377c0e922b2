# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs and certificates are replaced, and services restarted, while
desktops work: a pooled one reads through the relay, a private one writes to the
store, both over TLS where a network is between."""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import threading
import time

from stores.process import (StoreError, free_port, new_folder,
                            until)
from stores.reader import Connection, ReadError, Readers

from . import test_tls, tls
from .env import (Desktop, ENV, DESKCAST, GRANULE, MIB, Relay, Serve,
                  VdiskStore, noise, same)
from .test_serve import Private

SIZE = 8 * MIB
# Seconds that a request may wait longer than a service was away
MORE = 10
# What a host's caches may take: too little for one, so that the store is
# needed; or enough
LITTLE, ENOUGH = '4M', '1G'


class Programs:
    """A folder as /usr/lib/deskcast"""

    def __init__(self):
        self.dir = new_folder('lib')
        self.sources = [pathlib.Path(p) for p in (DESKCAST,
                                                  ENV['DESKCAST_QSD'])]
        self.replace()

    def replace(self):
        """As dpkg does it: other files get the names, under who runs them."""
        for source in self.sources:
            new = self.dir / f'{source.name}.dpkg-new'
            shutil.copy(source, new)
            new.rename(self.dir / source.name)

    def give(self, service):
        service.argv[0] = str(self.dir / 'deskcast')
        service.env['DESKCAST_QSD'] = str(self.dir / 'qemu-storage-daemon')
        return service

    def run_by(self, service):
        """Are both of its processes of the files that have the names now?"""
        return [os.stat(f'/proc/{pid}/exe').st_ino ==
                (self.dir / source.name).stat().st_ino for pid, source in
                zip((service.process.pid, service.daemon()), self.sources)]


class Writer(threading.Thread):
    """Writes, flushes and reads without a pause; knows what has to be there."""

    def __init__(self, path, image):
        super().__init__(daemon=True)
        self.path = path
        self.image = bytearray(image)
        self.ending = threading.Event()
        self.wrong = []
        self.count, self.longest = 0, 0.0

    def run(self):
        rng = random.Random(3)
        connection = Connection(self.path, timeout=60)
        try:
            while not self.ending.is_set():
                begin = time.monotonic()
                self.one(connection, rng)
                self.longest = max(self.longest, time.monotonic() - begin)
                self.count += 1
                time.sleep(0.002)
        except (ReadError, EOFError, OSError) as e:
            self.wrong.append(f'{type(e).__name__} {e}')
        connection.close()

    def one(self, connection, rng):
        at, other = (rng.randrange(SIZE // GRANULE) * GRANULE for _ in range(2))
        self.image[at:at + GRANULE] = rng.randbytes(GRANULE)
        connection.write(at, bytes(self.image[at:at + GRANULE]))
        if self.count % 5 == 0:
            connection.flush()
        if connection.read(other, GRANULE) != self.image[other:other + GRANULE]:
            self.wrong.append(f'byte {other} after {self.count} writes')

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.join(60)


def readable(path, export):
    """A relay that has no connection yet answers with an error, for which a desktop
    would ask again."""
    def read():
        with contextlib.suppress(ReadError, OSError, EOFError):
            connection = Connection(path, export, 60)
            try:
                return connection.read(0, GRANULE)
            finally:
                connection.close()
    until(read, 60, f'{export} can be read', 0.2)


class Site:
    """A store with a sealed version and one in maintenance, its server, a host
    with a relay, a desktop of each kind, and who works on them."""

    def __init__(self):
        self.store = VdiskStore()
        self.store.make('win', {0: noise('up', 6 * MIB)}, SIZE)
        self.store.command('version', 'new', 'win', '--for', 'pvs')
        self.ca = tls.Authority()
        self.server = self.ca.folder('server', '/CN=localhost', 'DNS:localhost')
        self.client = self.ca.folder('client', '/O=Example/CN=host1')
        self.programs = Programs()
        self.port = free_port()
        self.serve = self.programs.give(Serve(
            self.store, '--tls-x509', self.server, '--authorise',
            'O=Example,CN=host1', listen=('localhost', self.port)))
        self.relay = self.programs.give(Relay(
            [f'nbds://localhost:{self.port}'], ['win'], '--tls-x509',
            self.client, size=LITTLE))
        self.parts = []
        self.away = 0.0         # seconds that a service was not there

    def __enter__(self):
        try:
            self.parts = [self.serve.__enter__(), self.relay.__enter__()]
            self.relay.wait('win@1')
            self.pooled = self.add(self.make_pooled())
            self.private = self.add(self.make_private())
            image = self.store.content['win', 1]
            self.readers = self.add(Readers(self.pooled.path, image, threads=2,
                                            interval=0.005))
            self.writer = self.add(Writer(self.private.path,
                                          image.read_bytes()))
        except BaseException:
            self.__exit__()
            raise
        return self

    def add(self, part):
        part.__enter__()
        self.parts.append(part)
        return part

    def __exit__(self, *args):
        for part in reversed(self.parts):
            part.__exit__(*args)
        self.parts = []

    def make_pooled(self):
        root = self.store.version('win', 1)['root']
        return Desktop(self.store, [self.relay.path], 'win', 1,
                       **self.relay.options(root))

    def make_private(self):
        node = Private(self.store, self.serve, 2, new_folder('private'))
        for o in (*node.options['stores'], node.options['label']):
            o.update({'server': {'type': 'inet', 'host': 'localhost',
                                 'port': str(self.port)}, 'tls-creds': 'tls'})
        node.objects = [tls.x509(self.client)]
        return node

    def work_goes_on(self):
        """By what is not on the host too, and into the store"""
        reads, writes = len(self.readers.reads), self.writer.count
        buffer = self.private.command('query-vdisks')[0]['pvs']['buffer']
        shipped = buffer['epochs-shipped']
        until(lambda: len(self.readers.reads) > reads + 50 and
              self.writer.count > writes + 50, 60, 'desktops go on')
        until(lambda: self.private.command('query-vdisks')[0]['pvs']['buffer'][
            'epochs-shipped'] > shipped, 60, 'the store gets what is written')

    def cache(self):
        return self.pooled.command('query-vdisks')[0]['pvs']['host-cache']

    def bad(self):
        """What a guest would have noticed"""
        longest = max(self.readers.longest(), self.writer.longest)
        print(f'# {self.readers.summary()}; {self.writer.count} writes, '
              f'{1000 * self.writer.longest:.0f} ms at most; a service was away '
              f'for {1000 * self.away:.0f} ms')
        if self.readers.wrong or self.readers.errors or self.writer.wrong:
            return (f'{self.readers.summary()} {self.readers.errors[:3]} '
                    f'{self.writer.wrong[:3]}')
        return f'{longest:.1f} s' if longest > self.away + MORE else None

    def store_has_all(self):
        """What was written arrives, is sealed, and is what was written"""
        self.writer.__exit__()
        self.private.command('vdisk-drain', **{'node-name': 'disk'})
        self.private.qmp.wait_event('BLOCK_JOB_COMPLETED', 60)
        self.private.end()
        until(self.sealed, 30, 'the version is sealed', 0.5)
        want = self.store.dir / 'want'
        want.write_bytes(self.writer.image)
        self.relay.wait('win@2')
        readable(self.relay.path, 'win@2')
        return same(self.relay.path, want, 'win@2')

    def sealed(self):
        """Not before the server knows that its writer has gone"""
        with contextlib.suppress(StoreError):
            self.store.command('version', 'seal', 'win')
            return True
        return False


def served(service):
    return service.said().count(' exports on ')


def restart(site, service):
    """As systemctl does it"""
    before, begin = served(service), time.monotonic()
    if service.finish(60):
        return f'it did not end well: {service.said()}'
    service.start()
    until(lambda: served(service) > before, 60, 'it serves again')
    site.away = max(site.away, time.monotonic() - begin)
    return None


def upgrade():
    with Site() as site:
        bad = None
        for service in (site.relay, site.serve, site.relay, site.serve):
            site.programs.replace()
            if any(site.programs.run_by(service)):
                return 'nothing was replaced'
            bad = bad or restart(site, service)
            until(lambda s=service: all(site.programs.run_by(s)), 30,
                  'it runs what is there now')
            site.work_goes_on()
        # With all of it in the cache nobody waits while there is no relay
        site.relay.argv[site.relay.argv.index(LITTLE)] = ENOUGH
        bad = bad or restart(site, site.relay)
        site.relay.wait('win@1', 'hydrated')
        until(lambda: site.cache()['usable'] and site.cache()['hit-bytes'], 60,
              'the desktop has found it')
        bad = bad or site.relay.finish(60) and 'the relay did not end well'
        reads = len(site.readers.reads)
        until(lambda: len(site.readers.reads) > reads + 200, 60,
              'desktops read on without a relay')
        site.relay.start()
        site.work_goes_on()
        return bad or site.bad() or site.store_has_all()


def certificates():
    """Renewed on both sides; services read them again, desktops notice nothing"""
    with Site() as site:
        for kind, folder, service, names in (
                ('server', site.server, site.serve,
                 ('/CN=localhost', 'DNS:localhost')),
                ('client', site.client, site.relay,
                 ('/O=Example/CN=host1', None))):
            pid, daemon = service.process.pid, service.daemon()
            begin = time.monotonic()
            site.ca.issue(folder, kind, *names)
            service.process.signal(signal.SIGHUP)
            until(lambda s=service: 'were read again' in s.said(), 60,
                  'it reads them again')
            site.away = max(site.away, time.monotonic() - begin)
            site.work_goes_on()
            if service.process.pid != pid or not service.process.running():
                return 'the service was restarted'
            if service.daemon() == daemon:
                return 'what has read them is still the old daemon'
        return site.bad() or site.store_has_all()


def authority():
    """All of it anew, and another authority: the server alone is told. The relay and
    the desktops take it with the connections that it broke."""
    with Site() as site:
        old = new_folder('old')
        shutil.copytree(site.client, old, dirs_exist_ok=True)
        daemon, begin = site.relay.daemon(), time.monotonic()
        ca = tls.Authority('newer')
        for folder, kind, names in (
                (site.client, 'client', ('/O=Example/CN=host1', None)),
                (site.server, 'server', ('/CN=localhost', 'DNS:localhost'))):
            shutil.copy(ca.cert, folder / 'ca-cert.pem')
            ca.issue(folder, kind, *names)
        site.serve.process.signal(signal.SIGHUP)
        until(lambda: 'were read again' in site.serve.said(), 60,
              'the server reads them again')
        site.away = time.monotonic() - begin
        site.work_goes_on()
        if site.relay.daemon() != daemon:
            return 'it was another daemon of the relay that took them'
        bad = test_tls.looks(test_tls.node(site.port), tls.x509(old))
        if 'certificate' not in bad:
            return f'the old ones are let in, or: {bad}'
        return site.bad() or site.store_has_all()


def tests():
    yield 'upgrade: programs are replaced under desktops that work', upgrade
    yield 'upgrade: certificates are renewed under desktops that work', \
        certificates
    yield 'upgrade: another authority under desktops that work', authority

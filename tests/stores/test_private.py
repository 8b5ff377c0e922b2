# SPDX-License-Identifier: GPL-2.0-or-later
"""A private vDisk whose desktop, store and link are killed at random.

A model knows what was flushed. Each sector carries the number of the write
that it is from, so that what is read tells how old it is."""

import random
import shutil
import struct
import time

from . import buffer
from .link import Link
from .nbd import VolatileStorageDaemon, server_options
from .node import Node
from .process import new_folder, program, run, until
from .reader import Connection, ReadError

SECTOR = 512
SIZE = 4 << 20
SECTORS = SIZE // SECTOR
LABEL = 4096
BUFFER = 64 << 20
# Never full either, as who writes also starts the store; and soon recovered
SMALL_BUFFER = 8 << 20
# Of each kind: now, and with --long
COUNTS = (50, 10000)
# Bytes that a link still takes, at most, when it is to be cut
MAX_UNCUT = 9000
# Answers to writes and flushes are so many after a long time only
LONG_UNCUT = 1000
# So many flaps cut it in each direction, among others
SURE = 30


def stamped(number, sector):
    return struct.pack('<QQ', number, sector) * (SECTOR // 16)


class Lost(Exception):
    """Content is not what it has to be; says where."""


class Model:
    """What a disk may hold.

    history  numbers of the writes to each sector that it may still hold, the
             oldest of which is the newest that was flushed
    bounds   the last number before each flush
    """

    def __init__(self):
        self.number = 0
        self.history = [[0] for _ in range(SECTORS)]
        self.bounds = [0]

    def write(self, first, count):
        """The next write; returns its data."""
        self.number += 1
        for s in range(first, first + count):
            self.history[s].append(self.number)
        return b''.join(stamped(self.number, s)
                        for s in range(first, first + count))

    def answered(self):
        """All of it: nothing that only kills a process takes it away."""
        for h in self.history:
            if len(h) > 1:
                del h[:-1]

    def flushed(self):
        """All that was answered is durable now."""
        self.answered()
        self.bounds.append(self.number)

    def numbers(self, content):
        """Of each sector; each has to be whole."""
        found = []
        for s in range(SECTORS):
            sector = content[s * SECTOR:(s + 1) * SECTOR]
            number, = struct.unpack_from('<Q', sector)
            if sector != stamped(number, s):
                raise Lost(f'sector {s} is torn, or another one')
            found.append(number)
        return found

    def recovered(self, content):
        """After a crash of the desktop: what is there counts from now on."""
        for s, number in enumerate(self.numbers(content)):
            if number not in self.history[s]:
                raise Lost(f'sector {s} has write {number}, not one of '
                           f'{self.history[s]}')
            self.history[s] = [number]

    def is_prefix(self, content, full, epochs):
        """Of a store alone: complete up to some flush, and a part of what came
        until the next one. full: the history of each sector; epochs: the last
        number of each that the buffer has, and first the one before them all,
        up to which the store has everything."""
        numbers = self.numbers(content)
        newest = max(numbers)
        bounds = {*self.bounds, *epochs}
        bound = max([epochs[0], *(b for b in bounds if b < newest)])
        for s, number in enumerate(numbers):
            least = max(n for n in full[s] if n <= bound)
            if number < least:
                raise Lost(f'the store has write {newest}, but in sector {s} '
                           f'only {number} instead of {least}')


class Private(Node):
    """The desktop's disk, writable."""

    def __init__(self, folder, store, name='desktop', buffer=BUFFER, **more):
        self.files = [folder / f'{name}.copy', folder / f'{name}.buffer']
        for path, role, size in zip(self.files, ('copy', 'journal'),
                                    (SIZE, buffer)):
            if not path.exists():
                run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
                    f'role={role},vdisk=disk,version=1', path, size)
        super().__init__({
            'driver': 'pvs', 'mode': 'private', 'read-only': False,
            'file': {'driver': 'file', 'filename': str(self.files[0])},
            'journal': {'driver': 'file', 'filename': str(self.files[1])},
            'stores': [{'driver': 'nbd', 'export': 'disk',
                        'server': server_options(store.address)}],
            'request-timeout': 500, 'probe-interval': 50, **more})

    def add(self):
        self.qmp.command('blockdev-add', **self.options)
        self.qmp.command('block-export-add', type='nbd', id='e',
                         writable=True, **{'node-name': 'disk'})

    def pvs(self):
        return self.command('query-vdisks')[0]['pvs']

    def drain(self):
        until(lambda: self.pvs()['buffer']['lag-bytes'] == 0, 60,
              'the store has everything')


class InQemu(Private):
    """The same in a QEMU, which can migrate."""

    program = 'qemu-system-x86_64'
    monitor = ('-nodefaults', '-display', 'none', '-accel', 'qtest',
               '-mon', 'chardev=qmp,mode=control')


class Stock(Node):
    """A stock client of the same store, which reconnects."""

    def __init__(self, folder, store):
        super().__init__({'driver': 'nbd', 'export': 'disk', 'read-only': False,
                          'server': server_options(store.address),
                          'reconnect-delay': 60})

    add = Private.add


class Trial:
    """A store that forgets, a link to it, a desktop, and the model.

    flushes  part of the guest's requests
    away     how many come at most while the store is away
    ring     bytes of its buffer; an epoch that nobody ends has an eighth
    """

    def __init__(self, seed, kind=Private, flushes=0.25, away=5,
                 ring=SMALL_BUFFER, **options):
        self.flushes = flushes
        self.away = away
        self.ring = ring
        self.rng = random.Random(seed)
        self.kind = kind
        self.options = options
        self.folder = new_folder('private')
        self.image = self.folder / 'image'
        self.image.write_bytes(b''.join(stamped(0, s) for s in range(SECTORS)) +
                               bytes(LABEL))
        self.store = VolatileStorageDaemon(self.image, exclusive=kind is Private,
                                           evict=self.rng.choice((0, 30)))
        self.model = Model()
        self.full = [[0] for _ in range(SECTORS)]
        self.kills = {'desktop': 0, 'store': 0, 'link': 0, 'host': 0}
        self.lives = {}             # of each kind
        self.errors = 0
        self.name = 'desktop'       # of its files

    def __enter__(self):
        self.store.__enter__()
        self.link = Link(self.store)
        self.link.__enter__()
        self.up()
        return self

    def __exit__(self, *_):
        self.node.__exit__()
        self.link.__exit__()
        self.store.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def up(self):
        kind, more = self.kind, {}
        if kind is Private:
            kind = self.rng.choices((Private, InQemu), (3, 1))[0]
            more = {'name': self.name, 'buffer': self.ring}
        self.node = kind(self.folder, self.link, **more, **self.options)
        self.lives[kind.__name__] = self.lives.get(kind.__name__, 0) + 1
        self.node.__enter__()
        self.conn = Connection(self.node.path, timeout=60)

    def write(self, answered=True):
        count = self.rng.choice((1, 8, 8, 8, 16, 100))
        first = self.rng.randrange(SECTORS - count)
        data = self.model.write(first, count)
        for s in range(first, first + count):
            self.full[s].append(self.model.number)
        if answered:
            self.conn.write(first * SECTOR, data)
            return
        self.conn.sock.sendall(struct.pack(
            '>IHHQQI', 0x25609513, 0, 1, 99, first * SECTOR, len(data)) + data)

    def work(self, steps):
        for _ in range(steps):
            try:
                if self.rng.random() < self.flushes:
                    self.conn.flush()
                    self.model.flushed()
                else:
                    self.write()
            except ReadError:
                self.errors += 1

    def content(self):
        return b''.join(self.conn.read(at, 1 << 20)
                        for at in range(0, SIZE, 1 << 20))

    def kill_desktop(self):
        """With a write on its way."""
        self.kills['desktop'] += 1
        self.model.answered()
        self.write(answered=False)
        time.sleep(self.rng.random() * 0.005)
        self.node.popen.kill()
        self.node.popen.wait()
        self.conn.close()
        self.node.__exit__()
        self.up()
        self.model.recovered(self.content())
        for s, h in enumerate(self.model.history):
            # What was lost never was
            self.full[s] = [n for n in self.full[s] if n <= h[0]]

    def epochs(self, node):
        """The last number of each that its buffer has, behind that of what the
        store has for sure. Nothing is being written."""
        held = buffer.writes(node.files[1])
        settled = held[0][1] - 1 if held else self.model.number
        return [settled, *dict(held).values()]

    def kill_store(self):
        self.kills['store'] += 1
        self.store.kill()
        self.model.is_prefix(self.image.read_bytes()[:SIZE], self.full,
                             self.epochs(self.node))
        if self.rng.random() < 0.5:
            self.work(self.rng.randrange(self.away))
        self.store.start()

    def flap(self):
        """In the middle of whatever is on its way."""
        kind = self.rng.choice(('cut', 'refuse', *3 * ('within',)))
        if kind == 'within':
            self.cut_within(self.rng.choice(('cut_to_server',
                                             'cut_to_client')))
        elif kind == 'refuse':
            self.link.set(refuse=1)
            self.link.cut()
            self.work(self.rng.randrange(4))
            self.link.set(refuse=0)
        else:
            self.link.cut()
        self.kills['link'] += 1

    def cut_within(self, way):
        """After so many bytes that way: inside a header, a payload, an answer
        or a handshake, or between two. It counts when it has happened."""
        before = self.link.cuts()
        left = int(MAX_UNCUT ** self.rng.random())
        self.link.set(**{way: left})
        if left > LONG_UNCUT or self.rng.random() < 0.3:
            self.link.cut()         # then the next one reads labels, too
        while self.link.cuts() == before:
            self.work(1)

    def take_over(self):
        """Another host takes the vDisk, which may still be in use here. It
        sees some prefix; what the first one writes from now on never appears.
        """
        self.kills['host'] += 1
        first, conn = self.node, self.conn
        dead = self.rng.random() < 0.3
        if dead:
            first.popen.kill()
            first.popen.wait()
        self.name = f'host{self.kills["host"]}'
        self.node = Private(self.folder, self.link, self.name, self.ring,
                            **{**self.options, 'take-over': True})
        self.node.__enter__()
        self.conn = Connection(self.node.path, timeout=60)
        content = self.content()
        self.model.is_prefix(content, self.full, self.epochs(first))
        for s, number in enumerate(self.model.numbers(content)):
            self.model.history[s] = [number]
            self.full[s] = [0, number]
        self.model.bounds = [0, self.model.number]
        if not dead:
            self.refuse(first, conn)
        conn.close()
        first.__exit__()
        for path in first.files:
            path.unlink()

    def refuse(self, first, conn):
        """It may write until it notices, but not to the store."""
        until(lambda: write_fails(conn) and first.pvs()['fenced'], 20,
              'the first one is fenced')

    def breathe(self):
        """Faults without a pause let nothing through, and in the end the
        buffer would be full while nobody is there to bring the store back."""
        lag = self.pvs_lag()
        if lag > self.ring // 4:
            until(lambda: self.pvs_lag() < self.ring // 8, 60,
                  f'what lags behind ({lag} bytes) becomes less')

    def pvs_lag(self):
        return self.node.pvs()['buffer']['lag-bytes']

    def end(self):
        """All of it on the store, and nothing else."""
        self.link.set(refuse=0)
        self.conn.flush()
        self.model.flushed()
        self.node.drain()
        self.model.recovered(self.image.read_bytes()[:SIZE])


def torture(args, kinds, count, flushes=0.25, durability='local'):
    more = {} if flushes else {'away': 100, 'ring': SMALL_BUFFER // 2}
    with Trial(args.seed, flushes=flushes, durability=durability, **more) as t:
        while min(t.kills[k] for k in kinds) < count:
            t.work(t.rng.randrange(1, 12))
            {'desktop': t.kill_desktop, 'store': t.kill_store,
             'link': t.flap, 'host': t.take_over}[t.rng.choice(kinds)]()
            t.breathe()
        t.end()
        print(f'# seed {args.seed}: {t.kills}, lives {t.lives}, '
              f'{t.model.number} writes, '
              f'{t.errors} errors, {t.node.pvs()["buffer"]["epochs-shipped"]} '
              'epochs shipped by the last process; cut within what went to '
              'the store, and what came from it: %d, %d' % t.link.cuts())
        if t.kills['link'] >= SURE and not all(t.link.cuts()):
            return 'the link was cut in one direction only'
        return f'{t.errors} requests failed' if t.errors else None


def write_fails(conn):
    """By who is fenced. Its number is one that nobody else has."""
    try:
        conn.write(0, stamped(10 ** 9, 0))
        conn.flush()
        return False
    except ReadError:
        return True


def control(args, count):
    """A stock client must lose what was flushed, or this proves nothing."""
    with Trial(args.seed, Stock) as t:
        for _ in range(count):
            t.work(8)
            t.kills['store'] += 1
            t.store.kill()
            t.store.start()
        t.conn.flush()
        t.model.flushed()
        held = t.image.read_bytes()[:SIZE]
        lost = sum(n not in h for n, h in zip(t.model.numbers(held),
                                              t.model.history))
        print(f'# {t.kills["store"]} kills: {lost} sectors that were flushed '
              'are lost')
        return None if lost else 'it lost nothing'


def rivals(args):
    """Two hosts, one take-over: the first one's later writes never appear."""
    with Trial(args.seed) as t:
        t.work(40)
        t.end()
        number = t.model.number
        t.take_over()
        t.work(60)
        t.end()
        return 'nothing was written' if t.model.number == number else None


def tests(_, args):
    n = args.count or COUNTS[args.long]
    yield (f'private: {n} times kill -9 of the desktop', torture, args,
           ('desktop',), n)
    yield f'private: {n} kills of the store', torture, args, ('store',), n
    yield f'private: {n} flaps of the link', torture, args, ('link',), n
    yield (f'private: {n // 2} of each, all together', torture, args,
           ('desktop', 'store', 'link'), n // 2)
    yield ('private: a guest that never flushes', torture, args,
           ('desktop', 'store', 'link'), n // 5, 0)
    yield (f'private: {n // 5} kills with durability=store', torture, args,
           ('desktop', 'link'), n // 5, 0.25, 'store')
    yield 'private: two hosts, and one takes over', rivals, args
    yield (f'private: two hosts that fight, {n // 10} times, under all of that',
           torture, args, ('desktop', 'store', 'link', 'host'), n // 10)
    yield ('private: control: a stock client loses what was flushed', control,
           args, 20)

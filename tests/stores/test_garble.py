# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers whose handshake, replies and chunks are garbled: whoever reads from
them neither crashes nor hangs, and pvs gives out nothing that was not sealed."""

import contextlib
import random
import subprocess
import time
from collections import Counter
from concurrent import futures

from sanitized import SLOWER
from . import images, nbd
from .client import blockdev_args
from .garble import Garble
from .process import new_folder, program, until
from .reader import Connection, ReadError, Readers
from .test_private import BUFFER, LABEL, SIZE, Private
from .test_pvs import info, node_of, supported, verity

# Of messages that are garbled: now, and with --long
COUNTS = {'pvs': (150, 20000), 'private': (90, 20000)}
RUNS = (30, 5000)           # of qemu-img
# Seconds: QMP has to answer meanwhile, and all has to be well again
QMP = 3.0 * SLOWER
WELL = 60
# A run of qemu-img, whose timeouts are below
ENDED = 60 * SLOWER
TIMEOUT_MS = 300 * SLOWER
GRANULE = 4096
AT_ONCE = 9                 # runs of qemu-img
EACH = 45                   # messages that are garbled for one desktop
QUICK = {'request-timeout': TIMEOUT_MS, 'hedge-after': 50,
         'probe-interval': 50}


class Wrong(Exception):
    """Says what is not as it should be."""


class Watch:
    """Is the daemon there, and does its monitor answer in time?"""

    def __init__(self, node):
        self.node = node
        self.longest = 0.0

    def look(self):
        begin = time.monotonic()
        found = info(self.node)
        self.longest = max(self.longest, time.monotonic() - begin)
        return found


def said_of(bad):
    return f'{bad.total()} messages of {bad.connections} connections: ' \
        f'{dict(sorted(bad.phases().items()))}'


def every_phase(bad, *phases):
    missing = {'greeting', 'option', *phases} - {*bad.phases()}
    return f'never garbled: {missing}' if missing else None


@contextlib.contextmanager
def garbled_node(image, count, seed, **more):
    """A node and its garbled store, which is preferred, until count messages
    were; beside it stands a good one."""
    with nbd.StorageDaemon(image) as one, \
            nbd.StorageDaemon(image, tcp=True) as two, \
            Garble(one, 0.15, seed) as bad, \
            node_of(image, bad, two, connections=4, **QUICK, **more) as node:
        yield bad, node


def standard(image, count, seed):
    """Every byte is right and no read fails, as there is another store; and the
    first one is used again once it speaks as it should."""
    with garbled_node(image, count, seed, **verity(image)) as (bad, node):
        watch = Watch(node)
        with Readers(node.path, image, 6, 0.001, seed) as readers:
            until(lambda: watch.look() and bad.total() >= count,
                  WELL + count, f'{count} messages are garbled', 0.05)
            bad.share = 0
            before = watch.look()['stores'][0]['reads']
            until(lambda: watch.look()['stores'][0]['reads'] > before + 20,
                  WELL, 'the store is used again')
            ended = readers.stop(WELL)
    print(f'# {said_of(bad)}; {readers.summary()}; QMP within '
          f'{1000 * watch.longest:.0f} ms', flush=True)
    if ended and not readers.wrong and not readers.errors and \
            watch.longest < QMP:
        return every_phase(bad, 'extended')
    return f'seed {seed}: ended: {ended}; {said_of(bad)}; ' \
        f'{readers.wrong[:3]} {readers.errors[:3]}; QMP {watch.longest:.1f} s'


class Desktop:
    """Writes whole granules of a private vDisk, and knows what is in them."""

    def __init__(self, node, rng):
        self.connection = Connection(node.path, timeout=WELL * SLOWER)
        self.rng = rng
        self.content = {}
        self.errors = self.requests = 0

    def place(self):
        length = self.rng.choice((1, 1, 16, 256))
        return self.rng.randrange(SIZE // GRANULE - length + 1), length

    def write(self):
        first, length = self.place()
        data = self.rng.randbytes(length * GRANULE)
        for n in range(length):     # unknown until it is answered
            self.content.pop(first + n, None)
        if self.rng.random() < 0.2:
            self.connection.flush()
        self.connection.write(first * GRANULE, data)
        for n in range(length):
            self.content[first + n] = data[n * GRANULE:][:GRANULE]

    def read(self):
        """Also what it has never written, which is the store's to tell."""
        first, length = self.place()
        data = self.connection.read(first * GRANULE, length * GRANULE)
        for n in range(length):
            known = self.content.get(first + n)
            if known and known != data[n * GRANULE:][:GRANULE]:
                raise Wrong(f'granule {first + n} is not what was written')

    def step(self):
        self.requests += 1
        try:
            self.rng.choice((self.write, self.write, self.read))()
        except ReadError:
            self.errors += 1

    def close(self):
        self.connection.close()


def one_desktop(store, seed, least):
    """Until so many messages were garbled, or its store has fenced it: a label
    that is garbled is another writer's. What happened, for the report."""
    folder = new_folder('garbled')
    with Garble(store, 0.03, seed) as bad, \
            Private(folder, bad, buffer=BUFFER,
                    **{'request-timeout': TIMEOUT_MS}) as node:
        watch = Watch(node)
        desktop = Desktop(node, random.Random(seed))
        fenced = False
        while bad.total() < least and not fenced:
            desktop.step()
            fenced = watch.look()['fenced']
        desktop.close()
    return bad.phases(), desktop.requests, desktop.errors, watch.longest


def private(count, seed):
    """What a private vDisk wrote it reads, whatever its store says, and no
    request waits for ever."""
    folder = new_folder('garbled')
    image = folder / 'store.raw'
    with open(image, 'wb') as f:
        f.truncate(SIZE + LABEL)
    garbled, requests, errors, longest, desktops = Counter(), 0, 0, 0.0, 0
    with nbd.VolatileStorageDaemon(image, volatile=False,
                                   exclusive=True) as store:
        while sum(garbled.values()) < count:
            desktops += 1
            with open(image, 'r+b') as f:       # nobody has written to it yet
                f.truncate(0)
                f.truncate(SIZE + LABEL)
            found, asked, refused, late = one_desktop(
                store, f'{seed}/{desktops}', EACH)
            garbled += found
            requests += asked
            errors += refused
            longest = max(longest, late)
    said = f'{desktops} desktops: {dict(sorted(garbled.items()))} garbled; ' \
        f'{requests} requests, {errors} of them failed; QMP within ' \
        f'{1000 * longest:.0f} ms'
    print(f'# {said}', flush=True)
    return None if longest < QMP and errors < requests / 2 else said


def command(store, folder, number):
    """Those that read the data, and where there is any."""
    args, name = blockdev_args(store)
    return [[program('qemu-img'), 'map', '--output=json', *args, name],
            [program('qemu-img'), 'convert', *args, '-O', 'raw', name,
             folder / f'copy-{number}'],
            [program('qemu-img'), 'info', *args, name]][number % 3]


class Plain:
    """QEMU's own driver, as it is without pvs, but for the deadlines."""

    def __init__(self, bad):
        self.bad = bad

    def objects(self):
        return self.bad.objects()

    def options(self):
        return self.bad.options(**{'io-timeout': TIMEOUT_MS,
                                   'connect-timeout': TIMEOUT_MS})


def one_run(bad, folder, number):
    """What is wrong with it: it must end by itself."""
    argv = command(Plain(bad), folder, number)
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True,
                              errors='replace', timeout=ENDED)
    except subprocess.TimeoutExpired:
        return f'{number}: {argv[1]} hangs'
    if done.returncode not in (0, 1) or 'anitizer' in done.stderr:
        return f'{number}: {argv[1]} ended with {done.returncode}: ' \
            f'{done.stderr[-2000:]}'
    return None


def programs(image, server, count, seed):
    """qemu-img map, convert and info, again and again"""
    folder = new_folder('copies')
    wrong, ended = [], 0
    with server as store, Garble(store, 0.2, seed) as bad, \
            futures.ThreadPoolExecutor(2) as pool:
        for first in range(0, count, AT_ONCE):
            # A client that was told nonsense may be the end of others' servers
            if not store.process.running():
                store.restart()
                ended += 1
            wrong += [w for w in pool.map(
                lambda n: one_run(bad, folder, n),
                range(first, min(first + AT_ONCE, count))) if w]
    print(f'# {said_of(bad)}; the server ended {ended} times', flush=True)
    return '\n'.join(wrong[:5]) or every_phase(bad)


def tests(folder, args):
    image = images.make(folder, 'image')
    long, seed = args.long, args.seed
    runs = args.count or RUNS[long]
    for name, server in (('extended headers', nbd.StorageDaemon(image)),
                         ('structured replies', nbd.Nbdkit(image)),
                         ('simple replies', nbd.Nbdkit(image, simple=True))):
        yield (f'garbled: {runs} runs of qemu-img, {name}', programs, image,
               server, runs, seed)
    supported()
    count = args.count or COUNTS['pvs'][long]
    yield f'garbled: pvs, {count} messages', standard, image, count, seed
    count = args.count or COUNTS['private'][long]
    yield f'garbled: a private vDisk, {count} messages', private, count, seed

# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams: how fast an image on a server is read, by each way of ways.py."""

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import threading
import time
from concurrent import futures

import tools
import ways
import ways_pvs
from disks import GIB, KIB, MIB
from load import order

from stores import nbd          # ways has told Python where
from stores.link import Link
from stores.node import GuestError, Node
from stores.process import Missing, StoreError
from stores.reader import Connection, ReadError

Failed = (Missing, StoreError, GuestError, ReadError, EOFError)

TRACE = pathlib.Path(__file__).with_name('boot-reads.txt')
GBIT2 = 250 * 1000 * 1000       # bytes a second
# Coprime to the granules of an image of 2^n bytes, and nowhere near any of the
# last ones: each is read once before one is read again
GOLDEN = 0.6180339887


@dataclasses.dataclass(frozen=True)
class Stream:
    """A workload, and the link to the server.

    delay  round trip, ms
    rate   of the link, bytes a second, or 0
    block  0: the reads of a boot
    """
    kind: str
    depth: int
    block: int
    delay: int = 0
    rate: int = 0

    @property
    def name(self):
        link = '2Gbit' if self.rate else f'{self.delay}ms'
        return f'stream-{self.kind}/{link}/{self.depth}'


STREAMS = tuple(
    [Stream('random', depth, 4 * KIB, delay) for delay in (0, 20)
     for depth in (1, 32)] +
    [Stream('seq', depth, MIB, rate=GBIT2) for depth in (1, 8)] +
    [Stream('seq', 8, MIB, delay) for delay in (0, 20)] +
    [Stream('boot', depth, 0, delay) for delay in (0, 20)
     for depth in (1, 4)])


def boot_reads():
    """A list of (offset, bytes)."""
    text = [line for line in TRACE.read_text().splitlines()
            if not line.startswith('#')]
    pairs = (pair.split('+') for pair in ' '.join(text).split())
    return [(int(at) * 512, int(n) * 512) for at, n in pairs]


class Replayer:
    """qemu-io with a node, ready to replay reads once."""

    def __init__(self, options):
        self.proc = subprocess.Popen(
            [tools.IO, '-r', 'json:' + json.dumps(options)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        self.proc.stdin.write('length\n')
        self.proc.stdin.flush()
        self.wait_length()

    def wait_length(self):
        """Until all before 'length' is done: it prints a size."""
        while True:
            line = self.proc.stdout.readline()
            words = line.replace('qemu-io>', '').split()
            if not line or 'rror' in line or 'failed' in line:
                raise tools.Failed(f'qemu-io: {line}')
            if words[1:] in (['MiB'], ['GiB'], ['bytes']):
                return

    def seconds(self, reads):
        """One after the other. Each command is fetched when its input is readable,
        which is why all of it is there, and its end, too."""
        lines = [f'read -q {offset} {length}' for offset, length in reads]
        begin = time.monotonic()
        self.proc.stdin.write('\n'.join(lines + ['length', '']))
        self.proc.stdin.close()
        self.wait_length()
        return time.monotonic() - begin

    def close(self):
        self.proc.stdin.close()
        self.proc.stdout.read()
        self.proc.wait()
        self.proc.stdout.close()


def seconds_of_several(options, reads, depth):
    """So many at once, each the next one of all, from an export of the node:
    qemu-io would have to drain the node to wait for what is under way."""
    todo = iter(reads)
    lock = threading.Lock()

    def work(connection):
        while True:
            with lock:
                read = next(todo, None)
            if read is None:
                return
            connection.read(*read)

    with Node(options) as node, \
            futures.ThreadPoolExecutor(depth) as threads, \
            contextlib.ExitStack() as stack:
        if options['driver'] == 'pvs' and 'file' in options:
            # a pooled disk lets nobody in before its power-on
            node.command('vdisk-reset', **{'node-name': 'disk'})
        connections = [Connection(node.path) for _ in range(depth)]
        for connection in connections:
            stack.callback(connection.close)
        begin = time.monotonic()
        list(threads.map(work, connections))
        return time.monotonic() - begin


class Streams:
    """Measures; the figure of a way is requests a second."""

    def __init__(self, shelf, scale):
        self.dir = shelf.dir
        self.scale = scale
        self.shelf = shelf
        self.quick = scale.seconds < 0.2

    def measure(self, stream):
        names = [n for n, way in ways.WAYS.items() if way.fits(stream)]
        rounds = self.scale.rounds
        if stream.delay and stream.kind == 'boot':
            rounds = 1          # 40 s each; and nearly the same each time
        with self.source(stream) as source:
            speed = {n: [] for n in names}
            counts = self.counts(stream, source, names)
            copied = stream.kind == 'seq' and not stream.delay
            if copied:
                speed['nbdcopy'] = []
            for number in range(rounds):
                for name in order(names, number):
                    speed[name].append(self.sample(stream, source, name,
                                                   counts[name]))
                if copied:
                    speed['nbdcopy'].append(self.nbdcopy(source))
        return {'speed': speed, 'requests': counts}

    @contextlib.contextmanager
    def source(self, stream):
        image = self.shelf.base(self.scale.disk if stream.block else GIB)
        tree = ways_pvs.tree_of(image)[0]
        with contextlib.ExitStack() as stack:
            servers = [self.linked(stack, stream, path)
                       for path in (image, tree)]
            yield ways.Source(servers[0], image, self.dir, servers[1], stack)

    def linked(self, stack, stream, path):
        """Without a delay or a rate the link is left out: it would cost."""
        server = stack.enter_context(nbd.StorageDaemon(path))
        if not stream.delay and not stream.rate:
            return server
        return stack.enter_context(Link(server, delay=stream.delay // 2,
                                        rate=stream.rate))

    def counts(self, stream, source, names):
        """What is read first pays for what serves all: the tree's blocks, new
        files. It is the same part of the work for all that are slower than
        bare NBD, since they read as many blocks."""
        counts = {n: self.count(stream, source, n) for n in names}
        return {n: max(counts[n], counts['nbd']) for n in names}

    def count(self, stream, source, name):
        """Requests for a sample of the time that was asked for; no granule is
        read twice, as the second time would be another matter."""
        if not stream.block:
            return 200 if self.quick else len(boot_reads())
        limit = self.scale.disk // stream.block
        if stream.kind == 'seq':
            return limit // (4 if self.quick or stream.delay else 1)
        count = max(16, 2 * stream.depth)
        while True:
            # What comes first is slow, so a short sample tells little
            seconds = count / self.sample(stream, source, name, count)
            wanted = int(count / seconds * self.wanted(stream))
            if seconds > self.wanted(stream) / 2 or count == limit:
                return min(limit, max(count, wanted))
            count = min(limit, max(2 * count, wanted))

    def wanted(self, stream):
        return self.scale.seconds if self.quick else \
            max(self.scale.seconds, 0.5 if stream.delay else 1)

    def sample(self, stream, source, name, count):
        try:
            return self.sample_way(stream, source, ways.WAYS[name], count)
        except (tools.Failed, *Failed) as e:
            raise tools.Failed(f'{name}: {e!r}') from None

    def sample_way(self, stream, source, way, count):
        with way.open(source) as options:
            if not stream.block:
                return self.replay(stream, options, count)
            step = stream.block
            if stream.kind == 'random':
                granules = int(self.scale.disk * GOLDEN) // step
                step *= granules | 1
            return count / tools.bench_seconds(
                '-c', str(count), '-d', str(stream.depth), '-s',
                str(stream.block), '-S', str(step), '-i', 'threads',
                'json:' + json.dumps(options))

    def replay(self, stream, options, count):
        reads = boot_reads()[:count]
        if stream.depth > 1:
            return count / seconds_of_several(options, reads, stream.depth)
        replayer = Replayer(options)
        try:
            return count / replayer.seconds(reads)
        finally:
            replayer.close()

    def nbdcopy(self, source):
        """To a local file, as many MiB a second as the others' requests."""
        out = source.new('copy')
        seconds = tools.run_seconds('nbdcopy', source.server.uri, str(out))
        out.unlink()
        return self.scale.disk / MIB / seconds

# SPDX-License-Identifier: GPL-2.0-or-later
"""Load: what is sent to a disk, and how fast the peers take it."""

import dataclasses
import os
import statistics

import tools
from disks import GIB, KIB, MIB, PEERS

CACHES = ('writeback', 'none')
DEPTHS = (1, 32)
# Coprime to the clusters of qcow2: each request falls into another one
STRIDE = 68 * KIB

WRITERS = ('null', 'qcow2', 'qcow2-sub', 'raw', 'mcs', 'mcs-pooled')
READERS = ('null', 'qcow2', 'qcow2-sub', 'base', 'mcs', 'mcs-pooled')
# A pooled disk has no data when it is opened: see costs.py
HOLDERS = ('null', 'qcow2', 'qcow2-sub', 'raw', 'mcs')


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    title: str
    peers: tuple
    disk: str               # method of Shelf that gives the image
    size: str               # attribute of Scale: the size of the disk
    block: int = 4 * KIB
    step: int = STRIDE
    write: bool = False
    once: bool = False      # no place twice
    flush: bool = False     # after each request; of a batch, at depth 32


WORKLOADS = (
    Workload('first-write', '4 KiB first writes', WRITERS, 'new', 'disk',
             write=True, once=True),
    Workload('rewrite', '4 KiB rewrites', WRITERS, 'written', 'hot',
             write=True),
    Workload('read-base', '4 KiB reads of base', READERS, 'unwritten', 'disk'),
    Workload('read-data', '4 KiB reads of data', HOLDERS, 'written', 'data'),
    Workload('seq-write', '1 MiB sequential writes', WRITERS, 'new', 'disk',
             block=MIB, step=MIB, write=True, once=True),
    Workload('seq-read', '1 MiB sequential reads', HOLDERS, 'written', 'data',
             block=MIB, step=MIB),
    Workload('flush', '4 KiB rewrites, each flushed', WRITERS, 'written',
             'hot', write=True, flush=True),
    Workload('flush-first', '4 KiB first writes, each flushed', WRITERS,
             'new', 'disk', write=True, once=True, flush=True),
)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is done: sizes in bytes, seconds of a sample."""
    disk: int
    data: int
    seconds: float
    rounds: int
    # 1024 granules: few enough that a pooled disk soon rewrites them too
    hot: int = 4 * MIB


FULL = Scale(disk=512 * MIB, data=128 * MIB, seconds=0.3, rounds=5)
QUICK = Scale(disk=256 * MIB, data=64 * MIB, seconds=0.08, rounds=3)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One workload with one cache mode at one queue depth."""
    workload: Workload
    cache: str
    depth: int

    @property
    def name(self):
        return f'{self.workload.name}/{self.cache}/{self.depth}'


def cells():
    return [Cell(w, c, d) for w in WORKLOADS for c in CACHES for d in DEPTHS]


class Runner:
    """Measures the cells: in each round, every peer once."""

    def __init__(self, shelf, scale):
        self.shelf = shelf
        self.scale = scale

    def measure(self, cell):
        """Requests per second of each peer, one figure a round."""
        peers = [PEERS[n] for n in cell.workload.peers]
        counts = self.calibrate(cell, peers)
        speed = {p.name: [] for p in peers}
        for number in range(self.scale.rounds):
            for peer in order(peers, number):
                seconds = self.sample(cell, peer, counts[peer.pace])
                speed[peer.name].append(counts[peer.pace] / seconds)
        return {'requests': counts, 'speed': speed}

    def calibrate(self, cell, peers):
        """How many requests take about the time of a sample. This is also
        what warms the caches. Of one pace, the slowest peer decides."""
        small = cell.workload.block < MIB
        first = min((1000 if small else 32) * (2 if cell.depth > 1 else 1),
                    self.limit(cell, peers[-1]))
        if cell.workload.flush:
            first //= 10
        counts = {}
        for peer in peers:
            seconds = min(self.sample(cell, peer, first) for _ in range(2))
            count = max(first, int(first / seconds * self.scale.seconds))
            counts[peer.pace] = min(count, self.limit(cell, peer),
                                    counts.get(peer.pace, count))
        return counts

    def limit(self, cell, peer):
        w = cell.workload
        if w.once and peer.name != 'null':
            return getattr(self.scale, w.size) // w.step
        return 1 << 20

    def sample(self, cell, peer, count):
        """Seconds for that many requests. What a fresh image holds is thrown
        away at once, lest its write-back burden the next sample."""
        w = cell.workload
        size = getattr(self.scale, w.size)
        if peer.name == 'base':
            path = self.shelf.base(size)
        else:
            path = getattr(self.shelf, w.disk)(peer, size)
        try:
            return tools.bench_seconds(*bench_args(cell, count),
                                       *target(peer, path, size))
        finally:
            if w.disk == 'new' and path.exists():
                path.unlink()


def order(peers, number):
    """Each round begins with another peer, and every other one runs
    backwards, so that none always suffers from the same one before it."""
    turn = number % len(peers)
    turned = peers[turn:] + peers[:turn]
    return turned[::-1] if number % 2 else turned


def bench_args(cell, count):
    w = cell.workload
    args = ['-c', str(count), '-d', str(cell.depth), '-s', str(w.block),
            '-S', str(w.step), '-t', cell.cache,
            '-i', 'native' if cell.cache == 'none' else 'threads']
    if w.write:
        args.append('-w')
    if w.flush:
        args.append(f'--flush-interval={cell.depth}')
    return args


def target(peer, path, size):
    if peer.format == 'null-co':
        return ['--image-opts', f'driver=null-co,size={size}']
    return ['-f', peer.format, os.fspath(path)]


def ratio(one, other):
    """How many times as fast: the median over the rounds, since what
    disturbs a round disturbs both."""
    return statistics.median(a / b for a, b in zip(one, other))

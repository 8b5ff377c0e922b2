# SPDX-License-Identifier: GPL-2.0-or-later
"""Private vDisks: what the reconnect buffer costs the guest, how fast it is
shipped, and how fast it is read after a crash.

The store's image is in memory where there is room, since a store is another
machine and does not share the desktop's disk."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import tempfile
import threading
import time

import tools
import ways             # has told Python where
from disks import GIB, KIB, MIB, PEERS
from load import CACHES, order

from stores import nbd
from stores.link import Link
from stores.node import Node
from stores.process import until
from stores.reader import Connection

LABEL = 4096
GBIT2 = 250 * 1000 * 1000       # bytes a second
MEMORY = pathlib.Path('/dev/shm')
# What a write of 4 KiB takes in the buffer, at most
SPACE = 8 * KIB


def room_in_memory(size):
    """For the store's image."""
    try:
        return shutil.disk_usage(MEMORY).free > 2 * size
    except OSError:
        return False


def cached(path, cache):
    """A file as a node's child, in one of the cache modes of load.CACHES."""
    direct = cache == 'none'
    return {'driver': 'file', 'filename': str(path),
            'aio': 'native' if direct else 'threads',
            'cache': {'direct': direct}}


class Desk:
    """A private vDisk of so many bytes, its store, and the link to that.

    up()    the store runs, or not
    memory  the store's image is there; False: on the disk that is measured
    """

    def __init__(self, folder, size, buffer, cache='none', delay=0, rate=0,
                 memory=True):
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=folder))
        self.size = size
        self.cache = cache
        self.memory = pathlib.Path(tempfile.mkdtemp(
            dir=MEMORY if memory and room_in_memory(size) else folder))
        self.image = self.memory / 'image'
        with open(self.image, 'wb') as f:
            f.truncate(size + LABEL)
        for name, role, n in (('copy', 'copy', size),
                              ('buffer', 'journal', buffer)):
            tools.run(tools.IMG, 'create', '-q', '-f', 'pvs', '-o',
                      f'role={role},vdisk=disk,version=1',
                      str(self.dir / name), str(n))
        self.store = nbd.VolatileStorageDaemon(self.image, volatile=False,
                                               exclusive=True)
        self.way = Link(self.store, delay=delay // 2, rate=rate) \
            if delay or rate else self.store
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()
        for folder in (self.dir, self.memory):
            shutil.rmtree(folder)

    def up(self):
        self.stack.enter_context(self.store)
        if self.way is not self.store:
            self.stack.enter_context(self.way)

    def options(self, **more):
        return {'driver': 'pvs', 'mode': 'private', 'probe-interval': 50,
                'read-only': False,
                'file': cached(self.dir / 'copy', self.cache),
                'journal': cached(self.dir / 'buffer', self.cache),
                'stores': [{'driver': 'nbd', 'export': 'disk', 'server':
                            nbd.server_options(self.way.address)}], **more}

    def target(self):
        """For a program of ours that opens it by itself."""
        return ['json:' + json.dumps(self.options())]

    def node(self):
        return Exported(self.options())


class Exported(Node):
    """A node that is written to, by its NBD export."""

    def add(self):
        self.qmp.command('blockdev-add', **self.options)
        self.qmp.command('block-export-add', type='nbd', id='e',
                         writable=True, **{'node-name': 'disk'})

    def buffer(self):
        return self.command('query-vdisks')[0]['pvs']['buffer']


def write_args(count, depth, size, step, cache, flush=0):
    return ['-w', '-c', str(count), '-d', str(depth), '-s', str(size),
            '-S', str(step), '-t', cache,
            '-i', 'native' if cache == 'none' else 'threads',
            *([f'--flush-interval={flush}'] if flush else [])]


class Private:
    def __init__(self, shelf, scale):
        self.dir = shelf.dir
        self.shelf = shelf
        self.scale = scale
        self.full = scale.seconds > 0.2

    # What the guest waits for

    def private_write(self):
        """4 KiB writes a second at depth 1: of a raw file that is allocated,
        of a private vDisk whose store is 20 ms away, and of one whose store
        is not there."""
        count = 20000 if self.full else 3000
        names = ('raw', 'far', 'away')
        result = {}
        for cache in CACHES:
            speed = result[cache] = {name: [] for name in names}
            for number in range(self.scale.rounds):
                for name in order(names, number):
                    speed[name].append(count / self.write_seconds(
                        name, write_args(count, 1, 4 * KIB, 68 * KIB, cache),
                        cache, 2 * count * SPACE))
        return result

    def write_seconds(self, name, args, cache, buffer):
        if name == 'raw':
            return tools.bench_seconds(*args, '-f', 'raw', str(
                self.shelf.written(PEERS['raw'], self.scale.disk)))
        delay = 20 if name == 'far' else 0
        with Desk(self.dir, self.scale.disk, buffer, cache, delay) as desk:
            if name == 'far':
                desk.up()
            return tools.bench_seconds(*args, *desk.target())

    def private_seq(self):
        """1 MiB writes a second, as private_write; the buffer is not full."""
        size = GIB if self.full else 128 * MIB
        result = {}
        for depth in (1, 8):
            speed = result[str(depth)] = {'raw': [], 'away': []}
            for number in range(self.scale.rounds):
                for name in order(tuple(speed), number):
                    args = write_args(size // MIB, depth, MIB, MIB, 'none')
                    speed[name].append(size / MIB / self.write_seconds(
                        name, args, 'none', 2 * size))
        return result

    def private_flush(self):
        """Microseconds that half of all flushes take at most, each after a
        write of 4 KiB, over NBD, in turns: of a raw file; of a private vDisk
        that has nothing to ship, and of one that ships what it can. 'nbd' is
        what the way there costs by itself."""
        return {case: [self.flush_round(*how)
                       for _ in range(self.scale.rounds)]
                for case, how in (('idle', (False, 0)),
                                  ('draining, 2Gbit', (True, GBIT2)),
                                  ('draining', (True, 0)))}

    def flush_round(self, draining, rate):
        """Without a link that limits it the buffer is read as fast as the disk
        can, and what the disk has left tells more of the disk."""
        backlog = 4 * self.scale.disk if draining else 0
        raw = self.shelf.written(PEERS['raw'], self.scale.disk)
        with Desk(self.dir, self.scale.disk, backlog + GIB,
                  rate=rate) as desk, desk.node() as node, \
                Exported({'driver': 'null-co', 'size': self.scale.disk,
                          'read-only': False}) as null, \
                Exported({'driver': 'raw', 'read-only': False,
                          'file': cached(raw, 'none')}) as plain:
            if draining:
                write_over(node, backlog, MIB, 4)
            desk.up()
            until(lambda: is_up(node), 30, 'the store is up')
            times = flush_times({'nbd': null, 'raw': plain, 'pvs': node},
                                500 if self.full else 200,
                                0 if draining else 0.01)
            if draining and node.buffer()['lag-bytes'] < MIB:
                raise tools.Failed('it drained too fast to be measured')
            return times

    def private_read(self):
        """Microseconds that half of all 4 KiB reads take at most, through
        2 Gbit/s, of what is not local: while a backlog is shipped, and with
        nothing to ship; and of a stock client that writes as much."""
        result = {'draining': [], 'idle': [], 'stock': []}
        for _ in range(self.scale.rounds):
            with Desk(self.dir, 2 * self.scale.disk, 2 * self.scale.disk,
                      rate=GBIT2) as desk, desk.node() as node:
                write_over(node, self.scale.disk, MIB, 16)
                desk.up()
                until(lambda n=node: is_up(n), 30, 'the store is up')
                result['draining'].append(read_time(node, self.scale.disk))
                if node.buffer()['lag-bytes'] < MIB:
                    raise tools.Failed('it drained too fast to be measured')
                drain(node)
                result['idle'].append(read_time(node, self.scale.disk, 1))
            result['stock'].append(self.stock_read_time())
        return result

    def stock_read_time(self):
        size = self.scale.disk
        with Desk(self.dir, 2 * size, MIB, rate=GBIT2) as desk:
            desk.up()
            with Exported({'driver': 'nbd', 'export': 'disk',
                           'read-only': False, 'server': nbd.server_options(
                               desk.way.address)}) as node, \
                    concurrent.futures.ThreadPoolExecutor() as pool:
                writes = pool.submit(write_over, node, size, MIB, 16)
                time.sleep(0.2)
                took = read_time(node, size)
                if writes.done():
                    raise tools.Failed('it wrote too fast to be measured')
                writes.result()
                return took

    # What the store gets

    def private_drain(self):
        """MiB a second that are shipped, by epochs of so many MiB; and what
        link and store take of a stock client that keeps to the same order,
        without which the store is no prefix: writes of 1 MiB, up to 16 at
        once, and after each epoch a flush that is waited for. 'disk' is the
        same while other stock programs read as much of the disk and write as
        much to it, as has to be for the buffer and the local copy: where the
        store is on that disk too, it is what can be had."""
        size = self.scale.disk
        result = {}
        for link, (delay, rate) in LINKS.items():
            row = result[link] = {str(epoch): {'nbd': [], 'disk': [], 'pvs': []}
                                  for epoch in (1, 16, 64)}
            for number in range(max(1, self.scale.rounds // 2)):
                for epoch, speed in row.items():
                    speed['nbd'].append(self.way_speed(size, int(epoch), delay,
                                                       rate))
                    speed['disk'].append(self.way_speed(size, int(epoch), delay,
                                                        rate, True))
                    speed['pvs'].append(self.drain_speed(size, int(epoch),
                                                         delay, rate))
        return result

    def way_speed(self, size, epoch, delay, rate, disk=False):
        with Desk(self.dir, size, MIB, 'none', delay, rate, rate > 0) as desk:
            programs = [(tools.IMG, 'bench', *write_args(
                size // MIB, min(16, epoch), MIB, MIB, 'writeback', epoch),
                '-f', 'raw', desk.way.uri)]
            if disk:
                programs += self.beside(desk, size)
            desk.up()
            with concurrent.futures.ThreadPoolExecutor() as pool:
                return size / MIB / max(pool.map(
                    lambda argv: tools.run_seconds(*argv), programs))

    def beside(self, desk, size):
        """Read a file of that size from the disk, and write a sparse one."""
        source, target = desk.dir / 'source', desk.dir / 'target'
        with open(source, 'wb') as f:
            for _ in range(size // MIB):
                f.write(os.urandom(MIB))
            os.fsync(f.fileno())
        with open(target, 'wb') as f:
            f.truncate(size)
        return [(tools.IMG, 'bench', '-t', 'none', '-i', 'native', '-f', 'raw',
                 '-c', str(size // MIB), '-s', str(MIB), '-S', str(MIB),
                 '-d', '4', str(source)),
                (tools.IMG, 'bench', *write_args(size // MIB, 4, MIB, MIB,
                                                 'none'), '-f', 'raw',
                 str(target))]

    def drain_speed(self, size, epoch, delay, rate):
        with Desk(self.dir, size, 3 * size, 'none', delay, rate,
                  rate > 0) as desk, \
                desk.node() as node:
            write_over(node, size, MIB, epoch)
            desk.up()
            seconds, shipped = drain(node)
            return shipped['bytes-shipped'] / MIB / seconds

    def private_epochs(self):
        """Epochs of 4 KiB a second that are shipped."""
        count = 2000 if self.full else 300
        result = {}
        for delay in (0, 20):
            n = count // 10 if delay else count
            result[str(delay)] = []
            for _ in range(self.scale.rounds):
                with Desk(self.dir, 64 * MIB, 64 * MIB, 'none', delay) as desk, \
                        desk.node() as node:
                    write_over(node, n * 4 * KIB, 4 * KIB, 1)
                    desk.up()
                    seconds, shipped = drain(node)
                    result[str(delay)].append(
                        shipped['epochs-shipped'] / seconds)
        return result

    # Recovery, and a full buffer

    def private_recovery(self):
        """Seconds to open a vDisk whose buffer is full, store away; and to
        read the buffer's file once, 4 MiB at a time. 10 GiB of each."""
        ring = 10 * GIB if self.full else 512 * MIB
        result = {}
        for size in (4 * KIB, MIB):
            # All but a sixteenth, which always stays free
            per_record = SPACE if size < MIB else size + 4 * KIB
            count = int(ring * 0.93) // per_record
            with Desk(self.dir, GIB, ring) as desk:
                with desk.node() as node:
                    tools.bench_seconds(*write_args(
                        count, 16, size, size, 'writeback', count // 16),
                        '-f', 'raw', node.uri())
                rows = result[f'{size // KIB} KiB'] = {
                    'gib': ring / GIB, 'open': [], 'read': [], 'start': []}
                for _ in range(3):
                    rows['start'].append(tools.run_seconds(
                        tools.IO, '-c', 'quit'))
                    rows['read'].append(tools.run_seconds(
                        'dd', f'if={desk.dir / "buffer"}', 'of=/dev/null',
                        'bs=4M', 'iflag=direct', 'status=none'))
                    rows['open'].append(tools.run_seconds(
                        tools.IO, '-c', 'length', *desk.target()))
        return result

    def private_full(self):
        """Seconds from the first epoch that is freed in a full buffer until
        the write that waits is done."""
        times = []
        for _ in range(self.scale.rounds):
            with Desk(self.dir, 128 * MIB, 64 * MIB) as desk, \
                    desk.node() as node:
                conn = Connection(node.path)
                ends = []
                writer = threading.Thread(target=write_until_done, args=(
                    conn, 128 * MIB, ends))
                writer.start()
                until(lambda n=node: stands_still(n), 60, 'it is full')
                before = len(ends)
                desk.up()
                until(lambda n=node: n.buffer()['epochs-shipped'], 60,
                      'an epoch is shipped', 0.002)
                freed = time.monotonic()
                until(lambda b=before, e=ends: len(e) > b, 60, 'it goes on')
                times.append(max(0, ends[before] - freed))
                writer.join()
                conn.close()
        return {'seconds': times}


# Round trip in ms, and bytes a second
LINKS = {'local': (0, 0), '2Gbit': (0, GBIT2), '2Gbit, 20 ms': (20, GBIT2)}


def write_until_done(conn, size, ends):
    data = os.urandom(256 * KIB)
    for at in range(0, size, len(data)):
        conn.write(at, data)
        ends.append(time.monotonic())


def stands_still(node):
    used = node.buffer()['used']
    time.sleep(0.3)
    return used > 48 * MIB and node.buffer()['used'] == used


def write_over(node, size, block, per_flush):
    """By its export: the store is away, and so all of it stays in the buffer.
    Each flush waits for what came before."""
    tools.bench_seconds('-w', '-c', str(size // block), '-d', str(per_flush),
                        '-s', str(block), f'--flush-interval={per_flush}',
                        '-t', 'writeback', '-f', 'raw', node.uri())


def flush_times(nodes, count, pause):
    """The median of each, microseconds; one after the other, so that what
    disturbs one disturbs all. With a pause what was flushed is shipped before
    the next one."""
    data = os.urandom(4 * KIB)
    connections = {name: Connection(node.path) for name, node in nodes.items()}
    times = {name: [] for name in nodes}
    for n in range(count):
        for name, connection in connections.items():
            connection.write(n % 1024 * 4 * KIB, data)
            begin = time.perf_counter()
            connection.flush()
            times[name].append(1e6 * (time.perf_counter() - begin))
            time.sleep(pause)
    for connection in connections.values():
        connection.close()
    return {name: statistics.median(t) for name, t in times.items()}


def read_time(node, first, turn=0, count=100):
    """The median, microseconds, of reads behind @first; no place twice."""
    connection = Connection(node.path)
    times = []
    for n in range(count):
        begin = time.perf_counter()
        connection.read(first + (turn * count + n) * 68 * KIB, 4 * KIB)
        times.append(1e6 * (time.perf_counter() - begin))
    connection.close()
    return statistics.median(times)


def is_up(node):
    return node.command('query-vdisks')[0]['pvs']['stores'][0]['state'] == 'up'


def drain(node):
    """Seconds from the moment the store is there until all is on it; and what
    query-vdisks tells then."""
    until(lambda: is_up(node), 60, 'the store is up', 0.001)
    begin = time.monotonic()
    until(lambda: node.buffer()['lag-bytes'] == 0, 600, 'it is drained', 0.02)
    return time.monotonic() - begin, node.buffer()

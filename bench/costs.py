# SPDX-License-Identifier: GPL-2.0-or-later
"""Costs: what a disk takes besides requests - to make, to hold open, to
flush - and reads of what the same process wrote."""

import os
import re
import statistics
import time

import tools
from disks import KIB, MIB, PEERS, TIB
from load import order

FORMATS = ('raw', 'qcow2', 'qcow2-sub', 'mcs', 'mcs-pooled')
CREATE_SIZE = TIB
IDLE_DISKS = 8
FLUSHES = 200
# What makes data durable, or writes it
DURABLE = ('fsync', 'fdatasync', 'sync_file_range', 'pwrite64', 'pwritev',
           'pwritev2', 'fallocate', 'io_submit', 'io_uring_enter')


def qapi_options(peer):
    """The options of 'qemu-img create' as blockdev-create wants them."""
    options = {k.replace('_', '-'): v for k, v in peer.options}
    if 'extended-l2' in options:
        options['extended-l2'] = True
    return options


class Costs:
    def __init__(self, shelf, scale):
        self.shelf = shelf
        self.scale = scale
        self.base = str(shelf.base(scale.disk))

    def path(self, name):
        path = self.shelf.dir / name
        path.unlink(missing_ok=True)
        return str(path)

    def backing(self, peer):
        return ['-b', self.base, '-F', 'raw'] if peer.overlay else []

    def image(self, peer, name, size):
        path = self.path(name)
        tools.run(tools.IMG, 'create', '-q', '-f', peer.format,
                  *peer.create_args, *self.backing(peer), path, str(size))
        return path

    # Making a disk

    def create(self):
        """Milliseconds and bytes on disk of a new 1 TiB disk."""
        rows = {name: {'process_ms': [], 'job_ms': []} for name in FORMATS}
        floor = []
        with tools.Daemon() as daemon:
            for _ in range(max(self.scale.rounds, 5)):
                floor.append(1000 * tools.run_seconds(tools.IMG, '--version'))
                for name in FORMATS:
                    self.create_once(daemon, PEERS[name], rows[name])
        result = {'qemu_img_version_ms': statistics.median(floor)}
        for name, row in rows.items():
            row['process_ms'] = statistics.median(row['process_ms'])
            row['beyond_start_ms'] = (row['process_ms'] -
                                      result['qemu_img_version_ms'])
            row['job_ms'] = statistics.median(row['job_ms'])
        return {**result, 'disks': rows}

    def create_once(self, daemon, peer, row):
        path = self.path('create.img')
        row['process_ms'].append(1000 * tools.run_seconds(
            tools.IMG, 'create', '-q', '-f', peer.format, *peer.create_args,
            *self.backing(peer), path, str(CREATE_SIZE)))
        row['bytes'] = os.stat(path).st_blocks * 512
        row['job_ms'].append(self.create_by_job(daemon, peer,
                                                self.path('create.img')))
        os.unlink(path)

    def create_by_job(self, daemon, peer, path):
        begin = time.monotonic()
        daemon.create(driver='file', filename=path,
                      size=0 if peer.overlay else CREATE_SIZE)
        if peer.overlay:
            daemon.command('blockdev-add', **{
                'driver': 'file', 'node-name': 'new', 'filename': path})
            daemon.create(**{
                'driver': peer.format, 'file': 'new', 'size': CREATE_SIZE,
                'backing-file': self.base, 'backing-fmt': 'raw',
                **qapi_options(peer)})
            daemon.command('blockdev-del', **{'node-name': 'new'})
        return 1000 * (time.monotonic() - begin)

    # Holding it open

    def memory(self):
        """Bytes of a qemu-storage-daemon for each idle disk that it has
        open, base image included."""
        result = {}
        for size, label in ((TIB, '1 TiB'), (64 * TIB, '64 TiB')):
            for name in FORMATS:
                if name == 'raw' and size > 15 * TIB:
                    continue        # ext4 ends at 16 TiB
                result[f'{name} {label}'] = self.memory_of(PEERS[name], size)
        return result

    def memory_of(self, peer, size):
        paths = [self.image(peer, f'idle-{n}.img', size)
                 for n in range(IDLE_DISKS)]
        with tools.Daemon() as daemon:
            before = daemon.resident()
            for n, path in enumerate(paths):
                daemon.command('blockdev-add', **{
                    'driver': peer.format, 'node-name': f'disk{n}',
                    'file': {'driver': 'file', 'filename': path}})
            used = daemon.resident() - before
        for path in paths:
            os.unlink(path)
        return used // IDLE_DISKS

    # Flushing it

    def flush_calls(self):
        """System calls that a guest flush makes, by strace: those of a
        process that flushes after each write, less those of one that only
        writes. (The block layer drops a flush that follows no write.)"""
        return {name: self.flush_calls_of(PEERS[name])
                for name in ('raw', 'qcow2', 'mcs', 'mcs-pooled')}

    def flush_calls_of(self, peer):
        path = self.image(peer, 'flush.img', self.scale.disk)
        self.count_calls(peer, path, False)     # from here on, rewrites only
        idle = self.count_calls(peer, path, False)
        busy = self.count_calls(peer, path, True)
        os.unlink(path)
        extra = {call: round((busy.get(call, 0) - idle.get(call, 0)) / FLUSHES,
                             3) for call in {*busy, *idle}}
        return {'durable': sum(extra.get(c, 0) for c in DURABLE),
                'all': {c: n for c, n in sorted(extra.items()) if n > 0.02}}

    def count_calls(self, peer, path, flush):
        log = self.path('strace.log')
        commands = []
        for n in range(FLUSHES):
            commands += [f'write -q {n * 4 * KIB} 4k'] + ['flush'] * flush
        tools.run('strace', '-f', '-o', log, tools.IO, '-t', 'writeback',
                  '-f', peer.format,
                  *[a for c in commands for a in ('-c', c)], path)
        calls = {}
        with open(log, encoding='utf-8', errors='replace') as f:
            for call in re.findall(r'^\d+ +(\w+)\(', f.read(), re.M):
                calls[call] = calls.get(call, 0) + 1
        return calls

    # Reading what it wrote

    def same_process(self):
        """4 KiB reads of data in the process that wrote it, the one way to
        read a pooled disk's data: requests a second at depth 1. qemu-io times
        each read by itself."""
        names = ('raw', 'mcs', 'mcs-pooled')
        reads = 4000 if self.scale.seconds > 0.2 else 1000
        result = {}
        for cache in ('writeback', 'none'):
            speed = {name: [] for name in names}
            for number in range(self.scale.rounds):
                for name in order(names, number):
                    speed[name].append(
                        self.read_own(PEERS[name], cache, reads))
            result[cache] = speed
        return result

    def read_own(self, peer, cache, reads):
        size = 64 * MIB
        path = self.shelf.new(peer, size)
        commands = ['write -q 0 64M']
        for n in range(reads):
            commands.append(f'read {n * 68 * KIB % size} 4k')
        out = tools.run(tools.IO, '-f', peer.format, '-t', cache,
                        '-i', 'native' if cache == 'none' else 'threads',
                        *[a for c in commands for a in ('-c', c)], str(path))
        path.unlink()
        each = [float(s) for s in re.findall(r'([0-9.]+) ops/sec', out)]
        if len(each) != reads:
            raise tools.Failed(f'{len(each)} of {reads} reads of {peer.name}')
        return statistics.median(each)

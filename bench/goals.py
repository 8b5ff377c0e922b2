# SPDX-License-Identifier: GPL-2.0-or-later
"""Goals: the rows that must be reached, and whether they are."""

import dataclasses
import itertools
import statistics

from disks import MIB
from load import CACHES, DEPTHS, ratio

DISKS = ('mcs', 'mcs-pooled')


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure that must be at least, or at most, a bound. For what it is
    worth, best is the same figure made of each peer's best round."""
    row: str
    case: str
    figure: float
    bound: float
    at_least: bool = True
    unit: str = ''
    best: float | None = None

    @property
    def met(self):
        return (self.figure >= self.bound if self.at_least else
                self.figure <= self.bound)


def compare(cells, workload, cache, depth, disk, other):
    """Ratio of two peers by the median and by the best round, or None where
    they were not measured."""
    cell = cells.get(f'{workload}/{cache}/{depth}')
    if not cell or disk not in cell['speed']:
        return None
    one, two = cell['speed'][disk], cell['speed'][other]
    return ratio(one, two), max(one) / max(two)


def speed_goals(cells):
    rows = (
        ('first writes / raw', 'first-write', 'raw', dict.fromkeys(CACHES, .9)),
        ('first writes / qcow2', 'first-write', 'qcow2',
         {'writeback': 4, 'none': 8}),
        ('reads of base / raw', 'read-base', 'base',
         dict.fromkeys(CACHES, .95)),
        ('reads of data / raw', 'read-data', 'raw',
         dict.fromkeys(CACHES, .95)),
    )
    for row, workload, other, bounds in rows:
        for disk, cache, depth in itertools.product(DISKS, CACHES, DEPTHS):
            found = compare(cells, workload, cache, depth, disk, other)
            if found:
                yield Goal(row, f'{disk}, {cache}, depth {depth}', found[0],
                           bounds[cache], unit='x', best=found[1])


def own_read_goals(own):
    for cache, speed in own.items():
        one, two = speed['mcs-pooled'], speed['raw']
        yield Goal('reads of data / raw', f'mcs-pooled, {cache}, depth 1, own',
                   ratio(one, two), .95, unit='x', best=max(one) / max(two))


def flush_goals(cells):
    for cache, depth in itertools.product(CACHES, DEPTHS):
        found = compare(cells, 'flush', cache, depth, 'mcs', 'raw')
        if found:
            yield Goal('flushed rewrites, time / raw',
                       f'mcs, {cache}, depth {depth}', 1 / found[0], 1.1,
                       at_least=False, unit='x', best=1 / found[1])


def flush_call_goals(calls):
    pooled = calls['mcs-pooled']
    yield Goal('system calls of a guest flush', 'mcs-pooled, writing or sync',
               pooled['durable'], 0, at_least=False)


def create_goals(create):
    for disk in DISKS:
        row = create['disks'][disk]
        for key, case in (('job_ms', 'blockdev-create'),
                          ('beyond_start_ms', 'qemu-img, beyond its start'),
                          ('process_ms', 'qemu-img, whole process')):
            yield Goal('create 1 TiB', f'{disk}, {case}', row[key], 20,
                       at_least=False, unit=' ms')
        yield Goal('create 1 TiB', f'{disk}, on disk', row['bytes'] / MIB, 1,
                   at_least=False, unit=' MiB')


def memory_goals(memory):
    for disk in DISKS:
        yield Goal('idle open 64 TiB disk', disk,
                   memory[f'{disk} 64 TiB'] / MIB, 4, at_least=False,
                   unit=' MiB')


def ram_goals(ram):
    for depth, speed in ram.items():
        for case, bound in (('inside', 1.2), ('overflow', .8)):
            yield Goal('write-cache-ram, writes / raw, cache none',
                       f'{case}, depth {depth}',
                       ratio(speed[case], speed['raw']), bound, unit='x',
                       best=max(speed[case]) / max(speed['raw']))


def ram_call_goals(row):
    yield Goal('write-cache-ram, writes to the file', 'inside', row['calls'],
               0, at_least=False)


def ram_latency_goals(rows):
    worst = {name: max(r['max_ms'] for r in runs)
             for name, runs in rows.items()}
    yield Goal('write-cache-ram, longest request',
               f'overflow (raw: {worst["raw"]:.0f} ms)', worst['overflow'],
               max(100, worst['raw']), at_least=False, unit=' ms')


def reset_goals(rows):
    small, large = rows.values()
    name = list(rows)[1]
    for key, case in (('reset_ms', 'reset'), ('push_ms', 'reset and push')):
        yield Goal('reset after 4 KiB writes all over 100 GiB',
                   f'{case}, {name} written', statistics.median(large[key]),
                   50, at_least=False, unit=' ms')
    yield Goal('reset after 4 KiB writes all over 100 GiB',
               f'{name} / {list(rows)[0]}',
               statistics.median(large['reset_ms']) /
               statistics.median(small['reset_ms']), 2, at_least=False,
               unit='x')


def assign_goals(row):
    yield Goal('vdisk-assign', 'idle', statistics.median(row['ms']), 5,
               at_least=False, unit=' ms')


def push_goals(row):
    yield Goal('push to desktops that are off', f'{row["desktops"]} of them',
               row['seconds'], 2, at_least=False, unit=' s')


def stream_goals(streams):
    """What pvs is for. A row appears once its way of reading is measured."""
    rows = (
        ('warm 4 KiB reads / raw', 'random/0ms', 'pvs-warm', 'local', .9),
        ('cold 4 KiB reads, verity / none', 'random', 'pvs-verity', 'pvs-cold',
         1 / 1.3),
        ('cold 4 KiB reads with filling, verity / none', 'random',
         'pvs-relay-verity', 'pvs-relay', 1 / 1.3),
        ('cold 4 KiB reads with filling / NBD', 'random', 'pvs-relay', 'nbd',
         1 / 1.5),
        ('cold 4 KiB reads, desktop and relay / NBD', 'random', 'pvs-cold',
         'nbd', 1 / 1.5),
        ('cold 4 KiB reads, desktop and relay / NBD twice', 'random',
         'pvs-cold', 'nbd-twice', 1 / 1.5),
        ('cold 1 MiB reads, verity / nbdcopy', 'seq/2Gbit', 'pvs-verity',
         'nbdcopy', .8),
        ('boot with a trace / qcow2 on NBD', 'boot/20ms', 'pvs-trace', 'qcow2',
         5),
    )
    for row, kind, way, other, bound in rows:
        for name, cell in streams.items():
            speed = cell['speed']
            if name.startswith(f'stream-{kind}') and {way, other} <= {*speed}:
                yield Goal(row, name, ratio(speed[way], speed[other]), bound,
                           unit='x', best=max(speed[way]) / max(speed[other]))


def private_write_goals(rows):
    for cache, speed in rows.items():
        for case, title in (('far', '20 ms'), ('away', 'store away')):
            yield Goal('private vDisk, 4 KiB writes, time / raw',
                       f'{title}, {cache}', ratio(speed['raw'], speed[case]),
                       1.25, at_least=False, unit='x',
                       best=max(speed['raw']) / max(speed[case]))


def private_seq_goals(rows):
    for depth, speed in rows.items():
        yield Goal('private vDisk, 1 MiB writes / raw', f'depth {depth}',
                   ratio(speed['away'], speed['raw']), .8, unit='x',
                   best=max(speed['away']) / max(speed['raw']))


def flush_ratio(times, other):
    """Of two medians, less what the way there costs."""
    return (times['pvs'] - times['nbd']) / (other['raw'] - other['nbd'])


def private_flush_goals(rows):
    idle = rows['idle']
    quiet = min(idle, key=lambda t: t['raw'])
    capped = rows['draining, 2Gbit']
    for case, times, others, bound in (
            ('nothing to ship', idle, idle, 1.5),
            ('draining at 2 Gbit/s / raw on a quiet disk', capped,
             [quiet] * len(capped), 2.5),
            ('draining / raw meanwhile', rows['draining'], rows['draining'],
             2.5)):
        ratios = [flush_ratio(t, o) for t, o in zip(times, others)]
        yield Goal('private vDisk, flush p50 / raw', case,
                   statistics.median(ratios), bound, at_least=False, unit='x',
                   best=min(ratios))


def private_read_goals(rows):
    """A read behind all that is on its way would take as long as the stock
    client's."""
    idle, stock = (statistics.median(rows[k]) for k in ('idle', 'stock'))
    yield Goal('private vDisk, 4 KiB reads of the store while draining, time',
               f'/ a stock client that writes (idle: {idle / stock:.2f}x)',
               ratio(rows['draining'], rows['stock']), .5, at_least=False,
               unit='x', best=min(rows['draining']) / min(rows['stock']))


def private_drain_goals(rows):
    for link, row in rows.items():
        for case, speed in row.items():
            peer = 'disk' if link == 'local' else 'nbd'
            yield Goal('private vDisk, drain / what link and store take',
                       f'{link}, epochs of {case} MiB',
                       ratio(speed['pvs'], speed[peer]), .9, unit='x',
                       best=max(speed['pvs']) / max(speed[peer]))


def private_epoch_goals(rows):
    for delay, speed in rows.items():
        # What two round trips allow, less a tenth
        bound = 200 if delay == '0' else .9 * 500 / int(delay)
        yield Goal('private vDisk, epochs of 4 KiB shipped', f'{delay} ms',
                   statistics.median(speed), bound, unit=' /s',
                   best=max(speed))


def private_recovery_goals(rows):
    for size, row in rows.items():
        ratios = [(o - s) / r for o, s, r in zip(row['open'], row['start'],
                                                 row['read'])]
        yield Goal('private vDisk, recovery / reading it once',
                   f'{row["gib"]:g} GiB, records of {size}',
                   statistics.median(ratios), 1.5, at_least=False, unit='x',
                   best=min(ratios))


def private_full_goals(row):
    yield Goal('private vDisk, full buffer', 'goes on after a freed epoch',
               max(row['seconds']), 1, at_least=False, unit=' s')


def evaluate(results):
    """All goals that were measured."""
    goals = list(speed_goals(results['cells']))
    goals += stream_goals(results['streams'])
    for key, judge in (('same-process', own_read_goals),
                       ('flush-calls', flush_call_goals),
                       ('create', create_goals), ('memory', memory_goals),
                       ('ram', ram_goals), ('ram-calls', ram_call_goals),
                       ('ram-latency', ram_latency_goals),
                       ('push', push_goals), ('assign', assign_goals),
                       ('reset', reset_goals),
                       ('private-write', private_write_goals),
                       ('private-seq', private_seq_goals),
                       ('private-flush', private_flush_goals),
                       ('private-read', private_read_goals),
                       ('private-drain', private_drain_goals),
                       ('private-epochs', private_epoch_goals),
                       ('private-recovery', private_recovery_goals),
                       ('private-full', private_full_goals)):
        if results.get(key):
            goals += judge(results[key])
    goals += flush_goals(results['cells'])
    order = list(dict.fromkeys(g.row for g in goals))
    return sorted(goals, key=lambda g: order.index(g.row))

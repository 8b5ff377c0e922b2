# SPDX-License-Identifier: GPL-2.0-or-later
"""Report: the figures as tables and as JSON."""

import json
import statistics

from disks import KIB, MIB, PEERS
from load import ratio
from ways import WAYS


def table(head, rows):
    """Plain text; the first column to the left, figures to the right."""
    lines = [head] + rows
    width = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return '\n'.join(
        '  '.join(text.ljust(w) if i == 0 else text.rjust(w)
                  for i, (text, w) in enumerate(zip(line, width))).rstrip()
        for line in lines)


def floor_of(cell):
    """The peer that the others are shown as ratios of."""
    return 'base' if 'base' in cell['speed'] else 'raw'


def cell_line(name, cell):
    speed = cell['speed']
    floor = floor_of(cell)
    line = [name, f'{statistics.median(speed[floor]):.0f}']
    for peer in columns():
        line.append(f'{ratio(speed[peer], speed[floor]):.2f}'
                    if peer in speed else '-')
    return line


def columns():
    return [name for name in PEERS if name not in ('raw', 'base')]


def speed_table(cells):
    head = ['workload/cache/depth', 'raw, /s'] + columns()
    return table(head, [cell_line(n, c) for n, c in cells.items()])


def stream_table(streams):
    names = list(WAYS) + ['nbdcopy']
    rows = []
    for name, cell in streams.items():
        speed = cell['speed']
        rows.append([name, f"{statistics.median(speed['nbd']):.0f}"] +
                    [f"{ratio(speed[n], speed['nbd']):.2f}" if n in speed
                     else '-' for n in names if n != 'nbd'])
    return table(['stream-workload/link/depth', 'nbd, /s'] +
                 [n for n in names if n != 'nbd'], rows)


def create_table(create):
    rows = [[PEERS[name].title, f"{r['job_ms']:.1f}",
             f"{r['beyond_start_ms']:.1f}", f"{r['process_ms']:.1f}",
             f"{r['bytes'] / KIB:.0f}"]
            for name, r in create['disks'].items()]
    return table(['create 1 TiB', 'job, ms', 'qemu-img beyond start, ms',
                  'qemu-img, ms', 'KiB on disk'], rows)


def memory_table(memory):
    return table(['memory of an idle open disk', 'KiB'],
                 [[name, f'{size / KIB:.0f}'] for name, size in memory.items()])


def calls_table(calls):
    rows = []
    for name, row in calls.items():
        every = ', '.join(f'{call} {n:.2f}'
                          for call, n in row['all'].items())
        rows.append([PEERS[name].title, f"{row['durable']:.2f}", every or '-'])
    return table(['system calls of a flush', 'writing or sync', 'all'], rows)


def own_table(own):
    rows = [[f'read own data/{cache}/1',
             f"{statistics.median(speed['raw']):.0f}",
             f"{ratio(speed['mcs'], speed['raw']):.2f}",
             f"{ratio(speed['mcs-pooled'], speed['raw']):.2f}"]
            for cache, speed in own.items()]
    return table(['in the process that wrote', 'raw, /s', 'mcs', 'mcs-pooled'],
                 rows)


def ram_table(ram):
    rows = [[f'4 KiB writes/none/{depth}',
             f"{statistics.median(speed['raw']):.0f}",
             f"{ratio(speed['inside'], speed['raw']):.2f}",
             f"{ratio(speed['overflow'], speed['raw']):.2f}"]
            for depth, speed in ram.items()]
    return table(['write-cache-ram', 'raw, /s', 'inside', 'overflow'], rows)


def reset_table(rows):
    return table(['written', 'reset, ms', 'reset and push, ms', 'assign, ms'],
                 [[name] + [f'{statistics.median(row[key]):.1f}'
                            for key in ('reset_ms', 'push_ms', 'assign_ms')]
                  for name, row in rows.items()])


def private_flush_table(rows):
    return table(['flush p50, us', 'nbd', 'raw', 'pvs'],
                 [[case] + [f'{statistics.median(t[n] for t in times):.0f}'
                            for n in ('nbd', 'raw', 'pvs')]
                  for case, times in rows.items()])


def private_read_table(rows):
    return table(['4 KiB reads of the store, us', *rows],
                 [['p50, 2 Gbit/s', *(f'{statistics.median(t):.0f}'
                                      for t in rows.values())]])


def private_drain_table(rows):
    return table(['drain, MiB/s', 'epochs', 'nbd', 'nbd, disk in use',
                  'pvs'],
                 [[link, f'{epoch} MiB'] +
                  [f'{statistics.median(speed[n]):.0f}'
                   for n in ('nbd', 'disk', 'pvs')]
                  for link, row in rows.items()
                  for epoch, speed in row.items()])


def goal_table(goals):
    rows = []
    for g in goals:
        sign = '>=' if g.at_least else '<='
        rows.append([f'{g.row}: {g.case}', f'{g.figure:.2f}{g.unit}',
                     f'{sign} {g.bound:g}{g.unit}',
                     'met' if g.met else 'MISSED',
                     '' if g.best is None else f'{g.best:.2f}{g.unit}'])
    return table(['must reach', 'measured', 'bound', '', 'best rounds'], rows)


def print_all(results, goals):
    parts = [('cells', speed_table), ('streams', stream_table),
             ('same-process', own_table), ('create', create_table),
             ('memory', memory_table), ('flush-calls', calls_table),
             ('ram', ram_table),
             ('reset', reset_table),
             ('private-flush', private_flush_table),
             ('private-read', private_read_table),
             ('private-drain', private_drain_table)]
    for key, draw in parts:
        if results.get(key):
            print(f'\n{draw(results[key])}')
    if goals:
        met = sum(g.met for g in goals)
        print(f'\n{goal_table(goals)}\n\n{met} met, {len(goals) - met} missed')


def as_json(results, goals):
    for cell in results['cells'].values():
        floor = floor_of(cell)
        cell['median'] = {n: statistics.median(s)
                          for n, s in cell['speed'].items()}
        cell['ratio'] = {n: ratio(s, cell['speed'][floor])
                         for n, s in cell['speed'].items()}
        cell['ratio_to'] = floor
    results['goals'] = [{'row': g.row, 'case': g.case, 'figure': g.figure,
                         'best': g.best, 'bound': g.bound,
                         'at_least': g.at_least, 'met': g.met} for g in goals]
    return json.dumps(results, indent=1) + '\n'

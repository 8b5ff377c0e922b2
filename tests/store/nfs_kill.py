# SPDX-License-Identifier: GPL-2.0-or-later
"""A store on NFS whose administrator dies: his command, or all of his host; and
another one goes on from a host of his own."""

import shutil

from stores.process import until

from . import env
from .nfs import MOUNT, PATIENCE, TOOLS
from .test_kill import COMMANDS, Sweep

ROWS = {row[0]: row for row in COMMANDS}
# Which, and at how many of their calls
PROCESS = (('store create', 3), ('vdisk import', 4), ('store replicate', 4),
           ('version new', 4), ('version seal', 5), ('version promote', 3),
           ('version merge', 4), ('version trace', 3), ('vdisk rm', 3))
MACHINE = (('vdisk import', 3), ('version new', 2), ('version seal', 3),
           ('version promote', 2), ('version merge', 3), ('vdisk rm', 1))


class Far(Sweep):
    """A command on host a, in a folder that no host has seen before; .by is
    who gives it."""

    def __init__(self, place, folder, name):
        self.place, self.by, self.turn = place, place.a, 0
        super().__init__(folder, ROWS[name])

    def reset(self):
        self.turn += 1
        name = f'{self.name.replace(" ", "-")}-{self.base.parent.name}-{self.turn}'
        self.work, self.there = self.place.www / name, MOUNT / name
        self.store = self.work / 'store'
        shutil.copytree(self.base, self.work)

    def before(self, how, n):
        return [f'{TOOLS}/cut', self.there, '/run/calls', how, n]

    def command(self, how, n):
        return self.by.deskcast(*self.words(self.there), before=self.before(how, n),
                                store=self.there / 'store')

    def read_log(self):
        return self.by.run('cat /run/calls')

    def points(self, most):
        """Before and behind what gives a file its name, or takes it"""
        named = [n for n, call in enumerate(self.calls, 1)
                 if call.split()[1].startswith(('rename', 'unlink', 'rmdir'))]
        near = sorted({m for n in named for m in (n, n + 1)
                       if m <= len(self.calls)})
        return near[::-(-len(near) // most)]

    def cut(self, n, how):
        self.by = self.place.a
        self.reset()
        why = self.machine_dies(n) if how == 'machine' else self.process_dies(n)
        self.by = self.place.b
        try:
            return why or self.check_whole() or self.taken_over() or \
                self.check_again()
        finally:
            if how == 'machine':
                self.place.a.ready()

    def process_dies(self, n):
        done = self.command('kill', n)
        return '' if done.status == 99 else f'not killed: {done}'

    def machine_dies(self, n):
        a = self.place.a
        a.begin(*self.words(self.there), before=self.before('hold', n),
                store=self.there / 'store')
        self.place.until_cut(n)
        ended = a.ended()
        a.die()
        a.boot()
        return 'it ended before it died' if ended else ''

    def taken_over(self):
        """Until its lease ends the dead one has the lock, and is named."""
        said = []

        def is_free():
            done = self.place.b.deskcast('version', 'retire', 'nobody', '1',
                                         store=self.there / 'store')
            said.append(done.err)
            return 'is being changed' not in done.err

        until(is_free, PATIENCE, 'the lock of a host that died is free')
        wrong = [s for s in said[:-1] if 'on admin-a' not in s]
        return f'it does not say who has it: {wrong}' if wrong else ''

    def sweep_points(self, how, most):
        for n in self.points(most):
            why = self.cut(n, how)
            if why:
                return f'{how}, at call {self.calls[n - 1]}: {why}'
        return ''


def test(place, name, how, most):
    with env.Folder() as folder:
        return Far(place, folder, name).sweep_points(how, most)


def rows():
    for name, most in PROCESS:
        yield (f'NFS: {name}: killed, and another host goes on', test, name,
               'process', most)
    for name, most in MACHINE:
        yield (f'NFS: {name}: its host dies, and another one goes on', test, name,
               'machine', most)

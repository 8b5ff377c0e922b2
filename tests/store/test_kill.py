# SPDX-License-Identifier: GPL-2.0-or-later
"""Every command that changes a store, killed or failing at every system call
that changes it; and the order of these calls, for when the power fails."""

import concurrent.futures
import errno
import shutil
import subprocess

from . import env, order
from .env import deskcast, must

SIZE = 256 * 1024


def write(store, vdisk, number, pattern, offset=0, length=65536):
    """Into a version in maintenance, as a master VM would. @pattern is a byte,
    or an option of qemu-io."""
    if isinstance(pattern, int):
        pattern = f'-P {pattern}'
    m = env.manifest(store, vdisk)
    node = env.chain(store, vdisk, m, env.versions(m)[number])
    subprocess.run([env.BUILD / 'qemu/qemu-io', '-c',
                    f'write {pattern} {offset} {length}', '-c', 'flush',
                    'json:' + env.json.dumps(node)], check=True,
                   stdout=subprocess.DEVNULL)


def first(store):
    must('store', 'create', store)
    must('version', 'new', 'win', '--size', SIZE, store=store)
    write(store, 'win', 1, 1, 0, 3 * 65536)


def sealed(store):
    first(store)
    must('version', 'seal', 'win', store=store)


def second(store, *options):
    sealed(store)
    must('version', 'promote', 'win', store=store)
    must('version', 'new', 'win', *options, store=store)
    write(store, 'win', 2, 2, 65536)
    # A cluster of zeros where the parent has data: merging must keep it one,
    # with the parent below it still and without
    write(store, 'win', 2, 0, 131072, 65536)


def second_pvs(store):
    second(store, '--for', 'pvs')


def both(store):
    second(store)
    must('version', 'seal', 'win', store=store)


def both_production(store):
    both(store)
    must('version', 'promote', 'win', store=store)


def third(store):
    both(store)
    must('version', 'new', 'win', store=store)
    write(store, 'win', 3, 3, 4096, 4096)
    must('version', 'seal', 'win', store=store)


def unneeded(store):
    both_production(store)
    must('version', 'merge', 'win', 2, store=store)
    must('version', 'retire', 'win', 1, store=store)


def source(store):
    """An image to import, beside the store."""
    must('store', 'create', store)
    store.with_name('source.raw').write_bytes(
        bytes(65536) + bytes(range(256)) * 512 + bytes(65536))


def nothing(_):
    pass


# Name, what is there before, the command, what it says when it is done already
COMMANDS = [
    ('store create', nothing, ('store', 'create'), 'is a store already'),
    ('the first version', lambda s: must('store', 'create', s),
     ('version', 'new', 'win', '--size', SIZE), 'is in maintenance'),
    ('vdisk import', source,
     ('vdisk', 'import', '-f', 'raw', '{source}', 'win'), 'there is a vDisk'),
    ('version new', sealed, ('version', 'new', 'win'), 'is in maintenance'),
    ('version new, larger, with a label', sealed,
     ('version', 'new', 'win', '--for', 'pvs', '--size', 2 * SIZE),
     'is in maintenance'),
    ('version seal, of the first', first, ('version', 'seal', 'win'),
     'is sealed already'),
    ('version seal', second, ('version', 'seal', 'win'), 'is sealed already'),
    ('version seal, with a label', second_pvs, ('version', 'seal', 'win'),
     'is sealed already'),
    ('version promote', both, ('version', 'promote', 'win'), 'no version in test'),
    ('version revert', both_production, ('version', 'revert', 'win'),
     'is the only one'),
    ('version retire', both_production, ('version', 'retire', 'win', 1),
     'is retired already'),
    ('version rm, in maintenance', second_pvs, ('version', 'rm', 'win', 2),
     'has no version 2'),
    ('version rm, retired', unneeded, ('version', 'rm', 'win', 1),
     'has no version 1'),
    ('version rm, the only one', first, ('version', 'rm', 'win', 1),
     "no vDisk 'win'"),
    ('version merge', third, ('version', 'merge', 'win', 2), 'has no parent'),
    ('vdisk rm', third, ('vdisk', 'rm', 'win', '--force'), "no vDisk 'win'"),
]


def contents(store):
    """Of each version, without labels."""
    return {(vdisk, n): env.content(store, vdisk, n)[:v['size']]
            for vdisk, all_versions in env.state(store).items()
            for n, v in all_versions.items()}


class Sweep:
    """One command, cut short at each of its calls."""

    def __init__(self, folder, row):
        self.name, prepare, self.argv, self.already = row
        self.base, self.work = folder / 'base', folder / 'work'
        self.log = folder / 'log'
        self.base.mkdir()
        prepare(self.base / 'store')
        self.store = self.work / 'store'
        self.old, self.had = self.look(self.base / 'store')
        self.reset()
        done = self.command('kill', 0)
        assert done.status == 0, str(done)
        self.calls = self.log.read_text().splitlines()
        self.new, self.has = self.look(self.store)
        assert self.has_right_content(), 'the command itself changes content'

    def reset(self):
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.base, self.work)

    @staticmethod
    def look(store):
        if not (store / 'store.json').exists():
            return None, {}
        return env.state(store), contents(store)

    def command(self, how, n):
        words = [str(w).format(source=self.work / 'source.raw')
                 for w in self.argv]
        if self.argv[0] == 'store':
            words.append(self.store)
        return deskcast(*words, store=self.store,
                        before=[env.CUT, self.work, self.log, how, n])

    def has_right_content(self):
        return all(self.had.get(k, v) == v for k, v in self.has.items())

    def is_between(self, state):
        """The old state, the new one, or a step of sealing: without label."""
        without = None if self.old is None else {
            name: {n: {**v, 'label': False} for n, v in versions.items()}
            for name, versions in self.old.items()}
        return state in (self.old, self.new, without)

    def check_whole(self):
        if not (self.store / 'store.json').exists():
            return '' if self.old is None else 'the store is gone'
        why = env.what_is_wrong(self.store)
        state, has = self.look(self.store)
        if not why and not self.is_between(state):
            why = f'neither old nor new: {state}'
        for key, data in has.items():
            want = self.had.get(key, self.has.get(key))
            if not why and data != want:
                why = f'{key}: its content changed'
        return why

    def check_again(self):
        state, _ = self.look(self.store)
        again = self.command('kill', 0)
        if again.status and not (state == self.new and
                                 self.already in again.err):
            return f'run again: {again}'
        state, has = self.look(self.store)
        if state != self.new:
            return f'run again, it is {state}'
        if has != self.has:
            return 'run again, the content is another one'
        # Done already: then the next command that changes something tidies up
        left = env.strangers(self.store)
        return f'left over: {left}' if left else ''

    def cut(self, n, how):
        self.reset()
        done = self.command('kill' if how == 'kill' else how, n)
        if how == 'kill' and done.status != 99:
            return f'not killed: {done}'
        if how != 'kill' and done.status not in (0, 1):
            return f'an error: {done}'
        if done.status == 1 and 'deskcast: ' not in done.err:
            return f'it does not say why: {done}'
        why = self.check_whole()
        # Failed, and all the same done: only if the last fsync is what failed
        if not why and done.status == 1 and ' fsync ' not in \
                self.calls[n - 1] and self.look(self.store)[0] == self.new:
            why = f'done, and says it failed: {done}'
        return why or self.check_again()

    def sweep(self, how, every=1):
        for n in range(1, len(self.calls) + 1):
            if n % every:
                continue
            why = self.cut(n, how)
            if why:
                return f'at call {self.calls[n - 1]}: {why}'
        return ''


def test(row, how, every):
    with env.Folder() as folder:
        s = Sweep(folder, row)
        return s.sweep(how, every)


def test_order(row):
    with env.Folder() as folder:
        s = Sweep(folder, row)
        s.reset()
        s.command('kill', 0)
        return order.check(s.log, s.store)


def tests(tap, long):
    if not env.CUT.exists():
        tap.skip('commands that are killed', 'only on x86-64')
        return
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        started = list(start(pool, tap, long))
        for text, future in started:
            tap.run(text, future.result)


def start(pool, tap, long):
    """Each is run by one of two threads, and reported in order."""
    def chosen(text, *job):
        if tap.only.search(text):
            yield text, pool.submit(*job)

    for row in COMMANDS:
        yield from chosen(f'{row[0]}: killed at every call', test, row, 'kill',
                          1)
    for row in COMMANDS:
        yield from chosen(f'{row[0]}: files are durable before they are named',
                          test_order, row)
    # A full file system, one that is read-only, a medium that fails
    every = 1 if long else 3
    for row in COMMANDS:
        for code in (errno.ENOSPC, errno.EIO, errno.EROFS):
            if long or code == errno.ENOSPC:
                yield from chosen(
                    f'{row[0]}: {errno.errorcode[code]} at '
                    f'{"every" if long else "each third"} call', test, row,
                    str(code), every)

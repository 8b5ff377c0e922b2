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
NAMESPACE = 'https://deskcast.example.org/xmlns/domain/1'
TEST = 'http://libvirt.org/schemas/domain/test/1.0'
HOST = ('--connect', 'test://{node}')


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


def traces(store):
    """Two boot traces of version 1 beside the store, which has the first."""
    both_production(store)
    v = env.versions(env.manifest(store, 'win'))[1]
    one = env.boot_trace(store.with_name('one.trace'), v, 5, 3)
    env.boot_trace(store.with_name('two.trace'), v, 3, 5, 7)
    must('version', 'trace', 'win', 1, one, store=store)


def unneeded_trace(store):
    unneeded(store)
    v = env.versions(env.manifest(store, 'win'))[1]
    trace = env.boot_trace(store.with_name('one.trace'), v, 5, 3)
    must('version', 'trace', 'win@1', trace, store=store)


def source(store):
    """An image to import, beside the store."""
    must('store', 'create', store)
    store.with_name('source.raw').write_bytes(
        bytes(65536) + bytes(range(256)) * 512 + bytes(65536))


def source_vmdk(store):
    """One that is converted first."""
    source(store)
    raw = store.with_name('source.raw')
    env.qemu_img('convert', '-f', 'raw', '-O', 'vmdk', raw,
                 store.with_name('vmdk'))
    store.with_name('vmdk').rename(raw)


def replica(store):
    """An empty store, and the one beside it that it is to be like."""
    sealed(store)
    store.rename(store.with_name('from'))
    must('store', 'create', store)


def rotten(store):
    """A version whose image is no longer what was sealed."""
    both(store)
    image = store / 'vdisks/win/2.qcow2'
    image.chmod(0o644)
    with open(image, 'r+b') as f:
        f.seek(-65536, 2)       # a cluster that the guest wrote
        f.write(b'rot')
    image.chmod(0o444)


def office(store, update):
    """A master VM on a host of libvirt's test driver, which forgets what is
    done to it: the catalog always says what it does here."""
    work = store.parent.with_name('work') / 'store'
    note = f'<update version="{update}"/>' if update else ''
    store.with_name('node.xml').write_text(
        f"""<node><domain type="test" xmlns:test="{TEST}"><name>master</name>
        <uuid>4b12f8a2-6a4e-4b0f-8f0e-2f7a4d0c9a11</uuid><metadata>
        <catalog xmlns="{NAMESPACE}" format="1" name="office" vdisk="win"
        model="mcs" lifetime="pooled" run="in-process"><store path="{work}"/>
        <folder path="/nowhere"/>{note}</catalog></metadata>
        <memory>8192</memory><os><type>hvm</type></os><devices>
        <disk type="file" device="disk"><driver name="qemu" type="raw"/>
        <source file="/nowhere/own.raw"/><target dev="vda" bus="virtio"/></disk>
        </devices><test:runstate>5</test:runstate></domain></node>""")


def update_start(store):
    sealed(store)
    office(store, 0)


def update_ends(store):
    second(store)
    office(store, 2)


def nothing(_):
    pass


# Name, what is there before, the command, what it says when it is done already
COMMANDS = [
    ('store create', nothing, ('store', 'create'), 'is a store already'),
    ('the first version', lambda s: must('store', 'create', s),
     ('version', 'new', 'win', '--size', SIZE), 'is in maintenance'),
    ('vdisk import', source,
     ('vdisk', 'import', '-f', 'raw', '{source}', 'win'), 'there is a vDisk'),
    ('vdisk import, converted', source_vmdk,
     ('vdisk', 'import', '-f', 'vmdk', '{source}', 'win'), 'there is a vDisk'),
    ('store replicate', replica, ('store', 'replicate', '--from', '{from_}'),
     None),
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
    ('version promote, with a date', both,
     ('version', 'promote', 'win', 2, '--release', '2999-01-01T00:00:00'),
     'is in production already'),
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
    ('version rm, with a boot trace', unneeded_trace,
     ('version', 'rm', 'win', 1), 'has no version 1'),
    ('version trace', traces, ('version', 'trace', 'win', 1, '{trace}'), 'none'),
    ('version merge', third, ('version', 'merge', 'win', 2), 'has no parent'),
    ('vdisk rm', third, ('vdisk', 'rm', 'win', '--force'), "no vDisk 'win'"),
    ('update start', update_start, ('update', 'start', 'office', *HOST),
     'is in maintenance already'),
    ('update finish', update_ends, ('update', 'finish', 'office', *HOST), None),
    ('update abort', update_ends, ('update', 'abort', 'office', *HOST), None),
    ('vdisk verify, that marks', rotten, ('vdisk', 'verify', 'win'), None),
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
        self.rotten = prepare == rotten
        self.base, self.work = folder / 'base', folder / 'work'
        self.log = folder / 'log'
        self.base.mkdir()
        prepare(self.base / 'store')
        self.store = self.work / 'store'
        self.old, self.had = self.look(self.base / 'store')
        self.reset()
        done = self.command('kill', 0)
        assert done.status == self.rotten, str(done)
        self.calls = self.read_log().splitlines()
        self.new, self.has = self.look(self.store)
        assert self.has_right_content(), 'the command itself changes content'

    def reset(self):
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.base, self.work)

    @staticmethod
    def look(store):
        if not (store / 'store.json').exists():
            return None, {}
        state = env.state(store)
        for v in state.get('win', {}).values():
            if 'failed' in v:
                v['failed'] = 'at some time'
        return state, contents(store)

    def read_log(self):
        return self.log.read_text()

    def words(self, work):
        words = [str(w).format(source=work / 'source.raw', from_=work / 'from',
                               trace=work / 'two.trace', node=work / 'node.xml')
                 for w in self.argv]
        if self.argv[:2] == ('store', 'create'):
            words.append(work / 'store')
        return words

    def command(self, how, n):
        return deskcast(*self.words(self.work), store=self.store,
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
        why = '' if self.rotten else env.what_is_wrong(self.store)
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
        if again.status != self.rotten and not (
                state == self.new and self.already and
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
        if done.status == 1 and not self.rotten and \
                'deskcast: ' not in done.err:
            return f'it does not say why: {done}'
        why = self.check_whole()
        # Failed, and all the same done: only if the last fsync is what failed
        if not why and not self.rotten and done.status == 1 and ' fsync ' not in \
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

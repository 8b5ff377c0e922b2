# SPDX-License-Identifier: GPL-2.0-or-later
"""A store whose images are on Ceph: a cluster of one, on this machine."""

import contextlib
import json
import pathlib
import subprocess
import time

from stores.ceph import POOL, Ceph

from . import env
from .env import deskcast, must
from .test_store import first_of, refused

SIZE = 4 << 20


class OnCeph:
    def __init__(self, folder, ceph):
        self.folder, self.ceph = folder, ceph
        self.store = folder / 'store'
        self.rbd_program = folder / 'rbd'
        libraries = ceph.env()['LD_LIBRARY_PATH']
        self.rbd_program.write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} '
            f'exec {ceph.tree}/usr/bin/rbd "$@"\n')
        self.rbd_program.chmod(0o755)

    def run(self, *words, **kwargs):
        return deskcast(*words, store=self.store, environment={
            'DESKCAST_RBD': str(self.rbd_program)}, **kwargs)

    def must(self, *words, **kwargs):
        done = self.run(*words, **kwargs)
        if done.status:
            raise AssertionError(f'{words}: {done}')
        return done

    def rbd(self, *words):
        return subprocess.run(
            [self.rbd_program, '-c', self.ceph.conf, '-p', POOL, *words],
            text=True, check=True, capture_output=True).stdout

    def images(self):
        return set(self.rbd('ls').split()) - {'disk'}

    def image(self, number):
        return env.versions(env.manifest(self.store, 'win'))[number]['image']

    def name(self, number, snapshot='', image=None):
        node = {'driver': 'raw', 'file': {
            'driver': 'rbd', 'pool': POOL,
            'image': image or self.image(number),
            'conf': str(self.ceph.conf)}}
        if snapshot:
            node['file']['snapshot'] = snapshot
        return 'json:' + json.dumps(node)

    def write(self, number, pattern, offset, length):
        subprocess.run([env.BUILD / 'qemu/qemu-io', '-c',
                        f'write {pattern} {offset} {length}', '-c', 'flush',
                        self.name(number)], check=True,
                       stdout=subprocess.DEVNULL)

    def content(self, number, snapshot='sealed'):
        path = self.folder / 'content'
        env.qemu_img('convert', '-O', 'raw', self.name(number, snapshot), path)
        return path.read_bytes()

    def wrong(self):
        """By content: what each sealed version is, and which images there
        are."""
        m = env.manifest(self.store, 'win')
        for number, v in env.versions(m).items():
            if v['access'] == 'maintenance':
                continue
            data = self.content(number)
            tree, root = env.tree(data, m['salt'], m['uuid'])
            path = self.store / 'vdisks/win' / v['tree']
            if len(data) != v['size'] or root != v['root'] or \
                    path.read_bytes() != tree:
                return f'version {number} is not what was sealed'
        names = {v['image'] for v in m['versions']}
        if self.images() != names:
            return f'images are {self.images()}, and should be {names}'
        return ''


def label(store, how):
    made = subprocess.run([env.OURS / 'tests/store/label', how, 'win', '2',
                           str(2 * SIZE)], check=True,
                          stdout=subprocess.PIPE).stdout
    path = store.folder / 'label'
    path.write_bytes(made)
    store.write(2, f'-s {path}', 2 * SIZE, 4096)


def life(s):
    s.must('store', 'create', s.store, '--rbd-pool', POOL, '--rbd-conf',
           s.ceph.conf)
    s.must('version', 'new', 'win', '--size', SIZE)
    s.write(1, '-P 1', 0, 1 << 20)
    s.must('version', 'seal', 'win')
    s.must('version', 'promote', 'win')
    one = s.content(1)
    s.must('version', 'new', 'win', '--for', 'pvs', '--size', 2 * SIZE)
    if s.images() != {'win.1', 'win.2'}:
        return f'the images are {s.images()}'
    s.write(2, '-P 2', 65536, 65536)
    label(s, 'open')
    why = refused(s.run('version', 'seal', 'win'), 'not left in order')
    if why or len(s.content(2, '')) != 2 * SIZE + 4096:
        return why or 'the label is gone'
    label(s, 'closed')
    want = s.content(2, '')[:2 * SIZE]
    s.must('version', 'seal', 'win')
    s.must('version', 'promote', 'win')
    return first_of(
        '' if s.content(1) == one else 'version 1 has changed',
        '' if s.content(2) == want else 'version 2 is not what was written',
        s.wrong())


@contextlib.contextmanager
def reader(node):
    """Asks it to read a pattern: true if it is there"""
    with subprocess.Popen([env.BUILD / 'qemu/qemu-io', '-r', node], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        def read(pattern, offset):
            process.stdin.write(f'read -P {pattern} {offset} 4096\n')
            process.stdin.flush()
            line = process.stdout.readline()
            process.stdout.readline()
            return 'read 4096/4096' in line
        yield read
        process.communicate('quit\n')


def merged(s):
    """An image without a parent; who reads the old one goes on"""
    s.must('version', 'new', 'win')
    why = first_of(
        refused(s.run('version', 'merge', 'win', '1'), 'no parent'),
        refused(s.run('version', 'merge', 'win', '2'), 'is a clone of it'))
    s.must('version', 'rm', 'win', '3')
    with reader(s.name(2, 'sealed')) as read:
        there = read(2, 65536)
        done = s.must('version', 'merge', 'win', '2')
        # Far from what was read before: nothing of it is in a cache
        there = there and read(1, 900000 // 4096 * 4096)
        left = s.images()
    s.must('version', 'revert', 'win')
    s.must('version', 'promote', 'win')
    v = env.versions(env.manifest(s.store, 'win'))[2]
    parents = json.loads(s.rbd('info', '--format', 'json', 'win.2.whole@sealed'))
    return why or first_of(
        '' if there else 'the reader does not find its version',
        '' if left == {'win.1', 'win.2', 'win.2.whole'} else
        f'meanwhile: {left}, {done}',
        '' if v['parent'] == 0 and v['image'] == 'win.2.whole' else str(v),
        f'it has a parent: {parents}' if 'parent' in parents else '',
        s.wrong())


def again(s, *words):
    """A client of Ceph that was killed counts as there for half a minute."""
    end = time.monotonic() + 60
    while True:
        done = s.run(*words)
        if 'is open' not in done.err or time.monotonic() > end:
            return done
        time.sleep(1)


def kills(s):
    """At calls on the store's own files; then the command does what it
    should"""
    for words, points in ((('version', 'new', 'win'), range(4, 17, 2)),
                          (('version', 'seal', 'win'), (6, 9, 12, 18, 25)),
                          (('version', 'retire', 'win', '1'), (6, 8, 9))):
        for n in points:
            done = s.run(*words, before=[env.CUT, s.store, s.folder / 'log',
                                         'kill', n])
            # Nobody but a command that is through its calls ends by itself
            if done.status != 99 and done.status != 0 and \
                    'is open' not in done.err:
                return f'{words} at {n}: {done}'
            if done.status == 0:
                break
        done = again(s, *words)
        if done.status and 'already' not in done.err and \
                'is in maintenance' not in done.err:
            return f'{words}: {done}'
        why = s.wrong()
        if why:
            return f'{words}: {why}'
    return '' if env.versions(env.manifest(s.store, 'win'))[1]['access'] == \
        'retired' else 'version 1 is not retired'


def imported(s):
    """An image from a file, read back from the cluster"""
    data = bytes(65536) + bytes(range(256)) * 4096 + bytes(3 << 20)
    path = s.folder / 'source.raw'
    path.write_bytes(data)
    s.must('vdisk', 'import', '-f', 'raw', path, 'disk2')
    m = env.manifest(s.store, 'disk2')
    v = m['versions'][0]
    path = s.folder / 'content'
    env.qemu_img('convert', '-O', 'raw', s.name(1, 'sealed').replace(
        s.image(1), 'disk2.1'), path)
    why = first_of(
        '' if path.read_bytes() == data else 'its content is another one',
        '' if env.tree(data, m['salt'], m['uuid'])[1] == v['root']
        else 'its root hash is another one')
    s.must('vdisk', 'verify', 'disk2')
    s.must('vdisk', 'rm', 'disk2', '--force')
    return why


def removal(s):
    number, v = max(env.versions(env.manifest(s.store, 'win')).items())
    trace = env.boot_trace(s.folder / 'trace', v, 1)
    s.must('version', 'trace', 'win', number, trace)
    given = list((s.store / 'vdisks/win').glob('*.trace'))
    with reader(s.name(number, 'sealed')) as read:
        there = read(1, 0)
        s.must('version', 'retire', 'win', number)
        s.must('version', 'rm', 'win', number)
        if not there or not read(1, 900000 // 4096 * 4096):
            return 'a version that is read is taken away'
    if not given or given[0].exists():
        return f'its boot trace: {given}'
    s.must('vdisk', 'rm', 'win', '--force')
    s.must('version', 'new', 'other', '--size', '1M')
    return '' if s.images() == {'other.1'} else f'left: {s.images()}'


def away(s):
    """The cluster is gone"""
    s.ceph.stop()
    s.ceph.monitor.stop()
    return first_of(
        refused(s.run('version', 'new', 'new', '--size', '1M', timeout=100),
                'Ceph'),
        '' if s.must('vdisk', 'list').out else 'nothing is listed')


def tests(tap, long):
    if not long and not tap.only.pattern:
        tap.skip('a store on Ceph', 'it takes a minute: --long')
        return
    with env.Folder() as folder:
        image = folder / 'image'
        image.write_bytes(bytes(1 << 20))

        def with_ceph():
            with Ceph(pathlib.Path(image)) as ceph:
                s = OnCeph(folder, ceph)
                for test in (life, merged, imported, kills, removal,
                             away):
                    tap.run(f'Ceph: {test.__name__}', test, s)

        if tap.only.search('Ceph'):
            tap.run('Ceph: a cluster of one', with_ceph)

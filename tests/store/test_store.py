# SPDX-License-Identifier: GPL-2.0-or-later
"""Stores and versions: what an administrator does, and what goes wrong."""

import contextlib
import json
import os
import subprocess
import time

from . import env
from .env import deskcast, must
from stores.process import Missing
from .test_kill import SIZE, both, first, sealed, second, second_pvs, third, write


def refused(done, *texts, status=1):
    """Not done, and said why."""
    if done.status != status:
        return f'exit {status} is expected: {done}'
    missing = [t for t in texts if t not in done.err]
    return f'not said: {missing}: {done}' if missing else ''


def first_of(*reasons):
    return next((str(r) for r in reasons if r), '')


def kept(store, before):
    """Nothing was changed."""
    return '' if env.state(store) == before else 'the store was changed'


# Names

NAMES = ['', 'a/b', '..', '../win', 'a b', 'a\nb', 'a\x1b[2J', 'n' * 300, 'Übung',
         '-', '-x', '.hidden', 'a@b', 'a:b', 'a,b', 'json:{}', 'win\u202e', "a'b"]


def bad_names(folder):
    store = folder / 'store'
    must('store', 'create', store)
    for name in NAMES:
        for words in (['version', 'new', '--size', '1M'], ['vdisk', 'show'],
                      ['version', 'seal'], ['vdisk', 'rm']):
            done = deskcast(*words, '--', name, store=store)
            if done.status != 2 or not done.err or '\x1b' in done.err:
                return f'{words} {name!r}: {done}'
    if env.strangers(store):
        return f'there are {env.strangers(store)}'
    longest = 'n' * 127
    must('version', 'new', longest, '--size', '1M', store=store)
    must('version', 'seal', longest, store=store)
    return env.what_is_wrong(store)


def bad_numbers(folder):
    sealed(folder / 'store')
    for text in ('0', '-1', '1.5', 'x', '1000000001', '99999999999999999999', ''):
        done = deskcast('version', 'retire', 'win', '--', text,
                        store=folder / 'store')
        why = refused(done, 'not the number of a version', status=2) \
            if text else refused(done, status=2)
        if why:
            return f'{text!r}: {why}'
    return first_of(
        refused(deskcast('version', 'retire', 'win', '2',
                         store=folder / 'store'), 'has no version 2'),
        refused(deskcast('version', 'retire', 'win@1', '1',
                         store=folder / 'store'), 'two versions', status=2),
        refused(deskcast('version', 'new', 'win', '--size', '1000',
                         store=folder / 'store'), 'multiple of 4096'),
        refused(deskcast('version', 'new', 'win', '--size', '4K',
                         store=folder / 'store'), 'cannot shrink'),
        refused(deskcast('version', 'new', 'win', '--size', '2048T',
                         store=folder / 'store'), 'up to 1 PiB'),
        refused(deskcast('version', 'new', 'win', '--size', '-4K',
                         store=folder / 'store'), 'not a size', status=2),
        refused(deskcast('version', 'new', 'win', '--comment', 'a\nb',
                         store=folder / 'store'), "'comment'"),
        env.what_is_wrong(folder / 'store'), env.strangers(folder / 'store'))


# One after the other

def life(folder):
    """What the versions are, after each step."""
    store = folder / 'store'
    sealed(store)

    def access():
        return {v['version']: (v['access'], v['current'])
                for v in must('vdisk', 'show', 'win', '--json',
                              store=store).json()['versions']}

    steps = [
        (('version', 'promote', 'win'), {1: ('production', True)}),
        (('version', 'new', 'win'),
         {1: ('production', True), 2: ('maintenance', False)}),
        (('version', 'seal', 'win'),
         {1: ('production', True), 2: ('test', False)}),
        (('version', 'promote', 'win@2'),
         {1: ('production', False), 2: ('production', True)}),
        (('version', 'revert', 'win'),
         {1: ('production', True), 2: ('test', False)}),
        (('version', 'promote', 'win', '2'),
         {1: ('production', False), 2: ('production', True)}),
        (('version', 'merge', 'win', '2'),
         {1: ('production', False), 2: ('production', True)}),
        (('version', 'retire', 'win', '1'),
         {1: ('retired', False), 2: ('production', True)}),
        (('version', 'rm', 'win', '1'), {2: ('production', True)}),
    ]
    for words, want in steps:
        must(*words, store=store)
        if access() != want:
            return f'after {words}: {access()}'
    # Numbers are not used twice, whatever was deleted
    must('version', 'new', 'win', store=store)
    must('version', 'rm', 'win', '3', store=store)
    done = must('version', 'new', 'win', '--json', store=store).json()
    if done['version'] != 4:
        return f'the next version is {done["version"]}'
    return env.what_is_wrong(store) or env.strangers(store)


def twice(folder):
    store = folder / 'store'
    both(store)
    before = env.state(store)
    why = first_of(
        refused(deskcast('version', 'seal', 'win', store=store),
                'version 2', 'sealed already'),
        refused(deskcast('version', 'seal', 'win', '1', store=store),
                'version 1', 'sealed already'),
        kept(store, before))
    must('version', 'promote', 'win', store=store)
    return why or first_of(
        refused(deskcast('version', 'promote', 'win', '2', store=store),
                'in production already'),
        refused(deskcast('version', 'promote', 'win', store=store),
                'no version in test'),
        refused(deskcast('version', 'retire', 'win', '2', store=store),
                'what desktops take'),
        refused(deskcast('version', 'rm', 'win', '2', store=store),
                'is in production'),
        refused(deskcast('vdisk', 'rm', 'win', store=store), 'in production'))


def two_writers(folder):
    """At most one version in maintenance; a parent stays."""
    store = folder / 'store'
    second(store)
    before = env.state(store)
    why = first_of(
        refused(deskcast('version', 'new', 'win', store=store),
                'version 2', 'is in maintenance'),
        refused(deskcast('version', 'promote', 'win', '2', store=store),
                'still written to'),
        refused(deskcast('version', 'merge', 'win', '2', store=store),
                'seal it'),
        kept(store, before))
    must('version', 'seal', 'win', store=store)
    must('version', 'promote', 'win', store=store)
    must('version', 'retire', 'win', '1', store=store)
    return why or refused(deskcast('version', 'rm', 'win', '1', store=store),
                          'is the parent of version 2', 'version merge win 2')


def open_for_writing(folder):
    """A VM has the image open: it is not sealed, and not deleted."""
    store = folder / 'store'
    second(store)
    m = env.manifest(store, 'win')
    node = env.chain(store, 'win', m, env.versions(m)[2])
    del node['file']['locking']
    with subprocess.Popen([env.BUILD / 'qemu/qemu-io',
                           'json:' + json.dumps(node)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        vm.stdin.write('write -P 9 0 4096\n')
        vm.stdin.flush()
        while 'wrote' not in vm.stdout.readline():
            pass
        begin = time.monotonic()
        why = first_of(
            refused(deskcast('version', 'seal', 'win', '--wait', '1',
                             store=store), 'open for writing'),
            '' if 1 <= time.monotonic() - begin < 10 else 'it did not wait',
            refused(deskcast('version', 'rm', 'win', '2', store=store),
                    'open for writing'),
            '' if env.state(store)['win'][2]['access'] == 'maintenance'
            else 'it was sealed all the same')
        vm.communicate('quit\n')
    if why:
        return why
    must('version', 'seal', 'win', store=store)
    return env.what_is_wrong(store)


def reader(image):
    """A desktop that has read from it"""
    desktop = subprocess.Popen([env.BUILD / 'qemu/qemu-io', '-r', '-f', 'raw', image],
                               text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    desktop.stdin.write('read 0 4096\n')
    desktop.stdin.flush()
    while 'read' not in desktop.stdout.readline():
        pass
    return desktop


def in_use(folder):
    """A retired version that a desktop runs on still is not deleted"""
    store = folder / 'store'
    both(store)
    must('version', 'promote', 'win', '2', store=store)
    must('version', 'merge', 'win', '2', store=store)
    must('version', 'retire', 'win', '1', store=store)
    with reader(store / 'vdisks/win/1.raw') as desktop:
        why = refused(deskcast('version', 'rm', 'win', '1', store=store),
                      'is in use', '1.raw')
        desktop.communicate('quit\n')
    must('version', 'rm', 'win', '1', store=store)
    return why or env.what_is_wrong(store) or env.strangers(store)


# Labels of private image mode

def write_label(store, how, folder):
    """Behind version 2, as its private desktop would."""
    made = subprocess.run([env.OURS / 'tests/store/label', how, 'win', '2',
                           str(SIZE)], check=True, stdout=subprocess.PIPE).stdout
    path = folder / 'label'
    path.write_bytes(made)
    write(store, 'win', 2, f'-s {path}', SIZE, 4096)


def label(folder):
    """Sealing goes by the label of private image mode"""
    store = folder / 'store'
    second_pvs(store)
    m = env.manifest(store, 'win')
    if env.versions(m)[2]['label'] is not True:
        return 'it has no label'
    if len(env.content(store, 'win', 2)) != SIZE + 4096:
        return 'there is no room for the label'
    write(store, 'win', 2, 0x55, SIZE, 512)
    why = first_of(
        refused(deskcast('version', 'seal', 'win', store=store),
                'no valid label'),
        '' if env.manifest(store, 'win')['versions'][1]['label']
        else 'it has lost its label',
        '' if len(env.content(store, 'win', 2)) == SIZE + 4096
        else 'the label was cut off')
    if why:
        return why
    write_label(store, 'open', folder)
    why = first_of(
        refused(deskcast('version', 'seal', 'win', store=store),
                'not left in order', 'reconnect buffer'),
        '' if env.manifest(store, 'win')['versions'][1]['label']
        else 'it has lost its label',
        '' if len(env.content(store, 'win', 2)) == SIZE + 4096
        else 'the label was cut off')
    if why:
        return why
    write_label(store, 'closed', folder)
    data = env.content(store, 'win', 2)[:SIZE]
    must('version', 'seal', 'win', store=store)
    if env.content(store, 'win', 2) != data:
        return 'sealing changed the content'
    return env.what_is_wrong(store)


# Verification and release

def damaged(folder):
    """A tree or an image that is not what was sealed is not promoted."""
    store = folder / 'store'
    both(store)
    path = store / 'vdisks/win/2.tree'
    path.chmod(0o600)
    good = path.read_bytes()
    results = []
    for bad in (b'', good[:100], b'x' + good[1:], good[:4096] + b'x' +
                good[4097:], good[:len(good) - 4096]):
        path.write_bytes(bad)
        results.append(refused(deskcast('version', 'promote', 'win',
                                        store=store), '2.tree'))
    path.unlink()
    results.append(refused(deskcast('version', 'promote', 'win', store=store),
                           '2.tree'))
    path.write_bytes(good)
    image = store / 'vdisks/win/1.raw'
    image.chmod(0o600)
    with open(image, 'r+b') as f:
        f.truncate(4096)
    results.append(refused(deskcast('version', 'promote', 'win', '2',
                                    store=store), 'was sealed with'))
    image.rename(folder / 'gone')
    results.append(refused(deskcast('version', 'promote', 'win', '2',
                                    store=store), '1.raw'))
    return first_of(*results)


def marked(folder):
    """What failed verification says so, and is not promoted."""
    store = folder / 'store'
    both(store)
    path = store / 'vdisks/win/manifest.json'
    m = json.loads(path.read_text())
    m['versions'][1]['failed'] = '2026-11-01T12:00:00Z'
    path.write_text(json.dumps(m))
    return first_of(
        refused(deskcast('version', 'promote', 'win', store=store),
                'is damaged', '2026-11-01 12:00'),
        '' if 'damaged' in must('vdisk', 'show', 'win', store=store).out
        else 'it is not shown')


def release(folder):
    """A promotion takes effect by itself at its date."""
    store = folder / 'store'
    both(store)

    def current():
        return must('vdisk', 'show', 'win', '--json',
                    store=store).json()['current']

    date = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + 3))
    must('version', 'promote', 'win', '2', '--release', date, store=store)
    if current() != 1:
        return 'it is current before its date'
    shown = must('vdisk', 'show', 'win', store=store).out
    if 'production from' not in shown:
        return f'the date is not shown: {shown}'
    time.sleep(3.2)
    if current() != 2:
        return 'it is not current after its date'
    must('version', 'revert', 'win', store=store)
    if current() != 1 or 'released' in env.manifest(store, 'win')['versions'][1]:
        return 'revert left the date'
    must('version', 'promote', 'win', '2', '--release', '2999-01-01',
         store=store)
    # One that is not out yet can go back, though it is not the only one
    must('version', 'revert', 'win', store=store)
    return first_of(
        refused(deskcast('version', 'promote', 'win', '2', '--release', 'soon',
                         store=store), 'not a date', status=2),
        refused(deskcast('version', 'promote', 'win', '2', '--release',
                         '1900-01-01', store=store), 'years', status=2),
        '' if current() == 1 else 'the current one changed')


# Somebody else, and file systems

def second_administrator(folder):
    """Refused at once, and told who is first"""
    store = folder / 'store'
    second(store)
    slow = folder / 'slow'
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {env.QSD} "$@"\n')
    slow.chmod(0o755)
    with subprocess.Popen([env.DESKCAST, 'version', 'seal', 'win', '--store',
                           store], stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL,
                          env={**env.ENV, 'DESKCAST_QSD': str(slow)}) as one:
        end = time.monotonic() + 10
        while str(one.pid) not in (store / 'lock').read_text() and \
                time.monotonic() < end:
            time.sleep(0.01)
        begin = time.monotonic()
        why = first_of(*(
            refused(deskcast(*words, store=store), 'is being changed by',
                    f'process {one.pid} ', 'deskcast version seal')
            for words in (('version', 'promote', 'win', '1'),
                          ('version', 'new', 'linux', '--size', '1M'),
                          ('vdisk', 'rm', 'win', '--force'))))
        took = time.monotonic() - begin
        # Reading needs no lock
        shown = must('vdisk', 'show', 'win', '--json', store=store).json()
        if one.wait(30):
            return f'sealing failed: {one.returncode}'
    if shown['versions'][1]['access'] != 'maintenance':
        return 'the first was done before the second came'
    must('version', 'promote', 'win', '2', store=store)
    return why or ('' if took < 5 else f'refused after {took:.1f} s')


class Mounted:
    """A file system in memory on a folder, for root only."""

    def __init__(self, folder, size):
        self.folder, self.size = folder / 'mount', size

    def __enter__(self):
        self.folder.mkdir()
        done = self.call('mount', '-t', 'tmpfs', '-o', f'size={self.size}',
                         'deskcast-test', self.folder)
        if done.returncode:
            raise Missing(f'mount: {done.stderr.strip()}')
        return self

    @staticmethod
    def call(*argv):
        return subprocess.run([str(a) for a in argv], text=True,
                              capture_output=True, check=False)

    def __exit__(self, *_):
        self.call('umount', '-l', self.folder)


def full(folder):
    """A file system that is really full, and then has room again"""
    with Mounted(folder, '4M') as mount:
        store = mount.folder / 'store'
        second(store)
        ballast = mount.folder / 'ballast'
        with open(ballast, 'wb', buffering=0) as f, \
                contextlib.suppress(OSError):
            while True:
                f.write(bytes(4096))
        before = env.state(store)
        results = [refused(deskcast(*words, store=store), 'No space left')
                   for words in (('version', 'seal', 'win'),
                                 ('version', 'revert', 'win', '--force'),
                                 ('version', 'new', 'x', '--size', '1M'))]
        results += [kept(store, before), env.what_is_wrong(store)]
        ballast.unlink()
        if any(results):
            return first_of(*results)
        must('version', 'seal', 'win', store=store)
        return first_of(env.what_is_wrong(store), env.strangers(store))


def read_only(folder):
    """A file system mounted read-only: reading works, changing says why"""
    with Mounted(folder, '2M') as mount:
        store = mount.folder / 'store'
        both(store)
        mount.call('mount', '-o', 'remount,ro', mount.folder)
        before = env.state(store)
        return first_of(
            refused(deskcast('version', 'promote', 'win', store=store),
                    'read-only'),
            refused(deskcast('version', 'new', 'win', store=store),
                    'read-only'),
            '' if must('vdisk', 'list', store=store).out else 'nothing listed',
            kept(store, before))


def vanishing(folder):
    """The file system goes away while a version is sealed"""
    with Mounted(folder, '2M') as mount:
        store = mount.folder / 'store'
        second(store)
        slow = folder / 'slow'
        slow.write_text(f'#!/bin/sh\numount -l {mount.folder}\n'
                        f'exec {env.QSD} "$@"\n')
        slow.chmod(0o755)
        done = deskcast('version', 'seal', 'win', store=store,
                        environment={'DESKCAST_QSD': str(slow)})
        left = list(mount.folder.iterdir())
        return first_of(refused(done, ''),
                        f'{left} was made below the mount point' if left
                        else '')


# Manifests that somebody edited

def broken(folder):
    """A manifest that is not valid: nothing is done with the vDisk, the others
    work on, and it is told what is wrong."""
    store = folder / 'store'
    third(store)
    must('version', 'new', 'linux', '--size', '1M', store=store)
    path = store / 'vdisks/win/manifest.json'
    good = path.read_text()

    def edit(change):
        m = json.loads(good)
        change(m)
        return json.dumps(m)

    cases = [
        ('', 'JSON object'), (good[:200], ''), (good + '}', ''),
        (good.replace('"next" : 4', '"next" : 4, "next" : 4'), 'twice'),
        ('\0' * 100, 'UTF-8'), ('[' * 100000, 'deep'),
        (edit(lambda m: m.update({'deskcast-manifest': 2})), 'newer one'),
        (edit(lambda m: m.update({'future': 1})), "'future'"),
        (edit(lambda m: m['versions'].pop(1)), 'parent 2 is missing'),
        (edit(lambda m: m['versions'].pop(0)), 'parent 1 is missing'),
        (edit(lambda m: m['versions'].append(m['versions'][0])), 'after version'),
        (edit(lambda m: m['versions'][0].update(image='../../x')), "'image'"),
        (edit(lambda m: m['versions'][0].update(size=10 ** 30)), 'too large'),
        (edit(lambda m: m['versions'][1].update(format='raw')), 'not qcow2'),
        (edit(lambda m: m.update(vdisk='linux')), "vDisk 'linux'"),
        (' ' * (9 << 20), 'longer than'),
    ]
    for text, reason in cases:
        path.write_text(text)
        why = first_of(
            refused(deskcast('vdisk', 'show', 'win', store=store),
                    "manifest of 'win'", reason),
            refused(deskcast('version', 'promote', 'win', store=store),
                    "manifest of 'win'", reason),
            '' if path.read_text() == text else 'it was changed',
            refused(deskcast('vdisk', 'list', store=store), "'win'"),
            '' if 'linux' in deskcast('vdisk', 'list', store=store).out
            else 'the other vDisk is not listed')
        if why:
            return f'{text[:60]!r}: {why}'
    path.write_text(good)
    must('version', 'seal', 'linux', store=store)
    left = {p.name for p in path.parent.iterdir()}
    if left != {'manifest.json'} | {f'{n}.tree' for n in (1, 2, 3)} | \
            {'1.raw', '2.qcow2', '3.qcow2'}:
        return f'files are gone, or came: {left}'
    path.unlink()
    path.symlink_to('/etc/passwd')
    why = refused(deskcast('vdisk', 'show', 'win', store=store), 'manifest.json')
    path.unlink()
    os.mkfifo(path)
    return why or refused(deskcast('vdisk', 'show', 'win', store=store,
                                   timeout=10), 'regular file')


def broken_store(folder):
    """store.json, the same."""
    store = folder / 'store'
    first(store)
    path = store / 'store.json'
    m = json.loads(path.read_text())
    cases = [
        ({**m, 'deskcast-store': 2}, 'newer one'), ({**m, 'x': 1}, "'x'"),
        ({**m, 'images': {'type': 'tape'}}, 'neither file nor rbd'),
        ({**m, 'images': {'type': 'rbd', 'pool': 'a b'}}, 'pool'),
        ({**m, 'images': {'type': 'rbd', 'pool': '-p'}}, 'pool'),
        ({**m, 'images': {'type': 'rbd', 'pool': 'p', 'conf': 'x'}}, 'whole path'),
        ({**m, 'uuid': 'x'}, "'uuid'"), ([], 'no JSON object'),
    ]
    for text, reason in cases:
        path.write_text(json.dumps(text))
        why = refused(deskcast('vdisk', 'list', store=store), 'store.json',
                      reason)
        if why:
            return f'{text}: {why}'
    path.unlink()
    return first_of(
        refused(deskcast('vdisk', 'list', store=store), 'is no store'),
        refused(deskcast('vdisk', 'list', store=folder / 'none'), 'none'),
        refused(deskcast('store', 'create', '/proc/nothing'), '/proc/nothing'),
        refused(deskcast('store', 'create', folder), 'is not empty'),
        refused(deskcast('store', 'create'), 'one folder', status=2))


def strange_folder(folder):
    """A store whose path is hard to quote"""
    store = folder / "a b,c:d=%e'f\"\\gü"
    third(store)
    must('version', 'merge', 'win', 3, store=store)
    must('version', 'new', 'win', '--for', 'pvs', store=store)
    must('version', 'seal', 'win', store=store)
    return first_of(env.what_is_wrong(store), env.strangers(store))


def interrupted(folder):
    """Sealing of a private version that was cut short: it can be written on"""
    store = folder / 'store'
    second_pvs(store)
    path = store / 'vdisks/win/manifest.json'
    m = json.loads(path.read_text())
    m['versions'][1]['label'] = False
    path.write_text(json.dumps(m))
    (path.parent / '2.qcow2').chmod(0o444)
    must('version', 'revert', 'win', '--force', store=store)
    return first_of(
        '' if env.manifest(store, 'win')['versions'][1]['label']
        else 'its label is not noted',
        '' if (path.parent / '2.qcow2').stat().st_mode & 0o200
        else 'it cannot be written')


def stranger(folder):
    """A file with the name of the next version's image is nobody's to delete."""
    store = folder / 'store'
    sealed(store)
    path = store / 'vdisks/win/2.qcow2'
    path.write_text('mine')
    before = env.state(store)
    why = refused(deskcast('version', 'new', 'win', store=store), '2.qcow2',
                  'move it away')
    if why or path.read_text() != 'mine':
        return why or 'it was changed'
    path.rename(path.with_name('2.tree'))
    must('version', 'new', 'win', store=store)
    return '' if env.state(store) != before else 'no version was made'


def leftovers(folder):
    """What crashes left goes with the next change, and not with reading"""
    store = folder / 'store'
    both(store)
    (store / '.new-store.json').write_text('half')
    (store / 'vdisks/win/.new-2.qcow2').write_text('half')
    (store / 'vdisks/win/.new-manifest.json').write_text('half')
    for name in ('.new-x', '.old-y'):
        (store / 'vdisks' / name).mkdir()
        (store / 'vdisks' / name / 'manifest.json').write_text('half')
        (store / 'vdisks' / name / '1.raw').write_text('half')
    path = store / 'vdisks/win/manifest.json'
    m = json.loads(path.read_text())
    m['unused'] = ['9.raw', '9.tree', 'gone.raw']
    path.write_text(json.dumps(m))
    for name in ('9.raw', '9.tree', 'mine.txt'):
        (store / 'vdisks/win' / name).write_text('half')
    must('vdisk', 'list', store=store)
    if len(env.strangers(store)) != 12:
        return f'reading changed what is there: {env.strangers(store)}'
    must('version', 'promote', 'win', store=store)
    left = env.strangers(store)
    return first_of('' if left == ['vdisks/win/mine.txt'] else f'left: {left}',
                    '' if env.manifest(store, 'win')['unused'] == []
                    else 'they are listed as unused still',
                    env.what_is_wrong(store))


def modes(folder):
    """Desktops can read what an administrator with a narrow umask has made"""
    store, image = folder / 'store', folder / 'in.raw'
    image.write_bytes(bytes(1 << 20))
    before = ('sh', '-c', 'umask 077; exec "$@"', 'sh')
    for argv in (('store', 'create', store), ('vdisk', 'import', image, 'win'),
                 ('version', 'new', 'win'), ('version', 'seal', 'win'),
                 ('version', 'merge', 'win', '2')):
        must(*argv, store=store, before=before)
    narrow = [p for p in (store, *store.rglob('*'))
              if p.stat().st_mode & 0o055 != (0o055 if p.is_dir() else 0o044)]
    return str(narrow or '')


def elsewhere(folder):
    """An image whose header says that its data are in another file, or that they
    are encrypted, is not sealed, not promoted and not served. Without that QEMU
    opens whatever file the header names."""
    store = folder / 'store'
    must('store', 'create', store)
    must('version', 'new', 'win', '--size', '1M', store=store)
    must('version', 'seal', 'win', store=store)
    must('version', 'new', 'win', store=store)
    image = store / 'vdisks/win/2.qcow2'
    sound = image.read_bytes()
    other = folder / 'other.raw'
    env.qemu_img('create', '-f', 'qcow2', '-o',
                 f'data_file={other},data_file_raw=on', image, '1M')
    why = refused(deskcast('version', 'seal', 'win', store=store),
                  'has its data in another file')
    image.write_bytes(sound[:35] + b'\1' + sound[36:])
    why = why or refused(deskcast('version', 'seal', 'win', store=store),
                         'is encrypted')
    image.write_bytes(sound)
    must('version', 'seal', 'win', store=store)
    os.chmod(image, 0o644)
    env.qemu_img('create', '-f', 'qcow2', '-o',
                 f'data_file={other},data_file_raw=on', image, '1M')
    return why or refused(deskcast('version', 'promote', 'win', store=store),
                          'has its data in another file')


def tests(tap, _long):
    for test_ in (life, twice, two_writers, open_for_writing, in_use, label,
                  damaged, second_administrator, full, read_only, vanishing,
                  marked, release, bad_names, bad_numbers, modes, elsewhere, broken,
                  broken_store, stranger, strange_folder, interrupted, leftovers):
        def run(test_=test_):
            with env.Folder() as folder:
                return test_(folder)
        text = (test_.__doc__ or test_.__name__).split('.', 1)[0].split('\n')[0]
        tap.run(f'{test_.__name__}: {text}'.replace('_', ' '), run)

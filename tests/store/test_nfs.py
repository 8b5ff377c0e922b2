# SPDX-License-Identifier: GPL-2.0-or-later
"""A store on NFS 4, which two hosts change: guests, and a server here."""

import os
import pathlib
import shlex
import shutil
import tempfile
import time

from stores.process import LARGE, until
from stores.tap import Tap

from . import env, nfs_kill
from .env import must
from .nfs import MOUNT, PATIENCE, TOOLS, Place
from .test_kill import both, contents, second, third
from .test_store import first_of, refused

MIB = 1 << 20
SLOW = {'DESKCAST_QSD': f'{TOOLS}/slow'}


def node(store, there, number):
    """Version @number as a host's QEMU opens it, with its locks."""
    m = env.manifest(store, 'win')
    chain = env.chain(there, 'win', m, env.versions(m)[number])
    layer = chain
    while layer:
        del layer['file']['locking']
        layer = layer.get('backing')
    return 'json:' + env.json.dumps(chain)


def qemu_io(image, option=''):
    return f'{TOOLS}/qemu-io {option} {shlex.quote(image)}'


def whole(store):
    return env.what_is_wrong(store) or \
        first_of(*[f'left: {n}' for n in env.strangers(store)])


def make_source(path, size):
    """Data, a hole, and data again"""
    half = os.urandom(size // 2)
    with open(path, 'wb') as f:
        f.write(half)
        f.seek(size)
        f.write(half)
    return half + bytes(size - len(half)) + half


# What an administrator does


def life(place, version):
    """With a mount of its own on both"""
    store, _ = place.store(f'life-{version}')
    for host in (place.a, place.b):
        host.mount('/mnt/life', 'www', vers=version)
    try:
        return live(place.a, place.b, store,
                    MOUNT.with_name('life') / store.parent.name / 'store')
    finally:
        for host in (place.a, place.b):
            host.run('umount /mnt/life')


def live(a, b, store, there):
    """Each step on the other host than the one before"""
    one = make_source(store.with_name('source'), 4 * MIB)
    a.must('store', 'create', there, store=there)
    b.must('vdisk', 'import', '-f', 'raw', there.with_name('source'), 'win',
           store=there)
    a.must('version', 'promote', 'win', store=there)
    b.must('version', 'new', 'win', store=there)
    a.run(f'{qemu_io(node(store, there, 2))} -c "write -P 7 1M 2M" -c flush')
    b.must('version', 'seal', 'win', store=there)
    a.must('version', 'promote', 'win', store=there)
    two = one[:MIB] + b'\7' * 2 * MIB + one[3 * MIB:]
    return first_of(
        '' if env.content(store, 'win', 1) == one else 'version 1 is another',
        '' if env.content(store, 'win', 2) == two else 'version 2 is another',
        ends(b, store, there), whole(store))


def ends(host, store, there):
    """What follows when both are there: seen, merged, taken out, removed"""
    diff = host.must('version', 'diff', 'win', '1', '2', '--json',
                     store=there).json()
    host.must('vdisk', 'verify', 'win', store=there)
    two = env.content(store, 'win', 2)
    host.must('version', 'merge', 'win', '2', store=there)
    host.must('vdisk', 'export', 'win', '2', there.with_name('out'), '-f', 'raw',
              store=there)
    host.must('vdisk', 'verify', 'win', store=there)
    host.must('version', 'retire', 'win', '1', store=there)
    host.must('version', 'rm', 'win', '1', store=there)
    host.must('store', 'status', store=there)
    return first_of(
        '' if sum(r['bytes'] for r in diff['ranges']) == 2 * MIB else diff,
        '' if env.content(store, 'win', 2) == two else 'merged, it is another',
        '' if store.with_name('out').read_bytes() == two else
        'what was taken out is another')


# Two of them


def prepared(place, name, prepare):
    """A store that was made on the server's own disk"""
    store, there = place.store(name)
    prepare(store)
    return store, there


def seal_slowly(place, name):
    """Host a is in the middle of it, and has the lock"""
    store, there = prepared(place, name, second)
    place.a.begin('version', 'seal', 'win', store=there, environment=SLOW)
    place.a.until_slow()
    return store, there


def go_on(host):
    host.run('rm -f /run/slow')
    return host.end()


def turned_away(host, there):
    return refused(host.deskcast('version', 'new', 'other', '--size', '1M',
                                 store=there),
                   'is being changed by process', 'on admin-a', 'try again')


def busy(place):
    """While one changes the store another one is told who does; he can read"""
    b = place.b
    store, there = seal_slowly(place, 'busy')
    why = turned_away(b, there)
    by = b.deskcast('store', 'status', '--json', store=there).json()['changed-by']
    b.must('vdisk', 'verify', 'win', '1', store=there)
    done = go_on(place.a)
    b.must('version', 'promote', 'win', store=there)
    return why or first_of(
        '' if by and 'on admin-a' in by else f'changed by {by}',
        '' if done.status == 0 else done, whole(store))


def written(place):
    """A version that a master VM of another host has open is not sealed"""
    a, b = place.a, place.b
    store, there = prepared(place, 'written', second)
    b.run(f"(sh -c 'echo $$ >/run/vm; exec sleep 1000' | "
          f'{qemu_io(node(store, there, 2))}) >/run/said 2>&1 </dev/null &')
    until(lambda: 'written' in a.deskcast('store', 'status', store=there).out,
          PATIENCE, 'the other host has it open')
    why = refused(a.deskcast('version', 'seal', 'win', '--wait', '1',
                             store=there), 'is open for writing')
    b.run('kill $(cat /run/vm)')
    a.must('version', 'seal', 'win', store=there)
    return why or whole(store)


def read(place):
    """Who reads a version that another host merges goes on"""
    a, b = place.a, place.b
    store, there = prepared(place, 'read', third)
    b.run('rm -f /run/ask; mkfifo /run/ask; '
          "(sh -c 'echo $$ >/run/keep; exec sleep 1000' >/run/ask "
          '</dev/null 2>/dev/null &); '
          f'({qemu_io(node(store, there, 2), "-r")} </run/ask '
          '>/run/said 2>&1 &)')
    b.run('echo "read -P 1 0 4096" >/run/ask')
    until(lambda: 'read 4096/4096' in b.run('cat /run/said'), PATIENCE,
          'it is read')
    a.must('version', 'merge', 'win', '2', store=there)
    b.run('echo "read -P 2 64k 64k" >/run/ask')
    until(lambda: b.run('cat /run/said').count('ops;') == 2, PATIENCE,
          'it is read again')
    said = b.run('cat /run/said')
    b.run('kill $(cat /run/keep)')
    return first_of('' if 'read 65536/65536' in said and 'ail' not in said
                    else said, whole(store))


# The server


def restarted(place):
    """A server that comes back gives the lock to who had it"""
    store, there = seal_slowly(place, 'restarted')
    place.server.restart()
    why = turned_away(place.b, there)
    done = go_on(place.a)
    return why or first_of('' if done.status == 0 else done, whole(store))


def restarted_under_import(place):
    """It dies while data comes: the command goes on by itself"""
    store, there = place.store('import')
    must('store', 'create', store)
    data = make_source(store.with_name('source'), 32 * MIB)
    place.a.begin('vdisk', 'import', '-f', 'raw', there.with_name('source'), 'win',
                  store=there)
    image = store / 'vdisks/win/1.raw'
    until(lambda: image.exists() and image.stat().st_blocks * 512 > 4 * MIB,
          PATIENCE, 'it writes', 0.05)
    who = (store / 'lock').read_text()
    place.server.kill()
    time.sleep(3)
    ended = place.a.ended()
    place.server.start()
    done = place.a.end()
    place.b.must('vdisk', 'verify', 'win', store=there)
    return first_of('it ended without a server' if ended else '',
                    '' if 'on admin-a' in who else f'who changes it: {who!r}',
                    '' if done.status == 0 else done,
                    '' if env.content(store, 'win', 1) == data
                    else 'its content is another', whole(store))


def away(place):
    """Without a server a command waits; it can be killed, and nothing is lost"""
    a = place.a
    store, there = prepared(place, 'away', both)
    a.must('vdisk', 'list', store=there)
    place.server.kill()
    a.begin('version', 'promote', 'win', store=there)
    time.sleep(5)
    waited = not a.ended()
    a.run('kill -9 $(cat /run/pid)')
    a.end()
    place.server.start()
    place.b.must('version', 'promote', 'win', store=there)
    return first_of('' if waited else f'it did not wait: {a.end()}', whole(store))


def overtaken(place):
    """A host stands still for longer than its lease, and another one goes on:
    what it does then changes nothing"""
    a, b = place.a, place.b
    store, there = seal_slowly(place, 'overtaken')
    a.machine.qmp.command('stop')
    until(lambda: b.deskcast('version', 'seal', 'win', store=there).status == 0,
          PATIENCE, 'another host has the lock', 1)
    had = env.content(store, 'win', 2)
    a.machine.qmp.command('cont')
    done = go_on(a)
    b.must('version', 'promote', 'win', store=there)
    return first_of(refused(done, 'deskcast: '), whole(store),
                    '' if env.content(store, 'win', 2) == had
                    else 'its content is another')


# Names that are taken while somebody has the file open


def replaced(place, name, prepare, words, path):
    """The host dies while the file has no name: see wire.py"""
    a = place.a
    store, there = prepared(place, name, prepare)
    port, broken = place.wire(path.rpartition('/')[2])
    a.run(f'umount {MOUNT}')
    a.mount(MOUNT, 'www', port=port)
    a.run(f'(sleep 1000 <{there}/{path} >/dev/null 2>&1 &)')
    before = contents(store)
    a.begin(*words, store=there)
    until(lambda: broken.exists() or a.ended(), PATIENCE, 'the moment')
    ended = a.end() if a.ended() else ''
    a.die()
    a.boot()
    try:
        return first_of(
            f'it is not the moment: {ended}' if (store / path).exists() else '',
            goes_on(place.b, store, there, words, prepare == both),
            '' if contents(store) == before else 'the content is another')
    finally:
        a.ready()


def goes_on(b, store, there, words, read_first):
    """As the other host sees it, before it changes anything, and then"""
    if read_first:
        b.must('vdisk', 'verify', 'win', store=there)
    until(lambda: 'is being changed' not in b.deskcast(
        'version', 'retire', 'nobody', '1', store=there).err, PATIENCE, 'it is free')
    again = b.deskcast(*words, store=there)
    b.must('vdisk', 'verify', 'win', store=there)
    return first_of(
        env.what_is_wrong(store),
        *[n for n in env.strangers(store) if '/.nfs' not in n],
        '' if again.status == 0 or 'no version in test' in again.err or
        'has no parent' in again.err else again)


def manifest_replaced(place):
    """A manifest that somebody reads is replaced, and the host dies"""
    return replaced(place, 'manifest', both, ('version', 'promote', 'win'),
                    'vdisks/win/manifest.json')


def image_replaced(place):
    """An image that somebody reads is merged, and the host dies"""
    return replaced(place, 'image', third, ('version', 'merge', 'win', '2'),
                    'vdisks/win/2.qcow2')


# File systems that do not take it


def read_only(place):
    """One says so; what is there can be read"""
    a = place.a
    store, _ = prepared(place, 'old', both)
    a.mount('/mnt/old', 'old')
    there = MOUNT.with_name('old') / 'old' / 'store'
    a.must('vdisk', 'verify', 'win', store=there)
    why = refused(a.deskcast('version', 'promote', 'win', store=there),
                  'Read-only file system')
    a.run('umount /mnt/old')
    return why or whole(store)


def full(place):
    """One says so; what fits fits"""
    a = place.a
    _, source = place.store('full')
    data = make_source(place.www / 'full/large', 32 * MIB)
    (place.www / 'full/fits').write_bytes(data[:8 * MIB])
    a.mount('/mnt/small', 'small')
    there = MOUNT.with_name('small') / 'store'
    a.must('store', 'create', there, store=there)
    why = refused(a.deskcast('vdisk', 'import', '-f', 'raw',
                             source.with_name('large'), 'win', store=there),
                  'No space left', 'make room')
    left = a.run(f'ls -A {there}/vdisks')
    a.must('vdisk', 'import', '-f', 'raw', source.with_name('fits'), 'win',
           store=there)
    a.must('vdisk', 'verify', 'win', store=there)
    a.run('umount /mnt/small')
    return why or (f'left: {left}' if left else '')


def gone(place):
    """The folder is taken away on the server: one says so"""
    store, there = seal_slowly(place, 'gone')
    shutil.rmtree(store)
    done = go_on(place.a)
    return first_of(
        refused(done, 'deskcast: '),
        refused(place.b.deskcast('vdisk', 'list', store=there), 'deskcast: '),
        refused(place.b.deskcast('version', 'promote', 'win', store=there),
                'deskcast: '))


def seen(place):
    """Control: what is wrong is found wrong"""
    store, there = prepared(place, 'seen', both)
    folder = there / 'vdisks/win'
    place.b.run(f'chmod u+w {folder}/1.raw; echo x | '
                f'dd of={folder}/1.raw bs=1 seek=5 conv=notrunc')
    place.b.run(f'chmod a-w {folder}/1.raw')
    by_us = env.what_is_wrong(store)
    verified = place.a.deskcast('vdisk', 'verify', 'win', store=there)
    place.b.run(f'truncate -s 100 {folder}/manifest.json')
    listed = place.a.deskcast('vdisk', 'verify', 'win', store=there)
    try:
        cut = env.what_is_wrong(store)
    except ValueError as e:
        cut = str(e)
    return first_of('' if 'not what was sealed' in by_us else f'missed: {by_us}',
                    refused(verified), refused(listed, 'manifest'),
                    '' if cut else 'a manifest that is cut is found whole')


TESTS = (busy, written, read, restarted, restarted_under_import, away, overtaken,
         manifest_replaced, image_replaced, read_only, full, gone, seen)


def rows():
    """Of each test its name, and what to call with the place"""
    for version in ('4.2', '4.1', '4.0'):
        yield f'NFS {version}: a life', life, version
    for test in TESTS:
        text = f'NFS: {test.__name__}: {test.__doc__}'
        yield text.replace('\n    ', ' ').replace('_', ' '), test
    yield from nfs_kill.rows()


def tests(tap, long):
    if not long and not tap.only.pattern:
        tap.skip('a store on NFS', 'it takes many minutes: --long')
        return
    chosen = [row for row in rows() if tap.only.search(row[0])]

    def with_place():
        with tempfile.TemporaryDirectory(prefix='nfs-', dir=LARGE) as folder, \
                Place(pathlib.Path(folder)) as place:
            for text, test, *args in chosen:
                tap.run(text, test, place, *args)

    if chosen:
        Tap.run(tap, 'NFS: a server, and two hosts', with_place)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage is found, and where; versions come out again as they went in."""

import errno
import os
import random

from . import env, sources
from .env import deskcast, must
from .test_content import new_store
from .test_kill import write
from .test_store import first_of, refused
from stores.process import Missing

BLOCK = 4096


def three(folder):
    """Versions 1 to 3 of a vDisk; only 1 has no parent"""
    store = new_store(folder)
    sources.raw(folder / 'disk.raw')
    must('vdisk', 'import', folder / 'disk.raw', 'win', store=store)
    for number in (2, 3):
        must('version', 'new', 'win', store=store)
        for i in range(6):
            write(store, 'win', number, number * 16 + i,
                  (i * 11 + number) * 65536, 3 * BLOCK)
        write(store, 'win', number, 0, number * 65536, BLOCK)
        must('version', 'seal', 'win', store=store)
    return store


def flip(path, offset, bit=1):
    """In a file that nobody may write to"""
    path.chmod(0o644)
    with open(path, 'r+b') as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ bit]))
    path.chmod(0o444)


def verified(store, number, status):
    done = deskcast('vdisk', 'verify', 'win', number, '--json', store=store)
    if done.status != status:
        raise AssertionError(f'exit {status} is expected: {done}')
    return done.json()['versions'][0]


def ranges(found):
    return [(r['offset'], r['bytes'], r.get('file')) for r in found]


def sound(folder):
    """Versions that are sound"""
    store = three(folder)
    for number in (1, 2, 3):
        found = verified(store, number, 0)
        if not found['content'] or not found['tree'] or found['bad']:
            return str(found)
    done = must('vdisk', 'verify', store=store)
    return '' if done.out.count('as it was sealed') == 3 else str(done)


def damaged_data(folder):
    """One bit of data: the block is told, and the file that it is in"""
    store = three(folder)
    vdisk = store / 'vdisks/win'
    rnd = random.Random(3)
    for _ in range(4):
        # Where version 1 shows through in versions 2 and 3 as well
        offset = 140 * 65536 + rnd.randrange(3 * 65536)
        flip(vdisk / '1.raw', offset)
        want = [(offset // BLOCK * BLOCK, BLOCK, '1.raw')]
        for number in (1, 3):
            found = verified(store, number, 1)
            if ranges(found['bad']) != want or not found['tree'] or \
                    found['content']:
                return f'{offset}, version {number}: {found}'
            if 'failed' not in env.versions(env.manifest(store, 'win'))[number]:
                return f'version {number} is not noted as failed'
        why = refused(deskcast('version', 'promote', 'win', 3, store=store),
                      'damaged')
        flip(vdisk / '1.raw', offset)
        for number in (1, 3):
            verified(store, number, 0)
            if 'failed' in env.versions(env.manifest(store, 'win'))[number]:
                return f'version {number} stays noted as failed'
        if why:
            return why
    must('version', 'promote', 'win', 3, store=store)
    return ''


def damaged_overlay(folder):
    """One bit of data in an overlay: its file is told, not the parent's"""
    store = three(folder)
    vdisk = store / 'vdisks/win'
    image = (vdisk / '2.qcow2').read_bytes()
    at = image.index(bytes([2 * 16 + 5]) * BLOCK)
    flip(vdisk / '2.qcow2', at + 100)
    want = [((5 * 11 + 2) * 65536, BLOCK, '2.qcow2')]
    found = verified(store, 2, 1), verified(store, 3, 1)
    verified(store, 1, 0)
    return first_of(*(f for f in found if ranges(f['bad']) != want))


def damaged_tree(folder):
    """One bit of a tree, at each level: the tree is told, not the data"""
    store = three(folder)
    tree = store / 'vdisks/win/3.tree'
    for block in range(1, tree.stat().st_size // BLOCK):
        offset = block * BLOCK + 77
        flip(tree, offset)
        found = verified(store, 3, 1)
        flip(tree, offset)
        told = [r for r in found['bad-tree'] if r['offset'] <= offset <
                r['offset'] + r['bytes'] and r['file'] == '3.tree']
        if not found['content'] or found['tree'] or found['bad'] or not told:
            return f'block {block}: {found}'
    for offset in (0, 72, 90):
        flip(tree, offset)
        found = verified(store, 3, 1)
        flip(tree, offset)
        if not found['content'] or found['tree']:
            return f'byte {offset}: {found}'
    tree.rename(folder / 'away')
    found = verified(store, 3, 1)
    return '' if found['content'] and not found['tree'] else str(found)


def damaged_both(folder):
    """Data and the hashes of it: what cannot be told apart is told as such"""
    store = three(folder)
    vdisk = store / 'vdisks/win'
    tree = vdisk / '1.tree'
    last = tree.stat().st_size // BLOCK - 1
    flip(tree, last * BLOCK + 5)
    flip(vdisk / '1.raw', sources.PADDED - 2000)
    found = verified(store, 1, 1)
    unknown = ranges(found['unknown'])
    at = sources.PADDED // 524288 * 524288
    return '' if unknown == [(at, sources.PADDED - at, None)] and \
        not found['content'] and not found['bad'] else str(found)


def cut_image(folder):
    """An image that lost its end, or is gone"""
    store = three(folder)
    image = store / 'vdisks/win/1.raw'
    image.chmod(0o644)
    os.truncate(image, sources.PADDED // 2)
    why = refused(deskcast('vdisk', 'verify', 'win', 1, store=store)) or \
        refused(deskcast('vdisk', 'verify', 'win', 3, store=store))
    image.unlink()
    return why or refused(deskcast('vdisk', 'verify', 'win', store=store),
                          '1.raw')


def exported(folder):
    """Each format comes out with the content, also over parents"""
    store = three(folder)
    for number in (1, 3):
        want = env.content(store, 'win', number)
        for name in ('x.raw', 'x.qcow2', 'x.vhd', 'x.vhdx', 'x.vmdk', 'x.vdi'):
            path = folder / name
            must('vdisk', 'export', 'win', number, path, '--force',
                 store=store)
            kind = {'vhd': 'vpc'}.get(name[2:], name[2:])
            env.qemu_img('convert', '-f', kind, '-O', 'raw', path,
                         folder / 'back')
            got = (folder / 'back').read_bytes()
            if got[:len(want)] != want or any(got[len(want):]):
                return f'{number}, {name}'
    path.write_bytes(b'precious')
    why = refused(deskcast('vdisk', 'export', 'win', 1, path, store=store),
                  'exists')
    if path.read_bytes() != b'precious':
        why = why or 'a file was replaced'
    left = [p.name for p in folder.iterdir() if '.part-' in p.name]
    return first_of(
        why, left,
        refused(deskcast('vdisk', 'export', 'win', 1, folder / 'x.floppy',
                         store=store), '--format', status=2),
        refused(deskcast('vdisk', 'export', 'win', 7, folder / 'y.raw',
                         store=store), 'no version 7'))


def exported_where(folder):
    """It comes out on a file system that cannot rename without replacing, as NFS"""
    if not env.CUT.exists():
        raise Missing('cut is for x86-64')
    store = three(folder)
    out, log = folder / 'out', folder / 'log'
    out.mkdir()
    words = ('vdisk', 'export', 'win', 3, out / 'x.raw')

    def cut(n):
        return deskcast(*words, store=store, before=[
            env.CUT, out, log, errno.EINVAL, n])

    done = cut(0)
    n = next(n for n, call in enumerate(log.read_text().splitlines(), 1)
             if ' renameat2 ' in call)
    (out / 'x.raw').unlink()
    again = cut(n)
    names = [p.name for p in out.iterdir()]
    want = env.content(store, 'win', 3)
    return first_of(
        done if done.status else '', again if again.status else '',
        '' if names == ['x.raw'] else f'there are {names}',
        '' if (out / 'x.raw').read_bytes() == want else 'the content is another',
        refused(deskcast(*words, store=store), 'exists'))


def exported_wrong(folder):
    """A converter that is wrong, or a damaged version, gives no file"""
    store = three(folder)
    out = folder / 'out.raw'
    done = deskcast('vdisk', 'export', 'win', 3, out, store=store,
                    environment=sources.converter(
                        folder, sources.flip('$target', 123456)))
    why = refused(done, 'not version 3')
    flip(store / 'vdisks/win/1.raw', 140 * 65536)
    why = why or refused(deskcast('vdisk', 'export', 'win', 3, out,
                                  store=store), 'not version 3')
    left = [p.name for p in folder.iterdir() if p.name.startswith('out')]
    return why or str(left or '')


def differences(folder):
    """What differs between versions: the blocks that do, and no others"""
    store = three(folder)
    data = {n: env.content(store, 'win', n) for n in (1, 2, 3)}
    for a in data:
        for b in data:
            done = must('version', 'diff', 'win', a, b, '--json', store=store)
            got = set()
            for r in done.json()['ranges']:
                got |= set(range(r['offset'], r['offset'] + r['bytes'], BLOCK))
            want = {at for at in range(0, len(data[a]), BLOCK)
                    if data[a][at:at + BLOCK] != data[b][at:at + BLOCK]}
            if got != want:
                return f'{a}, {b}: {sorted(got ^ want)}'
    return refused(deskcast('version', 'diff', 'win', 1, 9, store=store),
                   'no version 9')


def tests(tap, _long):
    for test in (sound, damaged_data, damaged_overlay, damaged_tree,
                 damaged_both, cut_image, exported, exported_where,
                 exported_wrong, differences):
        def run(test=test):
            with env.Folder() as folder:
                return test(folder)
        tap.run(f'verify: {test.__doc__}', run)

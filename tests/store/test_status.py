# SPDX-License-Identifier: GPL-2.0-or-later
"""store status: what is in a store, who reads it, what is wrong with it."""

import contextlib
import fcntl
import json
import struct
import subprocess

from stores.process import Process, until

from . import env
from .env import deskcast, must
from .test_verify import flip, three


def status(store, *argv, expect=0):
    done = deskcast('store', 'status', '--json', *argv, store=store)
    if done.status != expect:
        raise AssertionError(f'exit {expect} is expected: {done}')
    answer = done.json()
    answer['by-number'] = {v['version']: v for d in answer['vdisks']
                           for v in d.get('versions', [])}
    return answer


def first_wrong(found, expected):
    """What of the answer about versions is not as expected"""
    for number, fields in expected.items():
        for name, value in fields.items():
            if found[number].get(name) != value:
                return f'{number}: {name} is {found[number].get(name)}'
    return ''


def life(folder):
    """Versions in each state, what waits, and what is built on what"""
    store = three(folder)
    must('version', 'promote', 'win', 1, store=store)
    must('version', 'promote', 'win', 2, '--release', '2999-01-01T00:00',
         store=store)
    must('version', 'new', 'win', store=store)
    answer = status(store)
    why = first_wrong(answer['by-number'], {
        1: {'access': 'production', 'current': True, 'waits': False,
            'children': 1, 'tree-state': 'fits', 'readers': 0},
        2: {'access': 'production', 'current': False, 'waits': True,
            'children': 1, 'tree-state': 'fits'},
        3: {'access': 'test', 'waits': False, 'children': 1},
        4: {'access': 'maintenance', 'tree-state': 'none', 'children': 0}})
    parts = sum(v['allocated'] + v['tree-allocated']
                for v in answer['by-number'].values())
    if why or answer['allocated'] != parts or answer['troubles']:
        return why or str(answer)
    said = must('store', 'status', store=store).out
    for text in ('production, current', 'production from 2999',
                 'win@2 waits for its release date, 2999-01-01', 'in files'):
        if text not in said:
            return f'{text!r} is not in {said}'
    return '' if 'changed-by' not in answer else str(answer)


def damage(folder):
    """A tree, an image, a manifest that are damaged or gone: exit 1, and which"""
    store = three(folder)
    vdisk = store / 'vdisks' / 'win'
    flip(vdisk / '1.tree', 4096 + 5)        # the block above the leaves
    found = status(store, expect=1)['by-number']
    if found[1]['tree-state'] != 'damaged' or 'trouble' in found[2]:
        return str(found)
    flip(vdisk / '1.tree', 4096 + 5)
    if status(store)['troubles']:
        return 'trouble that is over'
    (vdisk / '2.tree').rename(folder / 'tree')
    with open(vdisk / '2.qcow2', 'r+b') as f:
        f.truncate(20)
    (vdisk / '3.qcow2').unlink()
    answer = status(store, expect=1)
    found = answer['by-number']
    if found[2]['tree-state'] != 'missing' or answer['troubles'] != 2 or \
            'is no qcow2' not in found[2]['trouble'] or \
            '3.qcow2' not in found[3]['trouble']:
        return str(answer)
    (vdisk / 'manifest.json').write_text('{')
    answer = status(store, expect=1)
    if [d['vdisk'] for d in answer['vdisks'] if 'error' in d] != ['win']:
        return str(answer)
    done = deskcast('store', 'status', store=store)
    return '' if done.status == 1 and 'win' in done.out else str(done)


@contextlib.contextmanager
def writing(store, number):
    """A program of QEMU's has it open, with QEMU's locks"""
    m = env.manifest(store, 'win')
    node = json.dumps(env.chain(store, 'win', m, env.versions(m)[number]))
    with subprocess.Popen(
            [env.BUILD / 'qemu/qemu-io',
             'json:' + node.replace('"locking": "off", ', '')],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL):
        until(lambda: status(store)['by-number'][number]['written'], 30,
              'a writer is seen')
        yield


@contextlib.contextmanager
def served(store, folder):
    """By "store serve"; the address"""
    socket = folder / 'nbd'
    process = Process([env.DESKCAST, 'store', 'serve', '--store', store,
                       '--socket', socket], folder / 'log', env=env.ENV)
    url = f'nbd+unix:///?socket={socket}'
    try:
        until(lambda: deskcast('store', 'status', '--server', url,
                               store=store).status == 0, 30,
              'the server answers')
        yield url
    finally:
        process.stop()


def readers(folder):
    """Who reads and writes is counted; what a server exports is told"""
    store = three(folder)
    with served(store, folder) as url:
        # It lets clients in before it has opened all that it exports
        until(lambda: all(v['served'] for v in status(
            store, '--server', url)['by-number'].values()), 30,
              'all versions are exported')
        found = status(store, '--server', url)['by-number']
        if [v['readers'] for v in found.values()] != [1, 1, 1] or \
                not all(v['served'] for v in found.values()):
            return str(found)
        must('version', 'new', 'win', store=store)
        with writing(store, 4):
            found = status(store, '--server', url)['by-number']
            if found[4]['served'] or found[3]['written'] or \
                    [v['readers'] for v in found.values()] != [2, 2, 2, 1]:
                return str(found)
    found = status(store)['by-number']
    if any(v['readers'] or v['written'] or 'served' in v
           for v in found.values()):
        return str(found)
    done = deskcast('store', 'status', '--server', url, store=store)
    return '' if done.status == 1 and not done.out else str(done)


def locked(folder):
    """Who changes the store is told"""
    store = three(folder)
    with open(store / 'lock', 'r+b') as f:
        f.truncate(0)
        f.write(b'process 7 on kvm9\n')
        f.flush()
        fcntl.fcntl(f, fcntl.F_OFD_SETLK, struct.pack(
            'hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))
        if status(store).get('changed-by') != 'process 7 on kvm9':
            return str(status(store))
        if 'kvm9' not in must('store', 'status', store=store).out:
            return 'not told to people'
    return str(status(store).get('changed-by') or '')


def tests(tap, _long):
    for test in (life, damage, readers, locked):
        def run(test=test):
            with env.Folder() as folder:
                return test(folder)
        tap.run(f'status: {test.__doc__}', run)

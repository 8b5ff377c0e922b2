# SPDX-License-Identifier: GPL-2.0-or-later
"""What others have, or do, while a store is changed."""

from . import env
from .env import deskcast, must
from .test_kill import COMMANDS, Sweep, both, sealed, second
from .test_store import first_of, reader, refused


def all_in_use(folder):
    """A vDisk of which a desktop has a version open goes by --force only"""
    store = folder / 'store'
    sealed(store)
    with reader(store / 'vdisks/win/1.raw') as desktop:
        why = refused(deskcast('vdisk', 'rm', 'win', store=store), 'is in use', '1.raw')
        must('vdisk', 'rm', 'win', '--force', store=store)
        desktop.communicate('quit\n')
    return why or env.strangers(store)


def seal_while(folder, script):
    """What is wrong with a seal in the middle of which that runs, as of somebody
    who has the lock, too"""
    other = folder / 'other'
    other.write_text(f'#!/bin/sh\n{script}\nexec {env.QSD} "$@"\n')
    other.chmod(0o755)
    return refused(deskcast('version', 'seal', 'win', store=folder / 'store',
                            environment={'DESKCAST_QSD': str(other)}),
                   'somebody else has changed', 'lock of the store was lost')


def overtaken(folder):
    """The lock was lost, as NFS does, and somebody else has changed it"""
    store = folder / 'store'
    second(store)
    path = store / 'vdisks/win/manifest.json'
    why = seal_while(folder,
                     f"sed -i 's/\"revision\" *:[^,]*/\"revision\": 99/' {path}")
    now = env.manifest(store, 'win')
    if now['revision'] != 99 or env.versions(now)[2]['access'] != 'maintenance':
        return f'it was written over: {now}'
    must('version', 'seal', 'win', store=store)
    return why or env.what_is_wrong(store)


def sealed_meanwhile(folder):
    """The lock was lost, and somebody else has sealed it: that stays as it is"""
    store = folder / 'store'
    second(store)
    why = seal_while(folder,
                     f'if rm {store}/lock; then DESKCAST_QSD={env.QSD} '
                     f'{env.DESKCAST} version seal win; fi >{folder}/log 2>&1\n'
                     f'rm -f {store}/lock')
    must('version', 'promote', 'win', store=store)
    return why or env.what_is_wrong(store)


def replaced_manifest(folder):
    """A host died while it replaced a manifest on NFS: it has the new one's name"""
    store = folder / 'store'
    both(store)
    path = store / 'vdisks/win/manifest.json'
    path.rename(path.with_name('.new-manifest.json'))
    must('vdisk', 'verify', 'win', store=store)
    must('version', 'promote', 'win', store=store)
    return env.what_is_wrong(store) or first_of(*env.strangers(store))


def replaced_image(folder):
    """A host died while it merged a version on NFS: the same of its image"""
    s = Sweep(folder, next(r for r in COMMANDS if r[0] == 'version merge'))
    n = next(n for n, call in enumerate(s.calls, 1)
             if ' rename' in call and call.endswith('/2.qcow2'))
    s.reset()
    s.command('kill', n)
    (s.store / 'vdisks/win/2.qcow2').rename(folder / 'away')
    deskcast('version', 'retire', 'nobody', '1', store=s.store)
    return s.check_whole() or s.check_again()


def tests(tap, _long):
    for test in (all_in_use, overtaken, sealed_meanwhile,
                 replaced_manifest, replaced_image):
        def run(test=test):
            with env.Folder() as folder:
                return test(folder)
        text = test.__doc__.split('\n', maxsplit=1)[0]
        tap.run(f'{test.__name__}: {text}'.replace('_', ' '), run)

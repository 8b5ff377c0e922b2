# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot traces that versions are given."""

import os

from . import env
from .env import deskcast, must
from .test_kill import both, sealed
from .test_store import first_of, refused


def version(store, number=1):
    return env.versions(env.manifest(store, 'win'))[number]


def files(store):
    return sorted(p.name for p in (store / 'vdisks/win').glob('*.trace'))


def given(folder):
    """It is there, told of, replaced by another one, and goes with its version"""
    store = folder / 'store'
    both(store)
    must('version', 'promote', 'win', 2, store=store)
    one = env.boot_trace(folder / 'one', version(store), 5, 3)
    two = env.boot_trace(folder / 'two', version(store), 3, 5)
    (folder / 'link').symlink_to(two)
    answer = must('version', 'trace', 'win@1', one, '--json', store=store).json()
    first = files(store)
    same = (store / 'vdisks/win' / first[0]).read_bytes() == one.read_bytes()
    before = env.manifest(store, 'win')
    must('version', 'trace', 'win', '1', one, store=store)
    reasons = [
        '' if len(first) == 1 and same else f'{first}',
        '' if answer['trace'] == first[0] else f'{answer}',
        '' if env.manifest(store, 'win') == before else 'it was given twice',
        '' if f'trace     {first[0]}' in must(
            'vdisk', 'show', 'win@1', store=store).out else 'it is not told']
    must('version', 'trace', 'win@1', folder / 'link', store=store)
    second = files(store)
    reasons += [
        '' if len(second) == 1 and second != first else f'{first}, {second}',
        env.what_is_wrong(store), env.strangers(store)]
    must('version', 'merge', 'win', 2, store=store)
    must('version', 'retire', 'win', 1, store=store)
    must('version', 'rm', 'win', 1, store=store)
    return first_of(*reasons, env.strangers(store),
                    f'left: {files(store)}' if files(store) else '')


def bad_files(folder):
    """What is no trace of this version is refused, and changes nothing"""
    store = folder / 'store'
    both(store)
    v = version(store)
    good = env.boot_trace(folder / 'good', v, 5, 3)
    other = env.boot_trace(folder / 'other', version(store, 2), 5)
    longer = env.boot_trace(folder / 'size', {**v, 'size': v['size'] + 4096}, 5)
    outside = env.boot_trace(folder / 'outside', v, v['size'] // 4096)
    rotten = folder / 'rotten'
    rotten.write_bytes(good.read_bytes()[:-1] + b'\xff')
    cut = folder / 'cut'
    cut.write_bytes(good.read_bytes()[:-1])
    padded = folder / 'padded'      # as an export is, and no file
    padded.write_bytes(good.read_bytes().ljust(512, b'\0'))
    (folder / 'empty').touch()
    (folder / 'large').touch()
    os.truncate(folder / 'large', 1 << 30)
    os.mkfifo(folder / 'pipe')
    before = env.manifest(store, 'win')
    reasons = [refused(deskcast('version', 'trace', 'win@1', path, store=store),
                       path.name, text)
               for path, text in (
                   (other, 'of another version'), (longer, 'of another version'),
                   (outside, 'outside of the version'), (rotten, 'checksum'),
                   (cut, 'its length'), (padded, 'its length'),
                   (folder / 'empty', 'too short'),
                   (folder / 'large', 'is longer than'),
                   (folder / 'pipe', 'no regular file'),
                   (folder, 'no regular file'), (folder / 'none', 'No such'))]
    must('version', 'new', 'win', store=store)
    more = (
        refused(deskcast('version', 'trace', 'win@3', good, store=store),
                'is in maintenance'),
        refused(deskcast('version', 'trace', 'win@7', good, store=store),
                'has no version 7'),
        refused(deskcast('version', 'trace', 'win', good, store=store),
                'give its number', status=2),
        refused(deskcast('version', 'trace', 'win@1', store=store),
                'name of a file', status=2))
    must('version', 'rm', 'win', 3, store=store)
    now = env.manifest(store, 'win')
    return first_of(*reasons, *more, env.strangers(store),
                    '' if now['versions'] == before['versions']
                    else 'the manifest was changed')


def stranger(folder):
    """A file that has the name which it would have is nobody's to write over"""
    store = folder / 'store'
    sealed(store)
    trace = env.boot_trace(folder / 'good', version(store), 5)
    sum_ = trace.read_bytes()[15:7:-1].hex()
    path = store / f'vdisks/win/1.{sum_}.trace'
    path.write_text('mine')
    why = refused(deskcast('version', 'trace', 'win@1', trace, store=store),
                  path.name, 'move it away')
    must('version', 'promote', 'win', store=store)
    return why or ('' if path.read_text() == 'mine' else 'it was written over')


def narrow(folder):
    """A server can read what an administrator with a narrow umask gave"""
    store = folder / 'store'
    sealed(store)
    trace = env.boot_trace(folder / 'good', version(store), 5)
    must('version', 'trace', 'win@1', trace, store=store,
         before=('sh', '-c', 'umask 077; exec "$@"', 'sh'))
    path = store / 'vdisks/win' / files(store)[0]
    return '' if path.stat().st_mode & 0o777 == 0o444 else 'it cannot'


def tests(tap, _long):
    for test in (given, bad_files, stranger, narrow):
        def run(test=test):
            with env.Folder() as folder:
                return test(folder)
        tap.run(f'boot trace: {test.__doc__}', run)

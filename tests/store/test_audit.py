# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands leave in the journal."""

import pathlib
import re
import subprocess

from . import env
from .journal import heard
from .test_store import first_of
from .test_verify import flip, three


def commands(store, *all_words):
    """Exit status, errors and the journal's entries of each command."""
    environment = {**env.ENV, 'DESKCAST_STORE': str(store), 'SUDO_USER': 'ada'}
    for status, _, err, entries in heard(
            [[env.DESKCAST, *words] for words in all_words], environment):
        yield status, err, entries


NO_VDISK = ('store create', 'desktop assign')
NO_VERSION = (('store', 'create'), ('vdisk', 'rm'))


def lines(folder):
    """Each command that changes something leaves one line, others none"""
    store = folder / 'store'
    words = [
        ('store', 'create', store),
        ('version', 'new', 'win', '--size', '1M'),
        ('version', 'seal', 'win'), ('version', 'promote', 'win'),
        ('version', 'revert', 'win', '--force'),
        ('version', 'retire', 'win', '1'),
        ('version', 'new', 'win', '--from', '1'), ('version', 'rm', 'win', '2'),
        ('vdisk', 'rm', 'win'),
    ]
    reasons = wrong_lines(store, words)
    env.must('version', 'new', 'win', '--size', '1M', store=store)
    env.must('version', 'seal', 'win', store=store)
    trace = env.boot_trace(folder / 'trace', env.versions(
        env.manifest(store, 'win'))[1], 1)
    reasons += wrong_lines(store, [('version', 'trace', 'win@1', trace)])
    return first_of(*reasons)


def wrong_lines(store, words):
    versions = ['2' if '--from' in w or w[-1] == '2' else '1' for w in words]
    return [why for w, version, done in zip(words, versions,
                                            commands(store, *words))
            for why in wrong_line(w, '0' if w[:2] in NO_VERSION else version,
                                  done)]


def wrong_line(command, version, done, status=0, vdisk='win'):
    """What is wrong with the one line that it is to leave"""
    action, (ended, err, entries) = ' '.join(command[:2]), done
    fields = entries[0] if entries else {}
    want = {'DESKCAST_ACTION': action, 'DESKCAST_USER': 'ada', 'PRIORITY': '5',
            'SYSLOG_IDENTIFIER': 'deskcast', 'DESKCAST_VERSION': version,
            'DESKCAST_VDISK': '' if action in NO_VDISK else vdisk}
    got = {k: fields.get(k) for k in want}
    return ['' if ended == status else f'{action}: {err}',
            '' if got == want else f'{action}: {fields}',
            '' if len(entries) == 1 else f'{action}: {len(entries)} lines',
            '' if re.fullmatch('[0-9a-f]{32}', fields.get('MESSAGE_ID', ''))
            else f'{action}: no MESSAGE_ID',
            '' if 'ada' in fields.get('MESSAGE', '')
            else f'{action}: {fields.get("MESSAGE")}']


def contents(folder):
    """So does each that brings, merges or verifies what is in versions"""
    store, there = three(folder), folder / 'there'
    image = store / 'vdisks/win/3.qcow2'
    env.must('store', 'create', there)
    env.must('store', 'create', folder / 'other')
    replicate = ('store', 'replicate', '--from', store, '--to', there)
    verify = ('vdisk', 'verify', 'win', '3')
    reasons = []
    for store_, words, version, status in (
            (folder / 'other', ('vdisk', 'import', folder / 'disk.raw', 'win'),
             '1', 0),
            (store, replicate, '3', 0),
            (store, ('version', 'merge', 'win', '2'), '2', 0)):
        done, = commands(store_, words)
        reasons += wrong_line(words, version, done, status)
    flip(image, image.stat().st_size - 100)
    for status, word in (1, 'damaged'), (0, 'not marked'):
        done, again = commands(store, verify, verify)
        reasons += wrong_line(verify, '3', done, status)
        reasons += ['' if word in str(done[2]) else f'{word}: {done}',
                    '' if not again[2] else f'nothing changed: {again}']
        flip(image, image.stat().st_size - 100)
    done, = commands(store, replicate)
    return first_of(*reasons, f'nothing came: {done}' if done[2] else '')


def buffer(folder):
    """A reconnect buffer of v version 2, with a write that its store has not"""
    for role, size in ('copy', '64M'), ('journal', '8M'):
        subprocess.run([env.QEMU_IMG, 'create', '-q', '-f', 'pvs', '-o',
                        f'role={role},vdisk=v,version=2', folder / role, size],
                       check=True)
    node = {'driver': 'pvs', 'mode': 'private', 'stores': [
        {'driver': 'nbd', 'export': 'v',
         'server': {'type': 'unix', 'path': str(folder / 'nobody')}}],
        **{key: {'driver': 'file', 'filename': str(folder / name)}
           for key, name in (('file', 'copy'), ('journal', 'journal'))}}
    subprocess.run([env.BUILD / 'qemu/qemu-io', '-t', 'writeback', '-c',
                    'write -q -P 0x11 0 64k', '-c', 'flush',
                    'json:' + env.json.dumps(node)], check=True,
                   capture_output=True)
    return folder / 'journal'


def files(folder):
    """So do those that change files: desktop assign, journal rescue --apply"""
    for name in ('old', 'new', 'image'):
        with open(folder / f'{name}.raw', 'wb') as f:
            f.truncate(64 << 20)
    subprocess.run([env.QEMU_IMG, 'create', '-q', '-f', 'mcs', '-b',
                    folder / 'old.raw', '-F', 'raw', '-o', 'lifetime=pooled',
                    folder / 'desk.mcs'], check=True)
    assign = ('desktop', 'assign', '--image', folder / 'new.raw')
    rescue = ('journal', 'rescue', buffer(folder))
    apply = (*rescue, '--yes', '--apply', folder / 'image.raw')
    one, none, rescued, taken_out = commands(
        folder, (*assign, folder / 'desk.mcs'), (*assign, folder / 'no.mcs'),
        apply, (*rescue, '--output', folder / 'epochs'))
    return first_of(
        *wrong_line(assign, '0', one), *wrong_line(rescue, '2', rescued, vdisk='v'),
        '' if 'new.raw to 1 of 1' in str(one[2]) else f'{one}',
        *(f'nothing was changed: {d}' for d in (none, taken_out) if d[2]))


def silence(folder):
    """What reads, and what fails, leaves none"""
    store = folder / 'store'
    env.must('store', 'create', store)
    for status, err, entries in commands(
            store, ('vdisk', 'list'), ('version', 'seal', 'win'),
            ('version', 'new', 'a\nMESSAGE=b', '--size', '1M')):
        if entries:
            return f'{status} {err}: {entries}'
    return ''


def documented(_):
    """The message's id is that of the manual"""
    header = (env.TOP / 'cli/message-id.h').read_text()
    number = re.search('MESSAGE_COMMAND +"([0-9a-f]{32})"', header).group(1)
    text = pathlib.Path(env.TOP / 'docs/man/deskcast-version.rst').read_text()
    return '' if number in text else 'it is not'


def tests(tap, _long):
    for test in (lines, contents, files, silence, documented):
        def run(test=test):
            with env.Folder() as folder:
                return test(folder)
        tap.run(f'journal: {test.__doc__}', run)

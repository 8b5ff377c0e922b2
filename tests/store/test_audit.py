# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands leave in the journal. A socket stands in for journald, in a
mount namespace with a /run of its own."""

import json
import pathlib
import re
import subprocess
import sys

from stores.process import Missing

from . import env
from .test_store import first_of

LISTENER = '''
import json, os, pathlib, socket, subprocess, sys
journal = pathlib.Path('/run/systemd/journal')
journal.mkdir(parents=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.bind(str(journal / 'socket'))
    s.settimeout(0)
    for words in json.loads(sys.argv[1]):
        done = subprocess.run(words, capture_output=True, text=True)
        try:
            entry = s.recv(65536).decode()
        except BlockingIOError:
            entry = ''
        print(json.dumps([done.returncode, done.stderr, entry]), flush=True)
'''


def commands(store, *all_words):
    """Exit status, errors and the journal's fields of each command."""
    listen = [sys.executable, '-c', LISTENER, json.dumps(
        [[str(env.DESKCAST), *map(str, words)] for words in all_words])]
    inside = subprocess.run(
        ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs run /run && exec "$@"',
         'sh', *listen], capture_output=True, text=True, check=False,
        env={**env.ENV, 'DESKCAST_STORE': str(store), 'SUDO_USER': 'ada'})
    if inside.returncode:
        raise Missing(f'a mount namespace: {inside.stderr.strip()}')
    for line in inside.stdout.splitlines():
        status, err, entry = json.loads(line)
        yield status, err, dict(f.split('=', 1) for f in entry.splitlines())


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
    reasons = []
    for command, (status, err, fields) in zip(words, commands(store, *words)):
        action = ' '.join(command[:2])
        want = {'DESKCAST_ACTION': action, 'DESKCAST_USER': 'ada',
                'PRIORITY': '5', 'SYSLOG_IDENTIFIER': 'deskcast',
                'DESKCAST_VDISK': '' if command[0] == 'store' else 'win'}
        if command[0] == 'version':
            want['DESKCAST_VERSION'] = '2' if '--from' in command or \
                command[-1] == '2' else '1'
        got = {k: fields.get(k) for k in want}
        reasons.append('' if status == 0 else f'{action}: {err}')
        reasons.append('' if got == want else f'{action}: {fields}')
        reasons.append('' if re.fullmatch('[0-9a-f]{32}', fields.get(
            'MESSAGE_ID', '')) else f'{action}: no MESSAGE_ID')
        reasons.append('' if 'ada' in fields.get('MESSAGE', '')
                       else f'{action}: {fields.get("MESSAGE")}')
    return reasons


def silence(folder):
    """What reads, and what fails, leaves none"""
    store = folder / 'store'
    env.must('store', 'create', store)
    for status, err, fields in commands(
            store, ('vdisk', 'list'), ('version', 'seal', 'win'),
            ('version', 'new', 'a\nMESSAGE=b', '--size', '1M')):
        if fields:
            return f'{status} {err}: {fields}'
    return ''


def documented(_):
    """The message's id is that of the manual"""
    header = (env.TOP / 'cli/message-id.h').read_text()
    number = re.search('MESSAGE_COMMAND +"([0-9a-f]{32})"', header).group(1)
    text = pathlib.Path(env.TOP / 'docs/man/deskcast-version.rst').read_text()
    return '' if number in text else 'it is not'


def tests(tap, _long):
    for test in (lines, silence, documented):
        def run(test=test):
            with env.Folder() as folder:
                return test(folder)
        tap.run(f'journal: {test.__doc__}', run)

# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a long command is: on a terminal, in a pipe, and with --json."""

import re

from stores.terminal import errors_on_terminal

from . import env
from .test_store import first_of

MIB = 1 << 20
# What a line of a terminal is drawn again with
AGAIN, END = '\r\x1b[?7l', '\x1b[K\x1b[?7h'
BAR = re.compile(r'([a-z ]+) \[(#*) *\] (\d+)% \(\d+ of 32 MiB, \d+ MiB/s\)')


def prepared(folder):
    """What imports an image of 32 MiB, and its environment"""
    image, store = folder / 'disk.raw', folder / 'store'
    image.write_bytes(bytes(range(1, 256)) * (32 * MIB // 255) +
                      bytes(32 * MIB % 255))
    env.must('store', 'create', store)
    return ['vdisk', 'import', image, 'win'], store


def terminal(folder):
    """A bar, drawn again in its line, which ends when the step does"""
    words, store = prepared(folder)
    status, drawn = errors_on_terminal([env.DESKCAST, *words],
                                       {**env.ENV, 'DESKCAST_STORE': str(store)})
    # A terminal makes CR LF of a newline
    steps = drawn.removesuffix('\r\n').split('\r\n')
    bars = [[BAR.fullmatch(b.removesuffix(END)) for b in s.split(AGAIN)[1:]]
            for s in steps]
    if status or not drawn.endswith('\r\n') or not all(
            b and all(b) for b in bars):
        return f'exit {status}, {drawn!r}'
    shares = [[int(b[3]) for b in s] for s in bars]
    filled = [len(b[2]) for s in bars for b in s if b[3] == '100']
    return first_of(
        '' if all(s == sorted(s) and s[-1] == 100 for s in shares)
        else f'{shares}', '' if set(filled) == {24} else f'{filled}')


def pipe(folder):
    """Whole lines, one for a tenth at most, without control characters"""
    words, store = prepared(folder)
    done = env.deskcast(*words, store=store)
    lines = done.err.splitlines()
    shape = re.compile(r'[a-z ]+: \d+% \(\d+ of 32 MiB, \d+ MiB/s\)')
    steps = {line.split(':')[0] for line in lines}
    return first_of(
        '' if done.status == 0 else str(done),
        '' if lines and all(map(shape.fullmatch, lines)) and
        done.err.endswith('\n') else repr(done.err),
        '' if not re.search('[\r\x1b]', done.err) else repr(done.err),
        '' if len(lines) <= 10 * len(steps) and len(set(lines)) == len(lines)
        else f'{len(lines)} lines: {lines}')


def json(folder):
    """With --json there is nothing on standard error, on a terminal either"""
    words, store = prepared(folder)
    done = env.deskcast(*words, '--json', store=store)
    env.must('vdisk', 'rm', 'win', '--force', store=store)
    status, drawn = errors_on_terminal(
        [env.DESKCAST, *words, '--json'],
        {**env.ENV, 'DESKCAST_STORE': str(store)})
    return first_of(
        '' if done.status == 0 and done.json()['version'] == 1 else str(done),
        done.err, '' if status == 0 else f'exit {status}', drawn)


def tests(tap, _long):
    for test in (terminal, pipe, json):
        def run(test=test):
            with env.Folder() as folder:
                return test(folder)
        tap.run(f'progress: {test.__doc__}', run)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Update windows: what they promise, and when they do not open."""

import os
import time

from .process import OURS, until
from .test_private import LABEL, SIZE
from .test_private_input import MIB, Desk, connect, state
from .test_private_jobs import DATA, job, job_end, largest


def is_open(node):
    return node.pvs()['buffer']['window']


def up(d, **more):
    node = d.open(**more)
    until(lambda: state(node)['state'] == 'up', 20, 'it is up')
    return node


def crash():
    """The power fails as soon as a window is open: its host's disk forgets what
    was not flushed. The guest still needs nothing of the store."""
    with Desk() as d:
        content = os.urandom(SIZE)
        d.store.image.write_bytes(content + bytes(LABEL))
        d.start()
        node = d.node()
        node.env = {'LD_PRELOAD': str(OURS / 'tests/stores/volatile.so'),
                    'VOLATILE_IMAGE': str(node.files[0])}
        node.__enter__()
        if error := job(node, 'vdisk-window-open', reserve=MIB):
            return error
        node.popen.kill()
        node.popen.wait()
        d.store.kill()
        node = d.open()
        if not is_open(node):
            return 'the window is closed'
        held = node.pvs()['budget']['local-bytes']
        if held != SIZE:
            return f'{held} bytes are local'
        conn = connect(node)
        same = conn.read(0, SIZE // 2) + conn.read(SIZE // 2, SIZE // 2)
        conn.close()
        return None if same == content else 'it has something else'


def waits(d):
    """A window that all but needs the whole buffer, half of which is used, and
    the store is away."""
    node = up(d, buffer=2 * MIB)
    reserve = largest(node)
    if error := job(node, 'vdisk-window-open', reserve=4096) or \
            job(node, 'vdisk-window-close'):
        return error
    d.store.kill()
    conn = connect(node)
    for at in range(0, MIB, 65536):
        conn.write(at, DATA * 16)
    conn.flush()
    conn.close()
    node.command('vdisk-window-open', reserve=reserve,
                 **{'node-name': 'disk', 'job-id': 'j'})
    return node


def room():
    """It opens when there is room, and not at all when it is cancelled before."""
    with Desk() as d:
        d.start()
        node = waits(d)
        if isinstance(node, str):
            return node
        time.sleep(0.5)
        if is_open(node) or node.command('query-jobs')[0]['status'] != 'running':
            return 'it does not wait'
        node.command('block-job-cancel', device='j')
        node.qmp.wait_event('BLOCK_JOB_CANCELLED', 30, device='j')
        if is_open(node):
            return 'it is open although it was cancelled'
        node.command('vdisk-window-open', reserve=largest(node),
                     **{'node-name': 'disk', 'job-id': 'j'})
        d.store.start()
        return job_end(node) or (None if is_open(node) else 'it is not open')


def space(path):
    return path.stat().st_blocks * 512


def zeros():
    """What is zero has no space in the copy, until a window is open."""
    with Desk() as d:
        d.start()
        node = up(d)
        conn = connect(node)
        conn.zero(0, SIZE)
        conn.flush()
        conn.close()
        node.drain()
        if space(node.files[0]) >= SIZE:
            return 'it has space already: this shows nothing'
        if error := job(node, 'vdisk-window-open', reserve=MIB):
            return error
        taken = space(node.files[0])
        return None if taken >= SIZE else f'it has {taken} bytes of {SIZE}'


def tests(_, _args):
    yield 'private, window: a crash as soon as it is open', crash
    yield 'private, window: waits for room, and is cancelled', room
    yield 'private, window: zeros have their space', zeros

# SPDX-License-Identifier: GPL-2.0-or-later
"""A private vDisk whose node is inactive for a while; and its lag."""

import time

from .process import until
from .reader import Connection, ReadError
from .test_private import SECTOR, Private, stamped
from .test_private_input import Desk, connect, lag, state, write
from .test_private_jobs import job


def activate(node, active):
    node.command('blockdev-set-active', active=active, **{'node-name': 'disk'})


def unexported(d, **more):
    """A node that nobody uses; it is up."""
    node = d.node(**more)
    node.at_once = False
    node.__enter__()
    node.command('blockdev-add', **node.options)
    until(lambda: state(node)['state'] == 'up', 20, 'it is up')
    return node


def taken():
    """While it was inactive another host has written to the vDisk. A local
    file tells nobody that it has."""
    with Desk() as d:
        stores = [{'driver': 'file', 'filename': str(d.store.image)}]
        node = unexported(d, stores=stores)
        activate(node, False)
        with Private(d.dir, d.store, 'rival', stores=stores,
                     **{'take-over': True}) as rival:
            write(rival, 9)
            rival.drain()
            rival.end()
        activate(node, True)
        until(lambda: node.pvs()['fenced'], 20, 'it is fenced')
        return None if d.store.image.read_bytes()[:SECTOR] == stamped(9, 0) \
            else 'what the other has written is gone'


def left_alone():
    """An inactive node does not disconnect who has the store by now."""
    with Desk() as d:
        d.start()
        node = unexported(d)
        activate(node, False)
        holder = Connection(d.store.address, timeout=20)
        try:
            for _ in range(20):         # probe-interval is 50 ms
                holder.read(0, SECTOR)
                time.sleep(0.05)
        except (OSError, ReadError, AssertionError):
            return 'who has the store was disconnected'
        finally:
            holder.close()
        activate(node, True)
        until(lambda: state(node)['state'] == 'up', 20, 'it is up again')
    return None


def lag_ms():
    """It is how long the oldest of what the store lacks has been waiting."""
    def now():
        return node.pvs()['buffer']['lag-ms']

    with Desk() as d:
        node = d.open()
        if now():
            return f'with nothing to ship it is {now()}'
        before = time.monotonic()
        write(node)
        after = time.monotonic()
        for n in range(2, 5):
            time.sleep(0.3)
            least = (time.monotonic() - after) * 1000
            value = now()
            most = (time.monotonic() - before) * 1000
            if not least - 10 <= value <= most + 10:
                return f'it is {value}, not from {least:.0f} to {most:.0f}'
            write(node, n, n)           # younger ones do not count
        d.start()
        if error := job(node, 'vdisk-drain'):
            return error
        if now() or lag(node):
            return f'drained, it is {now()}'
        conn = connect(node)
        held = conn.read(0, SECTOR)
        conn.close()
        return None if held == stamped(1, 0) else 'it has something else'


def tests(_, _args):
    yield 'private, inactive: another has taken the vDisk', taken
    yield 'private, inactive: the store is left alone', left_alone
    yield 'private, lag-ms: with the store away, and drained', lag_ms

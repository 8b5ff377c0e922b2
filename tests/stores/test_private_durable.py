# SPDX-License-Identifier: GPL-2.0-or-later
"""A private vDisk with durability=store: when a flush does not wait for the
store, and what is told of it."""

import contextlib
import threading
import time

from .link import Link
from .process import until
from .test_private import SECTOR, SIZE, InQemu, stamped
from .test_private_input import Desk, connect

DURABLE = {'store-durable': True}
NOT_DURABLE = {'store-durable': False}


def durable(node):
    return node.pvs()['buffer']['store-durable']


@contextlib.contextmanager
def at_work():
    """A desk whose desktop runs, over a link to its store, and the two."""
    with Desk() as d:
        d.start()
        with Link(d.store, delay=10) as link:
            node = InQemu(d.dir, link, durability='store')
            d.nodes.append(node)
            node.__enter__()
            yield d, link, node


def flush_in_drain(d, link, node):
    """One epoch of so many requests that it takes seconds, and a drain in the
    middle. Returns whether the store lacked something when the flush ended."""
    conn, lacking = connect(node), []
    for at in range(0, SIZE, 4096):
        conn.write(at, stamped(7, at))
    before = link.count()[2]

    def flush():
        conn.flush()
        held = d.store.image.read_bytes()
        lacking.append(any(held[at:at + SECTOR] != stamped(7, at)
                           for at in range(0, SIZE, 4096)))

    thread = threading.Thread(target=flush)
    thread.start()
    until(lambda: link.count()[2] > before + 20000, 30, 'it is being sent')
    node.command('stop')
    thread.join(60)
    node.command('cont')
    conn.close()
    return lacking[0]


def drained():
    """A drain stops the shipping. A flush that waits for it gets no error, and
    it is told that the store lacks what was flushed, until it has it."""
    with at_work() as (d, link, node):
        for _ in range(5):
            until(lambda: durable(node), 30, 'the store has all')
            node.events('VDISK_BUFFER')     # all that came until now
            node.qmp.events.clear()
            lacking = flush_in_drain(d, link, node)
            if lacking:
                break
        if not lacking:
            return 'no drain came in time'
        node.qmp.wait_event('VDISK_BUFFER', 30, **NOT_DURABLE)
        node.qmp.wait_event('VDISK_BUFFER', 60, **DURABLE)
        held = d.store.image.read_bytes()
        return None if all(held[at:at + SECTOR] == stamped(7, at)
                           for at in range(0, SIZE, 4096)) else \
            'it is told that the store has all, and it has not'


def stopped():
    """QEMU flushes all disks when it stops the guest: it answers all the same,
    however long the store needs for what the guest wrote."""
    with at_work() as (_, _, node):
        until(lambda: durable(node), 30, 'the store has all')
        conn = connect(node)
        for at in range(0, SIZE, 2 * SECTOR):   # a request to it for each
            conn.write(at, stamped(7, at))
        conn.close()
        begin = time.monotonic()
        node.command('stop')
        took = time.monotonic() - begin
        node.command('cont')
        return None if took < 3 else f'it stops after {took:.1f} s'


def tests(_, _args):
    yield 'private, durability=store: a flush in a drain', drained
    yield 'private, durability=store: a guest that is stopped', stopped

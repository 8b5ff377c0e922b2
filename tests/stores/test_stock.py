# SPDX-License-Identifier: GPL-2.0-or-later
"""Controls: what the distribution's own QEMU does where ours goes on. Each
fails in the way that a patch, or pvs, is there to end."""

import contextlib
import time
from concurrent import futures

from . import faults, images
from .link import Link
from .nbd import Nbdkit, VolatileStorageDaemon
from .node import Node
from .process import need, new_folder, until
from .reader import Connection, ReadError
from .test_private import LABEL, SIZE, Private
from .test_pvs import MIB, RESUMED, node_of

# Seconds: of a server that is back; no request is waited for longer
BACK = 5
PATIENCE = 10


class Stock(Node):
    """The distribution's storage daemon; its nbd driver, which reconnects."""

    program = need('qemu-storage-daemon')

    def __init__(self, place, **more):
        super().__init__(place.options(**{'reconnect-delay': 0, **more}))

    def add(self):
        self.qmp.command('blockdev-add', **self.options)
        self.qmp.command('block-export-add', type='nbd', id='e',
                         writable=not self.options['read-only'],
                         **{'node-name': 'disk'})


def reads(connection, at):
    try:
        return connection.read(at, 4096)
    except ReadError:
        return None


def spoilt(place, connection):
    """It gets garbage for an answer, once."""
    place.link.set(garbage=1)
    reads(connection, MIB)
    place.link.set(garbage=0)


def recovers(place, connection, at):
    """Does a read get its answer within BACK seconds?"""
    end = time.monotonic() + BACK
    while time.monotonic() < end:
        if reads(connection, at):
            return True
        time.sleep(0.1)
    return False


def garbage(image):
    """It is the end of the node."""
    with faults.Place(image) as place, Stock(place) as node, \
            contextlib.closing(Connection(node.path, timeout=PATIENCE)) as c:
        if not reads(c, 0):
            return 'it does not read at all'
        spoilt(place, c)
        return 'it goes on' if recovers(place, c, 2 * MIB) else None


def garbage_under_pvs(image):
    """The same, and it goes on."""
    with faults.Place(image) as place, \
            node_of(image, place, **{'outage-action': 'wait'}) as node, \
            contextlib.closing(Connection(node.path, timeout=PATIENCE)) as c:
        c.read(0, 4096)
        place.link.set(garbage=1)
        time.sleep(RESUMED)
        place.link.set(garbage=0)
        right = image.read_bytes()[2 * MIB:2 * MIB + 4096]
        return None if c.read(2 * MIB, 4096) == right else 'it reads wrong'


class NoFlush(Nbdkit):
    """A server that takes writes, and does not know of flushes."""

    def __init__(self, image):
        super().__init__(image, plugin=[
            'eval', f'get_size=echo {MIB}', 'can_write=exit 0',
            'can_flush=exit 3', 'pwrite=cat > /dev/null',
            'pread=dd if=/dev/zero count=$3 iflag=count_bytes'])

    def argv(self):
        return [a for a in super().argv() if a != '--readonly']


def flush(image):
    """With a server that has no flush it succeeds, also when that is gone."""
    with faults.Place(image, server=NoFlush) as place, \
            Stock(place, **{'read-only': False}) as node, \
            contextlib.closing(Connection(node.path, timeout=PATIENCE)) as c:
        c.write(0, bytes(4096))
        place.server.kill()
        until(lambda: not reads(c, 0), PATIENCE, 'it notices')
        try:
            c.flush()
        except ReadError:
            return 'the flush fails'
    return None


def mute(image):
    """A peer that accepts and says nothing is never given up, although the
    server is there again for who connects anew."""
    with faults.Place(image) as place, \
            Stock(place, **{'reconnect-delay': 600}) as node, \
            contextlib.closing(Connection(node.path, timeout=PATIENCE)) as c:
        c.read(0, 4096)
        try:
            passed_by(place, c)
        except TimeoutError:
            return None
        return 'it was given up'


def passed_by(place, connection):
    """What is read when who connects is let wait for ever, for a second."""
    place.link.set(mute=1)
    place.link.cut()
    with futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(connection.read, MIB, 4096)
        time.sleep(1)
        place.link.set(mute=0)
        return answer.result()


def told(place, node):
    """What becomes of a read whose server is stopped; TimeoutError: nothing."""
    with contextlib.closing(Connection(node.path, timeout=PATIENCE)) as c:
        c.read(0, 4096)
        place.server.freeze()
        try:
            return reads(c, MIB)
        finally:
            place.server.thaw()


def frozen(image):
    """A stopped server keeps a read for as long as it likes."""
    with faults.Place(image) as place, Stock(place) as node:
        try:
            return f'it is told: {told(place, node)}'
        except TimeoutError:
            return None


def frozen_under_pvs(image):
    """The same, and it is told when it has waited for long enough."""
    with faults.Place(image) as place, node_of(
            image, place, **{'outage-action': 'error',
                             'outage-wait': 1}) as node:
        return None if told(place, node) is None else 'it reads'


def mute_under_pvs(image):
    """The same, and it reads."""
    with faults.Place(image) as place, \
            node_of(image, place, **{'outage-action': 'wait'}) as node, \
            contextlib.closing(Connection(node.path, timeout=PATIENCE)) as c:
        c.read(0, 4096)
        right = image.read_bytes()[MIB:MIB + 4096]
        return None if passed_by(place, c) == right else 'it reads wrong'


class StockStore(VolatileStorageDaemon):
    """The distribution's storage daemon as a server."""

    def argv(self):
        return [need('qemu-storage-daemon'), *super().argv()[1:]]


OLD, NEW = b'o' * 4096, b'n' * 4096


def overtaken(store, link, node, comes_back, lands):
    """A write is under way in the server when the link is cut. The guest has
    its answer, writes to the same place and flushes; only now the server's
    disk does what came on the old connection. What the store has in the end."""
    store.holds()
    with contextlib.closing(Connection(node.path, timeout=PATIENCE)) as c, \
            futures.ThreadPoolExecutor(1) as pool:
        def guest(data):
            c.write(0, data)
            c.flush()

        answer = pool.submit(guest, OLD)
        until(store.held().exists, PATIENCE, 'the server has it')
        link.cut()
        answer.result()
        guest(NEW)
        comes_back()
        store.release()
        return lands()


def server_has(store):
    with contextlib.closing(Connection(store.address, timeout=PATIENCE)) as c:
        return c.read(0, 4096)


def old_write(_):
    """Both sides are stock: the client sends it again, and has no means to
    keep the first one from landing behind the next."""
    image = new_folder('stock') / 'image'
    image.write_bytes(bytes(SIZE))
    with StockStore(image) as store, Link(store) as link, \
            Stock(link, **{'read-only': False, 'reconnect-delay': 60}) as node:
        def lands():
            until(lambda: server_has(store) != NEW, PATIENCE, 'it lands')
            return server_has(store)

        has = overtaken(store, link, node, lambda: None, lands)
        return None if has == OLD else 'it holds something else'


def old_write_under_pvs(_):
    """The same: nobody is let in before it is done, and the rest is sent
    behind it."""
    folder = new_folder('stock')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    with VolatileStorageDaemon(image, exclusive=True) as store, \
            Link(store) as link, Private(folder, link) as node:
        def is_up():
            return node.pvs()['stores'][0]['state'] == 'up'

        def waits():
            time.sleep(1)
            ups.append(is_up())

        def lands():
            node.drain()
            return image.read_bytes()[:4096]

        ups = []
        until(is_up, PATIENCE, 'it is up')
        has = overtaken(store, link, node, waits, lands)
        if ups[0]:
            return 'it is let in while the old write is under way'
        return None if has == NEW else 'what was flushed is gone'


def tests(folder, _args):
    image = images.make(folder, 'image')
    yield 'control, stock: garbage is the end of a node', garbage, image
    yield 'garbage is not the end of pvs', garbage_under_pvs, image
    yield 'control, stock: a mute peer is not given up', mute, image
    yield 'a mute peer is given up by pvs', mute_under_pvs, image
    yield 'control, stock: a stopped server keeps a read', frozen, image
    yield 'a stopped server does not under pvs', frozen_under_pvs, image
    yield 'control, stock: a flush with no server succeeds', flush, image
    yield ('control, stock: a write of an old connection lands on what was '
           'flushed', old_write, image)
    yield ('a write of an old connection does not under pvs',
           old_write_under_pvs, image)

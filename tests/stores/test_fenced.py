# SPDX-License-Identifier: GPL-2.0-or-later
"""A private vDisk that another host has taken: what the first one still does."""

import shutil
import threading
import time

from . import buffer
from .link import Link
from .nbd import VolatileStorageDaemon, server_options
from .process import OURS, new_folder, run, until
from .reader import Connection, ReadError
from .test_private import LABEL, SECTOR, SIZE, Private, stamped
from .test_private_jobs import job

BLOCK = 4096
BLOCKS = 256


class Slow(Private):
    """Its reconnect buffer is read slowly: so many requests a second."""

    child, limit = 'journal', 'iops-read'

    def __init__(self, folder, store, number, **more):
        super().__init__(folder, store, 'slow', **more)
        self.options[self.child] = {
            'driver': 'throttle', 'throttle-group': 't',
            'file': self.options[self.child]}
        self.objects = [{'qom-type': 'throttle-group', 'id': 't',
                         'limits': {self.limit: number}}]


class SlowCopy(Slow):
    """Its local copy is written slowly."""

    child, limit = 'file', 'iops-write'


def up(node):
    until(lambda: node.pvs()['stores'][0]['state'] == 'up', 20, 'it is up')


def lag(node):
    return node.pvs()['buffer']['lag-bytes']


def away(node):
    """Somebody has noticed that the link is cut."""
    with_error = threading.Thread(target=read_one, args=(node,), daemon=True)
    with_error.start()
    until(lambda: node.pvs()['stores'][0]['state'] != 'up', 20, 'it is away')


def read_one(node):
    try:
        Connection(node.path, timeout=60).read(SIZE - BLOCK, BLOCK)
    except (OSError, ReadError, AssertionError):
        pass


def fill(node, what):
    conn = Connection(node.path, timeout=60)
    for at in range(BLOCKS):
        conn.write(at * BLOCK, what * BLOCK)
    conn.flush()
    conn.close()


def stale_writer(args, rate=0):
    """An epoch that is being sent when the link is cut does not go out on the
    connection that tells that the vDisk is somebody else's by now; nor, with a
    rate of bytes a second at which it comes, while the label is being read."""
    folder = new_folder('fenced')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    with VolatileStorageDaemon(image, exclusive=True, volatile=False) as store, \
            Link(store) as link, \
            Slow(folder, link, 60, **{'request-timeout': 20000}) as first:
        up(first)
        fill(first, b'A')
        time.sleep(0.5)                 # it is being sent: 256 reads, 60 a second
        link.set(refuse=1)
        link.cut()
        away(first)
        with Private(folder, store, 'rival', **{'take-over': True}) as rival:
            up(rival)
            fill(rival, b'B')
            rival.drain()
            link.set(refuse=0, rate=rate)
            until(lambda: first.pvs()['fenced'], 60, 'the first one is fenced')
            link.set(rate=0)
            # all of it was read by then
            time.sleep(1 if rate else BLOCKS / 60 + 1)
            held = image.read_bytes()[:BLOCKS * BLOCK]
    wrong = sum(held[at:at + BLOCK] != b'B' * BLOCK
                for at in range(0, len(held), BLOCK))
    return f'{wrong} blocks are not what the rival flushed' if wrong else None


def taken_back(args):
    """Who takes the vDisk back has a copy of what it was before: that does not
    count any more."""
    folder = new_folder('fenced')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    with VolatileStorageDaemon(image, exclusive=True, volatile=False) as store:
        for name, what in (('first', b'A'), ('rival', b'B')):
            with Private(folder, store, name, **{'take-over': True}) as node:
                up(node)
                fill(node, what)
                # Its copy is durable then, and has all
                if error := job(node, 'vdisk-window-open', reserve=BLOCK) or \
                        job(node, 'vdisk-window-close'):
                    return error
                node.end()
        with Private(folder, store, 'first', **{'take-over': True}) as node:
            up(node)
            conn = Connection(node.path, timeout=60)
            held = conn.read(0, BLOCKS * BLOCK)
            conn.close()
    return None if held == b'B' * BLOCKS * BLOCK else \
        'it has what it had before the other host wrote'


def settled(args):
    """What the store was sent before it was somebody else's stays in the buffer
    if the tail has not passed it by then."""
    folder = new_folder('fenced')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    last = SIZE - BLOCK
    with VolatileStorageDaemon(image, exclusive=True, volatile=False) as store, \
            Link(store) as link, SlowCopy(folder, link, 20) as first:
        up(first)
        conn = Connection(first.path, timeout=60)
        for n in range(100):            # so many writes to the copy
            conn.write(2 * n * BLOCK, b'A' * BLOCK)
        conn.flush()
        conn.write(last, b'Z' * BLOCK)
        conn.flush()
        conn.close()
        until(lambda: image.read_bytes()[last:SIZE] == b'Z' * BLOCK, 20,
              'it is sent')
        time.sleep(0.3)
        if lag(first) <= BLOCK:
            return f'it is settled already: {lag(first)}'
        link.set(refuse=1)
        link.cut()
        away(first)
        with Private(folder, store, 'rival', **{'take-over': True}) as rival:
            up(rival)
        link.set(refuse=0)
        until(lambda: first.pvs()['fenced'], 20, 'the first one is fenced')
        until(lambda: lag(first) <= BLOCK, 60, 'what was under way has ended')
        time.sleep(1)
        return None if lag(first) == BLOCK else 'it is out of the buffer'


def looking(args):
    """With 'label', a writer that is fenced has disturbed nobody."""
    folder = new_folder('fenced')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    with VolatileStorageDaemon(image, exclusive=True, volatile=False,
                               reading='label') as store:
        with Private(folder, store, 'owner') as owner:
            up(owner)
            owner.end()
        holder = Connection(store.address, timeout=5)
        holder.read(0, 512)
        label = {'driver': 'nbd', 'export': 'label',
                 'server': server_options(store.address)}
        with Private(folder, store, 'late', label=label) as late:
            until(lambda: late.pvs()['fenced'], 20, 'the other is fenced')
            time.sleep(0.5)
            try:
                holder.read(0, 512)
            except (OSError, ReadError, AssertionError):
                return 'who holds the export was disconnected'
            finally:
                holder.close()
        # And whom the label knows does connect
        with Private(folder, store, 'owner', label=label) as owner:
            up(owner)
    return None


class Writer(threading.Thread):
    """Writes until an error."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.conn = Connection(node.path, timeout=60)
        self.count = 0

    def run(self):
        try:
            while True:
                self.conn.write(self.count % 64 * 65536 % SIZE, b'w' * 65536)
                self.count += 1
        except ReadError:
            pass


def full(args):
    """A write that waits for room fails when there will be none; and a window
    that can never be opened is told, not waited for."""
    folder = new_folder('fenced')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    with VolatileStorageDaemon(image, exclusive=True, volatile=False) as store, \
            Link(store) as link, \
            Private(folder, link, 'first', buffer=1 << 20) as first:
        up(first)
        link.set(refuse=1)
        link.cut()
        writer = Writer(first)
        writer.start()
        until(lambda: first.pvs()['buffer']['used'] > 900000, 20, 'it is full')
        with Private(folder, store, 'rival', **{'take-over': True}) as rival:
            up(rival)
        link.set(refuse=0)
        until(lambda: first.pvs()['fenced'], 20, 'the first one is fenced')
        writer.join(2)
        if writer.is_alive():
            return f'it still waits, after {writer.count} writes'
        error = job_of(first, 'vdisk-window-open', reserve=BLOCK) or 'none'
        return None if 'vDisk' in error and 'local' in error else error


def job_of(node, name, **arguments):
    """To its end; its error, or None."""
    node.command(name, **{'node-name': 'disk', 'job-id': 'w', **arguments})
    end = node.qmp.wait_event('BLOCK_JOB_COMPLETED', 30, device='w')
    return end['data'].get('error')


def window(args):
    """A window that is to be closed when there is nothing to ship, but the
    vDisk is somebody else's: the buffer is left alone."""
    folder = new_folder('fenced')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    with VolatileStorageDaemon(image, exclusive=True, volatile=False) as store:
        with Private(folder, store, 'first') as first:
            up(first)
            if error := job_of(first, 'vdisk-window-open', reserve=BLOCK):
                return f'it is not opened: {error}'
            first.end()
        with Private(folder, store, 'rival', **{'take-over': True}) as rival:
            up(rival)
        with Private(folder, store, 'first') as first:
            until(lambda: first.pvs()['fenced'], 20, 'the first one is fenced')
            time.sleep(1.5)         # what it still had to note is noted
            before = first.files[1].read_bytes()
            error = job_of(first, 'vdisk-window-close') or 'none'
            if 'stays as it is: ' not in error:
                return f'it is closed: {error}'
            return None if first.files[1].read_bytes() == before else \
                'its buffer is written to'


class Flusher(threading.Thread):
    """Writes to the last block, and flushes, until it gets an error."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.conn = Connection(node.path, timeout=60)

    def run(self):
        try:
            while True:
                self.conn.write(SIZE - BLOCK, b'f' * BLOCK)
                self.conn.flush()
        except ReadError:
            pass


def rescued(args):
    """Once it is fenced nothing writes to the buffer, not even what a flush
    that has just ended leaves to do; all that it has can be got out."""
    folder = new_folder('fenced')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    data = b''.join(stamped(7, s) for s in range(BLOCKS * BLOCK // SECTOR))
    with VolatileStorageDaemon(image, exclusive=True, volatile=False) as store, \
            Link(store) as link, Private(folder, link, 'first') as first:
        up(first)
        link.set(refuse=1)
        link.cut()
        conn = Connection(first.path, timeout=60)
        conn.write(0, data)
        conn.flush()
        flusher = Flusher(first)
        flusher.start()
        with Private(folder, store, 'rival', **{'take-over': True}) as rival:
            up(rival)
        link.set(refuse=0)
        until(lambda: first.pvs()['fenced'], 20, 'the first one is fenced')
        flusher.join(20)
        time.sleep(0.3)
        before = first.files[1].read_bytes()
        time.sleep(2)
        first.end()
        if first.files[1].read_bytes() != before:
            return 'its buffer is written to although it is fenced'
    held = rescue(first, image, folder)
    if first.files[1].read_bytes() != before:
        return 'the rescue writes to the buffer'
    wanted = (data + bytes(SIZE - BLOCK - len(data)) + b'f' * BLOCK)
    return None if held == wanted else 'what is got out is not what was written'


def rescue(node, image, folder):
    """The image with what the buffer has."""
    got = folder / 'got'
    shutil.copy(image, got)
    run(OURS / 'cli/deskcast', 'journal', 'rescue', node.files[1],
        '--apply', got, '--yes')
    return got.read_bytes()[:SIZE]


def taken_away(folder, store):
    """The vDisk was the first one's, and is the rival's now, while that one was
    switched off."""
    for name, what in (('first', b'A'), ('rival', b'B')):
        with Private(folder, store, name, **{'take-over': True}) as node:
            up(node)
            fill(node, what)
            node.drain()
            node.end()


def offline(args, again=False):
    """Opened while the store is away it takes writes. When the store comes it
    is fenced, and nothing of them goes there; again, with take-over, it is so,
    for it has something to ship. All can be got out."""
    folder = new_folder('fenced')
    image = folder / 'image'
    image.write_bytes(bytes(SIZE + LABEL))
    with VolatileStorageDaemon(image, exclusive=True, volatile=False) as store:
        taken_away(folder, store)
        store.kill()
        before = image.read_bytes()
        with Private(folder, store, 'first') as first:
            conn = Connection(first.path, timeout=60)
            conn.write(BLOCK, b'f' * BLOCK)
            conn.flush()
            conn.close()
            held = buffer.writes(first.files[1])
            if again:
                first.end()
            else:
                why = comes_back(store, first)
        if again:
            with Private(folder, store, 'first', **{'take-over': True}) as node:
                why = comes_back(store, node)
    if image.read_bytes() != before:
        return 'the store is not as it was'
    if buffer.writes(first.files[1]) != held or len(held) != 1:
        return 'the buffer has not what it had'
    wanted = b'B' * BLOCK + b'f' * BLOCK
    if rescue(first, image, folder)[:2 * BLOCK] != wanted:
        return 'what is got out is not what was written'
    return None if not again or 'rescue them' in why else why


def comes_back(store, node):
    """Why it is fenced then."""
    store.start()
    until(lambda: node.pvs()['fenced'], 20, 'it is fenced')
    time.sleep(0.5)
    return node.pvs()['stores'][0]['reason']


def tests(_, args):
    yield 'fenced: what was being sent is not sent any more', stale_writer, args
    if args.long:
        yield ('fenced: nor while its label is read', stale_writer, args, 2500)
        yield 'fenced: what is settled afterwards', settled, args
    yield 'fenced: taken back, with an old copy', taken_back, args
    yield 'fenced: looking at the label disturbs nobody', looking, args
    yield 'fenced: a full buffer, and a window', full, args
    yield 'fenced: a window that is to be closed', window, args
    yield 'fenced: its buffer is left alone, and rescued', rescued, args
    yield 'fenced: when the store comes, after writes without it', offline, args
    yield ('fenced: with something to ship it cannot take over', offline, args,
           True)

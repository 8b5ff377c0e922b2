# SPDX-License-Identifier: GPL-2.0-or-later
"""A private vDisk whose files, or whose store, are on a file system that is
full."""

import errno
import json
import os
import time

from .process import need, run, until
from .test_private import SECTOR, SIZE, stamped
from .test_private_input import MIB, Desk, Plain, connect, in_namespace, lag, \
    says, write

KIB = 1 << 10


class Room:
    """A small file system with copies of some files, as the one process sees it
    that enter() stands in front of. Takes the place of a Namespace."""

    def __init__(self, folder, size, *files):
        self.dir = folder / 'room'
        self.dir.mkdir()
        self.size = size
        self.files = files

    def enter(self):
        files = ' '.join(map(str, self.files))
        return in_namespace(f'mount -t tmpfs -o size={self.size} tmpfs '
                            f'{self.dir} && cp --sparse=always {files} '
                            f'{self.dir}')

    def path(self, file):
        """Where the process has it."""
        return str(self.dir / file.name)

    def seen(self, popen, name):
        """The same from here."""
        return f'/proc/{popen.pid}/root{self.dir}/{name}'

    def fill(self, popen):
        """Until there is no room for another page."""
        with open(self.seen(popen, 'filler'), 'wb', buffering=0) as f:
            try:
                while f.write(bytes(4096)) == 4096:
                    pass
            except OSError as e:
                if e.errno != errno.ENOSPC:
                    raise

    def grow(self, popen, size):
        run(need('nsenter'), '--target', popen.pid, '--user', '--mount',
            '--preserve-credentials', need('mount'), '-o',
            f'remount,size={size}', self.dir)


def put(conn, offset, data):
    for at in range(0, len(data), MIB):
        conn.write(offset + at, data[at:at + MIB])
    conn.flush()


def copy():
    """What the local copy has no room for is on the store, and the guest need
    not wait for room; what the copy has already is brought up to date."""
    with Desk() as d:
        d.start()
        node = d.node()
        node.netns = room = Room(d.dir, 2 * MIB, node.files[0])
        node.options['file'] |= {'filename': room.path(node.files[0]),
                                 'discard': 'unmap'}
        node.__enter__()
        conn = connect(node)
        before, after = os.urandom(512 * KIB), os.urandom(SIZE - 256 * KIB)
        put(conn, 0, before)
        node.drain()
        room.fill(node.popen)
        # The first of these requests to the copy are for half of what it has
        put(conn, 256 * KIB, after)
        node.drain()
        now = node.pvs()
        wanted = before[:256 * KIB] + after
        held = b''.join(conn.read(at, MIB) for at in range(0, SIZE, MIB))
        conn.close()
        if now['budget']['local-bytes'] >= SIZE or 'stuck' in now['buffer']:
            return f'the copy has room: {now}'
        if held != wanted:
            return 'what is read is not what was written'
        return None if d.store.image.read_bytes()[:SIZE] == wanted else \
            'the store has something else'


def refused(node, why):
    """It is told why, once; the store is not said to come and go."""
    until(lambda: 'stuck' in node.pvs()['buffer'], 30, 'it is stuck')
    says(node.pvs()['buffer']['stuck'], 'the store refuses what is sent', why)
    until(lambda: any('stuck' in e['data'] for e in
                      node.events('VDISK_BUFFER')), 10, 'an event tells')
    node.qmp.events.clear()
    time.sleep(2)
    told = [e for name in ('VDISK_STORE', 'VDISK_OUTAGE', 'VDISK_BUFFER')
            for e in node.events(name)]
    if told or 'stuck' not in node.pvs()['buffer'] or not lag(node):
        return f'{len(told)} events: {told[:2]}'
    return None


def store(nbd):
    """What does not fit waits, and all else goes on; it goes on when there is
    room."""
    with Desk() as d:
        image = d.store.image
        room = Room(d.dir, 2 * MIB, image)
        if nbd:
            d.store.netns, d.store.image = room, room.dir / image.name
            d.start()
            node = d.open()
            popen = d.store.process.popen
        else:
            node = d.node(stores=[{'driver': 'file',
                                   'filename': room.path(image)}])
            node.netns = room
            node.__enter__()
            popen = node.popen
        conn, data = connect(node), os.urandom(3 * MIB)
        put(conn, 0, data)
        if why := refused(node, 'No space left on device'):
            return why
        for at in range(3 * MIB, SIZE, 64 * KIB):
            if conn.read(at, 4096) != bytes(4096):
                return 'what it has cannot be read'
        conn.close()
        room.grow(popen, 4 * SIZE)
        node.drain()
        until(lambda: 'stuck' not in node.pvs()['buffer'], 10, 'it goes on')
        with open(room.seen(popen, image.name), 'rb') as f:
            return None if f.read(len(data)) == data else 'something is lost'


class Bad(Plain):
    """A store that cannot write its ninth sector while error is not 0."""

    error = 0

    def argv(self):
        words = super().argv()
        at = words.index('--blockdev') + 1
        disk = json.loads(words[at])
        disk['file'] = {'driver': 'blkdebug', 'image': disk['file'],
                        'inject-error': [{'event': 'none', 'iotype': 'write',
                                          'sector': 8, 'errno': self.error}]}
        return words if not self.error else \
            [*words[:at], json.dumps(disk), *words[at + 1:]]


def bad_sector(error, text):
    """For good; until there is another disk."""
    with Desk() as d:
        d.store = Bad(d.dir)
        d.store.error = error
        d.start()
        node = d.open()
        write(node, 1, 0)
        node.drain()
        write(node, 2, 8)
        write(node, 3, 16)
        if why := refused(node, text):
            return why
        held = d.store.image.read_bytes()
        if held[:SECTOR] != stamped(1, 0) or any(held[SECTOR:SIZE]):
            return 'the store has what comes later'
        d.store.error = 0
        d.store.restart()
        node.drain()
        held = d.store.image.read_bytes()
        return None if all(held[s * SECTOR:(s + 1) * SECTOR] == stamped(n, s)
                           for n, s in ((1, 0), (2, 8), (3, 16))) else \
            'something is lost'


def tests(_, _args):
    for text, test, *rest in (
            ('of the local copy', copy),
            ('of the store', store, True),
            ('of a store that is a local file', store, False)):
        yield f'private, a full file system: {text}', test, *rest
    yield ('private, a store that answers ENOSPC for good', bad_sector,
           errno.ENOSPC, 'No space left on device')
    yield ('private, a store that answers EIO for good', bad_sector, errno.EIO,
           'Input/output error')

# SPDX-License-Identifier: GPL-2.0-or-later
"""A private vDisk that is given what it must not take.

What is refused is refused in words that say what to do, and nothing is lost or
written by it."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import time

from .nbd import VolatileStorageDaemon, server_options
from .node import GuestError
from .process import (OURS, StoreError, need, new_folder, program, run,
                      until)
from .reader import Connection, ReadError
from .test_private import LABEL, SECTOR, SIZE, Private, stamped

MIB = 1 << 20
RING = 65536                # where the buffer's records begin
DEAD = ('127.0.0.1', 1)     # nobody answers there


class Wrong(Exception):
    """Says what is not as it should be."""


def says(text, *wanted):
    for words in wanted:
        if words not in text:
            raise Wrong(f'it does not say "{words}": {text}')


class Plain(VolatileStorageDaemon):
    """A store that forgets nothing. What is wrong with it is set before it is
    started."""

    def __init__(self, folder, size=SIZE + LABEL):
        self.writable = True
        image = folder / 'image'
        with open(image, 'wb') as f:
            f.truncate(size)
        super().__init__(image, volatile=False, exclusive=True)

    def exports(self):
        yield {'name': self.export, 'writable': self.writable,
               **({'exclusive': True} if self.exclusive else {})}

    def digest(self):
        return hashlib.sha256(self.image.read_bytes()).digest()


class Desk:
    """A folder with the files of a vDisk; its store, which may run."""

    def __init__(self):
        self.dir = new_folder('input')
        self.store = Plain(self.dir)
        self.nodes = []
        self.started = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            if hasattr(node, 'popen') and node.dir.exists():
                node.__exit__()
        if self.started:
            self.store.__exit__()
        shutil.rmtree(self.dir, ignore_errors=True)

    def node(self, **more):
        node = Private(self.dir, self.store, **more)
        self.nodes.append(node)
        return node

    def open(self, **more):
        return self.node(**more).__enter__()

    def start(self):
        """It is left running until the end."""
        self.started = True
        self.store.__enter__()

    def refused(self, *wanted, **more):
        """By QMP, whose errors have no hints."""
        try:
            self.open(**more)
        except GuestError as e:
            says(str(e), *wanted)
        else:
            raise Wrong(f'it is taken, instead of: {wanted}')

    def said(self, *before, **more):
        """What the command line says when it opens the vDisk."""
        node = dict(self.node(**more).options)
        del node['node-name'], node['read-only']
        done = subprocess.run(
            [*before, program('qemu-io'), '-c', 'length',
             'json:' + json.dumps(node)], stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout

    @property
    def buffer(self):
        return self.nodes[-1].files[1]


def connect(node, timeout=30):
    return Connection(node.path, timeout=timeout)


def write(node, number=1, sector=0, flush=True):
    conn = connect(node)
    conn.write(sector * SECTOR, stamped(number, sector))
    if flush:
        conn.flush()
    conn.close()


def lag(node):
    return node.pvs()['buffer']['lag-bytes']


def state(node):
    return node.pvs()['stores'][0]


# What is given to it

def too_small():
    with Desk() as d:
        try:
            run(program('qemu-img'), 'create', '-f', 'pvs', '-o',
                'role=journal,vdisk=disk,version=1', d.dir / 'x', MIB - 4096)
            return 'a buffer of less than 1 MiB is made'
        except StoreError as e:
            says(str(e), 'from 1048576 to')
        d.start()
        node = d.node()
        run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
            'role=journal,vdisk=disk,version=1', node.files[1], MIB)
        node.__enter__()
        conn, data = connect(node), os.urandom(2 * MIB)
        conn.write(MIB, data)       # twice as long as all that it can hold
        conn.flush()
        if conn.read(MIB, len(data)) != data:
            return 'what was written is not what is read'
        conn.close()
        node.drain()
        held = d.store.image.read_bytes()[MIB:MIB + len(data)]
        return None if held == data else 'the store has something else'


def flip(path, at):
    with open(path, 'r+b') as f:
        f.seek(at)
        old = f.read(1)
        f.seek(at)
        f.write(bytes([old[0] ^ 0x40]))


def damaged():
    with Desk() as d:
        node = d.open()
        for number in range(1, 5):
            write(node, number, 8 * number)
        node.__exit__()
        flip(d.buffer, RING + 3 * 4096 + 600)
        before = d.buffer.read_bytes()
        text = d.said()
        says(text, 'is damaged', 'at byte', 'were flushed', 'Keep the file',
             "'deskcast journal rescue'")
        return None if d.buffer.read_bytes() == before else 'it was written to'


def seal(path, offset):
    subprocess.run([OURS / 'tests/stores/seal', path, str(offset)], check=True)


def patch_headers(path, at, value):
    for copy in (0, 4096):
        with open(path, 'r+b') as f:
            f.seek(copy + at)
            f.write(value)
        seal(path, copy)


def newer():
    with Desk() as d:
        d.node()
        patch_headers(d.buffer, 16, struct.pack('<I', 2))
        says(d.said(), 'of another version', 'use a newer Deskcast')
        patch_headers(d.buffer, 16, struct.pack('<I', 1))
        patch_headers(d.buffer, 32, struct.pack('<Q', 4))
        says(d.said(), 'features that this version does not know (0x4)',
             'Use a newer version')


def newer_bits():
    """What a newer release keeps up, and this one does not, is cleared before
    anything changes; what it may ignore stays."""
    with Desk() as d:
        d.node()
        patch_headers(d.buffer, 48, struct.pack('<Q', 0x30))
        patch_headers(d.buffer, 40, struct.pack('<Q', 0xff))
        d.start()
        d.open()
        with open(d.buffer, 'rb') as f:
            copies = f.read(8192)
        newest = max((copies[at:at + 4096] for at in (0, 4096)),
                     key=lambda c: struct.unpack_from('<Q', c, 24))
        bits = struct.unpack_from('<QQ', newest, 40)
        if bits != (0xff, 0):
            raise Wrong(f'compatible and autoclear features are {bits}')


def another_one():
    with Desk() as d:
        for name, options in (('v', 'vdisk=disk,version=2'),
                              ('n', 'vdisk=other,version=1')):
            path = d.dir / name
            run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
                f'role=journal,{options}', path, MIB)
            says(d.said(journal={'driver': 'file', 'filename': str(path)}),
                 'The reconnect buffer is for version', 'not for version 1 of '
                 "'disk'", 'Each has its own')
        d.open().__exit__()
        copy = d.dir / 'larger'
        run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
            'role=copy,vdisk=disk,version=1', copy, 2 * SIZE)
        says(d.said(file={'driver': 'file', 'filename': str(copy)}),
             f'for a vDisk of {SIZE} bytes', f'one of {2 * SIZE}',
             'two files of the same vDisk')
        d.refused('not for version 3', version=3)
        d.refused("not for version 1 of 'else'", vdisk='else')


def cut_off():
    with Desk() as d:
        d.node()
        os.truncate(d.buffer, 2 * MIB)
        says(d.said(), 'was cut off', 'Bring the file back')
        os.truncate(d.buffer, 100)
        says(d.said(), 'too short')
        d.buffer.write_bytes(bytes(4 * MIB))
        says(d.said(), 'it is no reconnect buffer')


def in_namespace(script):
    """The command that runs what follows after a script, with mounts that
    nobody else sees."""
    words = [need('unshare'), '-rm', 'sh', '-c', f'{script} && exec "$@"', 'sh']
    if subprocess.run([*words, 'true'], capture_output=True).returncode:
        raise Wrong('namespaces do not work here')
    return words


def no_room():
    with Desk() as d:
        full = d.dir / 'full'
        full.mkdir()
        done = subprocess.run(
            [*in_namespace(f'mount -t tmpfs -o size=4m tmpfs {full}'),
             program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
             'role=journal,vdisk=disk,version=1', full / 'buffer', str(8 * MIB)],
            stdin=subprocess.DEVNULL, text=True, capture_output=True)
        if done.returncode != 1:
            return 'it is made on a full file system'
        says(done.stderr, 'No space left on device')


def read_only():
    with Desk() as d:
        d.node()
        words = in_namespace(f'mount --bind {d.dir} {d.dir} && '
                             f'mount -o remount,bind,ro {d.dir}')
        says(d.said(*words), 'Read-only file system')


def shared():
    with Desk() as d:
        node = d.open()
        write(node)
        says(d.said(), 'lock', 'another process using the image')
        copy = d.dir / 'second'
        run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
            'role=copy,vdisk=disk,version=1', copy, SIZE)
        says(d.said(file={'driver': 'file', 'filename': str(copy)}),
             'lock', 'another process using the image')
        return None if lag(node) == SECTOR else 'the first one has lost a write'


# What the store is

def reads_something(node):
    """Who is fenced reads nothing any more: what is local, in the buffer or on
    the store may be another vDisk's by now."""
    conn = connect(node)
    for at in (0, 16 * SECTOR, SIZE - SECTOR):
        try:
            conn.read(at, SECTOR)
        except ReadError:
            continue
        return f'it reads byte {at} although it is fenced'
    conn.close()
    return None


def not_that_store(change, back, *wanted, fenced=False):
    """A store that changes while it is away: nothing is sent to it, and it is
    said why. Unless that fences the desktop, all is there once it is right."""
    with Desk() as d:
        d.start()
        node = d.open()
        write(node, 1)
        node.drain()
        backup = d.store.image.read_bytes()
        write(node, 2, 8)
        node.drain()
        good = d.store.image.read_bytes()
        d.store.kill()
        write(node, 3, 16)
        change(d.store, backup)
        before = d.store.digest()
        d.store.start()
        until(lambda: wanted[0] in state(node).get('reason', ''), 20, wanted[0])
        says(state(node)['reason'], *wanted)
        if state(node)['state'] != 'down' or not lag(node) or \
                d.store.digest() != before:
            return 'something is sent to it'
        event = node.qmp.wait_event('VDISK_STORE', 5, state='down',
                                    reason=state(node)['reason'])
        if node.pvs()['fenced'] != fenced:
            return f'fenced: {not fenced}; {event}'
        if fenced:
            return reads_something(node)
        d.store.kill()
        back(d.store, good)
        d.store.start()
        node.drain()
        held = d.store.image.read_bytes()
        wanted = [stamped(n, s) for n, s in ((1, 0), (2, 8), (3, 16))]
        return None if [held[s * SECTOR:][:SECTOR] for s in (0, 8, 16)] == \
            wanted else 'something is lost'


def resize(store, content):
    os.truncate(store.image, SIZE)


def restore(store, content):
    store.image.write_bytes(content)
    store.writable = store.exclusive = True


def make_read_only(store, _):
    store.writable = store.exclusive = False


def make_shared(store, _):
    store.exclusive = False


def no_label(store, content):
    store.image.write_bytes(content[:SIZE] + b'x' * LABEL)


def rot_label(store, _):
    flip(store.image, SIZE + 300)


def newer_label(store, _):
    with open(store.image, 'r+b') as f:
        f.seek(SIZE + 16)
        f.write(struct.pack('<I', 2))
    seal(store.image, SIZE)


def older_label(store, backup):
    """The label of an opening before: the writer's number is lower."""
    store.image.write_bytes(backup)
    with open(store.image, 'r+b') as f:
        f.seek(SIZE + 40)
        number, = struct.unpack('<Q', f.read(8))
        f.seek(SIZE + 40)
        f.write(struct.pack('<Q', number - 1))
    if number < 2:
        raise Wrong('there is no older one')
    seal(store.image, SIZE)


def other_content(store, _):
    with open(store.image, 'r+b') as f:
        f.seek(SIZE + 24)
        f.write(b'somebody else...')
    seal(store.image, SIZE)


def other_version(store, _):
    with open(store.image, 'r+b') as f:
        f.seek(SIZE + 72)
        f.write(struct.pack('<Q', 7))
    seal(store.image, SIZE)


def older():
    """It has to have been opened twice, to have an older label."""
    original = older_label

    def opened_twice(store, backup):
        original(store, backup)

    with Desk() as d:
        d.start()
        node = d.open()
        until(lambda: state(node)['state'] == 'up', 10, 'it is up')
        node.end()
        node = d.open()
        until(lambda: state(node)['state'] == 'up', 10, 'it is up')
        d.store.kill()
        write(node)
        opened_twice(d.store, d.store.image.read_bytes())
        before = d.store.digest()
        d.store.start()
        until(lambda: node.pvs()['fenced'], 20, 'it is fenced')
        says(state(node)['reason'], 'an older state of the vDisk',
             'can be rescued')
        try:
            write(node, 2)
            return 'it can still be written to'
        except ReadError:
            pass
        return None if d.store.digest() == before else 'something was sent'


def without_flush():
    """nbdkit's eval plugin, which offers what it is told to only. What was
    flushed before it came stays where it is."""
    with Desk() as d:
        sock, got = d.dir / 'no-flush', d.dir / 'got'
        node = d.open(stores=[{'driver': 'nbd', 'export': '', 'server':
                               server_options(str(sock))}])
        write(node)
        with subprocess.Popen(
                [need('nbdkit'), '--foreground', '--unix', sock, 'eval',
                 f'get_size=echo {SIZE + LABEL}', 'pread=head -c $3 /dev/zero',
                 f'pwrite=cat >> {got}'], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
            try:
                until(lambda: 'for flush' in state(node).get('reason', ''), 10,
                      'it is refused')
                says(state(node)['reason'], 'no support for flush',
                     'writable and exclusive, with flushes')
                time.sleep(0.5)
            finally:
                p.kill()
        if got.exists():
            return 'something is written to it'
        return None if lag(node) == SECTOR else 'the buffer has let it go'


def two_stores():
    with Desk() as d:
        one = {'driver': 'nbd', 'export': 'disk',
               'server': server_options(DEAD)}
        d.refused('has exactly one store', stores=[one, one])
        d.refused('has exactly one store', stores=[])
        d.refused('is an NBD export or a local file',
                  stores=[{'driver': 'null-co', 'size': SIZE + LABEL}])
        small = d.dir / 'small'
        small.write_bytes(bytes(SIZE))
        d.refused('instead of', stores=[{'driver': 'file',
                                         'filename': str(small)}])
        d.refused('is set by pvs', stores=[{**one, 'io-timeout': 1}])


def no_promises():
    """Nobody else is kept out, or a flush is nothing."""
    with Desk() as d:
        image = {'driver': 'file', 'filename': str(d.store.image)}
        free = {**image, 'locking': 'off'}
        d.refused('has one writer', 'Locking is off', stores=[free])
        says(d.said(stores=[free]), "'locking' on or auto")
        d.refused('Flushes are disabled for the store',
                  stores=[{**image, 'cache': {'no-flush': True}}])
        node = d.node(stores=[image])
        for child in ('file', 'journal'):
            options = {**node.options[child], 'cache': {'no-flush': True}}
            d.refused(f'Flushes are disabled for the {child}', stores=[image],
                      **{child: options})
        node = d.open(stores=[image])
        write(node)
        until(lambda: lag(node) == 0, 10, 'it is shipped')


def made_read_only():
    with Desk() as d:
        d.start()
        node = d.open()
        write(node)
        try:
            node.command('blockdev-reopen',
                         options=[{**node.options, 'read-only': True}])
        except GuestError as e:
            says(str(e), 'cannot be made read-only', 'is shipped all the time')
        else:
            raise Wrong('it is made read-only')
        write(node, 2, 1)
        until(lambda: lag(node) == 0, 10, 'it goes on')


STORES = (
    ('smaller', resize, restore, ('Export has 4194304 bytes and not 4198400',
                                  'an export of 4198400 bytes')),
    ('read-only', make_read_only, restore, ('Export is read-only',
                                            'writable and exclusive')),
    ('without exclusive', make_shared, restore,
     ('Export is not exclusive', 'writable and exclusive')),
    ('without a label', no_label, restore,
     ('there is no label', 'end in 4096 bytes of zeros')),
    ('with a damaged label', rot_label, restore,
     ('the label is damaged', 'bring the image back')),
    ('with the label of a newer release', newer_label, restore,
     ('the label is of another version', 'use a newer Deskcast')),
)
FENCES = (
    ('with another label', other_content,
     ('somebody else has written', 'can be rescued')),
    ('with another version', other_version,
     ('another vDisk or version', 'name the export')),
)


def tests(_, _args):
    def named(text, test, *rest):
        return f'private, {text}', test, *rest

    yield named('bad input: a buffer that is too small for one request',
                too_small)
    yield named('bad input: a buffer that is damaged in the middle', damaged)
    yield named('bad input: a buffer of a newer format', newer)
    yield named('bad input: a buffer with marks of a newer release', newer_bits)
    yield named('bad input: a buffer for another vDisk or version', another_one)
    yield named('bad input: a buffer that was cut off', cut_off)
    yield named('bad input: a full file system', no_room)
    yield named('bad input: a read-only file system', read_only)
    yield named('bad input: two processes', shared)
    for text, change, back, wanted in STORES:
        yield (f'private, bad input: a store that comes back {text}',
               lambda c=change, b=back, w=wanted: not_that_store(c, b, *w))
    for text, change, wanted in FENCES:
        yield (f'private, bad input: a store that comes back {text}',
               lambda c=change, w=wanted: not_that_store(c, None, *w,
                                                         fenced=True))
    yield named('bad input: a store that comes back older', older)
    yield named('bad input: a store without flush', without_flush)
    yield named('bad input: two stores, and none', two_stores)
    yield named('bad input: no lock, no flushes', no_promises)
    yield named('bad input: made read-only', made_read_only)

# SPDX-License-Identifier: GPL-2.0-or-later
"""deskcast store serve, by what its clients read."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

from stores.node import Node
from stores.process import StoreError, free_port, new_folder, program, run, until
from stores.reader import Connection, ReadError, Readers

from .env import (DESKCAST, ENV, Desktop, GRANULE, MIB, Serve, VdiskStore, content,
                  exports, nbd, noise, same, shows)

SIZE = 8 * MIB


def small_store():
    store = VdiskStore()
    store.make('win', {0: noise('win', 6 * MIB)}, SIZE)
    return store


def bytes_are_right():
    """Versions over each other, each through a desktop's node that trusts the
    root hash in the manifest."""
    store = VdiskStore()
    store.make('win', {0: noise(1, 5 * MIB)}, SIZE)
    store.make('win', {2 * MIB: noise(2, MIB), SIZE - 8192: noise(3, 8192)})
    store.make('win', {3 * MIB: bytes(MIB), 100 * GRANULE: noise(4, GRANULE)})
    store.make('deb', {MIB: noise(5, MIB)}, 2 * MIB, promote=False)
    with Serve(store) as serve:
        for (vdisk, number), raw in store.content.items():
            with Desktop(store, [serve.path], vdisk, number) as node:
                bad = same(node.path, raw)
            tree = store.folder(vdisk) / store.version(vdisk, number)['tree']
            bad = bad or same(serve.path, tree, f'{vdisk}@{number}.tree')
            if bad:
                return f'{vdisk}@{number}: {bad}'
        told = json.loads(content(serve.path, 'win@manifest'))
        if told != store.manifest('win'):
            return f'another manifest is exported: {told}'
    store.remove()
    return None


def follows():
    """New versions, retired ones, merged ones: one client reads all the time
    on a connection that must not break."""
    store = small_store()
    with Serve(store) as serve:
        with Readers(serve.path, store.content['win', 1], threads=2,
                     export='win@1') as readers:
            second = store.make('win', {MIB: noise('new', MIB)})
            shows(serve.path, f'win@{second}', f'win@{second}.tree')
            bad = same(serve.path, store.content['win', second],
                       f'win@{second}')
            store.make('win', {0: noise('newer', MIB)})
            shows(serve.path, 'win@3')
            store.command('version', 'retire', 'win', 1)
            run('sleep', 3)
            there = 'win@1' in exports(serve.path)
        if readers.wrong or readers.errors or len(readers.reads) < 100:
            return f'{readers.summary()} {readers.errors[:3]}'
        if not there:
            return 'a retired version went while it was read'
        shows(serve.path, 'win@2', 'win@3', gone=['win@1', 'win@1.tree'])
        return bad or same(serve.path, store.content['win', 3], 'win@3')


def is_traced(serve, want):
    """Not while one takes the place of another"""
    with contextlib.suppress(OSError, EOFError):
        return 'win@1.trace' in exports(serve.path) and \
            content(serve.path, 'win@1.trace') == want
    return False


def boot_traces():
    """As they are, to whole sectors; another one takes the place of the first
    although somebody keeps that open."""
    store, held = small_store(), []
    with Serve(store) as serve:
        if 'win@1.trace' in exports(serve.path):
            return 'there is one that nobody gave'
        for granules in ((1, 2, 3), tuple(range(0, 99, 3))):
            data = store.trace('win', 1, *granules).read_bytes()
            want = data + bytes(-len(data) % 512)
            until(functools.partial(is_traced, serve, want), 60,
                  f'the trace of {len(granules)} runs is there')
            held.append(Connection(serve.path, 'win@1.trace', 60))
    return None


def merged():
    """The old image is read until its client goes, and then given back."""
    store = small_store()
    store.make('win', {MIB: noise('new', MIB)})
    with Serve(store) as serve:
        with Readers(serve.path, store.content['win', 2], threads=2,
                     export='win@2') as readers:
            store.command('version', 'merge', 'win', 2)
            store.command('version', 'retire', 'win', 1)
            run('sleep', 2)
        if readers.wrong or readers.errors:
            return f'{readers.summary()} {readers.errors[:3]}'
        shows(serve.path, 'win@2', gone=['win@1'])

        def removed():
            with contextlib.suppress(StoreError):
                return store.command('version', 'rm', 'win', 1) or True
        until(removed, 10, 'the parent can be removed')

        def deleted_files():
            fds = pathlib.Path(f'/proc/{serve.daemon()}/fd')
            return [t for t in (os.readlink(f) for f in fds.iterdir())
                    if str(store.path) in t and '(deleted)' in t]
        until(lambda: not deleted_files(), 10, 'removed images are closed')
        return same(serve.path, store.content['win', 2], 'win@2')


class Private(Node):
    """A private desktop's disk"""

    def __init__(self, store, serve, number, folder):
        size = store.version('win', number)['size']
        files = [folder / 'copy', folder / 'buffer']
        for path, role, length in zip(files, ('copy', 'journal'),
                                      (size, 32 * MIB)):
            run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
                f'role={role},vdisk=win,version={number}', path, length)
        super().__init__({
            'driver': 'pvs', 'mode': 'private', 'read-only': False,
            'file': {'driver': 'file', 'filename': str(files[0])},
            'journal': {'driver': 'file', 'filename': str(files[1])},
            'stores': [nbd(serve.path, f'win@{number}')],
            'label': nbd(serve.path, f'win@{number}.label')})

    def add(self):
        self.qmp.command('blockdev-add', **self.options)
        self.qmp.command('block-export-add', type='nbd', id='e',
                         writable=True, **{'node-name': 'disk'})


def maintenance():
    """An update: private mode writes through the exclusive export, sealing
    waits for its end, and what was written is what is served."""
    store = small_store()
    want = bytearray(store.content['win', 1].read_bytes())
    with Serve(store) as serve:
        store.command('version', 'new', 'win', '--for', 'pvs')
        shows(serve.path, 'win@2', 'win@2.label')
        folder = new_folder('private')
        with Private(store, serve, 2, folder) as node:
            c = Connection(node.path, timeout=60)
            for at in (0, 3 * MIB, 5 * MIB + 512):
                data = noise(at, 64 * 1024)
                c.write(at, data)
                want[at:at + len(data)] = data
            c.flush()
            refused = subprocess.run(
                [DESKCAST, 'version', 'seal', '--store', store.path, 'win'],
                env={**os.environ, **ENV}, capture_output=True, text=True)
            c.close()
            node.command('vdisk-drain', **{'node-name': 'disk'})
            node.qmp.wait_event('BLOCK_JOB_COMPLETED', 30)
            node.end()
        if refused.returncode != 1:
            return f'it was sealed under its writer: {refused}'
        shows(serve.path, 'win@2')
        store.command('version', 'seal', 'win')
        store.content['win', 2] = folder / 'want'
        store.content['win', 2].write_bytes(want)
        shows(serve.path, 'win@2', 'win@2.tree', gone=['win@2.label'])
        with Desktop(store, [serve.path], 'win', 2) as node:
            return same(node.path, folder / 'want')


def broken_manifest():
    """One vDisk's manifest is spoilt: it stays as it was, others go on."""
    store = small_store()
    store.make('deb', {0: noise('deb', MIB)}, 2 * MIB)
    path = store.folder('win') / 'manifest.json'
    good = path.read_text()
    with Serve(store) as serve:
        path.write_text(good[:len(good) // 2])
        until(lambda: 'vDisk win: ' in serve.said(), 10, 'it says so')
        number = store.make('deb', {0: noise('deb2', MIB)})
        shows(serve.path, f'deb@{number}', 'win@1')
        bad = same(serve.path, store.content['win', 1], 'win@1') or \
            same(serve.path, store.content['deb', number], f'deb@{number}')
        path.write_text(good)
        until(lambda: 'vDisk win: works again' in serve.said(), 10,
              'it says so')
    path.write_text('{}')
    with Serve(store) as serve:
        if any(e.startswith('win@') for e in exports(serve.path)):
            return 'a vDisk is served with a manifest that is none'
        if not re.search('vDisk win: .*it is not served', serve.said()):
            return serve.said()
        return bad or same(serve.path, store.content['deb', 2], 'deb@2')


def missing_image():
    """An image is gone: its version is not there, all others are."""
    store = small_store()
    store.make('deb', {0: noise('deb', MIB)}, 2 * MIB)
    (store.folder('win') / '1.raw').unlink()
    with Serve(store) as serve:
        if 'win@1' in exports(serve.path):
            return 'it is exported'
        if 'export win@1: the store has no image 1.raw' not in serve.said():
            return serve.said()
        return same(serve.path, store.content['deb', 1], 'deb@1')


def daemon_killed():
    """Its clients reconnect and read on; no read fails."""
    store = small_store()
    with Serve(store) as serve, \
            Desktop(store, [serve.path], 'win', 1) as node, \
            Readers(node.path, store.content['win', 1]) as readers:
        for _ in range(3):
            serve.kill_daemon()
            shows(serve.path, 'win@1')
            run('sleep', 0.5)
        before = len(readers.reads)
        until(lambda: len(readers.reads) > before + 20, 10, 'reads go on')
        readers.stop()
        if readers.wrong or readers.errors:
            return f'{readers.summary()} {readers.errors[:3]}'
        if serve.said().count('was killed by signal 9') != 3:
            return serve.said()
    return None


def killed():
    """kill -9 of serve itself: nothing is left that keeps the next one out."""
    store = small_store()
    port = free_port()
    argv = ['--clear-text']
    with Serve(store, *argv, listen=('127.0.0.1', port)) as serve:
        serve.kill()
        with Serve(store, *argv, listen=('127.0.0.1', port)) as again:
            with socket.create_connection(('127.0.0.1', port), 10) as s:
                if s.recv(8) != b'NBDMAGIC':
                    return 'no NBD server answers'
            return None if again.process.running() else again.said()


def ends_in_order():
    store = small_store()
    tmp = new_folder('tmp')
    with Serve(store, env={'TMPDIR': str(tmp)}) as serve:
        daemon = serve.daemon()
        with Connection(serve.path, 'win@1').sock:
            status = serve.finish()
        left = [p.name for p in tmp.iterdir()]
        if status or left or os.path.exists(f'/proc/{daemon}') or \
                os.path.exists(serve.path):
            return f'status {status}, left: {left}; {serve.said()}'
    return None


def tells_systemd():
    store = small_store()
    path = str(store.dir / 'notify')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(10)
        with Serve(store, env={'NOTIFY_SOCKET': path}) as serve:
            said = []
            while not any(t.startswith('STATUS=') for t in said) or \
                    'READY=1' not in said:
                said.append(s.recv(4096).decode())
            if 'win@1' not in exports(serve.path):
                return 'it was ready before it was'
            serve.finish()
        while 'STOPPING=1' not in said:
            said.append(s.recv(4096).decode())
    return None


def cap():
    """Who is too many waits, and is let in when somebody goes."""
    store = small_store()
    with Serve(store, '--max-connections', 2) as serve:
        two = [Connection(serve.path, 'win@1', 10) for _ in range(2)]
        with socket.socket(socket.AF_UNIX) as third:
            third.connect(serve.path)
            third.settimeout(1)
            try:
                return f'a third client got {third.recv(8)}'
            except TimeoutError:
                pass
            two[0].close()
            third.settimeout(10)
            got = third.recv(8)
        two[1].close()
    return None if got == b'NBDMAGIC' else f'{got}'


def read_only():
    """Nobody writes to what is sealed, nor beside the writer."""
    store = small_store()
    store.command('version', 'new', 'win', '--for', 'pvs')
    with Serve(store) as serve:
        for export in ('win@1', 'win@1.tree', 'win@manifest', 'win@2.label'):
            c = Connection(serve.path, export, 10)
            try:
                c.write(0, bytes(512))
                return f'{export} was written to'
            except ReadError:
                pass
            c.close()
        first = Connection(serve.path, 'win@2', 10)
        first.write(0, noise('x', 512))
        second = Connection(serve.path, 'win@2', 10)
        second.write(0, noise('y', 512))
        try:
            first.write(0, noise('x', 512))
            return 'two writers'
        except (EOFError, OSError):
            pass
        return None if second.read(0, 512) == noise('y', 512) else 'lost'


def refused(argv, text, status):
    done = subprocess.run([DESKCAST, 'store', 'serve', *map(str, argv)],
                          env={**os.environ, **ENV}, capture_output=True,
                          text=True, timeout=30)
    if done.returncode != status or text not in done.stderr:
        return f'{argv}: {done.returncode}, {done.stderr}'
    return None


def usage():
    store = small_store()
    folder = str(store.dir)
    plain = store.dir / 'plain'
    plain.write_text('')
    begin = ['--store', store.path]
    for argv, text, status in (
            ([], 'one of --listen and --socket', 2),
            (['--listen', ':0'], '--clear-text if everybody may read', 2),
            (['--listen', ':0', '--tls-x509', folder], '--authorise', 2),
            (['--listen', ':0', '--tls-x509', folder, '--tls-psk', folder],
             'only one of', 2),
            (['--socket', folder + '/s', '--authorise', 'CN=x'],
             '--authorise is for', 2),
            (['--socket', folder + '/s', 'more'], "what is 'more' for", 2),
            (['--socket', plain], 'it is no socket', 1),
            (['--socket', folder + '/none/s'], 'No such file', 1),
            (['--listen', '::1:5', '--clear-text'], '[HOST]:PORT', 1),
            (['--socket', folder + '/s', '--group', 'nobody-knows'],
             'no such group', 1),
            (['--listen', '127.0.0.1:0', '--tls-psk', folder],
             'the storage daemon does not start', 1)):
        bad = refused(begin + argv, text, status)
        if bad:
            return bad
    return refused(['--store', folder, '--socket', folder + '/s'],
                   folder, 1)


def stale_socket():
    """A name that is left over from a crash is taken, a live one is not."""
    store = small_store()
    with Serve(store) as serve:
        serve.kill()
        if not os.path.exists(serve.path):
            return 'no socket was left, so this shows nothing'
        serve.start()
        shows(serve.path, 'win@1', seconds=20)
        bad = refused(['--store', store.path, '--socket', serve.path],
                      'somebody else serves there', 1)
        return bad or same(serve.path, store.content['win', 1], 'win@1')


def store_vanishes():
    """And comes back: what is open is served on."""
    store = small_store()
    with Serve(store) as serve:
        hidden = store.dir / 'hidden'
        with Readers(serve.path, store.content['win', 1], threads=2,
                     export='win@1') as readers:
            store.path.rename(hidden)
            until(lambda: 'store: ' in serve.said(), 10, 'it says so')
            run('sleep', 1)
            hidden.rename(store.path)
            until(lambda: 'store: works again' in serve.said(), 10,
                  'it says so')
        if readers.wrong or readers.errors:
            return readers.summary()
        number = store.make('win', {0: noise('later', MIB)})
        shows(serve.path, f'win@{number}')
    return None


def vdisk_removed():
    store = small_store()
    store.make('deb', {0: noise('deb', MIB)}, 2 * MIB)
    with Serve(store) as serve:
        shutil.rmtree(store.folder('deb'))
        shows(serve.path, 'win@1', gone=['deb@1', 'deb@1.tree', 'deb@manifest'])
        os.kill(serve.daemon(), signal.SIGTERM)
        shows(serve.path, 'win@1', gone=['deb@1'])
    return None


def tests():
    yield 'serve: every byte, through a desktop that verifies', bytes_are_right
    yield 'serve: new and retired versions, nobody is disconnected', follows
    yield 'serve: boot traces', boot_traces
    yield 'serve: a version is merged under its readers', merged
    yield 'serve: an update in private mode, sealed and served', maintenance
    yield 'serve: a broken manifest', broken_manifest
    yield 'serve: a missing image', missing_image
    yield 'serve: its daemon is killed', daemon_killed
    yield 'serve: it is killed', killed
    yield 'serve: SIGTERM', ends_in_order
    yield 'serve: systemd', tells_systemd
    yield 'serve: too many clients', cap
    yield 'serve: who may write', read_only
    yield 'serve: wrong usage', usage
    yield 'serve: a socket that is left over', stale_socket
    yield 'serve: the store vanishes for a while', store_vanishes
    yield 'serve: a vDisk is removed', vdisk_removed

# SPDX-License-Identifier: GPL-2.0-or-later
"""A private vDisk's reconnect buffer: what rots in it, and its node as it goes
from one process to the next."""

import json
import os
import socket
import struct
import subprocess
import time

from .buffer import RING, newest
from .node import GuestError, Qmp
from .process import need, program, until
from .reader import ReadError
from .test_private import SECTOR, stamped
from .test_private_input import (MIB, Desk, Wrong, connect, flip, lag,
                                 patch_headers, says, seal, write)

# Devices that look at the first sector before a machine that waits for a
# migration has its disk
DEVICES = (('virtio-blk-pci,drive=disk',),
           ('virtio-scsi-pci', 'scsi-hd,drive=disk'), ('ide-hd,drive=disk',))


class Machine:
    """A stopped machine with the private vDisk of a node."""

    def __init__(self, node, *args, device=DEVICES[0]):
        self.args = [program('qemu-system-x86_64'), '-S', '-nodefaults',
                     '-display', 'none', '-m', '64', '-accel', 'tcg',
                     '-blockdev', json.dumps(node.options), *args]
        self.log = node.files[0].parent / 'machine.log'
        for d in device:
            on = ',share-rw=on' if 'drive=' in d else ''
            self.args += ['-device', d + on]

    def __enter__(self):
        ours, peer = socket.socketpair()
        with open(self.log, 'wb') as log:
            self.popen = subprocess.Popen(
                [need('setpriv'), '--pdeathsig', 'KILL', '--', *self.args,
                 '-chardev', f'socket,id=qmp,fd={peer.fileno()}', '-mon',
                 'chardev=qmp,mode=control'], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, pass_fds=[peer.fileno()])
        peer.close()
        self.qmp = Qmp(ours)
        self.qmp.handshake()
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.wait()
        self.qmp.lines.close()

    def io(self, command):
        """What it says, on the process's own output."""
        before = self.log.stat().st_size
        text = self.qmp.command('human-monitor-command', **{
            'command-line': f'qemu-io disk "{command}"'})
        return text + self.log.read_text(errors='replace')[before:]

    def lag(self):
        return self.qmp.command('query-vdisks')[0]['pvs']['buffer']['lag-bytes']

    def migration(self):
        return self.qmp.command('query-migrate').get('status')


def rot_behind_start():
    """In the last that one opening flushed, and others went on from."""
    with Desk() as d:
        for life in range(1, 4):
            node = d.open()
            for i in range(3):
                write(node, 10 * life + i, 16 * life + i)
            node.__exit__()
        at = d.buffer.read_bytes().index(stamped(12, 18))
        flip(d.buffer, at)
        says(d.said(), 'is damaged', 'were flushed')
        flip(d.buffer, at)
        conn = connect(d.open())
        if conn.read(48 * SECTOR, SECTOR) != stamped(30, 48):
            return 'without the rot it is not as it was'


def newer_copy():
    """A newer Deskcast has written a header; the other copy is still ours."""
    with Desk() as d:
        d.open().__exit__()
        at, _ = newest(d.buffer)
        with open(d.buffer, 'r+b') as f:
            f.seek(at + 16)
            f.write(struct.pack('<I', 2))
        seal(d.buffer, at)
        before = d.buffer.read_bytes()
        says(d.said(), 'of another version', 'use a newer Deskcast')
        return None if d.buffer.read_bytes() == before else 'it was written to'


def broken_standard():
    with Desk() as d:
        node = d.open()
        write(node)
        node.__exit__()
        patch_headers(d.buffer, 152, struct.pack('<I', 1))
        words = ('is broken', "'deskcast journal rescue'")
        says(d.said(), *words)
        options = {'driver': 'pvs', 'mode': 'standard', 'vdisk': 'disk',
                   'version': 1, 'size': 4 * MIB,
                   'journal': node.options['journal'],
                   'stores': node.options['stores']}
        done = subprocess.run([program('qemu-io'), '-r', '-c', 'length',
                               'json:' + json.dumps(options)],
                              stdin=subprocess.DEVNULL, text=True, check=False,
                              capture_output=True)
        says(done.stderr, *words)


def failing(node, what, **rule):
    """The options of a node one file of which fails once."""
    return {**node.options, what: {
        'driver': 'blkdebug', 'image': node.options[what],
        'inject-error': [{'event': 'none', 'once': True, **rule}]}}


def unreadable():
    """The buffer's disk cannot read one sector."""
    with Desk() as d:
        write(d.open())
        node = d.nodes[-1]
        node.__exit__()
        says(d.said(journal=failing(node, 'journal', iotype='read', sector=130,
                                    errno=5)['journal']),
             'Could not read the reconnect buffer: Input/output error',
             "'deskcast journal rescue'")


def failed_open():
    """The header cannot be written: what is under way outlives the node."""
    with Desk() as d:
        node = failing(d.node(), 'journal', iotype='write', sector=8, errno=5)
        del node['node-name'], node['read-only']
        done = subprocess.run(
            [program('qemu-io'), '-c', 'length', 'json:' + json.dumps(node)],
            env={**os.environ, 'MALLOC_PERTURB_': '165'}, timeout=60, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, check=False)
        says(done.stderr, 'is broken: Input/output error',
             'Could not write to the reconnect buffer')
        return None if done.returncode == 1 else f'it ends with {done.returncode}'


def failed_write():
    """It is told; nothing is taken any more, and it is not opened again."""
    with Desk() as d:
        node = d.node()
        node.options = failing(node, 'journal', iotype='write', errno=5,
                               sector=(RING + 4096) // SECTOR)
        node.__enter__()
        conn, failed = connect(node), []
        for request in (lambda: conn.write(0, stamped(1, 0)), conn.flush,
                        lambda: conn.write(SECTOR, stamped(2, 1))):
            try:
                request()
            except ReadError as e:
                failed.append(e.number)
        conn.close()
        if failed != [5, 5, 5]:
            return f'a request after the first that fails: {failed}'
        event = node.qmp.wait_event('VDISK_BUFFER', 10, broken=True)
        if event['data']['level'] != 100 or not node.pvs()['buffer']['broken']:
            return f'it is not told: {event}'
        node.end()
        says(d.said(), 'is broken', "'deskcast journal rescue'")


def repeated_activation():
    """The first one fails after the recovery; nothing is shipped twice."""
    with Desk() as d:
        node = d.open()
        for number in (1, 2):
            write(node, number)
        node.__exit__()
        node.files[0].unlink()      # the copy is lost, and made anew
        node = d.node()
        node.options = failing(node, 'file', iotype='write-zeroes', errno=28)
        node.at_once = False
        node.__enter__()
        node.command('blockdev-add', **{**node.options, 'active': False})
        try:
            node.command('blockdev-set-active', active=True)
            return 'the first activation does not fail'
        except GuestError as e:
            says(str(e), 'No space left on device')
        node.command('blockdev-set-active', active=True)
        if lag(node) != 2 * SECTOR:
            return f'{lag(node)} bytes are to be shipped'
        d.start()
        node.drain()
        shipped = node.pvs()['buffer']['epochs-shipped']
        return None if shipped == 2 else f'{shipped} epochs were shipped'


def refused_inactivation():
    """With a lag; and by an export that writes. The disk goes on."""
    with Desk() as d:
        node = d.open()
        write(node)
        for number, wanted in ((2, 'busy'), (3, 'not permitted')):
            try:
                node.command('blockdev-set-active', active=False,
                             **{'node-name': 'disk'})
                return 'the node is inactive'
            except GuestError as e:
                says(str(e), wanted)
            if number == 2:
                d.start()
            write(node, number)
            node.drain()
        if d.store.image.read_bytes()[:SECTOR] != stamped(3, 0):
            return 'the store lacks what was written last'


def inactive():
    with Desk() as d:
        for device in DEVICES:
            with Machine(d.node(), '-incoming', 'defer', device=device) as m:
                says(device[-1] + m.io('read 0 4k') + m.io('flush'), 'Input/output error')
                m.qmp.command('query-vdisks')


def saved():
    """And restored: not while something is in the buffer only (J12)."""
    with Desk() as d:
        state = d.dir / 'state'
        d.start()
        with Machine(d.node()) as m:
            d.store.kill()
            says(m.io('write -P 65 0 64k'), 'wrote 65536/65536')
            m.io('flush')
            try:
                m.qmp.command('migrate', uri=f'file:{state}')
                return 'it is saved with a lag'
            except GuestError as e:
                says(str(e), 'its store does not have yet', "'vdisk-drain'")
            d.store.start()
            until(lambda: m.lag() == 0, 30, 'the store has it')
            time.sleep(0.1)
            m.qmp.command('migrate', uri=f'file:{state}')
            until(lambda: m.migration() in ('completed', 'failed'), 60, 'saved')
            if m.migration() != 'completed':
                return 'it cannot be saved'
            says(m.io('read 0 4k'), 'Input/output error')
        with Machine(d.node(), '-incoming', f'file:{state}') as m:
            until(lambda: m.migration() in ('completed', 'failed'), 60, 'back')
            says(m.io('read 0 4k'), 'Input/output error')   # until it runs
            m.qmp.command('cont')
            text = m.io('read -P 65 0 64k')
            if 'read 65536/65536' not in text or 'failed' in text:
                return f'restored, it has not what it had: {text}'
            m.io('write -P 66 0 64k')
            m.io('flush')
            until(lambda: m.lag() == 0, 30, 'the store has it')
        held = d.store.image.read_bytes()[:65536]
        return None if held == b'B' * 65536 else 'the store lacks what came then'


def tests(_, _args):
    for text, test in (
            ('rot in what an earlier opening flushed', rot_behind_start),
            ('one header of a newer format', newer_copy),
            ('standard mode with a broken buffer', broken_standard),
            ('a sector that cannot be read', unreadable),
            ('the first header cannot be written', failed_open),
            ('a write to it fails', failed_write),
            ('an activation that is repeated', repeated_activation),
            ('an inactivation that is refused', refused_inactivation),
            ('devices of a machine that waits for a migration', inactive),
            ('saved and restored', saved)):
        yield f'private, buffer: {text}', test

# SPDX-License-Identifier: GPL-2.0-or-later
"""A node that reads from stores, in a storage daemon of its own."""

import json
import os
import shutil
import socket
import subprocess
import sys

from sanitized import SLOWER
from .process import TOP, need, new_folder, program

sys.path.append(str(TOP / 'tests/e2e'))
from guest import GuestError, Qmp                           # noqa: E402


class Node:
    """For use in a with statement; .path is the socket of its NBD export.

    options  BlockdevOptions of the node; its name will be 'disk'
    objects  ObjectOptions that it refers to
    netns    a Namespace that the daemon runs in
    add      False: made without the node, which add() makes later

    .env may be given more variables before it is entered.
    """

    # What it is run in; one that has the monitor's chardev, qmp, is to be added
    program = 'storage-daemon/qemu-storage-daemon'
    monitor = ('--monitor', 'chardev=qmp')

    def __init__(self, options, objects=(), netns=None, add=True):
        self.options = {'read-only': True, **options, 'node-name': 'disk'}
        self.objects = objects
        self.netns = netns
        self.at_once = add
        self.env = {}
        self.dir = new_folder('node')
        self.path = str(self.dir / 'socket')
        self.log = self.dir / 'log'

    def __enter__(self):
        ours, peer = socket.socketpair()
        enter = self.netns.enter() if self.netns else []
        objects = [a for o in self.objects for a in ('--object',
                                                     json.dumps(o))]
        with open(self.log, 'wb') as log:
            self.popen = subprocess.Popen(
                [*enter, need('setpriv'), '--pdeathsig', 'KILL', '--',
                 program(self.program), *objects,
                 '--chardev', f'socket,id=qmp,fd={peer.fileno()}',
                 *self.monitor],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.env}, pass_fds=[peer.fileno()])
        peer.close()
        self.qmp = Qmp(ours)
        try:
            self.qmp.handshake()
            self.qmp.command('nbd-server-start', **{
                'addr': {'type': 'unix', 'data': {'path': self.path}},
                'max-connections': 0})
            if self.at_once:
                self.add()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.wait()
        self.qmp.lines.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def end(self):
        """In order, as when a host is shut down: what it keeps is written."""
        self.qmp.lines.send({'execute': 'quit'})
        self.popen.wait(30 * SLOWER)

    def add(self):
        self.qmp.command('blockdev-add', **self.options)
        self.qmp.command('block-export-add', type='nbd', id='e',
                         **{'node-name': 'disk'})

    def command(self, name, **arguments):
        return self.qmp.command(name, **arguments)

    def events(self, name):
        """Those that came until now, with what they say."""
        self.qmp.command('query-named-block-nodes', flat=True)
        return [e for e in self.qmp.events if e['event'] == name]

    def uri(self):
        return f'nbd+unix:///disk?socket={self.path}'

    def said(self):
        return self.log.read_text(errors='replace')


__all__ = ['GuestError', 'Node']

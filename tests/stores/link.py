# SPDX-License-Identifier: GPL-2.0-or-later
"""A link in front of a server, which can be slow, stall and break: link.c"""

import os
import shutil
import subprocess

from .nbd import server_options
from .process import OURS, StoreError, need, new_folder


def text_of(address):
    return address if isinstance(address, str) else '%s:%d' % address


class Proxied:
    """A way to a server: what stands in front of an NbdStore takes its place
    for a client. For use in a with statement.

    store   the server, which runs by its own
    tcp     an address to listen at, instead of a Unix socket
    """

    def __init__(self, store, tcp=None):
        self.store = store
        self.image = store.image
        self.dir = new_folder('link')
        self.address = tcp or str(self.dir / 'socket')

    def __exit__(self, *_):
        shutil.rmtree(self.dir, ignore_errors=True)

    def objects(self):
        return self.store.objects()

    def options(self, **more):
        return {**self.store.options(**more),
                'server': server_options(self.address)}

    @property
    def uri(self):
        if isinstance(self.address, str):
            return f'nbd+unix:///{self.store.export}?socket={self.address}'
        host, port = self.address
        return f'nbd://{host}:{port}/{self.store.export}'


class Link(Proxied):
    """The proxy. A setting of link.c is a keyword of set(); cut() cuts."""

    def __init__(self, store, tcp=None, netns=None, **settings):
        super().__init__(store, tcp)
        self.netns = netns
        self.settings = settings
        self.popen = None

    def __enter__(self):
        program = OURS / 'tests/stores/link'
        if not os.access(program, os.X_OK):
            raise StoreError(f'{program}: not built')
        enter = self.netns.enter() if self.netns else []
        self.popen = subprocess.Popen(
            [*enter, need('setpriv'), '--pdeathsig', 'KILL', '--', program,
             text_of(self.address), text_of(self.store.address)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.popen.stdout.readline() != 'ready\n':
            self.__exit__()
            raise StoreError('the link does not start')
        self.set(**self.settings)
        return self

    def __exit__(self, *_):
        self.popen.stdin.close()
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()
        super().__exit__()

    def command(self, line):
        self.popen.stdin.write(line + '\n')
        self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()

    def set(self, **settings):
        """delay=20, rate=250000000, cut_after=5000, ...: see link.c"""
        for key, value in settings.items():
            line = f'{key.replace("_", "-")} {int(value)}'
            if self.command(line) != 'ok':
                raise StoreError(f'link: {line}')

    def cut(self):
        self.command('cut')

    def count(self):
        """Connections open and ever, bytes to the server and to clients."""
        return tuple(map(int, self.command('count').split()))

    def cuts(self):
        """How often cut_to_server has cut, and cut_to_client."""
        return tuple(map(int, self.command('cuts').split()))

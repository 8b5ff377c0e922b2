# SPDX-License-Identifier: GPL-2.0-or-later
"""What drains a pvs node does not wait for stores, whatever they owe."""

import threading
import time

from sanitized import SLOWER
from . import damage, images, nbd
from .process import free_port, until
from .reader import Connection, Readers
from .test_pvs import MIB, info, node_of

SOON = 3.0 * SLOWER         # seconds; no QMP command takes longer
REQUEST_TIMEOUT = 20000     # ms; a store may be that slow


class Holds(damage.Damage):
    """A store behind a proxy that lets each new connection negotiate, from
    hold on, and then passes on nothing; cut() ends those made before."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.hold = False
        self.held = threading.Semaphore(0)
        self.made = []

    def connection(self, client, server):
        if not self.hold:
            self.made.append((client, server))
            return super().connection(client, server)
        try:
            server.connect(self.store.address)
            if damage.negotiate(client, server):
                client.recv(1)
                self.held.release()
        except (OSError, EOFError):
            pass
        return None

    def cut(self, first):
        for pair in self.made[first:]:
            for sock in pair:
                damage.shut(sock)


def redialled(folder):
    """One connection of a store that is up is made anew, and stays mute. No
    read waits for it, so nothing tells the store's health of it."""
    image = images.make(folder, 'drained')
    options = {'connections': 4, 'request-timeout': REQUEST_TIMEOUT}
    with nbd.StorageDaemon(image) as store, \
            Holds(store, tcp=('127.0.0.1', free_port())) as link, \
            node_of(image, link, **options) as node:
        connection = Connection(node.path)
        connection.read(0, 4096)
        until(lambda: len(link.made) == 4, 10, 'all are connected')
        link.hold = True
        link.cut(1)
        with Readers(node.path, image, 8, 0):
            if not link.held.acquire(timeout=10):
                return 'nothing was redialled'
        begin = time.monotonic()
        node.command('blockdev-add', **{
            'node-name': 'other', 'driver': 'raw',
            'file': {'driver': 'null-co'}})
        took = time.monotonic() - begin
        good = connection.read(MIB, 4096) == \
            image.read_bytes()[MIB:MIB + 4096]
        connection.close()
        up = info(node)['stores'][0]['state'] == 'up'
    return None if took < SOON and good and up else \
        f'{took:.1f} s, content as it should be: {good}, up: {up}'


def tests(folder, _args):
    yield 'pvs: a drain does not wait for a redial', redialled, folder

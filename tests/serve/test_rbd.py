# SPDX-License-Identifier: GPL-2.0-or-later
"""store serve, of a store whose images are on Ceph."""

import json
import re

from store.test_rbd import OnCeph
from stores import images
from stores.ceph import POOL, Ceph
from stores.process import new_folder, until
from stores.reader import Connection, Readers

from .env import MIB, Desktop, Serve, content, noise, shows

SIZE = 4 * MIB


class Store:
    """What Serve and Desktop have to know of it"""

    def __init__(self, ceph):
        self.ceph = OnCeph(new_folder('rbd'), ceph)
        self.path = self.ceph.store
        # Clients at the same time would have the same socket
        conf = self.ceph.folder / 'client.conf'
        conf.write_text(re.sub('(admin socket =).*', r'\1',
                               ceph.conf.read_text()))
        self.ceph.must('store', 'create', self.path, '--rbd-pool', POOL,
                       '--rbd-conf', conf)

    def make(self, offset, data, *size):
        self.ceph.must('version', 'new', 'win', *size)
        number = json.loads((self.path / 'vdisks/win/manifest.json')
                            .read_text())['versions'][-1]['version']
        path = self.ceph.folder / 'data'
        path.write_bytes(data)
        self.ceph.write(number, f'-s {path}', offset, len(data))
        self.ceph.must('version', 'seal', 'win')
        self.ceph.must('version', 'promote', 'win')
        return number

    def version(self, vdisk, number):
        text = (self.path / f'vdisks/{vdisk}/manifest.json').read_text()
        return next(v for v in json.loads(text)['versions']
                    if v['version'] == number)


def on_ceph():
    folder = new_folder('image')
    with Ceph(images.make(folder, 'unused', MIB)) as ceph:
        store = Store(ceph)
        store.make(0, noise('rbd', MIB), '--size', SIZE)
        want = noise('rbd', MIB) + bytes(SIZE - MIB)
        raw = folder / 'one'
        raw.write_bytes(want)
        with Serve(store) as serve:
            with Readers(serve.path, raw, threads=2, export='win@1') as readers:
                store.make(MIB, noise('two', MIB))
                shows(serve.path, 'win@2', 'win@2.tree')
                with Desktop(store, [serve.path], 'win', 2) as node:
                    two = content(node.path)
            if readers.wrong or readers.errors:
                return f'{readers.summary()} {readers.errors[:3]}'
            if two != noise('rbd', MIB) + noise('two', MIB) + \
                    bytes(SIZE - 2 * MIB):
                return 'version 2 is not what was written'
            store.ceph.must('version', 'new', 'win', '--for', 'pvs')
            shows(serve.path, 'win@3', 'win@3.label')
            return writers(serve)


def writers(serve):
    """One at a time, and the next one has what the first one wrote"""
    first = Connection(serve.path, 'win@3', 30)
    first.write(0, noise('first', 4096))
    first.flush()
    second = Connection(serve.path, 'win@3', 30)
    until(lambda: not first.sock.recv(1), 10, 'the first is disconnected')
    if second.read(0, 4096) != noise('first', 4096):
        return 'what was written is lost'
    return None if second.size == SIZE + 4096 else 'it has no label'


def tests():
    yield 'serve: images on Ceph', on_ceph

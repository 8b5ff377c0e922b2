# SPDX-License-Identifier: GPL-2.0-or-later
"""The peers, and their disk images."""

import dataclasses
import os
import pathlib

import tools

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB


@dataclasses.dataclass(frozen=True)
class Peer:
    """A way to hold a disk. Peers of one pace do the same number of requests:
    what is compared with raw writes as much as raw."""
    name: str
    title: str
    format: str
    options: tuple = ()
    pace: str = 'raw'

    @property
    def overlay(self):
        return self.format in ('qcow2', 'mcs')

    @property
    def create_args(self):
        """Options of 'qemu-img create'."""
        text = ','.join(f'{k}={v}' for k, v in self.options)
        return ['-o', text] if text else []


# In the order of the rounds: what is compared most runs one after the other
PEERS = {p.name: p for p in (
    Peer('null', 'null-co', 'null-co', pace='null'),
    Peer('qcow2', 'qcow2 overlay, 64 KiB clusters', 'qcow2',
         (('cluster_size', 64 * KIB),), 'qcow2'),
    Peer('qcow2-sub', 'qcow2 overlay, 128 KiB clusters, extended_l2', 'qcow2',
         (('cluster_size', 128 * KIB), ('extended_l2', 'on')), 'qcow2-sub'),
    Peer('raw', 'raw sparse file', 'raw'),
    Peer('base', 'raw base', 'raw'),
    Peer('mcs', 'mcs dedicated', 'mcs', (('lifetime', 'dedicated'),)),
    Peer('mcs-pooled', 'mcs pooled', 'mcs', (('lifetime', 'pooled'),)),
)}


class Shelf:
    """The images of one run, in one directory of one file system."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.kept = {}

    def base(self, size):
        """A master image without holes; its content does not compress."""
        path = self.dir / f'base-{size}.raw'
        if not path.exists():
            block = os.urandom(MIB)
            with open(path, 'wb') as f:
                for at in range(0, size, MIB):
                    f.write(at.to_bytes(8, 'little') + block[8:])
                f.flush()
                os.fsync(f.fileno())
        return path

    def make(self, peer, path, size):
        """A new image; an overlay has a base of the same size."""
        if peer.name == 'raw':
            with open(path, 'wb') as f:
                f.truncate(size)
        elif peer.overlay:
            tools.run(tools.IMG, 'create', '-q', '-f', peer.format,
                      *peer.create_args, '-b', str(self.base(size)),
                      '-F', 'raw', str(path))
        return path

    def new(self, peer, size):
        """An image that nothing was written to; made anew at each call."""
        path = self.dir / f'{peer.name}-new.img'
        path.unlink(missing_ok=True)
        return self.make(peer, path, size)

    def unwritten(self, peer, size):
        return self._keep('unwritten', peer, size)

    def written(self, peer, size):
        """An image that was written from end to end (a pooled disk has
        forgotten it when it is opened)."""
        return self._keep('written', peer, size)

    def _keep(self, kind, peer, size):
        key = kind, peer.name, size
        if key not in self.kept:
            path = self.dir / f'{peer.name}-{kind}-{size}.img'
            self.make(peer, path, size)
            if kind == 'written' and peer.format != 'null-co':
                fill(peer, path, size)
            self.kept[key] = path
        return self.kept[key]


def fill(peer, path, size):
    step = min(size, 16 * MIB)
    for at in range(0, size, 64 * step):
        end = min(size, at + 64 * step)
        commands = [f'write -q -P 0x5a {n} {step}'
                    for n in range(at, end, step)]
        tools.run(tools.IO, '-f', peer.format,
                  *[arg for c in commands for arg in ('-c', c)], str(path))
    with open(path, 'rb') as f:
        os.fsync(f.fileno())

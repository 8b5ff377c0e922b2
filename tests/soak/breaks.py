# SPDX-License-Identifier: GPL-2.0-or-later
"""What must not happen is done on purpose: the soak has to find it."""

import os
import signal
import struct
import time

from stores.process import until

from .content import SECTOR
from .desktops import Dedicated, McsPooled, OnStore

NOISE = b'not what was written'.ljust(SECTOR, b'.')


def one_of(world, kind):
    """A desktop of that kind that has come up and written"""
    desk = next(d for d in world.everybody if isinstance(d, kind))
    until(lambda: desk.content and len(desk.content.own) > 500 or
          world.findings.over.is_set(), 60, f'{desk.name} writes')
    return desk


def image(world):
    """blocks of a sealed image are overwritten"""
    path = one_of(world, McsPooled).on.image
    path.chmod(0o644)
    with open(path, 'r+b') as f:
        size = path.stat().st_size
        for at in range(size // 4, size, 64 * SECTOR):
            f.seek(at)
            f.write(NOISE)


def layer(world):
    """what a desktop wrote is overwritten in its file"""
    desk = one_of(world, Dedicated)
    path = desk.folder / f'{desk.name}.mcs'
    with open(path, 'r+b') as f:
        data, = struct.unpack('<Q', os.pread(f.fileno(), 8, 80))
        for sector in list(desk.content.own):
            os.pwrite(f.fileno(), NOISE, data + sector * SECTOR)


def private(world):
    """what a store has of a private vDisk is overwritten"""
    path = one_of(world, OnStore).place_of.server.image
    with open(path, 'r+b') as f:
        for at in range(0, world.size, SECTOR):
            os.pwrite(f.fileno(), NOISE, at)


def stop(world):
    """a desktop is stopped, which nobody commanded"""
    machine = one_of(world, McsPooled).machine
    with machine.lock:
        machine.eye.command('stop')


def hang(world):
    """a QEMU does not answer for six seconds"""
    pid = one_of(world, Dedicated).machine.popen.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    os.kill(pid, signal.SIGCONT)


def cache(world):
    """there is more in the folder of the caches than may be"""
    path = world.relay.server.cache / 'more'
    path.write_bytes(bytes(1 << 20) * (world.cache_limit >> 20))


def leftover(world):
    """files are left that nobody takes away"""
    for n in range(100):
        (world.tmp / f'left-{n}').touch()
    world.findings.ending.set()


# What is done, what is said then, and in which words it is told
KINDS = {
    'image': (image, 'was written to|instead of'),
    'layer': (layer, 'instead of'),
    'private': (private, 'instead of'),
    'stop': (stop, 'nobody commanded|request waits'),
    'hang': (hang, 'took'),
    'cache': (cache, 'its caches take'),
    'leftover': (leftover, 'kills of services'),
}

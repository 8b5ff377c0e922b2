# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest behind a relay that is there, and whose store is not. The relay has
what probes ask for, and not what the guest reads."""

import contextlib
import time

from sanitized import SLOWER
from . import images, nbd
from .reader import Connection
from .test_cache import Relay, files
from .test_commands import Machine
from .test_errors import (STANDS, WAIT, content, denied_ms, disk_of, events)
from .test_pvs import RESUMED, node_of, verity

from guest import event_time                    # node has told Python where

SECTOR = 512
WANTED = 4 << 20                # where the boot sector reads from
FIRMWARE = 20                   # seconds until it does, at most
# It knows that its store is away after request-timeout, and so do we; seconds
NOTICED = 3 * 2
# What a relay that keeps each request would have grown by; bytes
GROWN = 16 << 20


def boot_sector():
    """Reads a sector at WANTED by the BIOS, and halts."""
    code = bytes.fromhex('31c0 8ed8 be207c b442 cd13 f4 ebfd')
    packet = b'\x10\0\x01\0' + (0x7e00).to_bytes(4, 'little') + \
        (WANTED // SECTOR).to_bytes(8, 'little')
    return (code.ljust(0x20, b'\0') + packet).ljust(510, b'\0') + b'\x55\xaa'


def bootable(folder):
    image = images.make(folder, 'relayed')
    with open(image, 'r+b') as f:
        f.write(boot_sector())
    return image


AWAY = {'killed': (nbd.StorageDaemon.kill, nbd.StorageDaemon.start),
        'frozen': (nbd.StorageDaemon.freeze, nbd.StorageDaemon.thaw)}


def rss(pid):
    with open(f'/proc/{pid}/statm', encoding='ascii') as f:
        return int(f.read().split()[1]) * 4096


def stands_still(m, flaps):
    """It stops once, and it is told for how long it has waited; so often its
    store changes its state meanwhile."""
    m.ask('cont')
    begin = time.monotonic()
    m.qmp.wait_event('STOP', FIRMWARE + WAIT + NOTICED)
    print(f'# stopped after {time.monotonic() - begin:.1f} s', flush=True)
    seen = []
    end = time.monotonic() + STANDS
    while time.monotonic() < end:
        m.answers(0.5)
        seen.append(denied_ms(m))
    stops, changes = len(events(m, 'STOP')), len(events(m, 'VDISK_STORE'))
    if stops != 1 or m.status() != 'io-error':
        return f'{stops} stops, {m.status()}'
    return None if seen == sorted(seen) and all(seen) and changes <= flaps * SLOWER else \
        f'waited for {seen} ms; {changes} changes of its store'


def paused(folder, how, relayed, flaps):
    """The guest stands still, as without a store, and goes on by itself."""
    go_away, come_back = AWAY[how]
    image = bootable(folder)
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as far, \
            node_of(image, far, **pinned, **f.options(), **relayed) as relay:
        with contextlib.closing(Connection(relay.path)) as c:
            c.read(0, SECTOR)
        disk = disk_of(folder, (Relay(image, relay),), **pinned)
        with Machine(folder, 'relayed', disk) as m:
            go_away(far)
            why = stands_still(m, flaps)
            before = rss(relay.popen.pid)
            m.answers(STANDS)
            grown = rss(relay.popen.pid) - before
            begin, count = time.time(), len(events(m, 'RESUME'))
            come_back(far)
            m.qmp.wait_event('RESUME', 20)
            took = event_time(events(m, 'RESUME')[count]) - begin
            shown = content(m, folder) == image.read_bytes()
    print(f'# resumed after {1000 * took:.0f} ms', flush=True)
    if why or grown > GROWN:
        return why or f'the relay has {grown} bytes more'
    return None if took < RESUMED and shown else \
        f'resumed after {took:.2f} s, content is {shown}'


def tests(folder, _args):
    # It goes, and maybe comes and goes; a request in so many seconds breaks it
    relays = {'a relay': ({'outage-action': 'error', 'outage-wait': 1}, 4),
              'a relay that keeps who asks waiting': ({}, 12)}
    for name, (relayed, flaps) in relays.items():
        for how in AWAY:
            yield (f'behind {name}, whose store is {how}, a guest stands still',
                   paused, folder, how, relayed, flaps)

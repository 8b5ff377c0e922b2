# SPDX-License-Identifier: GPL-2.0-or-later
"""A streamed desktop that is written to: its write cache over what stores have,
byte by byte, until it is reset."""

import contextlib
import random
import threading
import time

from sanitized import SLOWER
from . import images, nbd
from .process import until
from .reader import Connection
from .test_cache import SIZE, desktop_of, files
from .test_pvs import everything, info, verity

SECTOR = 512
GRANULE = 4096
LONGEST_WRITE = 1 << 16
SOON = 3.0 * SLOWER             # seconds


def reset(desktop):
    desktop.command('vdisk-reset', **{'node-name': 'disk'})


def take_writes(desktop):
    """By its export."""
    reset(desktop)
    desktop.command('block-export-del', id='e', mode='hard')
    until(lambda: not desktop.command('query-block-exports'), 10, 'it is gone')
    desktop.command('block-export-add', type='nbd', id='e', writable=True,
                    **{'node-name': 'disk'})


def write_some(c, model, rng, count):
    """Writes, zeroes and trims of any sectors, also in the model."""
    for _ in range(count):
        at = rng.randrange(SIZE // SECTOR) * SECTOR
        n = min(SECTOR << rng.randrange(8), LONGEST_WRITE, SIZE - at)
        data = bytes(n)
        if rng.random() < 0.8:
            data = rng.randbytes(n)
            c.write(at, data)
        else:
            c.zero(at, n, hole=rng.random() < 0.5)
        model[at:at + n] = data


def forgets(folder, more, seed):
    """What is written is read; after a reset the version is, and nothing else."""
    rng = random.Random(seed)
    image = images.make(folder, 'cached', SIZE)
    data = image.read_bytes()
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            desktop_of(image, f, store, **verity(image), **more) as desktop:
        take_writes(desktop)
        for _ in range(4):
            reset(desktop)
            if everything(desktop) != data:
                return 'what was written before a reset is there'
            model = bytearray(data)
            with contextlib.closing(Connection(desktop.path)) as c:
                write_some(c, model, rng, 300)
                c.flush()
            if everything(desktop) != model:
                return f'seed {seed}: content differs'
    return None


def in_outage(folder):
    """A part of a granule that is not here is written while no store answers: it
    waits, keeps nobody else, and ends whole when the store does."""
    image = images.make(folder, 'cached', SIZE)
    model = bytearray(image.read_bytes())
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            desktop_of(image, f, store, **verity(image),
                       **{'outage-action': 'wait'}) as desktop:
        take_writes(desktop)
        at = 5 * GRANULE + SECTOR
        model[at:at + SECTOR] = b'p' * SECTOR
        model[0:GRANULE] = b'w' * GRANULE
        part, whole = (Connection(desktop.path) for _ in range(2))
        until(lambda: info(desktop)['stores'][0]['state'] == 'up', 10, 'it is up')
        store.freeze()
        thread = threading.Thread(target=part.write, daemon=True,
                                  args=(at, b'p' * SECTOR))
        thread.start()
        begin = time.monotonic()
        whole.write(0, b'w' * GRANULE)
        here = whole.read(0, GRANULE) == b'w' * GRANULE
        took = time.monotonic() - begin
        until(lambda: 'outage-ms' in info(desktop), 10, 'an outage is told')
        waits = thread.is_alive()
        store.thaw()
        thread.join(10)
        shown = everything(desktop) == model
    return None if here and waits and shown and took < SOON and \
        not thread.is_alive() else \
        f'what is local: {here} in {took:.1f} s; it waits: {waits}; {shown}'


def header_counts(folder):
    """Its header says what it runs on, and options that say otherwise do not."""
    image = images.make(folder, 'cached', SIZE)
    other = {'vdisk': 'other', 'version': 7, 'size': SIZE // 2,
             'verity-root': 64 * 'a'}
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        desktop = desktop_of(image, f, store, **pinned)
        desktop.options.update(other)
        with desktop:
            reset(desktop)
            now = desktop.command('query-vdisks')[0]
            shown = everything(desktop) == image.read_bytes()
    return None if shown and now['pvs']['version'] == 1 and \
        now['pvs']['vdisk'] == 'disk' else f'content is {shown}; {now}'


def tests(folder, args):
    for name, more in (('', {}), (' and a RAM tier', {'write-cache-ram': 1 << 20})):
        yield (f'a desktop{name} forgets at a reset', forgets, folder, more,
               args.seed)
    yield 'a part of a granule is written in an outage', in_outage, folder
    yield 'the header counts more than options', header_counts, folder

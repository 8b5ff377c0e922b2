# SPDX-License-Identifier: GPL-2.0-or-later
"""A store with a volatile cache: what it forgets, and what it does not."""

import random
import shutil
import threading

from . import images
from .nbd import VolatileStorageDaemon
from .reader import Connection

KIB, MIB = 1 << 10, 1 << 20
# Neither begins nor ends with a page of the cache
ODD = (5 * MIB + 512, 37 * KIB)


class Trial:
    """A store with a fresh image, and what it has to hold.

    seen     content as a reader has to see it now
    durable  content that has to survive a kill
    """

    def __init__(self, folder, **options):
        source = images.make(folder, 'image')
        path = source.with_name('volatile')
        shutil.copyfile(source, path)
        self.seen = bytearray(source.read_bytes())
        self.durable = bytes(self.seen)
        self.store = VolatileStorageDaemon(path, **options)
        self.rng = random.Random(1)

    def __enter__(self):
        self.store.__enter__()
        self.conn = Connection(self.store.address)
        return self

    def __exit__(self, *_):
        self.conn.close()
        self.store.__exit__()

    def write(self, offset, length, fua=False):
        data = self.rng.randbytes(length)
        self.conn.write(offset, data, fua)
        self.seen[offset:offset + length] = data

    def zero(self, offset, length, hole=True):
        self.conn.zero(offset, length, hole)
        self.seen[offset:offset + length] = bytes(length)

    def trim(self, offset, length):
        """A trimmed page is zeroes here; what is less than one is left alone."""
        self.conn.trim(offset, length)
        self.seen[offset:offset + length] = bytes(length)

    def flush(self):
        self.conn.flush()
        self.durable = bytes(self.seen)

    def content(self):
        size = len(self.seen)
        return b''.join(self.conn.read(at, MIB) for at in range(0, size, MIB))

    def restart(self):
        """Killed, and up again: what is in its file, and what it serves then."""
        self.store.kill()
        self.conn.close()
        held = self.store.image.read_bytes()
        self.store.start()
        self.conn = Connection(self.store.address)
        if self.content() != held:
            raise AssertionError('it does not serve what its file holds')
        return held

    def change(self):
        """Some of each kind, not flushed."""
        self.write(0, 64 * KIB)
        self.write(*ODD)
        self.zero(MIB, MIB)
        self.zero(3 * MIB + 512, 9 * KIB, hole=False)
        self.trim(4 * MIB, 256 * KIB)
        self.write(4 * MIB + 8 * KIB, 4 * KIB)


def seen(folder):
    """Reads see what was not flushed, also through another export; the image's
    file does not hold it."""
    with Trial(folder, reading='look') as t:
        t.change()
        if t.content() != t.seen:
            return 'a read does not see what was written'
        look = Connection(t.store.address, 'look')
        if look.read(0, 64 * KIB) != t.seen[:64 * KIB]:
            return 'another export does not see what was written'
        look.close()
        if t.store.image.read_bytes() != t.durable:
            return 'the file holds what was not flushed'
        return None


def survives(folder):
    """What was flushed is there after a kill, whatever came later is not."""
    with Trial(folder) as t:
        t.change()
        t.flush()
        t.change()
        if t.restart() != t.durable:
            return 'the file is not what it was at the flush'
        return 'nothing was written later' if t.seen == t.durable else None


def fua(folder):
    """A write with FUA survives a kill."""
    with Trial(folder) as t:
        t.write(2 * MIB, 8 * KIB, fua=True)
        t.durable = bytes(t.seen)
        t.write(6 * MIB, 8 * KIB)
        return None if t.restart() == t.durable else 'it was forgotten'


def control(folder):
    """Without the library nothing is forgotten: it is what does it."""
    with Trial(folder, volatile=False) as t:
        t.change()
        return None if t.restart() == t.seen else 'it was forgotten'


def exclusive(folder):
    """An exclusive export of it admits one writer; what it forgot is the same."""
    with Trial(folder, exclusive=True, reading='look') as t:
        t.change()
        t.flush()
        old = t.conn
        t.conn = Connection(t.store.address)
        try:
            old.flush()
            return 'the earlier writer was not shut out'
        except (OSError, EOFError):
            old.close()
        look = Connection(t.store.address, 'look')
        t.change()
        look.close()
        return None if t.restart() == t.durable else 'a flushed write is gone'


def subset(folder):
    """A cache that makes room: some of it survives, page by page."""
    with Trial(folder, evict=50) as t:
        t.write(0, 4 * MIB)
        held = t.restart()
        old = new = 0
        for at in range(0, len(held), 4 * KIB):
            page = held[at:at + 4 * KIB]
            if page == t.seen[at:at + 4 * KIB]:
                new += at < 4 * MIB
            elif page == t.durable[at:at + 4 * KIB]:
                old += 1
            else:
                return f'the page at {at} is neither old nor new'
        return None if old > 100 and new > 100 else f'{old} old, {new} new'


def threads(folder):
    """Four connections write, flush and read by turns, each its own part; then
    all is killed."""
    with Trial(folder) as t:
        part = len(t.seen) // 4
        wrong = []

        def work(n):
            rng = random.Random(n)
            conn = Connection(t.store.address)
            for _ in range(100):
                length = rng.randrange(512, 64 * KIB, 512)
                at = n * part + rng.randrange(0, part - length, 512)
                data = rng.randbytes(length)
                conn.write(at, data)
                t.seen[at:at + length] = data
                if rng.random() < 0.2:
                    conn.flush()
                if conn.read(at, length) != data:
                    wrong.append(at)
            conn.flush()
            conn.close()

        workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
        if wrong:
            return f'read back wrong at {wrong[:10]}'
        return None if t.restart() == t.seen else 'a flushed write is gone'


def tests(folder, _args):
    yield 'volatile store: reads see what its file does not hold', seen, folder
    yield ('volatile store: flushed data survives a kill, other is forgotten',
           survives, folder)
    yield 'volatile store: FUA', fua, folder
    yield 'volatile store: a cache that makes room keeps a part', subset, folder
    yield 'volatile store: several connections', threads, folder
    yield 'volatile store: an exclusive export', exclusive, folder
    yield 'control: without the library nothing is forgotten', control, folder

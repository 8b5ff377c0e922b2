# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a node through its NBD export, and compares every byte.

The export is on a Unix socket, so that a late answer is the node's.
"""

import mmap
import random
import socket
import struct
import threading
import time

from sanitized import SLOWER
from .damage import receive

MAGIC, SIMPLE = 0x25609513, 0x67446698
NO_ZEROES = 2
READ, WRITE, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 3, 4, 6
FUA, NO_HOLE = 1, 2


class ReadError(Exception):
    """The server answered with an error; it is in .number."""

    def __init__(self, number):
        super().__init__(f'error {number}')
        self.number = number


class Connection:
    """One request at a time."""

    def __init__(self, path, export='disk', timeout=None):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        receive(self.sock, 18)
        name = export.encode()
        self.sock.sendall(struct.pack('>IQII', 1 | NO_ZEROES,
                                      0x49484156454f5054, 1, len(name)) + name)
        self.size, = struct.unpack('>Q2x', receive(self.sock, 10))
        self.cookie = 0

    def request(self, command, offset, length, data=b'', flags=0):
        self.cookie += 1
        self.sock.sendall(struct.pack('>IHHQQI', MAGIC, flags, command,
                                      self.cookie, offset, length) + data)
        magic, error, cookie = struct.unpack('>IIQ', receive(self.sock, 16))
        assert (magic, cookie) == (SIMPLE, self.cookie)
        if error:
            raise ReadError(error)

    def read(self, offset, length):
        self.request(READ, offset, length)
        return receive(self.sock, length)

    def write(self, offset, data, fua=False):
        self.request(WRITE, offset, len(data), data, FUA if fua else 0)

    def zero(self, offset, length, hole=True):
        self.request(WRITE_ZEROES, offset, length,
                     flags=0 if hole else NO_HOLE)

    def trim(self, offset, length):
        self.request(TRIM, offset, length)

    def flush(self):
        self.request(FLUSH, 0, 0)

    def close(self):
        self.sock.close()


class Readers:
    """Threads that read at random places until they are stopped, for use in a
    with statement.

    path      of the export's socket
    image     what each byte has to be
    interval  seconds that a thread rests after each read
    sizes     in bytes, one of which is chosen for each read
    places    only so many bytes at the image's beginning are read, if given

    reads is a list of (begin, seconds, offset, length). wrong and errors are
    lists of what was not as it should be.
    """

    def __init__(self, path, image, threads=4, interval=0.002, seed=0,
                 sizes=(4096, 4096, 4096, 65536), places=None, export='disk'):
        self.path = path
        self.image = image
        self.threads = threads
        self.interval = interval
        self.seed = seed
        self.sizes = sizes
        self.places = places
        self.export = export
        self.reads, self.wrong, self.errors = [], [], []
        self.ending = threading.Event()

    def __enter__(self):
        self.file = open(self.image, 'rb')
        self.map = mmap.mmap(self.file.fileno(), 0, prot=mmap.PROT_READ)
        self.running = [threading.Thread(target=self.run, args=(n,),
                                         daemon=True)
                        for n in range(self.threads)]
        for thread in self.running:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self, timeout=60):
        """True if all have ended; else a read is still waiting."""
        self.ending.set()
        end = time.monotonic() + timeout * SLOWER
        for thread in self.running:
            thread.join(max(0, end - time.monotonic()))
        return not any(t.is_alive() for t in self.running)

    def run(self, number):
        rng = random.Random(f'{self.seed}/{number}')
        size = min(self.places or len(self.map), len(self.map))
        connection = Connection(self.path, self.export)
        while not self.ending.is_set():
            length = rng.choice(self.sizes)
            offset = rng.randrange((size - length) // 4096 + 1) * 4096
            self.one(connection, time.monotonic(), offset, length)
            time.sleep(self.interval)
        connection.close()

    def one(self, connection, begin, offset, length):
        try:
            data = connection.read(offset, length)
        except ReadError as e:
            self.errors.append((begin, offset, length, e.number))
        except EOFError:
            self.errors.append((begin, offset, length, 'closed'))
            self.ending.set()
        else:
            if data != self.map[offset:offset + length]:
                self.wrong.append((begin, offset, length))
        self.reads.append((begin, time.monotonic() - begin, offset, length))

    def percentile(self, share):
        """Seconds within which that share of all reads was answered."""
        times = sorted(r[1] for r in self.reads)
        return times[min(len(times) - 1, int(len(times) * share))]

    def longest(self):
        return max((r[1] for r in self.reads), default=0.0)

    def summary(self):
        ms = [f'{1000 * self.percentile(p):.1f}' for p in (.5, .99, .999)]
        return (f'{len(self.reads)} reads, {len(self.wrong)} wrong, '
                f'{len(self.errors)} errors; p50 {ms[0]} p99 {ms[1]} '
                f'p99.9 {ms[2]} max {1000 * self.longest():.0f} ms')

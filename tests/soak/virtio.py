# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio-blk disk, driven from outside by qtest, as a guest's driver does it.

The device is a legacy one (disable-modern=on) at a fixed slot of a PC.
"""

import base64
import struct
import time

# I/O ports of the configuration of PCI, and where the device's own are put
ADDRESS, DATA, PORTS = 0xcf8, 0xcfc, 0xc000
SLOT = 5
# Registers of a legacy device
FEATURES, WANTED, QUEUE_PFN, QUEUE_SIZE, QUEUE, NOTIFY, STATUS = \
    0, 4, 8, 12, 14, 16, 18
DRIVER, DRIVER_OK = 3, 7
FLUSH_FEATURE, DISCARD_FEATURE, ZEROES_FEATURE = 1 << 9, 1 << 13, 1 << 14
READ, WRITE, FLUSH, DISCARD, ZEROES = 0, 1, 4, 11, 13
NEXT, INTO = 1, 2               # flags of a descriptor
# In the guest's memory
RING, REQUESTS, EACH = 0x100000, 0x200000, 0x80000
SLOTS = 4
LONGEST = EACH - 4096
NOT_YET = 0xff


class QtestError(Exception):
    """It does not answer, or says no."""


class Qtest:
    """The protocol: a line is asked, a line is the answer."""

    def __init__(self, sock, timeout=60):
        sock.settimeout(timeout)
        self.sock = sock
        self.rest = b''

    def ask(self, line):
        try:
            self.sock.sendall(line.encode() + b'\n')
            while b'\n' not in self.rest:
                data = self.sock.recv(1 << 20)
                if not data:
                    raise QtestError('QEMU has closed the connection')
                self.rest += data
        except OSError as e:
            raise QtestError(f'{line[:40]}: {e}') from None
        answer, self.rest = self.rest.split(b'\n', 1)
        words = answer.decode().split()
        if words[0] != 'OK':
            raise QtestError(f'{line[:40]}: {answer[:80]}')
        return words[1:]

    def out(self, size, port, value):
        self.ask(f'out{size} {port:#x} {value:#x}')

    def input(self, size, port):
        return int(self.ask(f'in{size} {port:#x}')[0], 16)

    def write(self, address, data):
        self.ask(f'b64write {address:#x} {len(data):#x} '
                 f'{base64.b64encode(data).decode()}')

    def read(self, address, size):
        return base64.b64decode(self.ask(f'b64read {address:#x} {size:#x}')[0])

    def clear(self, address, size):
        self.ask(f'memset {address:#x} {size:#x} 0x0')

    def close(self):
        self.sock.close()


class Request:
    """offset and length in bytes; of a write, data; of a read, afterwards."""

    def __init__(self, kind, offset=0, length=0, data=None):
        self.kind, self.offset, self.length = kind, offset, length
        self.data = data
        self.status = NOT_YET

    def body(self):
        if self.kind == WRITE:
            return self.data
        if self.kind in (DISCARD, ZEROES):
            unmap = self.kind == ZEROES and self.offset // 4096 % 2
            return struct.pack('<QII', self.offset // 512, self.length // 512,
                               unmap)
        return b''


class Disk:
    """The driver. After a reset of the system begin() has to be called."""

    def __init__(self, qtest):
        self.q = qtest
        self.under_way = []

    def pci(self, register, size, value):
        self.q.out('l', ADDRESS, 0x80000000 | SLOT << 11 | register)
        self.q.out(size, DATA, value)

    def begin(self):
        self.under_way = []
        self.pci(0x10, 'l', PORTS)
        self.pci(0x04, 'w', 5)                  # its ports, and memory
        for status in (0, 1, DRIVER):
            self.q.out('b', PORTS + STATUS, status)
        offers = self.q.input('l', PORTS + FEATURES)
        wants = FLUSH_FEATURE | DISCARD_FEATURE | ZEROES_FEATURE
        if offers & wants != wants:
            raise QtestError(f'the device offers {offers:#x} only')
        self.q.out('l', PORTS + WANTED, wants)
        self.q.out('w', PORTS + QUEUE, 0)
        self.size = self.q.input('w', PORTS + QUEUE_SIZE)
        self.avail = RING + 16 * self.size
        self.used = -(-(self.avail + 6 + 2 * self.size) // 4096) * 4096
        self.q.clear(RING, self.used + 8192 - RING)
        self.q.out('l', PORTS + QUEUE_PFN, RING >> 12)
        self.q.out('b', PORTS + STATUS, DRIVER_OK)
        self.index = 0

    def submit(self, requests):
        """All at once; none may be under way."""
        for slot, request in enumerate(requests):
            self.put(slot, request)
            self.q.write(self.avail + 4 + 2 * (self.index % self.size),
                         struct.pack('<H', 3 * slot))
            self.index = (self.index + 1) & 0xffff
        self.under_way = list(requests)
        self.q.write(self.avail + 2, struct.pack('<H', self.index))
        self.q.out('w', PORTS + NOTIFY, 0)

    def put(self, slot, request):
        at, body = REQUESTS + slot * EACH, request.body()
        self.q.write(at, struct.pack('<IIQ', request.kind, 0,
                                     request.offset // 512))
        self.q.write(at + 16, bytes([NOT_YET]))
        if body:
            self.q.write(at + 4096, body)
        parts = [(at, 16, 0)]
        if request.kind == READ:
            parts.append((at + 4096, request.length, INTO))
        elif body:
            parts.append((at + 4096, len(body), 0))
        parts.append((at + 16, 1, INTO))
        chain = b''
        for n, (address, length, flags) in enumerate(parts):
            last = n == len(parts) - 1
            chain += struct.pack('<QIHH', address, length,
                                 flags | (0 if last else NEXT),
                                 0 if last else 3 * slot + n + 1)
        self.q.write(RING + 16 * 3 * slot, chain)

    def done(self):
        """Are all? Then their status, and what was read, is in them."""
        now, = struct.unpack('<H', self.q.read(self.used + 2, 2))
        if now != self.index:
            return False
        for slot, request in enumerate(self.under_way):
            at = REQUESTS + slot * EACH
            request.status = self.q.read(at + 16, 1)[0]
            if request.kind == READ and request.status == 0:
                request.data = self.q.read(at + 4096, request.length)
        self.under_way = []
        return True

    def wait(self, meanwhile):
        """meanwhile(seconds) is called again and again; it may raise."""
        begin, pause = time.monotonic(), 0.0005
        while not self.done():
            meanwhile(time.monotonic() - begin)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return time.monotonic() - begin

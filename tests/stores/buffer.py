# SPDX-License-Identifier: GPL-2.0-or-later
"""What a reconnect buffer holds, read by docs/interop/reconnect-buffer.rst while
its disk uses it: nobody may write to that meanwhile."""

import struct

HEADER, RING = 4096, 65536
WRITE, PAD = 1, 4


def newest(path):
    """Offset of the header that counts, and its content."""
    while True:
        with open(path, 'rb') as f, open(path, 'rb') as again:
            copies = f.read(2 * HEADER)
            if copies == again.read(2 * HEADER):    # not half of an update
                break
    a, b = (struct.unpack_from('<Q', copies, at + 24)[0] for at in (0, HEADER))
    at = 0 if a > b else HEADER
    return at, copies[at:at + HEADER]


def writes(path):
    """Of each write that the store may lack, in their order: its epoch and the
    first 8 bytes of its payload, as a number."""
    _, header = newest(path)
    unit, = struct.unpack_from('<I', header, 20)
    size, = struct.unpack_from('<Q', header, 72)
    pos, seq, _, link = struct.unpack_from('<4Q', header, 96)
    end = pos + size
    found = []
    with open(path, 'rb') as f:
        while pos < end:
            f.seek(RING + pos % size)
            record = f.read(unit + 8)
            magic, checksum = struct.unpack_from('<4s4xQ', record)
            its_seq, epoch, its_link = struct.unpack_from('<3Q', record, 32)
            length, = struct.unpack_from('<Q', record, 72)
            kind, = struct.unpack_from('<I', record, 112)
            if (magic, its_seq, its_link) != (b'DJRC', seq, link):
                break
            if kind == WRITE:
                found.append((epoch, *struct.unpack_from('<Q', record, unit)))
            pos += length if kind == PAD else unit if kind != WRITE else \
                unit + -(-length // unit) * unit
            seq, link = seq + 1, checksum
    return found

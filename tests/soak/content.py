# SPDX-License-Identifier: GPL-2.0-or-later
"""What a desktop has to see: its version, and what it wrote over that."""

import mmap
import struct

SECTOR, GRANULE = 512, 4096
# What a sector may hold besides the number of a write
BASE, ZERO = 0, -1
ZEROES = bytes(SECTOR)


class Version:
    """A sealed version of a vDisk, by the content that it has to have.

    path   a raw file with that content
    image  the file in the store that desktops open, and its format
    root   of its hash tree
    """

    def __init__(self, vdisk, number, path, image, form, root):
        self.vdisk, self.number, self.path = vdisk, number, path
        self.image, self.form, self.root = image, form, root
        with open(path, 'rb') as f:
            self.map = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        self.size = len(self.map)

    def __str__(self):
        return f'{self.vdisk}@{self.number}'

    def drop(self):
        self.map.close()
        self.path.unlink()


class Content:
    """Of one disk. A sector has a list of what was written to it since it was
    durable last; the last one counts, or, of one that is unsure since the
    process was killed, any.

    owner  a number that no other disk has
    base   a Version
    """

    def __init__(self, owner, size, base):
        self.owner, self.sectors, self.base = owner, size // SECTOR, base
        self.number = 0
        self.own = {}
        self.loose, self.unsure = set(), set()

    def stamp(self, number, sector):
        return struct.pack('<IIQ', self.owner, number, sector) * (SECTOR // 16)

    def piece(self, sector, token):
        if token == BASE:
            return self.base.map[sector * SECTOR:(sector + 1) * SECTOR]
        return ZEROES if token == ZERO else self.stamp(token, sector)

    def write(self, first, count, zero=False):
        """It is on its way from now on. Returns the data."""
        self.number += 1
        token = ZERO if zero else self.number
        for s in range(first, first + count):
            held = self.own.setdefault(s, [BASE])
            if held[-1] != token or s in self.unsure:
                held.append(token)
            self.loose.add(s)
        return b'' if zero else b''.join(
            self.stamp(token, s) for s in range(first, first + count))

    def answered(self, first, count):
        """The write that was the last one there."""
        self.unsure.difference_update(range(first, first + count))

    def kept(self, first, count):
        """It outlives the process."""
        for s in range(first, first + count):
            del self.own[s][:-1]
            self.loose.discard(s)

    def flushed(self):
        """All that was answered is durable."""
        for s in self.loose - self.unsure:
            del self.own[s][:-1]
        self.loose &= self.unsure

    def in_flight(self, first, count):
        """A write that is never answered: it is there or not."""
        self.unsure.update(range(first, first + count))

    def killed(self, keeps):
        """The process was. keeps: what was answered is there, flushed or not."""
        if not keeps:
            self.unsure |= self.loose

    def reset(self, base):
        self.base = base
        self.own.clear()
        self.loose.clear()
        self.unsure.clear()

    def expected(self, first, count):
        """Of sectors that are not unsure"""
        data = bytearray(self.base.map[first * SECTOR:(first + count) * SECTOR])
        for s in range(first, first + count):
            if s in self.own:
                at = (s - first) * SECTOR
                data[at:at + SECTOR] = self.piece(s, self.own[s][-1])
        return data

    def differs(self, first, data):
        """What is wrong with what was read there, or None. An unsure sector is
        what it was found to be from now on."""
        count = len(data) // SECTOR
        if data == self.expected(first, count):
            self.settle(first, count)
            return None
        for s in range(first, first + count):
            found = data[(s - first) * SECTOR:(s - first + 1) * SECTOR]
            why = self.sector_differs(s, found)
            if why:
                return why
        return None

    def settle(self, first, count):
        for s in self.unsure & set(range(first, first + count)):
            del self.own[s][:-1]
            self.unsure.discard(s)

    def sector_differs(self, s, found):
        held = self.own.get(s, [BASE])
        may = held if s in self.unsure else held[-1:]
        for token in reversed(may):
            if self.piece(s, token) == found:
                if s in self.unsure:
                    # durable or not, no other one comes back
                    held[:] = [token]
                    self.unsure.discard(s)
                return None
        return f'sector {s} of {self.base}: {self.tell(s, found)} instead of ' \
            f'{[self.name(t) for t in may]}'

    @staticmethod
    def name(token):
        return {BASE: 'the version', ZERO: 'zeros'}.get(
            token, f'write {token}')

    def tell(self, s, found):
        owner, number, sector = struct.unpack_from('<IIQ', found)
        if found == ZEROES:
            return 'zeros'
        if found == struct.pack('<IIQ', owner, number, sector) * (SECTOR // 16):
            whose = 'its own' if owner == self.owner else f"disk {owner}'s"
            return f'{whose} write {number} of sector {sector}'
        if found == self.piece(s, BASE):
            return 'the version'
        return f'something else ({found[:16].hex()}...)'

    def whole(self):
        """All of it; nothing may be unsure."""
        return self.expected(0, self.sectors)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A private desktop waits for its store, and QEMU is told to do something: it
answers, and the guest goes on unaided. The guest is a boot sector that writes
all the time. A stock node, as the control, hangs."""

import struct
import time

from .nbd import VolatileStorageDaemon
from .node import GuestError
from .process import new_folder, until
from .test_commands import COMMANDS, SOON, Machine
from .test_private import LABEL, SECTOR, SIZE, Private

MIB = 1 << 20
# Commands that leave the machine there
STAYS = ('adding a node', 'stop', 'system_reset')
# Sectors of a write; and those that are written, the upper half of the vDisk
COUNT = 64
HALF = SIZE // SECTOR // 2


def boot_sector():
    """INT 13h, function 43h, for ever."""
    at = 0x7c00
    code = bytes.fromhex('31c0 8ed8 8ed0 bc007c')       # ds = ss = 0
    loop = len(code)
    packet = at + 64                # its sector is 8 bytes further on
    code += b'\xbe' + struct.pack('<H', packet)         # mov si, packet
    code += bytes.fromhex('b280 b80043 cd13')           # drive, function
    for word, value in (('6681 06', COUNT),             # add, and, or dword
                        ('6681 26', 2 * HALF - 1), ('6681 0e', HALF)):
        code += bytes.fromhex(word) + struct.pack('<HI', packet + 8, value)
    code += b'\xeb' + struct.pack('<b', loop - len(code) - 2)   # jmp loop
    packet = struct.pack('<BBHHHQ', 16, 0, COUNT, 0, 0x1000, HALF)
    return (code.ljust(64, b'\0') + packet).ljust(510, b'\0') + b'\x55\xaa'


class Writer(Machine):
    def __init__(self, folder, name, disk, cache):
        self.cache = cache
        super().__init__(folder, name, disk)

    def disk_args(self, disk):
        *args, device = super().disk_args(disk)
        return [*args, f'{device},write-cache={self.cache}']

    def writes(self):
        return sum(s['stats']['wr_operations']
                   for s in self.ask('query-blockstats')
                   if s['node-name'] == 'disk0')

    def pvs(self):
        return self.ask('query-vdisks')[0]['pvs']

    def is_stuck(self):
        """One of its requests waits, and goes on waiting."""
        before = self.writes()
        if not self.waiting():
            return False
        time.sleep(0.3)
        return self.waiting() and self.writes() == before


class Desktop:
    """A store that can be frozen, and a machine with its vDisk."""

    name = 'a read holds a granule'
    options = {}
    cache = 'on'

    def __init__(self):
        self.folder = new_folder('commands')
        image = self.folder / 'image'
        image.write_bytes(boot_sector().ljust(SIZE + LABEL, b'\0'))
        self.store = VolatileStorageDaemon(image, exclusive=True,
                                           volatile=False)

    def disk(self):
        return {**Private(self.folder, self.store, buffer=MIB,
                          **{'outage-action': 'wait', **self.options}).options,
                'node-name': 'disk0'}

    def __enter__(self):
        self.store.__enter__()
        self.m = Writer(self.folder, 'private', self.disk(), self.cache)
        self.m.__enter__()
        return self

    def __exit__(self, *_):
        self.m.__exit__()
        self.store.__exit__()

    def is_up(self):
        return self.m.pvs()['stores'][0]['state'] == 'up'

    def begin(self):
        """The boot sector is not local."""
        until(self.is_up, 20, 'the store is up')
        self.store.freeze()
        self.m.ask('cont')

    def waits(self):
        return self.m.is_stuck()

    def wedge(self):
        """It waits, again."""
        until(self.waits, 60, self.name, 0.05)

    def goes_on(self, why):
        before = self.m.writes()
        until(lambda: self.m.status() == 'running' and
              self.m.writes() > before + 5, 30, f'it goes on {why}', 0.05)


class Full(Desktop):
    name = 'writes wait in a full buffer'

    def begin(self):
        self.m.ask('cont')
        self.goes_on('from its start')
        self.store.freeze()

    def waits(self):
        return self.m.pvs()['buffer']['used'] > MIB * 3 // 4 and \
            self.m.is_stuck()


class Flush(Desktop):
    """Without a write cache each write is flushed before it is answered."""

    name = 'a flush waits for the store'
    options = {'durability': 'store', 'request-timeout': 20000}
    cache = 'off'

    def begin(self):
        self.m.ask('cont')

    def wedge(self):
        if self.store.frozen:
            self.store.thaw()
        until(lambda: self.m.pvs()['buffer']['store-durable'], 60,
              'the store has all')
        self.goes_on('with a store')
        self.store.freeze()
        super().wedge()
        if not self.is_up():
            raise GuestError('it waits for something else')


def answers(kind):
    """One after the other while it waits; then all that it waited for comes."""
    with kind() as d:
        d.begin()
        for name in STAYS:
            d.wedge()
            COMMANDS[name](d.m)
            d.m.answers(0.3)
            if name == 'stop':
                d.m.ask('cont')
            until(lambda: d.m.status() == 'running', SOON,
                  f'it runs unaided after {name}')
        if d.store.frozen:
            d.store.thaw()
        d.goes_on('in the end')
    return None


def ends(kind):
    with kind() as d:
        d.begin()
        d.wedge()
        COMMANDS['quit'](d.m)
    return None


class Stock(Desktop):
    name = 'a stock node waits for its store'

    def __init__(self):
        super().__init__()
        self.store.exclusive = False

    def disk(self):
        return {'driver': 'raw', 'node-name': 'disk0',
                'file': self.store.options(**{'reconnect-delay': 600})}

    def begin(self):
        self.m.ask('cont')
        self.goes_on('from its start')
        self.store.freeze()


def hangs():
    """The control."""
    with Stock() as d:
        d.begin()
        d.wedge()
        try:
            COMMANDS['stop'](d.m)
        except GuestError as e:
            return None if f'within {SOON} s' in str(e) else str(e)
    return 'it does not hang'


def tests(_, _args):
    for kind in (Full, Desktop, Flush):
        yield f'private: {kind.name}: QEMU answers', answers, kind
        yield f'private: {kind.name}: quit', ends, kind
    yield 'control, stock: a write waits: stop hangs', hangs

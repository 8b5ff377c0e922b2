# SPDX-License-Identifier: GPL-2.0-or-later
"""One read is stuck, and QEMU is told to do something: pvs answers, and a
stock node, as the control, hangs until its server comes back. The read is the
firmware's, of the boot sector."""

import pathlib
import struct
import time

from sanitized import SLOWER
from . import faults, images
from .node import GuestError
from .process import program, run, until
from .test_pvs import RESUMED

from guest import Guest, event_time     # node has told Python where

# In seconds: no answer takes longer, and nothing is left standing
SOON = 3.0 * SLOWER
MIB = 1 << 20
SECTOR = 512


class Machine(Guest):
    """Without a guest; one slot is free, and a disk to plug into it."""

    def __init__(self, folder, name, disk):
        super().__init__(program('qemu-system-x86_64'), disk,
                         f'{folder}/{name}.console', errors='stop', memory=128,
                         extra=('-S', '-device', 'pcie-root-port,id=port0,slot=1',
                                '-blockdev', 'driver=null-co,node-name=spare,'
                                f'size={MIB},read-zeroes=on'))

    def ask(self, name, **arguments):
        self.qmp.patience = SOON
        return self.qmp.command(name, **arguments)

    def answers(self, seconds=1.0):
        """It does so all that time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.ask('query-status')
            time.sleep(0.05)

    def waiting(self):
        """How many requests its disk has not answered."""
        disk = next(d['path'] for d in self.ask('x-query-virtio')
                    if d['name'] == 'virtio-blk')
        return self.ask('x-query-virtio-queue-status', path=disk,
                        queue=0)['inuse']

    def reads(self):
        return sum(s['stats']['rd_operations']
                   for s in self.ask('query-blockstats')
                   if s['node-name'] == 'disk0')

    def status(self):
        return self.ask('query-status')['status']


# What is asked while the read is stuck; it must hang on a stock node


def stop(m):
    m.ask('stop')
    if m.status() != 'paused':
        raise GuestError(f'stop: {m.status()}')


def reset(m):
    m.ask('system_reset')
    end = time.monotonic() + SOON
    while not any(e['event'] == 'RESET' for e in m.qmp.log):
        m.ask('query-status')
        if time.monotonic() > end:
            raise GuestError('no reset')
        time.sleep(0.05)


def add_node(m):
    m.ask('blockdev-add', **{'node-name': 'other', 'driver': 'raw',
                             'file': {'driver': 'null-co'}})
    m.ask('blockdev-del', **{'node-name': 'other'})


def plug(m):
    m.ask('device_add', driver='virtio-blk-pci', drive='spare', bus='port0',
          id='plugged')


def save(m):
    """As libvirt's managed save does."""
    state = m.log.replace('.console', '.state')
    m.ask('migrate', uri=f'file:{state}')
    end = time.monotonic() + 20
    while (now := m.ask('query-migrate')['status']) != 'completed':
        if now == 'failed' or time.monotonic() > end:
            raise GuestError(f'save: {now}')
        time.sleep(0.05)
    pathlib.Path(state).unlink()


def end(m):
    m.ask('quit')
    try:
        m.process.wait(SOON)
    except Exception:
        raise GuestError(f'it has not ended within {SOON} s') from None


COMMANDS = {'stop': stop, 'system_reset': reset, 'quit': end,
            'adding a node': add_node, 'plugging in a disk': plug,
            'managed save': save}


def stock_disk(_, place):
    return {'driver': 'raw', 'node-name': 'disk0', 'read-only': True,
            'file': place.options(**{'reconnect-delay': 600})}


def pvs_disk(folder, place):
    layer = f'{folder}/commands.pvs'
    size = str(place.image.stat().st_size)
    run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
        'role=cache,vdisk=disk,version=1', layer, size)
    return {'driver': 'pvs', 'node-name': 'disk0',
            'stores': [place.options()], 'outage-action': 'wait',
            'file': {'driver': 'file', 'filename': layer}}


def stuck(m, place):
    """Wait until the firmware reads, and nothing comes."""
    time.sleep(0.7)         # it is connected
    place.server.freeze()
    m.ask('cont')
    until(lambda: m.waiting(), 20, 'the firmware reads')
    time.sleep(0.3)
    if not m.waiting():
        raise GuestError('the read is not stuck')


def answers(folder, image, name):
    """It does what it is told, and the read is answered in the end."""
    with faults.Place(image) as place, \
            Machine(folder, 'pvs', pvs_disk(folder, place)) as m:
        stuck(m, place)
        COMMANDS[name](m)
        if name == 'quit':
            return None
        m.answers()
        place.server.thaw()
        if name in ('stop', 'managed save'):
            m.ask('cont')
        until(lambda: m.status() == 'running', SOON, 'it runs')
        until(lambda: m.reads() and not m.waiting(), SOON, 'it has read')
    return None


def hangs(folder, image, name):
    """The control."""
    with faults.Place(image) as place, \
            Machine(folder, 'stock', stock_disk(folder, place)) as m:
        stuck(m, place)
        m.answers(0.5)
        begin = time.monotonic()
        try:
            COMMANDS[name](m)
            m.answers(SOON)
        except GuestError as e:
            return None if f'within {SOON} s' in str(e) else str(e)
        return f'it does not hang: {time.monotonic() - begin:.1f} s'


def resumes(folder, image, kind):
    """It stands still as the store does not answer, and goes on by itself as
    soon as that is back: at the latest after RESUMED, when the machine has the
    time to do so in one of three rounds."""
    away, back = faults.STREAM[kind]
    took = []
    for _ in range(3):
        with faults.Place(image) as place, Machine(
                folder, 'resumes', {**pvs_disk(folder, place), 'outage-wait': 1,
                                    'outage-action': 'pause'}) as m:
            time.sleep(0.7)
            away(place)
            m.ask('cont')
            m.qmp.wait_event('STOP', 30)
            m.answers()
            if m.status() != 'io-error':
                return f'it does not stand still: {m.status()}'
            begin = time.time()
            back(place)
            took.append(event_time(m.qmp.wait_event('RESUME', 20)) - begin)
        if took[-1] < RESUMED:
            break
    print(f'# resumed after {", ".join(f"{1000 * t:.0f}" for t in took)} ms',
          flush=True)
    return None if min(took) < RESUMED else f'resumed after {took}'


# A boot sector that writes itself to sector 64, by the firmware, and loops
WRITER = bytes.fromhex('31c0 8ed8 be107c b80043 b280 cd13 ebfe'
                       '1000 0100 007c0000 4000000000000000') \
    .ljust(510, b'\0') + b'\x55\xaa'
WRITTEN = 64


def own_disk_fails(folder):
    """It was stopped for want of its store once, and went on. An error of its
    own disk stops it later, and nobody lets it go on then."""
    image = images.make(folder, 'writer')
    image.write_bytes(WRITER + image.read_bytes()[SECTOR:])
    with faults.Place(image) as place:
        disk = pvs_disk(folder, place)
        layer = pathlib.Path(disk['file']['filename'])
        data_offset, = struct.unpack_from('<Q', layer.read_bytes(), 80)
        disk['file'] = {
            'driver': 'blkdebug', 'image': disk['file'],
            'inject-error': [{'event': 'none', 'iotype': 'write', 'errno': 5,
                              'sector': data_offset // SECTOR + WRITTEN}]}
        with Machine(folder, 'own', disk) as m:
            stuck(m, place)
            stop(m)
            place.server.thaw()
            m.ask('cont')
            m.qmp.wait_event('BLOCK_IO_ERROR', 30, operation='write')
            m.qmp.wait_event('STOP', 5)
            m.answers(2)
            resumed = [e for e in m.qmp.events if e['event'] == 'RESUME']
            return None if m.status() == 'io-error' and not resumed else \
                f'{m.status()}, {len(resumed)} times RESUME'


def tests(folder, _args):
    image = images.make(folder, 'image')
    for name in COMMANDS:
        yield f'a read is stuck: {name}', answers, folder, image, name
        yield f'control, stock: {name} hangs', hangs, folder, image, name
    for kind in faults.DEAD:
        if kind in faults.STREAM:
            yield (f'a guest stands still, its store: {kind}, and goes on',
                   resumes, folder, image, kind)
    yield 'a guest stopped by its own disk stands still', own_disk_fails, \
        folder

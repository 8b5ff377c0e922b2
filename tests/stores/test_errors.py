# SPDX-License-Identifier: GPL-2.0-or-later
"""A store that is there, and answers with errors or with what was not sealed:
the only one. A read waits, or a guest stands still until it can be had."""

import contextlib
import pathlib
import time

from . import damage, images, nbd
from .process import free_port, program, run
from .reader import Connection, Readers
from .test_commands import SOON, Machine, end, reset
from .test_pvs import MIB, PROBE, RESUMED, node_of, verity

from guest import event_time                    # node has told Python where

# Seconds: of outage-wait, and for which a guest has to stand still
WAIT = 1
STANDS = 3


class Odd(damage.WithStore):
    """Answers probes; all reads are damaged so until good() is called."""

    def __init__(self, image, kind):
        super().__init__(nbd.StorageDaemon(image), 1.0, (kind,),
                         tcp=('127.0.0.1', free_port()))

    def choose(self, length):
        return super().choose(length) if length > PROBE else None

    def good(self):
        self.share = 0


class Bad(nbd.Failing):
    """Answers everything with EIO until good() is called."""

    def __init__(self, image):
        super().__init__(image, tcp=True)
        self.fail()


# Reads that wait

LASTS = 'denied-ms', 'outage-ms'


def vdisk_ms(asked, member):
    """Of query-vdisks; 0: it is not there."""
    return asked.command('query-vdisks')[0]['pvs'].get(member, 0)


def waits(image, bad, *others):
    """No error is seen, and nothing read, before it answers well."""
    with bad, node_of(image, bad, *others, **{'outage-action': 'wait',
                                              'outage-wait': 0}) as node, \
            Readers(node.path, image, 2) as readers:
        time.sleep(2)
        early = len(readers.reads)
        waited = [vdisk_ms(node, lasts) for lasts in LASTS]
        bad.good()
        begin = time.monotonic()
        time.sleep(RESUMED + 1)
        ended = readers.stop(10)
        waited += [vdisk_ms(node, lasts) for lasts in LASTS]
        told = [e['data']['active'] for e in node.events('VDISK_OUTAGE')]
    took = max(b + s for b, s, *_ in readers.reads if b < begin) - begin
    print(f'# resumed after {1000 * took:.0f} ms', flush=True)
    good = ended and not early and not readers.errors and not readers.wrong
    if not (good and took < RESUMED):
        return f'{early} reads too early, {took:.2f} s late; {readers.summary()}'
    # One that answers nothing but errors is down, and that is an outage
    wanted = [False, True] if isinstance(bad, Bad) else [True, False]
    return None if [n > 1000 for n in waited] == [*wanted, False, False] and \
        told == [True, False] else f'it told {told}, and of {LASTS} {waited} ms'


# A guest that stands still


def disk_of(folder, stores, **more):
    """Of a desktop, with a tree if more has one."""
    layer = f'{folder}/errors.pvs'
    root = f',verity-root={more.pop("verity-root")}' if more else ''
    run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
        f'role=cache,vdisk=disk,version=1{root}', layer,
        str(stores[0].image.stat().st_size))
    return {'driver': 'pvs', 'node-name': 'disk0', 'outage-action': 'pause',
            'outage-wait': WAIT, 'stores': [s.options() for s in stores],
            'file': {'driver': 'file', 'filename': layer}, **more}


def events(machine, name):
    machine.qmp.collect()
    return [e for e in machine.qmp.log if e['event'] == name]


def content(machine, folder):
    """All that its disk shows, by an export beside the device."""
    path = f'{folder}/errors.socket'
    machine.ask('nbd-server-start', addr={'type': 'unix',
                                          'data': {'path': path}})
    machine.ask('block-export-add', type='nbd', id='e',
                **{'node-name': 'disk0'})
    with contextlib.closing(Connection(path, 'disk0')) as c:
        shown = b''.join(c.read(at, MIB) for at in range(0, c.size, MIB))
    machine.ask('nbd-server-stop')
    pathlib.Path(path).unlink(missing_ok=True)
    return shown


def stopped(m):
    """It is stopped, and is not started again."""
    m.ask('cont')
    m.qmp.wait_event('STOP', 30)
    m.answers(STANDS)
    stops, status = len(events(m, 'STOP')), m.status()
    denied = denied_ms(m)
    return None if stops == 1 and status == 'io-error' and \
        1000 * (STANDS - 1) < denied < 1000 * 60 else \
        f'{stops} stops, {status}, for {denied} ms'


def denied_ms(m):
    """A store that answers nothing but errors is down: that is an outage."""
    now = m.ask('query-vdisks')[0]['pvs']
    return now.get('denied-ms', 0) or now.get('outage-ms', 0)


def stands(folder, bad, *others, **more):
    """It stops once, and goes on by itself when all is well."""
    with bad, Machine(folder, 'errors',
                      disk_of(folder, (bad, *others), **more)) as m:
        why = stopped(m)
        if why:
            return why
        begin, count = time.time(), len(events(m, 'RESUME'))
        bad.good()
        m.qmp.wait_event('RESUME', 20)
        took = event_time(events(m, 'RESUME')[count]) - begin
        shown = content(m, folder) == bad.image.read_bytes()
        told = [e['data']['active'] for e in events(m, 'VDISK_OUTAGE')]
        if denied_ms(m):
            return f'it runs, and is denied something: {denied_ms(m)} ms'
    print(f'# resumed after {1000 * took:.0f} ms', flush=True)
    # Where it fails from the start on, that is told before anybody listens
    good = told[-2:] == [True, False] or \
        (isinstance(bad, Bad) and told[-1:] == [False])
    return None if took < RESUMED and shown and good else \
        f'resumed after {took:.2f} s, content is {shown}, told: {told}'


def commanded(folder, bad):
    """It stands still, and does what it is told; a reset asks anew."""
    with bad, Machine(folder, 'errors', disk_of(folder, (bad,))) as m:
        m.ask('cont')
        m.qmp.wait_event('STOP', 30)
        reset(m)
        m.qmp.wait_event('RESUME', 20)
        m.qmp.wait_event('STOP', 30)
        m.answers(STANDS)
        stops = len(events(m, 'STOP'))
        end(m)
    return None if stops == 2 else f'{stops} stops'


def lies(folder, image):
    return stands(folder, Odd(image, 'flip'), **verity(image))


def tests(folder, _args):
    image = images.make(folder, 'image')
    never = nbd.StorageDaemon(image, tcp=True)      # started
    for name, others in (('', ()), (', another is away', (never,))):
        yield (f'a store that answers reads with errors{name}', waits, image,
               Odd(image, 'error'), *others)
        yield (f'a store that answers reads with errors{name}: a guest', stands,
               folder, Odd(image, 'error'), *others)
    yield 'a store that answers with errors', waits, image, Bad(image)
    yield ('a store that answers with errors: a guest', stands, folder,
           Bad(image))
    yield 'a store whose data is wrong: a guest', lies, folder, image
    yield ('a guest without its block is told something', commanded, folder,
           Odd(image, 'error'))

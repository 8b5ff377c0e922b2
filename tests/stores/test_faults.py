# SPDX-License-Identifier: GPL-2.0-or-later
"""Each fault does what its name says, seen through QEMU's own NBD driver."""

import time

from . import damage, faults, images, nbd
from .link import Link
from .netns import Network
from .node import Node
from .reader import Connection, Readers

# Seconds without an answer that show a fault, at least
NOTICED = 0.6


def bites(image, kind, wire=None):
    """Nothing comes while it lasts, all is well before and after."""
    start, end = faults.ALL[kind]
    with faults.Place(image, wire) as place:
        node = Node(place.options(**{'reconnect-delay': 20}), place.objects(),
                    wire.client if wire else None)
        with node, Readers(node.path, image, threads=2) as readers:
            time.sleep(0.3)
            calm = readers.longest()
            start(place)
            time.sleep(1.2)
            end(place)
            time.sleep(0.1)
            done = readers.stop(40)
            again = place.link.count()[1] > 1
            return judge(readers, kind, calm, done, again)


def judge(readers, kind, calm, done, again):
    said = f'{readers.summary()}; before: {1000 * calm:.0f} ms'
    # what was under way when the noise came fails in QEMU's driver
    allowed = readers.threads if kind == 'garbage' else 0
    if not done or readers.wrong or len(readers.errors) > allowed:
        return f'ended: {done}; {said}; {readers.errors[:3]}'
    if calm > NOTICED / 2:
        return f'slow before it began: {said}'
    if kind in faults.DEAD and readers.longest() < NOTICED:
        return f'it does nothing: {said}'
    if kind in ('cut', 'cut-answers') and not again:
        return f'no connection was cut: {said}'
    return None


def mild(image, kind):
    """Faults that let answers through, later."""
    start, end = faults.ALL[kind]
    with faults.Place(image) as place, Node(
            place.options(**{'reconnect-delay': 20})) as node:
        connection = Connection(node.path)
        # the first one may find the machine busy
        before = min(took(connection) for _ in range(3))
        start(place)
        during = took(connection)
        end(place)
        after = took(connection)
        connection.close()
    return mild_judge(kind, before, during, after)


def mild_judge(kind, before, during, after):
    least = {'late': 0.7, 'delay': 0.1, 'slow': 0.25}[kind]
    if before > 0.08 or during < least or after > 0.6 * least:
        return f'{before:.3f} {during:.3f} {after:.3f} s'
    return None


def took(connection, length=32768):
    begin = time.monotonic()
    connection.read(0, length)
    return time.monotonic() - begin


def pipelined(image):
    """A delay costs no rate: 16 reads under way take as long as one."""
    with nbd.StorageDaemon(image) as store, Link(store, delay=20) as link, \
            Node(link.options()) as node:
        with Readers(node.path, image, threads=16, interval=0,
                     sizes=(4096,)) as readers:
            time.sleep(2)
            readers.stop()
        rate = len(readers.reads) / 2
        if not 0.04 <= readers.percentile(0.5) < 0.06 or rate < 250:
            return readers.summary()
    return None


def paced(image):
    """4 MB/s for a second and a half."""
    with nbd.StorageDaemon(image) as store, Link(store, rate=4000000) as link:
        with Node(link.options()) as node, Readers(
                node.path, image, interval=0, sizes=(65536,)) as readers:
            time.sleep(1.5)
            readers.stop()
            total = sum(r[3] for r in readers.reads)
    return None if 4e6 < total < 7e6 else f'{total} bytes'


def damages(folder, image, server, kind):
    """Each damaged answer of a store is wrong here: nobody checks. QEMU's
    driver finds by itself that one is short."""
    other = images.make(folder, 'other')
    with server as store, damage.Damage(store, 0.2, (kind,), other) as bad, \
            Node(bad.options(**{'reconnect-delay': 10})) as node:
        with Readers(node.path, image, interval=0) as readers:
            time.sleep(0.5)
            readers.stop()
    seen = readers.errors if kind in ('error', 'short') else readers.wrong
    if getattr(store, 'simple', False) and kind == 'short':
        return None if bad.count[kind] and not readers.wrong \
            else readers.summary()      # such an answer ends the connection
    # the last ones may have gone to nobody
    return None if 20 < bad.count[kind] <= len(seen) + 4 else \
        f'{dict(bad.count)}; {readers.summary()}'


def repeats(_):
    one, two = (faults.schedule(s, 100, 2, tuple(faults.ALL)) for s in (7, 7))
    return None if one == two != faults.schedule(8, 100, 2,
                                                 tuple(faults.ALL)) else 'no'


def errors(image):
    """Each read is answered with an error while it lasts, none before and
    after."""
    start, end = faults.ALL['errors']
    with faults.Place(image, server=nbd.Failing) as place, Node(
            place.options()) as node, \
            Readers(node.path, image, threads=2) as readers:
        time.sleep(0.5)
        before = len(readers.errors)
        start(place)
        time.sleep(0.1)
        begin, good = len(readers.errors), len(readers.reads)
        time.sleep(0.5)
        good = len(readers.reads) - good - (len(readers.errors) - begin)
        end(place)
        time.sleep(0.1)
        during, count = len(readers.errors), len(readers.reads)
        time.sleep(0.5)
        readers.stop()
    if readers.wrong or before or begin == during or good > readers.threads \
            or len(readers.errors) > during or len(readers.reads) == count:
        return f'{before} {begin} {good} {during}; {readers.summary()}'
    return None


def on_wire(image, kind):
    with Network() as network:
        return bites(image, kind, network.wires[0])


def tests(folder, _args):
    image = images.make(folder, 'image')
    for kind in faults.STREAM:
        how = mild if kind in ('late', 'slow', 'delay') else bites
        yield f'fault {kind}', how, image, kind
    yield 'fault errors', errors, image
    for kind in faults.WIRE:
        yield f'fault {kind}, in a namespace', on_wire, image, kind
    yield 'a delay is no rate', pipelined, image
    yield 'a rate is kept', paced, image
    for kind in damage.KINDS:
        yield (f'damage {kind}', damages, folder, image,
               nbd.StorageDaemon(image), kind)
        yield (f'damage {kind}, simple replies', damages, folder, image,
               nbd.Nbdkit(image, simple=True), kind)
    yield 'a schedule is repeated by its seed', repeats, image

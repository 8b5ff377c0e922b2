# SPDX-License-Identifier: GPL-2.0-or-later
"""Stores, trees and caches that are not what they should be: what is right is
read all the same, the rest is refused or waited for, and somebody is told."""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import time

from sanitized import SLOWER
from . import damage, images, nbd
from .netns import Namespace
from .node import GuestError, Node
from .process import Missing, free_port, need, program, until
from .reader import Connection, ReadError, Readers
from .test_cache import SIZE, desktop_of, files
from .test_pvs import (LONGEST, MIB, RESUMED, cached, everything, info, node_of,
                       pvs, verity)

GRANULE = 4096
# Of QMP, and of the end of a process that is told to quit
SOON = 3.0 * SLOWER


def state(node, store=0):
    return info(node)['stores'][store]['state']


def read_all(node, image, seconds=2):
    """Readers at work for so long: what is wrong, or nothing."""
    with Readers(node.path, image, 4) as readers:
        time.sleep(seconds)
        ended = readers.stop(10)
    good = ended and not readers.wrong and not readers.errors and \
        readers.longest() <= LONGEST and len(readers.reads) > 100 / SLOWER
    return None if good else readers.summary()


def first_read(node, offset=0):
    """Seconds that it takes, and its data or the number of its error."""
    connection = Connection(node.path, timeout=30)
    begin = time.monotonic()
    try:
        said = connection.read(offset, GRANULE)
    except ReadError as e:
        said = e.number
    connection.close()
    return time.monotonic() - begin, said


def refused(expected, *args, **more):
    """None if there is no such node, and QMP says so."""
    try:
        with node_of(*args, **more):
            return f'taken, not refused with "{expected}"'
    except GuestError as e:
        return None if re.search(expected, str(e)) else str(e)


# Stores


class Breaks(damage.Damage):
    """Closes the connection in the middle of every answer."""

    def __init__(self, store):
        super().__init__(store, 1.0, ('short',), tcp=('127.0.0.1', free_port()))


def breaks(image):
    """A second store has the answers; what breaks is not asked without end."""
    with nbd.Nbdkit(image, simple=True) as one, Breaks(one) as bad, \
            nbd.StorageDaemon(image, tcp=True) as good, \
            node_of(image, bad, good) as node:
        why = read_all(node, image)
        begin, count = time.monotonic(), len(bad.socks)
        time.sleep(2)
        rate = (len(bad.socks) - count) / 2 / (time.monotonic() - begin)
        told = [e for e in node.events('VDISK_STORE')
                if e['data']['store'] == 0 and e['data']['state'] == 'up']
    return why or (f'{rate:.0f} connections a second' if rate > 50 else None) \
        or (f'it was called up: {told}' if told else None)


def breaks_alone(image):
    """It is as no store: an error in time, or a wait until it is mended."""
    with nbd.Nbdkit(image, simple=True) as one, Breaks(one) as bad:
        begin = time.monotonic()    # the outage may, before the read
        with node_of(image, bad, **{'outage-action': 'error',
                                    'outage-wait': 1}) as node:
            took, said = first_read(node)
            since = time.monotonic() - begin
        if said != damage.EIO or since < 1 or took > 1 + LONGEST:
            return f'{said} after {took:.1f} s, {since:.1f} s after the start'
        with node_of(image, bad, **{'outage-action': 'wait'}) as node, \
                Readers(node.path, image, 2) as readers:
            time.sleep(2)
            early = len(readers.reads)
            bad.share = 0
            begin = time.monotonic()
            until(lambda: len(readers.reads) > early, 10, 'reads go on')
            took = time.monotonic() - begin
            readers.stop()
    good = not readers.wrong and not readers.errors and not early
    return None if good and took < RESUMED else \
        f'{early} reads too early; resumed after {took:.2f} s; ' + \
        readers.summary()


class Itself(nbd.NbdStore):
    """The export of the node that it is a store of."""

    def __init__(self, image, path):        # pylint: disable=W0231
        self.image = image
        self.address = path


@contextlib.contextmanager
def loop(image, *stores, **more):
    """A node with itself as its first store."""
    with Node({}, add=False) as node:
        node.options.update(pvs(image, Itself(image, node.path), *stores,
                                **more))
        node.add()
        yield node


def itself(image):
    """It takes part while another store is up, and is none otherwise."""
    with nbd.StorageDaemon(image, tcp=True) as good, \
            loop(image, good, **{'outage-action': 'wait'}) as node:
        why = read_all(node, image, 3)
        if why:
            return f'with another store: {why}'
        with Readers(node.path, image, 2) as readers:
            good.kill()
            until(lambda: 'outage-ms' in info(node), 10, 'an outage')
            good.start()
            back = time.monotonic()
            time.sleep(2)
            readers.stop()
        late = max(b + s for b, s, *_ in readers.reads if b < back) - back
    return None if late < RESUMED and not readers.errors and \
        not readers.wrong else f'{late:.2f} s late; {readers.summary()}'


def itself_alone(image):
    """An outage, in which all that is asked is answered."""
    with loop(image, **{'outage-action': 'error', 'outage-wait': 1}) as node:
        took, said = first_read(node)
        if said != damage.EIO or took > 3 + LONGEST:
            return f'{said} after {took:.1f} s'
        for name, arguments in (
                ('blockdev-add', {'node-name': 'other', 'driver': 'raw',
                                  'file': {'driver': 'null-co'}}),
                ('query-vdisks', {}), ('blockdev-del', {'node-name': 'other'})):
            begin = time.monotonic()
            node.command(name, **arguments)
            if time.monotonic() - begin > SOON:
                return f'{name} took {time.monotonic() - begin:.1f} s'
        begin = time.monotonic()
        node.end()
        took = time.monotonic() - begin
    return None if took < SOON else f'quit took {took:.1f} s'


class Nobody:
    """A store whose server is not there."""

    def __init__(self):
        self.address = ('127.0.0.1', free_port())

    def options(self):
        return nbd.NbdStore.options(self)

    def objects(self):
        return []

    export = 'disk'


def many(image):
    """Of 64 stores the last one alone is there: all is read, and nobody waits
    for the others; then it answers with errors, and that is the answer."""
    absent = [Nobody() for _ in range(63)]
    with nbd.Failing(image, tcp=True) as good, node_of(
            image, *absent, good, **{'outage-action': 'error', 'outage-wait': 1,
                                     'connections': 1}) as node:
        until(lambda: state(node, 63) == 'up', 10, 'the good one is up')
        why = read_all(node, image)
        begin = time.monotonic()
        states = [s['state'] for s in info(node)['stores']]
        asked = time.monotonic() - begin
        good.fail()
        took, said = first_read(node, 4 * MIB)
        begin = time.monotonic()
        node.end()
        ended = time.monotonic() - begin
    if why or states != ['down'] * 63 + ['up']:
        return why or states
    return None if said == damage.EIO and took < 1 + LONGEST and \
        max(asked, ended) < SOON else \
        f'{said} after {took:.1f} s; QMP took {asked:.1f} s, its end {ended:.1f}'


# What a desktop makes of a cache that is not for it


def flip(path, *places):
    """A bit of each of these bytes."""
    with open(path, 'r+b') as file:
        for at in places:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 4]))


def not_its_cache(folder, image, spoil):
    """It reads from its store, and says that it does not use the cache."""
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        with node_of(image, store, **pinned, **f.options()) as relay:
            everything(relay)
            relay.end()
        spoil(folder, f)
        digest = [path.read_bytes() for path in (f.data, f.map)
                  if path.exists()]
        with desktop_of(image, f, store, **pinned) as desktop:
            desktop.command('vdisk-reset', **{'node-name': 'disk'})
            time.sleep(0.5)
            shown = everything(desktop) == image.read_bytes()
            now = info(desktop)
        left = digest == [path.read_bytes() for path in (f.data, f.map)
                          if path.exists()]
    return None if shown and left and not now['host-cache']['usable'] and \
        now['stores'][0]['bytes'] == SIZE else \
        f'content is {shown}, the cache is as it was: {left}; {now}'


def of_another(folder, f):
    """The cache is one of another image."""
    other = images.make(folder, 'cached-other', SIZE)
    f.data.unlink()
    f.map.unlink(missing_ok=True)
    with nbd.StorageDaemon(other) as store, \
            node_of(other, store, **verity(other), **f.options()) as relay:
        everything(relay)
        relay.end()


HEADER = 4096                   # bytes of each of its two copies
SPOILED = {
    'another image\'s': of_another,
    'with a damaged header': lambda _, f: flip(f.data, 200, HEADER + 200),
    'that is no cache': lambda _, f: f.data.write_bytes(b'mine' * 5000),
    'without a live map': lambda _, f: f.map.unlink(missing_ok=True),
}


def another_image(folder, image):
    """The tree tells which store is right, and who is wrong is named. On a
    busy machine the right one may answer all of a node's reads."""
    other = images.make(folder, 'other')
    with nbd.StorageDaemon(other, tcp=True) as wrong, \
            nbd.StorageDaemon(image, tcp=True) as good:
        for _ in range(5):
            with node_of(image, wrong, good, **verity(image)) as node:
                shown = everything(node) == image.read_bytes()
                named = {s['name'] for s in info(node)['stores'][:1]}
                blamed = {e['data']['store']
                          for e in node.events('VDISK_CORRUPT')}
                count = info(node)['corrupt']
            if not shown or blamed - named or bool(blamed) != bool(count):
                return f'content is {shown}, {blamed} are blamed, {count} times'
            if blamed:
                return None
    return 'nobody is blamed'


def another_image_alone(folder, image):
    """Nothing of it is ever returned; when a right one comes, all is."""
    other = images.make(folder, 'other')
    pinned = verity(image)
    with nbd.StorageDaemon(other, tcp=True) as store:
        with node_of(image, store, **pinned, **{
                'outage-action': 'error', 'outage-wait': 1}) as node:
            took, said = first_read(node)
        if said != damage.EIO or took > 1 + LONGEST:
            return f'{said!r:.20} after {took:.1f} s'
        with node_of(image, store, **pinned, **{
                'outage-action': 'wait'}) as node, \
                Readers(node.path, image, 2) as readers:
            time.sleep(2)
            early = len(readers.reads)
            store.kill()
            store.image = image
            store.start()
            until(lambda: len(readers.reads) > early, 10, 'reads go on')
            readers.stop()
            shown = everything(node) == image.read_bytes()
    return None if shown and not early and not readers.wrong and \
        not readers.errors else \
        f'content is {shown}, {early} read early; {readers.summary()}'


def other_size(folder, image, by):
    """It is not read from, and it is said why; its neighbour is."""
    name = pathlib.Path(folder) / f'sized{by}'
    name.write_bytes((image.read_bytes() + bytes(MIB))
                     [:image.stat().st_size + by])
    with nbd.StorageDaemon(name, tcp=True) as wrong, \
            nbd.StorageDaemon(image, tcp=True) as good:
        with node_of(image, wrong, good) as node:
            why = read_all(node, image, 1)
            used, states = info(node)['stores'][0]['reads'], state(node)
            said = node.said()
    text = f'Export has {name.stat().st_size} bytes and not'
    return why or (None if text in said and not used and states != 'up' else
                   f'{used} reads of it, {states}: {said}')


def sizes_unknown(folder, image):
    """Without a size they have to agree when they are opened."""
    name = pathlib.Path(folder) / 'sized'
    name.write_bytes(image.read_bytes() + bytes(512))
    with nbd.StorageDaemon(name, tcp=True) as wrong, \
            nbd.StorageDaemon(image, tcp=True) as good:
        options = pvs(image, good, wrong)
        del options['size']
        try:
            with Node(options):
                return 'taken'
        except GuestError as e:
            good = f'has {name.stat().st_size} bytes instead of ' \
                   f'{image.stat().st_size}'
            return None if good in str(e) else str(e)


def nbdkit(image, name, *parameters):
    """A filter of nbdkit on one of two stores; all that is read is right. On a
    busy machine the other one may answer all of a node's reads."""
    with nbd.Nbdkit(image, [name], parameters, tcp=True) as odd, \
            nbd.StorageDaemon(image, tcp=True) as good:
        for _ in range(5):
            with node_of(image, odd, good) as node:
                why = read_all(node, image)
                store = info(node)['stores'][0]
            met = store['errors'] if name == 'error' else \
                store['reads'] + store['errors']
            if why or met:
                return why
    return 'the filter was not met'


def nbdkit_pause(folder, image):
    """It pauses itself in between: reads wait, then go on."""
    control = pathlib.Path(folder) / 'pause'
    with nbd.Nbdkit(image, ['pause'], [f'pause-control={control}'],
                    tcp=True) as store, \
            node_of(image, store, **{'outage-action': 'wait'}) as node, \
            Readers(node.path, image, 2) as readers:
        time.sleep(0.5)
        for command, pause in ((b'p', 3), (b'r', 1.5)):
            with contextlib.closing(socket_to(control)) as s:
                s.sendall(command)
                s.recv(1)
            moment = time.monotonic()
            time.sleep(pause)
        ended = readers.stop(10)
    late = [r for r in readers.reads
            if r[0] < moment and r[0] + r[1] > moment + RESUMED]
    waited = readers.longest() > 2
    return None if ended and waited and not late and not readers.wrong and \
        not readers.errors else f'{late[:3]}; {readers.summary()}'


def socket_to(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(str(path))
    return s


# What is said to who starts a process by hand: QMP has no room for it


def hints(folder, image):
    """Each says what to do."""
    pinned = verity(image)
    cut = pathlib.Path(folder) / 'hint.tree'
    cut.write_bytes(bytes(GRANULE))
    mine = pathlib.Path(folder) / 'mine'
    mine.write_bytes(b'mine' * GRANULE)
    size = image.stat().st_size
    file = {'driver': 'file', 'filename': str(image)}
    root = {**pinned, 'verity-root': flipped(pinned['verity-root'])}
    for expected, more in (
            ('Stores of one version are all alike', {'size': size + 512}),
            ('root hash alone does not tell', {**pinned, 'size': None}),
            ('all be of the same version', root),
            ("make it with 'veritysetup format'", {**pinned, 'verity-tree': {
                'driver': 'file', 'filename': str(cut)}}),
            ('Choose another name', {'host-cache': str(mine),
                                     'host-cache-map': '/dev/shm/none'}),
            ('Choose another place', {'host-cache': '/proc/cache',
                                      'host-cache-map': '/dev/shm/none'}),
            ('in /run or /dev/shm', {'host-cache': f'{mine}.cache',
                                     'host-cache-map': f'{mine}.map'})):
        options = {'driver': 'pvs', 'read-only': True, 'vdisk': 'disk',
                   'version': 1, 'size': size, 'stores': [file], **more}
        options = {k: v for k, v in options.items() if v is not None}
        done = subprocess.run(
            [program('qemu-io'), '-r', 'json:' + json.dumps(options)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode == 0 or expected not in done.stderr:
            return f'not "{expected}": {done.stderr}'
    return None


# Trees


def flipped(root):
    """A root hash as it could be, and is not."""
    return f'{int(root, 16) ^ 1:064x}'


def wrong_root(image, tree_server):
    """A tree file is looked at when it is opened; from a server, it is not
    believed, and nothing is read by it."""
    pinned = verity(image)
    pinned['verity-root'] = flipped(pinned['verity-root'])
    with nbd.StorageDaemon(image, tcp=True) as store:
        why = refused('does not fit.*root hash', image, store, **pinned)
        if why:
            return why
        with tree_server as server:
            pinned['verity-tree'] = server.options()
            with node_of(image, store, **pinned, **{
                    'outage-action': 'error', 'outage-wait': 1}) as node:
                took, said = first_read(node)
                trees = [e['data']['tree'] for e in
                         node.events('VDISK_CORRUPT')]
                state_now = state(node)
    return None if said == damage.EIO and took < 1 + LONGEST and trees and \
        all(trees) and state_now == 'up' else \
        f'{said!r:.20} after {took:.1f} s, {trees}'


def cut_tree(folder, image):
    """Refused if it is a file; from a server, as if that was not there."""
    pinned = verity(image)
    whole = pathlib.Path(pinned['verity-tree']['filename'])
    cut = pathlib.Path(folder) / 'cut.tree'
    cut.write_bytes(whole.read_bytes()[:-GRANULE])
    with nbd.StorageDaemon(image, tcp=True) as store:
        pinned['verity-tree'] = {'driver': 'file', 'filename': str(cut)}
        why = refused('verity tree.*cut.tree.*instead of', image, store,
                      **pinned)
        if why:
            return why
        with nbd.StorageDaemon(cut, tcp=True) as server:
            pinned['verity-tree'] = server.options()
            with node_of(image, store, **pinned, **{
                    'outage-action': 'wait'}) as node:
                with Readers(node.path, image, 1) as readers:
                    time.sleep(1.5)
                    early = len(readers.reads)
                    server.kill()
                    server.image = whole
                    server.start()
                    until(lambda: readers.reads, 10, 'reads go on')
                    readers.stop()
                said = node.said()
    good = not early and not readers.wrong and not readers.errors
    return None if good and f'Export has {cut.stat().st_size} bytes' in said \
        else f'{early} read early; {readers.summary()}; {said}'


def frozen_tree(image):
    """What waits for the tree is no fault of the store whose data waits."""
    pinned = verity(image)
    tree = pinned['verity-tree']['filename']
    with nbd.StorageDaemon(image, tcp=True) as store, \
            nbd.StorageDaemon(tree, tcp=True) as trees:
        pinned['verity-tree'] = trees.options()
        with node_of(image, store, **pinned, **{
                'outage-action': 'wait', 'request-timeout': 500}) as node:
            until(lambda: [s['state'] for s in info(node)['stores']] ==
                  ['up', 'up'], 10, 'both are up')
            before = info(node)['stores'][0]['errors']
            trees.freeze()
            with Readers(node.path, image, 4) as readers:
                until(lambda: info(node)['stores'][1]['errors'], 20,
                      'the tree is missed')
                time.sleep(3)
                early, now = len(readers.reads), info(node)['stores'][0]
                trees.thaw()
                until(lambda: len(readers.reads) > 100, 20, 'reads go on')
                readers.stop()
            told = [e['data'] for name in ('VDISK_STORE', 'VDISK_OUTAGE')
                    for e in node.events(name) if not e['data']['tree']]
    good = not early and now['errors'] == before and now['state'] == 'up' \
        and not readers.wrong and not readers.errors
    bad = [t for t in told if t.get('state') != 'up' and
           t.get('active', True)]
    return None if good and not bad else \
        f'{early} read early, {now}, {told}; {readers.summary()}'


# Host caches


def read_only(image):
    """No relay for it, which is said; desktops read what it has."""
    if os.geteuid() != 0:
        raise Missing('root: mounts are made')
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image) as store, \
            Namespace(mounts=True) as space:
        with node_of(image, store, **pinned, **f.options()) as relay:
            everything(relay)
            relay.end()
        size = f.data.stat().st_size
        space.run(need('mount'), '--bind', f.disk, f.disk)
        space.run(need('mount'), '-o', 'remount,bind,ro', f.disk)
        with desktop_of(image, f, store, layer=f.memory / 'desktop',
                        netns=space, **pinned) as desktop:
            desktop.command('vdisk-reset', **{'node-name': 'disk'})
            until(lambda: cached(desktop) == SIZE, 10, 'the cache')
            store.freeze()
            shown = everything(desktop) == image.read_bytes()
            store.thaw()
            if not shown or info(desktop)['stores'][0]['reads']:
                return f'a desktop: content is {shown}, {info(desktop)}'
        for name in (f.data, f.disk / 'new'):
            f.data = name
            why = refused('Read-only file system', image, store, netns=space,
                          **pinned, **f.options())
            if why:
                return f'{name}: {why}'
    return None if size > SIZE else f'the cache has {size} bytes'


def tests(folder, _args):
    image = images.make(folder, 'image')
    small = images.make(folder, 'cached', SIZE)
    yield 'a store that closes in every answer', breaks, image
    yield 'a store that closes in every answer, alone', breaks_alone, image
    yield 'a store that is the node itself', itself, image
    yield 'a store that is the node itself, alone', itself_alone, image
    yield 'the last one of 64 stores', many, image
    for name, spoil in SPOILED.items():
        yield (f'a cache {name}, of a desktop', not_its_cache, folder, small,
               spoil)
    yield 'a store with another image', another_image, folder, image
    yield ('a store with another image, alone', another_image_alone, folder,
           image)
    for by in (-GRANULE, 512):
        yield (f'a store of {by:+} bytes', other_size, folder, image, by)
    yield 'stores of different sizes', sizes_unknown, folder, image
    for name, *parameters in (('delay', 'rdelay=100ms'), ('rate', 'rate=2M'),
                              ('error', 'error-rate=30%')):
        yield f'nbdkit {name}, under pvs', nbdkit, image, name, *parameters
    yield 'nbdkit pause, under pvs', nbdkit_pause, folder, image
    yield 'errors say what to do', hints, folder, image
    yield ('a root hash of another image', wrong_root, image,
           nbd.StorageDaemon(verity_file(image), tcp=True))
    yield 'a verity tree that was cut off', cut_tree, folder, image
    yield 'a verity tree whose server is frozen', frozen_tree, image
    yield 'a host cache on a read-only file system', read_only, small


def verity_file(image):
    return pathlib.Path(verity(image)['verity-tree']['filename'])

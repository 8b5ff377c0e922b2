# SPDX-License-Identifier: GPL-2.0-or-later
"""vdisk-hydrate and the boot trace: what is fetched, when, and how often."""

import contextlib
import os
import pathlib
import random
import threading
import time

from . import damage, images, nbd
from .link import Link
from .node import GuestError
from .process import OURS, free_port, until
from .reader import Connection, Readers
from .test_cache import MIB, files
from .test_pvs import cached, everything, info, node_of, verity

SIZE = 16 * MIB
HYDRATE = {'node-name': 'disk', 'job-id': 'hydrate'}


def fetched(node):
    return info(node)['stores'][0]['bytes']


def job(node):
    """The job's state, or None if it has ended."""
    jobs = node.command('query-jobs')
    return jobs[0] if jobs else None


def ended(node, seconds=30):
    until(lambda: not job(node), seconds, 'the job ends')


def whole(folder):
    """It ends with all of it local, fetched once, and no store is needed."""
    image = images.make(folder, 'hydrated', SIZE)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            node_of(image, store, **verity(image), **f.options()) as relay:
        relay.command('vdisk-hydrate', **HYDRATE)
        ended(relay)
        if (cached(relay), fetched(relay)) != (SIZE, SIZE):
            return f'{cached(relay)} local, {fetched(relay)} fetched'
        store.kill()
        return None if everything(relay) == image.read_bytes() else \
            'content differs'


def steered(folder):
    """Slowed down, paused, resumed, cancelled; what was fetched stays, a relay
    that is killed too, and is not fetched again."""
    image = images.make(folder, 'hydrated', SIZE)
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        with node_of(image, store, **pinned, **f.options()) as relay:
            relay.command('vdisk-hydrate', speed=2 * MIB, **HYDRATE)
            time.sleep(1.5)
            slow = cached(relay)
            relay.command('job-pause', id='hydrate')
            until(lambda: job(relay)['status'] == 'paused', 5, 'it is paused')
            paused = cached(relay)
            time.sleep(1)
            if not 0 < slow < 6 * MIB or cached(relay) != paused:
                return f'{slow} at 2 MiB/s, {paused} when paused, then ' \
                       f'{cached(relay)}'
            relay.command('job-resume', id='hydrate')
            until(lambda: cached(relay) > paused, 10, 'it goes on')
            relay.command('job-cancel', id='hydrate')
            ended(relay)
            relay.popen.kill()
            relay.popen.wait()
        with node_of(image, store, **pinned, **f.options()) as relay:
            kept = cached(relay)
            relay.command('vdisk-hydrate', **HYDRATE)
            ended(relay)
            if kept < paused or fetched(relay) != SIZE - kept:
                return f'{kept} kept, {fetched(relay)} fetched'
            return None if everything(relay) == image.read_bytes() else \
                'content differs'


def stop_in_it(relay, how):
    """With the job at work."""
    if how == 'killed':
        relay.popen.kill()
        relay.popen.wait()
    else:
        relay.end()


def resumed(folder, how, host):
    """A relay that ends at work goes on where it was: what it had is not fetched
    again, also when the host was started anew."""
    image = images.make(folder, 'hydrated', SIZE)
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        with node_of(image, store, **pinned, **f.options()) as relay:
            relay.command('vdisk-hydrate', speed=4 * MIB, **HYDRATE)
            until(lambda: cached(relay) > SIZE // 4, 10, 'a part is here')
            if not job(relay):
                return 'the job has ended'
            had = cached(relay)
            stop_in_it(relay, how)
        if host:
            f.start_host_again()
        with node_of(image, store, **pinned, **f.options()) as relay:
            until(lambda: cached(relay) >= had, 10, 'it has what it had')
            kept = cached(relay)
            relay.command('vdisk-hydrate', **HYDRATE)
            ended(relay)
            shown = everything(relay) == image.read_bytes()
            if not shown or fetched(relay) != SIZE - kept:
                return f'{kept} kept, {fetched(relay)} fetched; content is ' \
                       f'{shown}'
    return None


def outage(folder, more):
    """It waits for a store that is gone, and ends when it is back."""
    image = images.make(folder, 'hydrated', SIZE)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            node_of(image, store, **verity(image), **f.options(),
                    **more) as relay:
        relay.command('vdisk-hydrate', speed=8 * MIB, **HYDRATE)
        time.sleep(0.3)
        store.kill()
        time.sleep(2)
        if not job(relay) or cached(relay) == SIZE:
            return f'{job(relay)}, {cached(relay)} local'
        store.start()
        ended(relay)
        return None if everything(relay) == image.read_bytes() else \
            'content differs'


def said_at_end(node):
    """The error that the job ended with, or None."""
    return node.events('BLOCK_JOB_COMPLETED')[-1]['data'].get('error')


def cut_off(folder):
    """The cache file is truncated: what can be kept nowhere is not fetched."""
    image = images.make(folder, 'hydrated', SIZE)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            node_of(image, store, **verity(image), **f.options()) as relay:
        relay.command('vdisk-hydrate', speed=4 * MIB, **HYDRATE)
        until(lambda: cached(relay) > SIZE // 4, 10, 'a part is here')
        os.truncate(f.data, f.data.stat().st_size // 2)
        ended(relay)
        said, first = said_at_end(relay), fetched(relay)
        # and at once, when it is begun again
        relay.command('vdisk-hydrate', **HYDRATE)
        ended(relay)
        good = 'was cut off' in (said or '') and said_at_end(relay) == said
        return None if good and first < SIZE and \
            fetched(relay) == first else \
            f'{said}; {first} and {fetched(relay)} fetched'


class Wrong(damage.Damage):
    """A store that has one byte wrong, at .place, until that is none."""

    def __init__(self, store, place):
        super().__init__(store, 1.0, ('flip',), tcp=('127.0.0.1', free_port()))
        self.place = place

    def spoil(self, kind, offset, data):
        at = (self.place or 0) - offset
        if self.place is None or not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def not_had(relay, missing, tree=0):
    """The job makes all local but so many bytes, and says so; else, what is
    wrong."""
    ended(relay, 60)
    said = said_at_end(relay) or ''
    return None if cached(relay) == SIZE - missing and said.startswith(
        f'{missing + tree} bytes of the version cannot be had') else \
        f'{cached(relay)} local; {said}'


def neighbours(relay, image, place):
    """Who reads beside the block has that at once."""
    begin = place // MIB * MIB
    data = image.read_bytes()
    with contextlib.closing(Connection(relay.path, timeout=20)) as c:
        return [at for at in range(begin, begin + MIB, 4096)
                if not at <= place < at + 4096 and
                c.read(at, 4096) != data[at:at + 4096]]


def denied(folder):
    """A block that no store has right: the rest is made local, also while
    somebody waits for that block, and it is told once, however often it is
    asked for."""
    image = images.make(folder, 'hydrated', SIZE)
    place = 9 * MIB + 77777
    got = []
    with files() as f, nbd.StorageDaemon(image) as good, \
            Wrong(good, place) as store, \
            node_of(image, store, **verity(image), **f.options()) as relay:
        relay.command('vdisk-hydrate', **HYDRATE)
        until(lambda: info(relay)['corrupt'], 20, 'the block is asked for')
        wrong = neighbours(relay, image, place)
        why = wrong or not_had(relay, 4096)
        if why:
            return f'nobody waits: {why}'
        with contextlib.closing(Connection(relay.path, timeout=60)) as c:
            waits = threading.Thread(
                target=lambda: got.append(c.read(place // 4096 * 4096, 4096)))
            waits.start()
            time.sleep(0.5)
            relay.command('vdisk-hydrate', **HYDRATE)
            why = not_had(relay, 4096)
            count = info(relay)['corrupt']
            told = relay.events('VDISK_CORRUPT')
            early = list(got)
            store.place = None
            waits.join()
        relay.command('vdisk-hydrate', **HYDRATE)
        ended(relay)
        shown = everything(relay) == image.read_bytes()
        said = said_at_end(relay)
    if why or early or len(told) != 1 or count < 5:
        return f'{why}; {len(early)} read early; {count} wrong answers, {told}'
    return None if shown and not said else f'mended: {said}'


def denied_tree(folder):
    """A block of the tree that no store has right: the same for what it and
    its neighbours vouch for."""
    image = images.make(folder, 'hydrated', SIZE)
    pinned = verity(image)
    tree = pathlib.Path(pinned['verity-tree']['filename'])
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            nbd.StorageDaemon(tree) as good, \
            Wrong(good, 20 * 4096) as bad:      # of the leaves from 18 to 33
        pinned['verity-tree'] = bad.options()
        with node_of(image, store, **pinned, **f.options()) as relay:
            relay.command('vdisk-hydrate', **HYDRATE)
            return not_had(relay, SIZE // 2, 16 * 4096)


def cancelled(folder):
    """A job that waits for a store ends when it is told to, and takes nobody
    along who waits for one too."""
    image = images.make(folder, 'hydrated', SIZE)
    pinned = verity(image)
    with files() as f, files() as g, nbd.StorageDaemon(image) as first, \
            nbd.StorageDaemon(image, tcp=True) as store, \
            node_of(image, first, **pinned, **f.options()), \
            node_of(image, store, **pinned, **g.options()) as relay, \
            Readers(relay.path, image, 1, 0) as readers:
        time.sleep(0.3)
        store.freeze()
        until(lambda: 'outage-ms' in info(relay), 20, 'an outage')
        relay.command('vdisk-hydrate', **HYDRATE,
                      **{'from': older(f, pinned)})
        time.sleep(0.5)
        read = len(readers.reads)
        relay.command('job-cancel', id='hydrate')
        ended(relay, 10)
        time.sleep(1)
        waits = len(readers.reads) == read
        store.thaw()
        until(lambda: len(readers.reads) > read, 20, 'reads go on')
        readers.stop()
        if not waits or readers.errors or readers.wrong:
            return f'waits: {waits}; {readers.summary()}'
        relay.command('vdisk-hydrate', **HYDRATE)
        ended(relay)
        return None if everything(relay) == image.read_bytes() else \
            'content differs'


def asked(connection, rng, count):
    """The longest that a read takes of what nobody has asked for."""
    took = []
    for _ in range(count):
        begin = time.monotonic()
        connection.read(rng.randrange(SIZE, 4 * SIZE - 4096) // 4096 * 4096,
                        4096)
        took.append(time.monotonic() - begin)
    return max(took)


def demand_first(folder):
    """On a slow link, who reads does not wait for what is hydrated."""
    image = images.make(folder, 'hydrated-slow', 4 * SIZE)
    rng = random.Random(1)
    with files() as f, nbd.StorageDaemon(image) as store, \
            Link(store, ('127.0.0.1', free_port()), rate=8000000) as link, \
            node_of(image, link, **verity(image), **f.options()) as relay, \
            contextlib.closing(Connection(relay.path)) as connection:
        alone = asked(connection, rng, 20)
        relay.command('vdisk-hydrate', **HYDRATE)
        time.sleep(1.5)
        beside = asked(connection, rng, 20)
        still, local = job(relay), cached(relay)
    print(f'# {1000 * alone:.1f} ms alone, {1000 * beside:.1f} ms beside '
          'hydrating', flush=True)
    # one fetch of 512 KiB takes 66 ms there, 16 would take a second
    return None if still and local > MIB and beside < 0.5 else \
        f'{alone:.3f} s, {beside:.3f} s; {local} local, {still}'


def older(cache, pinned):
    """A VdiskDelta"""
    return {**cache.options(), 'version': 1, 'size': SIZE,
            'verity-root': pinned['verity-root']}


def another_job(relay, name):
    """One that ends at once: its id is taken, or it is cancelled."""
    try:
        relay.command('vdisk-hydrate', **{**HYDRATE, 'job-id': name},
                      speed=1)
        relay.command('job-cancel', id=name)
    except GuestError as e:
        if 'in use' not in str(e):
            raise


def delta(folder):
    """Of a new version only the blocks that differ are fetched."""
    old = images.make(folder, 'hydrated', SIZE)
    new = pathlib.Path(folder) / 'hydrated-2'
    blocks = range(5, SIZE // 4096, 97)
    data = bytearray(old.read_bytes() + bytes(MIB))
    for n in blocks:
        data[n * 4096 + 7] ^= 1
    new.write_bytes(data)
    pinned = verity(old)
    with files() as f, files() as g, \
            nbd.StorageDaemon(old, tcp=True) as first, \
            nbd.StorageDaemon(new, tcp=True) as second, \
            node_of(old, first, **pinned, **f.options()) as relay, \
            node_of(new, second, **verity(new), **g.options()) as other:
        relay.command('vdisk-hydrate', **HYDRATE)
        ended(relay)
        other.command('vdisk-hydrate', **HYDRATE, speed=8 * MIB,
                      **{'from': older(f, pinned)})
        # a second job does not take the older version from the first
        for name in ('hydrate', 'another'):
            another_job(other, name)
        ended(other)
        wanted = len(blocks) * 4096 + MIB
        if fetched(other) != wanted:
            return f'{fetched(other)} fetched, {wanted} differ'
        return None if everything(other) == bytes(data) else 'content differs'


# Where a boot reads
PLACES = [(n * 37 % 512) * 32768 for n in range(0, 512, 5)]
# Seconds without a read after which a boot is over
QUIET = 60


def boot(relay):
    """What of it is local then"""
    with contextlib.closing(Connection(relay.path)) as connection:
        for at in PLACES:
            connection.read(at, 4096)
    return cached(relay)


def fetched_ahead(relay, store, image, seen):
    """As much as one relay saw read is local on this one, before it is read."""
    until(lambda: cached(relay) >= seen, 10, 'it is fetched ahead')
    budget = info(relay)['budget']
    if budget['boot-bytes'] != budget['boot-local-bytes'] or \
            budget['boot-bytes'] < len(PLACES) * 4096:
        return str(budget)
    store.kill()
    data = image.read_bytes()
    with contextlib.closing(Connection(relay.path, timeout=5)) as connection:
        wrong = [at for at in PLACES
                 if connection.read(at, 4096) != data[at:at + 4096]]
    return f'wrong at {wrong}' if wrong else None


def traced(folder):
    """What one relay saw read is local on the next host before it is read."""
    image = images.make(folder, 'hydrated', SIZE)
    pinned = verity(image)
    with files() as f, files() as g, \
            nbd.StorageDaemon(image, tcp=True) as store:
        trace = {'boot-trace': str(f.disk / 'trace')}
        with node_of(image, store, **pinned, **f.options(), **trace) as relay:
            seen = boot(relay)
            relay.end()
        with node_of(image, store, **pinned, **g.options(), **trace) as relay:
            return fetched_ahead(relay, store, image, seen)


def traced_and_killed(folder):
    """The trace is there when the boot is over, not when the relay ends."""
    image = images.make(folder, 'hydrated', SIZE)
    pinned = verity(image)
    with files() as f, files() as g, \
            nbd.StorageDaemon(image, tcp=True) as store:
        path, clock = f.disk / 'trace', f.disk / 'clock'
        trace = {'boot-trace': str(path)}
        relay = node_of(image, store, **pinned, **f.options(), **trace)
        relay.env = {'LD_PRELOAD': str(OURS / 'tests/stores/later.so'),
                     'LATER': str(clock)}
        clock.touch()
        with relay:
            seen = boot(relay)
            os.truncate(clock, QUIET - 20)
            boot(relay)
            time.sleep(0.5)
            if path.exists():
                return 'it was written before the boot was over'
            os.truncate(clock, 2 * QUIET)
            until(lambda: info(relay) and path.exists(), 10, 'it is written')
            relay.popen.kill()
            relay.popen.wait()
        left = [p.name for p in f.disk.iterdir() if p.name.startswith('trace.')]
        if left:
            return f'{left} are left'
        with node_of(image, store, **pinned, **g.options(), **trace) as relay:
            return fetched_ahead(relay, store, image, seen)


def brought(folder):
    """A trace that came while one was recorded is kept."""
    image = images.make(folder, 'hydrated', SIZE)
    with files() as f, files() as g, \
            nbd.StorageDaemon(image, tcp=True) as store:
        good, path = f.disk / 'trace', g.disk / 'trace'
        with node_of(image, store, **f.options(),
                     **{'boot-trace': str(good)}) as relay:
            boot(relay)
            relay.end()
        with node_of(image, store, **g.options(),
                     **{'boot-trace': str(path)}) as relay:
            with contextlib.closing(Connection(relay.path)) as connection:
                connection.read(SIZE - 8192, 4096)
            os.link(good, path)
            relay.end()
        return None if path.samefile(good) else 'it was written over'


def no_trace(folder):
    """What cannot be a trace is not waited for; what is no file stays."""
    image = images.make(folder, 'hydrated', SIZE)
    for name, text in (('pipe', 'no regular file'), ('large', 'too large')):
        with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
            path = f.disk / name
            if name == 'pipe':
                os.mkfifo(path)
            else:
                path.touch()
                os.truncate(path, 32 * MIB)
            with node_of(image, store, **f.options(), **{
                    'boot-trace': str(path)}) as relay:
                until(lambda: info(relay)['stores'][0]['state'] == 'up', 10,
                      'its store')
                connection = Connection(relay.path)
                connection.read(0, 4096)
                connection.close()
                said = relay.said()
                relay.end()
            replaced = path.is_file() and path.stat().st_size < MIB
            if text not in said or replaced != (name == 'large'):
                return f'{name}: replaced: {replaced}; {said}'
    return None


def tests(folder, _args):
    yield 'hydrate: all of a version', whole, folder
    yield 'hydrate: slowed down, paused, cancelled, killed', steered, folder
    yield 'hydrate: reads come first', demand_first, folder
    for how, host in (('killed', ''), ('told to quit', ''),
                      ('killed', ', and its host starts again')):
        yield f'hydrate: its relay is {how}{host}', resumed, folder, how, host
    yield 'hydrate: an outage', outage, folder, {}
    yield ('hydrate: an outage, which readers are told of', outage, folder,
           {'outage-action': 'error', 'outage-wait': 1})
    yield 'hydrate: cancelled in an outage', cancelled, folder
    yield 'hydrate: the cache is cut off', cut_off, folder
    yield 'hydrate: a block that no store has right', denied, folder
    yield ('hydrate: a block of the tree that no store has right', denied_tree,
           folder)
    yield 'hydrate: only what differs from another version', delta, folder
    yield 'a boot trace is recorded and fetched ahead', traced, folder
    yield 'a boot trace is written when the boot is over', \
        traced_and_killed, folder
    yield 'a boot trace that came meanwhile is kept', brought, folder
    yield 'what is no boot trace', no_trace, folder

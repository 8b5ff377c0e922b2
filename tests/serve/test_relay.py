# SPDX-License-Identifier: GPL-2.0-or-later
"""deskcast relay, between stores that fail and desktops that must not notice."""

import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import tempfile
import time
import types

from stores.link import Link
from stores.process import run, until
from stores.reader import Connection, ReadError, Readers

from .env import (Desktop, ENV, GRANULE, MIB, OURS, Relay, Serve, VdiskStore,
                  content, exports, noise, same, shows)

SIZE = 8 * MIB


def store_of(vdisk='win', data=6 * MIB, size=SIZE):
    store = VdiskStore()
    store.make(vdisk, {0: noise(vdisk, data)}, size)
    return store


def root(store, number, vdisk='win'):
    return store.version(vdisk, number)['root']


def received(pid):
    """Bytes that a process has read with system calls, of all kinds"""
    text = pathlib.Path(f'/proc/{pid}/io').read_text()
    return int(re.search(r'rchar: (\d+)', text)[1])


def ahead():
    """A version is here before anybody asks: then the store may go."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        bad = same(relay.path, store.folder('win') / '1.tree', 'win@1.tree')
        serve.process.kill()
        with Desktop(store, [relay.path], 'win', 1,
                     **relay.options(root(store, 1))) as node:
            bad = bad or same(node.path, store.content['win', 1])
            cache = node.command('query-vdisks')[0]['pvs']['host-cache']
        if not bad and cache['hit-bytes'] < SIZE // 2:
            return f'it did not read the cache: {cache}'
        return bad


def moves_only_the_difference():
    """The next version costs what it changed, and of its tree as well."""
    size, span = 64 * MIB, 128 * GRANULE    # of a block of the tree
    store = store_of(data=size, size=size)
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        rng = random.Random(1)
        changes = {at * 65536: noise(at, 16 * GRANULE)
                   for at in rng.sample(range(size // 65536), 50)}
        number = store.make('win', changes, promote=False)
        changed = sum(len(d) for d in changes.values())
        hashes = GRANULE * (len({at // span for at in changes}) + 8)
        before = received(serve.daemon())
        relay.wait(f'win@{number}', 'hydrated')
        moved = received(serve.daemon()) - before
        print(f'# {changed} bytes of {size} were changed, {moved} read')
        bad = same(relay.path, store.content['win', number], f'win@{number}')
        # The server reads tables of its image, and manifests, as well
        if not bad and moved > changed + hashes + 256 * 1024:
            return f'{moved} bytes were read for {changed} + {hashes}'
        return bad


def follows():
    """A new version comes, an old one goes, one client reads all the time."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        first = root(store, 1)
        with Desktop(store, [relay.path], 'win', 1,
                     **relay.options(first)) as node, \
                Readers(node.path, store.content['win', 1]) as readers:
            store.make('win', {MIB: noise('new', MIB)})
            relay.wait('win@2', 'hydrated')
            store.command('version', 'retire', 'win', 1)
            until(lambda: relay.of('win@1').get('retired'), 10, 'it is retired')
            time.sleep(2)
            there = 'win@1' in exports(relay.path)
            readers.stop()
            if readers.wrong or readers.errors or not there:
                return f'{there} {readers.summary()} {readers.errors[:3]}'
        shows(relay.path, 'win@2', gone=['win@1', 'win@1.tree'])
        until(lambda: not list(relay.cache.glob(f'{first}*')) and
              not list(relay.maps.glob(f'{first}*')), 10,
              'its files are removed')
        until(lambda: relay.of('win@2') and not relay.of('win@1'), 10,
              'it tells of the new one only')
        return same(relay.path, store.content['win', 2], 'win@2')


def alike():
    """A version with the content of the one before needs nothing, and is here."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        number = store.make('win', {}, promote=False)
        if root(store, number) != root(store, 1):
            return 'the content is another one'
        # What it shares with the first is here at once, its node is not
        relay.wait(f'win@{number}', 'served')
        relay.wait(f'win@{number}', 'hydrated')
        # that it is here may be known before it is served
        shows(relay.path, f'win@{number}', seconds=20)
        return same(relay.path, store.content['win', number], f'win@{number}')


def killed():
    """The relay, its daemon, both, at random, while desktops read."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1')
        rng = random.Random(7)
        with Desktop(store, [relay.path], 'win', 1, **relay.options(
                root(store, 1))) as node, \
                Readers(node.path, store.content['win', 1]) as readers:
            for n in range(5):
                time.sleep(rng.random())
                if n % 2:
                    relay.kill()
                    relay.start()
                else:
                    relay.kill_daemon()
                shows(relay.path, 'win@1', seconds=20)
            before = len(readers.reads)
            until(lambda: len(readers.reads) > before + 100, 20, 'reads go on')
            readers.stop()
            if readers.wrong or readers.errors:
                return f'{readers.summary()} {readers.errors[:3]}'
        relay.wait('win@1', 'hydrated')
        return same(relay.path, store.content['win', 1], 'win@1')


def within_its_size():
    """Three versions of two vDisks where two have room: never more than that,
    all are served, and the one that desktops run on is the one that is here."""
    store = store_of()
    store.make('deb', {0: noise('deb', 6 * MIB)}, SIZE)
    limit = 19 * MIB
    worst = 0
    with Serve(store) as serve, \
            Relay([serve.uri], ['win', 'deb'], size='19M') as relay:
        relay.wait('win@1', 'hydrated')
        relay.wait('deb@1', 'hydrated')
        store.make('win', {0: noise('win2', 6 * MIB)})
        end = time.monotonic() + 40
        while not relay.of('win@2').get('hydrated'):
            worst = max(worst, used(relay.cache))
            if time.monotonic() > end:
                return f'win@2 gets no room: {relay.status()}'
            time.sleep(0.05)
        for vdisk, number in store.content:
            shows(relay.path, f'{vdisk}@{number}')
            bad = same(relay.path, store.content[vdisk, number],
                       f'{vdisk}@{number}')
            if bad:
                return bad
        worst = max(worst, used(relay.cache))
        print(f'# {worst} bytes of {limit} at most')
        if relay.of('win@1')['cache-limit']:
            return f'the old version kept its room: {relay.status()}'
        return None if worst <= limit else f'{worst} bytes, not {limit}'


def no_room_for_a_tree():
    """Not even that fits: the version is not served, the others are."""
    store = store_of(size=16 * MIB)
    store.make('large', {0: noise('large', MIB)}, 512 * MIB)
    with Serve(store) as serve, \
            Relay([serve.uri], ['large', 'win'], size='1M') as relay:
        relay.wait('win@1')
        until(lambda: 'large@1: it is not served: its hash tree' in
              relay.said(), 10, 'it says so')
        bad = same(relay.path, store.content['win', 1], 'win@1')
        if 'large@1' in exports(relay.path) or used(relay.cache) > MIB:
            return f'{used(relay.cache)} bytes, {exports(relay.path)}'
        return bad


def used(folder):
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total


def store_away_at_start():
    """What is here is served, and what is not comes when the store does."""
    store = store_of()
    serve = Serve(store)
    with Relay([serve.uri], ['win']) as relay:
        if exports(relay.path):
            return 'it serves what it cannot have'
        with serve:
            relay.wait('win@1', 'hydrated')
        if relay.finish():
            return relay.said()
        relay.start()
        shows(relay.path, 'win@1', 'win@1.tree', 'win@manifest', seconds=20)
        return same(relay.path, store.content['win', 1], 'win@1')


def several_stores():
    """The first one dies, freezes, comes back; reads go on."""
    store = store_of()
    with Serve(store) as one, Serve(store) as two, \
            Relay([one.uri, two.uri], ['win'], '--bandwidth', '1M') as relay:
        relay.wait('win@1')
        with Readers(relay.path, store.content['win', 1], threads=2,
                     export='win@1') as readers:
            one.process.signal(signal.SIGSTOP)
            daemon = one.daemon()
            os.kill(daemon, signal.SIGSTOP)
            time.sleep(3)
            os.kill(daemon, signal.SIGKILL)
            one.process.kill()
            time.sleep(1)
            before = len(readers.reads)
            until(lambda: len(readers.reads) > before + 100, 10, 'reads go on')
        if readers.wrong or readers.errors or readers.longest() > 2:
            return f'{readers.summary()} {readers.errors[:3]}'
        # One that only the second store can tell of does not count
        two_status = relay.status()['stores']
        if [s['reachable'] for s in two_status] != [False, True]:
            return f'{two_status}'
    return None


def first_store_never_there():
    store = store_of()
    with Serve(store) as serve, \
            Relay(['nbd://127.0.0.1:1', serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        return same(relay.path, store.content['win', 1], 'win@1')


def bandwidth():
    """What is fetched ahead takes no more than it may."""
    store = store_of()
    with Serve(store) as serve:
        begin = time.monotonic()
        with Relay([serve.uri], ['win'], '--bandwidth', '2M') as relay:
            relay.wait('win@1', 'hydrated', 30)
        seconds = time.monotonic() - begin
    # 6 MiB at 2 MiB/s; a slice may be in advance
    return None if seconds > 2 else f'{seconds:.1f} s'


def hosts_cap():
    """What the list of hosts says counts, also when it is changed later."""
    store = store_of()
    with Serve(store) as serve, tempfile.TemporaryDirectory() as folder:
        conf = pathlib.Path(folder) / 'hosts.conf'

        def cap(text):
            new = conf.with_suffix('.new')
            new.write_text('[here]\nuri=qemu:///system\n' + text)
            new.replace(conf)

        cap('relay-bandwidth=256K\n')
        with Relay([serve.uri], ['win'], '--bandwidth', '1G', '--host', 'here',
                   '--hosts', conf) as relay:
            relay.wait('win@1')
            time.sleep(4)
            if relay.of('win@1')['hydrated'] or relay.status()['bandwidth'] != 256 << 10:
                return f'not held back: {relay.status()}'
            conf.write_text('nonsense')
            until(lambda: 'relay-bandwidth' in relay.said(), 10, 'it says so')
            if relay.status()['bandwidth'] != 256 << 10:
                return 'a list that cannot be read lets go of the cap'
            cap('')
            begin = time.monotonic()
            relay.wait('win@1', 'hydrated', 10)     # else 24 s in all
            if relay.status()['bandwidth'] != 1 << 30:
                return f'{relay.status()}'
        return None if time.monotonic() - begin < 10 else 'still slow'


def lies():
    """A store whose tree, or whose manifest, is not what was sealed"""
    store = store_of()
    number = store.make('win', {MIB: noise('new', MIB)})
    tree = store.folder('win') / f'{number}.tree'
    os.chmod(tree, 0o644)
    with open(tree, 'r+b') as f:
        f.seek(3 * GRANULE)
        f.write(noise('lie', 64))
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        until(lambda: 'not what was sealed' in relay.said(), 20, 'it says so')
        if f'win@{number}' in exports(relay.path):
            return 'a version without a good tree is served'
        return same(relay.path, store.content['win', 1], 'win@1')


def rotten_tree():
    """A tree that rotted in the cache's folder is fetched again, as much of it
    as is wrong."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        relay.finish()
        path = relay.cache / f'{root(store, 1)}.tree'
        os.chmod(path, 0o644)
        with open(path, 'r+b') as f:
            f.seek(4 * GRANULE)
            f.write(noise('rot', 512))
        relay.start()
        shows(relay.path, 'win@1', seconds=20)
        want = (store.folder('win') / '1.tree').read_bytes()
        return None if path.read_bytes() == want else 'the tree is wrong'


def leftovers():
    """Files of nobody go; files that are not ours stay."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        relay.finish()
        foreign = relay.cache / 'notes.cache'
        stale = [relay.cache / f'{"ab" * 32}.{s}'
                 for s in ('cache', 'tree', 'trace', 'tree.new', 'trace.Xy12Z3')]
        for path in [foreign, *stale]:
            path.write_text('x')
        relay.start()
        until(lambda: not any(p.exists() for p in stale), 20, 'they are gone')
        if not foreign.exists():
            return 'a file that is not ours is gone'
        shows(relay.path, 'win@1')
        return same(relay.path, store.content['win', 1], 'win@1')


def stale_while_away():
    """What a vDisk owns, whose manifest is not known, is nobody's to remove."""
    store = store_of()
    serve = Serve(store)
    with serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        relay.finish()
        serve.finish()
        (relay.cache / 'win.manifest').unlink()
        relay.start()
        time.sleep(3)
        if not (relay.cache / f'{root(store, 1)}.cache').exists():
            return 'the cache was thrown away because the store was'
    return None


def relay_of_relay():
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as site, \
            Relay([site.uri], ['win']) as host:
        host.wait('win@1', 'hydrated')
        store.make('win', {MIB: noise('new', MIB)})
        host.wait('win@2', 'hydrated')
        return same(host.path, store.content['win', 2], 'win@2')


# Where a boot reads; and room for a cache of a version that is not all of it, so
# that nothing comes to it that nobody asked for
PLACES = [(n * 37 % 512) * 32768 for n in range(0, 512, 5)]
LARGER, SMALLER = (24 * MIB, 32 * MIB), '18M'
QUIET = 60                      # seconds after which a boot is over


def boot(path, image):
    """None, or where it was wrong"""
    data = image.read_bytes()
    with contextlib.closing(Connection(path, 'win@1', 10)) as c:
        wrong = [at for at in PLACES
                 if c.read(at, GRANULE) != data[at:at + GRANULE]]
    return f'wrong at {wrong}' if wrong else None


def recorded(store, serve):
    """The boot trace that the relay of a pilot leaves, and a minute passes"""
    clock, daemon = store.dir / 'clock', store.dir / 'daemon'
    clock.touch()
    daemon.write_text(f'#!/bin/sh\nLATER={clock} LD_PRELOAD='
                      f'{OURS}/tests/stores/later.so exec '
                      f'{ENV["DESKCAST_QSD"]} "$@"\n')
    daemon.chmod(0o755)
    with Relay([serve.uri], ['win'], size=SMALLER,
               env={'DESKCAST_QSD': str(daemon)}) as pilot:
        pilot.wait('win@1')
        boot(pilot.path, store.content['win', 1])
        os.truncate(clock, 2 * QUIET)
        path = pilot.cache / f'{root(store, 1)}.trace'
        until(lambda: exports(pilot.path) and path.exists(), 20, 'it is left')
        return pathlib.Path(shutil.copy(path, store.dir / 'recorded'))


def settled(path, least):
    """Wait until so many bytes are in the file, and no more come."""
    def size():
        return path.stat().st_blocks * 512

    def rests():
        before = size()
        time.sleep(1)
        return before >= least and size() == before
    until(rests, 30, f'{path.name} has {least} bytes')


def far_away(relay):
    """A link to it, on which an export takes longer to open than a node here"""
    return Link(types.SimpleNamespace(address=relay.path, image=None), delay=30)


def trace_travels():
    """What a pilot's boot read is, on a host that has nothing of the version,
    there before it is asked for: by the store and a relay between."""
    store = store_of(data=LARGER[0], size=LARGER[1])
    image = store.content['win', 1]
    with Serve(store) as serve:
        trace = recorded(store, serve)
        with Relay([serve.uri], ['win'], size=SMALLER) as site:
            site.wait('win@1')
            if site.of('win@1')['boot-trace']:
                return 'there is one before it was given'
            store.command('version', 'trace', 'win@1', trace)
            shows(site.path, 'win@1.trace', seconds=30)
            with far_away(site) as link, Relay(
                    [f'nbd+unix:///?socket={link.address}'], ['win'],
                    size=SMALLER) as host:
                host.wait('win@1')
                if not host.of('win@1')['boot-trace']:
                    return 'a new host served it before its trace was there'
                here = host.cache / f'{root(store, 1)}.trace'
                if here.read_bytes() != trace.read_bytes():
                    return 'it is another one'
                settled(here.with_suffix('.cache'), len(PLACES) * GRANULE)
                serve.kill()
                site.kill()
                return boot(host.path, image)


def lying_trace(store, text):
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        until(lambda: text in relay.said(), 20, text)
        left = list(relay.cache.glob('*.trace*'))
        if left or relay.of('win@1')['boot-trace'] or \
                'win@1.trace' in exports(relay.path):
            return f'{text}: {left}, {relay.of("win@1")}'
        return same(relay.path, store.content['win', 1], 'win@1')


def trace_lies():
    """One that is none, or is too large, is told of and not taken; the version
    is served all the same."""
    store = store_of()
    store.trace('win', 1, 5, 3)
    file = store.folder('win') / store.version('win', 1)['trace']
    file.chmod(0o644)
    os.truncate(file, 80)
    bad = lying_trace(store, 'no boot trace of this version')
    os.truncate(file, 32 * MIB)
    return bad or lying_trace(store, 'too large for a boot trace')


def full_disk():
    """No space for the cache: everything is read, from the store."""
    store = store_of()
    if os.geteuid():
        return None
    folder = store.dir / 'small'
    folder.mkdir()
    run('mount', '-t', 'tmpfs', '-o', 'size=3M', 'none', folder)
    try:
        with Serve(store) as serve, \
                Relay([serve.uri], ['win'], cache=folder) as relay:
            relay.wait('win@1')
            return same(relay.path, store.content['win', 1], 'win@1')
    finally:
        run('umount', '-l', folder)


def spoilt_manifest():
    """Of its own, in the cache's folder: it says what to do."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1')
        relay.finish()
        (relay.cache / 'win.manifest').write_text('{')
        relay.start()
        until(lambda: not relay.process.running(), 10, 'it ends')
        return None if 'remove it, and it is fetched again' in relay.said() \
            else relay.said()


def one_at_a_time():
    """Two relays on one cache would remove each other's files."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1', 'hydrated')
        other = Relay([serve.uri], ['win'], cache=relay.cache)
        other.start()
        try:
            until(lambda: not other.process.running(), 10, 'it ends')
            said = other.said()
        finally:
            other.__exit__()
        if 'another relay uses this folder' not in said:
            return said
        return same(relay.path, store.content['win', 1], 'win@1')


def released():
    """A release date that comes makes a version the one that is here first."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win'],
                                      size='10M') as relay:
        relay.wait('win@1', 'hydrated')
        store.make('win', {0: noise('win2', 6 * MIB)}, promote=False)
        soon = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + 6))
        store.command('version', 'promote', 'win', '--release', soon)
        relay.wait('win@2')
        if relay.of('win@2').get('cache-limit'):
            return 'it took the room before its date'
        relay.wait('win@2', 'hydrated')
        return same(relay.path, store.content['win', 2], 'win@2')


def wrong_content():
    """A store whose image rotted: nobody gets it, and that is told."""
    store = store_of()
    image = store.folder('win') / '1.raw'
    os.chmod(image, 0o644)
    with open(image, 'r+b') as f:
        f.seek(5 * GRANULE)
        f.write(noise('rot', 512))
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1')
        until(lambda: 'it sent what was not sealed' in relay.said(), 20,
              'it says so')
        c = Connection(relay.path, 'win@1', 10)
        want = store.content['win', 1].read_bytes()
        for _ in range(2):
            if c.read(2 * MIB, MIB) != want[2 * MIB:3 * MIB]:
                return 'what is right is not given'
            with contextlib.suppress(ReadError):
                return f'{c.read(5 * GRANULE, GRANULE)[:16]} was given'
    return None


def no_store():
    """Who asks for what is not here is told so, soon, and again by the same
    connection when it can be had."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win'], size='1M') as relay:
        relay.wait('win@1')
        want = store.content['win', 1].read_bytes()
        c = Connection(relay.path, 'win@1', 10)
        c.read(0, GRANULE)
        at = 5 * MIB
        for went in (serve.finish, serve.kill):
            went()
            begin = time.monotonic()
            with contextlib.suppress(ReadError):
                return f'{c.read(at, GRANULE)[:16]} was given'
            took = time.monotonic() - begin
            if took > 5:
                return f'told after {took:.1f} s'
            serve.start()
            serve.wait_ready()
            time.sleep(2)
            if c.read(at, GRANULE) != want[at:at + GRANULE]:
                return 'content differs'
            at += GRANULE
    return None


def many_connections():
    """Readers come and go while the relay's own clients stay."""
    store = store_of()
    with Serve(store) as serve, Relay([serve.uri], ['win']) as relay:
        relay.wait('win@1')
        for _ in range(200):
            c = Connection(relay.path, 'win@1', 10)
            c.read(0, 4096)
            c.close()
        content(relay.path, 'win@manifest')
        shutil.rmtree(relay.cache / 'none', ignore_errors=True)
        return same(relay.path, store.content['win', 1], 'win@1')


def tests():
    yield 'relay: a version is here before it is asked for', ahead
    yield 'relay: a new version costs what it changed', \
        moves_only_the_difference
    yield 'relay: versions come and go under a reader', follows
    yield 'relay: a version that changed nothing', alike
    yield 'relay: it and its daemon are killed under readers', killed
    yield 'relay: within its size', within_its_size
    yield 'relay: no room for a tree', no_room_for_a_tree
    yield 'relay: a store that is away at the start', store_away_at_start
    yield 'relay: the first of two stores freezes and dies', several_stores
    yield 'relay: the first of two stores is never there', \
        first_store_never_there
    yield 'relay: bandwidth', bandwidth
    yield "relay: the host's cap", hosts_cap
    yield 'relay: a store that lies', lies
    yield 'relay: a tree that rots', rotten_tree
    yield 'relay: files of nobody', leftovers
    yield 'relay: files of a vDisk that is not known yet', stale_while_away
    yield 'relay: a relay that feeds a relay', relay_of_relay
    yield 'relay: a boot trace goes with its version', trace_travels
    yield 'relay: a boot trace that is none', trace_lies
    yield 'relay: no space for the cache', full_disk
    yield 'relay: its own copy of a manifest is spoilt', spoilt_manifest
    yield 'relay: two of them', one_at_a_time
    yield 'relay: a release date comes', released
    yield 'relay: a store whose image rotted', wrong_content
    yield 'relay: its store is away', no_store
    yield 'relay: clients come and go', many_connections

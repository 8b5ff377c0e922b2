# SPDX-License-Identifier: GPL-2.0-or-later
"""The host cache behind the drivers: relays that are killed, hosts that are
started again, files that are damaged or cut; every byte compared."""

import concurrent.futures
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time

from sanitized import SLOWER
from . import ceph, far, images, nbd
from .link import Link
from .node import GuestError
from .process import LARGE, MEMORY, Missing, need, program, run, until
from .reader import Connection, Readers
from .test_commands import Machine
from .test_pvs import cached, everything, info, node_of, verity

MIB = 1 << 20
SIZE = 8 * MIB
FAR_SIZE = 32 * MIB         # of it no more than 8 MiB are fetched ahead
GRANULE = 4096
MAP_HEADER = 4096           # of the live map; 2 bits a granule follow
SOON = 3.0 * SLOWER         # seconds; no QMP command takes longer


class Victims(Readers):
    """Their export goes away under them; what they read until then counts."""

    def run(self, *args):
        with contextlib.suppress(OSError, EOFError):
            super().run(*args)


class Files:
    """Where a cache is; on a disk, for that is what a host would have."""

    def __init__(self):
        self.disk = pathlib.Path(tempfile.mkdtemp(prefix='dk-cache-', dir=LARGE))
        self.memory = pathlib.Path(tempfile.mkdtemp(dir=MEMORY))
        self.data = self.disk / 'cache'
        self.map = self.memory / 'map'

    def options(self):
        return {'host-cache': str(self.data), 'host-cache-map': str(self.map)}

    def start_host_again(self):
        self.map.unlink(missing_ok=True)

    def damage(self, count, rng):
        """Flip a byte in so many granules of the image."""
        offset = int.from_bytes(self.data.read_bytes()[80:88], 'little')
        with open(self.data, 'r+b') as f:
            for g in rng.sample(range(SIZE // GRANULE), count):
                at = offset + g * GRANULE + rng.randrange(GRANULE)
                f.seek(at)
                byte = f.read(1)[0]
                f.seek(at)
                f.write(bytes([byte ^ 0x10]))

    def remove(self):
        shutil.rmtree(self.disk, ignore_errors=True)
        shutil.rmtree(self.memory, ignore_errors=True)


@contextlib.contextmanager
def files():
    f = Files()
    try:
        yield f
    finally:
        f.remove()


def desktop_of(image, cache, *stores, layer=None, **more):
    """With a write cache: it reads the host's cache, and cannot write it."""
    name = layer or cache.disk / 'desktop'
    options = 'role=cache,vdisk=disk,version=1'
    if 'verity-root' in more:
        options += f',verity-root={more["verity-root"]}'
    run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o', options, name,
        str(image.stat().st_size))
    return node_of(image, *stores, **cache.options(), **more, **{
        'read-only': False, 'mode': 'standard',
        'file': {'driver': 'file', 'filename': str(name)}})


def kill_desktop(image, cache, pinned, relay, seed, seconds):
    """A desktop killed while it is read from; what was wrong before."""
    with desktop_of(image, cache, Relay(image, relay), **pinned) as desktop:
        desktop.command('vdisk-reset', **{'node-name': 'disk'})
        with Victims(desktop.path, image, 4, 0, seed=seed) as readers:
            time.sleep(seconds)
            bad = list(readers.wrong) + list(readers.errors)
            desktop.popen.kill()
        if not readers.reads:
            bad.append('nothing was read')
    return bad or readers.wrong


def killed(folder, rounds, seed):
    """Relays killed while they are read from, and desktops before them now and
    then; the host started again now and then, and half of those times with
    damage in the file."""
    rng = random.Random(seed)
    image = images.make(folder, 'cached', SIZE)
    pinned = verity(image)
    reads = found = 0
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        for n in range(rounds):
            with node_of(image, store, **pinned, **f.options()) as relay:
                found += cached(relay) > 0
                if rng.random() < 0.3:
                    bad = kill_desktop(image, f, pinned, relay, seed + n,
                                       rng.uniform(0.2, 0.6))
                    if bad:
                        return f'seed {seed}, round {n}, a desktop: {bad}'
                with Victims(relay.path, image, 4, 0, seed=seed + n) as readers:
                    time.sleep(rng.uniform(0.05, 0.6))
                    bad = list(readers.wrong) + list(readers.errors)
                    reads += len(readers.reads)
                    if rng.random() < 0.7:
                        relay.popen.kill()
                    else:
                        readers.stop()
                        relay.end()
                if bad or readers.wrong:
                    return f'seed {seed}, round {n}: {bad or readers.wrong}'
            if rng.random() < 0.4:
                # What a clean stop leaves is trusted, so is not damaged here
                clean = relay.popen.returncode == 0
                f.start_host_again()
                if not clean and rng.random() < 0.5:
                    f.damage(20, rng)
    print(f'# {rounds} relays, {found} found a cache, {reads} reads', flush=True)
    return None if reads > 100 * rounds and found > rounds / 4 else \
        f'{reads} reads, {found} caches found'


def both(f):
    return f.data.read_bytes(), f.map.read_bytes()


def killed_machine(folder, relay, f, disk, rng):
    """One that reads its half of the cache, and what is not there, and is killed;
    what was wrong. Nobody else writes to the cache meanwhile."""
    path = f'{folder}/killed.socket'
    with Machine(folder, 'killed', disk) as m:
        m.ask('nbd-server-start', addr={'type': 'unix', 'data': {'path': path}})
        m.ask('block-export-add', type='nbd', id='e', **{'node-name': 'disk0'})
        still = rng.random() < 0.5
        if still:
            relay.popen.send_signal(signal.SIGSTOP)
            before = both(f)
        with Victims(path, images.make(folder, 'cached', SIZE), 4, 0,
                     seed=rng.randrange(1 << 30), export='disk0') as readers:
            time.sleep(rng.uniform(0, 0.4))
            hits = m.ask('query-vdisks')[0]['pvs']['host-cache']['hit-bytes']
            bad = list(readers.wrong) + list(readers.errors)
            m.process.kill()
            m.process.wait()
        if still:
            bad += ['the cache is another'] if both(f) != before else []
            relay.popen.send_signal(signal.SIGCONT)
    pathlib.Path(path).unlink(missing_ok=True)
    return bad or readers.wrong, hits


def machines_killed(folder, rounds, seed):
    """Virtual machines are killed at any moment; the relay and the others do not
    notice, and the cache is as the relay made it."""
    rng = random.Random(seed)
    image = images.make(folder, 'cached', SIZE)
    pinned = verity(image)
    used = 0
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            node_of(image, store, **pinned, **f.options()) as relay:
        with contextlib.closing(Connection(relay.path)) as c:
            for at in range(0, SIZE // 2, MIB):
                c.read(at, MIB)
        layer = f.disk / 'desktop'
        desktop = desktop_of(image, f, Relay(image, relay), layer=layer,
                             **pinned)
        disk = {**desktop.options, 'node-name': 'disk0'}
        for n in range(rounds):
            bad, hits = killed_machine(folder, relay, f, disk, rng)
            used += hits > 0
            if bad:
                return f'seed {seed}, round {n}: {bad}'
        shown = everything(relay) == image.read_bytes()
        with desktop:
            desktop.command('vdisk-reset', **{'node-name': 'disk'})
            shown &= everything(desktop) == image.read_bytes()
    print(f'# {rounds} killed, {used} of them read from the cache', flush=True)
    return None if shown and used > rounds / 2 else \
        f'content is {shown}, {used} used the cache'


def scanned(folder, seed):
    """After an unclean stop all that is right comes back, nothing else, and no
    store is asked."""
    image = images.make(folder, 'cached', SIZE)
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        with node_of(image, store, **pinned, **f.options()) as relay:
            everything(relay)
            until(lambda: cached(relay) == SIZE, 30, 'all is cached')
        f.start_host_again()
        f.damage(50, random.Random(seed))
        with node_of(image, store, **pinned, **f.options()) as relay:
            store.freeze()
            until(lambda: cached(relay) == SIZE - 50 * GRANULE, 30,
                  'the scan has found what is good')
            time.sleep(0.3)
            count = cached(relay)
            store.kill()
            store.start()
            shown = everything(relay) == image.read_bytes()
    return None if shown and count == SIZE - 50 * GRANULE else \
        f'{count} bytes were trusted; content is {shown}'


def quit_in_scan(folder):
    """A scan that waits for a store with the tree does not keep the relay."""
    image = images.make(folder, 'cached', SIZE)
    pinned = verity(image)
    tree = image.with_suffix('.tree')
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            nbd.StorageDaemon(tree, tcp=True) as trees:
        pinned['verity-tree'] = trees.options()
        with node_of(image, store, **pinned, **f.options()) as relay:
            everything(relay)
        f.start_host_again()
        # The tree's blocks in the cache are of no use: none is there
        offset = int.from_bytes(f.data.read_bytes()[80:88], 'little')
        with open(f.data, 'r+b') as data:
            data.seek(offset + SIZE)
            data.write(os.urandom(tree.stat().st_size))
        trees.freeze()
        with node_of(image, store, **pinned, **f.options()) as relay:
            time.sleep(0.5)
            early = cached(relay)
            begin = time.monotonic()
            relay.end()
            took = time.monotonic() - begin
    return None if took < 5 and not early else \
        f'it took {took:.1f} s to quit, {early} bytes were trusted'


def alone(folder):
    """With relay and stores gone a desktop reads on; what was cut off comes
    from a store again, when there is one."""
    image = images.make(folder, 'cached', SIZE)
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        with node_of(image, store, **pinned, **f.options()) as relay, \
                desktop_of(image, f, store, **pinned) as desktop:
            everything(relay)
            until(lambda: cached(relay) == SIZE, 30, 'all is cached')
            # As who starts the guest does: else nobody is admitted
            desktop.command('vdisk-reset', **{'node-name': 'disk'})
            relay.popen.kill()
            relay.popen.wait()
            before = info(desktop)['stores'][0]['bytes']
            store.freeze()
            shown = everything(desktop) == image.read_bytes()
            moved = info(desktop)['stores'][0]['bytes'] - before
            store.kill()
            store.start()
            with open(f.data, 'r+b') as data:
                data.truncate(f.data.stat().st_size - SIZE // 2)
            with contextlib.closing(Connection(desktop.path)) as c:
                cut = b''.join(c.read(at, MIB) for at in range(0, SIZE, MIB))
    if not shown or moved:
        return f'content is {shown}, {moved} bytes came from the store'
    return None if cut == image.read_bytes() else 'cut off: content differs'


def forget(cache, g):
    """The live map does not have the granule any more."""
    with open(cache.map, 'r+b') as f:
        f.seek(MAP_HEADER + g // 4)
        byte = f.read(1)[0]
        f.seek(MAP_HEADER + g // 4)
        f.write(bytes([byte & ~(3 << g % 4 * 2)]))


def half_head(folder):
    """The head of the tree is two granules. Where the map has one of them, as
    when a relay was killed in between, nobody takes it for more than it is; the
    next relay has both again."""
    image = images.make(folder, 'cached', SIZE)
    pinned = verity(image)
    job = {'node-name': 'disk', 'job-id': 'job'}
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        for n in range(3):
            with node_of(image, store, **pinned, **f.options()) as relay:
                relay.command('vdisk-hydrate', **job)
                until(lambda: not relay.command('query-jobs'), 30,
                      'the job ends')
                if n == 2:
                    break
                forget(f, SIZE // GRANULE + n)
                relay.command('vdisk-hydrate', **job)
                time.sleep(1)
                if info(relay)['corrupt']:
                    return f'half {n}: a store is blamed'
                relay.popen.kill()
    return None


class Relay(nbd.NbdStore):
    """A relay as its desktops see it."""

    def __init__(self, image, node):        # pylint: disable=W0231
        self.image = image
        self.address = node.path


def moved(link, before):
    """Bytes since then: to the relay, and from it."""
    return [b - a for a, b in zip(before, link.count()[2:])]


def stopped(folder):
    """The relay is stopped: of what is cached nothing is asked for, and what
    is not comes from another store."""
    image = images.make(folder, 'cached', SIZE)
    pinned = verity(image)
    half = SIZE // 2
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            node_of(image, store, **pinned, **f.options()) as relay, \
            Link(Relay(image, relay)) as link, \
            desktop_of(image, f, link, store, **pinned) as desktop:
        desktop.command('vdisk-reset', **{'node-name': 'disk'})
        with contextlib.closing(Connection(relay.path)) as c:
            for at in range(0, half, MIB):
                c.read(at, MIB)
        until(lambda: cached(desktop) >= half, 10, 'half of it is cached')
        relay.popen.send_signal(signal.SIGSTOP)
        try:
            begin = link.count()[2:]
            with Readers(desktop.path, image, places=half) as readers:
                time.sleep(2)
                ended = readers.stop(10)
            asked = moved(link, begin)
            with contextlib.closing(Connection(desktop.path)) as c:
                data = c.read(SIZE - MIB, MIB)
        finally:
            relay.popen.send_signal(signal.SIGCONT)
    # a probe is 28 bytes, and nobody answers it
    good = ended and not readers.errors and not readers.wrong and \
        asked[0] < 1000 and asked[1] == 0 and len(readers.reads) > 500
    return None if good and data == image.read_bytes()[-MIB:] else \
        f'{asked} bytes moved; {readers.summary()}'


def hits_go_on(desktop, image, places, seconds):
    """What is cached is read, and QMP answers all that time; else, why not."""
    slow = 0.0
    with Readers(desktop.path, image, places=places) as readers:
        last = time.monotonic() + seconds
        while (begin := time.monotonic()) < last:
            info(desktop)
            slow = max(slow, time.monotonic() - begin)
            time.sleep(0.05)
        ended = readers.stop(10)
    good = ended and not readers.errors and not readers.wrong and \
        len(readers.reads) > 100 / SLOWER and slow < SOON
    return None if good else f'QMP took {slow:.1f} s; {readers.summary()}'


def far_dies(folder, kind):
    """A store of another kind freezes, and is started anew: what is cached is
    read meanwhile, the rest afterwards. Its client redials in its own time."""
    image = images.make(folder, 'far', FAR_SIZE)
    pinned = verity(image)
    half = FAR_SIZE // 2
    with files() as f, kind(image) as store, \
            node_of(image, store, netns=store.netns, **pinned,
                    **f.options()) as relay, \
            desktop_of(image, f, Relay(image, relay), **pinned) as desktop:
        desktop.command('vdisk-reset', **{'node-name': 'disk'})
        with contextlib.closing(Connection(desktop.path)) as c:
            shown = [c.read(at, MIB) for at in range(0, half, MIB)]
        until(lambda: cached(desktop) >= half, 10, 'half of it is cached')
        missing = FAR_SIZE - cached(relay)
        store.freeze()
        why = hits_go_on(desktop, image, half, 2)
        store.restart()
        with contextlib.closing(Connection(desktop.path, timeout=120)) as c:
            shown += [c.read(at, MIB) for at in range(half, FAR_SIZE, MIB)]
    right = b''.join(shown) == image.read_bytes()
    return why or (None if right and missing else
                   f'content is {right}, {missing} bytes were missing')


def opened_by(process, path):
    """How it has a file open and mapped: 'r' or 'w' for each."""
    folder = pathlib.Path(f'/proc/{process.pid}')
    modes = []
    for fd in (folder / 'fd').iterdir():
        if read_link(fd) == str(path):
            flags = re.search(r'flags:\s*(\d+)', (folder / 'fdinfo' /
                                                  fd.name).read_text())[1]
            modes.append('rw'[int(flags, 8) & os.O_ACCMODE != os.O_RDONLY])
    for line in (folder / 'maps').read_text().splitlines():
        if line.endswith(str(path)):
            modes.append('rw'['w' in line.split()[1]])
    return modes


# Prints what somebody else could do with each file that it is given
ATTEMPTS = """
import os, sys
def tries(path):
    yield 'write', lambda: os.close(os.open(path, os.O_RDWR))
    yield 'truncate', lambda: os.truncate(path, 0)
    yield 'rename', lambda: os.rename(path, path + '.mine')
    yield 'remove', lambda: os.unlink(path)
    yield 'plant', lambda: os.close(os.open(path + '.new', os.O_CREAT | os.O_RDWR))
    yield 'chmod', lambda: os.chmod(path, 0o666)
for path in sys.argv[1:]:
    os.close(os.open(path, os.O_RDONLY))
    for name, attempt in tries(path):
        try:
            attempt()
            print(name, path)
        except PermissionError:
            pass
"""


def attempts(f):
    """What nobody, who can read both files, can do with them."""
    if os.geteuid() != 0:
        raise Missing('root: somebody else tries it')
    for folder in (f.disk, f.memory):
        folder.chmod(0o755)
    return run(need('setpriv'), '--reuid=65534', '--regid=65534',
               '--clear-groups', sys.executable, '-c', ATTEMPTS,
               str(f.data), str(f.map))


def read_by_desktops(folder):
    """A desktop's process has no means to write to cache or map."""
    image = images.make(folder, 'cached', SIZE)
    pinned = verity(image)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            node_of(image, store, **pinned, **f.options()) as relay, \
            desktop_of(image, f, store, **pinned) as desktop:
        everything(relay)
        until(lambda: cached(desktop) == SIZE, 10, 'the cache')
        modes = [opened_by(node.popen, path) for node in (desktop, relay)
                 for path in (f.data, f.map)]
        desktop.command('vdisk-reset', **{'node-name': 'disk'})
        done = attempts(f)
        if done or everything(desktop) != image.read_bytes():
            return f'somebody else can {done}'
    # and the relay's would be seen
    return None if all(m and set(m) == {'r'} for m in modes[:2]) and \
        all('w' in m for m in modes[2:]) else str(modes)


def together(folder):
    """Eight desktops read the same places at the same time, over a far link:
    none of them is in sequence, so nothing but those places is fetched."""
    image = images.make(folder, 'cached', SIZE)
    places = [i * MIB // 2 + MIB // 4 for i in range(16)]
    data = image.read_bytes()
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            Link(store, delay=20) as link, \
            node_of(image, link, **verity(image), **f.options()) as relay, \
            contextlib.ExitStack() as stack, \
            concurrent.futures.ThreadPoolExecutor(8) as pool:
        desktops = [stack.enter_context(contextlib.closing(
            Connection(relay.path))) for _ in range(8)]
        wrong = [at for at in places for got in pool.map(
            lambda c, at=at: c.read(at, GRANULE), desktops)
                 if got != data[at:at + GRANULE]]
        time.sleep(0.5)         # for what would be fetched ahead
        local = cached(relay)
    return None if not wrong and local == len(places) * GRANULE else \
        f'wrong at {wrong}; {local} bytes for {len(places)} granules'


def limited(folder):
    """At its limit it takes no more, and says so; reads go on."""
    image = images.make(folder, 'cached', SIZE)
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            node_of(image, store, **verity(image), **f.options(), **{
                'host-cache-limit': 4 * MIB}) as relay:
        shown = everything(relay) == image.read_bytes()
        again = everything(relay) == image.read_bytes()
        until(lambda: relay.events('VDISK_HOST_CACHE'), 10, 'it says so')
        said = [e['data'] for e in relay.events('VDISK_HOST_CACHE')]
        now = info(relay)['host-cache']
        used = f.data.stat().st_blocks * 512
        local = cached(relay)
    good = shown and again and now['full'] and used <= 4 * MIB and \
        2 * MIB < local < 4 * MIB and len(said) == 1 and said[0]['full'] and \
        said[0]['filename'] == str(f.data)
    return None if good else f'{shown}, {again}, {used}, {local}, {said}, {now}'


def without_tree(folder):
    """Each relay makes the cache anew; the desktop takes the new one, and lets
    the old one go."""
    image = images.make(folder, 'cached', SIZE)

    def deleted():
        return [p for fd in os.scandir(f'/proc/{desktop.popen.pid}/fd')
                if (p := read_link(fd.path)).endswith('cache (deleted)')]

    with files() as f, nbd.StorageDaemon(image, tcp=True) as store, \
            desktop_of(image, f, store) as desktop:
        desktop.command('vdisk-reset', **{'node-name': 'disk'})
        inodes = []
        for _ in range(3):
            with node_of(image, store, **f.options()) as relay:
                inodes.append(f.data.stat().st_ino)
                everything(relay)
                until(lambda: cached(desktop) == SIZE, 10, 'a new cache')
                if everything(desktop) != image.read_bytes():
                    return 'content differs'
        until(lambda: not deleted(), 10, f'{deleted()} let go')
    return None if inodes[0] != inodes[1] != inodes[2] else 'not made anew'


def read_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ''


def refused(folder):
    """What a relay does not take for its cache, it says and leaves alone."""
    image, other = (images.make(folder, name, SIZE)
                    for name in ('cached', 'cached-other'))
    with files() as f, nbd.StorageDaemon(image, tcp=True) as store:
        with node_of(image, store, **verity(image), **f.options()) as relay:
            everything(relay)
            bad = opened(image, store, f, verity(image), 'another relay')
            relay.end()
        bad = bad or opened(other, store, f, verity(other), 'another image')
        mine = b'mine' * 5000
        f.data.write_bytes(mine)
        bad = bad or opened(image, store, f, verity(image), 'not a host cache')
        if not bad and f.data.read_bytes() != mine:
            bad = 'a file that is no cache was written to'
    return bad


def opened(image, store, f, pinned, expected):
    """None if the node is refused, and that is said."""
    try:
        with node_of(image, store, **pinned, **f.options()):
            return f'taken, not refused with "{expected}"'
    except GuestError as e:
        return None if re.search(expected, str(e)) else str(e)


def tests(folder, args):
    seed = args.seed
    rounds = 400 if args.long else 25
    yield 'cache: a scan trusts what is right', scanned, folder, seed
    yield 'cache: a scan does not keep a relay', quit_in_scan, folder
    yield 'cache: half of the tree\'s head', half_head, folder
    yield 'cache: relay and stores are gone', alone, folder
    yield 'cache: the relay is stopped', stopped, folder
    more = (far.Ganesha, ceph.Ceph) if args.long else ()
    for kind in (far.Tgt, far.Nginx, *more):
        yield f'cache: a far store dies, {kind.name}', far_dies, folder, kind
    yield 'cache: desktops cannot write to it', read_by_desktops, folder
    yield 'cache: eight read the same at once', together, folder
    yield 'cache: its limit', limited, folder
    yield 'cache: without a tree', without_tree, folder
    yield 'cache: what is refused', refused, folder
    yield f'cache: {rounds} relays end', killed, folder, rounds, seed
    yield (f'cache: {rounds} machines are killed', machines_killed, folder,
           rounds, seed)

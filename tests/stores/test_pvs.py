# SPDX-License-Identifier: GPL-2.0-or-later
"""A pvs node among stores that fail: a relay, in a storage daemon, is read
without end meanwhile, and every byte is compared with the image."""

import collections
import contextlib
import math
import random
import re
import tempfile
import time
from concurrent import futures

from sanitized import SLOWER
from . import ceph, damage, far, faults, images, nbd
from .link import Link
from .netns import Network
from .node import Node
from .process import MEMORY, Missing, free_port, need, program, run, until
from .reader import Connection, Readers

MIB = 1 << 20
LARGE = 64 * MIB
# What is promised, in seconds: with a second store, and after an outage
LONGEST = 1.0 * SLOWER
USUALLY = 0.3 * SLOWER      # of 999 in 1,000
RESUMED = 1.0 * SLOWER
PEACE = 1.0                 # what is longer is one, between two faults
CONNECTIONS = 16            # the most there are
# How many of which faults: now, and with --long
FAULTS = {'two': (80, 4000), 'one': (120, 6000), 'errors': (6, 1000),
          'answers': (8, 400)}
LIES = [kind for kind in damage.KINDS if kind != 'error']
DAMAGES = (4000, 100000)
PROBE = 512                 # bytes that a probe reads


def supported():
    if 'pvs' not in run(program('qemu-img'), '--help').split():
        raise Missing('this build has no pvs')


def verity(image):
    """The options that pin an image by a tree, which is made beside it."""
    tree = image.with_suffix('.tree')
    said = run(need('veritysetup'), 'format', '--hash=sha256',
               '--data-block-size=4096', '--hash-block-size=4096', image, tree)
    root = re.search(r'Root hash:\s*(\w+)', said)[1]
    return {'verity-root': root,
            'verity-tree': {'driver': 'file', 'filename': str(tree)}}


def pvs(image, *stores, **more):
    """Options of a relay. Without size= the stores have to be up at once."""
    return {'driver': 'pvs', 'vdisk': 'disk', 'version': 1,
            'size': image.stat().st_size,
            'stores': [s.options() for s in stores], **more}


def node_of(image, *stores, netns=None, **more):
    return Node(pvs(image, *stores, **more),
                [o for s in stores for o in s.objects()], netns)


def info(node):
    return node.command('query-vdisks')[0]['pvs']


@contextlib.contextmanager
def two_places(image, server=nbd.StorageDaemon):
    """The first one, with that server, is quicker, so it is read from."""
    try:
        network = Network(2)
        network.__enter__()
    except Missing as e:
        print(f'# without faults of the wire: {e}', flush=True)
        network = None
    try:
        wires = network.wires if network else (None, None)
        with faults.Place(image, wires[0], server) as quick, \
                faults.Place(image, wires[1], delay=5) as slow:
            yield quick, slow, network and network.client
    finally:
        if network:
            network.__exit__()


def kinds(netns):
    return tuple({**faults.STREAM, **(faults.WIRE if netns else {})})


def failures(readers, runner, seed):
    """For the report: the reads that took longest, and what was going on."""
    lines = [f'seed {seed}: {readers.summary()}']
    for begin, seconds, offset, length in sorted(
            readers.reads, key=lambda r: -r[1])[:5]:
        lines.append(f'{offset}+{length}: {1000 * seconds:.0f} ms during '
                     f'{runner.during(begin, seconds)}')
    lines += [f'wrong: {w} during {runner.during(w[0])}'
              for w in readers.wrong[:5]]
    lines += [f'error: {e} during {runner.during(e[0])}'
              for e in readers.errors[:5]]
    return '\n'.join(lines)


def run_faults(node, image, places, schedule):
    runner = faults.Run(places, schedule)
    with Readers(node.path, image) as readers:
        time.sleep(1)
        runner.run(lambda: not readers.wrong)
        time.sleep(PEACE + 0.5)
        ended = readers.stop(10)
    return runner, readers, ended


def second_store(image, count, seed, server=nbd.StorageDaemon, chosen=()):
    """Whatever happens to the first store, the second one has the answer.
    chosen: the kinds of faults, if not all of a link."""
    with two_places(image, server) as (quick, slow, netns):
        # longer than a read may take, and time to come back to it
        schedule = faults.schedule(seed, count, 1, chosen or kinds(netns),
                                   longest=LONGEST + 2, pause=0.8)
        with node_of(image, quick, slow, netns=netns,
                     **(verity(image) if chosen else {})) as node:
            # it connects before it is asked for anything
            until(lambda: info(node)['stores'][0]['state'] == 'up', 20,
                  'the first store')
            before = info(node)['stores'][0]['errors']
            runner, readers, ended = run_faults(node, image, [quick], schedule)
            stores = info(node)['stores'][:2]
            told = told_of(node, 0)
    used = [s['reads'] for s in stores]
    met = stores[0]['errors'] - before
    print(f'# {readers.summary()}; answers of each: {used}, {met} errors; '
          f'goals: max {1000 * LONGEST:.0f}, p99.9 {1000 * USUALLY:.0f} ms',
          flush=True)
    good = (ended and not readers.wrong and not readers.errors and
            readers.longest() <= LONGEST and
            readers.percentile(0.999) <= USUALLY and min(used) > 0 and
            met > 0 and (chosen or {'suspect', 'up'} <= {*told}) and
            all(a != b for a, b in zip(told, told[1:])))
    return None if good else \
        f'{failures(readers, runner, seed)}\n{used}, {met}\n{told[-20:]}'


def told_of(node, store):
    """What the events say of its health, one after the other."""
    return [e['data']['state'] for e in node.events('VDISK_STORE')
            if e['data']['store'] == store]


def resumed(readers, runner):
    """How long reads took from the end of the last fault before they were
    answered, the longest first. What began before a long peace, and was not
    answered in it, counts from the beginning of that."""
    ends = [end for _, end, _ in runner.log]
    peaces = [end for (_, end, _), (begin, *_) in zip(
        runner.log, [*runner.log[1:], (math.inf,)]) if begin - end > PEACE]
    late = []
    for begin, seconds, offset, length in readers.reads:
        answered = begin + seconds
        since = max([begin] + [e for e in ends if begin < e < answered])
        busy = any(b < answered < e for b, e, _ in runner.log)
        missed = [e for e in peaces if begin < e and answered > e + RESUMED]
        if missed or not busy:
            since = missed[0] if missed else since
            late.append((round(answered - since, 3), offset, length,
                         runner.during(begin, seconds)[-2:]))
    return sorted(late, key=lambda r: -r[0])


def only_store(image, count, seed, *chosen):
    """Reads wait while it is away, or has errors only, and go on when it is
    back: no errors. chosen: the kinds of faults, if not all of a link."""
    server = nbd.Failing if chosen else nbd.StorageDaemon
    with two_places(image, server) as (quick, _, netns):
        schedule = faults.schedule(seed, count, 1, chosen or kinds(netns),
                                   pause=0.8, peace=PEACE + 0.5)
        with node_of(image, quick, netns=netns,
                     **{'outage-action': 'wait'}) as node:
            runner, readers, ended = run_faults(node, image, [quick], schedule)
    late = resumed(readers, runner)
    print(f'# {readers.summary()}; resumed after {1000 * late[0][0]:.0f} ms '
          f'at most, goal: {1000 * RESUMED:.0f}', flush=True)
    if ended and not readers.wrong and not readers.errors and \
            late[0][0] <= RESUMED:
        return None
    return f'{failures(readers, runner, seed)}\n{late[:10]}'


def many_connections(image):
    """Each of them has broken, which nobody saw: it does not take one probe
    after the other to be told."""
    slow = []
    with nbd.StorageDaemon(image) as store, \
            Link(store, ('127.0.0.1', free_port())) as link, \
            node_of(image, link, connections=CONNECTIONS) as node:
        connection = Connection(node.path)
        for at in range(0, 3 * MIB, MIB):
            with Readers(node.path, image, 2 * CONNECTIONS, 0):
                until(lambda: link.count()[0] == CONNECTIONS, 30, 'all are up')
            link.cut()
            begin = time.monotonic()
            connection.read(at, 4096)
            slow.append(time.monotonic() - begin)
        connection.close()
    return None if sorted(slow)[1] < 2 * RESUMED else f'resumed after {slow} s'


def both_stores(image, count, seed):
    """Faults of both in turn: content is all that is promised."""
    with two_places(image) as (quick, slow, netns):
        schedule = faults.schedule(seed, count, 2, kinds(netns), longest=3)
        with node_of(image, quick, slow, netns=netns, **verity(image)) as node:
            runner, readers, ended = run_faults(node, image, [quick, slow],
                                                schedule)
    print(f'# {readers.summary()}', flush=True)
    good = ended and not readers.wrong and not readers.errors
    return None if good else failures(readers, runner, seed)


class Faulty(damage.WithStore):
    """A store that is there, and from fail() to good() answers all with errors,
    or next time all reads with what was not sealed."""

    def __init__(self, image):
        super().__init__(nbd.StorageDaemon(image), 1.0,
                         ('flip', 'zero', 'swap'))
        self.errors = self.failing = False

    def choose(self, length):
        if not self.failing:
            return None
        if self.errors:
            return 'error'
        return super().choose(length) if length > PROBE else None

    def fail(self):
        self.errors = not self.errors
        self.failing = True

    def good(self):
        self.failing = False


class Liar(damage.Damage):
    """Not to probes: nobody believes what they read, but one that is too short
    makes a store suspect. What was asked of it is then asked elsewhere, and
    nobody looks at its answer any more, so a lie in it cannot be found."""

    def __init__(self, store, other, seed):
        super().__init__(store, 0.3, LIES, other, seed,
                         tcp=('127.0.0.1', free_port()))

    def choose(self, length):
        return super().choose(length) if length > PROBE else None


def damaged(folder, count, seed):
    """Both stores lie: each lie is found, named, thrown away and asked anew,
    and what is cached is right. Each round begins with an empty cache."""
    image, other = (images.make(folder, name, LARGE)
                    for name in ('large', 'large-other'))
    pinned = verity(image)
    kinds, found, rounds = collections.Counter(), 0, 0
    while sum(kinds.values()) < count:
        rounds += 1
        why, told, corrupt = lied_to(image, other, pinned,
                                     f'{seed}/{rounds}')
        kinds += told
        found += corrupt
        if why:
            return f'seed {seed}, round {rounds}: {why}'
    print(f'# {rounds} rounds: {sum(kinds.values())} damaged answers '
          f'{dict(kinds)}, {found} found and asked anew; none was cached',
          flush=True)
    return None


def lied_to(image, other, pinned, seed):
    """Why it is wrong, the lies of each kind, and how many were found."""
    # no answer is dropped for another store's: no hedge, no timeout
    patient = {'hedge-after': 60000, 'request-timeout': 120000}
    with cache_options() as cache, nbd.StorageDaemon(image) as one, \
            nbd.Nbdkit(image) as two, Liar(one, other, seed) as bad, \
            Liar(two, other, f'{seed}+') as worse, \
            node_of(image, bad, worse, **pinned, **cache, **patient) as node:
        wrong = visit(node, image, random.Random(seed))
        until(lambda: cached(node) == LARGE, 30, 'all of it is cached')
        now = info(node)
        events = node.events('VDISK_CORRUPT')
        told = bad.count + worse.count
        one.stop()
        two.stop()
        shown = everything(node) == image.read_bytes()
    names = {s['name'] for s in now['stores'] if not s['tree']}
    blamed = {e['data']['store'] for e in events}
    errors = sum(s['errors'] for s in now['stores'])
    # QEMU's client finds by itself what is short, and tells no more than that
    found = now['corrupt'] + told['short']
    # a block is told of once, though a store may have it wrong twice
    tellings = {(e['data']['store'], e['data']['offset']) for e in events}
    good = not wrong and shown and blamed == names and \
        0.8 * now['corrupt'] < len(events) == len(tellings) and \
        now['corrupt'] >= len(events) and found == sum(told.values()) <= errors
    why = f'{wrong[:3]}; content is {shown}; {dict(told)} lies, ' \
        f'{now["corrupt"]} found by the tree, {len(events)} told of {blamed}, ' \
        f'{errors} errors'
    return None if good else why, told, found


def visit(node, image, rng, threads=32):
    """Read each granule once, in any order; those that are wrong."""
    data = image.read_bytes()
    places = list(range(0, len(data), 4096))
    rng.shuffle(places)

    def work(mine):
        with contextlib.closing(Connection(node.path, timeout=60)) as c:
            return [at for at in mine if c.read(at, 4096) !=
                    data[at:at + 4096]]

    with futures.ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, (places[n::threads]
                                   for n in range(threads))), [])


def never_cached(folder, seed):
    """What a liar said is not in the cache: with no store left, all of it reads
    as it should. And each block was fetched once, however many asked."""
    image, other = (images.make(folder, name, LARGE)
                    for name in ('large', 'large-other'))
    # on a Unix socket, so that it is preferred
    with cache_options() as cache, \
            nbd.StorageDaemon(image, tcp=True) as store, \
            damage.Damage(store, 0.3, LIES, other, seed) as bad, \
            node_of(image, bad, store, **verity(image), **cache) as node:
        with Readers(node.path, image, 16, 0) as readers:
            until(lambda: cached(node) == LARGE, 60, 'all read')
            readers.stop()
        fetched = sum(s['bytes'] for s in info(node)['stores']
                      if not s['tree'])
        store.stop()
        shown = everything(node) == image.read_bytes()
        count = dict(bad.count)
    said = f'seed {seed}: {count}, {fetched} bytes; {readers.summary()}'
    print(f'# {said}', flush=True)
    lies = sum(count.values())
    good = shown and not readers.wrong and not readers.errors and \
        lies > 5 and fetched <= 1.05 * LARGE
    return None if good else said


@contextlib.contextmanager
def cache_options():
    with tempfile.TemporaryDirectory(dir=MEMORY) as maps:
        yield {'host-cache': f'{maps}/cache', 'host-cache-map': f'{maps}/map'}


def cached(node):
    return info(node)['budget']['local-bytes']


def everything(node):
    connection = Connection(node.path)
    data = b''.join(connection.read(at, MIB)
                    for at in range(0, connection.size, MIB))
    connection.close()
    return data


def relayed(image, store):
    """A relay in front of it, with a tree: every byte, in one go."""
    with store, node_of(image, store, netns=store.netns,
                        **verity(image)) as node:
        data = everything(node)
        reads = info(node)['stores'][0]['reads']
    return None if data == image.read_bytes() and reads else 'content differs'


def far_stores(image, args):
    yield 'TLS with a pre-shared key', nbd.StorageDaemon(image, True, True)
    yield 'HTTPS', far.Nginx(image)
    yield 'iSCSI', far.Tgt(image)
    yield 'NFS', far.Ganesha(image)
    if args.long:
        yield 'Ceph', ceph.Ceph(image)


def tests(folder, args):
    try:
        supported()
    except Missing as e:
        yield 'pvs', missing, e
        return
    image = images.make(folder, 'image')
    seed, long = args.seed, args.long
    for name, store in far_stores(image, args):
        yield f'pvs: a relay in front of {name}', relayed, image, store
    count = args.count or FAULTS['two'][long]
    yield (f'pvs: two stores, {count} faults of one', second_store, image,
           count, seed)
    count = args.count or FAULTS['answers'][long]
    yield (f'pvs: two stores, {count} times errors or lies of one',
           second_store, image, count, seed, Faulty, (*faults.SERVER,))
    count = args.count or FAULTS['one'][long]
    yield f'pvs: one store, {count} faults', only_store, image, count, seed
    count = args.count or FAULTS['errors'][long]
    yield (f'pvs: one store, {count} times errors', only_store, image, count,
           seed, *faults.SERVER)
    yield 'pvs: all connections of a store broke', many_connections, image
    if long:
        yield 'pvs: 1000 faults of two', both_stores, image, 1000, seed
    yield (f'pvs: {DAMAGES[long]} damaged answers', damaged, folder,
           DAMAGES[long], seed)
    yield 'pvs: no lie is cached', never_cached, folder, seed


def missing(why):
    raise why

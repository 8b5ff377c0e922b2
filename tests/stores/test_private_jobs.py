# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs of a private vDisk, a buffer that is full, and what it tells."""

import re
import struct
import threading
import time

from .link import Link
from .nbd import server_options
from .node import GuestError, Node
from .process import program, run, until
from .test_private import SECTOR, SIZE, InQemu, stamped
from .test_private_input import MIB, Desk, Wrong, connect, lag, says, state, \
    write

DATA = stamped(1, 0) * 8    # of one granule
# Bytes to a store for a connection, its label, and a few requests
PROTOCOL = 2048


def job(node, name, seconds=30, **arguments):
    """To its end; its error, or None."""
    node.command(name, **{'node-name': 'disk', 'job-id': 'j', **arguments})
    return job_end(node, seconds)


def job_end(node, seconds=30):
    end = node.qmp.wait_event('BLOCK_JOB_COMPLETED', seconds, device='j')
    return end['data'].get('error')


def fails(node, name, *wanted, **arguments):
    try:
        node.command(name, **{'node-name': 'disk', **arguments})
    except GuestError as e:
        says(str(e), *wanted)
    else:
        raise Wrong(f'{name} is taken')


def windows():
    with Desk() as d:
        d.start()
        node = d.open()
        until(lambda: state(node)['state'] == 'up', 10, 'it is up')
        fails(node, 'vdisk-window-close', "No update window of 'disk' is open")
        fails(node, 'vdisk-window-open', 'can hold', 'reserve less', 'larger',
              reserve=1 << 40)
        fails(node, 'vdisk-window-open', 'can hold', reserve=0)
        if error := job(node, 'vdisk-window-open', reserve=8 * MIB):
            return error
        now = node.pvs()
        if not now['buffer']['window'] or now['buffer']['reserve'] != 8 * MIB \
                or now['budget']['local-bytes'] != SIZE:
            return f'the window is not open: {now}'
        fails(node, 'vdisk-window-open', 'is open already')
        d.store.kill()
        conn = connect(node)
        for at in range(0, SIZE, 4096):     # all local: read, and written
            conn.read(at, 4096)
            conn.write(at, DATA)
        conn.flush()
        conn.close()
        node.command('vdisk-window-close', **{'node-name': 'disk',
                                              'job-id': 'j'})
        fails(node, 'vdisk-window-close', "The job 'j' works on", 'cancel it',
              **{'job-id': 'k'})
        time.sleep(1)
        progress = node.command('query-jobs')[0]
        if not node.pvs()['buffer']['window'] or \
                progress['status'] != 'running' or \
                progress['total-progress'] < SIZE:
            return f'with the store away it does not stay open: {progress}'
        # It is the same after a crash
        node.popen.kill()
        node.popen.wait()
        node = d.open()
        if not node.pvs()['buffer']['window']:
            return 'the window does not survive a crash'
        node.command('vdisk-window-close', **{'node-name': 'disk',
                                              'job-id': 'j'})
        d.store.start()
        if error := job_end(node):
            return error
        if node.pvs()['buffer']['window'] or lag(node):
            return 'it is not closed'
        fails(node, 'vdisk-window-close', "No update window of 'disk' is open")
        return None if d.store.image.read_bytes()[:SIZE] == \
            DATA * (SIZE // len(DATA)) else 'the store has something else'


def window_bad_copy():
    """The store is there and the local copy cannot be written: that is the end
    of the job, not something to wait for."""
    with Desk() as d:
        d.start()
        d.open().end()              # once, so that copy and buffer are a pair
        node = d.node()
        node.options['file'] = {
            'driver': 'blkdebug', 'image': node.options['file'],
            'inject-error': [{'event': 'none', 'iotype': 'write', 'errno': 5}]}
        node.__enter__()
        until(lambda: state(node)['state'] == 'up', 10, 'it is up')
        error = job(node, 'vdisk-window-open', 10, reserve=MIB) or 'none'
        says(error, f'0 bytes of {SIZE} are', 'its local copy cannot be written',
             'Input/output error')
        return 'the window is open' if node.pvs()['buffer']['window'] else None


def largest(node):
    """The most that a window can reserve."""
    try:
        node.command('vdisk-window-open', **{'node-name': 'disk',
                                             'reserve': 1 << 40})
    except GuestError as e:
        return int(re.search(r'can hold (\d+) bytes', str(e))[1])
    raise Wrong('there is no limit')


def whole_reserve(before):
    """All that was reserved is written in the least requests, each of them
    flushed, and none waits for the store. The ring's end is passed where
    @before writes have moved it."""
    with Desk() as d:
        d.start()
        node = d.open(buffer=2 * MIB)
        until(lambda: state(node)['state'] == 'up', 10, 'it is up')
        conn = connect(node)
        for n in range(before):
            conn.write(n * 4096, DATA)
            conn.flush()
        node.drain()
        reserve = largest(node)
        if error := job(node, 'vdisk-window-open', reserve=reserve):
            return error
        d.store.kill()
        for n in range(reserve // 4096):
            try:
                conn.write(n * 4096, DATA)
                conn.flush()
            except OSError as e:
                return f'after {n * 4096} of {reserve} bytes: {e}'
        conn.close()
        return None if reserve == 2 * MIB * 5 // 16 else f'only {reserve}'


def drain_job():
    with Desk() as d:
        node = d.open()
        conn = connect(node)
        for at in range(0, SIZE, 4096):
            conn.write(at, DATA)
        node.command('vdisk-drain', **{'node-name': 'disk', 'job-id': 'j'})
        fails(node, 'vdisk-drain', "The job 'j' works on 'disk' already")
        began = node.command('query-jobs')[0]
        conn.write(0, DATA)             # is not waited for
        d.start()
        if error := job_end(node):
            return error
        conn.close()
        return None if began['current-progress'] == 0 and \
            began['total-progress'] == SIZE else f'its progress: {began}'


def standard_again():
    with Desk() as d:
        node = d.open()
        write(node)
        node.__exit__()
        standard = {'mode': 'standard', 'read-only': True}
        options = {k: v for k, v in node.options.items() if k != 'file'}
        stores = [{'driver': 'file', 'filename': str(d.store.image)}]

        def refused(*wanted):
            other = Node({**options, **standard, 'stores': stores})
            try:
                other.__enter__()
            except GuestError as e:
                says(str(e), *wanted)
            else:
                other.__exit__()
                raise Wrong('a version that is not complete is served')

        refused(f'{SECTOR} bytes are in the reconnect buffer only',
                'mode=private', 'vdisk-drain')
        d.start()
        node = d.open()
        if error := job(node, 'vdisk-window-open', reserve=MIB):
            return error
        node.drain()
        node.end()
        refused('an update window is open', 'vdisk-window-close')
        node = d.open()
        if error := job(node, 'vdisk-window-close'):
            return error
        node.end()
        d.store.kill()
        with Node({**options, **standard, 'stores': stores}) as other:
            conn = connect(other)
            held = conn.read(0, SECTOR)
            conn.close()
        label = d.store.image.read_bytes()[SIZE:]
        if struct.unpack_from('<I', label, 20)[0] != 2:
            return 'its label does not say that it has everything'
        return None if held == stamped(1, 0) else 'it has something else'


def full():
    """Writes wait, and go on within a second of the first epoch that is
    freed; nothing is dropped; 50, 80 and 95 % are told."""
    with Desk() as d:
        node = d.node()
        run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
            'role=journal,vdisk=disk,version=1', node.files[1], 2 * MIB)
        node.__enter__()
        conn, ends = connect(node, 60), []

        def writer():
            for n in range(SIZE // 4096):
                conn.write(n * 4096, stamped(n, 0) * 8)
                ends.append(time.monotonic())
            conn.flush()

        thread = threading.Thread(target=writer)
        thread.start()
        for level in (50, 80, 95):
            node.qmp.wait_event('VDISK_BUFFER', 30, level=level)
        until(lambda: ends and time.monotonic() - ends[-1] > 1, 30, 'it waits')
        done = len(ends)
        d.start()
        until(lambda: node.pvs()['buffer']['epochs-shipped'], 30, 'one is freed',
              0.005)
        freed = time.monotonic()
        until(lambda: len(ends) > done, 10, 'it goes on', 0.005)
        thread.join()
        late = ends[done] - freed
        node.qmp.wait_event('VDISK_BUFFER', 30, level=0)
        node.drain()
        conn.close()
        held = d.store.image.read_bytes()
        if any(held[n * 4096:(n + 1) * 4096] != stamped(n, 0) * 8
               for n in range(SIZE // 4096)):
            return 'something was dropped'
        return None if late < 1 else f'it goes on {late:.1f} s later'


class Writer(threading.Thread):
    """Writes, and does not flush, until it is stopped."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.conn = connect(node)
        self.ending = threading.Event()

    def run(self):
        while not self.ending.wait(0.0005):
            self.conn.write(MIB, DATA)

    def stop(self):
        self.ending.set()
        self.join()
        self.conn.close()


def catches_up(writes=False):
    """A guest that flushes faster than the link takes it, and one that never
    stops to write either, does not keep the store behind for ever after an
    outage."""
    with Desk() as d:
        d.start()
        with Link(d.store) as link:
            link.set(delay=10)
            d.store, store = link, d.store
            node = d.open(durability='store')
            d.store = store
            until(lambda: node.pvs()['buffer']['store-durable'], 20, 'it is up')
            conn = connect(node)
            link.set(refuse=1)
            link.cut()
            for _ in range(100):        # nobody waits for the store
                conn.write(0, DATA)
                conn.flush()
            behind = node.pvs()['buffer']
            if writes:
                writer = Writer(node)
                writer.start()
            link.set(refuse=0)
            until(lambda: state(node)['state'] == 'up', 20, 'it is up again')
            now = node.pvs()['buffer']
            if now['lag-bytes'] and now['store-durable']:
                return f'the store is said to have all: {now}'
            end, number = time.monotonic() + 60, 1
            while time.monotonic() < end and \
                    not node.pvs()['buffer']['store-durable']:
                number += 1
                conn.write(0, stamped(number, 0) * 8)
                conn.flush()
            with open(d.store.image, 'rb') as f:
                held = f.read(4096)
            caught = node.pvs()['buffer']
            if writes:
                writer.stop()
            conn.close()
    if caught['store-durable'] and held != stamped(number, 0) * 8:
        return 'it is told that the store has all that was flushed, too early'
    # What was left to ship, and as much again: it is no lucky moment
    shipped = caught['epochs-shipped'] - behind['epochs-shipped']
    return None if caught['store-durable'] and behind['lag-bytes'] > MIB // 4 \
        and not behind['store-durable'] and shipped < 400 \
        else f'{behind} {caught}'


def store_durability():
    """A flush waits for the store, and for nothing once that is gone."""
    with Desk() as d:
        d.start()
        node = d.open(durability='store')
        until(lambda: state(node)['state'] == 'up', 10, 'it is up')
        time.sleep(0.5)             # nothing is left to ship: from now on
        for n in range(50):
            write(node, n + 1, n)
            if d.store.image.read_bytes()[n * SECTOR:(n + 1) * SECTOR] != \
                    stamped(n + 1, n):
                return f'flush {n} ended before the store had it'
        d.store.kill()
        begin = time.monotonic()
        write(node, 99)
        took = time.monotonic() - begin
        node.qmp.wait_event('VDISK_STORE', 10, state='down')
        node.qmp.wait_event('VDISK_OUTAGE', 10, active=True)
        d.store.start()
        node.drain()
        node.qmp.wait_event('VDISK_OUTAGE', 10, active=False)
        return None if took < 5 else f'a flush took {took:.1f} s'


def slow_link():
    """A lag that grows although the store is there is told."""
    with Desk() as d:
        d.start()
        with Link(d.store, rate=40000) as link:
            node = d.open(stores=[{'driver': 'nbd', 'export': 'disk', 'server':
                                   server_options(link.address)}],
                          **{'request-timeout': 20000})
            until(lambda: state(node)['state'] == 'up', 10, 'it is up')
            conn = connect(node)
            end = time.monotonic() + 40
            told = []
            while not told and time.monotonic() < end:
                for n in range(16):
                    conn.write((n + 16 * len(told)) * 4096, DATA)
                    conn.flush()
                time.sleep(0.2)
                told = [e for e in node.events('VDISK_BUFFER')
                        if 'stuck' in e['data']]
            if not told:
                return 'nothing is told'
            says(told[0]['data']['stuck'], 'slower than the guest writes')
            link.set(rate=0)
            node.drain()
            conn.close()
            node.qmp.wait_event('VDISK_BUFFER', 30, lag=0)
            return node.pvs()['buffer'].get('stuck')


def lets_read(rate, reads, at_first):
    """While a link is full of what is shipped, a read of the store has no more
    than two pieces before it, of the seven of each epoch. On a link that takes
    these in a quarter of a second that is so for all but the first ones: for so
    many, of 10."""
    piece = MIB / 2 / rate          # seconds
    with Desk() as d:
        d.start()
        with Link(d.store, rate=rate) as link:
            node = d.open(stores=[{'driver': 'nbd', 'export': 'disk', 'server':
                                   server_options(link.address)}],
                          **{'request-timeout': 20000})
            until(lambda: state(node)['state'] == 'up', 10, 'it is up')
            conn = connect(node)
            epoch(conn, MIB)                # by which the link is known
            node.drain()
            for _ in range(4):
                epoch(conn, 7 * MIB // 2)
            took = []
            for n in range(reads):
                begin = time.monotonic()
                conn.read(SIZE - (n + 1) * 8192, 4096)
                took.append(time.monotonic() - begin)
                time.sleep(0.005)       # it thinks
            behind = lag(node)
            conn.close()
    print(f'# reads took {", ".join(f"{t / piece:.1f}" for t in took)} pieces; '
          f'{behind} bytes were left to ship', flush=True)
    if not behind:
        return 'all was shipped before it was read'
    took.sort()
    return None if took[reads * at_first // 10 - 1] < 2.5 * piece else \
        f'{took} s'


def epoch(conn, size):
    for at in range(0, size, MIB // 2):
        conn.write(at, DATA * (MIB // 2 // 4096))
    conn.flush()


def sent_in_the_end(d, store, sent=None):
    """An epoch for which request-timeout is too short by far: it is sent all
    the same. A flush that takes too long again and again is told."""
    node = d.open(stores=[{'driver': 'nbd', 'export': 'disk',
                           'server': server_options(store.address)}])
    until(lambda: state(node)['state'] == 'up', 10, 'it is up')
    before = sent() if sent else 0
    conn = connect(node)
    for at in range(0, SIZE, MIB):
        conn.write(at, DATA * (MIB // 4096))
    conn.flush()
    conn.close()
    node.drain()
    told = [e['data']['stuck'] for e in node.events('VDISK_BUFFER')
            if 'stuck' in e['data']]
    if not told and not sent:
        return 'nothing is told'
    if told:
        says(told[0], 'again and again')
    if sent and sent() - before > 4 * SIZE:
        return f'{sent() - before} bytes were sent for {SIZE}'
    if d.store.image.read_bytes()[:SIZE] != DATA * (SIZE // 4096):
        return 'the store has something else'
    return node.pvs()['buffer'].get('stuck')


def rewrites(conn):
    """A block again and again, and ranges of which each goes over half of the
    one before; what there is in the end, from the first byte on."""
    held = bytearray(MIB // 4)
    for n in range(200):
        at, size = (0, 4096) if n % 2 else (4096 + n * 1024, 4096)
        held[at:at + size] = stamped(n + 1, at)[:SECTOR] * (size // SECTOR)
        conn.write(at, bytes(held[at:at + size]))
    for _ in range(100):
        conn.write(0, bytes(held[:4096]))
    conn.flush()
    return bytes(held)


def newest_only():
    """What is written often while the store is away goes there once."""
    with Desk() as d:
        d.start()
        with Link(d.store) as link:
            node = d.open(stores=[{'driver': 'nbd', 'export': 'disk', 'server':
                                   server_options(link.address)}])
            until(lambda: state(node)['state'] == 'up', 10, 'it is up')
            link.set(refuse=1)
            link.cut()
            conn = connect(node)
            wanted = rewrites(conn)
            conn.close()
            union = sum(SECTOR for at in range(0, len(wanted), SECTOR)
                        if any(wanted[at:at + SECTOR]))
            until(lambda: state(node)['state'] == 'down', 10, 'it is away')
            behind, before = lag(node), link.count()[2]
            link.set(refuse=0)
            node.drain()
            sent = link.count()[2] - before
            held = d.store.image.read_bytes()[:len(wanted)]
    print(f'# {behind} bytes were written, {union} of the vDisk, and {sent} '
          'were sent', flush=True)
    if held != wanted:
        return 'the store has something else'
    return None if sent <= union + PROTOCOL else 'some of it was sent twice'


def slow_epoch():
    """What is sent at once takes the link longer than request-timeout."""
    with Desk() as d:
        d.start()
        with Link(d.store, rate=SIZE // 4) as link:
            return sent_in_the_end(d, link, lambda: link.count()[2])


def slow_flush():
    """The store's disk takes longer than that for an epoch."""
    with Desk() as d:
        d.store.volatile, d.store.rate = True, SIZE // 4
        d.start()
        return sent_in_the_end(d, d.store)


def mute_at_the_end():
    """A store that says nothing any more does not keep QEMU from its end, how
    slow it may be otherwise."""
    with Desk() as d:
        d.start()
        node = d.open(**{'request-timeout': 60000})
        write(node)
        node.drain()
        d.store.freeze()
        begin = time.monotonic()
        try:
            node.end()
        finally:
            d.store.thaw()
        took = time.monotonic() - begin
        return None if took < 15 else f'it takes {took:.1f} s'


def migration():
    with Desk() as d:
        node = InQemu(d.dir, d.store)
        d.nodes.append(node)
        node.__enter__()
        write(node)
        fails_plain(node, 'migrate', 'has writes that its store does not have',
                    "'vdisk-drain'", uri=f'file:{d.dir}/state')
        d.start()
        node.drain()
        node.command('block-export-del', id='e', mode='hard')
        node.command('migrate', uri=f'file:{d.dir}/state')
        until(lambda: node.command('query-migrate').get('status') in
              ('completed', 'failed'), 30, 'it is saved')
        now = node.command('query-migrate')
        return None if now['status'] == 'completed' else f'not saved: {now}'


def migration_late():
    """The guest writes when the migration is all but done: that it failed for
    that is told where one looks for it."""
    with Desk() as d:
        d.start()
        node = InQemu(d.dir, d.store)
        d.nodes.append(node)
        node.__enter__()
        write(node)
        node.drain()

        def status(wanted):
            until(lambda: node.command('query-migrate').get('status') == wanted,
                  30, wanted)

        node.command('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])
        until(lambda: not node.command('query-migrate').get('blocked-reasons'),
              10, 'nothing blocks it')
        node.command('migrate', uri=f'file:{d.dir}/state')
        status('pre-switchover')
        d.store.kill()
        write(node, 2)
        node.command('migrate-continue', state='pre-switchover')
        status('failed')
        says(node.command('query-migrate').get('error-desc', 'nothing'),
             "The private disk 'disk'", f'has {SECTOR} bytes that its store does '
             'not have', "'vdisk-drain'")


def fails_plain(node, name, *wanted, **arguments):
    try:
        node.command(name, **arguments)
    except GuestError as e:
        says(str(e), *wanted)
    else:
        raise Wrong(f'{name} is taken')


def tests(_, _args):
    for text, test, *rest in (
            ('update windows, with the store away, and after a crash', windows),
            ('an update window, with a local copy that is broken',
             window_bad_copy),
            ('all of an update window in small flushed writes', whole_reserve,
             0),
            ('the same, round the end of the buffer', whole_reserve, 97),
            ('a drain as a job', drain_job),
            ('back to standard image mode', standard_again),
            ('a full buffer', full),
            ('durability=store', store_durability),
            ('durability=store, and a guest that is fast', catches_up),
            ('a guest that reads while a slow link ships', lets_read, 2 * MIB,
             8, 10),
            ('a guest that reads while a fast link ships', lets_read, 14 * MIB,
             12, 8),
            ('durability=store, and a guest that never rests', catches_up,
             True),
            ('what is written again and again', newest_only),
            ('a link that is too slow', slow_link),
            ('a link too slow for what is sent at once', slow_epoch),
            ('a store that is too slow for a flush', slow_flush),
            ('a store that is mute at the end', mute_at_the_end),
            ('migration', migration),
            ('a migration that comes to nothing', migration_late)):
        yield f'private, {text}', test, *rest

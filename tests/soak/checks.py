# SPDX-License-Identifier: GPL-2.0-or-later
"""What is looked at all the time, whatever the desktops do."""

import collections
import re
import statistics
import threading

from serve.test_relay import used
from store.env import strangers
from guest import event_time            # node has told Python where

from .desk import AFTER
from .findings import begun, files_of, status_of
from .machine import QMP_LOST
from .updates import digest

EVERY = 1.0                 # second
# Samples of a process that say something of its growth
ENOUGH = 24
# What the last third of them may have more than the first one
SHARE, RSS, FILES, THREADS = 1.25, 24 << 10, 24, 40
# KiB: the memory of a real guest, and of what translates its code
GUEST = 640 << 10


class Sample:
    """Of one process: memory in KiB, files, threads, as they were. room: what a
    guest has for its own, which it touches bit by bit"""

    def __init__(self, name, room=0):
        self.name, self.room = name, room
        self.taken = []

    def take(self, pid):
        rss, threads = status_of(pid, 'VmRSS', 'Threads')
        self.taken.append((rss, files_of(pid), threads))

    def thirds(self):
        """Medians of the first third and of the last"""
        third = len(self.taken) // 3
        for column in zip(*self.taken):
            yield (statistics.median(column[:third]),
                   statistics.median(column[-third:]))

    def grows(self):
        """What is wrong with it, or None"""
        if len(self.taken) < ENOUGH:
            return None
        memory, files, threads = self.thirds()
        if memory[1] > memory[0] * SHARE + RSS + self.room:
            return f'{memory[0]} KiB of memory became {memory[1]}'
        if files[1] > files[0] + FILES:
            return f'{files[0]} open files became {files[1]}'
        if threads[1] > threads[0] + THREADS:
            return f'{threads[0]} threads became {threads[1]}'
        return None


class Checker(threading.Thread):
    """findings.find() is told of whatever does not hold."""

    def __init__(self, world):
        super().__init__(daemon=True, name='checker')
        self.world, self.findings = world, world.findings
        self.samples = {}               # pid, when it began -> Sample
        self.counters = {}
        self.resets = collections.Counter()
        self.turn = 0

    def run(self):
        try:
            while not self.findings.over.wait(EVERY):
                if self.world.closing.is_set():
                    continue
                self.all()
        except Exception as e:          # pylint: disable=broad-except
            self.findings.find('checker', f'{type(e).__name__}: {e}')

    def all(self):
        for desk in self.world.everybody:
            self.look(desk)
        self.turn += 1
        self.one_image()
        self.caches()
        if self.turn % 3 == 0:
            self.take_samples()
            self.servers()

    # A desktop

    def look(self, desk):
        m = desk.machine
        if not m or not m.lock.acquire(timeout=5):
            return
        try:
            if m.alive:
                self.look_at(desk, m)
        except QMP_LOST as e:
            if m.popen.poll() is None:
                self.findings.find(desk.name, f'QMP is lost: {e}')
        finally:
            m.lock.release()

    def look_at(self, desk, m):
        status = m.ask('query-status', m.eye)['status']
        info = m.vdisk(m.eye)
        events, m.eye.log, m.eye.events = m.eye.log, [], []
        for event in events:
            self.judge(desk, event)
        if status == 'io-error' and not desk.excused(AFTER):
            self.findings.find(desk.name, 'it stands still, and nothing is '
                               'wrong with what it needs')
        self.rising(desk, m, info)
        ram = info.get('write-cache-ram')
        if ram and ram['memory'] > ram['size'] * 1.05:
            self.findings.find(desk.name, f'write-cache-ram: {ram}')

    def judge(self, desk, event):
        name, data = event['event'], event.get('data')
        if name == 'STOP' and not desk.stopped:
            self.findings.count('stops in outages')
            if not desk.excused_at(event_time(event), AFTER):
                self.findings.find(desk.name, 'STOP, which nobody commanded, '
                                   'and nothing is wrong with what it needs')
        elif name == 'BLOCK_IO_ERROR':
            if data['action'] != 'stop' or \
                    not desk.excused_at(event_time(event), AFTER):
                self.findings.find(desk.name, f'an I/O error: {data}')
        elif name == 'VDISK_RESET':
            self.resets[desk.name] += 1
        elif name == 'VDISK_CORRUPT':
            self.findings.find(desk.name, f'{name}: {data}')

    def rising(self, desk, m, info):
        """Resets of one process; what one opening of the version counts, from
        one reset to the next, which may open the same one anew."""
        pvs = info.get('pvs', {})
        now = {'corrupt': pvs.get('corrupt', 0)}
        for n, store in enumerate(pvs.get('stores', [])):
            now |= {f'{k} of store {n}': store[k]
                    for k in ('reads', 'bytes', 'errors')}
        for part, names in (('buffer', ('epochs-shipped', 'bytes-shipped')),
                            ('host-cache', ('hit-bytes', 'miss-bytes'))):
            now |= {k: pvs[part][k] for k in names if part in pvs}
        self.compare(desk, (m.popen.pid,), {'resets': info['resets']})
        self.compare(desk, (m.popen.pid, self.resets[m.name]), now)

    def compare(self, desk, key, now):
        before = self.counters.get((desk.name, len(key)))
        if before and before[0] == key:
            for k, value in now.items():
                if value < before[1].get(k, 0):
                    self.findings.find(desk.name, f'{k} was {before[1][k]} '
                                       f'and is {value}')
        self.counters[desk.name, len(key)] = key, now

    # All else

    def one_image(self):
        """The next one: nobody writes to what is sealed."""
        library = self.world.library
        if not library.admin.acquire(timeout=0.05):
            return
        try:
            version, want = list(library.hashes.items())[
                self.turn % len(library.hashes)]
            self.findings.count('images hashed')
            if digest(version.image) != want:
                self.findings.find(str(version), f'{version.image.name} is '
                                   'sealed, and was written to')
        finally:
            library.admin.release()

    def caches(self):
        relay = self.world.relay.server
        taken = used(relay.cache) if relay.cache.exists() else 0
        if taken > self.world.cache_limit:
            self.findings.find('relay', f'its caches take {taken} bytes of '
                               f'{self.world.cache_limit}')
        for desk in self.world.pooled:
            path = desk.folder / f'{desk.name}.{desk.kind[:3]}'
            taken = path.stat().st_blocks * 512 if path.exists() else 0
            if taken > self.world.size + (2 << 20):
                self.findings.find(desk.name, f'its layer takes {taken} bytes')

    def take_samples(self):
        for pid, name in list(self.world.processes()):
            try:
                key = pid, begun(pid)   # numbers are used again within the hour
                if key not in self.samples:
                    self.samples[key] = Sample(
                        name, GUEST if name.startswith('guest') else 0)
                self.samples[key].take(pid)
            except (OSError, KeyError, ValueError):
                pass                    # it has just ended

    def servers(self):
        for place in self.world.places:
            number = re.search(r'was killed by signal (?!9\b)(\d+)',
                               place.server.said()) \
                if hasattr(place.server, 'said') else None
            if number:
                self.findings.find(place.name, f'a daemon got signal '
                                   f'{number[1]}: {place.server.said()[-1000:]}')

    # At the end

    def growth(self):
        """Judged once all is over"""
        for sample in self.samples.values():
            why = sample.grows()
            if why:
                self.findings.find(sample.name, why)
        judged = [s for s in self.samples.values()
                  if len(s.taken) >= ENOUGH]
        return len(judged), len(self.samples)

    def leftovers(self):
        """Once all services have ended; one that was killed leaves its folder"""
        w, kills = self.world, sum(
            n for what, n in self.findings.counts.items()
            if what in ('fault kill', 'fault relay-kill', 'fault blackout'))
        left = [p.name for p in w.tmp.iterdir()]
        if len(left) > kills:
            self.findings.find('tmp', f'{kills} kills of services, and there '
                               f'is {left}')
        for store in (w.store, w.replica):
            there = strangers(store.path)
            if there:
                self.findings.find(store.path.name, f'nobody names {there}')

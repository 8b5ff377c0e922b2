# SPDX-License-Identifier: GPL-2.0-or-later
"""A desktop at work: a thread that writes and reads its disk at random, is
reset, stopped and killed, and compares all that it reads."""

import random
import threading
import time
import traceback

from .content import GRANULE, SECTOR, Content
from .machine import QMP_LOST, Machine
from .virtio import (DISCARD, FLUSH, LONGEST, READ, SLOTS, WRITE, ZEROES,
                     QtestError, Request)

PER = GRANULE // SECTOR
# Seconds that a request may take while nothing is wrong with what it needs
LATE = 20
# And after a fault until all is as it was
AFTER = 10
# After so many without an answer a user may lose patience
IMPATIENT = 0.5
REST = 0.2


class Over(Exception):
    """The soak has ended."""


class Impatient(Exception):
    """A request waits, and the user resets the desktop, or worse."""


class Desk(threading.Thread):
    """A subclass says how its disk is made, and what else is done with it.

    keeps   what was written, over a reset
    durable what was answered outlives the process, flushed or not
    """

    keeps = durable = False
    kind = 'none'

    def __init__(self, name, number, world, **how):
        super().__init__(daemon=True, name=name)
        self.number, self.world, self.how = number, world, how
        self.findings = world.findings
        self.rng = random.Random(f'{world.seed}/{name}')
        self.folder = world.desks
        self.machine = None
        self.content = None
        self.on = self.assigned = self.wanted = None
        self.refused = 0
        self.stopped = False        # by command; then STOP is as it should be
        self.window = 0.0           # since then it needs its own host only
        self.finished = False

    # What it is

    def make(self):
        """The files; returns BlockdevOptions of node disk0"""
        raise NotImplementedError

    def excused_at(self, _moment, _seconds):
        """Was anything wrong with what it needs, at that time or so many
        seconds before? By the clock on the wall."""
        return False

    def excused(self, seconds):
        return self.excused_at(time.time(), seconds)

    def actions(self):
        """What it does now and then, and how often in 10,000 steps"""
        return {self.reset: 40, self.stop_and_go: 20, self.push: 0,
                **({} if self.how.get('steady') else {self.kill: 25})}

    # Its life

    def run(self):
        try:
            self.begin()
            while not self.world.closing.is_set():
                self.step()
            self.end()
        except Over:
            pass
        except Exception as e:      # pylint: disable=broad-except
            if not self.findings.over.is_set():
                said = self.machine.said() if self.machine else ''
                why = '' if isinstance(e, QtestError) else \
                    traceback.format_exc()
                self.findings.find(self.name, f'{e!r} {why}{said}')
        self.finished = True
        # what it started ends with it, so it stays
        self.world.gone.wait()

    def begin(self):
        disk = self.make()
        self.content = Content(self.number, self.world.size, self.on)
        self.machine = Machine(self.name, self.folder, disk, self.world,
                               self.number % 2 == 0)
        self.machine.start()
        self.came_up()

    def step(self):
        if self.findings.over.is_set():
            raise Over
        try:
            self.one()
        except Impatient:
            self.findings.count('lost patience')
            if self.rng.random() < 0.5 or self.how.get('steady'):
                self.reset()
            else:
                self.kill()
        if self.wanted is not self.assigned:
            self.push()
        self.findings.ending.wait(self.rng.uniform(0, REST))

    def one(self):
        n = self.rng.randrange(10000)
        for action, often in self.actions().items():
            if n < often:
                action()
                return
            n -= often
        self.work()

    def end(self):
        """Everything, compared"""
        step = LONGEST // GRANULE * GRANULE
        total = self.content.sectors * SECTOR
        for at in range(0, total, step):
            self.do([Request(READ, at, min(step, total - at))], True)

    # Requests

    def place(self, sizes=(8, 8, 8, 8, 16, 64, 128)):
        """A range in sectors. A part of the disk is used more often."""
        count = self.rng.choice(sizes)
        top = self.content.sectors // (8 if self.rng.random() < 0.5 else 1)
        return self.rng.randrange((top - count) // PER + 1) * PER, count

    def request(self):
        kind = self.rng.choices((READ, WRITE, ZEROES, DISCARD),
                                (50, 42, 4, 4))[0]
        first, count = self.place()
        if kind != DISCARD and self.rng.random() < 0.2:
            first, count = first + self.rng.randrange(PER), \
                self.rng.randrange(1, 20)
            count = min(count, self.content.sectors - first)
        return kind, first, count

    def work(self):
        batch, taken = [], []
        for _ in range(self.rng.randint(1, SLOTS)):
            kind, first, count = self.request()
            if all(first + count <= a or b <= first for a, b in taken):
                taken.append((first, first + count))
                batch.append(self.prepared(kind, first, count))
        self.do(batch)
        if self.rng.random() < 0.25:
            self.flush()

    def prepared(self, kind, first, count):
        data = None
        if kind != READ:
            data = self.content.write(first, count, kind != WRITE)
        return Request(kind, first * SECTOR, count * SECTOR, data)

    def flush(self, patient=False):
        self.do([Request(FLUSH)], patient)
        self.content.flushed()

    def do(self, batch, patient=False):
        """To their end; compared, if they read"""
        self.machine.io.submit(batch)
        try:
            took = self.machine.io.wait(
                lambda seconds: self.meanwhile(seconds, patient))
        except Impatient:
            for r in batch:
                if r.kind not in (READ, FLUSH):
                    self.content.in_flight(r.offset // SECTOR,
                                           r.length // SECTOR)
            raise
        self.findings.waited(self.name, took)
        for r in batch:
            self.judge(r)

    def judge(self, r):
        if r.status:
            self.wrong(f'request {r.kind} at {r.offset}, {r.length} bytes, '
                       f'ended with status {r.status}')
        first, count = r.offset // SECTOR, r.length // SECTOR
        if r.kind == READ:
            self.findings.count('reads compared')
            self.findings.count('bytes compared', r.length)
            why = self.content.differs(first, r.data)
            if why:
                self.wrong(f'read {r.length} bytes at {r.offset}: {why}')
        elif r.kind != FLUSH:
            self.findings.count('writes')
            self.content.answered(first, count)
            if self.durable:
                self.content.kept(first, count)

    def wrong(self, text):
        self.findings.find(self.name, text)
        raise Over

    def meanwhile(self, seconds, patient):
        if self.findings.over.is_set():
            raise Over
        if self.machine.popen.poll() is not None:
            self.wrong(f'QEMU ended with {self.machine.popen.returncode}: '
                       f'{self.machine.said()}')
        if seconds > LATE and not self.excused(AFTER):
            away = self.world.control.since(
                self.world.clock() - seconds)
            if seconds - away > LATE:
                self.wrong(f'a request waits for {seconds:.1f} s, and nothing '
                           'is wrong with what it needs')
        if not patient and not self.window and seconds > IMPATIENT and \
                not self.findings.ending.is_set() and \
                self.rng.random() < 0.005:
            raise Impatient

    # What is done with it

    def reset(self):
        self.findings.count('resets')
        self.findings.note(self.name, 'reset')
        self.machine.reset()
        self.forget()

    def kill(self):
        """kill -9, sometimes with requests on their way"""
        self.findings.count('kills of a desktop')
        self.findings.note(self.name, 'kill -9')
        if self.rng.random() < 0.5 and not self.machine.io.under_way:
            first, count = self.place()
            self.machine.io.submit([self.prepared(WRITE, first, count)])
            self.content.in_flight(first, count)
        self.machine.kill()
        self.content.killed(self.durable)
        self.machine.start()
        self.forget()
        self.came_up()

    def forget(self):
        """After a reset: a pooled one is on some version, and has nothing of
        its own"""

    def came_up(self):
        """After a start"""

    def stop_and_go(self):
        """By command: it stands still until it is told to go on"""
        self.findings.count('stops by command')
        self.stopped = True
        self.machine.ask('stop')
        self.findings.sleep(self.rng.uniform(0, 0.5))
        self.machine.ask('cont')
        self.world.checker.look(self)       # at the event of this stop
        self.stopped = False

    def push(self):
        """Nothing can be assigned to it"""
        self.wanted = self.assigned


class Pooled(Desk):
    """It has the version that was assigned when it was reset."""

    def versions(self):
        return self.world.library[self.vdisk]

    def assignment(self, version):
        """Arguments of vdisk-assign"""
        raise NotImplementedError

    def running(self, info):
        """The Version that query-vdisks tells"""
        raise NotImplementedError

    def push(self):
        version = self.wanted
        if version is self.assigned:
            return
        try:
            self.machine.ask('vdisk-assign', **{
                'node-name': 'disk0', **self.assignment(version)})
        except QMP_LOST as e:
            self.not_pushed(version, e)
            return
        self.refused = 0
        self.assigned = version
        self.findings.count('pushes')
        self.findings.note(self.name, f'is to take {version}')
        if self.rng.random() < 0.5:
            self.reset()

    def not_pushed(self, version, error):
        self.findings.count('pushes refused')
        self.findings.note(self.name, f'{version} is refused: {error}')
        self.refused = 0 if self.excused(2 * LATE) else self.refused + 1
        if self.refused > 5:
            self.wrong(f'{version} cannot be assigned: {error}')
        self.findings.sleep(1)

    def forget(self):
        failed = self.machine.events('VDISK_ASSIGN_FAILED')
        now = self.running(self.machine.vdisk())
        if now not in (self.on, self.assigned):
            self.wrong(f'it runs on {now} instead of {self.assigned}')
        if now is not self.assigned and not self.excused(2 * LATE):
            self.wrong(f'it stays on {now} instead of {self.assigned}: '
                       f'{failed}')
        if now is not self.on:
            self.findings.count('versions taken')
            self.findings.note(self.name, f'takes {now}')
        self.on = now
        self.content.reset(now)

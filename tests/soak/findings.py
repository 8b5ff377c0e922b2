# SPDX-License-Identifier: GPL-2.0-or-later
"""What was found to be wrong, what was done until then, and how long things
take on this machine just now."""

import collections
import contextlib
import os
import socket
import subprocess
import threading
import time

from stores.node import GuestError, Qmp
from stores.process import program

PING = 0.1                  # seconds between two questions to the control
SLOW = 0.2                  # an answer that took longer is the machine's doing


class Findings:
    """The first one ends the soak: over is set."""

    def __init__(self, seed):
        self.seed = seed
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.ending = threading.Event()     # that, or the time is up
        self.wrong = []
        self.last = collections.deque(maxlen=60)
        self.counts = collections.Counter()
        self.worst = (0.0, '')          # request, and whose

    def now(self):
        return time.monotonic() - self.began

    def note(self, who, text):
        with self.lock:
            self.last.append(f'{self.now():8.2f} s  {who}: {text}')

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def waited(self, who, seconds):
        with self.lock:
            self.worst = max(self.worst, (seconds, who))

    def find(self, who, text):
        """What the invariants do not allow"""
        with self.lock:
            if not self.over.is_set():
                self.wrong.append((self.now(), who, text))
        self.note(who, f'WRONG: {text}')
        self.over.set()
        self.ending.set()

    def counted(self):
        with self.lock:
            return dict(self.counts)

    def story(self):
        """For who has to find out why"""
        with self.lock:
            for at, who, text in self.wrong:
                yield f'seed {self.seed}, after {at:.2f} s: {who}: {text}'
            yield 'what was done before that:'
            yield from self.last

    def sleep(self, seconds):
        """Not longer than the soak lasts"""
        self.ending.wait(seconds)


class Control:
    """A QEMU without our drivers, asked all the time. What it needs longer than
    usual, any other one may need, too; and so for who asks."""

    def __init__(self, over):
        self.over = over
        self.slow = collections.deque(maxlen=10000)     # turn, and how late
        self.turn = time.monotonic()

    def __enter__(self):
        ours, peer = socket.socketpair()
        with peer:
            self.popen = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', '--',
                 program('qemu-system-x86_64'), '-nodefaults', '-machine',
                 'none', '-display', 'none', '-chardev',
                 f'socket,id=qmp,fd={peer.fileno()}', '-mon',
                 'chardev=qmp,mode=control'], stdin=subprocess.DEVNULL,
                pass_fds=[peer.fileno()])
        self.qmp = Qmp(ours)
        self.qmp.handshake()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(10)
        self.popen.kill()
        self.popen.wait()
        self.qmp.lines.close()

    def run(self):
        self.turn = time.monotonic()
        while not self.over.wait(PING):
            with contextlib.suppress(GuestError):
                self.qmp.command('query-status')
            self.noted()

    def noted(self):
        """A turn, with its pause: what stops this process is the machine, too"""
        now = time.monotonic()
        late = now - self.turn - PING
        if late > SLOW:
            self.slow.append((self.turn, late))
        self.turn = now

    def since(self, moment):
        """Seconds from then on that the machine was somewhere else."""
        turn = self.turn            # the one that is under way counts, once
        turns = dict(list(self.slow))
        turns.setdefault(turn, time.monotonic() - turn - PING)
        return sum(late for begin, late in turns.items()
                   if late > SLOW and begin + PING + late > moment)


def files_of(pid):
    return len(os.listdir(f'/proc/{pid}/fd'))


def begun(pid):
    """When it was started, in ticks; its name may have blanks and brackets"""
    with open(f'/proc/{pid}/stat', encoding='ascii', errors='replace') as f:
        return int(f.read().rpartition(')')[2].split()[19])


def status_of(pid, *names):
    """Numbers in /proc/PID/status, in their units"""
    with open(f'/proc/{pid}/status', encoding='ascii', errors='replace') as f:
        lines = dict(line.split(':', 1) for line in f)
    return [int(lines[name].split()[0]) for name in names]

# SPDX-License-Identifier: GPL-2.0-or-later
"""A desktop's QEMU, without a guest in it: its disk is driven by qtest."""

import contextlib
import json
import socket
import subprocess
import threading
import time

from stores.node import GuestError, Qmp
from stores.process import program

from .virtio import SLOT, Disk, Qtest

SOON = 3.0                  # seconds within which QMP answers, at any time
STARTS = 60                 # and until it answers for the first time
QMP_LOST = (GuestError, OSError, ValueError)


class Machine:
    """One process after the other, with the same disk.

    disk     BlockdevOptions, whose node-name is disk0
    control  tells how slow the machine is

    .asked is for who does something with it, .eye for who only looks, and
    needs .lock.
    """

    def __init__(self, name, folder, disk, world, iothread=False):
        self.name, self.disk, self.world = name, disk, world
        self.log = folder / f'{name}.log'
        self.iothread = iothread
        self.lock = threading.Lock()
        self.alive = False
        self.popen = None

    def argv(self, fds):
        more = ['-object', 'iothread,id=io0'] if self.iothread else []
        on = ',iothread=io0' if self.iothread else ''
        return ['setpriv', '--pdeathsig', 'KILL', '--',
                program('qemu-system-x86_64'), '-nodefaults',
                '-no-user-config', '-machine', 'pc', '-accel', 'qtest', '-m',
                '32', '-display', 'none', *more,
                '-chardev', f'socket,id=qtest,fd={fds[0]}',
                '-qtest', 'chardev:qtest', '-qtest-log', 'none',
                '-chardev', f'socket,id=asked,fd={fds[1]}',
                '-mon', 'chardev=asked,mode=control',
                '-chardev', f'socket,id=eye,fd={fds[2]}',
                '-mon', 'chardev=eye,mode=control',
                '-blockdev', json.dumps(self.disk),
                '-device', f'virtio-blk-pci,id=dev0,drive=disk0,addr={SLOT}.0,'
                f'disable-modern=on,disable-legacy=off,rerror=stop,'
                f'werror=stop{on}']

    def start(self):
        """From a thread that lives as long as the process has to"""
        pairs = [socket.socketpair() for _ in range(3)]
        fds = [peer.fileno() for _, peer in pairs]
        with open(self.log, 'ab') as log, self.lock:
            self.popen = subprocess.Popen(
                self.argv(fds), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=fds)
            for _, peer in pairs:
                peer.close()
            self.qtest = Qtest(pairs[0][0])
            self.asked, self.eye = Qmp(pairs[1][0]), Qmp(pairs[2][0])
            self.asked.patience = self.eye.patience = STARTS
            self.asked.handshake()
            self.eye.handshake()
            self.alive = True
        self.io = Disk(self.qtest)
        self.io.begin()

    def kill(self):
        """kill -9, or the end of what has ended"""
        with self.lock:
            self.alive = False
            if self.popen:
                self.popen.kill()
                self.popen.wait()
                self.qtest.close()
                for qmp in (self.asked, self.eye):
                    qmp.lines.close()

    def quit(self):
        """As when the desktop is shut down"""
        with self.lock:
            self.alive = False
            self.asked.lines.send({'execute': 'quit'})
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(STARTS)
        ended = self.popen.poll()
        self.kill()
        return ended

    def said(self):
        return self.log.read_text(errors='replace')[-2000:]

    def ask(self, name, qmp=None, **arguments):
        """An answer that comes too late is found, with what it was to."""
        qmp = qmp or self.asked
        begin = time.monotonic()
        try:
            return qmp.command(name, **arguments)
        finally:
            took = time.monotonic() - begin
            self.world.findings.count('QMP answers')
            away = self.world.control.since(begin)
            if took - away > SOON and self.alive:
                self.world.findings.find(
                    self.name, f'QMP: {name} took {took:.1f} s, of which '
                    f'{away:.1f} s are the machine\'s')

    def vdisk(self, qmp=None):
        return self.ask('query-vdisks', qmp)[0]

    def events(self, name):
        """Of that name, that came since the last call; the rest is dropped."""
        self.ask('query-status')
        found = [e for e in self.asked.events if e['event'] == name]
        self.asked.events.clear()
        self.asked.log.clear()
        return found

    def reset(self):
        """The guest's driver begins anew."""
        self.asked.events.clear()
        begin = time.monotonic()
        self.ask('system_reset')
        while not any(e['event'] == 'RESET' for e in self.asked.events):
            self.ask('query-status')
            if time.monotonic() - begin - self.world.control.since(begin) \
                    > 2 * SOON:
                self.world.findings.find(self.name, 'no RESET after '
                                         f'{time.monotonic() - begin:.1f} s')
                break
            time.sleep(0.01)
        self.io.begin()

    def job(self, name, seconds, meanwhile, **arguments):
        """A block job, to its end; its error, or None. meanwhile() is called
        again and again."""
        self.ask(name, **{'node-name': 'disk0', 'job-id': 'job', **arguments})
        end = time.monotonic() + seconds
        while True:
            for event in self.events('BLOCK_JOB_COMPLETED'):
                return event['data'].get('error')
            if time.monotonic() > end:
                return f'not within {seconds} s'
            meanwhile()
            time.sleep(0.05)

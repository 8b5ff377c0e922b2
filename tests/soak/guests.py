# SPDX-License-Identifier: GPL-2.0-or-later
"""Real Debian guests among the desktops: the odd ones stream, the others are over
an image of the store."""

import random
import threading
import traceback

from stores.node import GuestError
from stores.process import guest_image, program

import accel                                # node has told Python where
from guest import Guest, event_time

from .desk import AFTER
from .desktops import McsPooled, Streamed

VDISK = 'os'
BOOT = 900                  # seconds; emulated, on a machine that is busy
COMMAND = 600
FILES = '/usr/bin/[a-c]*'
NOTE = '/root/note'
WORK = f"""head -c 2000000 /dev/urandom > {NOTE} && sync
sha256sum {NOTE} > {NOTE}.sum
echo 3 > /proc/sys/vm/drop_caches
sha256sum -c --quiet {NOTE}.sum"""


class Real(threading.Thread):
    """Works, looks, and is rebooted now and then."""

    def __init__(self, number, world):
        super().__init__(daemon=True, name=f'guest-{number}')
        self.world, self.findings = world, world.findings
        self.rng = random.Random(f'{world.seed}/{self.name}')
        self.streams = number % 2 == 1
        self.finished, self.pid, self.told = False, None, 0

    def disk(self):
        """As that of a desktop without a guest, of another vDisk"""
        kind = Streamed if self.streams else McsPooled
        model = kind(self.name, 1000, self.world)
        model.vdisk = VDISK
        return model.make()

    def run(self):
        qemu = program('qemu-system-x86_64')
        log = self.world.dir / f'{self.name}.console'
        how, _ = accel.choose(qemu, str(guest_image()))
        try:
            with Guest(qemu, self.disk(), log, accel=how, memory=384,
                       errors='stop') as guest:
                self.pid = guest.process.pid
                self.live(guest)
                self.pid = None
        except Exception:               # pylint: disable=broad-except
            if not self.findings.over.is_set():
                self.findings.find(self.name, traceback.format_exc())
        self.finished = True

    def live(self, guest):
        guest.wait_boot(BOOT)
        self.findings.count('boots of guests')
        sums = guest.run(f'sha256sum {FILES}', COMMAND)
        while not self.findings.ending.is_set():
            guest.run(WORK, COMMAND)
            if guest.run(f'sha256sum {FILES}', COMMAND) != sums:
                raise GuestError('its files are other ones')
            self.findings.count('files compared in guests',
                                len(sums.splitlines()) + 1)
            self.look(guest)
            if self.rng.random() < 0.2:
                self.reboot(guest)
            self.findings.sleep(self.rng.uniform(1, 10))

    def look(self, guest):
        errors = guest.disk_errors()
        if errors:
            raise GuestError(f'its kernel says: {errors}')
        guest.qmp.collect()
        events, guest.qmp.log, guest.qmp.events = guest.qmp.log, [], []
        for event in events:
            if event['event'] in ('STOP', 'BLOCK_IO_ERROR') and \
                    not self.excused(event_time(event)):
                raise GuestError(f'nothing was wrong, and yet: {event}')

    def excused(self, moment):
        w = self.world
        return self.streams and (
            w.relay.was_bad(moment, AFTER) or w.first.was_bad(moment, AFTER) and
            w.second.was_bad(moment, AFTER))

    def reboot(self, guest):
        self.look(guest)
        guest.reboot(BOOT)
        self.findings.count('boots of guests')
        if guest.run(f'ls {NOTE} 2>/dev/null || echo none') != 'none\n':
            raise GuestError('it has not forgotten what was written')

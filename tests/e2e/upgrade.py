# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest whose disk is on a store upgrades a package; meanwhile the store dies.

The store has a volatile cache: when it is killed, it forgets what was not
flushed. It stays away, and comes back. What the guest was told is durable is
compared with what the store's image holds in the end. Only the disk differs
between the rows of the table; see rows.py.
"""

import hashlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time

import outage
import package
from guest import Guest, GuestError

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from stores.nbd import StorageDaemon                            # noqa: E402
from stores.process import StoreError, need, program, run       # noqa: E402
from sanitized import SLOWER                                    # noqa: E402

# In seconds, what a slow machine is granted
COMMAND = 300 * SLOWER
UPGRADE = 600 * SLOWER
# A guest that has made nothing durable for so long makes no progress
SILENT = 30 * SLOWER
# The partition of the guest's disk
PARTITION = 1 << 20


class Script:
    """What happens, the same for all rows; times in seconds.

    away    the store stays away for so long at least, and for as long as the
            guest makes progress without it
    rounds  of files that the upgrade writes; in which one the network goes
            down, and in which one the store is killed
    """

    def __init__(self, away, rounds, down_round=2, kill_round=4):
        self.away = away
        self.rounds = rounds
        self.down_round = down_round
        self.kill_round = kill_round


class Reports:
    """What the upgrade tells, with the time it came; .on_line(line) is called
    for each line by a thread of its own."""

    def __init__(self, sock, on_line):
        self.lines = []
        self.sock = sock
        self.on_line = on_line
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        try:
            with self.sock.makefile("r", errors="replace") as stream:
                for line in stream:
                    self.lines.append((time.monotonic(), line.strip()))
                    self.on_line(line.strip())
        except OSError:
            pass

    def say(self, line):
        self.sock.sendall(f"{line}\n".encode())

    def when(self, text):
        """When the line came, or None."""
        return next((at for at, line in self.lines if line == text), None)

    def last(self, word):
        """When the last line came that begins with it; 0: never."""
        return max((at for at, line in self.lines if line.split()[0] == word), default=0)

    def durable(self, before=None):
        """SHA-256 by path of what it was told is durable, until that time."""
        lines = [line.split() for at, line in self.lines if before is None or at < before]
        rounds = {words[1] for words in lines if words[0] == "durable"}
        return {words[3]: words[2] for words in lines
                if words[0] == "sum" and words[1] in rounds}


class Beats:
    """What the guest sends over its network, twice a second: when it came."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.times = []
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while self.sock.recv(64) != b"":
            self.times.append(time.monotonic())

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join()
        self.sock.close()

    def longest_gap(self):
        return max((b - a for a, b in zip(self.times, self.times[1:])), default=0)


class Desktop(Guest):
    """With a network, a second disk that brings the packages, and the port that
    the upgrade reports through. When it is switched off inside, QEMU stays."""

    def __init__(self, qemu, disk, log, accel, medium, on_line):
        self.medium = medium
        self.report_sock, self.report_peer = socket.socketpair()
        super().__init__(qemu, disk, log, accel, errors="stop")
        self.peers += (self.report_peer,)
        self.reports = Reports(self.report_sock, on_line)

    def disk_args(self, disk):
        node = {"driver": "raw", "node-name": "medium", "read-only": True,
                "file": {"driver": "file", "filename": str(self.medium)}}
        args = super().disk_args(disk)
        return [*args[:-1], args[-1] + ",bootindex=0", "-blockdev", json.dumps(node),
                "-device", "virtio-blk-pci,drive=medium"]

    def channel_args(self):
        return [*super().channel_args(),
                "-chardev", f"socket,id=report,fd={self.report_peer.fileno()}",
                "-device", f"virtserialport,chardev=report,name={package.PORT}",
                "-netdev", "user,id=net,ipv6=off",
                "-device", "virtio-net-pci,netdev=net,romfile=", "-no-shutdown"]

    def kill(self):
        super().kill()
        self.report_sock.close()

    def job(self, name, timeout=COMMAND, **arguments):
        """Run one of QEMU's jobs to its end."""
        self.qmp.command(name, **{"job-id": name, **arguments})
        end = time.monotonic() + timeout
        while jobs := self.qmp.command("query-jobs"):
            if time.monotonic() > end:
                raise GuestError(f"{name} does not end: {jobs}")
            time.sleep(0.1)
        for event in self.qmp.log:
            if event["event"] == "BLOCK_JOB_COMPLETED" and event["data"]["device"] == name \
                    and "error" in event["data"]:
                raise GuestError(f"{name}: {event['data']['error']}")

    def power_off(self):
        """From inside; QEMU stays, with the disk open."""
        self.agent.command("guest-exec", path="/sbin/poweroff")
        try:
            self.qmp.wait_event("SHUTDOWN", COMMAND)
        except GuestError as error:
            raise self.explained(error) from None

    def quit(self):
        self.qmp.command("quit")
        self.process.wait(COMMAND)


class Result:
    """What was seen; times in seconds.

    finished    dpkg's exit status, or what went wrong
    took        the upgrade, from its begin to its end
    waited      the longest time in which it made nothing durable, since the kill
    away        the store
    alone       it ended before the store was back
    stops       how often the guest was stopped
    gap         the longest time for which nothing came over the guest's network
    before      how many files were durable when the store was killed
    told        how many files the guest was told are durable
    lost        the paths of those that the store's image does not hold
    lost_before those of them that were durable when the store was killed
    check       what e2fsck says against the file system, and qemu-img check against
                the image; nothing if they are clean
    elsewhere   what a desktop in standard image mode says against the image, which
                it streams; nothing if it has the upgrade; None: not tried
    """

    def __init__(self):
        self.finished = "it did not begin"
        self.took = self.waited = self.away = self.gap = 0.0
        self.alone = False
        self.stops = []
        self.before = self.told = 0
        self.lost = []
        self.lost_before = []
        self.check = ""
        self.elsewhere = None


class Upgrade:
    """One row, told step by step.

    row     what is under test, of rows.py
    script  a Script
    tell    called with a line of text for each thing that happened
    """

    def __init__(self, row, script, folder, how, tell):
        self.row = row
        self.script = script
        self.folder = pathlib.Path(folder)
        self.how = how
        self.tell = tell
        self.killed = None
        self.result = Result()

    def run(self):
        """From power-on to what is in the store's image; a Result."""
        self.medium, self.brought = package.medium(
            self.folder, self.script.rounds, self.script.down_round, self.script.kill_round)
        self.beats = Beats()
        try:
            with self.row.store:
                self.row.prepare()
                self.work()
                # Whatever was not flushed is none of its content
                self.row.store.kill()
        finally:
            self.beats.close()
        self.look_at_image()
        return self.result

    def work(self):
        with Desktop(self.row.qemu, self.row.disk(), self.folder / "console", self.how,
                     self.medium, self.on_line) as guest:
            self.guest = guest
            self.tell(f"booted in {guest.wait_boot():.1f} s")
            self.install_old(guest)
            self.row.before(guest, self.tell)
            pid = self.begin(guest)
            self.outage(guest)
            self.finish(guest, pid)
            guest.power_off()
            self.row.after(guest, self.tell)
            guest.quit()

    def install_old(self, guest):
        # ext4's own commit every 5 s would flush, on a slow machine between the writes
        # and the death of the store: then there is nothing to forget
        guest.run("mount -o remount,commit=300 /", COMMAND)
        guest.run(f"mkdir /run/medium && tar -x -f /dev/vdb -C /run/medium && "
                  f"dpkg -i /run/medium/{package.OLD}.deb && sync", COMMAND)
        guest.run("systemd-run --quiet bash -c 'while :; do "
                  f"echo . >/dev/udp/10.0.2.2/{self.beats.port}; sleep 0.5; done'")
        end = time.monotonic() + COMMAND
        while not self.beats.times:
            if time.monotonic() > end:
                raise GuestError("nothing comes over the guest's network")
            time.sleep(0.1)

    def begin(self, guest):
        self.tell(f"the upgrade begins: dpkg -i {package.NAME}_{package.NEW}_all.deb")
        return guest.agent.command("guest-exec", path="/bin/sh", arg=[
            "-c", f"exec dpkg -i /run/medium/{package.NEW}.deb 2>&1"],
            **{"capture-output": True})["pid"]

    def on_line(self, line):
        """In the thread of the reports: killed at once, before it makes them
        durable."""
        if line == f"written {self.script.kill_round}" and not self.killed:
            self.row.store.kill()
            self.killed = time.monotonic()
            self.guest.reports.say("go on")

    def wait_line(self, text, guest):
        end = time.monotonic() + UPGRADE
        while not guest.reports.when(text):
            if time.monotonic() > end:
                raise guest.explained(GuestError(f"the upgrade does not say '{text}'"))
            time.sleep(0.05)

    def outage(self, guest):
        self.wait_line("down", guest)
        self.tell("the guest's network is down")
        self.wait_line(f"written {self.script.kill_round}", guest)
        while not self.killed:
            time.sleep(0.01)
        self.tell("the store is killed, and has forgotten what was not flushed")
        while self.stays_away(guest.reports):
            time.sleep(0.1)
        self.result.alone = guest.reports.when("end") is not None
        self.row.away(guest, self.tell)
        self.row.store.start()
        self.result.away = time.monotonic() - self.killed
        self.tell(f"the store is back after {self.result.away:.0f} s; the upgrade " +
                  ("has finished without it" if self.result.alone else "has not finished"))

    def stays_away(self, reports):
        now = time.monotonic()
        if now < self.killed + self.script.away:
            return True
        if reports.when("end") or now > self.killed + UPGRADE:
            return False
        return reports.last("durable") > max(self.killed, now - SILENT)

    def finish(self, guest, pid):
        self.wait_line("end", guest)
        end = time.monotonic() + COMMAND
        while not (status := guest.agent.command("guest-exec-status", pid=pid))["exited"]:
            if time.monotonic() > end:
                raise GuestError("dpkg does not end")
            time.sleep(0.1)
        reports, result = guest.reports, self.result
        result.finished = status.get("exitcode", "a signal")
        result.stops = guest.pauses()
        result.took = reports.when("end") - reports.when("begin")
        times = [self.killed, *(at for at, line in reports.lines
                                if at > self.killed and line.startswith("durable"))]
        result.waited = max(b - a for a, b in zip(times, times[1:]))
        result.gap = self.beats.longest_gap()
        self.before = reports.durable(self.killed)
        result.before = len(self.before)
        self.durable = {**self.brought, **reports.durable()}
        result.told = len(self.durable)
        self.tell(f"the upgrade ended after {result.took:.0f} s with status {result.finished}; "
                  f"its longest wait was {result.waited:.1f} s")

    def look_at_image(self):
        result = self.result
        result.check = self.row.check_image()
        raw = self.row.raw_image(self.folder / "image.raw")
        result.check = "\n".join(filter(None, [result.check, check_file_system(raw)]))
        held = sums(raw, self.folder / "held")
        result.lost = sorted(p for p, s in self.durable.items() if held.get(p) != s)
        result.lost_before = [p for p in result.lost if p in self.before]
        self.tell(f"of {result.told} files that are durable the store's image lacks "
                  f"{len(result.lost)}; its file system is {result.check or 'clean'}")
        if self.row.elsewhere:
            result.elsewhere = self.boot_elsewhere(raw)

    def boot_elsewhere(self, raw):
        """A pooled desktop streams the image in standard mode. What it says against
        it, or nothing."""
        cache = self.folder / "elsewhere.pvs"
        run(program("qemu-img"), "create", "-f", "pvs", "-o", "role=cache,vdisk=debian,version=2",
            cache, raw.stat().st_size)
        with StorageDaemon(raw, tcp=True) as store, Guest(
                program("qemu-system-x86_64"), outage.pvs_disk(cache, [store]),
                self.folder / "elsewhere.console", self.how, errors="stop") as guest:
            self.tell("elsewhere, streamed in standard image mode, the store's image booted in "
                      f"{guest.wait_boot():.1f} s")
            lines = "".join(f"{s}  {p}\n" for p, s in self.durable.items())
            status, said = guest.run(
                f"dpkg-query -W -f '${{Version}} ${{Status}}\n' {package.NAME} && "
                f"dpkg -V {package.NAME} && sha256sum --quiet -c - 2>&1 <<END\n{lines}END\n",
                COMMAND, check=False)
            self.tell(f"there, {package.NAME} is {said.splitlines()[0] if said else 'missing'}")
            said = said.removeprefix(f"{package.NEW} install ok installed\n")
            return "\n".join([*said.splitlines(), *guest.disk_errors(),
                              *([f"status {status}"] if status else [])])


def check_file_system(raw):
    """What e2fsck says against the guest's file system; it repairs nothing."""
    done = subprocess.run([need("e2fsck"), "-fn", f"{raw}?offset={PARTITION}"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()


def sums(raw, folder):
    """SHA-256 by path of the package's files in the image."""
    folder.mkdir()
    name = package.FOLDER.rpartition("/")[2]
    try:
        run(need("debugfs"), "-R", f"rdump {package.FOLDER} {folder}",
            f"{raw}?offset={PARTITION}")
    except StoreError:
        pass                # what could not be read is not there
    found = {f"{package.FOLDER}/{p.relative_to(folder / name)}":
             hashlib.sha256(p.read_bytes()).hexdigest()
             for p in (folder / name).rglob("*") if p.is_file()}
    shutil.rmtree(folder)
    return found

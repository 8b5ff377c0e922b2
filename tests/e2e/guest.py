# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive a real Debian guest in QEMU: start it, run commands inside, reset it.

The guest is one that scripts/guest-image makes. Commands go through the QEMU
guest agent inside it, events and resets through QMP; both over socket pairs,
so nothing is left in the file system. Only the standard library is used.

    with Guest(qemu, mcs_disk("disk0", "pooled.mcs"), log="serial.log") as guest:
        guest.wait_boot()
        print(guest.run("uname -r"))
        guest.reboot()
"""

import base64
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from sanitized import SLOWER     # noqa: E402

# In seconds. Emulated, a boot takes about 20; on a machine at load 13, 50 were seen.
BOOT_TIMEOUT = 300
COMMAND_TIMEOUT = 120 * SLOWER
AGENT_PORT = "org.qemu.guest_agent.0"


class GuestError(Exception):
    """The guest or its QEMU did not do what was asked; says what, and why."""


class Lines:
    """A socket that carries one JSON object a line."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def send(self, message, prefix=b""):
        self.sock.settimeout(COMMAND_TIMEOUT)
        self.sock.sendall(prefix + json.dumps(message).encode() + b"\n")

    def receive(self, deadline):
        """Return the next object, or None once the deadline has passed."""
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                return None
            except ConnectionError:
                data = b""
            if not data:
                raise GuestError("QEMU has closed the connection")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line.rpartition(b"\xff")[2] or b"{}")

    def close(self):
        self.sock.close()


class Qmp:
    """A QMP client. Events that arrive meanwhile wait in .events until somebody
    waits for them; .log keeps all that ever came, with QEMU's own time stamps.
    An answer is waited for .patience seconds."""

    def __init__(self, sock):
        self.lines = Lines(sock)
        self.patience = COMMAND_TIMEOUT
        self.events = []
        self.log = []

    def keep(self, event):
        self.events.append(event)
        self.log.append(event)

    def collect(self, seconds=0.0):
        """Take in what comes within that time, at least what is there already."""
        deadline = time.monotonic() + max(seconds, 0.001)
        while (event := self.lines.receive(deadline)) is not None:
            self.keep(event)

    def handshake(self):
        if self.lines.receive(time.monotonic() + COMMAND_TIMEOUT) is None:
            raise GuestError("QMP: no greeting")
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.lines.send({"execute": name, "arguments": arguments})
        deadline = time.monotonic() + self.patience
        while True:
            reply = self.lines.receive(deadline)
            if reply is None:
                raise GuestError(f"QMP: no answer to {name} within {self.patience} s")
            if "event" in reply:
                self.keep(reply)
            elif "error" in reply:
                raise GuestError(f"QMP: {name}: {reply['error']['desc']}")
            else:
                return reply["return"]

    def wait_event(self, name, timeout, **data):
        """Take the first event of that name whose data has these members."""
        timeout *= SLOWER
        deadline = time.monotonic() + timeout
        while True:
            for i, event in enumerate(self.events):
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    # what came before it is of no more interest
                    del self.events[:i + 1]
                    return event
            event = self.lines.receive(deadline)
            if event is None:
                raise GuestError(f"no {name} event within {timeout:.0f} s")
            self.keep(event)


class Agent:
    """The QEMU guest agent: runs commands inside the guest."""

    def __init__(self, sock):
        self.lines = Lines(sock)
        self.serial = 0

    def sync(self, timeout):
        """Skip the leftovers of an earlier boot: the answer carries our number."""
        self.serial += 1
        deadline = time.monotonic() + timeout
        self.lines.send({"execute": "guest-sync-delimited",
                         "arguments": {"id": self.serial}}, prefix=b"\xff")
        while True:
            reply = self.lines.receive(deadline)
            if reply is None:
                raise GuestError("the guest agent does not answer")
            if reply.get("return") == self.serial:
                return

    def command(self, name, **arguments):
        self.lines.send({"execute": name, "arguments": arguments})
        reply = self.lines.receive(time.monotonic() + COMMAND_TIMEOUT)
        if reply is None:
            raise GuestError(f"the guest agent does not answer {name}")
        if "error" in reply:
            raise GuestError(f"guest agent: {name}: {reply['error']['desc']}")
        return reply["return"]

    def run(self, script, timeout):
        """Run a shell script; return its exit status, its output, its errors."""
        pid = self.command("guest-exec", path="/bin/sh", arg=["-c", script],
                           **{"capture-output": True})["pid"]
        deadline = time.monotonic() + timeout
        pause = 0.02
        while True:
            status = self.command("guest-exec-status", pid=pid)
            if status["exited"]:
                break
            if time.monotonic() > deadline:
                raise GuestError(f"still running after {timeout:.0f} s: {script}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        out, err = (base64.b64decode(status.get(key, "")).decode(errors="replace")
                    for key in ("out-data", "err-data"))
        return status.get("exitcode", 128 + status.get("signal", 0)), out, err


def event_time(event):
    """When an event happened, in seconds since 1970."""
    stamp = event["timestamp"]
    return stamp["seconds"] + stamp["microseconds"] / 1e6


def pauses(log):
    """When a guest stood still, by its events: a list of when it stopped and when
    it ran again, in seconds since 1970; None where it still stands."""
    spans = []
    for event in log:
        if event["event"] == "STOP" and not (spans and spans[-1][1] is None):
            spans.append((event_time(event), None))
        elif event["event"] == "RESUME" and spans and spans[-1][1] is None:
            spans[-1] = (spans[-1][0], event_time(event))
    return spans


def mcs_disk(node, path, **options):
    """The -blockdev of a differencing disk; its header names the master."""
    return {"driver": "mcs", "node-name": node, "discard": "unmap",
            "file": {"driver": "file", "node-name": f"{node}-file",
                     "filename": str(path), "discard": "unmap", "aio": "threads"},
            **options}


def raw_disk(node, path, **options):
    """The -blockdev of a raw image."""
    return {"driver": "raw", "node-name": node,
            "file": {"driver": "file", "filename": str(path)}, **options}


def sandboxed(pid):
    """Does the kernel filter the system calls of all of a process's threads?"""
    filtered = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):    # it has ended
            if "\nSeccomp:\t2\n" not in (thread / "status").read_text():
                return False
            filtered += 1
    return filtered > 0


class Guest:
    """A virtual machine with one system disk, and the guest that runs in it.

    qemu   path of qemu-system-x86_64
    disk   what -blockdev takes, as a dictionary with a node-name
    log    file that gets what the guest prints on its serial console
    accel  "tcg" or "kvm"
    extra  more arguments for QEMU
    errors what its device does about them: "report", "stop", which keeps the
           request and stops the guest, or "auto", QEMU's default

    Start it from the main thread: the process dies with the thread that made it.
    """

    def __init__(self, qemu, disk, log, accel="tcg", memory=512, extra=(),
                 errors="auto"):
        self.log = log
        self.errors = errors
        self.accel = accel
        self.process = None
        self.qmp_sock, qmp_peer = socket.socketpair()
        self.agent_sock, agent_peer = socket.socketpair()
        self.peers = (qmp_peer, agent_peer)
        self.command_line = [
            str(qemu), *self.machine_args(memory), *self.disk_args(disk),
            *self.channel_args(), *map(str, extra)]
        self.began = 0.0

    def machine_args(self, memory):
        accel = "tcg,thread=multi" if self.accel == "tcg" else self.accel
        cpu = "max" if self.accel == "tcg" else "host"
        return ["-nodefaults", "-no-user-config", "-machine", "q35", "-accel", accel,
                "-cpu", cpu, "-m", str(memory), "-display", "none", "-vga", "none",
                "-nic", "none", "-sandbox", "on,spawn=deny,resourcecontrol=deny"]

    def disk_args(self, disk):
        return ["-object", "iothread,id=io0", "-blockdev", json.dumps(disk),
                "-device", f"virtio-blk-pci,drive={disk['node-name']},iothread=io0,"
                f"rerror={self.errors},werror={self.errors}"]

    def channel_args(self):
        qmp, agent = (peer.fileno() for peer in self.peers)
        return ["-chardev", f"socket,id=qmp,fd={qmp}",
                "-mon", "chardev=qmp,mode=control",
                "-chardev", f"file,id=console,path={self.log}",
                "-serial", "chardev:console",
                "-device", "virtio-serial-pci",
                "-chardev", f"socket,id=agent,fd={agent}",
                "-device", f"virtserialport,id=agent-port,chardev=agent,name={AGENT_PORT}"]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()

    def start(self):
        self.began = time.time()
        # If we are killed, QEMU must not live on with nobody to end it.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *self.command_line],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            pass_fds=[peer.fileno() for peer in self.peers], text=True)
        for peer in self.peers:
            peer.close()
        self.qmp = Qmp(self.qmp_sock)
        self.agent = Agent(self.agent_sock)
        try:
            self.qmp.handshake()
        except GuestError as error:
            raise self.explained(error) from None
        if not sandboxed(self.process.pid):
            raise GuestError("QEMU is not in its sandbox")
        return self

    def explained(self, error):
        """The error, with what QEMU said if it has ended, else the console's end."""
        try:
            self.process.wait(timeout=1)
            said = self.process.stderr.read().strip()
            return GuestError(f"QEMU ended with status {self.process.returncode}: {said}")
        except subprocess.TimeoutExpired:
            with open(self.log, errors="replace") as log:
                tail = log.read()[-800:]
            return GuestError(f"{error}\nlast on its console ({self.log}):\n{tail}")

    def wait_boot(self, timeout=BOOT_TIMEOUT):
        """Wait until the agent inside answers; return how long the boot took, in s.

        It is counted from power-on or reset by QEMU's own clock, so that guests
        which boot side by side can be waited for one after another.
        """
        try:
            up = self.qmp.wait_event("VSERPORT_CHANGE", timeout, id="agent-port", open=True)
            self.agent.sync(COMMAND_TIMEOUT)
        except GuestError as error:
            raise self.explained(error) from None
        return event_time(up) - self.began

    def run(self, script, timeout=COMMAND_TIMEOUT, check=True):
        """Run a shell script inside and return what it printed.

        With check=False return (exit status, output) instead.
        """
        status, out, err = self.agent.run(script, timeout)
        if not check:
            return status, out
        if status != 0:
            raise GuestError(f"in the guest: '{script}' ended with {status}: {err or out}")
        return out

    def disk_errors(self):
        """What the guest's kernel says about its disk since it was booted: lines of
        its log, none if all is well."""
        _, text = self.run("dmesg | grep -iE 'I/O error|critical .* error|EXT4-fs (error|warning)"
                           "|Remounting filesystem|blocked for more than'", check=False)
        return text.splitlines()

    def pauses(self):
        """When it stood still since it was started: see pauses()."""
        self.qmp.collect()
        return pauses(self.qmp.log)

    def reboot(self, timeout=BOOT_TIMEOUT):
        """Reboot from inside, as a user would, and wait for the next boot."""
        self.ask_reboot()
        return self.wait_reset(timeout)

    def ask_reboot(self):
        self.qmp.events.clear()
        self.agent.command("guest-exec", path="/sbin/reboot")

    def wait_reset(self, timeout=BOOT_TIMEOUT):
        try:
            self.began = event_time(self.qmp.wait_event("RESET", timeout))
        except GuestError as error:
            raise self.explained(error) from None
        return self.wait_boot(timeout)

    def reset(self, timeout=BOOT_TIMEOUT):
        """Press the reset button and wait for the next boot."""
        self.qmp.events.clear()
        self.qmp.command("system_reset")
        return self.wait_reset(timeout)

    def shutdown(self, timeout=BOOT_TIMEOUT):
        """Shut down from inside; QEMU ends."""
        self.agent.command("guest-exec", path="/sbin/poweroff")
        try:
            self.process.wait(timeout * SLOWER)
        except subprocess.TimeoutExpired:
            raise self.explained(GuestError("the guest does not shut down")) from None
        if self.process.returncode != 0:
            raise self.explained(GuestError("QEMU failed"))
        self.kill()

    def kill(self):
        """End QEMU at once, as a power failure would, if it still runs."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stderr.close()
            self.process = None
        for sock in (self.qmp_sock, self.agent_sock, *self.peers):
            sock.close()

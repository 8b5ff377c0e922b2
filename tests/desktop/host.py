# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of desktops: a real libvirtd of our own, without systemd.

It runs in a mount namespace in which libvirt's folders, and /run/deskcast, are
folders of the test; so nothing of the machine's own libvirt is touched, and two
tests can run at once. QEMU runs as Debian runs it: as its own user, in the
sandbox.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests" / "e2e"))

from guest import Agent, GuestError, Qmp, sandboxed  # noqa: E402

from sanitized import SLOWER  # noqa: E402 (of tests, by way of guest)

# Folder of the test: folder of the machine that it stands for
FOLDERS = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "run": "/run/libvirt",
           "log": "/var/log/libvirt", "cache": "/var/cache/libvirt",
           "deskcast": "/run/deskcast", "swtpm": "/var/log/swtpm"}
DAEMON_CONF = """unix_sock_dir = "/run/libvirt"
auth_unix_rw = "none"
auth_unix_ro = "none"
auth_tcp = "none"
listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
tcp_port = "{port}"
"""
QEMU_CONF = """stdio_handler = "file"
security_driver = "none"
max_core = 0
swtpm_user = "tss"
swtpm_group = "tss"
"""
# As udev makes it where there is one: libvirt probes each QEMU anew all the time
# while it is root's alone.
KVM = """if [ -c /dev/kvm ]; then
    cd /run/libvirt && rm -f kvm && mknod -m 666 kvm c 10 232 && mount --bind kvm /dev/kvm
fi"""
NAMESPACE = "https://deskcast.example.org/xmlns/domain/1"
START_TIMEOUT = 20 * SLOWER


class CommandError(Exception):
    """A command failed; says which, and what it said."""


def run(*argv, check=True, **how):
    argv = [str(a) for a in argv]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          **how)
    if check and done.returncode:
        raise CommandError(f"{' '.join(argv)}: status {done.returncode}: "
                           f"{done.stdout}{done.stderr}")
    return done


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class StorageDaemon:
    """Exports over NBD on a Unix socket; for use in a with statement."""

    def __init__(self, program, path, *argv):
        self.socket = pathlib.Path(path)
        self.argv = [program, "--nbd-server", f"addr.type=unix,addr.path={path}", *argv]
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen([str(a) for a in self.argv], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise CommandError(f"no storage daemon at {self.socket}")
            time.sleep(0.02)
        self.socket.chmod(0o666)        # QEMU runs as its own user
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.socket.unlink(missing_ok=True)


class Host:
    """A libvirtd; for use in a with statement.

    folder   where everything goes; other users must be able to reach it
    programs {name: path} that stand beside the hook
    hook     install it?
    """

    def __init__(self, folder, programs, hook=True):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.process = None
        for name in FOLDERS:
            (self.folder / name).mkdir(exist_ok=True)
        port = free_port()
        (self.folder / "daemon.conf").write_text(DAEMON_CONF.format(port=port))
        (self.folder / "etc" / "qemu.conf").write_text(QEMU_CONF)
        self.uri = f"qemu+unix:///system?socket={self.folder}/run/libvirt-sock"
        self.far_uri = f"qemu+tcp://127.0.0.1:{port}/system"
        self.libexec = self.folder / "libexec"
        self.libexec.mkdir(exist_ok=True)
        for name, path in programs.items():
            self.add_program(name, path)
        if hook:
            hooks = self.folder / "etc" / "hooks" / "qemu.d"
            hooks.mkdir(parents=True, exist_ok=True)
            (hooks / "deskcast").symlink_to(self.libexec / "deskcast-hook")

    def add_program(self, name, path):
        """A copy: the user of QEMU may not be able to reach the build."""
        to = self.libexec / name
        shutil.copy2(path, to)
        to.chmod(0o755)

    def script(self):
        mounts = "\n".join(f"mkdir -p {to} && mount --bind {self.folder}/{name} {to} || exit"
                           for name, to in FOLDERS.items())
        return f"{mounts}\n{KVM}\nexec libvirtd --listen -f {self.folder}/daemon.conf -p /run/libvirt/our.pid"

    def __enter__(self):
        # a folder for temporary files that is ours would be handed on to QEMU's user
        environment = {k: v for k, v in os.environ.items() if k != "TMPDIR"}
        with open(self.folder / "libvirtd.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "--",
                 "setpriv", "--pdeathsig", "TERM", "--", sys.executable,
                 pathlib.Path(__file__).with_name("reaper.py"), "sh", "-c", self.script()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + START_TIMEOUT
        while self.virsh("list", check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise CommandError("libvirtd does not start: " +
                                   (self.folder / "libvirtd.log").read_text()[-2000:])
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        for name in self.virsh("list", "--name", check=False).stdout.split():
            self.virsh("destroy", name, check=False)
        self.process.terminate()
        try:
            self.process.wait(20 * SLOWER)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def virsh(self, *argv, check=True):
        return run("virsh", "-q", "-c", self.uri, *argv, check=check)

    def define(self, xml):
        file = self.folder / "define.xml"
        file.write_text(xml)
        self.virsh("define", file)

    def xml(self, name):
        return self.virsh("dumpxml", "--inactive", name).stdout

    def metadata(self, name):
        return self.virsh("metadata", name, "--uri", NAMESPACE).stdout.strip()

    def set_metadata(self, name, text):
        self.virsh("metadata", name, "--uri", NAMESPACE, "--key", "deskcast", "--set", text,
                   "--config")

    def said(self, name):
        """What the hook said of the desktop's last start and end."""
        file = self.folder / "deskcast" / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def pid(self, name):
        return int((self.folder / "run" / "qemu" / f"{name}.pid").read_text())

    def sandboxed(self, name):
        return sandboxed(self.pid(name))

    def command_line(self, name):
        return self.words_of(self.pid(name))

    @staticmethod
    def words_of(pid):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


class Desktop:
    """A desktop that runs: its agent by way of libvirt, its disk by our monitor."""

    def __init__(self, host, name):
        self.host = host
        self.name = name
        self.before = None
        self.seen = 0

    def start(self, *options):
        self.host.virsh("start", self.name, *options)

    def console(self):
        file = self.host.folder.parent / f"{self.name}.console"
        return file.read_text(errors="replace") if file.exists() else ""

    def help_up(self):
        """Emulated on a starved machine, a kernel may find that its timer does not
        work, and panic. That says nothing of the disk: try again."""
        text = self.console()
        if "end Kernel panic - not syncing: IO-APIC" in text[self.seen:]:
            self.seen = len(text)
            print(f"# {self.name}: the kernel had no timer; reset", flush=True)
            self.host.virsh("reset", self.name)

    def agent(self, command, **arguments):
        text = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(self.host.virsh("qemu-agent-command", self.name, text,
                                          "--timeout", "5").stdout)["return"]

    def wait_boot(self, timeout=120 * SLOWER):
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.agent("guest-ping")
            except CommandError as error:
                if time.monotonic() > deadline:
                    raise GuestError(f"{self.name} does not boot: {error}\n"
                                     f"{self.console()[-500:]}") from None
            self.help_up()
            time.sleep(0.5)

    def run(self, script, timeout=60 * SLOWER):
        """Run a shell script inside; return what it printed."""
        via = Agent.__new__(Agent)
        via.command = self.agent
        status, out, err = via.run(script, timeout)
        if status:
            raise GuestError(f"in {self.name}: '{script}' ended with {status}: {err or out}")
        return out

    def boot_id(self):
        return self.run("cat /proc/sys/kernel/random/boot_id")

    def reset(self):
        """Press the reset button."""
        self.before = self.boot_id()
        self.host.virsh("reset", self.name)

    def wait_reset(self, timeout=120 * SLOWER):
        """Until it has booted anew."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if self.boot_id() != self.before:
                    return
            except (CommandError, GuestError):
                self.help_up()
            time.sleep(0.5)
        raise GuestError(f"{self.name} does not come back from its reset")

    def disk(self):
        """What query-vdisks says of its disk."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10 * SLOWER)
            # the path as QEMU knows it is too long from here
            folder = os.open(self.host.folder / "deskcast" / self.name, os.O_PATH)
            try:
                sock.connect(f"/proc/self/fd/{folder}/qmp")
            finally:
                os.close(folder)
            qmp = Qmp(sock)
            qmp.handshake()
            return qmp.command("query-vdisks")[0]

    def destroy(self):
        self.host.virsh("destroy", self.name)

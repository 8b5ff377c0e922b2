# SPDX-License-Identifier: GPL-2.0-or-later
"""One host with libvirt, Deskcast and a store, as an administrator has them.

All is in a mount namespace of its own: /srv, /etc/deskcast and /var/lib/deskcast are folders of
the story, and so are libvirt's; programs are in PATH. So commands are what the manual says, word
for word, and nothing of the machine is touched. It needs root.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "desktop"))

import host as hosts  # noqa: E402

import accel  # noqa: E402
import package  # noqa: E402 (of tests/e2e, by way of host)
from sanitized import SLOWER  # noqa: E402 (of tests)

# In seconds. Emulated, a boot takes about 30; machines can be busy.
BOOT = 300 * SLOWER
COMMAND = 300 * SLOWER
# Of the upgrade: in which the network goes down, and in which the store is killed
ROUNDS, DOWN_ROUND, KILL_ROUND = 24, 2, 4
LIBVIRT = "qemu:///system"
STORE = "store1"                # docs/operations call the store's host by that name
# Below libvirt's folder
CHANNEL = "qemu/channel/target/domain-*-{name}/" + package.PORT

MASTER = """<domain type='{type}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  {cpu}
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='/srv/{name}.raw'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/><source file='/srv/packages.iso'/>
      <target dev='sda' bus='scsi'/><readonly/>
    </disk>
    <controller type='scsi' model='virtio-scsi'/>
    <interface type='user'><model type='virtio'/></interface>
    <serial type='file'><source path='/srv/{name}.console'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <channel type='unix'><target type='virtio' name='{port}'/></channel>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""


class Desktop(hosts.Desktop):
    """A guest of the site, and a master VM as well."""

    def agent(self, command, **arguments):
        """A ping may fail soon; all else is waited for, on a busy machine as well."""
        text = hosts.json.dumps({"execute": command, "arguments": arguments})
        seconds = 5 if command == "guest-ping" else 60 * SLOWER
        return hosts.json.loads(self.host.virsh(
            "qemu-agent-command", self.name, text, "--timeout", str(seconds)).stdout)["return"]

    def disk(self):
        """What query-vdisks says of its disk."""
        with self.host.connect(self.host.root / "run/deskcast" / self.name / "qmp") as sock:
            qmp = hosts.Qmp(sock)
            qmp.handshake()
            return qmp.command("query-vdisks")[0]

    def installed(self):
        """Version of the package that is there, or an empty string."""
        return self.run(f"dpkg-query -W -f '${{Version}}' {package.NAME} 2>/dev/null || :",
                        COMMAND).strip()

    def has_package(self):
        return self.installed() != ""

    def holds(self, sums):
        """Does it hold these files, by SHA-256? What it says against it, or nothing."""
        lines = "".join(f"{s}  {p}\n" for p, s in sums.items())
        return self.run("echo 3 > /proc/sys/vm/drop_caches; "
                        f"sha256sum --quiet -c - 2>&1 <<END || :\n{lines}END\n", COMMAND)

    def wait_other_boot(self, before, timeout):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                self.agent("guest-ping")
                if self.boot_id() != before:
                    return
            except (hosts.CommandError, hosts.GuestError):
                pass
            time.sleep(0.5)
        raise hosts.GuestError(f"{self.name} does not come back from its reset")

    def wait_off(self):
        end = time.monotonic() + BOOT
        while "shut off" not in self.host.virsh("domstate", self.name).stdout:
            if time.monotonic() > end:
                raise hosts.GuestError(f"{self.name} does not shut down")
            time.sleep(0.2)


class Site(hosts.Host):
    """For use in a with statement.

    folder   where everything goes; other users must be able to reach it
    programs {name: path}
    how      "kvm" or "tcg"
    show     called with each command line, what it printed, and its seconds
    """

    def __init__(self, folder, programs, how, show):
        super().__init__(folder, programs)
        self.how = how
        self.top = hosts.TOP
        self.show = show
        self.srv = self.folder / "srv"
        self.etc = self.folder / "etc-deskcast"
        self.var = self.folder / "var-lib-deskcast"
        for folder in (self.srv, self.etc, self.var):
            folder.mkdir(exist_ok=True)
        self.environment = {
            "PATH": f"{self.libexec}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/srv",
            "LC_ALL": "C.UTF-8",
            "DESKCAST_EMULATOR": str(self.libexec / "qemu-system-x86_64")}
        (self.etc / "hosts.conf").write_text(f"[kvm1]\nuri={LIBVIRT}\n")
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost {STORE}\n")
        self.services = []
        self.typed = []

    def script(self):
        """Maps of host caches have to be on a tmpfs, as /run is."""
        own = (f"mkdir -p /etc/deskcast && mount --bind {self.etc} /etc/deskcast && "
               f"mkdir -p /var/lib/deskcast && mount --bind {self.var} /var/lib/deskcast && "
               f"mount --bind {self.folder}/hosts /etc/hosts && mount --bind {self.srv} /srv && "
               f"mount -t tmpfs tmpfs {self.folder}/deskcast || exit")
        return f"{own}\n{super().script()}"

    def __enter__(self):
        super().__enter__()
        self.root = pathlib.Path(f"/proc/{self.process.pid}/root")
        return self

    def __exit__(self, *args):
        super().__exit__(*args)
        for service in self.services:
            service.end()

    def said(self, name):
        file = self.root / "run/deskcast" / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def inside(self, *argv):
        return ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", "--", *argv]

    def type(self, line, status=0, quiet=False):
        """A command line, as an administrator types it; what it printed."""
        began = time.monotonic()
        self.typed.append(line)
        done = subprocess.run(self.inside("sh", "-c", line), env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=2 * COMMAND)
        if not quiet:
            self.show(f"# {line}", done.stdout, time.monotonic() - began)
        if done.returncode != status:
            raise hosts.CommandError(f"{line}: status {done.returncode}: {done.stdout}")
        return done.stdout

    def within(self, name, line, timeout=COMMAND):
        """The same, in a guest."""
        began = time.monotonic()
        said = self.desktop(name).run(f"({line}) 2>&1", timeout)
        self.show(f"{name}# {line}", said, time.monotonic() - began)
        return said

    def service(self, line, log):
        service = Service(self, line, self.folder / log)
        self.services.append(service)
        return service

    def desktop(self, name):
        return Desktop(self, name)

    def connect(self, path):
        """The path, as others know it, is too long for a socket."""
        folder = os.open(path.parent, os.O_PATH)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(10)
            sock.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        return sock

    def report_port(self, name):
        """The other end of the port that the package reports through."""
        for place in ("run/libvirt", "var/lib/libvirt"):
            for path in (self.root / place).glob(CHANNEL.format(name=name)):
                sock = self.connect(path)
                sock.settimeout(None)
                return sock
        raise hosts.CommandError(f"{name} has no port {package.PORT}")

    def master(self, name, image, memory):
        """A master VM, with the image as its own disk, and packages in its drive."""
        hosts.run("cp", "--sparse=always", image, self.srv / f"{name}.raw")
        cpu = "<cpu mode='host-passthrough'/>" if self.how == "kvm" else "<cpu mode='maximum'/>"
        self.define(MASTER.format(
            type="kvm" if self.how == "kvm" else "qemu", name=name, cpu=cpu, memory=memory,
            emulator=self.libexec / "qemu-system-x86_64", port=package.PORT))


class Service:
    """deskcast store serve, or relay, in a process group of its own; ready when it says so."""

    def __init__(self, site, line, log):
        self.site, self.line, self.log = site, line, log
        self.process = None

    def start(self, ready=" exports on "):
        self.site.show(f"# {self.line} &", "", 0)
        before = len(self.said())
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.site.inside("setpriv", "--pdeathsig", "TERM", "--", *self.line.split()),
                env=self.site.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        end = time.monotonic() + 60
        while ready not in self.said()[before:]:
            if self.process.poll() is not None or time.monotonic() > end:
                raise hosts.CommandError(f"{self.line}: {self.said()[-2000:]}")
            time.sleep(0.1)
        return self

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self):
        """Without warning, with the daemon that does the work."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def make_packages(folder, iso, rounds, down_round, kill_round):
    """A CD with both versions of the package. {version: {path: SHA-256}}"""
    sums = {}
    cd = pathlib.Path(folder) / "packages"
    cd.mkdir()
    network = {"/etc/systemd/network/10-desktop.network": package.NETWORK.encode()}
    for version, postinst in ((package.OLD, package.INSTALL), (
            package.NEW, package.script(rounds, down_round, kill_round))):
        files = {f"{package.FOLDER}/lib/part{n}": os.urandom(package.MIB)
                 for n in range(package.PAYLOAD)}
        sums[version] = {p: package.hashlib.sha256(c).hexdigest() for p, c in files.items()}
        built = package.build(folder, version, postinst, {**network, **files})
        built.rename(cd / f"{package.NAME}_{version}_all.deb")
    hosts.run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", "PACKAGES", "-o", iso, cd)
    return sums


@contextlib.contextmanager
def premises(build, folder, image, show):
    """A Site in the folder, and the sums of its packages."""
    qemu = pathlib.Path(build) / "qemu"
    ours = pathlib.Path(build) / "deskcast"
    programs = {
        "deskcast": ours / "cli/deskcast", "deskcast-hook": ours / "hook/deskcast-hook",
        "qemu-img": qemu / "qemu-img", "qemu-system-x86_64": qemu / "qemu-system-x86_64",
        "qemu-storage-daemon": qemu / "storage-daemon/qemu-storage-daemon"}
    how, _ = accel.choose(qemu / "qemu-system-x86_64", str(image))
    site = Site(folder, programs, how, show)
    sums = make_packages(site.folder, site.srv / "packages.iso", ROUNDS, DOWN_ROUND, KILL_ROUND)
    with site:
        yield site, sums

# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts for tests: real libvirtds of their own, and desktops on them.

A libvirtd of a session keeps all it has in a folder, needs no privilege and
disturbs no other one. In a user namespace root is a user like others.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.append(os.path.dirname(HERE))

from sanitized import SLOWER  # noqa: E402

BUILD = os.environ.get("DESKCAST_BUILD", os.path.join(TOP, "build"))
DESKCAST = os.environ.get("DESKCAST_PROGRAM",
                          os.path.join(BUILD, "deskcast/cli/deskcast"))
QEMU = os.environ.get("DESKCAST_QEMU",
                      os.path.join(BUILD, "qemu/qemu-system-x86_64"))
QEMU_IMG = os.path.join(os.path.dirname(QEMU), "qemu-img")
QSD = os.path.join(os.path.dirname(QEMU), "storage-daemon/qemu-storage-daemon")
NAMESPACE = "https://deskcast.example.org/xmlns/domain/1"
SALT = "00" * 32


class Failed(Exception):
    """A test failed"""


def check(condition, *what):
    if not condition:
        raise Failed(" ".join(str(w) for w in what))


def until(what, condition, seconds=30):
    seconds *= SLOWER
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, "no", what, "within", seconds, "s")
        time.sleep(0.05)


# The manual of a command, if it is not the one of its name
PAGES = {"rollback": "push", "follow": "push", "stage": "host"}


def members(answer):
    """The names of all members, at any depth"""
    if isinstance(answer, list):
        return set().union(*map(members, answer))
    if isinstance(answer, dict):
        return set(answer).union(*map(members, answer.values()))
    return set()


def manual(page):
    with open(os.path.join(TOP, f"docs/man/deskcast-{page}.rst"), encoding="utf-8") as f:
        return f.read()


class Result:
    def __init__(self, args, process, seconds):
        self.args, self.status = args, process.returncode
        self.out, self.err, self.seconds = process.stdout, process.stderr, seconds

    def json(self):
        """The answer, each of whose members is in the manual"""
        answer = json.loads(self.out)
        page = PAGES.get(self.args[0], self.args[0])
        text = manual(page)
        if page == "top":       # values have the names of their metrics
            text += manual("exporter").replace("*deskcast_", "*")
        missing = sorted(n for n in members(answer)
                         if f"*{n}*" not in text and f"``{n}``" not in text)
        check(not missing, f"deskcast-{page}(1) does not have", missing)
        return answer

    def expect(self, status, *texts):
        """It ended so, and said so"""
        said = self.out + self.err
        check(self.status == status, "deskcast", *self.args, "ended with",
              self.status, "and said:", self.err, self.out[:400])
        for text in texts:
            check(text in said, repr(text), "is not in what", *self.args,
                  "said:", self.err, self.out[:400])
        return self


def deskcast(*args, timeout=120, **env):
    begin = time.monotonic()
    process = subprocess.run(
        [DESKCAST, *args], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=timeout * SLOWER, check=False,
        env={**os.environ, "DESKCAST_QEMU_IMG": QEMU_IMG, "DESKCAST_QSD": QSD,
             **env})
    return Result(args, process, time.monotonic() - begin)


@contextlib.contextmanager
def one_processor():
    """What is started runs on one. CPUID has its number; when that changes,
    libvirtd asks each QEMU anew what it can, for seconds."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Libvirtd:
    """A host"""

    probed = None       # what one libvirtd knows of QEMUs, for the next ones

    def __init__(self, folder, name):
        self.name, self.folder = name, os.path.join(folder, name)
        self.socket = os.path.join(self.folder, "run/libvirt/libvirt-sock")
        self.uri = f"qemu+unix:///session?socket={self.socket}"
        self.definitions = os.path.join(self.folder, "config/libvirt/qemu")
        self.process = None
        for sub in ("run", "config", "cache", "home", "data"):
            os.makedirs(os.path.join(self.folder, sub))
        os.makedirs(self.definitions)
        with open(os.path.join(self.folder, "config/libvirt/qemu.conf"), "w",
                  encoding="utf-8") as f:
            f.write('stdio_handler = "file"\nsecurity_driver = "none"\n')

    def define(self, name, xml):
        """Before it starts: what libvirtd itself would have written"""
        with open(os.path.join(self.definitions, name + ".xml"), "w",
                  encoding="utf-8") as f:
            f.write(xml)

    def start(self):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
               "HOME": os.path.join(self.folder, "home")}
        for name in ("RUNTIME_DIR:run", "CONFIG_HOME:config",
                     "CACHE_HOME:cache", "DATA_HOME:data"):
            variable, sub = name.split(":")
            env["XDG_" + variable] = os.path.join(self.folder, sub)
        known = os.path.join(self.folder, "cache/libvirt/qemu/cache/capabilities")
        if Libvirtd.probed:
            shutil.copytree(Libvirtd.probed, known, dirs_exist_ok=True)
        command = ["libvirtd"]
        if os.geteuid() == 0:
            command = ["unshare", "--user", "--map-user=1000",
                       "--map-group=1000"] + command
        with open(os.path.join(self.folder, "log"), "ab") as log:
            with one_processor():
                self.process = subprocess.Popen(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, start_new_session=True)
        until("libvirtd", self.answers, 60)
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            os.sched_setaffinity(int(thread), os.sched_getaffinity(0))
        if not Libvirtd.probed and os.path.isdir(known):
            Libvirtd.probed = tempfile.mkdtemp(prefix="dk-host-")
            atexit.register(shutil.rmtree, Libvirtd.probed)
            shutil.copytree(known, Libvirtd.probed, dirs_exist_ok=True)

    def answers(self):
        return self.virsh("version", check_it=False).returncode == 0

    def virsh(self, *args, check_it=True):
        process = subprocess.run(["virsh", "-q", "-c", self.uri, *args],
                                 stdin=subprocess.DEVNULL, text=True,
                                 capture_output=True, check=False,
                                 timeout=60 * SLOWER)
        check(not check_it or process.returncode == 0, "virsh", *args, "said:",
              process.stderr)
        return process

    def metadata(self, name):
        return self.virsh("metadata", name, "--uri", NAMESPACE,
                          "--config").stdout

    def pid_file(self, name):
        """Of a domain's QEMU"""
        return os.path.join(self.folder, "run/libvirt/qemu/run", name + ".pid")

    def set_metadata(self, name, element):
        """An element as Lab makes it, into the definition"""
        self.virsh("metadata", name, "--config", "--uri", NAMESPACE, "--key",
                   "deskcast", "--set", element.replace("deskcast:", "").replace(
                       f'xmlns:deskcast="{NAMESPACE}" ', ""))

    def stop(self):
        """With all that runs on it"""
        if self.process and self.process.poll() is None:
            for name in self.virsh("list", "--name",
                                   check_it=False).stdout.split():
                self.virsh("destroy", name, check_it=False)
            self.process.terminate()
            self.process.wait(20 * SLOWER)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def mute_socket(path):
    """Takes every connection, and never says anything"""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(64)
        yield


class Lab:
    """A folder with hosts, a store and desktops; cleared away at the end"""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="dk-host-")
        self.store = os.path.join(self.folder, "store")
        self.hosts_file = os.path.join(self.folder, "hosts.conf")
        self.hosts = []

    def __enter__(self):
        return self

    def __exit__(self, *args):
        for host in self.hosts:
            host.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def host(self, name):
        host = Libvirtd(self.folder, name)
        self.hosts.append(host)
        return host

    def make_emulator(self, name, first):
        """Our QEMU, but for what a shell does first. Its path."""
        path = os.path.join(self.folder, f"qemu-{name}")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\n{first}\nexec {QEMU} "$@"\n')
        os.chmod(path, 0o755)
        return path

    def far_end(self):
        """Environment in which ssh is a shell, where "nosuch" is this machine"""
        path = os.path.join(self.folder, "ssh")
        with open(path, "w", encoding="utf-8") as f:     # as ssh does it
            f.write('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n'
                    '[ "$2" = nosuch ] || exit 255\nexec sh -c "$3"\n')
        os.chmod(path, 0o755)
        return {"DESKCAST_SSH": path,
                "PATH": os.path.dirname(DESKCAST) + ":" + os.environ["PATH"]}

    def list_hosts(self, *hosts, more=""):
        with open(self.hosts_file, "w", encoding="utf-8") as f:
            for host in hosts or self.hosts:
                f.write(f"[{host.name}]\nuri={host.uri}\n")
            f.write(more)

    def run(self, *args, **kwargs):
        return deskcast(*args, "--hosts", self.hosts_file, **kwargs)

    # The store, as docs/interop/store.rst has it

    def image(self, vdisk, number):
        return os.path.join(self.store, "vdisks", vdisk, f"{number}.raw")

    def make_store(self, vdisk, versions, content=None):
        """versions: {number: access}; content: {number: bytes}"""
        folder = os.path.join(self.store, "vdisks", vdisk)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(self.store, "store.json"), "w",
                  encoding="utf-8") as f:
            json.dump({"deskcast-store": 1, "images": {"type": "file"},
                       "uuid": "7b6dbd0c-5ab1-4c55-a93a-29a6a4ac2e0a"}, f)
        open(os.path.join(self.store, "lock"), "a", encoding="utf-8").close()
        for number in versions:
            with open(self.image(vdisk, number), "wb") as f:
                f.write((content or {}).get(number, b""))
                f.truncate(1 << 20)
        self.set_access(vdisk, versions)

    def set_access(self, vdisk, versions, released=None):
        folder = os.path.join(self.store, "vdisks", vdisk)
        listed = []
        for number, access in sorted(versions.items()):
            v = {"version": number, "access": access, "parent": 0,
                 "size": 1 << 20, "label": False, "image": f"{number}.raw",
                 "format": "raw", "created": "2026-11-27T09:00:00Z"}
            if access != "maintenance":
                v.update(tree=f"{number}.tree", root=f"{number:064x}",
                         sealed="2026-11-27T09:00:00Z")
            if released and number in released:
                v["released"] = released[number]
            listed.append(v)
        with open(os.path.join(folder, "manifest.json.new"), "w",
                  encoding="utf-8") as f:
            json.dump({"deskcast-manifest": 1, "vdisk": vdisk,
                       "uuid": "11111111-2222-4333-8444-555555555555",
                       "salt": SALT, "revision": 1,
                       "next": max(versions) + 1, "unused": [],
                       "versions": listed}, f)
        os.rename(os.path.join(folder, "manifest.json.new"),
                  os.path.join(folder, "manifest.json"))

    # Domains

    def catalog_element(self, name="office", vdisk="win11", model="mcs"):
        source = ('<deskcast:source uri="nbd+unix:///?socket=/run/none"/>'
                  if model == "pvs" else "")
        return (f'<deskcast:catalog xmlns:deskcast="{NAMESPACE}" format="1" '
                f'name="{name}" vdisk="{vdisk}" model="{model}" '
                f'lifetime="pooled" run="in-process">'
                f'<deskcast:store path="{self.store}"/>'
                f'<deskcast:folder path="{self.folder}/desktops"/>'
                f'{source}</deskcast:catalog>')

    def desktop_element(self, name, number, catalog="office", vdisk="win11",
                        model="mcs", lifetime="pooled"):
        version = (f'number="{number}" size="{1 << 20}" '
                   f'image="{self.image(vdisk, number)}" format="raw"'
                   if model == "mcs" else
                   f'number="{number}" size="{1 << 20}" root="{number:064x}"')
        return (f'<deskcast:desktop xmlns:deskcast="{NAMESPACE}" format="1" '
                f'catalog="{catalog}" vdisk="{vdisk}" model="{model}" '
                f'lifetime="{lifetime}" run="in-process">'
                f'<deskcast:disk path="{self.disk(name)}" node="disk0"/>'
                f'<deskcast:monitor path="{self.folder}/{name}.qmp"/>'
                f'<deskcast:wanted {version}/></deskcast:desktop>')

    def disk(self, name):
        return os.path.join(self.folder, "desktops", name + ".mcs")

    def make_disk(self, name, image):
        os.makedirs(os.path.dirname(self.disk(name)), exist_ok=True)
        subprocess.run([QEMU_IMG, "create", "-q", "-f", "mcs", "-b", image,
                        "-F", "raw", "-o", "lifetime=pooled", self.disk(name)],
                       check=True)


def domain(name, element="", disk=None):
    """A domain; disk: of the driver mcs, which it boots from"""
    command = ""
    if disk:
        blockdev = json.dumps({"driver": "mcs", "node-name": "disk0",
                               "file": {"driver": "file", "filename": disk}})
        args = ["-blockdev", blockdev, "-device",
                "virtio-blk-pci,drive=disk0,bootindex=1,rerror=stop,"
                "werror=stop,addr=0x1e"]
        quoted = "".join(f"<qemu:arg value='{a}'/>" for a in args)
        command = f"<qemu:commandline>{quoted}</qemu:commandline>"
    return f"""<domain type='qemu'
        xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <name>{name}</name>
      <metadata>{element}</metadata>
      <memory unit='MiB'>32</memory>
      <os><type arch='x86_64' machine='pc'>hvm</type></os>
      <features><acpi/></features>
      <devices>
        <emulator>{QEMU}</emulator>
        <controller type='usb' model='none'/>
        <memballoon model='none'/>
      </devices>
      {command}
    </domain>"""


def guest(works, always=False, often=False):
    """A boot sector: writes to its disk, as a system that comes up does, or
    stands still; or writes now and then, or always. 512 bytes."""
    halt = bytes.fromhex("f4ebfd")
    write = bytes.fromhex("31c08ed8be407cb443b000b280cd13")
    packet = bytes.fromhex("10000100007c0000") + (2).to_bytes(8, "little")
    again = bytes.fromhex("ebf3")       # jmp to the write, past its first two
    rest = bytes.fromhex("fbf4f4f4f4ebea")      # four ticks, and all of it again
    code = (write + (again if always else rest if often else halt)) if works else halt
    return code.ljust(0x40, b"\0") + packet + bytes(510 - 0x40 - 16) + b"\x55\xaa"


def run_tests(tests):
    """Each a function; its documentation is its name. Returns how many failed"""
    failed = 0
    for test in tests:
        begin = time.monotonic()
        try:
            test()
            print("ok -", test.__doc__)
        except (Failed, subprocess.SubprocessError, OSError, KeyError,
                ValueError) as e:
            print(f"# {type(e).__name__}: {e}".replace("\n", "\n# "))
            print("not ok -", test.__doc__)
            failed += 1
        print(f"# {time.monotonic() - begin:.1f} s")
        sys.stdout.flush()
    return failed

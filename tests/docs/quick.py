# SPDX-License-Identifier: GPL-2.0-or-later
"""The quick starts of docs/system, line by line in a folder: stores, relays and desktops that
are QEMUs without a guest, whose disks are read and written by content."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

import commands
import manual
import shown
import sizes

SYSTEM = manual.DOCS / "system"
SIZE = 4 << 20
PATTERN = 0x5a
BARE = "-nodefaults -display none -accel tcg"
DEVICE = "/machine/peripheral-anon/device[0]/virtio-backend"
QEMU_IO = sizes.BUILD / "qemu/qemu-io"
SECONDS = 120


def until(holds):
    end = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > end:
            raise ValueError("it does not come")
        time.sleep(0.05)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Quick:
    """A folder with our programs, and what runs in it"""

    def __init__(self, folder, page):
        self.folder = folder / page
        self.shm = pathlib.Path(tempfile.mkdtemp(prefix="dk-", dir=os.environ.get(
            "DESKCAST_SHM", "/dev/shm")))
        self.port = free_port()
        self.page = SYSTEM / f"{page}.rst"
        self.blocks = commands.blocks(self.page)
        self.changes, self.running = [], []
        (self.folder / "bin").mkdir(parents=True)
        qemu = sizes.BUILD / "qemu"
        for program in (qemu / "qemu-img", qemu / "qemu-system-x86_64", sizes.QSD,
                        sizes.DESKCAST):
            (self.folder / "bin" / program.name).symlink_to(program.resolve())

    def take(self, count):
        """The next blocks, which are typed now"""
        taken, self.blocks = self.blocks[:count], self.blocks[count:]
        for number, text in taken:
            shown.note_block(self.page, number, text)
        return [text for _, text in taken]

    @staticmethod
    def take_examples(command):
        """Those of a manual page"""
        page = manual.DOCS / f"man/deskcast-{command}.rst"
        for number, text in commands.blocks(page, "EXAMPLES"):
            shown.note_block(page, number, text)
            yield text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        shutil.rmtree(self.shm)

    def here(self, text):
        for there, here in [*self.changes, (
                '"host-cache":', f'"host-cache-map":"{self.shm}/%r.map","host-cache":'), ("/run/deskcast", str(self.shm)),
                            ("/var/cache/deskcast", f"{self.folder}/cache"),
                            ("/var/lib/deskcast", str(self.folder)), ("/vdi/desktops/", ""),
                            ("/vdi/", ""), ("addr.host=0,", "addr.host=127.0.0.1,"),
                            ('"store1"', '"127.0.0.1"'), ('"store2"', '"127.0.0.1"'),
                            ("10809", str(self.port))]:
            text = text.replace(there, here)
        return text

    def environment(self):
        return {"PATH": f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

    def run(self, line):
        """What a command prints"""
        done = subprocess.run(["bash", "-e", "-c", self.here(line)], cwd=self.folder, text=True,
                              env=self.environment(), stdin=subprocess.DEVNULL, check=False,
                              capture_output=True, timeout=SECONDS)
        if done.returncode:
            raise ValueError(f"{line}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, line, there=None):
        """A daemon, or a machine with a monitor; until that socket or port is there"""
        line = self.here(line)
        process = subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=self.folder, text=True,
                                   env=self.environment(), stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        self.running.append(process)
        end = time.monotonic() + SECONDS
        while there and not there():
            if process.poll() is not None or time.monotonic() > end:
                raise ValueError(f"does not start: {line}")
            time.sleep(0.05)
        return process

    def listens(self):
        return f":{self.port:04X} 0" in pathlib.Path("/proc/net/tcp").read_text(
            encoding="ascii")


class Monitor:
    """QMP over two files"""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        return self.send({"execute": name, "arguments": arguments})

    def send(self, command):
        self.writer.write(json.dumps(command) + "\n")
        self.writer.flush()
        while True:
            line = self.reader.readline()
            if not line:
                raise ValueError(f"it ended at {command}")
            answer = json.loads(line)
            if "error" in answer:
                raise ValueError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class Machine(Monitor):
    """A QEMU without a guest; for use in a with statement"""

    def __init__(self, quick, arguments):
        path = quick.shm / "qmp"
        self.process = quick.start(f"qemu-system-x86_64 {BARE} -qmp unix:{path},server=on,wait=off "
                                   f"{arguments} >said", path.exists)
        self.said = open(quick.folder / "said", encoding="utf-8")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        file = self.sock.makefile("rw")
        super().__init__(file, file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.command("quit")
        self.process.wait(SECONDS)
        self.reader.close()
        self.sock.close()
        self.said.close()

    def io(self, text):
        """By qemu-io, as the device would; what is said against it"""
        said = self.command("human-monitor-command", **{
            "command-line": f'qemu-io -d {DEVICE} "{text}"'})
        said += self.said.read()
        good = " bytes at offset " in said or text == "flush" and not said
        return [] if good and "failed" not in said else [f"{text}: {said}"]

    def disk(self):
        return self.command("query-vdisks")[0]

    def jobs_end(self):
        until(lambda: not self.command("query-block-jobs"))


def mcs(folder):
    """system/mcs.rst: made, run, assigned, reset, and behind a storage daemon"""
    with Quick(folder, "mcs") as q:
        q.changes = [("size=4G", "size=64M"), ("-m 4G", "-m 64M"),
                     ("qemu-system-x86_64 ", f"qemu-system-x86_64 {BARE} ")]
        for name, pattern in (("master", PATTERN), ("win11-13", PATTERN + 1)):
            q.run(f"qemu-img create -q -f qcow2 {name}.qcow2 {SIZE} && "
                  f"{QEMU_IO} -c 'write -P {pattern} 0 64k' {name}.qcow2")
        create, device, assign, off, behind, reset = q.take(6)
        q.run(create)
        with Machine(q, q.here(" ".join(device.split()))) as machine:
            wrong = machine.io(f"read -P {PATTERN} 0 64k") + machine.io("write -P 7 0 4k")
            machine.send(json.loads(q.here(assign).replace('"win11', f'"{q.folder}/win11')))
            machine.command("system_reset")
            until(lambda: machine.disk()["image"]["filename"].endswith("win11-13.qcow2"))
            wrong += machine.io(f"read -P {PATTERN + 1} 0 64k")
        q.run(off.replace("/vdi/win11-13", f"{q.folder}/master"))
        daemon, front = q.here(behind).split("\n\n")
        q.start(daemon, (q.folder / "desk1.qmp").exists)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(q.folder / "desk1.qmp"))
            with sock.makefile("rw") as file:
                monitor = Monitor(file, file)
                monitor.send(json.loads(reset))
                image = monitor.command("query-vdisks")[0]["image"]["filename"]
        guest = q.start(front)
        time.sleep(1)
        wrong += [] if image.endswith("master.qcow2") else [image]
        return wrong + ([] if guest.poll() is None else ["QEMU did not start"])


def pvs(folder):
    """system/pvs.rst: a store, a relay, a desktop that reads and forgets"""
    with Quick(folder, "pvs") as q:
        (q.folder / "deb-12.raw").write_bytes(bytes([PATTERN]) * SIZE)
        store, relay, relay_json, create, desktop = q.take(5)
        tree, serve = re.match(r"(.*?)(qemu-storage-daemon.*)", store, re.S).groups()
        root = re.search(r"Root hash:\s+(\w+)", q.run(tree))[1]
        q.changes = [("HEX", root), ("10737418240", str(SIZE)), (" 10G", f" {SIZE}")]
        q.start(serve, q.listens)
        (q.folder / "relay.json").write_text(q.here(relay_json))
        folders, daemon = re.match(r"(.*?)(qemu-storage-daemon.*)", relay, re.S).groups()
        q.run(folders)
        q.start(daemon, (q.shm / "relay").exists)
        (q.folder / "desk1.json").write_text(q.here(desktop))
        made, run = re.match(r"(.*?)(qemu-system.*)", create, re.S).groups()
        q.run(made)
        arguments = q.here(re.sub(r"\\\n", " ", run)).removeprefix("qemu-system-x86_64 ... ")
        with Machine(q, arguments) as machine:
            wrong = machine.io(f"read -P {PATTERN} 0 {SIZE}") + machine.io("write -P 7 0 4k")
            disk = machine.disk()["pvs"]
        return wrong + ([] if disk["version"] == 12 and disk["verity-root"] == root
                        else [str(disk)])


def with_label(q, serve, arguments, label):
    """The store also lets its label be read, and the desktop looks there first"""
    name = re.search(r'"export":"([^"]+)"', label)[1]
    serve += f" --export nbd,id=l,node-name=f,name={name}"
    return serve, arguments.replace('"journal":', f'{q.here(label)},"journal":')


def rescued(q, texts):
    """Epochs that the store never had: in a list, and in a copy of the store's image"""
    epochs = re.findall(r"^epoch +(\d+)", q.run("deskcast journal show buffer.pvs"), re.M)
    if not epochs:
        return ["the buffer has no epochs"]
    for text in texts:
        for line in shown.chunks(text):
            q.run(re.sub(r"\[?--epochs 12-15\]?", f"--epochs {epochs[0]}-{epochs[-1]}", line))
    wrong = []
    for image in ("rescued.raw", "win11-13.raw"):
        got = (q.folder / image).read_bytes()[1 << 20:2 << 20]
        has = got == bytes([PATTERN + 1]) * (1 << 20)
        wrong += [] if has == (image == "rescued.raw") else [f"{image}: {has}"]
    return wrong + [f"no {f}" for f in ("DIR", "some", "desk01") if not any(
        (q.folder / f).iterdir())]


def private(folder):
    """system/pvs-private.rst: a window, what is written, what the store has; deskcast-journal(1)"""
    with Quick(folder, "pvs-private") as q:
        q.changes = [("64G", str(SIZE)), ("8G", "16M"), ("2147483648", "4194304"),
                     ("/var/lib/deskcast/desktops/office/desk01.journal", "buffer.pvs"),
                     ("/var/tmp/win11-13.raw", "rescued.raw"), ("/var/tmp/", "")]
        q.run(f"qemu-img create -q -f qcow2 win11-12.qcow2 {SIZE}")
        store, desktop, window, journal, label = q.take(5)
        made, serve = re.match(r"(.*?)(qemu-storage-daemon.*)", store, re.S).groups()
        q.run(made)
        made, arguments = re.match(r"(.*?)(-blockdev.*)", desktop, re.S).groups()
        serve, arguments = with_label(q, serve, arguments, label)
        server = q.start(serve, q.listens)
        q.run(made)
        with Machine(q, q.here(" ".join(arguments.split()))) as machine:
            opening, closing = [o for o in commands.objects(q.here(window))]
            machine.send(opening)
            machine.jobs_end()
            wrong = [] if machine.disk()["pvs"]["buffer"]["window"] else ["no window"]
            wrong += machine.io(f"write -P {PATTERN} 0 1M") + machine.io("flush")
            machine.send(closing)
            machine.jobs_end()
            lag = machine.disk()["pvs"]["buffer"]["lag-bytes"]
            server.kill()
            wrong += machine.io(f"write -P {PATTERN + 1} 1M 1M") + machine.io("flush")
        got = (q.folder / "win11-13.raw").read_bytes()[:1 << 20]
        wrong += [] if got == bytes([PATTERN]) * (1 << 20) and not lag else ["the store lacks it"]
        examples = q.take_examples("journal")
        return wrong + rescued(q, [journal, *examples])


def tests(folder):
    return manual.bind("quick", folder, mcs, pvs, private)

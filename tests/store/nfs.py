# SPDX-License-Identifier: GPL-2.0-or-later
"""A store on NFS 4: a server on this machine, and hosts that mount it.

This machine's kernel may have no client for NFS, but a Debian guest's has: each
host is a guest, and reaches the server through QEMU's own network. What it runs
is on a disk of its own, with the libraries that this machine has for it. Server
and guests are in a network namespace: nothing gets out of it.
"""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys

from stores.far import Ganesha, LIBRARIES
from stores.process import TOP, Process, guest_image, need, run, until

from . import env

sys.path.append(str(TOP / 'tests/e2e'))
import accel                                        # noqa: E402
from guest import Guest                             # noqa: E402

# In seconds: what the server gives a client that is silent, and all of them to come
# back to a new server; and what we give guests for anything, on a busy machine
LEASE, GRACE = 15, 30
PATIENCE = 600
PORT = 2049
MOUNT = pathlib.PurePath('/mnt/store')
TOOLS = '/tools'

SETUP = """set -e
hostname {name}
rm -f /etc/systemd/system/systemd-networkd.service
cat >/etc/systemd/network/10-user.network <<END
[Match]
Type=ether
[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
END
systemctl daemon-reload
systemctl start systemd-networkd
mkdir -p {tools} {mount}
mount -o ro /dev/vdb {tools}
for i in $(seq 1000); do
    ! grep -q 10.0.2.15 /proc/net/fib_trie || break
    sleep 0.1
done
grep -q 10.0.2.15 /proc/net/fib_trie
"""

WRAPPER = """#!/bin/sh
export TZ=UTC LC_ALL=C.UTF-8
export DESKCAST_QEMU_IMG="${{DESKCAST_QEMU_IMG:-{tools}/qemu-img}}"
export DESKCAST_QSD="${{DESKCAST_QSD:-{tools}/qemu-storage-daemon}}"
exec {tools}/lib/{loader} --library-path {tools}/lib {tools}/real/{name} "$@"
"""

# In the place of the storage daemon: as if the image were very large. The first
# one goes on when somebody removes the file.
SLOW = """#!/bin/sh
[ -e /run/slowed ] || touch /run/slowed /run/slow
while [ -e /run/slow ]; do sleep 0.1; done
exec {tools}/qemu-storage-daemon "$@"
"""


class Server(Ganesha):
    """One folder for all to write to; the same, to be read only; and a file
    system of 24 MiB."""

    def __init__(self):
        super().__init__('/dev/null')       # no image
        self.www = self.dir / 'www'

    def fill(self):
        (self.dir / 'recovery').mkdir()
        (self.dir / 'small').mkdir()
        self.netns.run('mount', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs',
                       self.dir / 'small')

    def export(self, number, name, folder, access):
        return (f'EXPORT {{ Export_Id = {number}; Pseudo = "/{name}";\n'
                f'Path = "{self.dir}/{folder}"; Access_Type = {access};\n'
                'Squash = none; SecType = sys; Protocols = 4;\n'
                # the test changes files behind its back
                'Attr_Expiration_Time = 0;\n'
                'FSAL { Name = VFS; } }\n')

    def configuration(self):
        return ('NFS_CORE_PARAM { Protocols = 4;\n'
                'Enable_NLM = false; Enable_RQUOTA = false;\n'
                f'Plugins_Dir = "{self.tree}/{LIBRARIES}/ganesha"; }}\n'
                f'NFSv4 {{ Lease_Lifetime = {LEASE}; Grace_Period = {GRACE};\n'
                'UseGetpwnam = true; Only_Numeric_Owners = true;\n'
                f'RecoveryRoot = "{self.dir}/recovery"; }}\n'
                + self.export(1, 'www', 'www', 'RW')
                + self.export(2, 'old', 'www', 'RO')
                + self.export(3, 'small', 'small', 'RW'))


class Tools:
    """A disk with our programs, and QEMU's, for a guest to run them."""

    PROGRAMS = (env.DESKCAST, env.CUT, env.QEMU_IMG, env.QSD,
                env.BUILD / 'qemu/qemu-io')

    def __init__(self, folder):
        self.path, self.top = folder / 'tools.img', folder / 'tools'
        for name in ('real', 'lib'):
            (self.top / name).mkdir(parents=True)
        for program in self.PROGRAMS:
            self.add(program)
        self.write('slow', SLOW.format(tools=TOOLS))
        run(need('mke2fs'), '-q', '-t', 'ext4', '-d', self.top, self.path,
            '1G')
        shutil.rmtree(self.top)

    def add(self, program):
        shutil.copy(program, self.top / 'real')
        for line in run('ldd', program).splitlines():
            path = next((w for w in line.split() if w.startswith('/')), None)
            if path:
                shutil.copy(path, self.top / 'lib')
                if 'ld-linux' in path:
                    loader = pathlib.Path(path).name
        self.write(program.name, WRAPPER.format(
            tools=TOOLS, loader=loader, name=program.name))

    def write(self, name, text):
        path = self.top / name
        path.write_text(text)
        path.chmod(0o755)


class Machine(Guest):
    """A guest in the server's namespace, with a network and the tools."""

    def __init__(self, server, disk, log, tools, how):
        node = {'driver': 'raw', 'node-name': 'tools', 'read-only': True,
                'file': {'driver': 'file', 'filename': str(tools.path)}}
        super().__init__(
            env.BUILD / 'qemu/qemu-system-x86_64', disk, log, accel=how, extra=[
                '-netdev', 'user,id=net', '-device',
                'virtio-net-pci,netdev=net', '-blockdev', json.dumps(node),
                '-device', 'virtio-blk-pci,drive=tools'])
        self.command_line = [*server.netns.enter(), *self.command_line]


class Host:
    """What an administrator types on one host of several.

    .mounts  by folder, what is mounted there: again after each boot
    """

    def __init__(self, place, name):
        self.place, self.name = place, name
        self.mounts = {MOUNT: ('www', {})}
        self.machine = None

    def boot(self):
        """Begin to; ready() waits."""
        p = self.place
        disk = p.folder / f'{self.name}.qcow2'
        env.qemu_img('create', '-f', 'qcow2', '-b', p.image, '-F', 'raw', disk)
        self.machine = Machine(
            p.server, {'driver': 'qcow2', 'node-name': 'disk0', 'file': {
                'driver': 'file', 'filename': str(disk)}},
            p.folder / f'{self.name}.console', p.tools, p.how)
        self.machine.start()

    def ready(self):
        self.machine.wait_boot(PATIENCE)
        self.machine.run(SETUP.format(name=self.name, tools=TOOLS, mount=MOUNT),
                         timeout=PATIENCE)
        for folder, (export, options) in self.mounts.items():
            self.mount(folder, export, **options)

    def mount(self, folder, export, **options):
        options = {'vers': '4.2', 'port': PORT, 'addr': '10.0.2.2',
                   'clientaddr': '10.0.2.15', **options}
        text = ','.join(f'{k}={v}' for k, v in options.items())
        self.machine.run(f'mkdir -p {folder}; mount -i -t nfs4 -o hard,{text} '
                         f'10.0.2.2:/{export} {folder}')

    def die(self):
        """As its power supply does."""
        self.machine.kill()

    def run(self, script, **kwargs):
        return self.machine.run(script, **kwargs)

    @staticmethod
    def line(words, store, before, environment):
        words = [*before, f'{TOOLS}/deskcast', *words]
        settings = {'DESKCAST_STORE': store, **dict(environment)}
        return ' '.join(['env', *(shlex.quote(f'{k}={v}')
                                  for k, v in settings.items()),
                         *(shlex.quote(str(w)) for w in words)])

    def deskcast(self, *words, store, before=(), environment=(), timeout=PATIENCE):
        line = self.line(words, store, before, environment)
        status, out, err = self.machine.agent.run(f'exec {line}', timeout)
        return env.Result(subprocess.CompletedProcess(words, status, out, err))

    def must(self, *words, **kwargs):
        done = self.deskcast(*words, **kwargs)
        if done.status:
            raise AssertionError(f'{self.name}: {words}: {done}')
        return done

    def begin(self, *words, store, before=(), environment=()):
        """Run it in the background; end() waits for it."""
        line = self.line(words, store, before, environment)
        self.run("rm -f /run/done /run/slow* /run/calls; cat >/run/begin <<'END'\n"
                 f'echo $$ >/run/pid; exec {line}\nEND\n'
                 '(sh /run/begin >/run/out 2>/run/err; echo $? >/run/status; '
                 'mv /run/status /run/done) </dev/null >/dev/null 2>&1 &')

    def ended(self):
        return self.run('test -e /run/done', check=False)[0] == 0

    def end(self, timeout=PATIENCE):
        until(self.ended, timeout, f'the command on {self.name} ends', 0.2)
        status = int(self.run('cat /run/done'))
        return env.Result(subprocess.CompletedProcess(
            '', status, self.run('cat /run/out'), self.run('cat /run/err')))

    def until_slow(self):
        """The command is where it waits for its storage daemon."""
        until(lambda: self.run('test -e /run/slow', check=False)[0] == 0 or
              self.ended(), PATIENCE, f'{self.name} is in the middle of it', 0.2)


class Place:
    """The server and two hosts, for use in a with statement.

    .www     the folder of the server, as it is on its own disk
    """

    def __init__(self, folder):
        self.folder = folder
        self.image = guest_image()
        self.how, _ = accel.choose(env.BUILD / 'qemu/qemu-system-x86_64',
                                   str(self.image))
        self.tools = Tools(folder)
        self.server = Server()
        self.www = self.server.www
        self.a, self.b = Host(self, 'admin-a'), Host(self, 'admin-b')
        self.wires = []

    def __enter__(self):
        self.server.__enter__()
        try:
            for host in (self.a, self.b):
                host.boot()
            for host in (self.a, self.b):
                host.ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for host in (self.a, self.b):
            if host.machine:
                host.die()
        for wire in self.wires:
            wire.kill()
        self.server.__exit__()

    def store(self, name):
        """A folder for one test: on the server's disk, and as hosts see it"""
        (self.www / name).mkdir()
        return self.www / name / 'store', MOUNT / name / 'store'

    def until_cut(self, n):
        """Host a's command has come to call @n, or to its end"""
        until(lambda: self.a.run(f"grep -q '^{n} ' /run/calls", check=False)[0] == 0
              or self.a.ended(), PATIENCE, f'call {n}', 0.2)

    def wire(self, old):
        """A way to the server that breaks when a client has moved the file
        @old out of the way of another one of that name; its port, and the file
        that is there then."""
        broken = self.folder / f'broken-{old}'
        port = PORT + 1 + len(self.wires)
        self.wires.append(Process(
            [sys.executable, pathlib.Path(__file__).with_name('wire.py'), port,
             PORT, old, broken], self.folder / 'wire.log', self.server.netns))
        until(lambda: self.server.netns.listens(port), 10, 'the wire')
        return port, broken

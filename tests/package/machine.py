# SPDX-License-Identifier: GPL-2.0-or-later
"""A tree with the packages as a machine: what runs in it, and the part of systemd
that maintainer scripts ask for something."""

import os
import pathlib
import shlex
import signal
import socket
import subprocess
import time

from stores.process import Process, StoreError, run, until

PROGRAMS = '/usr/lib/deskcast'
# In seconds: what a unit may take to start that says nothing of it
START = 90
# It asks, and waits until it was done
SYSTEMCTL = """#!/bin/sh
ask=/debs/ask/$$
echo "$*" >$ask.new
mv $ask.new $ask
while [ -e $ask ]; do sleep 0.05; done
"""


class Tree:
    """path  where it is"""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.debs = self.path / 'debs'

    def inside(self, text):
        """Paths in it, as what runs in it has to name them"""
        return str(text).replace(str(self.path), '')

    def command(self, *argv, env=()):
        return ['chroot', str(self.path), 'env', '-i',
                'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL=C.UTF-8',
                'DEBIAN_FRONTEND=noninteractive', *env,
                *map(self.inside, argv)]

    def run(self, *argv):
        return run(*self.command(*argv))

    def image(self, *argv):
        return self.run(f'{PROGRAMS}/qemu-img', *argv)

    def has_now(self, pid):
        """Is that process of the file that has its name by now?"""
        link = os.readlink(f'/proc/{pid}/exe')
        path = self.path / self.inside(link.removesuffix(' (deleted)'))[1:]
        return os.stat(f'/proc/{pid}/exe').st_ino == path.stat().st_ino

    def lost_files(self, pid):
        """What it has mapped of files that are gone, but for its program"""
        maps = pathlib.Path(f'/proc/{pid}/maps').read_text().splitlines()
        found = {line.split(maxsplit=5)[5] for line in maps
                 if line.endswith(' (deleted)') and '/usr/' in line}
        return found - {os.readlink(f'/proc/{pid}/exe')}


class Unit:
    """A service, by its file. Of systemd's settings it has those that say what
    runs, with what, and for how long it is waited for."""

    def __init__(self, tree, name):
        self.tree = tree
        self.name = name
        self.log = tree.debs / f'{name}.log'
        self.settings = self.read()
        self.process = None
        self.longest = 0.0              # seconds that it was away

    def read(self):
        for lib in ('usr/lib', 'lib'):
            path = self.tree.path / lib / 'systemd/system' / f'{self.name}.service'
            if path.exists():
                text = path.read_text().replace('\\\n', ' ')
                return [line.split('=', 1) for line in text.splitlines()
                        if '=' in line and not line.startswith('#')]
        raise StoreError(f'there is no {self.name}.service')

    def every(self, key):
        return [value for k, value in self.settings if k == key]

    def one(self, key, default=None):
        return (self.every(key) or [default])[-1]

    def environment(self):
        env = dict(pair.split('=', 1) for pair in self.every('Environment'))
        for name in self.every('EnvironmentFile'):
            path = self.tree.path / name.lstrip('-/')
            env |= dict(line.split('=', 1)
                        for line in path.read_text().splitlines())
        return env

    def argv(self, env):
        """A word that is a variable's name alone becomes the words in it."""
        words = shlex.split(self.one('ExecStart'))
        return [w for word in words for w in (
            env.get(word[1:], '').split() if word.startswith('$') else [word])]

    def start(self):
        for key, parent in (('RuntimeDirectory', 'run'),
                            ('CacheDirectory', 'var/cache')):
            for name in self.every(key):
                (self.tree.path / parent / name).mkdir(exist_ok=True)
        env = self.environment()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            # A name that does not depend on where the tree is
            address = f'deskcast-test-{os.getpid()}-{self.name}'
            ready.bind(f'\0{address}')
            ready.settimeout(int(self.one('TimeoutStartSec', START)))
            env['NOTIFY_SOCKET'] = f'@{address}'
            self.process = Process(self.tree.command(
                *self.argv(env), env=[f'{k}={v}' for k, v in env.items()]),
                self.log)
            self.wait(ready)

    def wait(self, ready):
        try:
            while b'READY=1' not in ready.recv(4096).split(b'\n'):
                pass
        except TimeoutError:
            raise StoreError(f'{self.name} is not ready: '
                             f'{self.process.said()}') from None

    def running(self):
        return self.process is not None and self.process.running()

    def pids(self):
        """Its own, and that of its storage daemon"""
        pid = self.process.pid
        children = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
        return [pid, *map(int, until(lambda: children.read_text().split(), 10,
                                     f'{self.name} has a daemon'))]

    def stop(self):
        """As KillMode=mixed does; True if it ended by itself, and well."""
        pids = self.pids()
        self.process.signal(signal.SIGTERM)
        try:
            status = self.process.popen.wait(int(self.one('TimeoutStopSec')))
        except subprocess.TimeoutExpired:
            status = None
        self.process.kill()
        until(lambda: not any(os.path.exists(f'/proc/{p}') for p in pids), 30,
              f'all of {self.name} has ended')
        return status == 0

    def restart(self):
        begin = time.monotonic()
        well = self.stop()
        self.start()
        self.longest = max(self.longest, time.monotonic() - begin)
        if not well:
            raise StoreError(f'{self.name} did not end well: '
                             f'{self.process.said()}')


class Systemd:
    """What runs, and who asks for something. asked: the words of each call but
    for options; a unit's name has no suffix in units."""

    def __init__(self, tree, units):
        self.tree = tree
        self.units = units
        self.asked = []
        self.calls = tree.debs / 'ask'
        self.calls.mkdir(exist_ok=True)
        (tree.path / 'run/systemd/system').mkdir(parents=True, exist_ok=True)
        for path, text in (('usr/bin/systemctl', SYSTEMCTL),
                           ('usr/sbin/policy-rc.d', '#!/bin/sh\nexit 0\n')):
            (tree.path / path).write_text(text)
            (tree.path / path).chmod(0o755)

    def answer(self):
        for call in self.calls.glob('*[0-9]'):
            words = [w for w in call.read_text().split()
                     if not w.startswith('-')]
            self.asked.append(' '.join(words))
            if words[0] == 'try-restart':
                for unit in self.units:
                    if f'{unit.name}.service' in words and unit.running():
                        unit.restart()
            call.unlink()

    def dpkg(self, *argv):
        """dpkg, while its scripts are answered; all that it said"""
        log = self.tree.debs / 'dpkg.log'
        with open(log, 'wb') as out:
            with subprocess.Popen(self.tree.command('dpkg', *argv),
                                  stdin=subprocess.DEVNULL, stdout=out,
                                  stderr=out) as process:
                while process.poll() is None:
                    self.answer()
                    time.sleep(0.02)
        if process.returncode:
            raise StoreError(f'dpkg: {log.read_text()}')
        return log.read_text()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers as processes: whatever becomes of us, they end."""

import functools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from sanitized import SLOWER

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('DESKCAST_BUILD') or TOP / 'build')
OURS = BUILD / 'deskcast'
# For what is large, and for what has to be in memory
LARGE = os.environ.get('DESKCAST_SCRATCH') or str(BUILD)
MEMORY = os.environ.get('DESKCAST_SHM') or '/dev/shm'
if (BUILD / 'qemu').is_dir():
    BUILD = BUILD / 'qemu'
else:
    OURS = BUILD.parent / 'deskcast'

# Seconds until a server has to be ready, and until it has to be gone
START_TIMEOUT = 30
STOP_TIMEOUT = 5 * SLOWER


class StoreError(Exception):
    """A server did not do what it should; says what it printed."""


class Missing(Exception):
    """This machine lacks what it takes; says what."""


@functools.cache
def scratch():
    """A folder that is removed when we end. SCRATCH_LOCK is held: two threads
    would each make one, and the one that is not kept is removed at once."""
    folder = tempfile.TemporaryDirectory(prefix='dk-')
    os.chmod(folder.name, 0o755)    # a server may run as somebody else
    return folder


SCRATCH_LOCK = threading.Lock()


def new_folder(name):
    with SCRATCH_LOCK:
        parent = scratch().name
    return pathlib.Path(tempfile.mkdtemp(prefix=f'{name}-', dir=parent))


def program(name):
    """The path of one of QEMU's programs that we built."""
    return str(BUILD / name)


def need(name):
    path = shutil.which(name, path=os.environ['PATH'] + ':/usr/sbin:/sbin')
    if not path:
        raise Missing(f'there is no {name}')
    return path


def fetch(name):
    """The tree of a server that scripts/fetch-server unpacks."""
    done = subprocess.run([TOP / 'scripts/fetch-server', name], text=True,
                          stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        raise Missing(f'scripts/fetch-server {name}: {done.stderr.strip()}')
    return pathlib.Path(done.stdout.strip())


def guest_image():
    """The disk of a Debian guest, raw."""
    folder = os.environ.get('DESKCAST_GUEST') or subprocess.run(
        [TOP / 'scripts/guest-image', '--quiet'], check=True, text=True,
        stdout=subprocess.PIPE).stdout.strip()
    return pathlib.Path(folder) / 'disk.raw'


def run(*argv, **kwargs):
    """A program to its end; what it printed, or a StoreError."""
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, **kwargs)
    if done.returncode != 0:
        raise StoreError(f'{" ".join(map(str, argv))}: {done.stdout.strip()}')
    return done.stdout


def until(condition, seconds, what, pause=0.01):
    """Wait for it; its value, or a StoreError."""
    seconds *= SLOWER
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise StoreError(f'not within {seconds} s: {what}')
        time.sleep(pause)


def free_port():
    """A TCP port of the loopback interface that nobody uses now. Below the
    range from which the kernel takes the ports of who connects: a server that
    comes back must find it free."""
    for _ in range(1000):
        port = 10000 + int.from_bytes(os.urandom(2), 'little') % 20000
        with socket.socket() as s:
            try:
                s.bind(('127.0.0.1', port))
                return port
            except OSError:
                continue
    raise StoreError('no free port')


def answers(address):
    """Does somebody accept there? A path, or a host and a port."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as s:
        s.settimeout(1)
        try:
            s.connect(address)
            return True
        except OSError:
            return False


class Process:
    """A program that dies with us, or earlier. Start it from the main thread:
    it dies with the thread that made it.

    netns  a Namespace of netns.py that it runs in, or None
    """

    def __init__(self, argv, log, netns=None, env=None, stdin=None):
        enter = netns.enter() if netns else []
        with open(log, 'ab') as out:
            self.popen = subprocess.Popen(
                [*enter, 'setpriv', '--pdeathsig', 'KILL', '--',
                 *map(str, argv)], stdin=stdin or subprocess.DEVNULL,
                stdout=out, stderr=out, env={**os.environ, **(env or {})})
        self.log = log

    @property
    def pid(self):
        return self.popen.pid

    def signal(self, number):
        self.popen.send_signal(number)

    def running(self):
        return self.popen.poll() is None

    def said(self):
        return pathlib.Path(self.log).read_text(errors='replace')[-2000:]

    def stop(self):
        """By its own means if it is quick, and by ours if it is not."""
        if self.running():
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self):
        if self.running():
            self.popen.kill()
        self.popen.wait()


class Store:
    """A server of one image, for use in a with statement. A subclass gives
    argv(), ready() and options().

    image  path of the raw image that is served, read-only
    """

    # Programs that are not to be had make a test skip, not fail
    name = 'store'

    def __init__(self, image, netns=None):
        self.image = pathlib.Path(image)
        self.netns = netns
        self.dir = new_folder(self.name)
        self.log = self.dir / 'log'
        self.process = None
        self.frozen = False

    def argv(self):
        raise NotImplementedError

    def env(self):
        return {}

    def ready(self):
        raise NotImplementedError

    def options(self):
        """BlockdevOptions, as a dictionary, of a node that reads the image."""
        raise NotImplementedError

    def objects(self):
        """What has to be made before such a node: ObjectOptions."""
        return []

    def prepare(self):
        """Before the first start."""

    def configure(self):
        """After each start, once it is ready."""

    def __enter__(self):
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, wait=True):
        self.process = Process(self.argv(), self.log, self.netns, self.env())
        self.frozen = False
        if wait:
            self.wait_ready()

    def wait_ready(self):
        def ready():
            if not self.process.running():
                raise StoreError(f'{self.name} ended')
            return self.ready()
        try:
            until(ready, START_TIMEOUT, f'{self.name} is ready')
        except StoreError as e:
            raise StoreError(f'{e}\n{self.process.said()}') from None
        self.configure()

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def kill(self):
        """As a power failure would."""
        if self.process:
            self.process.kill()
            self.process = None

    def restart(self):
        self.kill()
        self.start()

    def freeze(self):
        """It keeps its connections, and says nothing any more."""
        self.process.signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self):
        self.process.signal(signal.SIGCONT)
        self.frozen = False

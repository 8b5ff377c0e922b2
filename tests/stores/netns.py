# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces of our own: nothing of the machine's network is touched.

A namespace lasts as long as a process that does nothing in it; when we die it
reads the end of its input, and the kernel takes all apart. Addresses are those
of documentation (192.0.2.0/24): nobody else has them.
"""

import contextlib
import os
import subprocess

from .process import Missing, need, run, until


class Namespace:
    """For use in a with statement.

    inside  another Namespace, whose user namespace this one shares
    mounts  it has mounts of its own, too, with /run empty
    """

    def __init__(self, inside=None, mounts=False):
        self.inside = inside
        self.mounts = mounts
        self.holder = None

    def __enter__(self):
        argv = ['unshare', '--net', *(['--mount'] if self.mounts else [])]
        if self.inside:
            argv = [*self.inside.enter(), *argv]
        elif os.geteuid() != 0:
            argv += ['--user', '--map-root-user']
        self.holder = subprocess.Popen(
            [need('setpriv'), '--pdeathsig', 'KILL', '--', *argv, '--', 'sh',
             '-c', 'echo in && exec cat >/dev/null'], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        if self.holder.stdout.readline() != 'in\n':
            why = self.holder.stderr.read().strip()
            self.__exit__()
            raise Missing(f'no network namespaces here: {why}')
        self.run('ip', 'link', 'set', 'lo', 'up')
        if self.mounts:
            self.run('mount', '-t', 'tmpfs', 'tmpfs', '/run')
        return self

    def __exit__(self, *_):
        if self.holder:
            self.holder.kill()
            self.holder.wait()
            for pipe in (self.holder.stdin, self.holder.stdout,
                         self.holder.stderr):
                pipe.close()
            self.holder = None

    def enter(self):
        """What stands in front of a command that shall run inside."""
        argv = [need('nsenter'), '--target', str(self.holder.pid), '--net']
        if os.geteuid() != 0:
            argv += ['--user', '--preserve-credentials']
        return argv + (['--mount'] if self.mounts else []) + ['--']

    def run(self, *argv):
        return run(*self.enter(), *argv)

    def listens(self, port):
        """Does somebody listen there? Without a connection that a server
        would count."""
        return f':{port} ' in self.run('ss', '-Hltn')


class Wire:
    """A pair of virtual interfaces between a client and a server namespace of
    its own. Each fault has its end."""

    def __init__(self, client, number):
        self.client = client
        self.server = Namespace(inside=client)
        self.device = f'wire{number}'
        self.address = f'192.0.2.{4 * number + 1}'
        self.client_address = f'192.0.2.{4 * number + 2}'

    def __enter__(self):
        self.server.__enter__()
        self.server.run('ip', 'link', 'add', self.device, 'type', 'veth',
                        'peer', 'name', self.device, 'netns',
                        str(self.client.holder.pid))
        for space, address in ((self.server, self.address),
                               (self.client, self.client_address)):
            space.run('ip', 'address', 'add', f'{address}/30', 'dev',
                      self.device)
            space.run('ip', 'link', 'set', self.device, 'up')
        until(lambda: 'state UP' in self.client.run('ip', 'link', 'show',
                                                    self.device),
              5, 'the wire is up')
        return self

    def __exit__(self, *_):
        self.server.__exit__()

    def down(self):
        """As a pulled cable: neither side has a carrier."""
        self.server.run('ip', 'link', 'set', self.device, 'down')

    def up(self):
        self.server.run('ip', 'link', 'set', self.device, 'up')

    def drop(self):
        """A black hole: what the server says is lost, and nobody is told."""
        self.server.run('ip', 'route', 'add', 'blackhole',
                        f'{self.client_address}/32')

    def pass_on(self):
        self.server.run('ip', 'route', 'del', 'blackhole',
                        f'{self.client_address}/32')


class Network:
    """A namespace for clients, and a Wire to each of some servers. Root is not
    needed where users may make namespaces."""

    def __init__(self, servers=1):
        self.stack = contextlib.ExitStack()
        self.servers = servers

    def __enter__(self):
        try:
            self.client = self.stack.enter_context(Namespace())
            self.wires = [self.stack.enter_context(Wire(self.client, n))
                          for n in range(self.servers)]
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

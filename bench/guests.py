# SPDX-License-Identifier: GPL-2.0-or-later
"""Real Debian guests whose disk is on a store behind a link, and the relay of
their host."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import tools

sys.path[:0] = [str(tools.REPO / 'tests'), str(tools.REPO / 'tests/e2e')]
import accel                # noqa: E402 (after the line above)
from guest import Guest     # noqa: E402
from stores.link import Link        # noqa: E402
from stores.nbd import StorageDaemon, server_options    # noqa: E402
from stores.node import Node        # noqa: E402
from stores.process import free_port    # noqa: E402

QEMU = str(tools.BUILD / 'qemu-system-x86_64')


class Bench:
    """The image, its tree, and stores of both behind the link."""

    def __init__(self, stack, delay):
        self.image = subprocess.run(
            [tools.REPO / 'scripts/guest-image', '--quiet'], check=True,
            stdout=subprocess.PIPE, text=True).stdout.strip() + '/disk.raw'
        self.size = os.path.getsize(self.image)
        self.folder = pathlib.Path(stack.enter_context(
            tempfile.TemporaryDirectory(dir='/var/tmp')))
        self.tmpfs = pathlib.Path(stack.enter_context(
            tempfile.TemporaryDirectory(dir='/dev/shm')))
        self.how, why = accel.choose(QEMU, self.image)
        print(f'# {self.how}: {why}', flush=True)
        said = tools.run('veritysetup', 'format', self.image,
                         str(self.folder / 'tree'))
        self.root = re.search(r'Root hash:\s*(\w+)', said)[1]
        self.servers = [
            stack.enter_context(StorageDaemon(path))
            for path in (self.image, str(self.folder / 'tree'))]
        self.far, self.tree = (
            stack.enter_context(Link(server, tcp=('127.0.0.1', free_port()),
                                     delay=delay / 2))
            for server in self.servers)

    def guest(self, disk, name='console', **more):
        return Guest(QEMU, disk, str(self.folder / name), accel=self.how,
                     errors='stop', **more)

    def boot(self, disk, name='console'):
        with self.guest(disk, name) as guest:
            seconds = guest.wait_boot()
            if guest.disk_errors():
                raise SystemExit('the guest saw errors of its disk')
            return seconds

    def overlay(self, backing):
        path = self.folder / 'overlay.qcow2'
        path.unlink(missing_ok=True)
        tools.run(tools.IMG, 'create', '-q', '-f', 'qcow2', str(path),
                  str(self.size))
        return {'driver': 'qcow2', 'node-name': 'disk0', 'backing': backing,
                'file': {'driver': 'file', 'filename': str(path)}}

    @contextlib.contextmanager
    def relay(self, trace):
        """With an empty cache."""
        for old in (*self.folder.glob('*.cache'), *self.tmpfs.iterdir()):
            old.unlink()
        extra = {'boot-trace': str(self.folder / 'trace')} if trace else {}
        with Node({**self.common(self.tree), **extra, 'vdisk': 'deb',
                   'version': 1, 'size': self.size, 'verity-root': self.root,
                   'stores': [self.far.options()]}) as relay:
            yield relay
            if relay.popen.poll() is None:
                relay.command('quit')
                relay.popen.wait()

    def common(self, tree):
        return {'driver': 'pvs', 'verity-tree': tree.options(),
                'host-cache': str(self.folder / 'v.cache'),
                'host-cache-map': str(self.tmpfs / 'v.map')}

    def desktop(self, relay, name='desktop'):
        path = self.folder / f'{name}.pvs'
        path.unlink(missing_ok=True)
        tools.run(tools.IMG, 'create', '-q', '-f', 'pvs', '-o',
                  f'role=cache,vdisk=deb,version=1,verity-root={self.root}',
                  str(path), str(self.size))
        return {**self.common(self.tree), 'node-name': 'disk0',
                'file': {'driver': 'file', 'filename': str(path)},
                'stores': [{'driver': 'nbd', 'export': 'disk',
                            'server': server_options(relay.path)}]}

    def pvs(self, trace):
        with self.relay(trace) as relay:
            return self.boot(self.desktop(relay))


def fetched(relay):
    """Bytes of the image and of its tree."""
    stores = relay.command('query-vdisks')[0]['pvs']['stores']
    return sum(s['bytes'] for s in stores)

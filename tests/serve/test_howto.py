# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/operations/serving.rst, its commands one after the other, in a folder
instead of /."""

import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile

from stores.process import MEMORY, TOP, free_port, new_folder, until

from .env import (MIB, Desktop, Service, StoreError, VdiskStore, noise, same,
                  shows)

PAGE = TOP / 'docs/operations/serving.rst'


def blocks():
    """What is indented after '::'"""
    text = PAGE.read_text()
    found = re.findall(r'::\n\n((?:    .*\n|\n)+)', text)
    return [re.sub('^    ', '', b, flags=re.M) for b in found]


class Machine:
    """Store and host in one: folders, and systemctl as far as it goes."""

    def __init__(self):
        self.root = new_folder('howto')
        self.memory = pathlib.Path(tempfile.mkdtemp(prefix='dk-', dir=MEMORY))
        self.port = free_port()
        self.services = []
        (self.root / 'etc').mkdir()
        (self.root / 'cache').mkdir()

    def here(self, text):
        """The same for this machine"""
        for there, here in (('/srv/deskcast', self.root / 'srv'),
                            ('/etc/deskcast', self.root / 'etc'),
                            ('/var/cache/deskcast', self.root / 'cache'),
                            ('/run/deskcast', self.memory),
                            ('store1:10809', f'localhost:{self.port}'),
                            (':10809', f'localhost:{self.port}'),
                            ('DNS:store1', 'DNS:localhost'),
                            ('libvirt-qemu', 'nogroup')):
            text = text.replace(there, str(here))
        return text

    def enable(self, name):
        """Start a unit: its own command line and its own options"""
        unit = (TOP / f'packaging/systemd/{name}.service').read_text()
        unit = self.here(unit.replace('\\\n', ' '))
        path = re.search('EnvironmentFile=(.*)', unit)[1]
        variable, value = pathlib.Path(path).read_text().strip().split('=', 1)
        store = re.search('Environment=(DESKCAST_STORE)=(.*)', unit)
        line = re.search(r'ExecStart=/usr/bin/deskcast (.*)', unit)[1]
        argv = shlex.split(line.replace(f'${variable}', value))
        service = Service(argv, env={store[1]: store[2]} if store else {})
        if argv[0] == 'relay':
            service.argv += ['--map-folder', str(self.memory)]
        self.services.append(service)
        service.__enter__()

    def run(self, block):
        """What it printed"""
        printed = ''
        parts = re.split(r'^systemctl enable --now (.*)$', block, flags=re.M)
        for i, part in enumerate(parts):
            if i % 2:
                self.enable(part.strip())
                continue
            done = subprocess.run(['bash', '-e', '-u', '-c', self.here(part)],
                                  stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True)
            if done.returncode:
                raise StoreError(f'{part}: {done.stderr}')
            printed += done.stdout
        return printed

    def end(self):
        for service in reversed(self.services):
            service.__exit__()
        shutil.rmtree(self.memory, ignore_errors=True)


def howto():
    machine = Machine()
    store = VdiskStore()
    store.path.rename(machine.root / 'srv')
    store.path = machine.root / 'srv'
    store.make('win11', {0: noise('howto', 3 * MIB)}, 4 * MIB)
    try:
        printed = ''.join(machine.run(b) for b in blocks())
        if 'subject=O=Example,CN=host1' not in printed:
            return f'the name is printed otherwise: {printed}'
        if not (machine.root / 'etc/psk/keys.psk').read_text().startswith(
                'host1:'):
            return 'no key was made'
        socket = str(machine.memory / 'relay')
        shows(socket, 'win11@1', 'win11@1.tree', seconds=30)
        status = machine.memory / 'relay.json'
        until(lambda: '"hydrated" : true' in status.read_text(), 30,
              'the version is here')
        with Desktop(store, [socket], 'win11', 1) as node:
            bad = same(node.path, store.content['win11', 1])
        # As it says: from sealing on, by itself
        store.make('win11', {MIB: noise('new', MIB)}, promote=False)
        shows(socket, 'win11@2', seconds=30)
        return bad or same(socket, store.content['win11', 2], 'win11@2')
    finally:
        machine.end()


def tests():
    yield 'how-to: the commands of docs/operations/serving.rst', howto

# SPDX-License-Identifier: GPL-2.0-or-later
"""A Ceph cluster of one: a monitor, and an OSD whose objects are in memory."""

import os
import uuid

from .far import LIBRARIES, TcpStore, library_path
from .process import Process, fetch, program, run, until

POOL, IMAGE = 'disks', 'disk'


class Ceph(TcpStore):
    """process is the OSD, which is what faults are for; killed, it has lost what
    it held."""

    name = 'ceph'

    def prepare(self):
        self.tree = fetch('ceph')
        self.monitor = None
        self.osd_uuid = str(uuid.uuid4())
        self.conf = self.dir / 'ceph.conf'
        self.conf.write_text(self.configuration())
        self.start_monitor()
        self.ceph('osd', 'new', self.osd_uuid)
        (self.dir / 'osd').mkdir()
        self.tool('ceph-osd', '--mkfs', '-i', '0', '--osd-uuid', self.osd_uuid)

    def configuration(self):
        lib = self.tree / LIBRARIES
        return (f'[global]\nfsid = {uuid.uuid4()}\nlog file = {self.log}\n'
                f'mon host = [v2:127.0.0.1:{self.port}/0]\n'
                f'admin socket = {self.dir}/$name.asok\nrun dir = {self.dir}\n'
                'crash dir =\nauth cluster required = none\n'
                'auth service required = none\nauth client required = none\n'
                'auth allow insecure global id reclaim = true\n'
                'public addr = 127.0.0.1\ncluster addr = 127.0.0.1\n'
                'osd fast shutdown = false\nmon cluster log to file = false\n'
                'osd crush chooseleaf type = 0\nosd pool default size = 1\n'
                'osd pool default min size = 1\n'
                'osd pool default pg num = 8\nmon allow pool size one = true\n'
                'mon osd down out interval = 0\n'
                f'plugin dir = {lib}/ceph\n'
                f'erasure code dir = {lib}/ceph/erasure-code\n'
                f'osd class dir = {lib}/rados-classes\n'
                f'mon data = {self.dir}/mon\nosd data = {self.dir}/osd\n'
                'osd objectstore = memstore\nmemstore device bytes = 4G\n'
                'osd memory target = 1G\n')

    def env(self):
        lib = self.tree / LIBRARIES
        return {**library_path(lib, lib / 'ceph'),
                'PYTHONPATH': str(self.tree / 'usr/lib/python3/dist-packages')}

    def tool(self, name, *argv):
        return run(self.tree / 'usr/bin' / name, '-c', self.conf, *argv,
                   env={**os.environ, **self.env()}, timeout=60)

    def ceph(self, *argv):
        return run('/usr/bin/python3', self.tree / 'usr/bin/ceph', '-c',
                   self.conf, '--connect-timeout', '20', *argv,
                   env={**os.environ, **self.env()}, timeout=60)

    def start_monitor(self):
        mon = self.tree / 'usr/bin/ceph-mon'
        monmap = self.dir / 'monmap'
        fsid = self.conf.read_text().split('fsid = ')[1].split()[0]
        self.tool('monmaptool', '--create', '--fsid', fsid, '--addv', 'a',
                  f'[v2:127.0.0.1:{self.port}]', monmap)
        self.tool('ceph-mon', '--mkfs', '-i', 'a', '--monmap', monmap)
        self.monitor = Process([mon, '-f', '-i', 'a', '-c', self.conf],
                               self.log, env=self.env())
        until(super().ready, 20, 'ceph-mon listens')

    def argv(self):
        return [self.tree / 'usr/bin/ceph-osd', '-f', '-i', '0', '-c',
                self.conf]

    def restart(self):
        """Not by force: it writes down what it holds when it is asked to end."""
        self.stop()
        self.start()

    def ready(self):
        if '1 up' not in self.ceph('osd', 'stat'):
            return False
        return True

    def configure(self):
        """The pool, and the image in it, by our own qemu-img."""
        if POOL in self.ceph('osd', 'pool', 'ls').split():
            return
        self.ceph('osd', 'pool', 'create', POOL, '8', '8')
        run(program('qemu-img'), 'convert', '-f', 'raw', '-O', 'raw',
            self.image, f'rbd:{POOL}/{IMAGE}:conf={self.conf}', timeout=300)

    def options(self):
        return {'driver': 'rbd', 'pool': POOL, 'image': IMAGE,
                'conf': str(self.conf)}

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            if getattr(self, 'monitor', None):
                self.monitor.stop()
            super().__exit__()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Desktops in a tree: real Debian guests in the QEMU of our packages, which look at
what they read, and disks beside theirs that are read and written from here."""

from stores.node import GuestError
from stores.process import until
from stores.reader import Readers

from guest import Guest, mcs_disk     # node has told Python where
from machine import PROGRAMS
from serve.test_upgrade import Writer

RELAY = '/run/deskcast/relay'
# In seconds: four guests are emulated side by side
BOOT = 900
# What takes a second or ten, if the machine has nothing else to do
LONG = 300
FILES = 300
# Files are read anew and compared, one after the other, and so is what it writes.
# /run/progress: how many, and the longest time that one took, in microseconds
WORK = r"""
cat /var/lib/dpkg/info/*.md5sums | grep -E ' (usr/)?s?(bin|lib)/' |
    sort -R --random-source=/bin/sh | head -n {files} >/run/sums
cat >/run/work <<'END'
count=0 longest=0
# In place: who reads it meanwhile finds all of it
tell() {{ printf '%10d %10d\n' $count $longest 1<>/run/progress; }}
one() {{
    begin=${{EPOCHREALTIME/./}}
    got=$(md5sum <"$2")
    took=$((${{EPOCHREALTIME/./}} - begin))
    [ "${{got%% *}}" = "$1" ] || echo "$2" >>/run/wrong
    [ $took -le $longest ] || longest=$took
    count=$((count + 1))
    tell
}}
while :; do
    echo 3 >/proc/sys/vm/drop_caches
    while read -r sum path; do one "$sum" "/$path"; done </run/sums
    head -c 1000000 /dev/urandom >/run/own
    sum=$(md5sum </run/own)
    dd if=/run/own of=/root/own bs=64k conv=fsync status=none || echo write >>/run/wrong
    echo 3 >/proc/sys/vm/drop_caches
    one "${{sum%% *}}" /root/own
done
END
printf '%10d %10d\n' 0 0 >/run/progress; : >/run/wrong
systemd-run --quiet bash /run/work
"""
NOTICED = ('STOP', 'RESUME', 'BLOCK_IO_ERROR', 'VDISK_CORRUPT',
           'VDISK_ASSIGN_FAILED')


def nbd(server, export):
    return {'driver': 'nbd', 'export': export, 'server': server}


class Desktop(Guest):
    """model is 'mcs' or 'pvs'. A probe is a second disk of the model, without a
    guest: .probe reads it."""

    def __init__(self, site, name, model):
        self.site, self.name, self.model = site, name, model
        self.tree = site.tree
        self.socket = self.tree.debs / f'{name}.nbd'
        self.probe = self.writer = None
        self.probes = []                # all that there were
        super().__init__(f'{PROGRAMS}/qemu-system-x86_64', self.disk('disk0'),
                         self.tree.debs / f'{name}.console', memory=384,
                         errors='stop')
        self.command_line = self.tree.command(*self.command_line)

    def disk(self, node):
        path = self.tree.debs / f'{self.name}-{node}'
        site = self.site
        if self.model == 'mcs':
            self.tree.image('create', '-q', '-f', 'mcs', '-b', site.image, '-F',
                            site.version['format'], '-o', 'lifetime=pooled', path)
            return mcs_disk(node, self.tree.inside(path))
        self.tree.image('create', '-q', '-f', 'pvs', '-o',
                        'role=cache,vdisk=debian,version=1,verity-root='
                        f'{site.version["root"]}', path, site.version['size'])
        relay = {'type': 'unix', 'path': RELAY}
        return {'driver': 'pvs', 'node-name': node, 'discard': 'unmap',
                'file': {'driver': 'file', 'filename': self.tree.inside(path)},
                'stores': [nbd(relay, 'debian@%v')],
                'verity-tree': nbd(relay, 'debian@%v.tree'),
                'host-cache': '/var/cache/deskcast/%r.cache'}

    def export(self, node, options):
        self.qmp.command('blockdev-add', **options)
        self.qmp.command('block-export-add', type='nbd', id=f'{node}-export',
                         writable=True, **{'node-name': node})

    def serve(self):
        self.qmp.command('nbd-server-start', **{'addr': {
            'type': 'unix', 'data': {'path': self.tree.inside(self.socket)}}})

    def add_probe(self):
        self.serve()
        self.export('probe', self.disk('probe'))
        self.read_probe()

    def read_probe(self):
        self.probe = Readers(str(self.socket), self.site.raw, threads=1,
                             interval=0.01, export='probe')
        self.probes.append(self.probe.__enter__())

    def add_private(self, port, image):
        """Of the maintenance version of the small vDisk"""
        files = [self.tree.debs / f'private-{role}'
                 for role in ('copy', 'journal')]
        for path, size in zip(files, (len(image), 32 << 20)):
            self.tree.image('create', '-q', '-f', 'pvs', '-o', 'role='
                            f'{path.name[8:]},vdisk=small,version=2', path, size)
        copy, journal = ({'driver': 'file',
                          'filename': self.tree.inside(f)} for f in files)
        store = {'type': 'inet', 'host': '127.0.0.1', 'port': str(port)}
        self.export('disk', {
            'driver': 'pvs', 'node-name': 'disk', 'mode': 'private',
            'file': copy, 'journal': journal,
            'stores': [nbd(store, 'small@2')],
            'label': nbd(store, 'small@2.label')})
        self.writer = Writer(str(self.socket), image)
        self.writer.__enter__()

    def shipped(self):
        """Epochs of the private disk that the store has"""
        return next(d['pvs']['buffer']['epochs-shipped']
                    for d in self.qmp.command('query-vdisks')
                    if d['node-name'] == 'disk')

    def begin(self):
        """Forgotten by the next reset, as all of it"""
        self.run('echo here >/root/marker; sync')
        self.run(WORK.format(files=FILES))

    def progress(self):
        count, longest = self.run('cat /run/progress').split()
        return int(count), int(longest) / 1e6

    def goes_on(self):
        """All of its work, the guest's and that from here"""
        count = self.progress()[0]
        reads = len(self.probe.reads) if self.probe else 0
        until(lambda: self.progress()[0] > count + 30, LONG,
              f'the guest of {self.name} goes on', 0.5)
        if self.probe:
            until(lambda: len(self.probe.reads) > reads + 50, LONG,
                  f'the probe of {self.name} is read on')
        if self.writer:
            writes, epochs = self.writer.count, self.shipped()
            until(lambda: self.writer.count > writes + 50 and
                  self.shipped() > epochs, LONG, 'the private disk is written on')

    def longest(self):
        """{what: the longest time that it waited, in seconds}"""
        found = {f'{self.name}: a file in the guest': self.progress()[1]}
        if self.probe:
            found[f'{self.name}: a read'] = max(p.longest()
                                                for p in self.probes)
        if self.writer:
            found[f'{self.name}: a write, or a read behind it'] = \
                self.writer.longest
        return found

    def bad(self):
        """What somebody has noticed"""
        self.qmp.collect()
        found = [f'event {e["event"]} {e.get("data")}' for e in self.qmp.log
                 if e['event'] in NOTICED]
        found += self.disk_errors() + self.run('cat /run/wrong').splitlines()
        for probe in self.probes:
            found += probe.wrong[:3] + probe.errors[:3]
        found += self.writer.wrong[:3] if self.writer else []
        return [f'{self.name}: {text}' for text in found]

    def ask_reset(self):
        """A read that waits fails when a reset begins; a device would repeat it,
        but there is none before the probe."""
        self.probe.stop()
        self.qmp.events.clear()
        self.qmp.command('system_reset')

    def after_reset(self):
        """It was reset: it has forgotten, and works again."""
        self.wait_reset(BOOT)
        if self.run('cat /root/marker /root/own', check=False)[0] == 0:
            raise GuestError(f'{self.name} has not forgotten')
        self.read_probe()
        self.begin()
        self.goes_on()

    def drained(self):
        """The private disk's writing ends, and the store has all of it."""
        self.writer.__exit__()
        self.qmp.command('vdisk-drain', **{'node-name': 'disk'})
        self.qmp.wait_event('BLOCK_JOB_COMPLETED', LONG)

    def end(self):
        if self.probe:
            self.probe.stop()
        self.qmp.lines.send({'execute': 'quit'})
        self.process.wait(LONG)
        self.kill()

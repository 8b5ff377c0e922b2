# SPDX-License-Identifier: GPL-2.0-or-later
"""Pooled desktops: resets, pushes, and the memory in front of their files."""

import json
import os
import re
import statistics
import subprocess
import time

import tools
from disks import GIB, KIB, MIB, PEERS
from load import order

CLI = tools.BUILD.parent / 'deskcast/cli/deskcast'
# Written 4 KiB here, 4 KiB there, over the whole disk
RESET_DISK = 100 * GIB
DESKTOPS = 1000


def write_spread(target, size, written):
    """Write so many bytes, 4 KiB at places spread over the whole disk."""
    count = written // (4 * KIB)
    step = size // count // (4 * KIB) * 4 * KIB
    return ('-w', '-c', str(count), '-d', '64', '-s', '4096',
            '-S', str(max(step, 4 * KIB)), *target)


class Machine(tools.Daemon):
    """A QEMU whose guest does nothing, with a pooled disk."""

    def __init__(self, disk, options=''):
        super().__init__([
            str(tools.BUILD / 'qemu-system-x86_64'), '-nodefaults', '-display',
            'none', '-accel', 'qtest', '-chardev', 'stdio,id=monitor', '-mon',
            'chardev=monitor,mode=control', '-blockdev',
            f'driver=mcs,node-name=disk0,discard=unmap,file.driver=file,'
            f'file.filename={disk}{options}', '-device',
            'virtio-blk-pci,drive=disk0,share-rw=on'])

    def export(self, path):
        self.command('nbd-server-start', addr={'type': 'unix',
                                               'data': {'path': path}})
        self.command('block-export-add', type='nbd', id='e', **{
            'node-name': 'disk0', 'writable': True})
        return f'nbd+unix:///disk0?socket={path}'

    def end_export(self):
        self.command('block-export-del', id='e', mode='hard')
        self.wait('BLOCK_EXPORT_DELETED')
        self.command('nbd-server-stop')

    def reset_ms(self):
        """Until the guest could run: the machine is reset, and answers."""
        begin = time.monotonic()
        self.command('system_reset')
        self.wait('RESET')
        self.command('query-status')
        return 1000 * (time.monotonic() - begin)


class Pooled:
    def __init__(self, shelf, scale):
        self.shelf = shelf
        self.scale = scale

    def disk(self, name, base, fmt='raw'):
        path = self.shelf.dir / name
        path.unlink(missing_ok=True)
        tools.run(tools.IMG, 'create', '-q', '-f', 'mcs', '-b', str(base),
                  '-F', fmt, '-o', 'lifetime=pooled', str(path))
        return path

    def empty(self, name, size):
        path = self.shelf.dir / name
        with open(path, 'wb') as f:
            f.truncate(size)
        return path

    def reset(self):
        """Milliseconds of a reset, with and without an image to take, by what
        the session had written, and milliseconds of an assignment then."""
        full = self.scale.seconds > 0.2
        amounts = (10 * MIB, 10 * GIB) if full else (10 * MIB, 256 * MIB)
        bases = [self.empty(f'master{n}.raw', RESET_DISK) for n in (0, 1)]
        disk = self.disk('reset.mcs', bases[0])
        rows = {}
        with Machine(disk) as vm:
            for turn in range(2):
                for written in amounts:
                    row = rows.setdefault(f'{written // MIB} MiB', {
                        'reset_ms': [], 'assign_ms': [], 'push_ms': []})
                    self.session(vm, written)
                    row['reset_ms'].append(vm.reset_ms())
                    self.session(vm, written)
                    row['assign_ms'].append(self.assign_ms(
                        vm, bases[(turn + 1) % 2]))
                    row['push_ms'].append(vm.reset_ms())
        for path in (disk, *bases):
            path.unlink()
        return rows

    def session(self, vm, written):
        socket = str(self.shelf.dir / 'nbd')
        target = vm.export(socket)
        tools.bench_seconds(*write_spread(['-f', 'raw', target], RESET_DISK,
                                          written))
        vm.end_export()

    def assign_ms(self, vm, image):
        begin = time.monotonic()
        vm.command('vdisk-assign', **{'node-name': 'disk0',
                                      'filename': str(image), 'format': 'raw'})
        return 1000 * (time.monotonic() - begin)

    def assign(self):
        """Milliseconds of vdisk-assign on a desktop that does nothing."""
        bases = [self.empty(f'master{n}.raw', 64 * MIB) for n in (0, 1)]
        disk = self.disk('assign.mcs', bases[0])
        with Machine(disk) as vm:
            times = [self.assign_ms(vm, bases[n % 2]) for n in range(20)]
        for path in (disk, *bases):
            path.unlink()
        return {'ms': times}

    def push(self):
        """Seconds to assign an image to desktops that are switched off."""
        base = self.empty('master.raw', 64 * MIB)
        disks = [self.disk('desk0.mcs', base)]
        content = disks[0].read_bytes()[:64 * KIB]
        for n in range(1, DESKTOPS):
            disks.append(self.shelf.dir / f'desk{n}.mcs')
            with open(disks[-1], 'wb') as f:
                f.write(content)
                f.truncate(os.stat(disks[0]).st_size)
        # It asks qemu-img, which has to be ours, about the image
        os.environ['PATH'] = f'{tools.BUILD}:{os.environ["PATH"]}'
        seconds = [tools.run_seconds(
            str(CLI), 'desktop', 'assign', '--image', str(base), '--format',
            'raw', *map(str, disks)) for _ in range(3)]
        for path in (base, *disks):
            path.unlink()
        return {'seconds': statistics.median(seconds), 'desktops': DESKTOPS}

    # write-cache-ram

    def ram(self):
        """4 KiB writes a second with cache=none: of a raw file that is
        allocated, of a pooled disk whose working set fits into its memory, and
        of one whose working set is four times as large."""
        size = self.scale.disk
        raw = self.shelf.written(PEERS['raw'], size)
        disk = self.disk('ram.mcs', self.shelf.base(size))
        cases = {'raw': ['-f', 'raw', str(raw)],
                 'inside': tier_target(disk, 2 * size),
                 'overflow': tier_target(disk, size // 4)}
        result = {}
        for depth in (1, 32):
            speed = result[str(depth)] = {name: [] for name in cases}
            # So many that the one that is to overflow does, from early on
            count = size // (4 * KIB) * (2 if depth > 1 else 1)
            for number in range(self.scale.rounds):
                for name in order(list(cases), number):
                    seconds = tools.bench_seconds(
                        '-c', str(count if name != 'raw' else count // 8),
                        '-d', str(depth), '-s', '4096', '-S', str(68 * KIB),
                        '-t', 'none', '-i', 'native', '-w', *cases[name])
                    done = count if name != 'raw' else count // 8
                    speed[name].append(done / seconds)
        disk.unlink()
        return result

    def ram_calls(self):
        """System calls that write, in a session that fits into the memory.
        (Opening a file reads from it, and tries what it can do.)"""
        size = 64 * MIB
        disk = self.disk('calls.mcs', self.shelf.base(self.scale.disk))
        log = self.shelf.dir / 'strace.log'
        tools.run('strace', '-f', '-e', 'trace=pwrite64,pwritev,pwritev2,'
                  'io_submit,fallocate', '-o', str(log),
                  tools.IMG, 'bench', '-w', '-c', str(size // (4 * KIB)),
                  '-s', '4096', '-S', str(68 * KIB), '-t', 'none', '-i',
                  'native', *tier_target(disk, 2 * size))
        calls = len(re.findall(r'^\d+ +(?:pwrite\w*|fallocate)\(|_CMD_PWRITE',
                               log.read_text(errors='replace'), re.M))
        disk.unlink()
        return {'calls': calls, 'writes': size // (4 * KIB)}

    def ram_latency(self):
        """The longest request, in milliseconds, of fio writing over NBD to a
        raw file, and to a pooled disk whose memory is full."""
        size = self.scale.disk
        result = {}
        for name in ('raw', 'overflow'):
            if name == 'raw':
                options = (f'driver=raw,file.driver=file,file.filename='
                           f'{self.shelf.written(PEERS["raw"], size)}')
            else:
                disk = self.disk('late.mcs', self.shelf.base(size))
                options = (f'driver=mcs,file.driver=file,file.filename={disk},'
                           f'write-cache-ram={size // 4}')
            result[name] = [self.longest(options)
                            for _ in range(max(3, self.scale.rounds // 2))]
        disk.unlink()
        return result

    def longest(self, options):
        socket = self.shelf.dir / 'fio'
        server = subprocess.Popen(
            [str(tools.BUILD / 'qemu-nbd'), '-k', str(socket), '-t', '--cache',
             'none', '--aio', 'native', '--image-opts', options])
        try:
            while not socket.exists():
                time.sleep(0.05)
            out = tools.run(
                'fio', '--name=w', '--ioengine=nbd', f'--uri=nbd+unix:///?socket'
                f'={socket}', '--rw=randwrite', '--bs=4k', '--iodepth=16',
                f'--size={self.scale.disk}', '--time_based',
                f'--runtime={3 if self.scale.seconds > 0.2 else 1}',
                '--output-format=json')
        finally:
            server.terminate()
            server.wait()
        job = json.loads(out[out.index('{'):])['jobs'][0]['write']
        return {'max_ms': job['clat_ns']['max'] / 1e6, 'iops': job['iops']}


def tier_target(disk, ram):
    return ['--image-opts', f'driver=mcs,file.filename={disk},'
            f'file.aio=native,file.cache.direct=on,write-cache-ram={ram}']

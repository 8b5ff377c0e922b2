# SPDX-License-Identifier: GPL-2.0-or-later
"""Import, verify, export, diff: by content."""

import os
import subprocess

from . import env, sources
from .env import deskcast, must
from .test_store import Mounted, first_of, refused
from stores import far


STEPS_SIZE = 300 << 20      # twice what is made durable at once, and more


def new_store(folder):
    store = folder / 'store'
    must('store', 'create', store)
    return store


def nothing(store):
    """No vDisk, and no files of one."""
    left = env.strangers(store) + [p.name for p in
                                   (store / 'vdisks').iterdir()]
    return f'there are {left}' if left else ''


def padded(data):
    return data + bytes(-len(data) % 4096)


def imported(store, name, data):
    if env.content(store, name, 1) != padded(data):
        return f'{name}: not the content of the source'
    v = env.versions(env.manifest(store, name))[1]
    if (v['access'], v['parent'], v['format']) != ('test', 0, 'raw'):
        return f'{name}: {v}'
    return ''


def formats(folder):
    """Each format is imported by content, sparsely, with veritysetup's tree"""
    store = new_store(folder)
    data = sources.raw(folder / 'disk.raw')
    for name, kind, options in sources.FORMATS:
        source = sources.make(folder, name, kind, options)
        vdisk = name.replace('.', '-')
        done = must('vdisk', 'import', source, vdisk, '--json', store=store)
        why = imported(store, vdisk, data)
        if why or done.json()['root'] != \
                env.versions(env.manifest(store, vdisk))[1]['root']:
            return why or f'{vdisk}: {done}'
        blocks = (store / 'vdisks' / vdisk / '1.raw').stat().st_blocks
        if blocks * 512 > sources.SIZE * 3 / 4:
            return f'{vdisk}: {blocks} sectors are allocated'
    return env.what_is_wrong(store) or str(env.strangers(store) or '')


def sizes(folder):
    """Disks of one sector, one block, one span, and all zeros"""
    store = new_store(folder)
    for size in (512, 4096, 4608, 524288, 524288 + 512, 1048576 + 4096):
        for pieces in (0, 3):
            path = folder / 'size.raw'
            data = sources.raw(path, size, size, pieces)
            if not pieces:
                data = bytes(size)
                path.write_bytes(data)
            must('vdisk', 'import', path, f's{size}-{pieces}', store=store)
            why = imported(store, f's{size}-{pieces}', data)
            if why:
                return why
    return env.what_is_wrong(store)


def steps(folder):
    """A disk that is compared while it is still being written"""
    store = new_store(folder)
    data = sources.raw(folder / 'disk.raw', STEPS_SIZE, STEPS_SIZE, 200)
    env.qemu_img('convert', '-f', 'raw', '-O', 'qcow2', folder / 'disk.raw',
                 folder / 'disk.qcow2')
    must('vdisk', 'import', folder / 'disk.qcow2', 'win', store=store)
    return imported(store, 'win', data) or env.what_is_wrong(store)


def check_bad(store, folder, cases):
    for name, argv, *texts in cases:
        done = deskcast('vdisk', 'import', folder / name, 'bad', *argv,
                        store=store)
        why = refused(done, *texts) or nothing(store)
        if why:
            return f'{name}: {why}'
    return ''


def cut_off(folder):
    """A source that was cut off, of each format, early and late"""
    store = new_store(folder)
    sources.raw(folder / 'disk.raw')
    for name, kind, options in sources.FORMATS:
        for part in (0, 0.3, 0.9):
            source = sources.make(folder, name, kind, options)
            if name == 'flat.vmdk':
                source = folder / 'flat-flat.vmdk'
            if name == 'split.vmdk':
                source = folder / 'split-s001.vmdk'
            sources.cut(source, part)
            why = check_bad(store, folder, [(name, [])])
            if why:
                return f'{part}: {why}'
            if kind == 'raw':
                sources.raw(folder / 'disk.raw')
    return ''


def dependent(folder):
    """Images that name other files: backing, data, parents, extents"""
    store = new_store(folder)
    data = sources.raw(folder / 'disk.raw')
    secret = folder / 'secret'
    secret.mkdir()
    (secret / 'file').write_bytes(data)
    env.qemu_img('create', '-f', 'qcow2', '-b', folder / 'disk.raw', '-F',
                 'raw', folder / 'over.qcow2')
    env.qemu_img('create', '-f', 'qcow2', '-o',
                 f'data_file={secret}/file,data_file_raw=on',
                 folder / 'out.qcow2', sources.SIZE)
    for name in ('dynamic.vhd', 'disk.vdi'):
        sources.make(folder, name, *next(
            f[1:] for f in sources.FORMATS if f[0] == name))
    sources.patch(folder / 'dynamic.vhd', 60, b'\0\0\0\4')
    sources.patch(folder / 'disk.vdi', 0x4c, b'\4\0\0\0')
    extents = {
        'absolute': f'RW 18435 FLAT "{secret}/file" 0',
        'up': 'RW 18435 FLAT "../secret/file" 0',
        'below': 'RW 18435 FLAT "secret/file" 0',
        'address': 'RW 18435 FLAT "nbd:127.0.0.1:1" 0',
        'pseudo': 'RW 18435 FLAT "json:{}" 0',
        'tab': f'RW\t18435\tFLAT\t"{secret}/file"\t0',
        'lines': f'RW\n18435\nFLAT\n"{secret}/file"\n0',
    }
    damaged = {
        'open': f'x="a\nRW 18435 FLAT "{secret}/file" 0',
        'end': f'x="a\nRW 18435 VMFS "{secret}/file',
    }
    for name, line in damaged.items():
        (folder / f'{name}.vmdk').write_text(sources.vmdk_descriptor(line))
    for name, line in extents.items():
        (folder / f'{name}.vmdk').write_text(sources.vmdk_descriptor(line))
    (folder / 'child.vmdk').write_text(sources.vmdk_descriptor(
        'RW 18435 FLAT "flat" 0', parent='1234abcd'))
    alone = 'not complete by itself'
    return check_bad(store, folder, [
        ('over.qcow2', [], alone, 'backing'), ('out.qcow2', [], alone),
        ('dynamic.vhd', [], alone), ('disk.vdi', [], alone),
        ('child.vmdk', [], alone),
        *((f'{name}.vmdk', [], 'not beside it') for name in extents),
        *((f'{name}.vmdk', [], 'is damaged') for name in damaged)])


def wrong_format(folder):
    """A format that is not known, not told, or not the file's; other names"""
    store = new_store(folder)
    data = sources.raw(folder / 'disk.raw')
    for name in ('disk.qcow2', 'disk.vhdx'):
        sources.make(folder, name, name.split('.')[1], [])
    (folder / 'disk.img').write_bytes((folder / 'disk.qcow2').read_bytes())
    (folder / 'disk.bin').write_bytes(data)
    (folder / 'rot.qcow2').write_bytes(b'QFI\xfb' + b'\xff' * 70000)
    (folder / 'empty.raw').write_bytes(b'')
    (folder / 'odd.raw').write_bytes(data[:-5])
    (folder / 'folder.raw').mkdir()
    why = check_bad(store, folder, [
        ('disk.qcow2', ['--format', 'floppy'], 'is not known'),
        ('disk.qcow2', ['--format', 'vhdx'], 'but like qcow2'),
        ('disk.raw', ['--format', 'vdi'], 'does not begin like'),
        ('disk.img', [], 'like a qcow2 image'), ('disk.bin', [], '--format'),
        ('rot.qcow2', []), ('empty.raw', [], 'empty'),
        ('odd.raw', [], 'multiple of 512'), ('none.raw', [], 'No such file'),
        ('folder.raw', [], 'neither a file')])
    for url in ('http://127.0.0.1:1/disk.raw', 'json://{}', 'ftp://h/d.raw'):
        why = why or refused(deskcast('vdisk', 'import', url, 'bad',
                                      store=store), 'only https')
    must('vdisk', 'import', folder / 'disk.bin', 'win', '-f', 'raw',
         store=store)
    return first_of(
        why, imported(store, 'win', data),
        refused(deskcast('vdisk', 'import', folder / 'disk.raw', 'win',
                         store=store), 'already'),
        refused(deskcast('vdisk', 'import', folder / 'disk.raw', 'a/b',
                         store=store), status=2))


def check_lies(store, source, data, environment):
    """@environment: of commands that do more than they should"""
    zero = data.index(bytes(8192)) + 4096
    for offset in (0, zero, sources.SIZE - 1, sources.PADDED - 1, 5000000):
        done = deskcast('vdisk', 'import', source, 'win', store=store,
                        environment=environment(
                            sources.flip('$target', offset)))
        at = offset // 4096 * 4096
        why = refused(done, 'not what the source holds', f'{at} to ') or \
            nothing(store)
        if why:
            return f'{offset}: {why}'
    # What was not written, or written twice
    full = next(i for i in range(0, len(data), 4096) if any(data[i:i + 4096]))
    for line in (f'fallocate -p -o {full} -l 4096 "$target"',
                 f'dd if="$target" of="$target" bs=4096 count=1 conv=notrunc '
                 f'skip={full // 4096} seek={zero // 4096} 2>/dev/null'):
        done = deskcast('vdisk', 'import', source, 'win', store=store,
                        environment=environment(line))
        why = refused(done, 'not what the source holds') or nothing(store)
        if why:
            return f'{line}: {why}'
    must('vdisk', 'import', source, 'win', store=store,
         environment=environment('true'))
    return imported(store, 'win', data)


def lying(folder):
    """A copy that is wrong in one bit, anywhere, is found"""
    data = sources.raw(folder / 'disk.raw')
    return check_lies(new_store(folder),
                      sources.make(folder, 'disk.qcow2', 'qcow2', []), data,
                      sources.meddler)


def lying_converter(folder):
    """So is a converter that is wrong"""
    data = sources.raw(folder / 'disk.raw')
    source = sources.make(folder, 'flat.vmdk', *next(
        f[1:] for f in sources.FORMATS if f[0] == 'flat.vmdk'))
    return check_lies(new_store(folder), source, data,
                      lambda line: sources.converter(folder, line))


def changing(folder):
    """A source that somebody writes to meanwhile is found"""
    store = new_store(folder)
    sources.raw(folder / 'disk.raw')
    source = sources.make(folder, 'disk.qcow2', 'qcow2', [])
    for line in (sources.flip(folder / 'disk.raw', 700000),
                 f'truncate -s 9M {folder}/disk.raw',
                 f'truncate -s 12M {folder}/disk.raw'):
        sources.raw(folder / 'disk.raw')
        done = deskcast('vdisk', 'import', folder / 'disk.raw', 'win',
                        store=store, environment=sources.meddler(line))
        why = refused(done) or nothing(store)
        if why:
            return f'{line}: {why}'
    # Where the file's times tell; and where those of the descriptor do not
    flat = sources.make(folder, 'flat.vmdk', *next(
        f[1:] for f in sources.FORMATS if f[0] == 'flat.vmdk'))
    for path, meddle, line, text in (
            # Which reading sees it is chance; some does, or the times tell
            (source, sources.meddler,
             sources.flip(source, source.stat().st_size - 5000),
             'nothing was imported'),
            (source, sources.meddler, f'touch {source}', 'was changed'),
            (flat, lambda line: sources.converter(folder, line),
             sources.flip(folder / 'flat-flat.vmdk', 700000),
             'not what the source holds')):
        done = deskcast('vdisk', 'import', path, 'win', store=store,
                        environment=meddle(line))
        why = refused(done, text) or nothing(store)
        if why:
            return f'{line}: {why}'
    return ''


def converter_fails(folder):
    """A converter that fails, is killed, or is not there; a disk that fails"""
    store = new_store(folder)
    sources.raw(folder / 'disk.raw')
    flat = sources.make(folder, 'flat.vmdk', *next(
        f[1:] for f in sources.FORMATS if f[0] == 'flat.vmdk'))
    for line, text in (('echo qemu-img: no luck >&2; exit 1', 'no luck'),
                       ('kill -9 $$', 'signal 9')):
        done = deskcast('vdisk', 'import', flat, 'win', store=store,
                        environment=sources.converter(folder, line))
        why = refused(done, text) or nothing(store)
        if why:
            return f'{line}: {why}'
    why = refused(deskcast('vdisk', 'import', folder / 'disk.raw', 'win',
                           store=store, environment=sources.meddler('false')),
                  'make durable', '1.raw') or nothing(store)
    if why:
        return why
    for name in ('DESKCAST_QEMU_IMG', 'DESKCAST_QSD'):
        source = sources.make(folder, 'disk.qcow2', 'qcow2', [])
        done = deskcast('vdisk', 'import', source, 'win', store=store,
                        environment={name: '/nonexistent/program'})
        why = refused(done, '/nonexistent/program') or nothing(store)
        if why:
            return f'{name}: {why}'
    return ''


def full(folder):
    """A file system that becomes full on the way, and then has room"""
    data = sources.raw(folder / 'disk.raw')
    with Mounted(folder, '1M') as mount:
        store = new_store(mount.folder)
        done = deskcast('vdisk', 'import', folder / 'disk.raw', 'win',
                        store=store)
        why = refused(done, 'No space') or nothing(store)
    (folder / 'roomy').mkdir()
    with Mounted(folder / 'roomy', '40M') as mount:
        store = new_store(mount.folder)
        must('vdisk', 'import', folder / 'disk.raw', 'win', store=store)
        return why or imported(store, 'win', data)


class Server(far.Nginx):
    """With the image under a name with a suffix, too"""

    def prepare(self):
        super().prepare()
        (self.dir / 'www' / self.image.name).symlink_to(self.image.resolve())

    def url(self, host='127.0.0.1'):
        return f'https://{host}:{self.port}/{self.image.name}'

    def trusted(self):
        """For a command that is to trust the server's authority"""
        return ['unshare', '--mount', 'sh', '-c', 'mount --bind "$0" '
                '/etc/ssl/certs/ca-certificates.crt && exec "$@"',
                self.dir / 'cert.pem']


def https(folder):
    """From a URL; not from a server that nobody vouches for"""
    store = new_store(folder)
    data = sources.raw(folder / 'disk.raw')
    source = sources.make(folder, 'disk.qcow2', 'qcow2', [])
    with Server(source) as server:
        url = server.url()
        why = refused(deskcast('vdisk', 'import', url, 'win', store=store)) or \
            nothing(store)
        why = why or refused(
            deskcast('vdisk', 'import', server.url('localhost'), 'win',
                     store=store, before=server.trusted())) or nothing(store)
        must('vdisk', 'import', url + '?x=1#y', 'win', store=store,
             before=server.trusted())
        why = why or refused(
            deskcast('vdisk', 'import', url.replace('disk.', 'none.'), 'bad',
                     store=store, before=server.trusted()))
    return why or imported(store, 'win', data) or env.what_is_wrong(store)


def block_device(folder):
    """From a block device, and not while it is mounted"""
    store = new_store(folder)
    data = sources.raw(folder / 'disk.raw')
    done = subprocess.run(['losetup', '--find', '--show', folder / 'disk.raw'],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        from stores.process import Missing
        raise Missing(f'losetup: {done.stderr.strip()}')
    device = done.stdout.strip()
    try:
        must('vdisk', 'import', device, 'win', store=store)
        subprocess.run(['mke2fs', '-q', device], check=True)
        point = folder / 'point'
        point.mkdir()
        subprocess.run(['mount', device, point], check=True)
        try:
            why = refused(deskcast('vdisk', 'import', device, 'bad',
                                   store=store), 'in use')
        finally:
            subprocess.run(['umount', point], check=True)
    finally:
        subprocess.run(['losetup', '-d', device], check=True)
    return why or imported(store, 'win', data)


TESTS = [formats, sizes, steps, cut_off, dependent, wrong_format, lying,
         lying_converter, changing, converter_fails, full, https,
         block_device]


def run_in_folder(test):
    with env.Folder() as folder:
        return test(folder)


def tests(tap, _long):
    for test in TESTS:
        text = test.__doc__.split('\n', maxsplit=1)[0]
        if test in (full, block_device, https) and os.geteuid():
            tap.skip(f'import: {text}', 'only root can mount')
        else:
            tap.run(f'import: {text}', run_in_folder, test)

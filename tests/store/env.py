# SPDX-License-Identifier: GPL-2.0-or-later
"""deskcast, stores to try it on, and what they hold, read without it."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('DESKCAST_BUILD', TOP / 'build'))
OURS = BUILD / 'deskcast'
DESKCAST = OURS / 'cli/deskcast'
CUT = OURS / 'tests/store/cut'
AT_SYNC = OURS / 'tests/store/at-sync.so'
QEMU_IMG = BUILD / 'qemu/qemu-img'
QSD = BUILD / 'qemu/storage-daemon/qemu-storage-daemon'
ENV = {**os.environ, 'DESKCAST_QEMU_IMG': str(QEMU_IMG),
       'DESKCAST_QSD': str(QSD), 'TZ': 'UTC', 'LC_ALL': 'C.UTF-8'}
BLOCK = 4096


def build():
    if not (OURS / 'build.ninja').exists():
        subprocess.run(['meson', 'setup', OURS, TOP], check=True,
                       stdout=subprocess.DEVNULL)
    subprocess.run(['ninja', '-C', OURS], check=True,
                   stdout=subprocess.DEVNULL)


class Result:
    """What a command answered."""

    def __init__(self, done):
        self.status = done.returncode
        self.out, self.err = done.stdout, done.stderr

    def json(self):
        return json.loads(self.out)

    def __str__(self):
        return f'exit {self.status}, {self.out!r}, {self.err!r}'


def deskcast(*argv, store=None, before=(), timeout=60, environment=()):
    """Run it; the store goes behind the command's words."""
    argv = [str(a) for a in argv]
    env = {**ENV, **dict(environment)}
    if store:
        env['DESKCAST_STORE'] = str(store)
    done = subprocess.run([*map(str, before), DESKCAST, *argv], env=env,
                          text=True, capture_output=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, check=False)
    return Result(done)


def must(*argv, **kwargs):
    done = deskcast(*argv, **kwargs)
    if done.status:
        raise AssertionError(f'{argv}: {done}')
    return done


def qemu_img(*argv):
    subprocess.run([QEMU_IMG, *map(str, argv)], check=True, env=ENV,
                   stdout=subprocess.DEVNULL)


class Folder:
    """A temporary folder."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix='deskcast-store-'))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path)


def boot_trace(path, version, *granules):
    """A boot trace of @version of a manifest, in the file @path"""
    done = subprocess.run([OURS / 'tests/store/boot-trace',
                           str(version['size']), version['root'],
                           *map(str, granules)], check=True,
                          stdout=subprocess.PIPE)
    path.write_bytes(done.stdout)
    return path


# What is in a store, by the specification and not by our code

def manifest(store, vdisk):
    return json.loads((store / 'vdisks' / vdisk / 'manifest.json').read_text())


def versions(m):
    return {v['version']: v for v in m['versions']}


def chain(store, vdisk, m, v):
    """The blockdev definition of a version."""
    node = {'driver': v['format'],
            'file': {'driver': 'file', 'locking': 'off', 'filename':
                     str(store / 'vdisks' / vdisk / v['image'])}}
    if v['parent']:
        node['backing'] = chain(store, vdisk, m, versions(m)[v['parent']])
    elif v['format'] == 'qcow2':
        node['backing'] = None
    return node


READ = {}


def content(store, vdisk, number):
    """All bytes of a version, with its label if it has one. Files that have
    not changed since they were read, or are copies of such, are not read."""
    m = manifest(store, vdisk)
    v = versions(m)[number]
    key = [(m['uuid'], number)]
    while True:
        st = (store / 'vdisks' / vdisk / v['image']).stat()
        key.append((v['image'], v['format'], st.st_size, st.st_mtime_ns))
        if not v['parent']:
            break
        v = versions(m)[v['parent']]
    key = tuple(key)
    if key not in READ:
        READ[key] = read(store, vdisk, m, versions(m)[number])
    return READ[key]


def read(store, vdisk, m, v):
    with tempfile.NamedTemporaryFile(prefix='deskcast-content-') as raw:
        qemu_img('convert', '-O', 'raw',
                 'json:' + json.dumps(chain(store, vdisk, m, v)), raw.name)
        return pathlib.Path(raw.name).read_bytes()


def tree(data, salt, uuid):
    """The file that veritysetup format would write for it, and the root."""
    salt = bytes.fromhex(salt)

    def hashes(blocks):
        return b''.join(hashlib.sha256(salt + blocks[i:i + BLOCK]).digest()
                        for i in range(0, len(blocks), BLOCK))

    def fill(level):
        return level + bytes(-len(level) % BLOCK)

    levels, level = [], hashes(data)
    while len(level) > 32:
        levels.insert(0, fill(level))
        level = hashes(levels[0])
    head = (b'verity\0\0' + (1).to_bytes(4, 'little') +
            (1).to_bytes(4, 'little') + bytes.fromhex(uuid.replace('-', '')) +
            b'sha256'.ljust(32, b'\0') + BLOCK.to_bytes(4, 'little') * 2 +
            (len(data) // BLOCK).to_bytes(8, 'little') +
            len(salt).to_bytes(2, 'little') + bytes(6) + salt)
    return fill(head) + b''.join(levels), level.hex()


def what_is_wrong(store):
    """Of a whole store: manifests, images, trees, and files nobody names.
    Returns text, empty if nothing is."""
    for folder in sorted((store / 'vdisks').iterdir()):
        if folder.name.startswith('.'):
            continue
        m = manifest(store, folder.name)
        for number, v in versions(m).items():
            why = wrong_version(store, folder.name, m, number, v)
            if why:
                return f'{folder.name}@{number}: {why}'
    done = deskcast('vdisk', 'list', '--json', store=store)
    return f'vdisk list: {done}' if done.status else ''


def wrong_version(store, vdisk, m, number, v):
    data = content(store, vdisk, number)
    if v['access'] == 'maintenance':
        # The label may be cut off already while it is being sealed
        fits = len(data) - v['size'] in (0, BLOCK)
        return '' if fits else f'{len(data)} bytes'
    image = store / 'vdisks' / vdisk / v['image']
    if image.stat().st_mode & 0o222:
        return 'sealed, and can be written'
    if len(data) != v['size']:
        return f'{len(data)} bytes instead of {v["size"]}'
    want, root = tree(data, m['salt'], m['uuid'])
    if root != v['root']:
        return 'its content is not what was sealed'
    if (store / 'vdisks' / vdisk / v['tree']).read_bytes() != want:
        return 'its tree is another one'
    return wrong_trace(store / 'vdisks' / vdisk, v) if 'trace' in v else ''


def wrong_trace(folder, v):
    path = folder / v['trace']
    data = path.read_bytes()
    runs = int.from_bytes(data[64:68], 'little')
    if path.stat().st_mode & 0o222:
        return 'its boot trace can be written'
    if data[32:64].hex() != v['root'] or len(data) != 72 + 12 * runs:
        return 'its boot trace is another one'
    return ''


def strangers(store):
    """Files and folders that no manifest names."""
    known = {'store.json', 'lock', 'vdisks', 'staging'}
    for folder in (store / 'vdisks').iterdir():
        if folder.name.startswith('.'):
            continue
        known |= {f'vdisks/{folder.name}', f'vdisks/{folder.name}/manifest.json'}
        for v in manifest(store, folder.name)['versions']:
            known |= {f'vdisks/{folder.name}/{v[k]}'
                      for k in ('image', 'tree', 'trace') if k in v}
    there = {str(p.relative_to(store)) for p in store.rglob('*')}
    return sorted(there - known)


def state(store):
    """What counts of the manifests: no times, no revisions."""
    result = {}
    for folder in sorted((store / 'vdisks').iterdir()):
        if folder.name.startswith('.'):
            continue
        m = manifest(store, folder.name)
        result[folder.name] = {
            v['version']: {k: x for k, x in v.items()
                           if k not in ('created', 'sealed', 'root')}
            for v in m['versions']}
    # A vDisk without versions does not count as one
    return {name: v for name, v in result.items() if v}
